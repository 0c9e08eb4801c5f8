//! The unit files of `systemd/`, read by systemd itself where it is installed.
use std::{fs, process::Command};

/// What `systemd-analyze verify` says about `unit`; none where it is not installed. The program that the unit
/// starts need not be installed: this test's own stands in for it.
fn verify(unit: &str) -> Option<Result<(), String>> {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let program = std::env::current_exe().expect("the path of this test");
    let path = scratch.path().join("halley.service");
    let unit = unit.replace("/usr/bin/halley", &program.display().to_string());
    fs::write(&path, unit).expect("a copy of the unit");
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().ok()?;
    // An unknown key is only a warning to it, and to us a mistake.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("halley.service")).collect();
    Some(if output.status.success() && ours.is_empty() { Ok(()) } else { Err(said) })
}

fn unit() -> String {
    // cargo runs tests in their package's folder
    fs::read_to_string("../systemd/halley.service").expect("the unit")
}

#[test]
fn systemd_accepts_the_unit_and_would_refuse_a_misspelt_one() {
    let unit = unit();
    let Some(verdict) = verify(&unit) else {
        eprintln!("skipped: systemd-analyze is not installed here");
        return;
    };
    assert_eq!(verdict, Ok(()));
    let misspelt = unit.replace("LimitMEMLOCK=", "LimitMEMLOK=");
    assert!(matches!(verify(&misspelt), Some(Err(_))), "verify accepts anything here");
}

#[test]
fn the_unit_gives_io_uring_what_it_needs() {
    let unit = unit();
    let set = |line: &str| unit.lines().any(|other| other == line);
    assert!(set("LimitMEMLOCK=infinity"), "ring memory counts against it");
    assert!(set("LimitNOFILE=1048576"), "the file table of a ring may not be larger");
    assert!(!unit.contains("ProcSubset="), "the start-up check reads /proc/sys");
    assert!(set("SystemCallFilter=@system-service"), "holds the io_uring calls, through @aio");
}
