//! Rules about the control groups (version 2) that this process is in.
use crate::{
    demand::Quantity,
    rule::{Change, Concerns, Found, Needs, Rule, Term, Weight},
    tree::{HostError, Tree, unexpected},
};

pub(super) const ABOUT: &str = "Under systemd or in a container a process is in a control group, and every group above it \
    may set a bound too: the tightest one counts. Kernel memory of sockets is charged to the group; what it has of the page \
    cache can be taken back, and does not count. Of a connection's bytes the group is charged for all from Linux 6.12 on; before \
    that, and in groups of version 1, which are read too, not for the socket itself (2,570 of 4,270 bytes).";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "cgroup.memory.max",
        title: "memory left under the tightest memory.max, bytes",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            let left = |folder: &Folder| {
                let (maximum, used, cache) = match folder.version {
                    Version::Two => ("memory.max", "memory.current", "inactive_file "),
                    Version::One => ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
                };
                // Version 1 says "no bound" by the largest number of whole pages.
                let maximum = number_or_max(tree, &folder.file(maximum))?.filter(|maximum| *maximum < 1 << 62);
                let Some(maximum) = maximum else { return Ok(None) };
                let used = tree.number(&folder.file(used))?.unwrap_or(0);
                Ok(Some(maximum.saturating_sub(used.saturating_sub(line(tree, &folder.file("memory.stat"), cache)?))))
            };
            tightest(tree, "memory", left)
        },
        needs: Needs::AtLeast(super::memory::CHARGED),
        effect: "the kernel kills the gateway at the bound, and every client is dropped",
        change: Change::ByHand(
            "`MemoryMax=` of the unit (its drop-ins carry the arithmetic), or the container's memory limit",
        ),
        risk: "a gateway without a bound can take the host's memory from others",
        source: "https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files",
    },
    Rule {
        id: "cgroup.pids.max",
        title: "tasks left under the tightest pids.max",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            let left = |folder: &Folder| {
                let maximum = number_or_max(tree, &folder.file("pids.max"))?;
                let used = tree.number(&folder.file("pids.current"))?.unwrap_or(0);
                Ok(maximum.map(|maximum| maximum.saturating_sub(used)))
            };
            tightest(tree, "pids", left)
        },
        needs: Needs::AtLeast(&[
            Term { times: 1, of: Quantity::Rings, what: "shards" },
            Term { times: 8, of: Quantity::One, what: "other threads" },
        ]),
        effect: "a shard's thread cannot be started, and the gateway does not start",
        change: Change::ByHand("`TasksMax=` of the unit, or the container's pids limit"),
        risk: "none",
        source: "https://docs.kernel.org/admin-guide/cgroup-v2.html#pid",
    },
    Rule {
        id: "cgroup.cpu.max",
        title: "CPUs' worth of time under the tightest cpu.max",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| {
            tightest(tree, "cpu", |folder| match folder.version {
                Version::Two => quota(tree, &folder.file("cpu.max")),
                Version::One => quota_of_version_1(tree, folder),
            })
        },
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::Cpus, what: "" }]),
        effect: "a shard is stopped in the middle of its work when the quota is used up: latencies grow by tens of milliseconds",
        change: Change::ByHand("no CPU quota: give whole CPUs by `AllowedCPUs=` (cpuset), and as many shards"),
        risk: "none",
        source: "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files",
    },
];

/// Which interface a control group has.
#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// A control group, from the root.
struct Folder {
    path: String,
    version: Version,
}

impl Folder {
    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// CPUs' worth of time: `150000 100000`, or `max 100000`.
fn quota(tree: &Tree, path: &str) -> Result<Option<u64>, HostError> {
    let Some(text) = tree.word(path)? else { return Ok(None) };
    let mut words = text.split_whitespace();
    match (words.next(), words.next().and_then(|word| word.parse::<u64>().ok())) {
        (Some("max"), _) => Ok(None),
        (Some(quota), Some(period)) if period > 0 => {
            quota.parse::<u64>().map(|quota| Some(quota / period)).map_err(|_| unexpected(path))
        }
        _ => Err(unexpected(path)),
    }
}

/// The same in two files; a quota of -1 is none.
fn quota_of_version_1(tree: &Tree, folder: &Folder) -> Result<Option<u64>, HostError> {
    let quota = tree.word(&folder.file("cpu.cfs_quota_us"))?.and_then(|quota| quota.parse::<u64>().ok());
    let period = tree.number(&folder.file("cpu.cfs_period_us"))?.filter(|period| *period > 0);
    Ok(quota.zip(period).map(|(quota, period)| quota / period))
}

fn number_or_max(tree: &Tree, path: &str) -> Result<Option<u64>, HostError> {
    match tree.word(path)?.as_deref() {
        None | Some("max") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| unexpected(path)),
    }
}

