//! `churn`, `storm` and `million` against the gateway itself, and against servers that turn clients away.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Delivery, Script, Server};
use tempfile::TempDir;

const BENCH: &str = env!("CARGO_BIN_EXE_halley-bench");

/// The gateway's program, built if it is not.
fn halley() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let folder = Path::new(BENCH).parent().unwrap();
        let release: &[&str] = if folder.ends_with("release") { &["--release"] } else { &[] };
        let built = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
            .args(["build", "-q", "-p", "gateway", "--bin", "halley"])
            .args(release)
            .arg("--target-dir")
            .arg(folder.parent().unwrap())
            .status()
            .unwrap();
        assert!(built.success());
        folder.join("halley")
    })
}

/// A running gateway that a command can replace.
struct Gateway {
    folder: TempDir,
    flags: Vec<String>,
}

impl Gateway {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = |tcp: &str, ws: &str, api: &str| {
            format!(
                "shards = 2\nconnections_max = 4000\n[api]\nbind = \"{api}\"\nauth = \"none\"\n\
                 [[listener]]\nbind = \"{tcp}\"\ntransport = \"tcp\"\nlogin = \"open\"\n\
                 [[listener]]\nbind = \"{ws}\"\ntransport = \"ws\"\nlogin = \"open\"\n"
            )
        };
        let any = "127.0.0.1:0";
        let file = folder.path().join("halley.toml");
        std::fs::write(&file, configuration(any, any, any)).unwrap();
        let mut child = Command::new(halley()).arg("--config").arg(&file).stderr(Stdio::piped()).spawn().unwrap();
        std::fs::write(folder.path().join("pid"), child.id().to_string()).unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = |line: &str| line.contains(r#""event":"ready""#);
        let ready: Value =
            serde_json::from_str(&lines.by_ref().map(Result::unwrap).find(|line| ready(line)).unwrap()).unwrap();
        std::thread::spawn(move || {
            lines.for_each(drop);
            child.wait()
        });
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let [tcp, ws] = [0, 1].map(|place| text(&ready["listeners"][place]["address"]));
        let api = text(&ready["api"]);
        std::fs::write(&file, configuration(&tcp, &ws, &api)).unwrap();
        let flags = vec![
            format!("--target=tcp://{tcp}"),
            format!("--target=ws://{ws}/sub"),
            format!("--push=http://{api}"),
            format!("--metrics=http://{api}"),
        ];
        Self { folder, flags }
    }

    fn pid(&self) -> u32 {
        std::fs::read_to_string(self.folder.path().join("pid")).unwrap().trim().parse().unwrap()
    }

    /// Kills it and starts it again on the same ports.
    fn restart_command(&self) -> String {
        let (folder, program) = (self.folder.path().display(), halley().display());
        format!(
            "cd {folder} && old=$(cat pid) && kill -9 $old && while kill -0 $old 2>&-; do sleep 0.01; done; sleep 0.2; \
             {program} --config halley.toml >log 2>&1 & echo $! >{folder}/pid"
        )
    }

    fn run(&self, scenario: &str, more: &[&str]) -> (Output, Value) {
        run(scenario, &self.flags, more)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        let _ = kill_process(pid, Signal::KILL); // a failed test may have stopped it
    }
}

fn run(scenario: &str, flags: &[String], more: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    let output = Command::new(BENCH).arg(scenario).args(flags).args(more).arg("--json").arg(&json).output().unwrap();
    let report = std::fs::read(json).map(|text| serde_json::from_slice(&text).unwrap());
    (output, report.unwrap_or_default())
}

/// On a machine that is too busy for a valid run the numbers are exact all the same.
fn assert_done(output: &Output) {
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn everybody_who_closes_at_once_is_back_and_in_the_room() {
    let gateway = Gateway::start();
    let (output, report) = gateway.run("storm", &["--connections=300", "--settle=0.1"]);
    assert_done(&output);
    let storm = &report["storm"];
    assert_eq!((number(&storm["back"]), number(&storm["not_back"])), (300, 0), "{storm}");
    assert_eq!((number(&storm["attempts"]), number(&storm["cut_off"])), (300, 0), "{storm}");
    assert_eq!((number(&report["offered"]), number(&report["delivered"])), (300, 300));
    assert!(storm["seconds"].as_f64().unwrap() >= storm["first_seconds"].as_f64().unwrap());
    for name in ["tool", "command", "machine", "settings", "valid"] {
        assert!(!report[name].is_null(), "{name} is missing");
    }
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("all back after") && table.contains("300 of 300 delivered, 0 lost"), "{table}");
}

