//! How many connections fit on a host, and which bound is met first.
use serde::Serialize;

use crate::Host;

/// The kernel's own maximum for the file table of one ring, whatever `RLIMIT_NOFILE` says.
pub const FILE_TABLE_MAX: u64 = 1 << 20;

/// Shards of one process: a set of shards is one 64-bit word.
pub const SHARDS_MAX: u64 = 64;

/// Bytes of an idle connection. In the kernel 3,640 for socket, inode, file and directory entry, 256 for the
/// armed poll and 50 for its place in the file table (measured on a 2-core VM, Linux 6.18); 300 in the gateway.
pub const CONNECTION_BYTES: u64 = 3640 + 256 + 50 + 300;

/// Generous for one ring's two queues; counted only against `RLIMIT_MEMLOCK`.
const RING_BYTES: u64 = 1 << 20;

/// The first kernel with what a shard's ring is made of (`DEFER_TASKRUN`).
const KERNEL_MIN: (u64, u64) = (6, 1);

/// What stops the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// The kernel is older than 6.1: no ring, no connection.
    Kernel,
    /// `kernel.io_uring_disabled` is 2: no ring, no connection.
    IoUringDisabled,
    /// Each shard's ring has a file table of at most `RLIMIT_NOFILE` and [`FILE_TABLE_MAX`] entries, one a connection.
    /// The hard limit counts, for the gateway raises its soft one at start. It holds per ring and not per process:
    /// more shards, more connections.
    FileTable,
    /// Every socket is an open file of the host, also outside the process's descriptor table: fs.file-max less
    /// those open now.
    FileMax,
    /// Available memory (of the host, and left to the control group) divided by [`CONNECTION_BYTES`].
    Memory,
}

/// How many connections fit, and why not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Capacity {
    /// Idle connections of the whole process.
    pub connections: u64,
    /// What the next one would meet.
    pub limited_by: Bound,
}

/// What fits with this many shards.
pub fn capacity(host: &Host, shards: u64) -> Capacity {
    let [first, rest @ ..] = bounds(host, shards);
    let least = rest.into_iter().fold(first, |least, next| if next.1 < least.1 { next } else { least });
    Capacity { connections: least.1, limited_by: least.0 }
}

/// Each bound and the connections that it allows; `u64::MAX` where the host sets none.
pub fn bounds(host: &Host, shards: u64) -> [(Bound, u64); 5] {
    let unless = |refused: bool| if refused { 0 } else { u64::MAX };
    let old = host.kernel_version().is_some_and(|version| version < KERNEL_MIN);
    let disabled = host.io_uring_disabled == Some(2);
    let files = host.file_max.map_or(u64::MAX, |max| max.saturating_sub(host.files_open.unwrap_or(0)));
    [
        (Bound::Kernel, unless(old)),
        (Bound::IoUringDisabled, unless(disabled)),
        (Bound::FileTable, shards.saturating_mul(file_table(host))),
        (Bound::FileMax, files),
        (Bound::Memory, memory(host).map_or(u64::MAX, |bytes| bytes / CONNECTION_BYTES)),
    ]
}

/// The shards that `connections` need: one per CPU, more where the file tables of so many would not hold them.
pub fn shards_for(host: &Host, connections: u64, cpus: u64) -> u64 {
    let least = connections.div_ceil(file_table(host).max(1));
    least.max(cpus).clamp(1, SHARDS_MAX)
}

