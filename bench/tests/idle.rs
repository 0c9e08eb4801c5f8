//! `idle` against a server in a child process whose memory for each login is known.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use halley_protocol::packet::header;
use serde_json::Value;

/// Asks the test `the_server` to be one: bytes it keeps for each login, `restless` or `fickle`.
const ASK: &str = "HALLEY_BENCH_TEST_SERVER";

/// Precedes its port on standard output, where the test harness writes too.
const PORT: &str = "the port is ";

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(ask: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "the_server"])
            .env(ASK, ask)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| line.unwrap().split_once(PORT)?.1.parse().ok()).unwrap();
        Self { child, port }
    }

    /// Runs `idle` against it with 200 and 1000 clients.
    fn idle(&self, more: &[&str]) -> (Output, Value) {
        self.run(self.child.id(), 1000, more)
    }

    /// Runs `idle` with 200 and more clients, watching a process: what it said and wrote.
    fn run(&self, pid: u32, connections: u32, more: &[&str]) -> (Output, Value) {
        let folder = tempfile::tempdir().unwrap();
        let json = folder.path().join("idle.json");
        let output = Command::new(env!("CARGO_BIN_EXE_halley-bench"))
            .args(["idle", "--from=200", "--steady=0.5", "--idle=0.5"])
            .args([format!("--connections={connections}"), format!("--server-pid={pid}")])
            .arg(format!("--target=tcp://127.0.0.1:{}", self.port))
            .args(more)
            .arg("--json")
            .arg(&json)
            .output()
            .unwrap();
        let text = std::fs::read(json).unwrap_or_else(|_| b"null".to_vec());
        (output, serde_json::from_slice(&text).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The server of the other tests, which start it in a process of its own; nothing without their word.
#[test]
fn the_server() {
    let Ok(ask) = std::env::var(ASK) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("\n{PORT}{}", listener.local_addr().unwrap().port());
    if ask == "restless" {
        std::thread::spawn(grow_and_burn);
    }
    let bytes: usize = ask.parse().unwrap_or(0);
    let mut kept = Vec::with_capacity(1 << 16);
    for stream in listener.incoming() {
        // Somebody may look whether the port is open and go.
        let Ok(stream) = log_in(stream.unwrap()) else { continue };
        kept.push((stream, vec![1u8; bytes]));
        if ask == "fickle" && kept.len() == 500 {
            kept.remove(100);
        }
    }
}

fn log_in(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(*head.first_chunk().unwrap()) as usize;
    std::io::copy(&mut (&stream).take(length as u64 - 16), &mut std::io::sink())?;
    stream.write_all(&header(0, 1, 8, 1))?;
    Ok(stream)
}

fn grow_and_burn() {
    let mut kept = Vec::new();
    loop {
        let until = std::time::Instant::now() + Duration::from_millis(10);
        while std::time::Instant::now() < until {}
        kept.push(vec![1u8; 1 << 20]);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn slope(report: &Value) -> f64 {
    report["server"]["bytes_per_connection"].as_f64().unwrap()
}

#[test]
fn the_slope_is_what_the_server_keeps_for_each_login() {
    let server = Server::start("20000");
    let (output, report) = server.idle(&["--bytes-max=22000"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!((slope(&report) - 20_000.0).abs() < 1000.0, "{}", report["server"]);
    if let Some(anonymous) = report["server"]["anonymous_bytes_per_connection"].as_f64() {
        assert!((anonymous - 20_000.0).abs() < 1000.0, "{anonymous}");
    }
    // The program itself is in the whole set, and in the reading before the first client.
    let whole = report["server"]["rss_bytes_per_connection"].as_f64().unwrap();
    assert!(whole > slope(&report), "{whole}");
    let at: Vec<_> = report["readings"].as_array().unwrap().iter().map(|memory| &memory["connections"]).collect();
    assert_eq!(at, [0, 200, 1000]);
    for name in ["tool", "command", "machine", "settings", "valid"] {
        assert!(!report[name].is_null(), "{name} is missing");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("bytes per connection") && table.contains("idle CPU"), "{table}");
}

#[test]
fn a_server_that_keeps_next_to_nothing_has_a_small_slope_and_a_bound_below_it_is_missed() {
    let server = Server::start("0");
    let (_, report) = server.idle(&[]);
    assert!(slope(&report) < 1000.0, "{}", report["server"]);
    drop(server);
    let (output, report) = Server::start("3000").idle(&["--bytes-max=2000"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(report["bounds_missed"][0].as_str().unwrap().ends_with("bytes, not 2000"), "{report}");
}

#[test]
fn memory_that_never_settles_makes_the_run_invalid_and_work_while_idle_is_seen() {
    let (output, report) = Server::start("restless").idle(&["--settle=1"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let reasons = report["invalid_reasons"].to_string();
    assert!(reasons.contains("with 1000 clients the resident set was not steady in 1 s"), "{reasons}");
    let percent = report["server"]["idle_cpu_percent"].as_f64().unwrap();
    assert!(percent > 1.0, "{percent} % of a core for a thread that burns half of one");
}

#[test]
fn a_server_that_drops_an_idle_client_makes_no_slope() {
    let (output, report) = Server::start("fickle").idle(&[]);
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), report), (Some(3), Value::Null), "{sentence}");
    assert!(sentence.contains("after its login: the server closed the connection"), "{sentence}");
}

#[test]
fn a_slope_needs_two_points_and_a_server_that_lives() {
    let server = Server::start("0");
    let (output, _) = server.run(server.child.id(), 200, &[]);
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("--from 200 is not below --connections 200"), "{sentence}");
    let (output, _) = server.run(4_194_305, 1000, &[]);
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("process 4194305 cannot be watched"), "{sentence}");
}
