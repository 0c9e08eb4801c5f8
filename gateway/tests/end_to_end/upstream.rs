//! Messages of clients to an HTTP endpoint: what a request is, every mood of an endpoint, and that nothing acknowledged is
//! ever missing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use clap::Parser as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::support::talk::{check, talk, text};
use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport, until};

const SEND: i32 = 4;
const REPLY: i32 = 5;

/// How an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// 200, and it keeps the messages.
    Good,
    /// 200, with 10 MB behind it.
    Long,
    /// 503.
    Full,
    /// What is no HTTP.
    Nonsense,
    /// The end of the connection.
    Curt,
    /// Not at all.
    Silent,
}

#[derive(Default)]
struct Kept {
    heads: Vec<String>,
    messages: Vec<Value>,
    streams: Vec<TcpStream>,
}

/// An endpoint in threads of the test.
struct Endpoint {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    mood: Arc<Mutex<Mood>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    fn start(address: SocketAddr, kept: Arc<Mutex<Kept>>) -> Self {
        Self::serve(address, kept, None)
    }

    fn serve(address: SocketAddr, kept: Arc<Mutex<Kept>>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(address).expect("an address");
        let address = listener.local_addr().expect("an address");
        let (mood, ended) = (Arc::new(Mutex::new(Mood::Good)), Arc::new(AtomicBool::new(false)));
        let theirs = (Arc::clone(&kept), Arc::clone(&mood), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            let (kept, mood, ended) = theirs;
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                kept.lock().expect("alive").streams.push(stream.try_clone().expect("a stream"));
                let (kept, mood, tls) = (Arc::clone(&kept), Arc::clone(&mood), tls.clone());
                thread::spawn(move || {
                    let mut wire: Box<dyn Wire> = match tls {
                        Some(tls) => {
                            let session = ServerConnection::new(tls).expect("a session");
                            Box::new(StreamOwned::new(session, stream.try_clone().expect("a stream")))
                        }
                        None => Box::new(stream.try_clone().expect("a stream")),
                    };
                    while request(&mut *wire, &kept, &mood).is_some() {}
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, kept, mood, ended, thread: Some(thread) }
    }

    fn new() -> Self {
        Self::start("127.0.0.1:0".parse().expect("an address"), Arc::default())
    }

    /// Ends it in the middle of whatever it does; what it has kept stays.
    fn kill(mut self) -> (SocketAddr, Arc<Mutex<Kept>>) {
        self.ended.store(true, Ordering::SeqCst);
        for stream in self.kept.lock().expect("alive").streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(TcpStream::connect(self.address));
        self.thread.take().expect("running").join().expect("it ends");
        (self.address, self.kept)
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().expect("alive") = mood;
    }

    /// Key and sequence of everything that was kept.
    fn found(kept: &Mutex<Kept>) -> Vec<(String, i32)> {
        let said = |message: &Value| {
            let key = message["key"].as_str().expect("a key").to_owned();
            let sequence = message["sequence"].as_i64().and_then(|n| i32::try_from(n).ok()).expect("a sequence");
            assert_eq!(message["payload"]["text"], text(&key, sequence));
            (key, sequence)
        };
        kept.lock().expect("alive").messages.iter().map(said).collect()
    }
}

/// Plain or over TLS.
trait Wire: Read + Write {}

impl<T: Read + Write> Wire for T {}

/// Reads a request and answers it; `None`: the connection has ended, or is to end.
fn request(stream: &mut dyn Wire, kept: &Mutex<Kept>, mood: &Mutex<Mood>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut more = [0; 16 * 1024];
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut more) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&more[..read]),
            _ => return None,
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).expect("a head is text");
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).expect("a length");
    let mut body = bytes.split_off(head);
    while body.len() < length {
        match stream.read(&mut more) {
            Ok(read) if read > 0 => body.extend_from_slice(&more[..read]),
            _ => return None,
        }
    }
    let mood = *mood.lock().expect("alive");
    if matches!(mood, Mood::Good | Mood::Long) {
        let Ok(Value::Array(messages)) = serde_json::from_slice(&body) else { panic!("a list of messages") };
        let mut kept = kept.lock().expect("alive");
        kept.heads.push(text);
        kept.messages.extend(messages);
    }
    let answer: Vec<u8> = match mood {
        Mood::Good => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".into(),
        Mood::Long => [&b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n"[..], &vec![b'x'; 10_000_000]].concat(),
        Mood::Full => b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".into(),
        Mood::Nonsense => b"\x16\x03\x01 what?\r\n\r\n".into(),
        Mood::Curt => return None,
        Mood::Silent => return Some(()),
    };
    stream.write_all(&answer).ok()
}

fn passing(address: SocketAddr, lines: &str) -> Gateway {
    Gateway::start(&format!(
        "{OPEN}[nodes]\nname = \"node\"\n[upstream]\nurl = \"http://{address}/messages?a=b\"\n{lines}{LISTENERS}"
    ))
}

