//! The kernel's memory for connections whose two ends are on this machine, from its slab caches,
//! and how much of it is the server's.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::cost::field;

/// Every TCP socket that a process holds has one of each of these, whoever holds it.
const SOCKET: [&str; 7] = ["TCP", "TCPv6", "sock_inode_cache", "filp", "dentry", "lsm_inode_cache", "lsm_file_cache"];

/// Growth of a cache below this many objects for a connection is somebody else's.
const OBJECTS_MIN: f64 = 0.2;

/// The kernel's slab memory at one moment.
#[derive(Clone, Debug, Default)]
pub struct Slab {
    /// Objects in use and bytes of each, by cache; empty if only root may read that.
    caches: BTreeMap<String, (u64, u64)>,
    /// All of it.
    bytes: u64,
}

/// Kernel memory that connections added, for each connection.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// All slab memory of the machine, both ends of the connection and whatever else ran.
    pub slab_bytes_both_ends: f64,
    /// The objects below that are the server's; none: cannot be told.
    pub server_bytes: Option<f64>,
    /// Page tables of the server.
    pub server_page_table_bytes: f64,
    /// What slab memory grew by while nothing happened, in the same unit: the error to expect.
    pub drift_bytes: f64,
    /// Caches that grew with the connections.
    pub caches: Vec<Cache>,
    /// What these numbers leave out.
    pub untold: Vec<String>,
}

/// Objects of one slab cache.
#[derive(Clone, Debug, Serialize)]
pub struct Cache {
    /// Its name; the kernel may keep objects of several kinds in one cache.
    pub name: String,
    /// Bytes of an object.
    pub object_bytes: u64,
    /// Objects for each connection, both ends.
    pub both_ends: f64,
    /// The same for connections to a bare holder of sockets.
    pub to_a_bare_holder: Option<f64>,
    /// What is the server's of them.
    pub server: Option<f64>,
}

impl Slab {
    /// Reads it.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let caches = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
        Self { caches: parse(&caches), bytes: field(&meminfo, "Slab:").unwrap_or(0) * 1024 }
    }

    /// Objects that each of `connections` added since an earlier moment.
    #[allow(clippy::cast_precision_loss, reason = "counts of objects")]
    fn growth(&self, earlier: &Self, connections: u32) -> BTreeMap<String, f64> {
        let each = |(name, (objects, _)): (&String, &(u64, u64))| {
            let before = earlier.caches.get(name).map_or(0, |(objects, _)| *objects);
            (name.clone(), (*objects as f64 - before as f64) / f64::from(connections))
        };
        self.caches.iter().map(each).collect()
    }

    /// Bytes that each of `connections` added since an earlier moment.
    #[allow(clippy::cast_precision_loss, reason = "memory sizes")]
    fn bytes_each(&self, earlier: &Self, connections: u32) -> f64 {
        (self.bytes as f64 - earlier.bytes as f64) / f64::from(connections)
    }
}

fn parse(slabinfo: &str) -> BTreeMap<String, (u64, u64)> {
    let cache = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let objects = words.next()?.parse().ok()?;
        let object_bytes = words.nth(1)?.parse().ok()?;
        Some((name, (objects, object_bytes)))
    };
    slabinfo.lines().filter_map(cache).collect()
}

/// Slab memory before and after so many connections.
#[derive(Clone, Debug)]
pub struct Growth {
    /// Before.
    pub before: Slab,
    /// After.
    pub after: Slab,
    /// How many came between.
    pub connections: u32,
}

impl Kernel {
    /// Tells the ends of the server's connections apart. `bare` are connections of the same clients
    /// to a holder of sockets that does nothing with them, so that its end is a socket and no more.
    /// `quiet` is slab memory some time after `server.after`, in which nothing happened.
    pub fn new(server: &Growth, quiet: &Slab, bare: Option<&Growth>, server_page_table_bytes: f64) -> Self {
        let bare = bare.map(|bare| bare.after.growth(&bare.before, bare.connections));
        let grown = server.after.growth(&server.before, server.connections);
        let cache = |(name, both_ends): (String, f64)| {
            let to_a_bare_holder = bare.as_ref().map(|bare| bare.get(&name).copied().unwrap_or(0.0));
            let client_share = if SOCKET.contains(&name.as_str()) { 0.5 } else { 1.0 };
            let server = to_a_bare_holder.map(|bare| (both_ends - bare * client_share).max(0.0));
            let object_bytes = quiet.caches.get(&name).map_or(0, |(_, bytes)| *bytes);
            Cache { name, object_bytes, both_ends, to_a_bare_holder, server }
        };
        // Sockets in time-wait belong to connections that are closed.
        let of_connections = |(name, objects): &(String, f64)| *objects >= OBJECTS_MIN && !name.starts_with("tw_sock");
        let caches: Vec<_> = grown.into_iter().filter(of_connections).map(cache).collect();
        #[allow(clippy::cast_precision_loss, reason = "sizes of objects")]
        let bytes = |cache: &Cache| Some(cache.server? * cache.object_bytes as f64);
        let server_bytes = caches.iter().map(bytes).sum::<Option<f64>>().filter(|_| !caches.is_empty());
        Self {
            slab_bytes_both_ends: server.after.bytes_each(&server.before, server.connections),
            server_bytes,
            server_page_table_bytes,
            drift_bytes: quiet.bytes_each(&server.after, server.connections),
            untold: untold(&caches, bare.is_some()),
            caches,
        }
    }
}

