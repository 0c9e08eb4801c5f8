//! How many connections and shards this machine carries, and where each shard runs.

use tuning::{CONNECTION_BYTES, Tree};

use super::error::ConfigError;
use super::layers::Sources;
use super::settings::{Settings, Shards};
use crate::limits::{SHARD_CONNECTIONS_MAX, SHARDS_MAX};

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

/// Divides `connections_max` among shards, or says which of the three does not fit.
pub(super) fn plan(settings: &Settings, host: &Host, sources: &Sources) -> Result<Plan, ConfigError> {
    let table_max =
        u32::try_from(host.files_max.min(SHARD_CONNECTIONS_MAX as u64)).expect("a shard's table fits 32 bits");
    let shards_max = u32::try_from(SHARDS_MAX).expect("few shards");
    let cpus = u32::try_from(host.cpus.len()).unwrap_or(shards_max).clamp(1, shards_max);
    let named = match settings.shards {
        Shards::Auto => None,
        Shards::Count(count) => Some(count),
    };
    let connections_max = settings.connections_max.unwrap_or_else(|| {
        let memory = u32::try_from(host.memory_bytes / 2 / CONNECTION_BYTES).unwrap_or(u32::MAX);
        table_max.saturating_mul(named.unwrap_or(cpus)).min(memory).max(1)
    });
    let needed = connections_max.div_ceil(table_max.max(1));
    let shards = named.unwrap_or(needed.max(cpus).min(shards_max));
    if needed > shards {
        let fits = table_max.saturating_mul(named.unwrap_or(shards_max));
        let key = "connections_max";
        return Err(ConfigError {
            place: sources.place(key),
            key: key.into(),
            problem: format!(
                "{connections_max} connections need {needed} shards of {table_max} (RLIMIT_NOFILE {}), but there are {shards}{}: \
                 raise the limit of open files (systemd: LimitNOFILE=, shell: ulimit -Hn){}, or set connections_max to at most {fits}",
                host.files_max,
                if named.is_some() { " (shards)" } else { " at most" },
                if named.is_some() { ", set shards = \"auto\"" } else { "" },
            ),
        });
    }
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
