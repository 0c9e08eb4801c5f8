//! Rules about network cards.
use crate::{
    demand::Quantity,
    nics,
    rule::{Change, Concerns, Found, Needs, Rule, Term, Weight},
};

pub(super) const ABOUT: &str = "A card spreads what arrives over its receive queues, and each queue interrupts one CPU. \
    Interfaces without a device behind them (loopback, bridges) are left out.";

pub(super) static RULES: &[Rule] = &[
    Rule {
        id: "nic.queues",
        title: "receive queues of the card with the fewest",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| {
            let fewest = nics::queues(tree).into_iter().map(|(_, queues)| queues).min();
            Ok(fewest.map_or(Found::Unknown, Found::Number))
        },
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::Cpus, what: "" }]),
        effect: "the CPUs without a queue do none of the card's work, and the others do theirs",
        change: Change::ByHand(
            "`ethtool -L DEVICE combined CPUS`, as far as `ethtool -l DEVICE` allows; else RPS (`rps_cpus`)",
        ),
        risk: "the link is down for a moment",
        source: "https://docs.kernel.org/networking/scaling.html",
    },
    Rule {
        id: "nic.irq-affinity",
        title: "CPUs that take interrupts of the card for which they are fewest",
        concerns: Concerns::Both,
        weight: Weight::Slows,
        read: |tree| Ok(nics::interrupted_cpus(tree).map_or(Found::Unknown, Found::Number)),
        needs: Needs::AtLeast(&[Term { times: 1, of: Quantity::QueueCpus, what: "" }]),
        effect: "one CPU does the work of several queues, and the shard on it is late",
        change: Change::ByHand(
            "run irqbalance, or write a CPU into `/proc/irq/NUMBER/smp_affinity_list` for each queue",
        ),
        risk: "none",
        source: "https://docs.kernel.org/core-api/irq/irq-affinity.html",
    },
];