#[test]
fn a_request_has_messages_with_what_the_gateway_knows_of_them() {
    let endpoint = Endpoint::new();
    let gateway = passing(endpoint.address, "authorization = \"Bearer secret\"\n");
    let mut client = Client::login(gateway.ws(), Transport::WebSocket, r#"{"mid":7,"key":"k","room_id":"live://1"}"#);
    client.send(SEND, 77, "grüße".as_bytes());
    client.expect(REPLY, 77, b"");
    client.send(SEND, 78, &[0xff]);
    client.expect(REPLY, 78, b"");
    let kept = endpoint.kept.lock().expect("alive");
    for line in [
        "POST /messages?a=b HTTP/1.1",
        &format!("host: {}", endpoint.address),
        "content-type: application/json",
        "authorization: Bearer secret",
    ] {
        assert!(kept.heads[0].lines().any(|found| found == line), "{line}: {}", kept.heads[0]);
    }
    assert_eq!(kept.streams.len(), 1, "a connection is kept");
    let mut message = kept.messages[0].clone();
    assert!(message["time_ms"].take().as_u64().expect("milliseconds") > 1_700_000_000_000);
    let expected = r#"{"member":7,"key":"k","rooms":["live://1"],"operation":4,"sequence":77,"time_ms":null,"node":"node","payload":{"text":"grüße"}}"#;
    assert_eq!(message.to_string(), expected);
    assert_eq!(kept.messages[1]["payload"]["base64"], "/w==");
}

/// A certificate for `localhost` that signs itself, and the TLS of its server.
fn certificate() -> (String, Arc<ServerConfig>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let key = signed.signing_key.serialize_der().try_into().expect("a key");
    let config = builder.with_no_client_auth().with_single_cert(vec![signed.cert.der().clone()], key).expect("right");
    (signed.cert.pem(), Arc::new(config))
}

#[test]
fn over_tls_it_gets_the_same_from_a_gateway_that_trusts_it_and_nothing_from_another() {
    let (pem, tls) = certificate();
    let endpoint = Endpoint::serve("127.0.0.1:0".parse().expect("an address"), Arc::default(), Some(tls));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a writable folder");
        path.display().to_string()
    };
    let with = |ca_file: &str| {
        let url = format!("https://localhost:{}/messages?token=secret", endpoint.address.port());
        Gateway::start(&format!("{OPEN}[upstream]\nurl = \"{url}\"\nca_file = \"{ca_file}\"\n{LISTENERS}"))
    };
    let gateway = with(&file("right.pem", &pem));
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"mid":7,"key":"k"}"#);
    let mut say = |sequence: i32, mood: Mood, answer: &str| {
        endpoint.set(mood);
        client.send(SEND, sequence, text("k", sequence).as_bytes());
        client.expect(REPLY, sequence, answer.as_bytes());
    };
    say(1, Mood::Good, "");
    say(2, Mood::Good, "");
    assert_eq!(endpoint.kept.lock().expect("alive").streams.len(), 1, "a connection is kept");
    say(3, Mood::Long, "");
    say(4, Mood::Full, r#"{"refused":"place-refused"}"#);
    say(5, Mood::Curt, r#"{"refused":"place-away"}"#);
    say(6, Mood::Good, "");
    let known = ["k"].repeat(4).into_iter().map(str::to_owned).zip([1, 2, 3, 6]).collect::<Vec<_>>();
    assert_eq!(Endpoint::found(&endpoint.kept), known);
    gateway.stop();

    let stranger = with(&file("other.pem", &certificate().0));
    let mut client = Client::login(stranger.tcp(), Transport::Tcp, r#"{"key":"k"}"#);
    client.send(SEND, 7, text("k", 7).as_bytes());
    client.expect(REPLY, 7, br#"{"refused":"place-away"}"#);
    assert_eq!(Endpoint::found(&endpoint.kept), known);
    // Why is in the log, and not what may be secret in the address.
    let url = format!("https://localhost:{}/messages?…", endpoint.address.port());
    let line = stranger.log_line("upstream-refused");
    assert_eq!(line["url"], *url, "{line}");
    assert!(line["problem"].as_str().is_some_and(|problem| problem.contains("certificate")), "{line}");
    assert!(!stranger.log().contains("token=secret"), "{}", stranger.log());
    stranger.stop();
}

#[test]
fn whatever_an_endpoint_does_the_client_is_told_and_the_next_message_is_as_good_as_new() {
    let endpoint = Endpoint::new();
    let gateway = passing(endpoint.address, "answer_ms_max = 700\n");
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k"}"#);
    let moods = [
        (Mood::Long, ""),
        (Mood::Full, r#"{"refused":"place-refused"}"#),
        (Mood::Nonsense, r#"{"refused":"place-away"}"#),
        (Mood::Curt, r#"{"refused":"place-away"}"#),
        (Mood::Silent, r#"{"refused":"time-out"}"#),
    ];
    for (at, (mood, answer)) in (1..).zip(moods) {
        endpoint.set(mood);
        client.send(SEND, at, text("k", at).as_bytes());
        // Others are served meanwhile.
        Client::login(gateway.ws(), Transport::WebSocket, "{}").expect_quiet();
        client.expect(REPLY, at, answer.as_bytes());
        endpoint.set(Mood::Good);
        client.send(SEND, 100 + at, text("k", 100 + at).as_bytes());
        client.expect(REPLY, 100 + at, b"");
    }
    let found: Vec<_> = Endpoint::found(&endpoint.kept).into_iter().map(|(_, sequence)| sequence).collect();
    assert_eq!(found, [1, 101, 102, 103, 104, 105]);
    assert!(gateway.log().contains("the endpoint answered 503"), "{}", gateway.log());
    gateway.stop();
}

#[test]
fn an_endpoint_killed_under_load_costs_no_acknowledged_message_and_no_order() {
    let endpoint = Endpoint::new();
    let lines = "messages_per_second_max = 0\nbatch_messages_max = 7\n";
    let gateway = passing(endpoint.address, lines);
    let talkers: Vec<_> = (0..20).map(|n| talk(gateway.tcp(), format!("key-{n}"), 0..300, 4)).collect();
    let count = |kept: &Mutex<Kept>| kept.lock().expect("alive").messages.len();
    until("under load", || count(&endpoint.kept) > 1000);
    let (address, kept) = endpoint.kill();
    until("clients are told", || gateway.log().contains("place-away"));
    let endpoint = Endpoint::start(address, kept);
    let talked: Vec<_> = talkers.into_iter().map(|talker| talker.join().expect("a client that lives")).collect();
    check(&talked, &Endpoint::found(&endpoint.kept));
    let refused: Vec<_> = talked.iter().flat_map(|it| &it.refused).collect();
    assert!(
        !refused.is_empty() && refused.iter().all(|(_, body)| body == r#"{"refused":"place-away"}"#),
        "{refused:?}"
    );
    let acknowledged: usize = talked.iter().map(|it| it.acknowledged.len()).sum();
    assert!(acknowledged > 1000 && acknowledged + refused.len() == 20 * 300, "{acknowledged}, {}", refused.len());
    assert!(talked.iter().all(|it| it.acknowledged.last() >= Some(&200)), "it went on");
}

#[test]
fn a_rate_is_told_and_a_reload_brings_another() {
    let endpoint = Endpoint::new();
    let folder = tempfile::tempdir().expect("a folder");
    let configure = |rate: u32| {
        let text = format!(
            "{OPEN}[upstream]\nurl = \"http://{}/\"\nmessages_per_second_max = {rate}\nmessages_burst_max = 1\n{LISTENERS}",
            endpoint.address
        );
        std::fs::write(folder.path().join("halley.toml"), text).expect("a writable folder");
    };
    configure(1);
    let mut command = crate::support::halley();
    command.args(["--config", "halley.toml"]).current_dir(folder.path());
    let gateway = Gateway::run(command, None);
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k"}"#);
    let burst = |client: &mut Client, first: i32| {
        (first..first + 5).for_each(|n| client.send(SEND, n, text("k", n).as_bytes()));
        let bodies = (0..5).map(|_| match client.hear() {
            crate::support::Heard::Packet { body, .. } => body,
            other => panic!("an answer, not {other:?}"),
        });
        bodies.filter(|body| body == br#"{"refused":"rate"}"#).count()
    };
    assert!(burst(&mut client, 1) >= 3);
    configure(0);
    gateway.signal(rustix::process::Signal::HUP);
    until("reloaded", || gateway.log().contains("messages_per_second_max: 1 → 0"));
    until("no rate", || burst(&mut client, 10) == 0);
}

#[test]
fn a_drain_waits_for_what_the_place_has_yet_to_answer() {
    let endpoint = Endpoint::new();
    let mut gateway = passing(endpoint.address, "answer_ms_max = 1500\n");
    endpoint.set(Mood::Silent);
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k","halley":1}"#);
    client.send(SEND, 1, b"x");
    until("it is on its way", || gateway.get("/metrics").body.contains("halley_upstream_in_flight 1\n"));
    gateway.terminate();
    // Longer than a drain without it takes.
    client.expect(REPLY, 1, br#"{"refused":"time-out"}"#);
    let kick = client.hear();
    assert!(matches!(kick, crate::support::Heard::Packet { operation, .. } if operation < 0), "{kick:?}");
    drop(client);
    assert!(gateway.wait().success());
}

#[test]
fn the_bench_is_an_endpoint_too_and_counts_what_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let gateway = passing(free, "messages_burst_max = 5\n");
    let words = format!(
        "halley-bench upstream --target=tcp://{} --connections=10 --messages=20 --endpoint={free}",
        gateway.tcp()
    );
    let cli = bench::cli::Cli::parse_from(words.split_whitespace());
    let bench::cli::Command::Upstream(arguments) = cli.command else { panic!("upstream") };
    let report = bench::upstream::upstream(&arguments, &bench::interrupt::Interrupt::default()).expect("a run");
    assert!(report.valid && report.bounds_missed.is_empty(), "{report:?}");
    assert!(report.acknowledged >= 50 && report.acknowledged == report.place.found, "{report:?}");
    assert_eq!(report.refused.get("rate").copied(), Some(200 - report.acknowledged));
}