/// The number of one line of a long file; 0 if it is not there.
fn line(tree: &Tree, path: &str, name: &str) -> Result<u64, HostError> {
    let Some(text) = tree.text(path)? else { return Ok(0) };
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    tree.note(path, format!("{line}\n"));
    Ok(line.strip_prefix(name).and_then(|number| number.trim().parse().ok()).unwrap_or(0))
}

/// The least that `left` finds in this process's groups and those above, in version 2 and where `controller` still has a
/// tree of version 1.
fn tightest(
    tree: &Tree,
    controller: &str,
    left: impl Fn(&Folder) -> Result<Option<u64>, HostError>,
) -> Result<Found, HostError> {
    let groups = tree.text("proc/self/cgroup")?.unwrap_or_default();
    let mut least: Option<u64> = None;
    for group in groups.lines() {
        // `0::/PATH`, or `4:memory,hugetlb:/PATH`
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (version, mount) = match controllers {
            "" => (Version::Two, "sys/fs/cgroup".to_owned()),
            some if some.split(',').any(|name| name == controller) => {
                (Version::One, format!("sys/fs/cgroup/{controller}"))
            }
            _ => continue,
        };
        let mut above = Some(path.trim_matches('/'));
        while let Some(path) = above {
            let folder = if path.is_empty() { mount.clone() } else { format!("{mount}/{path}") };
            if let Some(here) = left(&Folder { path: folder, version })? {
                least = Some(least.map_or(here, |least| least.min(here)));
            }
            above = (!path.is_empty()).then(|| path.rsplit_once('/').map_or("", |(above, _)| above));
        }
    }
    Ok(least.map_or(Found::Unlimited, Found::Number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_group_counts() {
        let tree = Tree::recorded(
            "== proc/self/cgroup\n1:name=systemd:/x\n0::/system.slice/halley.service\n\
             == sys/fs/cgroup/system.slice/memory.max\n1000\n\
             == sys/fs/cgroup/system.slice/memory.current\n950\n\
             == sys/fs/cgroup/system.slice/memory.stat\nfile 60\ninactive_file 50\n\
             == sys/fs/cgroup/system.slice/halley.service/memory.max\nmax\n\
             == sys/fs/cgroup/system.slice/halley.service/cpu.max\n150000 100000\n\
             == sys/fs/cgroup/cpu.max\nmax 100000\n",
        )
        .unwrap();
        let found: Vec<Found> = RULES.iter().map(|rule| (rule.read)(&tree).unwrap()).collect();
        assert_eq!(found, [Found::Number(100), Found::Unlimited, Found::Number(1)]);
    }

    #[test]
    fn a_host_with_version_1_is_read_too() {
        let tree = Tree::recorded(
            "== proc/self/cgroup\n8:pids:/\n4:memory:/own/one\n1:cpu,cpuacct:/\n0::/\n\
             == sys/fs/cgroup/memory/memory.limit_in_bytes\n9223372036854771712\n\
             == sys/fs/cgroup/memory/own/memory.limit_in_bytes\n5000\n\
             == sys/fs/cgroup/memory/own/memory.usage_in_bytes\n3000\n\
             == sys/fs/cgroup/memory/own/memory.stat\ninactive_file 9\ntotal_inactive_file 1000\n\
             == sys/fs/cgroup/pids/pids.max\nmax\n\
             == sys/fs/cgroup/cpu/cpu.cfs_quota_us\n300000\n\
             == sys/fs/cgroup/cpu/cpu.cfs_period_us\n100000\n",
        )
        .unwrap();
        let found: Vec<Found> = RULES.iter().map(|rule| (rule.read)(&tree).unwrap()).collect();
        assert_eq!(found, [Found::Number(3000), Found::Unlimited, Found::Number(3)]);
        let none = Tree::recorded("== proc/self/cgroup\n1:cpu:/\n== sys/fs/cgroup/cpu/cpu.cfs_quota_us\n-1\n").unwrap();
        assert_eq!((RULES[2].read)(&none).unwrap(), Found::Unlimited);
    }
}
