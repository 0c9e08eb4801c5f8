//! `slow` as a user runs it, against servers whose behaviour is known.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{Delivery, Script, Server};

/// 8 clients, a quarter of them slow; 20 messages without them and 20 with them.
fn slow(script: Script, more: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("slow.json");
    let server = Server::start(script);
    let output = Command::new(env!("CARGO_BIN_EXE_halley-bench"))
        .args(["slow", "--connections=8", "--rate=100", "--duration=0.2", "--warmup=0", "--settle=0.1"])
        .args(["--grace=2", "--slow-percent=25"])
        .args(server.flags())
        .args(more)
        .arg("--json")
        .arg(&json)
        .output()
        .unwrap();
    let text = std::fs::read(json).unwrap_or_else(|_| b"null".to_vec());
    (output, serde_json::from_slice(&text).unwrap())
}

#[test]
fn what_slow_clients_missed_and_did_to_the_others_is_told_beside_a_run_without_them() {
    let pid = std::process::id().to_string();
    // Members 7 and 8 are the slow ones; the first twenty messages come before anybody is slow.
    let script = Script {
        deliver: |n, member| Delivery::Messages(if (20..25).contains(&n) && member > 6 { vec![] } else { vec![n] }),
        ..Script::default()
    };
    let (output, report) = slow(script, &["--server-pid", &pid]);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    assert_eq!((&report["offered"], &report["delivered"], &report["lost"]), (&120.into(), &120.into(), &0.into()));
    let slow = &report["slow"];
    assert_eq!((&slow["connections"], &slow["delivered"], &slow["missed"]), (&2.into(), &30.into(), &10.into()));
    let effect = &report["effect"];
    assert_eq!((&effect["without"]["connections"], &effect["without"]["delivered"]), (&8.into(), &160.into()));
    assert!(effect["p99_ratio"].as_f64().unwrap() > 0.0);
    assert!(effect["server_rss_bytes_peak"][1].as_u64().unwrap() > 0);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("without slow clients ms") && table.contains("server memory, peak"), "{table}");
}

#[test]
fn a_ratio_above_its_bound_is_a_missed_bound() {
    let (output, report) = slow(Script::default(), &["--max-p99-ratio=0.01"]);
    assert!(report["bounds_missed"][0].as_str().unwrap().contains("times that without slow clients"), "{report}");
    let expected = if report["valid"] == true { 1 } else { 3 };
    assert_eq!(output.status.code(), Some(expected));
}