#[test]
fn clients_come_back_after_the_server_was_killed_and_started_again() {
    let gateway = Gateway::start();
    let restart = format!("--restart-cmd={}", gateway.restart_command());
    let (output, report) = gateway
        .run("storm", &["--connections=200", "--settle=0.1", "--backoff=0.05", "--backoff-longest=0.2", &restart]);
    assert_done(&output);
    let storm = &report["storm"];
    assert_eq!((number(&storm["back"]), number(&storm["cut_off"])), (200, 200), "{storm}");
    assert!(number(&storm["failed"]["connecting"]) > 0, "nobody listened for a while: {storm}");
    assert!(report["storm"]["failure"].as_str().unwrap().contains("refused"), "{storm}");
    assert_eq!((number(&report["delivered"]), number(&report["lost"])), (200, 0));
    assert_eq!(number(&report["restart"]["status"]), 0);
}

#[test]
fn a_restart_command_that_fails_is_no_storm() {
    let gateway = Gateway::start();
    let (output, report) = gateway.run("storm", &["--connections=20", "--settle=0.1", "--restart-cmd=exit 7"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(report["invalid_reasons"].to_string().contains("--restart-cmd failed: exit status: 7"), "{report}");
    assert!(report["notes"].to_string().contains("nobody lost the connection"), "{report}");
}

#[test]
fn who_comes_and_goes_gets_exactly_what_was_due_in_between() {
    let gateway = Gateway::start();
    let pid = format!("--server-pid={}", gateway.pid());
    let flags = ["--churn-rate=300", "--stay=0.4", "--rate=40", "--duration=1.5", "--grace=5", &pid];
    for more in ["--stay-distribution=exponential", "--stay-distribution=fixed"] {
        let (output, report) = gateway.run("churn", &[&flags[..], &[more]].concat());
        assert_done(&output);
        assert!(number(&report["offered"]) > 0, "{report}");
        assert_eq!(report["offered"], report["delivered"], "{report}");
        for none in ["lost", "duplicates", "reordered", "stray", "malformed"] {
            assert_eq!(report[none], 0, "{none}: {report}");
        }
        let churn = &report["churn"];
        assert!(number(&churn["logins"]) > 100 && number(&churn["left"]) > 100, "{churn}");
        assert_eq!((number(&churn["cut_off"]), &churn["failure"]), (0, &Value::Null), "{churn}");
        assert_eq!(report["stats"]["law_holds"], true);
    }
}

#[test]
fn what_a_lying_server_drops_repeats_and_refuses_is_found_also_while_clients_come_and_go() {
    let deliver = |n, _| {
        Delivery::Messages(match n {
            8 => vec![],
            9 => vec![9, 9],
            n => vec![n],
        })
    };
    let server = Server::start(Script { deliver, welcome: |member| member % 10 != 0, ..Script::default() });
    let flags = ["--churn-rate=150", "--stay=0.3", "--rate=20", "--duration=1", "--grace=1", "--max-failed=0"];
    let (output, report) = run("churn", &server.flags(), &flags);
    assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
    let [offered, delivered, lost] = ["offered", "delivered", "lost"].map(|name| number(&report[name]));
    assert!(lost > 0 && offered == delivered + lost, "{offered} = {delivered} + {lost}");
    assert!(lost < offered / 10, "one of twenty: {lost} of {offered}");
    assert!(number(&report["duplicates"]) > 0);
    let (failed, failure) = (&report["churn"]["failed"], report["churn"]["failure"].as_str().unwrap());
    assert!(number(&failed["logging_in"]) > 0 && failed["connecting"] == 0, "{failed}");
    assert!(failure.contains("did not get into") && failure.contains("closed the connection"), "{failure}");
    assert!(report["bounds_missed"][0].as_str().unwrap().ends_with("logins failed or were cut off"), "{report}");

    let (output, _) = run("storm", &server.flags(), &["--connections=20"]);
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{sentence}");
    assert!(sentence.contains("before the storm: client") && sentence.contains("is the login refused?"), "{sentence}");
}

#[test]
fn a_million_in_small_shows_rate_memory_and_every_delivery() {
    let gateway = Gateway::start();
    let pid = format!("--server-pid={}", gateway.pid());
    let flags = ["--connections=600", "--settle=0.2", "--rate=5", "--duration=0.6", &pid];
    let (output, report) = gateway.run("million", &flags);
    assert_done(&output);
    assert_eq!((number(&report["offered"]), number(&report["delivered"])), (1800, 1800), "{report}");
    assert_eq!(number(&report["entry"]["connections"]), 600);
    assert!(report["entry"]["per_second"].as_f64().unwrap() > 0.0);
    for (name, least) in [("client_bytes_per_connection", 0.0), ("machine_bytes_per_connection", 0.0)] {
        assert!(report["memory"][name].as_f64().unwrap() >= least, "{name}");
    }
    assert!(report["memory"]["server_rss_bytes_per_connection"][0].as_f64().unwrap() > 0.0);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("bytes of a client"), "{table}");

    let (output, _) = gateway.run("million", &["--connections=4000000000"]);
    let sentence = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{sentence}");
    assert!(sentence.contains("connections here, not 4000000000: "), "{sentence}");
}
