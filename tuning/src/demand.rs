//! What is asked of a host, and what the arithmetic of the rules starts from.
use crate::{
    costs::{CONNECTION_BYTES, UNCHARGED_BYTES},
    profile::Profile,
    tree::{HostError, Tree, list, unexpected},
};

/// The kernel's own maximum for the file table of one ring, whatever `RLIMIT_NOFILE` says (`IORING_MAX_FIXED_FILES`).
pub const FILE_TABLE_MAX: u64 = 1 << 20;

/// Shards of one process: a set of shards is one 64-bit word.
pub const SHARDS_MAX: u64 = 64;

/// More than this is never forecast: every ring's table full.
pub const CONNECTIONS_MAX: u64 = SHARDS_MAX * FILE_TABLE_MAX;

/// Clients that connect and log in each second, at most, on two cores that they share with the gateway.
pub(crate) const CONNECT_RATE: u64 = 20_000;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Connections of one process.
    pub connections: u64,
    /// Shards (rings); none: one a CPU, raised until the connections fit.
    pub shards: Option<u64>,
    /// Pairs of source address and target address that a load generator uses.
    pub addresses: u64,
    /// What the host is for.
    pub profile: Profile,
}

/// What the host has that needs are counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Basis {
    /// CPUs that this process may use.
    pub cpus: u64,
    /// Entries of one ring's file table at most: the hard `RLIMIT_NOFILE` and [`FILE_TABLE_MAX`].
    pub table: u64,
    /// Files open on the whole host.
    pub files_open: u64,
    /// Connections that conntrack follows now.
    pub tracked: u64,
    /// Receive queues of the network card with the fewest.
    pub nic_queues: u64,
    /// Bytes of a connection that the process's control group is charged for.
    pub charged_bytes: u64,
}

/// What a need may be counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// One: a fixed amount.
    One,
    /// Connections of the process.
    Connections,
    /// Bytes that the control group is charged for all connections.
    ChargedBytes,
    /// Connections of the fullest ring.
    PerRing,
    /// Connections of one pair of addresses.
    PerAddress,
    /// Rings, one a shard.
    Rings,
    /// Files open now.
    FilesOpen,
    /// Entries of conntrack now.
    Tracked,
    /// CPUs.
    Cpus,
    /// CPUs, or queues of the card if those are fewer.
    QueueCpus,
    /// Clients that come while nobody accepts for a quarter of a second.
    Burst,
}

impl Demand {
    /// So many connections to a gateway.
    pub fn gateway(connections: u64) -> Self {
        Self { connections, shards: None, addresses: 1, profile: Profile::Gateway }
    }

    /// The rings that the connections are spread over: one a CPU, or more if their tables are too small.
    pub fn rings(&self, basis: &Basis) -> u64 {
        self.shards.unwrap_or(self.rings_least(basis).max(basis.cpus)).clamp(1, SHARDS_MAX)
    }

    /// The fewest rings whose tables hold the connections.
    pub fn rings_least(&self, basis: &Basis) -> u64 {
        self.connections.div_ceil(basis.table.max(1))
    }
}

impl Quantity {
    /// How much that is.
    pub fn value(self, demand: &Demand, basis: &Basis) -> u64 {
        match self {
            Self::One => 1,
            Self::Connections => demand.connections,
            Self::ChargedBytes => demand.connections.saturating_mul(basis.charged_bytes),
            Self::PerRing => demand.connections.div_ceil(demand.rings(basis)),
            Self::PerAddress => demand.connections.div_ceil(demand.addresses.max(1)),
            Self::Rings => demand.rings(basis),
            Self::FilesOpen => basis.files_open,
            Self::Tracked => basis.tracked,
            Self::Cpus => basis.cpus,
            Self::QueueCpus => basis.cpus.min(basis.nic_queues),
            Self::Burst => demand.connections.min(CONNECT_RATE / 4),
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "",
            Self::Connections => "connections",
            Self::ChargedBytes => "bytes of connections",
            Self::PerRing => "connections of a ring",
            Self::PerAddress => "connections of a pair of addresses",
            Self::Rings => "rings",
            Self::FilesOpen => "files open now",
            Self::Tracked => "connections followed now",
            Self::Cpus => "CPUs",
            Self::QueueCpus => "CPUs or queues, whichever are fewer",
            Self::Burst => "clients in a quarter of a second at 20,000 a second",
        }
    }
}

impl Basis {
    /// Of so many CPUs, and a limit of open files.
    pub fn new(cpus: u64, files_max: u64) -> Self {
        let table = files_max.min(FILE_TABLE_MAX);
        Self { cpus, table, files_open: 0, tracked: 0, nic_queues: 1, charged_bytes: CONNECTION_BYTES }
    }

    /// Reads it.
    ///
    /// # Errors
    /// If a file is not as documented, or `proc/self/limits` is missing.
    pub fn read(tree: &Tree) -> Result<Self, HostError> {
        let files_max = crate::limits::hard(tree, "Max open files")?.unwrap_or(FILE_TABLE_MAX);
        Ok(Self {
            files_open: tree.numbers::<3>("proc/sys/fs/file-nr")?.map_or(0, |[open, ..]| open),
            tracked: tree.number("proc/sys/net/netfilter/nf_conntrack_count")?.unwrap_or(0),
            nic_queues: crate::nics::queues(tree).into_iter().map(|(_, queues)| queues).min().unwrap_or(1),
            charged_bytes: charged_bytes(tree)?,
            ..Self::new(cpus(tree)?.len().max(1) as u64, files_max)
        })
    }
}

/// Accepted sockets are charged to who accepts them since Linux 6.12, and only in groups of version 2.
fn charged_bytes(tree: &Tree) -> Result<u64, HostError> {
    let groups = tree.text("proc/self/cgroup")?.unwrap_or_default();
    let mut controllers = groups.lines().filter_map(|group| group.split(':').nth(1)).flat_map(|list| list.split(','));
    let all = !controllers.any(|name| name == "memory") && version(tree)?.is_none_or(|version| version >= (6, 12));
    Ok(if all { CONNECTION_BYTES } else { CONNECTION_BYTES - UNCHARGED_BYTES })
}

/// Major and minor of the kernel.
pub(crate) fn version(tree: &Tree) -> Result<Option<(u64, u64)>, HostError> {
    let release = tree.word("proc/sys/kernel/osrelease")?.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Ok(numbers.next().flatten().zip(numbers.next().flatten()))
}

/// The CPUs of this process's affinity mask.
///
/// # Errors
/// If the mask is not as proc(5) describes it.
pub fn cpus(tree: &Tree) -> Result<Vec<u64>, HostError> {
    let path = "proc/self/status";
    let Some(status) = tree.text(path)? else { return Ok(Vec::new()) };
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    mask.map_or(Ok(Vec::new()), |mask| list(mask).ok_or_else(|| unexpected(path)))
}
