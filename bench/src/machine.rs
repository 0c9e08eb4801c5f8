//! The machine a run was made on, as far as it explains the numbers; and pinning to its CPUs.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, UdpSocket};
use std::num::NonZero;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setpriority_process, setrlimit};
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use serde::Serialize;

use crate::cost::field;

/// What is needed to judge a number, or to get it again.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    kernel: String,
    cpu_model: String,
    cpus: usize,
    is_virtual: bool,
    memory_bytes: u64,
    memory_available_bytes: u64,
    nofile: u64,
    /// Bytes that may be locked; none without a limit.
    memlock: Option<u64>,
    sysctls: BTreeMap<&'static str, String>,
}

const SYSCTLS: [&str; 11] = [
    "net/ipv4/ip_local_port_range",
    "net/core/somaxconn",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_congestion_control",
    "net/ipv4/tcp_mem",
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "fs/file-max",
    "fs/nr_open",
];

impl Machine {
    /// Looks at this machine.
    pub fn here() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            kernel: sysctl("kernel/osrelease"),
            cpu_model: model.map_or("", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            is_virtual: flags.is_some_and(|flags| flags.contains(" hypervisor")),
            memory_bytes: field(&memory, "MemTotal:").unwrap_or(0) * 1024,
            memory_available_bytes: field(&memory, "MemAvailable:").unwrap_or(0) * 1024,
            nofile: nofile(),
            memlock: getrlimit(Resource::Memlock).current,
            sysctls: SYSCTLS.iter().map(|name| (*name, sysctl(name))).collect(),
        }
    }
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().replace('\t', " ")
}

/// Ephemeral ports of one source address.
pub fn ports() -> u32 {
    let range = sysctl("net/ipv4/ip_local_port_range");
    let mut ends = range.split(' ').filter_map(|end| end.parse::<u32>().ok());
    match (ends.next(), ends.next()) {
        (Some(low), Some(high)) if high >= low => high - low + 1,
        _ => 28_232,
    }
}

/// Files that are open on the whole machine, sockets of rings included.
pub fn open_files() -> Option<u64> {
    sysctl("fs/file-nr").split_ascii_whitespace().next()?.parse().ok()
}

/// Memory that programs may still take.
pub fn available_bytes() -> Option<u64> {
    let memory = fs::read_to_string("/proc/meminfo").ok()?;
    Some(field(&memory, "MemAvailable:")? * 1024)
}

/// Whether an address is one of this machine.
pub fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Raises the soft limit of open files to the hard one, and answers it.
pub fn raise_nofile() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised); // then the soft one stays, and is answered
    nofile()
}

fn nofile() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// CPUs this thread may run on.
pub fn cpus_allowed() -> u32 {
    sched_getaffinity(None).map_or(1, |set| set.count())
}

/// CPUs that a process may run on.
///
/// # Errors
/// A sentence, if there is no such process.
pub fn cpus_of(pid: u32) -> Result<u32, String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.map_err(|error| format!("process {pid} cannot be watched: {error}"))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or("0");
    let cpus = parse_cpus(list.trim())?;
    Ok(u32::try_from(cpus.len()).unwrap_or(1))
}

/// The CPUs this process was given.
static GIVEN: OnceLock<CpuSet> = OnceLock::new();

/// Restricts this thread, and those it starts from now on, to a list such as `0,2-3`.
///
/// # Errors
/// A sentence, if the list is malformed or names CPUs there are not.
pub fn pin(list: &str) -> Result<(), String> {
    let mut set = CpuSet::new();
    for cpu in parse_cpus(list)? {
        set.set(cpu);
    }
    if let Ok(given) = sched_getaffinity(None) {
        GIVEN.get_or_init(|| given);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("the CPUs {list} cannot be used: {error}"))
}

/// Gives this thread, and what it starts from now on, back the CPUs it had before `pin`.
pub fn unpin() {
    if let Some(given) = GIVEN.get() {
        let _ = sched_setaffinity(None, given); // then it stays where it is, which is no more than unkind
    }
}

/// Lets this thread wake exactly, and run before the clients on the same CPU, where the user may do that.
pub fn hurry() {
    const NICE: i32 = -15;
    let _ = set_current_timer_slack(Some(NonZero::<u64>::MIN));
    let _ = setpriority_process(Some(gettid()), NICE); // lateness is measured either way
}

fn parse_cpus(list: &str) -> Result<Vec<usize>, String> {
    let malformed = || format!("{list} is no list of CPUs such as 0,2-3");
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| malformed());
        let (low, high) = (number(low)?, number(high)?);
        if low > high || high >= CpuSet::MAX_CPU {
            return Err(malformed());
        }
        cpus.extend(low..=high);
    }
    Ok(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_cpus("0,2-4").unwrap(), [0, 2, 3, 4]);
        for bad in ["", "a", "3-1", "1,,2", "99999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }
}
