//! `halley-tune` as a user calls it.
use std::{fs, path::Path, process::Command};

/// A host with `RLIMIT_NOFILE` 1000, a listener's queue of 128, and nothing else that bounds it.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    let files = [
        (
            "proc/self/limits",
            "Max open files            400                  1000                 files     \n\
             Max locked memory         unlimited            unlimited            bytes     \n",
        ),
        ("proc/sys/net/core/somaxconn", "128\n"),
    ];
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder in it");
        fs::write(path, text).expect("a file in it");
    }
    root
}

/// Exit code, standard output, and what went to the error output.
fn run(root: &Path, arguments: &[&str]) -> (i32, String, String) {
    let (command, rest) = arguments.split_first().expect("a command");
    let output = Command::new(env!("CARGO_BIN_EXE_halley-tune"))
        .args([*command, "--root"])
        .arg(root)
        .args(rest)
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn report(arguments: &[&str]) -> (i32, String) {
    let (code, out, _) = run(host().path(), &[&["report"], arguments].concat());
    (code, out)
}

#[test]
fn enough_is_exit_0_and_short_is_exit_1_with_the_answer_in_the_first_line() {
    assert_eq!(report(&["--shards", "2", "--connections", "2000"]).0, 0);
    let (code, text) = report(&["--shards", "2", "--connections", "2001"]);
    assert_eq!(code, 1);
    let first = text.lines().next().expect("a line");
    for part in ["2,000 connections fit", "stopped by limit.nofile", "2,001 in 2 shards: short"] {
        assert!(first.contains(part), "{part} in {first}");
    }
    assert!(text.contains("LimitNOFILE=1048576"), "what to do: {text}");
}

#[test]
fn shards_are_raised_by_default() {
    let (code, text) = report(&["--connections", "64000"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("in 64 shards"), "{text}");
    assert_eq!(report(&["--connections", "64001"]).0, 1);
}

#[test]
fn json_names_capacity_bound_and_every_rule() {
    let (code, text) = report(&["--shards", "1", "--connections", "5000", "--json"]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["capacity"], 1000);
    assert_eq!(json["limited_by"], "limit.nofile");
    assert_eq!(json["enough"], false);
    let rules = json["rules"].as_array().expect("rules");
    let rule = |id: &str| rules.iter().find(|rule| rule["id"] == id).unwrap_or_else(|| panic!("{id}"));
    let nofile = rule("limit.nofile");
    assert_eq!((&nofile["found"], &nofile["needed"], &nofile["ok"]), (&1000.into(), &5000.into(), &false.into()));
    let unknown = rule("fs.file-max");
    assert_eq!((&unknown["found"], &unknown["ok"]), (&serde_json::Value::Null, &true.into()));
}

#[test]
fn a_load_generator_is_bounded_by_its_ports_for_each_pair_of_addresses() {
    let root = host();
    fs::create_dir_all(root.path().join("proc/sys/net/ipv4")).expect("a folder");
    fs::write(root.path().join("proc/sys/net/ipv4/ip_local_port_range"), "1000\t1099\n").expect("a file");
    let of = |addresses: &str| {
        let arguments = ["report", "--profile", "loadgen", "--connections", "1", "--addresses", addresses, "--json"];
        let (_, text, _) = run(root.path(), &arguments);
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        (json["capacity"].as_u64(), json["limited_by"].as_str().map(str::to_owned))
    };
    let ports = || Some("net.ipv4.ip_local_port_range".to_owned());
    assert_eq!((of("1"), of("3")), ((Some(100), ports()), (Some(300), ports())));
}

#[test]
fn apply_shows_first_changes_then_and_revert_undoes_it() {
    let root = host();
    let somaxconn = || fs::read_to_string(root.path().join("proc/sys/net/core/somaxconn")).expect("the value");
    let (code, text, _) = run(root.path(), &["apply", "--profile", "gateway", "--dry-run"]);
    assert_eq!((code, somaxconn().as_str()), (0, "128\n"));
    assert!(text.contains("net.core.somaxconn (now)\n  - 128\n  + 32768\n"), "{text}");
    let (code, _, error) = run(root.path(), &["apply", "--profile", "gateway"]);
    assert_eq!((code, somaxconn().as_str()), (2, "128\n"), "nobody was asked");
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(run(root.path(), &["apply", "--profile", "gateway", "--yes"]).0, 0);
    assert_eq!(somaxconn(), "32768");
    assert_eq!(run(root.path(), &["revert", "--yes"]).0, 0);
    assert_eq!(somaxconn(), "128");
    let (code, text, _) = run(root.path(), &["revert", "--yes"]);
    assert_eq!((code, text.as_str()), (0, "nothing is applied\n"));
}

#[test]
fn a_wrong_call_and_an_unreadable_host_are_exit_2() {
    assert_eq!(report(&["--connections", "many"]).0, 2);
    let empty = tempfile::tempdir().expect("a folder");
    let (code, _, error) = run(empty.path(), &["report", "--connections", "1"]);
    assert_eq!(code, 2);
    assert!(error.contains("proc/self/limits"), "{error}");
}

#[test]
fn this_host_is_reported_and_its_recording_reports_the_same() {
    let output = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_halley-tune")).args(arguments).output().expect("the program runs")
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let recording = scratch.path().join("host.txt");
    fs::write(&recording, output(&["record"]).stdout).expect("a recording");
    // What moves between two readings is left out.
    let steady = |json: &[u8]| -> Vec<(String, String)> {
        let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        let rules = json["rules"].as_array().expect("rules").iter();
        let rules = rules.filter(|rule| !["memory.available", "cgroup.memory.max"].iter().any(|id| rule["id"] == *id));
        rules.map(|rule| (rule["id"].to_string(), rule["found"].to_string())).collect()
    };
    let path = recording.display().to_string();
    let live = output(&["report", "--connections", "1000", "--json"]).stdout;
    let recorded = output(&["report", "--connections", "1000", "--json", "--root", &path]).stdout;
    assert_eq!(steady(&live), steady(&recorded));
}
