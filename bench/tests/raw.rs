//! `--dialect raw-ws` against a WebSocket server that is not goim's, and servers that are nothing
//! of the kind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use bench::broadcast::{Failure, broadcast};
use bench::cli::{BroadcastArgs, Cli, Command as Scenario};
use bench::interrupt::Interrupt;
use bench::measure::Measured;
use clap::Parser;
use halley_protocol::websocket::handshake;

/// Bytes that the clients get when message `n` with this body is pushed.
type Deliver = fn(n: usize, body: &[u8]) -> Vec<u8>;

/// Its clients say `join ROOM`, are told `welcome to ROOM`, asked `are you there`, and gone if they
/// do not say `yes`.
struct Server {
    ws: SocketAddr,
    api: SocketAddr,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[derive(Default)]
struct Shared {
    clients: Mutex<Vec<TcpStream>>,
    said: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Server {
    fn start(deliver: Deliver) -> Self {
        let shared = Arc::new(Shared::default());
        let said = Arc::clone(&shared.said);
        let api = Arc::clone(&shared);
        let ws = listen(move |stream| {
            let _ = serve(stream, &shared); // a client may go when it likes
        });
        let api = listen(move |stream| {
            let _ = take_pushes(&stream, &api, deliver);
        });
        Self { ws, api, said }
    }

    fn run(&self, more: &[&str]) -> Result<Measured, Failure> {
        broadcast(&arguments(self.ws, self.api, more), &Interrupt::default()).map(|(measured, _)| measured)
    }
}

/// Serves each connection on a thread of its own, until the test's process ends.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), serve.clone());
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn arguments(ws: SocketAddr, api: SocketAddr, more: &[&str]) -> BroadcastArgs {
    let words = ["halley-bench", "broadcast", "--connections=8", "--rate=100", "--duration=0.2", "--warmup=0"];
    let more = ["--settle=0", "--grace=2", "--room=lobby"].iter().chain(more);
    let words = words.iter().chain(more).map(ToString::to_string);
    let words = words.chain([format!("--target=ws://{ws}/chat?room={{room}}"), format!("--push=http://{api}")]);
    match Cli::try_parse_from(words).unwrap().command {
        Scenario::Broadcast(arguments) => *arguments,
        other => panic!("{other:?}"),
    }
}

/// What clients of `Server` need.
const RAW: [&str; 5] = [
    "--dialect=raw-ws",
    "--open=join {room}",
    r"--open-binary=I am {n}\x21",
    "--ready-marker=welcome to lobby",
    "--ping-marker=are you there=yes",
];

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    assert!(head.starts_with("GET /chat?room=lobby HTTP/1.1\r\n"), "{head}");
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let mut answer = [0; handshake::RESPONSE_BYTES];
    let bytes = handshake::response(&handshake::accept(key.as_bytes()), &mut answer);
    stream.write_all(&answer[..bytes])?;
    let (opcode, join) = said(&mut stream)?;
    assert_eq!((opcode, &join[..]), (1, &b"join lobby"[..]));
    let (opcode, name) = said(&mut stream)?;
    assert_eq!(opcode, 2);
    assert!(name.starts_with(b"I am ") && name.ends_with(b"!"), "{name:?}");
    stream.write_all(&frame(0x81, b"news\nare you there\r\nmore news"))?;
    let (opcode, answer) = said(&mut stream)?;
    assert_eq!((opcode, &answer[..]), (1, &b"yes"[..]));
    stream.write_all(&frame(0x89, b"beat"))?;
    let (opcode, answer) = said(&mut stream)?;
    assert_eq!((opcode, &answer[..]), (10, &b"beat"[..]));
    shared.said.lock().unwrap().push(name);
    shared.clients.lock().unwrap().push(stream.try_clone()?);
    stream.write_all(&frame(0x81, b"you are welcome to lobby"))?;
    io::copy(&mut stream, &mut io::sink()).map(drop)
}

fn read_head(stream: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Opcode and payload of a short masked frame.
fn said(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 6];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload)?;
    payload.iter_mut().zip(head[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((head[0] & 0xf, payload))
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(payload.len()).unwrap();
    let length = if bytes < 126 { vec![bytes.to_be_bytes()[1]] } else { [&[126][..], &bytes.to_be_bytes()].concat() };
    [&[first][..], &length, payload].concat()
}

fn take_pushes(stream: &TcpStream, shared: &Shared, deliver: Deliver) -> io::Result<()> {
    let mut requests = BufReader::new(stream.try_clone()?);
    for n in 0.. {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        requests.read_exact(&mut body)?;
        let bytes = deliver(n, &body);
        for client in shared.clients.lock().unwrap().iter_mut() {
            let _ = client.write_all(&bytes); // a client may have gone
        }
        write!(&*stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

#[test]
fn a_server_of_another_dialect_is_measured_as_exactly() {
    let server = Server::start(|_, body| frame(0x81, body));
    let measured = server.run(&RAW).unwrap();
    assert_eq!((measured.messages, measured.offered), (20, 160));
    assert_eq!((measured.counts.delivered, measured.counts.lost, measured.counts.stray), (160, 0, 0));
    let mut names = server.said.lock().unwrap().clone();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 8, "each client and nobody else said its number");
}

#[test]
fn a_template_makes_the_payload_and_marks_are_found_in_whatever_comes_of_it() {
    // Wrapped, in two fragments with a ping between, and with a message nobody asked for.
    let server = Server::start(|n, body| {
        assert!(body.starts_with(b"{\"channel\":\"lobby\",\"data\":\"hb:"), "{body:?}");
        let whole = [&b"[\"push\","[..], body, b"]"].concat();
        let (a, b) = whole.split_at(20 + n);
        [frame(0x01, a), frame(0x89, b""), frame(0x80, b), frame(0x81, b"an advertisement")].concat()
    });
    let more =
        [&RAW[..], &[r#"--payload-template={"channel":"{room}","data":"{mark}"}"#, "--payload-bytes=300"]].concat();
    let measured = server.run(&more).unwrap();
    assert_eq!((measured.counts.delivered, measured.counts.lost), (160, 0));
    assert_eq!(measured.counts.stray, 160, "the advertisements");
}

#[test]
fn drops_repeats_and_swaps_of_a_raw_server_are_reported_exactly() {
    let server = Server::start(|n, body| {
        thread_local!(static HELD: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
        HELD.with_borrow_mut(|held| match n {
            3 => Vec::new(),                                 // lost
            5 => frame(0x82, &[body, b"\n", body].concat()), // two in one frame, one of them again
            8 => {
                *held = body.to_vec();
                Vec::new()
            } // comes after the next
            9 => [frame(0x81, body), frame(0x81, held)].concat(),
            _ => frame(0x81, body),
        })
    });
    let counts = server.run(&RAW).unwrap().counts;
    assert_eq!((counts.delivered, counts.lost), (152, 8));
    assert_eq!((counts.duplicates, counts.reordered), (8, 8));
}

#[test]
fn a_server_that_changes_what_is_pushed_is_told_from_one_that_loses_it() {
    let server = Server::start(|_, body| frame(0x81, body.to_ascii_uppercase().as_slice()));
    let measured = server.run(&RAW).unwrap();
    assert!(!measured.valid);
    assert_eq!((measured.counts.delivered, measured.counts.stray), (0, 160));
    assert!(measured.invalid_reasons[0].contains("160 others did"), "{:?}", measured.invalid_reasons);
}

/// What a hello to these servers fails with.
fn complaint(scheme: &str, server: SocketAddr, more: &[&str]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // a push API that only exists
    let mut arguments = arguments(server, listener.local_addr().unwrap(), more);
    arguments.load.clients.target = vec![format!("{scheme}://{server}").parse().unwrap()];
    match broadcast(&arguments, &Interrupt::default()) {
        Err(Failure::Surroundings(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wrong_dialect_is_told_in_a_sentence_before_the_run() {
    let raw = Server::start(|_, body| frame(0x81, body)).ws;
    let answering = |answer: &'static [u8]| {
        listen(move |mut stream: TcpStream| {
            let _ = stream.read(&mut [0; 100]);
            let _ = stream.write_all(answer);
            let _ = io::copy(&mut stream, &mut io::sink());
        })
    };
    let web = answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let closing = answering(b"HTTP/1.1 101 Switching\r\n\r\n\x88\x02\x0f\xa2");
    let talking = answering(b"HTTP/1.1 101 Switching\r\n\r\n\x81\x03ack");
    let mail = answering(b"220 mail.example.org\r\n");
    let hangup = listen(drop);
    let mute = listen(|mut stream| drop(io::copy(&mut stream, &mut io::sink())));
    let raw_ws = &["--dialect=raw-ws"][..];
    let cases: [(&str, SocketAddr, &[&str], &str); 11] = [
        ("tcp", web, &[], "answers in HTTP: for a WebSocket server write ws://"),
        ("tcp", mail, &[], "323230206d61696c2e6578616d706c652e6f72670d0a"),
        ("tcp", hangup, &[], "ended the connection at the login"),
        ("tcp", mute, &["--patience=0.1"], "did not answer the login"),
        ("ws", web, &[], "answered a WebSocket request for /sub with 404 Not Found"),
        ("ws", mail, &[], "with no HTTP but 323230"),
        ("ws", mute, &["--patience=0.1"], "write tcp://"),
        ("ws", talking, &[], "for others say --dialect raw-ws"),
        ("ws", closing, &[], "closed the connection with code 4002"),
        ("ws", closing, raw_ws, "closed the connection with code 4002: are --open"),
        ("ws", talking, &["--dialect=raw-ws", "--ready-marker=x", "--patience=0.1"], "--ready-marker"),
    ];
    for (scheme, server, more, expected) in cases {
        let sentence = complaint(scheme, server, more);
        assert!(sentence.contains(expected), "{sentence} does not say {expected}");
        assert!(sentence.starts_with(&format!("{scheme}://{server}")), "{sentence} names no target");
    }
    assert!(complaint("ws", raw, &["--open=x"]).contains("--dialect raw-ws"));
    assert!(complaint("tcp", raw, raw_ws).contains("ws://"));
}

#[test]
fn a_limit_of_files_or_memory_that_is_too_low_is_told_before_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let run = |limit: &str, connections: &str| {
        let program = env!("CARGO_BIN_EXE_halley-bench");
        let command = format!(
            "{limit} exec {program} broadcast --target tcp://{address} --push http://{address} --connections {connections}"
        );
        let Output { status, stderr, .. } = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(status.code(), Some(2));
        String::from_utf8(stderr).unwrap()
    };
    let sentence = run("ulimit -n 64;", "100000");
    assert!(sentence.contains("RLIMIT_NOFILE 64 is too low") && sentence.contains("ulimit -n 512"), "{sentence}");
    let sentence = run("", "50000000");
    assert!(sentence.contains("MiB are available: take --connections "), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
}

/// Reproducible noise.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[3]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn random_bytes_from_a_server_are_counted_and_shown_and_never_a_panic() {
    let server = Server::start(|n, body| if n % 4 == 3 { noise(n as u64 * 77, 700) } else { frame(0x81, body) });
    let measured = server.run(&RAW).unwrap();
    let counts = measured.counts;
    assert_eq!(counts.delivered + counts.lost, measured.offered);
    assert_eq!(counts.closed, 8, "noise ends every connection sooner or later");
    assert!(counts.malformed > 0 && !measured.malformed_frames.is_empty());
    assert!(measured.malformed_frames.iter().all(|fault| fault.hex.len() >= 2 && fault.hex.len() <= 128));
}

/// The server of the next test, in a process of its own; nothing without its word.
#[test]
fn the_server() {
    if std::env::var_os("HALLEY_BENCH_RAW_SERVER").is_none() {
        return;
    }
    let server = Server::start(|n, body| {
        if n == 30 {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
        }
        frame(0x81, body)
    });
    println!("\nserving {} {}", server.ws, server.api);
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

#[test]
fn a_killed_server_leaves_a_report_with_the_time_of_its_death_and_what_came_before() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "the_server"])
        .env("HALLEY_BENCH_RAW_SERVER", "1")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let serving = lines.find_map(|line| Some(line.unwrap().split_once("serving ")?.1.to_owned())).unwrap();
    let (ws, api) = serving.split_once(' ').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("died.json");
    let Output { status, stdout, .. } = Command::new(env!("CARGO_BIN_EXE_halley-bench"))
        .args(["broadcast", "--connections=8", "--rate=50", "--duration=60", "--warmup=0", "--settle=0"])
        .args(["--room=lobby", &format!("--target=ws://{ws}/chat?room=lobby"), &format!("--push=http://{api}")])
        .args(RAW)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    child.wait().unwrap();
    let table = String::from_utf8(stdout).unwrap();
    assert_eq!(status.code(), Some(3), "{table}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let seconds = report["death"]["seconds"].as_f64().unwrap();
    assert!((0.6..20.0).contains(&seconds), "message 30 was due after 0.6 s: {report}");
    assert_eq!((&report["death"]["connections_ended"], &report["valid"]), (&8.into(), &false.into()));
    assert_eq!(report["delivered"], 240, "30 messages to 8 clients came before");
    let reason = report["invalid_reasons"][0].as_str().unwrap();
    assert!(reason.contains("s into the run: all 8 connections ended"), "{reason}");
    assert!(table.contains(reason), "{table}");
}
