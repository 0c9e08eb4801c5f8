//! How many connections and shards this machine carries, and where each shard runs.

use tuning::{Basis, Demand, Tree, connections_in};

use super::error::ConfigError;
use super::layers::Sources;
use super::settings::{Settings, Shards};
use crate::limits::{SHARD_CONNECTIONS_MAX, SHARDS_MAX};

const _: () = assert!(SHARDS_MAX as u64 == tuning::SHARDS_MAX, "halley-tune counts with the gateway's shards");
const _: () = assert!(SHARD_CONNECTIONS_MAX as u64 == tuning::FILE_TABLE_MAX, "and with its tables");

/// What a machine offers, read once at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// CPUs of the inherited affinity mask.
    pub cpus: Vec<usize>,
    /// `RLIMIT_NOFILE`, soft, after it was raised: the kernel's limit of one ring's file table.
    pub files_max: u64,
    /// Memory available, bytes.
    pub memory_bytes: u64,
}

/// How connections are divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Connections of the process.
    pub connections_max: u32,
    /// Shards, at least one.
    pub shards: u32,
    /// Connections of the fullest shard.
    pub shard_connections_max: u32,
    /// The CPU of each shard.
    pub cpus: Vec<usize>,
}

/// Divides `connections_max` among shards, or says which of the three does not fit. The arithmetic is that of
/// `halley-tune report`, so that both always say the same.
pub(super) fn plan(settings: &Settings, host: &Host, sources: &Sources) -> Result<Plan, ConfigError> {
    let basis = Basis::new(host.cpus.len() as u64, host.files_max);
    let named = match settings.shards {
        Shards::Auto => None,
        Shards::Count(count) => Some(u64::from(count)),
    };
    let demand = |connections| Demand { shards: named, ..Demand::gateway(connections) };
    let connections_max = settings.connections_max.map_or_else(
        || {
            // One shard a CPU, and half of the memory: the rest is for traffic, and for others.
            let shards = demand(1).rings(&basis);
            (basis.table * shards).min(connections_in(host.memory_bytes / 2, shards)).max(1)
        },
        u64::from,
    );
    let demand = demand(connections_max);
    let (needed, shards) = (demand.rings_least(&basis), demand.rings(&basis));
    if needed > shards {
        let key = "connections_max";
        return Err(ConfigError {
            place: sources.place(key),
            key: key.into(),
            problem: format!(
                "{connections_max} connections need {needed} shards of {} (RLIMIT_NOFILE {}), but there are {shards}{}: \
                 raise the limit of open files (systemd: LimitNOFILE=, shell: ulimit -Hn){}, or set connections_max to at most {}",
                basis.table,
                host.files_max,
                if named.is_some() { " (shards)" } else { " at most" },
                if named.is_some() { ", set shards = \"auto\"" } else { "" },
                basis.table * shards,
            ),
        });
    }
    let count = |number: u64| u32::try_from(number).expect("64 shards of 2^20 connections at most");
    let (connections_max, shards) = (count(connections_max), count(shards));
    Ok(Plan {
        connections_max,
        shards,
        shard_connections_max: connections_max.div_ceil(shards),
        cpus: (0..shards as usize).map(|shard| host.cpus[shard % host.cpus.len()]).collect(),
    })
}

impl Plan {
    /// One shard's part of the connections: the parts differ by one at most, and are all of them together.
    pub fn connections_of(&self, shard: u32) -> u32 {
        self.connections_max / self.shards + u32::from(shard < self.connections_max % self.shards)
    }
}

impl Host {
    /// Reads this machine, after raising the soft limit of open files to the hard one.
    pub fn read() -> std::io::Result<Self> {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // What the kernel refuses to raise is used as it is.
        let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok();
        let files = if raised { limit.maximum } else { limit.current };
        let mask = rustix::thread::sched_getaffinity(None)?;
        let cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect();
        let memory = tuning::memory_available(&Tree::live()).map_err(std::io::Error::other)?;
        let memory_bytes = memory.unwrap_or(u64::MAX);
        Ok(Self { cpus, files_max: files.unwrap_or(u64::MAX), memory_bytes })
    }
}
