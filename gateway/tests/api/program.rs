//! The program itself: its command line, its start, its end.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn halley(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley"));
    command.args(args).stdin(Stdio::null());
    command
}

fn dev() -> Command {
    let mut command = halley(&["--dev"]);
    command
        .env("HALLEY__DEV__TCP", "127.0.0.1:0")
        .env("HALLEY__DEV__WS", "[::1]:0")
        .env("HALLEY__API__BIND", "127.0.0.1:0");
    command.env("HALLEY__CONNECTIONS_MAX", "100");
    command
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    (status.code(), String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

/// A gateway that serves; killed if the test fails before it ended.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    ready: Value,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("\"event\":\"ready\"") {
            line.clear();
            assert_ne!(lines.read_line(&mut line).expect("text"), 0, "it ended before it was ready");
        }
        let ready = serde_json::from_str(&line).expect("one JSON line");
        Self { child, lines, ready }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")).expect("not 0");
        kill_process(pid, signal).expect("it is there");
    }

    /// What it says from now on, and its exit code.
    fn end(mut self) -> (Option<i32>, String) {
        let mut text = String::new();
        self.lines.read_to_string(&mut text).expect("text");
        (self.child.wait().expect("ended").code(), text)
    }

    fn address(&self, at: &str) -> &str {
        self.ready.pointer(at).and_then(Value::as_str).expect("an address")
    }

    fn get(&self, path: &str) -> String {
        self.get_as(path, "")
    }

    fn get_as(&self, path: &str, token: &str) -> String {
        let mut stream = TcpStream::connect(self.address("/api")).expect("the API listens");
        let headers = format!("host: a\r\nauthorization: Bearer {token}\r\nconnection: close");
        write!(stream, "GET {path} HTTP/1.1\r\n{headers}\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_ready_line_names_every_bound_address() {
    let running = Running::start(dev());
    assert_eq!(running.ready["pid"], running.child.id());
    assert_eq!(running.ready["connections_max"], 100);
    assert_eq!(running.ready["listeners"][0]["transport"], "tcp");
    assert_eq!(running.ready["listeners"][1]["transport"], "ws");
    for at in ["/listeners/0/address", "/listeners/1/address", "/api"] {
        TcpStream::connect(running.address(at)).unwrap_or_else(|e| panic!("{at} does not listen: {e}"));
    }
    assert!(running.get("/readyz").starts_with("HTTP/1.1 200 "));
    assert!(running.get("/").contains("<title>Halley"));
}

#[test]
fn sigterm_and_sigint_end_it_with_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let running = Running::start(dev());
        running.signal(signal);
        let (code, said) = running.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("drain"), "{said}");
    }
}

#[test]
fn sighup_ends_nothing_and_is_logged() {
    let mut running = Running::start(dev());
    running.signal(Signal::HUP);
    let mut line = String::new();
    while !line.contains("reload") {
        line.clear();
        assert_ne!(running.lines.read_line(&mut line).expect("text"), 0, "it ended");
    }
    assert!(running.get("/healthz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_taken_port_is_one_sentence_and_code_2() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for (variable, key) in [("HALLEY__DEV__TCP", "listener[0].bind"), ("HALLEY__API__BIND", "api.bind")] {
        let mut command = dev();
        command.env(variable, &address);
        let (code, _, said) = run(command);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(key) && said.contains(&address) && said.contains("port is taken"), "{said}");
    }
}

#[test]
fn limits_too_low_for_the_configuration_are_one_sentence_and_code_2() {
    let mut command = dev();
    command.env("HALLEY__CONNECTIONS_MAX", "60000000");
    let (code, _, said) = run(command);
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("HALLEY__CONNECTIONS_MAX") && said.contains("connections_max"), "{said}");
}

#[test]
fn a_configuration_is_checked_and_printed_without_starting() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("text");
    std::fs::write(
        path,
        "connections_max = 50\nshards = 1\n[api]\nauth = \"none\"\n[[listener]]\nbind = \":0\"\nlogin = \"open\"\n",
    )
    .expect("written");
    let (code, said, _) = run(halley(&["--config", path, "--check-config"]));
    assert_eq!(code, Some(0));
    assert!(said.contains("50 connections in 1 shards"), "{said}");

    let (code, printed, _) = run(halley(&["--config", path, "--print-config"]));
    assert_eq!(code, Some(0));
    std::fs::write(path, &printed).expect("written");
    assert_eq!(run(halley(&["--config", path, "--print-config"])).1, printed);

    std::fs::write(path, "shards = 1\nshrads = 2\n").expect("written");
    let (code, _, said) = run(halley(&["--config", path, "--check-config"]));
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains(&format!("{path}:2")) && said.contains("shrads"), "{said}");
}

#[test]
fn without_a_configuration_it_says_how_to_begin() {
    let (code, _, said) = run(halley(&[]));
    assert_eq!(code, Some(2));
    assert!(said.contains("--config") && said.contains("--dev"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert_eq!(run(halley(&["--dev", "--config", "x"])).0, Some(2));
    let (code, _, said) = run(halley(&["--config", "/nowhere/halley.toml"]));
    assert_eq!(code, Some(2));
    assert!(said.contains("cannot read /nowhere/halley.toml"), "{said}");
    assert!(run(halley(&["--version"])).1.starts_with("halley "));
}

#[test]
fn ipv4_and_ipv6_clients_reach_a_listener_on_all_addresses() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = "connections_max = 10\n[api]\nauth = \"none\"\nbind = \"127.0.0.1:0\"\n[[listener]]\nbind = \":0\"\nlogin = \"open\"\n";
    std::fs::write(file.path(), text).expect("written");
    let running = Running::start(halley(&["--config", file.path().to_str().expect("text")]));
    let port = running.address("/listeners/0/address").rsplit_once(':').expect("a port").1.to_owned();
    for host in ["127.0.0.1", "[::1]"] {
        let address = format!("{host}:{port}").parse().expect("an address");
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap_or_else(|e| panic!("{host}: {e}"));
    }
}

#[test]
fn a_token_is_made_with_the_entry_that_lets_it_in() {
    let (code, said, _) = run(halley(&["token", "feeder", "--scopes", "push,read"]));
    let [token, entry] = said.lines().collect::<Vec<_>>()[..] else { panic!("two lines: {said}") };
    assert_eq!((code, token.len(), token.starts_with("halley_")), (Some(0), 50, true), "{said}");
    assert!(entry.contains(r#"name = "feeder", hash = "sha256:"#) && entry.ends_with(r#"scopes = ["push", "read"] }"#));
    assert!(!entry.contains(&token[7..]), "the entry does not know the token");
    assert_ne!(run(halley(&["token", "feeder"])).1.lines().next(), Some(token), "each is new");

    let mut command = dev();
    command.env("HALLEY__API__AUTH", "token").env("HALLEY__API__TOKENS", format!("[{entry}]"));
    let running = Running::start(command);
    assert!(running.get("/v1/stats").starts_with("HTTP/1.1 401 "));
    assert!(running.get_as("/v1/stats", token).starts_with("HTTP/1.1 200 "));
    assert!(running.get_as("/v1/stats", entry).starts_with("HTTP/1.1 401 "));

    for (args, part) in [
        (&["token"][..], "NAME"),
        (&["token", "two words"], "without blank"),
        (&["token", "feeder", "--scopes", "write"], "push, read, admin"),
    ] {
        let (code, said, complaint) = run(halley(args));
        assert!(code == Some(2) && said.is_empty() && complaint.contains(part), "{args:?}: {complaint}");
    }
}
