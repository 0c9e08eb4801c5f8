//! Rules about CPUs: their speed, their memory, their clock.
use std::collections::BTreeSet;

use crate::{
    demand::cpus,
    rule::{Change, Concerns, Found, Needs, Rule, Weight},
    tree::{Tree, list},
};

pub(super) const ABOUT: &str = "A shard is a thread on one CPU that reads the clock at every turn and sleeps when it has \
    nothing to do. What else runs on its CPU delays it: give other programs other CPUs (`CPUAffinity=`, `AllowedCPUs=`, \
    `taskset`), the load generator of a test first.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "cpu.governor",
        title: "frequency governor of the slowest CPU",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| {
            let folder = "sys/devices/system/cpu";
            if !tree.names(folder).is_empty() && tree.names(&format!("{folder}/cpufreq")).is_empty() {
                return Ok(Found::Unused("no governor here: the hypervisor or the firmware decides"));
            }
            let mut words = Vec::new();
            for cpu in cpus(tree)? {
                words.extend(tree.word(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))?);
            }
            let slow = words.iter().find(|word| *word != "performance").or(words.first()).cloned();
            Ok(slow.map_or(Found::Unknown, Found::Word))
        },
        needs: Needs::OneOf(&["performance", "schedutil"]),
        effect: "a shard that wakes finds its CPU slow: the first messages after a pause take longer",
        change: Change::ByHand("`cpupower frequency-set -g performance`"),
        risk: "more power and heat; measure before and after, with many drivers it brings nothing",
        source: "https://docs.kernel.org/admin-guide/pm/cpufreq.html",
    },
    Rule {
        id: "clocksource",
        title: "the clock",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| super::word(tree, "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        needs: Needs::NoneOf(&["hpet", "acpi_pm", "jiffies", "refined-jiffies"]),
        effect: "reading the clock becomes a system call, or a microsecond on a bus, at every turn of every shard",
        change: Change::ByHand(
            "the boot parameter `clocksource=tsc`, if the kernel's log does not call the TSC unstable",
        ),
        risk: "a wrong clock where the TSC is unstable",
        source: "https://docs.kernel.org/timers/timekeeping.html",
    },
    Rule {
        id: "numa.nodes",
        title: "memory nodes that this process's CPUs are on",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| {
            let allowed: BTreeSet<u64> = cpus(tree)?.into_iter().collect();
            let nodes = tree.names("sys/devices/system/node");
            let nodes =
                nodes.iter().filter(|name| name.strip_prefix("node").is_some_and(|rest| rest.parse::<u32>().is_ok()));
            let used = nodes.filter(|node| node_cpus(tree, node).iter().any(|cpu| allowed.contains(cpu))).count();
            Ok(if used == 0 { Found::Unknown } else { Found::Number(used as u64) })
        },
        needs: Needs::AtMost(1),
        effect: "shards reach each other's queues, and the card, across nodes: each push to many shards costs more",
        change: Change::ByHand(
            "one gateway a node: `AllowedCPUs=` and `NUMAPolicy=bind` with `NUMAMask=` in a drop-in",
        ),
        risk: "two gateways to run instead of one",
        source: "https://docs.kernel.org/admin-guide/mm/numaperf.html",
    },
];

fn node_cpus(tree: &Tree, node: &str) -> Vec<u64> {
    let text = tree.text(&format!("sys/devices/system/node/{node}/cpulist")).ok().flatten();
    text.and_then(|text| list(&text)).unwrap_or_default()
}
