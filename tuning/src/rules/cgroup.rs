//! Rules about the control groups (version 2) that this process is in.
use crate::{
    demand::Quantity,
    rule::{Change, Concerns, Found, Needs, Rule, Term, Weight},
    tree::{HostError, Tree, unexpected},
};

pub(super) const ABOUT: &str = "Under systemd or in a container a process is in a control group, and every group above it \
    may set a bound too: the tightest one counts. Kernel memory of sockets is charged to the group. Version 2 is read.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "cgroup.memory.max",
        title: "memory left under the tightest memory.max, bytes",
        concerns: Concerns::Both,
        weight: Weight::Stops,
        read: |tree| {
            let left = |folder: &str| {
                let maximum = number_or_max(tree, &format!("{folder}/memory.max"))?;
                let used = tree.number(&format!("{folder}/memory.current"))?.unwrap_or(0);
                Ok(maximum.map(|maximum| maximum.saturating_sub(used)))
            };
            tightest(tree, left)
        },
        needs: Needs::AtLeast(super::memory::CONNECTIONS),
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
            let left = |folder: &str| {
                let maximum = number_or_max(tree, &format!("{folder}/pids.max"))?;
                let used = tree.number(&format!("{folder}/pids.current"))?.unwrap_or(0);
                Ok(maximum.map(|maximum| maximum.saturating_sub(used)))
            };
            tightest(tree, left)
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
            let cpus = |folder: &str| {
                let path = format!("{folder}/cpu.max");
                let Some(text) = tree.word(&path)? else { return Ok(None) };
                let mut words = text.split_whitespace();
                let (quota, period) = (words.next(), words.next().and_then(|word| word.parse::<u64>().ok()));
                match (quota, period) {
                    (Some("max"), _) => Ok(None),
                    (Some(quota), Some(period)) if period > 0 => {
                        quota.parse::<u64>().map(|quota| Some(quota / period)).map_err(|_| unexpected(&path))
                    }
                    _ => Err(unexpected(&path)),
                }
            };
            tightest(tree, cpus)
        },
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::Cpus, what: "" }]),
        effect: "a shard is stopped in the middle of its work when the quota is used up: latencies grow by tens of milliseconds",
        change: Change::ByHand("no CPU quota: give whole CPUs by `AllowedCPUs=` (cpuset), and as many shards"),
        risk: "none",
        source: "https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files",
    },
];

fn number_or_max(tree: &Tree, path: &str) -> Result<Option<u64>, HostError> {
    match tree.word(path)?.as_deref() {
        None | Some("max") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(|_| unexpected(path)),
    }
}

/// The least that `left` finds in this process's group and those above.
fn tightest(tree: &Tree, left: impl Fn(&str) -> Result<Option<u64>, HostError>) -> Result<Found, HostError> {
    let groups = tree.text("proc/self/cgroup")?.unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let mut least: Option<u64> = None;
    let mut group = Some(own);
    while let Some(path) = group {
        let folder = if path.is_empty() { "sys/fs/cgroup".to_owned() } else { format!("sys/fs/cgroup/{path}") };
        if let Some(here) = left(&folder)? {
            least = Some(least.map_or(here, |least| least.min(here)));
        }
        group = (!path.is_empty()).then(|| path.rsplit_once('/').map_or("", |(above, _)| above));
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
             == sys/fs/cgroup/system.slice/memory.current\n900\n\
             == sys/fs/cgroup/system.slice/halley.service/memory.max\nmax\n\
             == sys/fs/cgroup/system.slice/halley.service/cpu.max\n150000 100000\n\
             == sys/fs/cgroup/cpu.max\nmax 100000\n",
        )
        .unwrap();
        let found: Vec<Found> = RULES.iter().map(|rule| (rule.read)(&tree).unwrap()).collect();
        assert_eq!(found, [Found::Number(100), Found::Unlimited, Found::Number(1)]);
    }
}
