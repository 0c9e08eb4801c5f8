//! Jobs in goim's own formats, and plain ones, written by Kafka's client for Java, which has nothing in common with Halley's.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use xtask::kafka::{Broker, lacks_compiler};

use crate::support::{Client, Transport};
use crate::world::{Wire, broker, gateway, jars, room_job, source, topic, until_dispatched};

/// The program that writes, from its source.
struct Java {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    topic: String,
}

impl Java {
    /// `None`, said, where this machine's Java does not compile. In CI that is a failure.
    fn start(broker: &Broker, topic: &str) -> Option<Self> {
        if let Some(why) = lacks_compiler() {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka/Producer.java");
        let mut java = jars().expect("a broker runs").program(&source);
        java.arg(broker.address()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = java.spawn().expect("java");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Some(Self { input: child.stdin.take(), output, child, topic: topic.into() })
    }

    /// Writes these together, and returns when all are acknowledged.
    fn write(&mut self, how: &str, wires: &[Wire]) {
        let word = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let mut text = format!("{how}\n");
        for Wire { key, value, headers, .. } in wires {
            let [key, value] = [key, value].map(|bytes| bytes.as_deref().map_or("-".into(), word));
            let headers = headers.iter().flat_map(|(name, value)| [word(name.as_bytes()), word(value.as_bytes())]);
            let words: Vec<String> = [self.topic.clone(), key, value].into_iter().chain(headers).collect();
            text += &(words.join(" ") + "\n");
        }
        text += "\n";
        self.input.as_mut().expect("it runs").write_all(text.as_bytes()).expect("it reads");
        for _ in wires {
            let mut line = String::new();
            self.output.read_line(&mut line).expect("it answers");
            assert!(line.starts_with("0 "), "the one partition, and an offset: {line:?}");
        }
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        // The end of its input is its end; in a test that failed nobody waits for it.
        drop(self.input.take());
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Who hears a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    V2,
    /// goim v1's clients too.
    All,
}

fn value(bytes: &[u8]) -> Wire {
    Wire { value: Some(bytes.into()), ..Wire::default() }
}

fn plain(header: (&'static str, &'static str), text: &str) -> Wire {
    Wire { headers: vec![("halley-operation", "5"), header], ..value(text.as_bytes()) }
}

/// Records, and what of each is heard by whom.
fn jobs() -> Vec<(Wire, i32, &'static str, By)> {
    vec![
        (room_job("live://1000", "v2 room"), 1000, "v2 room", By::V2),
        (value(b"\x10\xe8\x07\x22\x07comet-9\x32\x03Tcp\x32\x09WebSocket\x3a\x07v2 keys"), 1000, "v2 keys", By::V2),
        (value(b"\x08\x02\x10\xe8\x07\x18\x64\x3a\x06v2 all"), 1000, "v2 all", By::All),
        (value(br#"{"op":"broadcast_room","roomid":1,"msg":"djEgcm9vbQ=="}"#), 5, "v1 room", By::All),
        (
            value(br#"{"op":"multiple","server":1,"subkeys":["Tcp","WebSocket"],"msg":"djEga2V5cw=="}"#),
            5,
            "v1 keys",
            By::V2,
        ),
        (value(br#"{"op":"broadcast","ensure":false,"msg":"djEgYWxs"}"#), 5, "v1 all", By::All),
        (plain(("halley-room", "live://1000"), "{plain"), 5, "{plain", By::V2),
        (plain(("halley-keys", "WebSocket,Tcp"), "plain keys"), 5, "plain keys", By::V2),
        (plain(("halley-members", "7"), "plain members"), 5, "plain members", By::V2),
        (plain(("halley-all", ""), ""), 5, "", By::All),
    ]
}

#[test]
fn jobs_in_goims_formats_written_by_kafkas_own_client_reach_clients_of_both_transports() {
    const BATCH: u32 = 200;
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let Some(mut java) = Java::start(broker, &topic) else { return };
    let listener = |transport| {
        format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"{transport}\"\nlogin = \"open\"\ndialect = \"goim-v1\"\n"
        )
    };
    let gateway = gateway(broker, &topic, &[listener("tcp"), listener("ws")].concat());
    let transports = [Transport::Tcp, Transport::WebSocket];
    let mut of_v2 = [0, 1].map(|at: usize| {
        // In goim v2's room by its login, and in goim v1's room 1 by Halley's join.
        let key = format!("{:?}", transports[at]);
        let login = format!(r#"{{"mid":7,"key":"{key}","room_id":"live://1000","accepts":[5,1000],"halley":1}}"#);
        let mut client = Client::login(gateway.listeners[at], transports[at], &login);
        client.ask(halley_protocol::operation::JOIN, b"1");
        client
    });
    let mut of_v1 =
        [2, 3].map(|at: usize| Client::login(gateway.listeners[at], transports[at - 2], &format!("{}", at + 10)));
    let mut dispatched = 0;
    for how in ["none", "gzip", "snappy", "lz4", "zstd", "committed"] {
        // One at a time: between a room and direct pushes nothing is promised.
        for (wire, operation, text, by) in jobs() {
            java.write(how, &[wire]);
            for client in &mut of_v2 {
                client.expect_push(operation, text);
            }
            for client in of_v1.iter_mut().filter(|_| by == By::All) {
                client.expect_push(5, text);
            }
            dispatched += 1;
        }
        // Many in one batch, which is compressed as a whole.
        let text = |n: u32| format!("{how} {n:0500}");
        let batch: Vec<Wire> = (0..BATCH).map(|n| room_job("live://1000", &text(n))).collect();
        java.write(how, &batch);
        for client in &mut of_v2 {
            (0..BATCH).for_each(|n| client.expect_push(1000, &text(n)));
        }
        dispatched += u64::from(BATCH);
    }
    // What a transaction takes back is no job.
    java.write("aborted", &[room_job("live://1000", "taken back")]);
    java.write("none", &[room_job("live://1000", "after it")]);
    for client in &mut of_v2 {
        client.expect_push(1000, "after it");
    }
    until_dispatched(&gateway, dispatched + 1);
    let source = source(&gateway);
    assert!(source["rejects"].as_object().expect("reasons").values().all(|count| *count == 0), "{source}");
    assert_eq!((&source["repeats"], &source["duplicates"]), (&0.into(), &0.into()), "{source}");
    of_v2.iter_mut().for_each(Client::expect_quiet);
    gateway.settled();
    drop(java);
    gateway.stop();
}
