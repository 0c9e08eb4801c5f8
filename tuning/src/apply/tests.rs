//! Apply and revert on hosts made up of files.
use std::collections::BTreeMap;

use super::*;

const FILES: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:       24000000 kB\nMemAvailable:   20000000 kB\n"),
    ("proc/sys/fs/file-max", "9223372036854775807\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_syncookies", "1\n"),
    ("proc/sys/net/ipv4/tcp_mem", "287898\t383867\t2000000\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("etc/sysctl.d/10-own.conf", "vm.swappiness = 1\n"),
];

fn host(extra: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in FILES.iter().chain(extra) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// Every file and folder below, values of the kernel without the spaces that it prints as it likes.
fn picture(root: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.is_dir() {
                all.insert(name, String::new());
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                all.insert(name, text.trim_end().to_owned());
            }
        }
    }
    all
}

fn changes(root: &Path, profile: Profile) -> Changes {
    Changes::of(&Tree::open(root).unwrap(), profile).unwrap()
}

#[test]
fn what_is_short_is_raised_what_is_higher_stays_and_both_outlive_a_reboot() {
    let root = host(&[]);
    changes(root.path(), Profile::Gateway).apply(root.path()).unwrap();
    let after = picture(root.path());
    assert_eq!(after["proc/sys/net/core/somaxconn"], "32768");
    assert_eq!(after["proc/sys/net/ipv4/tcp_mem"], "786432 1048576 2000000");
    assert_eq!(after["proc/sys/fs/file-max"], "9223372036854775807");
    let file = &after[SYSCTL_FILE];
    for line in ["net.core.somaxconn = 32768", "fs.file-max = 9223372036854775807", "-net.netfilter.nf_conntrack_max ="]
    {
        assert!(file.contains(line), "{line} in {file}");
    }
    assert!(after[DROP_IN_FILE].contains("LimitNOFILE=1048576"));
}

#[test]
fn applying_twice_changes_nothing_the_second_time() {
    let root = host(&[]);
    changes(root.path(), Profile::Gateway).apply(root.path()).unwrap();
    assert_eq!(changes(root.path(), Profile::Gateway).steps, []);
}

#[test]
fn revert_restores_everything_after_any_number_of_profiles() {
    let root = host(&[]);
    let before = picture(root.path());
    for profile in [Profile::Gateway, Profile::GatewayLowmem, Profile::Loadgen] {
        changes(root.path(), profile).apply(root.path()).unwrap();
    }
    assert_ne!(picture(root.path()), before);
    assert!(revert(root.path()).unwrap());
    let mut after = picture(root.path());
    // The folder above the record was not there either, and is nobody's.
    after.retain(|name, _| name != "var" && name != "var/lib");
    assert_eq!(after, before);
    assert!(!revert(root.path()).unwrap(), "nothing is left to revert");
}

#[test]
fn revert_restores_everything_after_a_crash_at_any_step_of_apply_and_of_revert() {
    let steps = changes(host(&[]).path(), Profile::Gateway).steps.len();
    assert!(steps >= 4, "{steps}");
    for made in 0..=steps {
        let root = host(&[]);
        let before = picture(root.path());
        let changes = changes(root.path(), Profile::Gateway);
        Journal::default().with(&changes.steps, root.path()).write(root.path()).unwrap();
        for step in &changes.steps[..made] {
            step.write(root.path()).unwrap();
        }
        if let Some(next) = changes.steps.get(made).filter(|step| !step.running) {
            let unfinished = beside(&root.path().join(&next.path));
            fs::create_dir_all(unfinished.parent().unwrap()).unwrap();
            fs::write(unfinished, "half").unwrap();
        }
        // A revert that crashed has restored some of it.
        let journal = fs::read_to_string(root.path().join("var/lib/halley-tune/found.json")).unwrap();
        revert(root.path()).unwrap();
        fs::create_dir_all(root.path().join("var/lib/halley-tune")).unwrap();
        fs::write(root.path().join("var/lib/halley-tune/found.json"), journal).unwrap();
        revert(root.path()).unwrap();
        let mut after = picture(root.path());
        after.retain(|name, _| name != "var" && name != "var/lib");
        assert_eq!(after, before, "after {made} steps");
    }
}

#[test]
fn a_container_changes_what_is_its_own_and_names_what_is_the_hosts() {
    let root = host(&[]);
    fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
    std::os::unix::fs::symlink("pid:[4026532201]", root.path().join("proc/self/ns/pid")).unwrap();
    let changes = changes(root.path(), Profile::Gateway);
    assert!(changes.steps.iter().all(|step| step.running), "no files: {:?}", changes.steps);
    assert!(changes.diff().contains("net.core.somaxconn (now)\n  - 4096\n  + 32768\n"), "{}", changes.diff());
    let left = changes.left.join("\n");
    for id in ["fs.file-max", "net.ipv4.tcp_mem"] {
        assert!(left.contains(&format!("{id} = ")) && left.contains("only the host"), "{id} in {left}");
    }
}

#[test]
fn a_small_host_does_not_get_the_socket_memory_of_a_large_one() {
    let root = host(&[("proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable: 1000000 kB\n")]);
    let changes = changes(root.path(), Profile::Gateway);
    assert!(changes.left.iter().any(|line| line.contains("net.ipv4.tcp_mem") && line.contains("16 GB")), "{changes:?}");
    assert!(changes.steps.iter().all(|step| !step.path.contains("tcp_mem") && !step.after.contains("tcp_mem")));
}

#[test]
fn what_can_only_be_read_is_left_and_named() {
    let root = host(&[]);
    let path = root.path().join("proc/sys/net/core/somaxconn");
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let changes = changes(root.path(), Profile::Gateway);
    assert!(
        changes.left.iter().any(|line| line.contains("net.core.somaxconn") && line.contains("read-only")),
        "{changes:?}"
    );
    assert!(changes.steps.iter().all(|step| step.path != "proc/sys/net/core/somaxconn"));
}
