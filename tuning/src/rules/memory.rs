//! Rules about memory of the host and of this process.
use crate::{
    costs,
    demand::Quantity,
    limits,
    rule::{Change, Concerns, Found, Needs, Rule, Term, Weight},
    tree::{HostError, Tree, unexpected},
};

pub(super) const ABOUT: &str = "An idle connection costs what the bench measured: kernel memory for its socket, file and \
    armed poll, and the gateway's own record of it. Messages in flight and slow clients come on top; their bounds are in \
    docs/limits.md and printed at start.";

/// What connections, shards and the process take.
pub(super) const CONNECTIONS: &[Term] = &[
    Term { times: costs::CONNECTION_BYTES, of: Quantity::Connections, what: "bytes (4,000 kernel, 270 gateway)" },
    Term { times: costs::SHARD_BYTES, of: Quantity::Rings, what: "bytes" },
    Term { times: costs::PROCESS_BYTES, of: Quantity::One, what: "bytes of the process" },
];

/// The same, of what the control group is charged for.
pub(super) const CHARGED: &[Term] = &[
    Term { times: 1, of: Quantity::ChargedBytes, what: "bytes of connections that the group is charged for" },
    Term { times: costs::SHARD_BYTES, of: Quantity::Rings, what: "bytes" },
    Term { times: costs::PROCESS_BYTES, of: Quantity::One, what: "bytes of the process" },
];

/// `CAP_IPC_LOCK`, capabilities(7).
const IPC_LOCK: u32 = 14;

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "memory.available",
        title: "memory that can be had without swapping, bytes",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: available,
        needs: Needs::AtLeast(CONNECTIONS),
        effect: "the kernel drops packets and kills processes; a killed gateway drops every client",
        change: Change::ByHand("more memory, fewer connections (`connections_max`), or another node"),
        risk: "none",
        source: "https://docs.kernel.org/filesystems/proc.html#meminfo",
    },
    Rule {
        id: "limit.memlock",
        title: "RLIMIT_MEMLOCK, soft: locked memory of all rings of a user, bytes",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            let exempt = limits::capable(tree, IPC_LOCK)?;
            let soft = limits::soft(tree, "Max locked memory")?;
            Ok(if exempt { Found::Unused("this process has CAP_IPC_LOCK") } else { super::limit(soft) })
        },
        needs: Needs::AtLeast(&[
            Term { times: costs::RING_LOCKED_BYTES, of: Quantity::Rings, what: "bytes" },
            Term { times: costs::CONTROL_LOCKED_BYTES, of: Quantity::One, what: "bytes of control's ring" },
        ]),
        effect: "a ring is not made (ENOMEM), and the gateway does not start",
        change: Change::ByHand(
            "`LimitMEMLOCK=infinity` in the unit (it has it), `ulimit -l unlimited` in a shell, or fewer shards",
        ),
        risk: "none: the gateway locks only its rings",
        source: "https://man7.org/linux/man-pages/man2/io_uring_setup.2.html",
    },
    Rule {
        id: "vm.overcommit_memory",
        title: "whether address space may be reserved beyond memory",
        concerns: Concerns::Gateway,
        weight: Weight::Stops,
        read: |tree| super::word(tree, "proc/sys/vm/overcommit_memory"),
        needs: Needs::OneOf(&["0", "1"]),
        effect: "with 2, tables that the gateway reserves at start and touches later count at once: it may not start",
        change: Change::ByHand("`sysctl -w vm.overcommit_memory=0`, the kernel's default"),
        risk: "programs may be killed when memory runs out, instead of being refused more",
        source: "https://docs.kernel.org/mm/overcommit-accounting.html",
    },
    Rule {
        id: "transparent_hugepage",
        title: "transparent huge pages",
        concerns: Concerns::Both,
        weight: Weight::Told,
        read: |tree| {
            let path = "sys/kernel/mm/transparent_hugepage/enabled";
            let Some(text) = tree.text(path)? else { return Ok(Found::Unknown) };
            let chosen = text.split('[').nth(1).and_then(|rest| rest.split(']').next());
            chosen.map(|word| Found::Word(word.to_owned())).ok_or_else(|| unexpected(path))
        },
        needs: Needs::Nothing,
        effect: "nothing: the gateway's allocator turns huge pages off for its own process, since they would make reserved tables resident",
        change: Change::ByHand("nothing to change"),
        risk: "none",
        source: "https://docs.kernel.org/admin-guide/mm/transhuge.html",
    },
];

/// `MemAvailable`.
fn available(tree: &Tree) -> Result<Found, HostError> {
    Ok(meminfo(tree, "MemAvailable:")?.map_or(Found::Unknown, Found::Number))
}

/// A line of `/proc/meminfo`, bytes.
pub(crate) fn meminfo(tree: &Tree, name: &str) -> Result<Option<u64>, HostError> {
    let path = "proc/meminfo";
    let Some(text) = tree.text(path)? else { return Ok(None) };
    let kib = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map(|kib| Some(kib.saturating_mul(1024))).ok_or_else(|| unexpected(path))
}