/// What does not bound idle connections but will be felt: one sentence each, with what to do.
pub fn notes(host: &Host, shards: u64, connections: u64) -> Vec<String> {
    let mut notes = Vec::new();
    if host.memlock.soft.is_some_and(|bytes| bytes < shards.saturating_mul(RING_BYTES)) {
        notes.push(format!(
            "RLIMIT_MEMLOCK may be too low for {shards} rings without CAP_IPC_LOCK; set LimitMEMLOCK=infinity"
        ));
    }
    if host.io_uring_disabled == Some(1) {
        notes.push("kernel.io_uring_disabled is 1; the gateway's user must be in kernel.io_uring_group".to_owned());
    }
    if let Some([.., high]) = host.tcp_mem.filter(|[.., high]| *high < connections) {
        notes.push(format!(
            "tcp_mem lets about {high} connections have unread or unsent bytes at once (a page each); raise net.ipv4.tcp_mem for more"
        ));
    }
    if host.somaxconn.is_some_and(|backlog| backlog < 4096) {
        notes.push("net.core.somaxconn is below 4096; bursts of new connections will wait for a retry".to_owned());
    }
    notes
}

fn file_table(host: &Host) -> u64 {
    host.files.hard.unwrap_or(FILE_TABLE_MAX).min(FILE_TABLE_MAX)
}

fn memory(host: &Host) -> Option<u64> {
    [host.memory_available, host.cgroup_available].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limit;

    /// A host with room for a million connections everywhere.
    fn roomy() -> Host {
        Host {
            files: Limit { soft: Some(1_024), hard: Some(20_000) },
            file_max: Some(2_000_000),
            files_open: Some(1_000),
            memory_available: Some(24 << 30),
            kernel: Some("6.18.44".to_owned()),
            io_uring_disabled: Some(0),
            ..Host::default()
        }
    }

    fn met(host: &Host, shards: u64) -> (u64, Bound) {
        let capacity = capacity(host, shards);
        (capacity.connections, capacity.limited_by)
    }

    #[test]
    fn the_file_table_counts_per_ring() {
        assert_eq!(met(&roomy(), 2), (40_000, Bound::FileTable));
        assert_eq!(met(&roomy(), 51), (1_020_000, Bound::FileTable));
        let unlimited = Host { files: Limit::default(), ..roomy() };
        assert_eq!(met(&unlimited, 1), (1 << 20, Bound::FileTable));
    }

    #[test]
    fn every_other_bound_can_be_the_least() {
        let open = Host { files_open: Some(1_999_000), ..roomy() };
        assert_eq!(met(&open, 51), (1_000, Bound::FileMax));
        let small = Host { memory_available: Some(CONNECTION_BYTES * 500), ..roomy() };
        assert_eq!(met(&small, 51), (500, Bound::Memory));
        let grouped = Host { cgroup_available: Some(CONNECTION_BYTES * 400), ..small };
        assert_eq!(met(&grouped, 51), (400, Bound::Memory));
        let old = Host { kernel: Some("5.15.0-91-generic".to_owned()), ..roomy() };
        assert_eq!(met(&old, 51), (0, Bound::Kernel));
        let disabled = Host { io_uring_disabled: Some(2), ..roomy() };
        assert_eq!(met(&disabled, 51), (0, Bound::IoUringDisabled));
    }

    #[test]
    fn shards_are_raised_until_the_connections_fit() {
        assert_eq!(shards_for(&roomy(), 1_000, 2), 2);
        assert_eq!(shards_for(&roomy(), 1_000_000, 2), 50);
        assert_eq!(shards_for(&roomy(), u64::MAX, 2), SHARDS_MAX);
    }

    #[test]
    fn a_host_that_says_nothing_is_bounded_by_its_file_tables() {
        assert_eq!(met(&Host::default(), 2), (2 << 20, Bound::FileTable));
        assert_eq!(notes(&Host::default(), 64, 1_000_000), [""; 0]);
    }

    #[test]
    fn notes_name_what_will_be_felt() {
        let host = Host {
            memlock: Limit { soft: Some(1 << 20), hard: None },
            tcp_mem: Some([1, 2, 3]),
            somaxconn: Some(128),
            io_uring_disabled: Some(1),
            ..roomy()
        };
        let text = notes(&host, 2, 10).join("\n");
        for name in ["RLIMIT_MEMLOCK", "tcp_mem", "somaxconn", "io_uring_group"] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
}
