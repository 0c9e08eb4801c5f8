//! Rules about the kernel's version, its configuration, and whether io_uring may be used.
use crate::{
    demand,
    rule::{Change, Concerns, Found, Needs, Rule, Weight},
    tree::{HostError, Tree},
};

pub(super) const ABOUT: &str = "Everything goes through io_uring. Distributions, containers and administrators may have \
    turned it off. On this host it is tried out, not only read: a ring is made with the flags that a shard uses.";

/// The name of the probe's result in a recording.
const PROBE: &str = "probe/io_uring";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "kernel.version",
        title: "the kernel's version",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: version,
        needs: Needs::Version(6, 1),
        effect: "no ring can be made with DEFER_TASKRUN: the gateway does not start",
        change: Change::ByHand("a newer kernel; every long-term one from 6.1 will do"),
        risk: "that of any kernel upgrade",
        source: "https://man7.org/linux/man-pages/man2/io_uring_setup.2.html",
    },
    Rule {
        id: "kernel.version.doorbell",
        title: "the kernel's version, for messages to a ring without a ring",
        concerns: Concerns::Gateway,
        weight: Weight::Slows,
        read: version,
        needs: Needs::Version(6, 13),
        effect: "a shard that sleeps is woken through an eventfd: a few microseconds more for each wake",
        change: Change::ByHand("a newer kernel"),
        risk: "that of any kernel upgrade",
        source: "https://man7.org/linux/man-pages/man2/io_uring_register.2.html",
    },
    Rule {
        id: "kernel.config.io_uring",
        title: "CONFIG_IO_URING",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            let release = tree.word("proc/sys/kernel/osrelease")?.unwrap_or_default();
            let path = format!("boot/config-{release}");
            let whole = tree.unpacked("proc/config.gz").or(tree.text(&path)?);
            let Some(whole) = whole else { return Ok(Found::Unknown) };
            let set = whole.lines().find_map(|line| line.strip_prefix("CONFIG_IO_URING="));
            let set = set.unwrap_or("n").to_owned();
            // The rest of a kernel's configuration is nobody's business.
            tree.note(&path, format!("CONFIG_IO_URING={set}\n"));
            Ok(Found::Word(set))
        },
        needs: Needs::OneOf(&["y"]),
        effect: "the kernel has no io_uring (ENOSYS): the gateway does not start",
        change: Change::ByHand("a kernel built with CONFIG_IO_URING=y, as all large distributions build it"),
        risk: "that of any kernel upgrade",
        source: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#io-uring-disabled",
    },
    Rule {
        id: "kernel.io_uring_disabled",
        title: "who may make rings: 0 everybody, 1 one group, 2 nobody",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| super::word(tree, "proc/sys/kernel/io_uring_disabled"),
        needs: Needs::OneOf(&["0", "1"]),
        effect: "rings are refused (EPERM): the gateway does not start",
        change: Change::ByHand(
            "`sysctl -w kernel.io_uring_disabled=1`, and `kernel.io_uring_group` set to the number of the group halley; \
             no profile changes it, since it is your security people's decision",
        ),
        risk: "io_uring is a large part of the kernel that unprivileged programs can then reach; with 1 only those of the group",
        source: "https://docs.kernel.org/admin-guide/sysctl/kernel.html#io-uring-disabled",
    },
    Rule {
        id: "io_uring.probe",
        title: "a ring with a shard's flags, made and used",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            if !tree.probes() {
                return super::word(tree, PROBE);
            }
            let found = probe();
            tree.note(PROBE, found.clone());
            Ok(Found::Word(found))
        },
        needs: Needs::OneOf(&["works"]),
        effect: "the gateway does not start; what was found says why",
        change: Change::ByHand(
            "in a container: the seccomp profile of docs/operations/install.md, since the default of Docker and others blocks \
             io_uring; else see what was found",
        ),
        risk: "see kernel.io_uring_disabled",
        source: "https://docs.docker.com/engine/security/seccomp/",
    },
];

fn version(tree: &Tree) -> Result<Found, HostError> {
    Ok(demand::version(tree)?.map_or(Found::Unknown, |(major, minor)| Found::Version(major, minor)))
}

/// Makes a ring as a shard does, with one place, and lets it go.
fn probe() -> String {
    let settings = halley_ring::RingSettings { slots: 1, listeners: Vec::new(), accepts: 0, notify: None };
    // A ring belongs to the thread that makes it.
    let made = std::thread::spawn(move || {
        halley_ring::KernelRing::new(&settings).map(drop).map_err(|error| error.to_string())
    });
    match made.join() {
        Ok(Ok(())) => "works".to_owned(),
        Ok(Err(error)) => error,
        Err(_) => "the probe failed".to_owned(),
    }
}
