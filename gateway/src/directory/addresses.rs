//! Exact count of the distinct addresses that have connections.

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;

use foldhash::fast::SeedableRandomState;
use hashbrown::HashMap;

use super::key::HashSecret;

/// Connections of each address; IPv4 apart, because its entries are a third of the size.
pub(super) struct Addresses {
    v4: HashMap<u32, u32, SeedableRandomState>,
    v6: HashMap<[u8; 16], u32, SeedableRandomState>,
}

impl Addresses {
    pub(super) fn new(secret: &HashSecret) -> Self {
        Self { v4: HashMap::with_hasher(secret.state()), v6: HashMap::with_hasher(secret.state()) }
    }

    pub(super) fn distinct(&self) -> u64 {
        self.v4.len() as u64 + self.v6.len() as u64
    }

    /// A connection of this address came. An IPv4 address seen through an IPv6 socket is the same address.
    pub(super) fn came(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(v4) => *self.v4.entry(v4.to_bits()).or_default() += 1,
            IpAddr::V6(v6) => *self.v6.entry(v6.octets()).or_default() += 1,
        }
    }

    /// A connection of this address went.
    pub(super) fn went(&mut self, address: IpAddr) {
        match address.to_canonical() {
            IpAddr::V4(v4) => take_one(&mut self.v4, &v4.to_bits()),
            IpAddr::V6(v6) => take_one(&mut self.v6, &v6.octets()),
        }
    }
}

fn take_one<K: Eq + Hash, S: BuildHasher>(counts: &mut HashMap<K, u32, S>, address: &K) {
    let Some(count) = counts.get_mut(address) else {
        debug_assert!(false, "an address went that never came");
        return;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_once_until_its_last_connection_is_gone() {
        let mut addresses = Addresses::new(&HashSecret::fixed(1));
        let [v4, mapped, v6] = ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        for address in [v4, mapped, v6, v6] {
            addresses.came(address);
        }
        assert_eq!(addresses.distinct(), 2);
        addresses.went(mapped);
        addresses.went(v6);
        assert_eq!(addresses.distinct(), 2);
        addresses.went(v4);
        assert_eq!(addresses.distinct(), 1);
        addresses.went(v6);
        assert_eq!(addresses.distinct(), 0);
    }
}
