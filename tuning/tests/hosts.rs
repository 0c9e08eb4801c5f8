//! Every rule on recorded hosts: what is found, and what is missed.
use std::{collections::BTreeSet, fs, path::Path};

use tuning::{Change, Changes, Demand, Found, Profile, Report, Tree, Weight, rules};

const HOSTS: [&str; 4] = ["small-vm", "bare-metal", "container", "old-kernel"];

fn host(name: &str) -> Tree {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/hosts/{name}.txt"));
    Tree::recorded(&fs::read_to_string(path).expect("the recording")).expect("a recording")
}

fn report(name: &str, demand: &Demand) -> Report {
    Report::of(&host(name), demand).expect("a host that can be read")
}

fn missed(report: &Report) -> Vec<&'static str> {
    report.rules.iter().filter(|finding| !finding.ok).map(|finding| finding.id).collect()
}

fn found(report: &Report, id: &str) -> String {
    report.rules.iter().find(|finding| finding.id == id).expect("the rule").found.to_string()
}

#[test]
fn a_small_vm_holds_64_tables_and_lacks_a_queue() {
    let report = report("small-vm", &Demand::gateway(1_000_000));
    assert_eq!((report.capacity.connections, report.capacity.limited_by), (64 * 20_000, "limit.nofile"));
    assert_eq!((report.enough, report.shards), (true, 50));
    assert_eq!(missed(&report), ["net.ipv4.tcp_mem", "net.core.somaxconn", "nic.queues"]);
    assert!(found(&report, "limit.memlock").contains("CAP_IPC_LOCK"));
    assert!(found(&report, "net.netfilter.nf_conntrack_max").contains("follows nothing"));
    assert_eq!((found(&report, "nic.queues"), found(&report, "nic.irq-affinity")), ("1".into(), "2".into()));
}

#[test]
fn a_big_host_is_stopped_by_its_firewall_before_its_memory() {
    let report = report("bare-metal", &Demand::gateway(1_000_000));
    assert_eq!(report.capacity.limited_by, "limit.memlock", "no capability, 8 MiB, and 64 shards want more");
    assert_eq!(report.capacity.connections, 0);
    let missed = missed(&report);
    for id in ["net.netfilter.nf_conntrack_max", "cpu.governor", "numa.nodes", "nic.queues", "nic.irq-affinity"] {
        assert!(missed.contains(&id), "{id} in {missed:?}");
    }
    assert_eq!((found(&report, "cpu.governor"), found(&report, "numa.nodes")), ("powersave".into(), "2".into()));
    assert_eq!((found(&report, "nic.queues"), found(&report, "nic.irq-affinity")), ("8".into(), "1".into()));
    let few = self::report("bare-metal", &Demand { shards: Some(16), ..Demand::gateway(1_000_000) });
    let conntrack = (262_144 - 2_113, "net.netfilter.nf_conntrack_max");
    assert_eq!((few.capacity.connections, few.capacity.limited_by), conntrack);
}

#[test]
fn a_container_is_stopped_by_its_seccomp_profile_and_then_by_its_memory() {
    let report = report("container", &Demand::gateway(100_000));
    assert_eq!((report.capacity.connections, report.capacity.limited_by), (0, "io_uring.probe"));
    assert!(found(&report, "io_uring.probe").contains("not permitted"));
    let allows = |id: &str| report.rules.iter().find(|finding| finding.id == id).expect("the rule").allows;
    // Version 2 on Linux 6.18: the group is charged for all of it.
    let charged = tuning::CONNECTION_BYTES;
    let left = 536_870_912 - 20_971_520 - tuning::PROCESS_BYTES - 8 * tuning::SHARD_BYTES;
    assert_eq!(allows("cgroup.memory.max"), Some(left / charged));
    assert!(missed(&report).contains(&"cgroup.cpu.max"), "two CPUs' time for eight shards");
    let changes = Changes::of(&host("container"), Profile::Gateway).expect("a host that can be read");
    assert!(changes.steps.iter().all(|step| step.running));
    assert!(changes.left.iter().any(|line| line.starts_with("fs.file-max") && line.contains("only the host")));
}

#[test]
fn an_old_kernel_is_refused_and_everything_tight_is_named() {
    let report = report("old-kernel", &Demand::gateway(100_000));
    assert_eq!(report.capacity.connections, 0);
    let expected = [
        "fs.nr_open",
        "fs.file-max",
        "limit.memlock",
        "vm.overcommit_memory",
        "kernel.version",
        "kernel.version.doorbell",
        "io_uring.probe",
        "net.ipv4.tcp_mem",
        "net.core.wmem_max",
        "net.core.somaxconn",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_max_syn_backlog",
        "clocksource",
    ];
    let missed = missed(&report);
    for id in expected {
        assert!(missed.contains(&id), "{id} in {missed:?}");
    }
    let generator = Demand { profile: Profile::Loadgen, ..Demand::gateway(100_000) };
    let missed = self::missed(&self::report("old-kernel", &generator));
    for id in ["net.ipv4.ip_local_port_range", "net.ipv4.tcp_tw_reuse", "net.core.netdev_max_backlog"] {
        assert!(missed.contains(&id), "{id} in {missed:?}");
    }
}

#[test]
fn every_rule_finds_something_on_some_host_and_what_can_be_missed_is_missed_on_one() {
    let (mut seen, mut short) = (BTreeSet::new(), BTreeSet::new());
    for name in HOSTS {
        for profile in Profile::ALL {
            // More than any table holds, so that counted needs are missed somewhere.
            let demand = Demand { profile, ..Demand::gateway(300_000_000) };
            for finding in report(name, &demand).rules {
                if finding.found != Found::Unknown {
                    seen.insert(finding.id);
                }
                if !finding.ok {
                    short.insert(finding.id);
                }
            }
        }
    }
    // No host without io_uring in its kernel, with rings forbidden to all, or with so few tasks is among them.
    let never = ["kernel.config.io_uring", "kernel.io_uring_disabled"];
    for rule in rules() {
        assert!(seen.contains(rule.id), "{} is never found", rule.id);
        let can_be_missed = rule.weight != Weight::Told && !never.contains(&rule.id);
        assert!(!can_be_missed || short.contains(rule.id), "{} is never missed", rule.id);
    }
}

#[test]
fn a_setting_with_one_more_connection_than_it_allows_is_missed() {
    for name in HOSTS {
        for finding in report(name, &Demand::gateway(1)).rules {
            let Some(allows) = finding.allows.filter(|allows| *allows > 0) else { continue };
            let ok = |connections| {
                let report = report(name, &Demand::gateway(connections));
                report.rules.iter().find(|other| other.id == finding.id).expect("the rule").ok
            };
            assert!(ok(allows) && !ok(allows + 1), "{} on {name} at {allows}", finding.id);
        }
    }
}

#[test]
fn profiles_only_touch_what_they_name() {
    for profile in Profile::ALL {
        let changes = Changes::of(&host("small-vm"), profile).expect("a host that can be read");
        for step in changes.steps.iter().filter(|step| step.running) {
            let id = step.path.trim_start_matches("proc/sys/").replace('/', ".");
            let rule = rules().find(|rule| rule.id == id).expect("a rule of this name");
            assert!(matches!(&rule.change, Change::Sysctl(_)) && rule.value(profile).is_some(), "{id}");
        }
    }
}
