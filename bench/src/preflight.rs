//! What can be known to be wrong before a run, in one sentence with its remedy.

use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use crate::enough::{self, Needs};
use crate::machine;
use crate::target::Target;

/// Sockets from one address that users are asked for: well below the ephemeral ports of the default range.
const CLIENTS_PER_SOURCE: u32 = 20_000;

/// Sockets from one address on loopback, where addresses cost nothing: the kernel finds a free port fast only
/// while most are free.
const CLIENTS_PER_LOOPBACK_SOURCE: u32 = 4_000;

/// Connections of all threads together between connect and login reply, at most.
const PENDING_MAX: u32 = 2048;

/// How the clients will be spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Threads, each with a ring.
    pub threads: u32,
    /// Source addresses; empty: the kernel chooses.
    pub sources: Vec<IpAddr>,
    /// Receive buffers of each thread.
    pub buffers: u16,
    /// Connections of each thread between connect and login reply, at most.
    pub pending_max: u32,
}

/// Checks that somebody listens at every target.
///
/// # Errors
/// A sentence naming the first that does not answer.
pub fn reach(targets: &[Target]) -> Result<(), String> {
    for target in targets {
        TcpStream::connect_timeout(&target.address, Duration::from_secs(5))
            .map_err(|error| format!("{target} cannot be reached: {error}"))?;
    }
    Ok(())
}

/// Spreads `clients` over threads and source addresses, within the limits of this process.
///
/// # Errors
/// A sentence, if files, memory, ports or `io_uring` do not suffice.
pub fn spread(clients: u32, targets: &[Target], sources: &[IpAddr], threads: Option<u32>) -> Result<Spread, String> {
    let nofile = u32::try_from(machine::raise_nofile()).unwrap_or(u32::MAX);
    let per_thread = nofile.clamp(1, 1 << 20);
    let least = clients.div_ceil(per_thread);
    let threads = threads.unwrap_or_else(machine::cpus_allowed).max(least).clamp(1, clients.max(1));
    let needs = Needs {
        clients,
        threads,
        both_ends: targets.iter().any(|target| machine::is_local(target.address.ip())),
        nofile: u64::from(nofile),
        available_bytes: machine::available_bytes(),
    };
    needs.check()?;
    enough::sources(sources)?;
    enough::rings()?;
    let sources = spread_sources(clients, targets, sources)?;
    // Every buffer is touched in turn, so many rings get fewer.
    let buffers = if threads <= 8 { 4096 } else { 512 };
    let pending_max = (PENDING_MAX / threads).clamp(8, 256);
    Ok(Spread { threads, sources, buffers, pending_max })
}

fn spread_sources(clients: u32, targets: &[Target], sources: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
    if sources.is_empty() && clients <= CLIENTS_PER_LOOPBACK_SOURCE {
        return Ok(Vec::new());
    }
    let local = targets.iter().all(|target| match target.address.ip() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(_) => false,
    });
    if sources.is_empty() && local {
        let source = |block: u32| IpAddr::V4(Ipv4Addr::from(0x7f01_0001 + block));
        return Ok((0..clients.div_ceil(CLIENTS_PER_LOOPBACK_SOURCE)).map(source).collect());
    }
    let ports = machine::ports();
    let addresses = u32::try_from(sources.len().max(1)).unwrap_or(u32::MAX);
    if clients.div_ceil(addresses) > ports {
        let needed = clients.div_ceil(CLIENTS_PER_SOURCE.min(ports.max(1)));
        return Err(format!(
            "{clients} connections need more than the {ports} ports of {addresses} address(es): \
             give --source {needed} times, or widen net.ipv4.ip_local_port_range"
        ));
    }
    Ok(sources.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(url: &str) -> Vec<Target> {
        vec![url.parse().unwrap()]
    }

    #[test]
    fn loopback_clients_beyond_the_ports_of_one_address_come_from_several() {
        let targets = targets("tcp://127.0.0.1:9");
        assert_eq!(spread_sources(4_000, &targets, &[]).unwrap(), [] as [IpAddr; 0]);
        let sources = spread_sources(1_000_000, &targets, &[]).unwrap();
        assert_eq!(sources.len(), 250);
        assert!(sources.iter().all(IpAddr::is_loopback));
    }

    #[test]
    fn too_few_ports_elsewhere_are_refused_with_the_remedy() {
        let targets = targets("tcp://192.0.2.1:9");
        let error = spread_sources(1_000_000, &targets, &[]).unwrap_err();
        assert!(error.contains("--source 50 times"), "{error}");
        let sources = vec![IpAddr::V4(Ipv4Addr::LOCALHOST); 50];
        assert_eq!(spread_sources(1_000_000, &targets, &sources).unwrap(), sources);
    }

    #[test]
    fn a_target_where_nobody_listens_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        assert_eq!(reach(&targets(&url)), Ok(()));
        drop(listener);
        assert!(reach(&targets(&url)).unwrap_err().contains(&url));
    }
}
