//! Connections by source network: one table of counters that all shards share, of a fixed size, without a lock.
//!
//! ```text
//! entry    hash of the network · 36 bits │ its connections · 28 bits      0: nobody's
//! bucket   8 entries, a cache line; another part of the hash says which
//! ```
//!
//! A network has an entry as long as it has a connection. Shards that count a network for the first time at the same moment
//! may make two entries of it: what counts is their sum, and each is given back as it was taken.

use std::fmt;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::directory::HashSecret;

/// Entries of a bucket.
const BUCKET: usize = 8;

/// Bits of an entry that count; all connections there can be fit them.
const COUNT_BITS: u32 = 28;

const COUNT: u64 = (1 << COUNT_BITS) - 1;

const _: () = assert!(
    crate::limits::SHARDS_MAX * crate::limits::SHARD_CONNECTIONS_MAX < 1 << COUNT_BITS,
    "one network may have every connection"
);

/// How many leading bits of an address are its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes {
    /// Of IPv4, 32 at most.
    pub v4_bits: u8,
    /// Of IPv6, 128 at most.
    pub v6_bits: u8,
}

/// What became of a connection that was to be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// It counts until it is given back.
    Yes,
    /// Its network has as many as it may have.
    Full,
    /// Its bucket is full of other networks: it does not count.
    NoPlace,
}

/// The table.
#[derive(Debug)]
pub struct Networks {
    prefixes: Prefixes,
    secret: HashSecret,
    /// Whole buckets, a power of two of them. Address space at start, memory when networks are counted.
    entries: Box<[AtomicU64]>,
}

impl Networks {
    /// A table for so many connections at a time: with as many networks one in four places is taken.
    pub fn new(connections_max: u32, prefixes: Prefixes, secret: &HashSecret) -> Self {
        let buckets = (connections_max as usize).div_ceil(BUCKET / 4).next_power_of_two();
        Self { prefixes, secret: secret.clone(), entries: bytemuck::zeroed_slice_box(buckets * BUCKET) }
    }

    /// One without a place: nothing is counted.
    pub fn none() -> Self {
        Self { prefixes: Prefixes { v4_bits: 32, v6_bits: 128 }, secret: HashSecret::fixed(0), entries: Box::default() }
    }

    /// Counts a connection of this address, unless its network has `most` or more.
    pub fn take(&self, address: IpAddr, most: u32) -> Counted {
        let (bucket, name) = self.place(address);
        loop {
            let (mut connections, mut ours, mut empty) = (0, None, None);
            for entry in bucket {
                let word = entry.load(Ordering::Relaxed);
                if word == 0 {
                    empty = empty.or(Some(entry));
                } else if word & !COUNT == name {
                    connections += word & COUNT;
                    ours = ours.or(Some((entry, word)));
                }
            }
            if connections >= most.into() {
                return Counted::Full;
            }
            let (entry, word, next) = match (ours, empty) {
                (Some((entry, word)), _) => (entry, word, word + 1),
                (None, Some(entry)) => (entry, 0, name | 1),
                (None, None) => return Counted::NoPlace,
            };
            if entry.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Counted::Yes;
            }
        }
    }

    /// A connection that was counted is gone.
    pub fn give(&self, address: IpAddr) {
        /// Others may move what is looked for behind the look, but not for ever.
        const TRIES: usize = 1000;
        let (bucket, name) = self.place(address);
        for _ in 0..TRIES {
            for entry in bucket {
                let word = entry.load(Ordering::Relaxed);
                if word == 0 || word & !COUNT != name {
                    continue;
                }
                let next = if word & COUNT == 1 { 0 } else { word - 1 };
                if entry.compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                    return;
                }
            }
        }
        debug_assert!(false, "a connection is given back that was not counted");
    }

    /// Connections of this address' network.
    pub fn connections(&self, address: IpAddr) -> u64 {
        let (bucket, name) = self.place(address);
        let words = bucket.iter().map(|entry| entry.load(Ordering::Relaxed));
        words.filter(|word| word & !COUNT == name).map(|word| word & COUNT).sum()
    }

    /// Connections of all networks.
    #[cfg(test)]
    pub(crate) fn all(&self) -> u64 {
        self.entries.iter().map(|entry| entry.load(Ordering::Relaxed) & COUNT).sum()
    }

    /// The bucket of an address' network, and how its entries begin.
    fn place(&self, address: IpAddr) -> (&[AtomicU64], u64) {
        let hash = self.secret.state().hash_one(self.network(address));
        // The hash is made for tables that look at a few of its bits: here all of them count.
        let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let hash = hash ^ (hash >> 32);
        let buckets = self.entries.len() / BUCKET;
        let at = usize::try_from(hash & COUNT).unwrap_or(0) & buckets.saturating_sub(1);
        (self.entries.get(at * BUCKET..(at + 1) * BUCKET).unwrap_or_default(), hash & !COUNT)
    }

    /// The network's first address.
    fn network(&self, address: IpAddr) -> u128 {
        let bits = match address.to_canonical() {
            IpAddr::V4(_) => V4_BEGINS + self.prefixes.v4_bits,
            IpAddr::V6(_) => self.prefixes.v6_bits,
        };
        word(address) & mask(bits)
    }
}

/// Bits of an address of IPv6 before one of IPv4 that is mapped into it.
const V4_BEGINS: u8 = 96;

