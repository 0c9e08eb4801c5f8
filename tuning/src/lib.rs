//! What a host allows: rules as one table, a reading of the host, and plain arithmetic between them.
mod apply;
pub mod cli;
mod costs;
mod demand;
mod generate;
mod limits;
mod nics;
mod plan;
mod profile;
mod report;
mod rule;
mod rules;
mod tree;

pub use apply::{ApplyError, Changes, Journal, Step, revert};
pub use costs::{
    CONNECTION_BYTES, CONTROL_LOCKED_BYTES, DELIVERY_NS, KERNEL_BYTES, PROCESS_BYTES, RING_LOCKED_BYTES, SHARD_BYTES,
    UNCHARGED_BYTES, USER_BYTES, connections_in,
};
pub use demand::{Basis, CONNECTIONS_MAX, Demand, FILE_TABLE_MAX, Quantity, SHARDS_MAX, cpus};
pub use generate::{files, manual};
pub use plan::{Node, Plan, Traffic};
pub use profile::Profile;
pub use report::{Capacity, Finding, Report, capacity};
pub use rule::{Change, Concerns, Found, Needs, Rule, Sysctl, Term, Weight, grouped};
pub use rules::{TOPICS, Topic, rules};
pub use tree::{HostError, Tree};

/// Memory that this process may use: the host's available memory, or what its control groups leave it. Bytes.
///
/// # Errors
/// If a file is not as documented.
pub fn memory_available(tree: &Tree) -> Result<Option<u64>, HostError> {
    let of = |id: &str| rules().find(|rule| rule.id == id).map_or(Ok(Found::Unknown), |rule| (rule.read)(tree));
    let known = |found| if let Found::Number(bytes) = found { Some(bytes) } else { None };
    let (host, group) = (known(of("memory.available")?), known(of("cgroup.memory.max")?));
    Ok(host.into_iter().chain(group).min())
}
