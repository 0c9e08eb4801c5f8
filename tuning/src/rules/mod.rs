//! The table of rules, a file a topic.
mod backlog;
mod cgroup;
mod conntrack;
mod cpu;
mod files;
mod kernel;
mod memory;
mod nic;
mod ports;
mod tcp;

use crate::{
    rule::{Found, Rule},
    tree::{HostError, Tree},
};

/// Rules about one thing.
pub struct Topic {
    /// Its heading.
    pub name: &'static str,
    /// What a reader should know first.
    pub about: &'static str,
    /// In the order of reading.
    pub rules: &'static [Rule],
}

/// Every topic. What stops most hosts first stands first.
pub static TOPICS: &[Topic] = &[
    Topic { name: "Files", about: files::ABOUT, rules: files::RULES },
    Topic { name: "Memory", about: memory::ABOUT, rules: memory::RULES },
    Topic { name: "Control groups", about: cgroup::ABOUT, rules: cgroup::RULES },
    Topic { name: "Kernel and io_uring", about: kernel::ABOUT, rules: kernel::RULES },
    Topic { name: "Socket memory", about: tcp::ABOUT, rules: tcp::RULES },
    Topic { name: "New connections", about: backlog::ABOUT, rules: backlog::RULES },
    Topic { name: "Ports of a load generator", about: ports::ABOUT, rules: ports::RULES },
    Topic { name: "Connection tracking", about: conntrack::ABOUT, rules: conntrack::RULES },
    Topic { name: "CPUs and clock", about: cpu::ABOUT, rules: cpu::RULES },
    Topic { name: "Network cards", about: nic::ABOUT, rules: nic::RULES },
];

/// Every rule, in the order of the topics.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    TOPICS.iter().flat_map(|topic| topic.rules)
}

pub(crate) use memory::meminfo;

/// A file of one number, for readings.
fn number(tree: &Tree, path: &str) -> Result<Found, HostError> {
    Ok(tree.number(path)?.map_or(Found::Unknown, Found::Number))
}

/// A file of one word.
fn word(tree: &Tree, path: &str) -> Result<Found, HostError> {
    Ok(tree.word(path)?.map_or(Found::Unknown, Found::Word))
}

/// A resource limit.
fn limit(value: Option<u64>) -> Found {
    value.map_or(Found::Unlimited, Found::Number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::rule::{Change, Weight};

    #[test]
    fn every_rule_says_all_that_a_reader_needs() {
        let mut ids = BTreeSet::new();
        for rule in rules() {
            assert!(ids.insert(rule.id), "{} twice", rule.id);
            for text in [rule.title, rule.effect, rule.risk, rule.source] {
                assert!(text.len() > 3, "{}", rule.id);
            }
            assert!(rule.how().len() > 10, "{}", rule.id);
        }
    }

    #[test]
    fn a_sysctl_of_a_profile_meets_its_own_rule_for_what_the_profile_is_for() {
        use crate::demand::{Basis, Demand};
        let basis = Basis { files_open: 10_000, nic_queues: 16, ..Basis::new(16, 1 << 20) };
        for rule in rules() {
            let Change::Sysctl(sysctl) = &rule.change else { continue };
            for (profile, value) in sysctl.values {
                let connections = if rule.weight == Weight::Stops { 50_000 } else { 10_000 };
                let demand = Demand { connections, shards: None, addresses: 1, profile: *profile };
                let text = format!(
                    "== proc/sys/{}\n{value}\n== proc/sys/net/netfilter/nf_conntrack_count\n1\n",
                    rule.id.replace('.', "/")
                );
                let found = (rule.read)(&Tree::recorded(&text).unwrap()).unwrap();
                assert!(rule.is_for(*profile), "{} in {profile:?}", rule.id);
                assert!(rule.needs.met(&found, &demand, &basis), "{} = {value}: {found}", rule.id);
            }
        }
    }
}
