//! `halley-tune apply` and `revert`, killed (SIGKILL) before each file that they write, and what `revert` makes of that.
//!
//! A pipe without a reader stands where the file is to be written: the program waits there, and cannot go on.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tuning::{Changes, Profile, Step, Tree};

const FILES: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\n"),
    ("proc/sys/fs/file-max", "800000\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "0\n"),
    ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t575796\n"),
    ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ("etc/sysctl.d/90-halley.conf", "# somebody's own\nvm.swappiness = 1\n"),
];

const RECORD: &str = "var/lib/halley-tune/found.json";

fn host() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in FILES {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder in it");
        fs::write(path, text).expect("a file in it");
    }
    root
}

/// Every file below, without the spaces that a kernel prints as it likes.
fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("below").display().to_string();
                all.insert(name, fs::read_to_string(&path).expect("a text").trim_end().to_owned());
            }
        }
    }
    all
}

fn steps(root: &Path) -> Vec<Step> {
    Changes::of(&Tree::open(root).expect("a host"), Profile::Gateway).expect("a host that can be read").steps
}

fn tune(root: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_halley-tune"));
    command.args(arguments).args(["--yes", "--root"]).arg(root).stdout(Stdio::null());
    command.spawn().expect("the program runs")
}

const APPLY: &[&str] = &["apply", "--profile", "gateway"];

/// Where the program opens a file to write this one: kernel settings in place, others beside it first.
fn opened(root: &Path, path: &str, running: bool) -> PathBuf {
    root.join(if running { path.to_owned() } else { format!("{path}.halley-tune-new") })
}

/// Puts a pipe there; a setting's value can still be read from it, `reads` times.
fn pipe(place: &Path, reads: usize) {
    let value = fs::read_to_string(place).unwrap_or_default();
    let _ = fs::remove_file(place);
    fs::create_dir_all(place.parent().expect("a folder above")).expect("a folder");
    assert!(Command::new("mkfifo").arg(place).status().is_ok_and(|status| status.success()), "mkfifo");
    let place = place.to_path_buf();
    thread::spawn(move || (0..reads).for_each(|_| drop(fs::write(&place, &value))));
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_secs(30), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the program has made these steps.
fn made(root: &Path, steps: &[Step], restored: bool) -> bool {
    steps.iter().all(|step| {
        let wanted = if restored { step.before.clone() } else { Some(step.after.clone()) };
        fs::read_to_string(root.join(&step.path)).ok().map(|text| text.trim_end().to_owned())
            == wanted.map(|text| text.trim_end().to_owned())
    })
}

fn kill(mut program: Child) {
    program.kill().expect("it still runs");
    program.wait().expect("it has ended");
}

fn check_reverted(root: &Path, before: &BTreeMap<String, String>, when: &str) {
    assert!(tune(root, &["revert"]).wait().expect("it ends").success(), "{when}");
    assert_eq!(&picture(root), before, "{when}");
}

#[test]
fn apply_killed_before_any_of_its_writes_is_undone() {
    let all = steps(host().path());
    assert!(all.iter().filter(|step| step.running).count() >= 5 && all.iter().any(|step| !step.running), "{all:?}");
    for at in 0..all.len() {
        let (root, step) = (host(), &all[at]);
        let root = root.path();
        let before = picture(root);
        let place = opened(root, &step.path, step.running);
        pipe(&place, usize::from(step.running));
        let program = tune(root, APPLY);
        wait_until("the steps before", || root.join(RECORD).exists() && made(root, &all[..at], false));
        kill(program);
        // What a crash leaves: the old value, or half of the new file beside the old one.
        fs::remove_file(&place).expect("the pipe");
        fs::write(&place, if step.running { step.before.as_deref().unwrap_or_default() } else { "half" })
            .expect("a file");
        check_reverted(root, &before, &format!("killed before {}", step.path));
    }
}

#[test]
fn apply_killed_before_its_record_is_written_has_changed_nothing() {
    let root = host();
    let root = root.path();
    let before = picture(root);
    let place = opened(root, RECORD, false);
    pipe(&place, 0);
    let mut program = tune(root, APPLY);
    thread::sleep(Duration::from_millis(200));
    assert!(program.try_wait().expect("a child").is_none(), "it waits for its record");
    kill(program);
    fs::remove_file(&place).expect("the pipe");
    fs::write(&place, "half").expect("half a record");
    check_reverted(root, &before, "killed before the record");
    assert!(!root.join(RECORD).parent().expect("a folder above").exists(), "nothing is left of it");
    // Nor is the next one disturbed by half a record.
    fs::create_dir_all(place.parent().expect("a folder above")).expect("a folder");
    fs::write(&place, "half").expect("half a record");
    assert!(tune(root, APPLY).wait().expect("it ends").success());
    check_reverted(root, &before, "after a half record");
}

#[test]
fn apply_after_a_crash_finishes_it_and_what_was_found_first_stays_known() {
    let all = steps(host().path());
    let root = host();
    let root = root.path();
    let before = picture(root);
    let at = all.len() - 2;
    let place = opened(root, &all[at].path, all[at].running);
    pipe(&place, usize::from(all[at].running));
    let program = tune(root, APPLY);
    wait_until("the steps before", || root.join(RECORD).exists() && made(root, &all[..at], false));
    kill(program);
    fs::remove_file(&place).expect("the pipe");
    if all[at].running {
        fs::write(&place, all[at].before.as_deref().unwrap_or_default()).expect("a file");
    }
    for _ in 0..2 {
        assert!(tune(root, APPLY).wait().expect("it ends").success());
        assert!(made(root, &all, false));
    }
    check_reverted(root, &before, "applied, killed, applied twice");
}

#[test]
fn revert_killed_before_any_of_its_writes_is_done_again() {
    let all = steps(host().path());
    // Files that were not there are removed and not written, and others are replaced in one step.
    for at in (0..all.len()).filter(|at| all[*at].running) {
        let (root, step) = (host(), &all[at]);
        let root = root.path();
        let before = picture(root);
        assert!(tune(root, APPLY).wait().expect("it ends").success());
        let place = opened(root, &step.path, step.running);
        pipe(&place, 0);
        let program = tune(root, &["revert"]);
        wait_until("the steps before", || made(root, &all[at + 1..], true));
        kill(program);
        fs::remove_file(&place).expect("the pipe");
        fs::write(&place, &step.after).expect("the value that was not restored");
        check_reverted(root, &before, &format!("revert killed before {}", step.path));
    }
}
