//! `halley-tune report` as a user calls it, on a small host that is made up.
use std::{fs, process::Command};

/// A host with `RLIMIT_NOFILE` 1000 and nothing else that bounds it.
fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(root.path().join("proc/self")).expect("a folder in it");
    let limits = "Max open files            400                  1000                 files     \n\
                  Max locked memory         unlimited            unlimited            bytes     \n";
    fs::write(root.path().join("proc/self/limits"), limits).expect("a file in it");
    root
}

/// Exit code and standard output.
fn report(arguments: &[&str]) -> (i32, String) {
    let root = host();
    let output = Command::new(env!("CARGO_BIN_EXE_halley-tune"))
        .args(["report", "--root"])
        .arg(root.path())
        .args(arguments)
        .output()
        .expect("the program runs");
    (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn enough_is_exit_0_and_short_is_exit_1_with_what_to_raise() {
    assert_eq!(report(&["--shards", "2", "--connections", "2000"]).0, 0);
    let (code, text) = report(&["--shards", "2", "--connections", "2001"]);
    assert_eq!(code, 1);
    assert!(text.contains("short of 2001: 2000 fit; raise RLIMIT_NOFILE"), "{text}");
}

#[test]
fn shards_are_raised_by_default() {
    let (code, text) = report(&["--connections", "64000"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("with 64 shards"), "{text}");
}

#[test]
fn json_carries_the_bound_that_was_met() {
    let (code, text) = report(&["--shards", "1", "--connections", "5000", "--json"]);
    assert_eq!(code, 1);
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["connections"], 1000);
    assert_eq!(json["limited_by"], "file-table");
    assert_eq!(json["enough"], false);
    assert_eq!(json["host"]["files"]["soft"], 400);
    assert_eq!(
        json["bounds"],
        serde_json::json!({
            "kernel": null, "io-uring-disabled": null, "file-table": 1000, "file-max": null, "memory": null
        })
    );
}

#[test]
fn a_wrong_call_and_an_unreadable_host_are_exit_2() {
    assert_eq!(report(&["--connections", "many"]).0, 2);
    let empty = tempfile::tempdir().expect("a folder");
    let status = Command::new(env!("CARGO_BIN_EXE_halley-tune"))
        .args(["report", "--connections", "1", "--root"])
        .arg(empty.path())
        .status()
        .expect("the program runs");
    assert_eq!(status.code(), Some(2));
}