/// An address as one of IPv6: one of IPv4 is the same through a socket of either.
fn word(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The first so many bits.
fn mask(bits: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// A network as it is written: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    first: u128,
    bits: u8,
}

impl Cidr {
    /// Whether the address is of this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        word(address) & mask(self.bits) == self.first
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is no network: write one such as \"10.0.0.0/8\" or \"fd00::/8\", or an address");
        let (address, bits) = text.split_once('/').map_or((&*text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (before, most) = if address.is_ipv4() { (V4_BEGINS, 32) } else { (0, 128) };
        let digits = |bits: &&str| bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits = match bits {
            None => most,
            Some(bits) => Some(bits).filter(digits).and_then(|bits| bits.parse().ok()).ok_or_else(wrong)?,
        };
        if bits > most {
            return Err(wrong());
        }
        let cidr = Self { first: word(address) & mask(before + bits), bits: before + bits };
        if cidr.first != word(address) {
            return Err(format!("\"{text}\" is an address within a network: write \"{cidr}\""));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = Ipv6Addr::from_bits(self.first);
        match (first.to_ipv4_mapped(), self.bits.checked_sub(V4_BEGINS)) {
            (Some(v4), Some(bits)) => write!(f, "{v4}/{bits}"),
            _ => write!(f, "{first}/{}", self.bits),
        }
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(connections_max: u32) -> Networks {
        Networks::new(connections_max, Prefixes { v4_bits: 24, v6_bits: 48 }, &HashSecret::fixed(1))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_network_has_so_many_connections_until_one_is_given_back() {
        let networks = networks(100);
        let same = ["10.0.0.1", "10.0.0.200", "::ffff:10.0.0.7"].map(ip);
        assert!(same.iter().all(|ip| networks.take(*ip, 3) == Counted::Yes));
        assert_eq!(networks.take(same[0], 3), Counted::Full);
        let others = ["10.0.1.1", "2001:db8::1", "2001:db8:1::1"].map(ip);
        assert!(others.iter().all(|ip| networks.take(*ip, 1) == Counted::Yes));
        assert_eq!(networks.take(ip("2001:db8:0:ffff::"), 1), Counted::Full);
        assert_eq!(same.map(|ip| networks.connections(ip)), [3, 3, 3]);
        networks.give(same[1]);
        assert_eq!((networks.take(same[0], 3), networks.take(same[0], 3)), (Counted::Yes, Counted::Full));
        same.iter().chain(&others).for_each(|ip| networks.give(*ip));
        assert_eq!(networks.all(), 0);
    }

    #[test]
    fn a_network_is_written_and_has_its_addresses() {
        let cidr = |text: &str| Cidr::try_from(text.to_owned());
        for (text, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.1.1"][..],
                &["11.0.0.0", "9.255.255.255", "::a00:0"][..],
            ),
            ("192.0.2.1/32", &["192.0.2.1"], &["192.0.2.0"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1", "2001:db8::1"]),
            ("fd00::/8", &["fd00::", "fdff::1"], &["fe00::", "10.0.0.1"]),
            ("::/0", &["::1", "10.0.0.1"], &[]),
        ] {
            let network = cidr(text).expect("a network");
            assert_eq!(network.to_string(), text);
            assert!(inside.iter().all(|address| network.contains(ip(address))), "{text}");
            assert!(!outside.iter().any(|address| network.contains(ip(address))), "{text}");
        }
        assert_eq!(cidr("::1").expect("an address").to_string(), "::1/128");
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "::/129", "fd00::/8/8", "example.org"]
        {
            assert!(cidr(wrong).is_err_and(|problem| problem.contains("is no network")), "{wrong}");
        }
        assert!(cidr("10.1.2.3/8").is_err_and(|problem| problem.contains("write \"10.0.0.0/8\"")));
    }

    #[test]
    fn with_a_network_for_each_connection_next_to_all_of_them_count() {
        let networks = networks(10_000);
        let ips: Vec<IpAddr> = (0..10_000_u32).map(|at| std::net::Ipv4Addr::from(at << 8).into()).collect();
        let counted: Vec<_> = ips.iter().filter(|ip| networks.take(**ip, 1) == Counted::Yes).collect();
        assert!(counted.len() > 9980, "{}", counted.len());
        assert!(counted.iter().all(|ip| networks.connections(**ip) == 1));
        for ip in counted {
            networks.give(*ip);
        }
        assert!(networks.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_network_that_finds_no_place_is_not_counted_and_takes_none_of_another() {
        let networks = Networks { entries: bytemuck::zeroed_slice_box(BUCKET), ..networks(1) };
        let ips: Vec<IpAddr> = (0..20_u32).map(|at| std::net::Ipv4Addr::from(at << 8).into()).collect();
        let counted = ips.iter().filter(|ip| networks.take(**ip, 5) == Counted::Yes).count();
        assert_eq!((counted, networks.all()), (BUCKET, BUCKET as u64));
        assert_eq!(Networks::none().take(ips[0], 5), Counted::NoPlace);
    }

    #[test]
    fn threads_take_and_give_back_and_nothing_is_left_or_too_much() {
        const THREADS: u32 = 4;
        let networks = networks(8);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let networks = &networks;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    let mut dice = thread;
                    for _ in 0..50_000 {
                        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let ip: IpAddr = std::net::Ipv4Addr::from(((dice >> 24) % 3) << 8).into();
                        if dice >> 31 == 0 && networks.take(ip, 5) == Counted::Yes {
                            held.push(ip);
                        } else if let Some(ip) = held.pop() {
                            networks.give(ip);
                        }
                        // Two may come at once to a place that each believes to be free.
                        assert!(networks.connections(ip) <= u64::from(5 + THREADS));
                    }
                    for ip in held {
                        networks.give(ip);
                    }
                });
            }
        });
        assert_eq!(networks.all(), 0);
    }
}