fn untold(caches: &[Cache], bare: bool) -> Vec<String> {
    let mut untold = vec!["memory that is no slab object: rings, tables of files, data in socket buffers".to_owned()];
    if caches.is_empty() {
        untold.push("whose it is: /proc/slabinfo cannot be read (root may), so both ends are together".to_owned());
        return untold;
    }
    if !bare {
        untold.push("whose it is: connections to a bare holder of sockets could not be made to compare".to_owned());
    }
    let sockets: f64 = caches.iter().filter(|cache| cache.name.starts_with("TCP")).map(|cache| cache.both_ends).sum();
    if (sockets - 2.0).abs() > 0.1 {
        untold.push(format!("whose the sockets are: {sockets:.2} came with a connection, where two are its ends"));
    }
    untold
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(tcp: u64, kiocb: u64, dentry: u64) -> Slab {
        let text = format!(
            "slabinfo - version: 2.1\ntw_sock_TCP {tcp} 999 256 16 1 : tunables\n# name <active_objs> <num_objs> <objsize> <objperslab>\n\
             TCP {tcp} 999 2368 13 8 : tunables\nio_kiocb {kiocb} 999 256 16 1 : tunables\n\
             dentry {dentry} 999 192 21 1 : tunables\n"
        );
        Slab { caches: parse(&text), bytes: tcp * 2368 + kiocb * 256 + dentry * 192 }
    }

    #[test]
    fn the_servers_end_is_what_clients_and_a_bare_socket_do_not_explain() {
        // Clients hold a request for each connection; the server holds two, and a socket.
        let server = Growth { before: slab(10, 0, 500), after: slab(2010, 3000, 2500), connections: 1000 };
        let bare = Growth { before: slab(2010, 3000, 2500), after: slab(2210, 3100, 2700), connections: 100 };
        let kernel = Kernel::new(&server, &server.after, Some(&bare), 8.0);
        assert_eq!(kernel.server_bytes, Some(2368.0 + 2.0 * 256.0 + 192.0));
        let both_ends = 2.0 * 2368.0 + 3.0 * 256.0 + 2.0 * 192.0;
        assert_eq!((kernel.slab_bytes_both_ends, kernel.drift_bytes), (both_ends, 0.0));
        assert_eq!(kernel.untold.len(), 1);
    }

    #[test]
    fn without_a_comparison_or_slabinfo_nothing_is_told_apart() {
        let server = Growth { before: slab(10, 0, 0), after: slab(2010, 3000, 2000), connections: 1000 };
        let kernel = Kernel::new(&server, &server.after, None, 0.0);
        assert_eq!((kernel.server_bytes, kernel.untold.len()), (None, 2));
        let blind = |bytes| Slab { bytes, ..Slab::default() };
        let server = Growth { before: blind(0), after: blind(5000), connections: 10 };
        let kernel = Kernel::new(&server, &blind(6000), Some(&server), 0.0);
        assert_eq!((kernel.slab_bytes_both_ends, kernel.drift_bytes), (500.0, 100.0));
        assert_eq!(kernel.server_bytes, None);
        assert!(kernel.untold[1].contains("slabinfo"), "{:?}", kernel.untold);
    }

    #[test]
    fn sockets_that_are_not_two_for_a_connection_are_told() {
        let server = Growth { before: slab(0, 0, 0), after: slab(4000, 0, 0), connections: 1000 };
        let kernel = Kernel::new(&server, &server.after, Some(&server), 0.0);
        assert!(kernel.untold[1].contains("4.00 came"), "{:?}", kernel.untold);
    }
}
