//! The program as a user runs it: exit status, files, signals, and the floor in a child process.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Delivery, Script, Server};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley-bench"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn broadcast(server: &Server, json: &Path, duration: &str) -> Command {
    let mut command = bench(&["broadcast", "--connections=4", "--rate=50", "--warmup=0.1"]);
    command.args(["--settle=0", "--grace=2", "--duration", duration]).args(server.flags());
    command.arg("--json").arg(json);
    command
}

fn read(json: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap()
}

fn reasons(report: &Value) -> String {
    report["invalid_reasons"].to_string()
}

#[test]
fn a_run_writes_what_is_needed_to_repeat_it() {
    let folder = tempfile::tempdir().unwrap();
    let (json, hlog) = (folder.path().join("a.json"), folder.path().join("a.hlog"));
    let server = Server::start(Script::default());
    let pid = std::process::id().to_string();
    let mut command = broadcast(&server, &json, "0.4");
    command.args(["--server-pid", &pid, "--token", "secret"]).arg("--hlog").arg(&hlog);
    let output = command.output().unwrap();
    let report = read(&json);
    for name in ["tool", "commit", "ended", "command", "machine", "settings", "valid", "offered", "delivered", "lost"] {
        assert!(!report[name].is_null(), "{name} is missing");
    }
    assert_eq!(report["offered"], 80);
    assert_eq!((&report["delivered"], &report["lost"]), (&Value::from(80), &Value::from(0)));
    assert!(report["server"]["cpu_us_per_delivery"].as_f64().unwrap() > 0.0);
    assert!(report["server"]["rss_bytes"].as_u64().unwrap() > 0);
    assert!(!report.to_string().contains("secret"), "a token must not be published");
    let over_time = &report["over_time"];
    let sum = |column: &Value| column.as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>();
    assert!((sum(&over_time["deliveries"]["per_s"]) - 80.0).abs() < 1e-6, "{over_time}");
    assert!((sum(&over_time["lateness"]["per_s"]) - 20.0).abs() < 1e-6, "{over_time}");
    let curve = report["latency_curve"].as_array().unwrap();
    assert_eq!(curve.last().unwrap()[1], report["latency_ms"]["max"]);
    assert!(std::fs::read_to_string(hlog).unwrap().contains("Tag=broadcast"));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("delivered               80"), "{table}");
}

#[test]
fn a_generator_that_was_stopped_says_that_its_run_is_invalid() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let server = Server::start(Script::default());
    let child = broadcast(&server, &json, "3").spawn().unwrap();
    server.wait_for_pushes(30); // warm-up and some more
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let report = read(&json);
    assert_eq!(report["valid"], false);
    assert!(reasons(&report).contains("stood still"), "{}", reasons(&report));
    assert!(reasons(&report).contains("the generator was late"), "{}", reasons(&report));
    assert_eq!(report["lost"], 0, "invalid is not the same as lossy");
}

#[test]
fn an_interrupted_run_still_reports_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let server = Server::start(Script::default());
    let child = broadcast(&server, &json, "60").spawn().unwrap();
    server.wait_for_pushes(30);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let report = read(&json);
    assert!(reasons(&report).contains("interrupted after"), "{}", reasons(&report));
    assert_eq!(report["offered"], report["delivered"]);
    assert!(report["delivered"].as_u64().unwrap() > 0);
}

#[test]
fn the_exit_status_tells_a_missed_bound_from_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let script =
        Script { deliver: |n, _| Delivery::Messages(if n == 8 { vec![] } else { vec![n] }), ..Script::default() };
    let server = Server::start(script);
    let output = broadcast(&server, &json, "0.4").arg("--max-loss=3").output().unwrap();
    let report = read(&json);
    assert_eq!(report["bounds_missed"][0], "4 deliveries were lost");
    // On a machine that is too busy for a valid run, that comes first.
    let expected = if report["valid"] == true { 1 } else { 3 };
    assert_eq!(output.status.code(), Some(expected));

    let unknown = bench(&["broadcast", "--nonsense"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = format!("--target=tcp://{closed}");
    let Output { status, stderr, .. } = bench(&["broadcast", &target, "--push=http://127.0.0.1:1"]).output().unwrap();
    let sentence = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("cannot be reached"), "{sentence}");
}

#[test]
fn the_floor_sends_everything_in_both_ways_on_both_transports() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let mut command = bench(&["floor", "--connections=50", "--rate=50", "--duration=0.4"]);
    command.args(["--warmup=0.1", "--settle=0", "--transport=tcp", "--transport=ws", "--json"]);
    let output = command.arg(&json).output().unwrap();
    let report = read(&json);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    let floor = &report["floor"];
    assert!(floor["ring_us"].as_f64().unwrap() > 0.0 && floor["send_us"].as_f64().unwrap() > 0.0);
    for pass in floor["passes"].as_array().unwrap() {
        assert_eq!((&pass["offered"], &pass["delivered"]), (&1000.into(), &1000.into()));
    }
    assert_eq!(report["stray"], 0);
}

#[test]
fn a_broadcast_between_floors_states_the_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("a.json");
    let server = Server::start(Script::default());
    let pid = std::process::id().to_string();
    let mut command = broadcast(&server, &json, "0.4");
    command.args(["--with-floor", "--server-pid", &pid]);
    command.output().unwrap();
    let report = read(&json);
    let kinds: Vec<&str> =
        report["floor"]["passes"].as_array().unwrap().iter().map(|pass| pass["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ring", "send", "send", "ring"]);
    assert!(report["floor_ratio"].as_f64().unwrap() > 0.0);
}
