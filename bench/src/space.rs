//! How many connections this machine holds, both ends of them if the target is on it, and what is in the way of more.

use std::fs;
use std::net::IpAddr;

use tuning::{CONNECTION_BYTES, Demand, KERNEL_BYTES, Profile, Report, Tree, Weight, memory_available};

use crate::machine;
use crate::target::Target;

/// Bytes of a client's end: in the kernel what the server's end takes and a receive that is armed, which is larger than
/// a poll (864 bytes, measured on a 2-core VM, Linux 6.18); in this program under 200.
const CLIENT_BYTES: u64 = KERNEL_BYTES + 650 + 200;

/// Threads of clients, at most.
const THREADS_MAX: u64 = 1024;

/// Connections when there is room for any number.
const CONNECTIONS_DEFAULT: u64 = 1_000_000;

/// What bounds the connections.
#[derive(Clone, Debug)]
pub struct Space {
    /// Bytes that may be used.
    memory: Option<u64>,
    /// Files that may still be opened on the whole machine.
    files: Option<u64>,
    /// Whether the server is on this machine.
    local: bool,
    /// Connections of the ring of one thread.
    per_thread: u64,
    /// Pairs of source address and target; none: as many as are needed can be had.
    pairs: Option<u64>,
    /// Ports of each pair.
    ports: u64,
    /// Connections that may still be tracked, where they are.
    tracked: Option<u64>,
}

/// A bound: connections that it allows, its name, and what to do about it.
type Bound = (u64, &'static str, &'static str);

impl Space {
    /// Looks at this machine.
    pub fn of_this_machine(targets: &[Target], sources: &[IpAddr]) -> Self {
        let local = targets.iter().all(|target| target.address.ip().is_loopback());
        let any_source = sources.is_empty() && local && targets.iter().all(|target| target.address.is_ipv4());
        let pairs = (sources.len().max(1) * targets.len()) as u64;
        let left = |most: &str, now: &str| Some(number(most)?.saturating_sub(number(now).unwrap_or(0)));
        Self {
            memory: memory_available(&Tree::live()).ok().flatten(),
            files: left("fs/file-max", "fs/file-nr"),
            local,
            per_thread: machine::raise_nofile().min(1 << 20),
            pairs: (!any_source).then_some(pairs),
            ports: u64::from(machine::ports()),
            // Where nothing is tracked although there are connections, nothing will be.
            tracked: left("net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_count")
                .filter(|_| number("net/netfilter/nf_conntrack_count") != Some(0)),
        }
    }

    /// Bytes that may be used now.
    pub fn memory_available() -> u64 {
        memory_available(&Tree::live()).ok().flatten().unwrap_or(0)
    }

    /// Bytes of one connection on this machine.
    fn bytes_each(&self) -> u64 {
        CLIENT_BYTES + if self.local { CONNECTION_BYTES } else { 0 }
    }

    fn bounds(&self) -> Vec<Bound> {
        let ends = if self.local { 2 } else { 1 };
        // A tenth stays for what connections have unread, and for everybody else.
        let memory = self.memory.map(|bytes| bytes / 10 * 9 / self.bytes_each());
        let files = self.files.map(|files| files / ends);
        let ports = self.pairs.map(|pairs| pairs * self.ports);
        let each = [
            (memory, "memory", "free some, or put the server on another machine"),
            (files, "fs.file-max", "raise it: sysctl -w fs.file-max=8000000"),
            (Some(self.per_thread * THREADS_MAX), "RLIMIT_NOFILE", "raise it (ulimit -n)"),
            (
                ports,
                "the ports of the source addresses",
                "give --source more often, or widen net.ipv4.ip_local_port_range",
            ),
            (self.tracked, "net.netfilter.nf_conntrack_max", "raise it, or do not track these connections"),
        ];
        each.into_iter().filter_map(|(most, name, remedy)| Some((most?, name, remedy))).collect()
    }

    /// As many as there is room for, in whole thousands, at most a million.
    pub fn connections(&self) -> u32 {
        let most = self.bounds().into_iter().map(|(most, ..)| most).fold(CONNECTIONS_DEFAULT, u64::min);
        let round = if most > 1000 { most / 1000 * 1000 } else { most.max(1) };
        u32::try_from(round).unwrap_or(u32::MAX)
    }

    /// Whether there is room for so many.
    ///
    /// # Errors
    /// A sentence with what is in the way, and what to do.
    pub fn check(&self, connections: u32) -> Result<(), String> {
        let wanted = u64::from(connections);
        let Some((most, name, remedy)) = self.bounds().into_iter().find(|(most, ..)| *most < wanted) else {
            return Ok(());
        };
        let each = if name == "memory" { format!(" ({} bytes each)", self.bytes_each()) } else { String::new() };
        Err(format!("{name}{each} allows {most} connections here, not {connections}: {remedy}"))
    }

    /// What will be felt with so many, with what to do.
    pub fn notes(&self, connections: u32) -> Vec<String> {
        let of = |profile| {
            let (connections, addresses) = (u64::from(connections), self.pairs.unwrap_or(u64::from(connections)));
            let demand = Demand { connections, shards: None, addresses, profile };
            Report::of(&Tree::live(), &demand).map(|report| report.rules).unwrap_or_default()
        };
        let gateway = if self.local { of(Profile::Gateway) } else { Vec::new() };
        let felt = of(Profile::Loadgen).into_iter().chain(gateway);
        let felt = felt.filter(|rule| !rule.ok && rule.weight == Weight::Slows && rule.id.starts_with("net."));
        let mut notes: Vec<_> = felt.map(|rule| format!("{}: {} {}", rule.id, rule.effect, rule.change)).collect();
        notes.sort();
        notes.dedup();
        notes
    }
}

/// A number of the kernel's settings, the first if there are several.
fn number(name: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> Space {
        let (memory, files) = (Some(24 << 30), Some(9_000_000));
        Space { memory, files, local: true, per_thread: 20_000, pairs: None, ports: 28_232, tracked: None }
    }

    #[test]
    fn a_million_fits_where_nothing_is_in_the_way() {
        assert_eq!(space().connections(), 1_000_000);
        assert_eq!(space().check(1_000_000), Ok(()));
    }

    #[test]
    fn whatever_is_least_is_named_with_its_remedy() {
        for (space, connections, name) in [
            (Space { memory: Some(1 << 30), ..space() }, 105_000, "memory (9120 bytes each)"),
            (Space { files: Some(400_000), ..space() }, 200_000, "fs.file-max"),
            (Space { per_thread: 64, ..space() }, 65_000, "RLIMIT_NOFILE"),
            (Space { pairs: Some(1), ..space() }, 28_000, "ports"),
            (Space { tracked: Some(262_144), ..space() }, 262_000, "nf_conntrack_max"),
        ] {
            assert_eq!(space.connections(), connections, "{name}");
            let sentence = space.check(1_000_000).unwrap_err();
            assert!(sentence.starts_with(name) || sentence.contains(name), "{sentence}");
            assert!(sentence.contains("not 1000000: "), "{sentence}");
        }
    }

    #[test]
    fn the_far_end_of_a_connection_takes_memory_elsewhere() {
        let near = Space { memory: Some(1 << 30), ..space() };
        let far = Space { local: false, ..near.clone() };
        assert!(far.connections() > near.connections());
    }
}
