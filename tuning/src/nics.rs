//! Network cards: their queues, and the CPUs that take their interrupts.
use std::collections::BTreeSet;

use crate::tree::{Tree, list};

/// Cards (interfaces with a device behind them) and how many receive queues each has.
pub(crate) fn queues(tree: &Tree) -> Vec<(String, u64)> {
    let cards = tree.names("sys/class/net").into_iter();
    let cards = cards.filter(|name| !tree.names(&format!("sys/class/net/{name}/device")).is_empty());
    let counted = cards.map(|name| {
        let queues = tree.names(&format!("sys/class/net/{name}/queues"));
        let receiving = queues.iter().filter(|queue| queue.starts_with("rx-")).count() as u64;
        (name, receiving)
    });
    counted.filter(|(_, receiving)| *receiving > 0).collect()
}

/// How many CPUs take interrupts of the card for which they are fewest; none if that is hidden.
pub(crate) fn interrupted_cpus(tree: &Tree) -> Option<u64> {
    let cards = queues(tree);
    let counts = cards.iter().filter_map(|(name, _)| {
        // A virtio card's interrupts belong to the PCI function above it.
        let mut interrupts = tree.names(&format!("sys/class/net/{name}/device/msi_irqs"));
        if interrupts.is_empty() {
            interrupts = tree.names(&format!("sys/class/net/{name}/device/../msi_irqs"));
        }
        let cpus = interrupts.iter().filter_map(|irq| {
            let effective = tree.text(&format!("proc/irq/{irq}/effective_affinity_list")).ok().flatten();
            list(&effective?)
        });
        let cpus: BTreeSet<u64> = cpus.flatten().collect();
        (!cpus.is_empty()).then_some(cpus.len() as u64)
    });
    counts.min()
}
