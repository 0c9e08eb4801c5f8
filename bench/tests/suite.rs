//! Suites as a user runs them: servers that come, go and do not come, runs that fail, Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const FLOOR: &str = r#"scenario = "floor"
flags = ["--connections=5", "--rate=20", "--duration=0.4", "--warmup=0.1", "--settle=0"]
"#;

fn start(file: &Path, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley-bench"));
    command.arg("suite").arg(file).arg("--out").arg(out).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn run(folder: &Path, text: &str) -> (Output, PathBuf) {
    let (file, out) = (folder.join("a.toml"), folder.join("out"));
    std::fs::write(&file, text).unwrap();
    (start(&file, &out).wait_with_output().unwrap(), out)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_case_without_a_result_is_told_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "name = 'three'\nrepeat = 1\n[server.dead]\ncommand = ['sh', '-c', 'echo I cannot; exit 7']\nready = 'never'\n
        [[case]]\nname = 'first'\n{FLOOR}\n[[case]]\nname = 'second'\nserver = 'dead'\n{FLOOR}\n[[case]]\nname = 'third'\n{FLOOR}"
    );
    let (output, out) = run(folder.path(), &text);
    // A busy machine makes a floor invalid, which is the worse status.
    assert!(matches!(output.status.code(), Some(2 | 3)), "{output:?}");
    let page = read(&out.join("report.html"));
    assert!(page.contains("second-1: the server ended with exit status: 7; I cannot"), "{page}");
    for name in ["first-1.json", "third-1.json", "suite.toml", "second-1.server.log"] {
        assert!(out.join(name).exists(), "{name}");
    }
    assert!(!out.join("second-1.json").exists());
    assert!(page.find("third-1").is_some());
}

#[test]
fn ctrl_c_ends_the_suite_after_what_was_measured_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("a.toml"), folder.path().join("out"));
    std::fs::write(&file, format!("name = 'long'\nrepeat = 100\n[[case]]\nname = 'floor'\n{FLOOR}")).unwrap();
    let child = start(&file, &out);
    let deadline = Instant::now() + Duration::from_mins(1);
    while !out.join("floor-2.log").exists() {
        assert!(Instant::now() < deadline, "the second run did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let page = read(&out.join("report.html"));
    assert!(page.contains("the suite was interrupted"), "{page}");
    assert!(page.contains("floor-1") && out.join("floor-1.json").exists());
    assert!(!out.join("floor-9.json").exists(), "it went on");
}

#[test]
fn a_server_that_is_to_come_back_comes_back_and_ends_with_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let server = "command = ['sh', '-c', 'echo $$ >> {out}/starts; echo up; sleep 0.3']\nready = 'up'\nrespawn = true";
    let text = format!(
        "name = 'again'\nrepeat = 1\n[server.short]\n{server}\n[[case]]\nname = 'floor'\nserver = 'short'\n{FLOOR}"
    );
    let (_, out) = run(folder.path(), &text);
    let starts = read(&out.join("starts"));
    let pids: Vec<i32> = starts.lines().map(|line| line.parse().unwrap()).collect();
    assert!(pids.len() >= 2, "{starts}");
    for pid in pids {
        assert!(test_kill_process(Pid::from_raw(pid).unwrap()).is_err(), "{pid} still runs");
    }
}

#[test]
fn a_mistake_in_the_file_is_one_sentence_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let (output, out) = run(folder.path(), "name = 'x'\n[[case]]\nname = 'a'\nscenario = 'floor'\nflags = ['--rat=1']");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("a.toml: case a:") && said.contains("--rat"), "{said}");
    assert!(!out.exists());
}

/// The committed suite, against the gateway beside the generator.
#[test]
fn the_smoke_suite_runs_against_the_gateway() {
    let gateway = Path::new(env!("CARGO_BIN_EXE_halley-bench")).with_file_name("halley");
    if !gateway.exists() {
        println!("skipped: there is no gateway at {}; cargo build -p gateway makes one", gateway.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/smoke.toml");
    let output = start(&file, &out).wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    for name in ["floor-1", "broadcast-1", "broadcast-2"] {
        let run: Value = serde_json::from_str(&read(&out.join(format!("{name}.json")))).unwrap();
        assert_eq!((&run["lost"], &run["offered"]), (&0.into(), &200.into()), "{name}");
    }
    let run: Value = serde_json::from_str(&read(&out.join("broadcast-1.json"))).unwrap();
    assert_eq!(run["stats"]["law_holds"], true);
    assert_eq!(run["stats"]["run_messages"]["count"].as_u64().map(|runs| runs > 0), Some(true), "{}", run["stats"]);
    let page = read(&out.join("report.html"));
    assert!(page.contains("Median of the runs") && page.contains("of 2"));
}
