//! What the directory must say, told by what control said: who logged in, who is gone.

use std::collections::BTreeSet;

use crate::control::decide::Event;
use crate::ids::ConnWord;
use crate::shard::tests::world::World;

/// A connection that is logged in.
#[derive(Clone, Debug)]
struct Entry {
    conn: ConnWord,
    key: String,
    member: i64,
}

/// The connections of the directory in the order they came, and the addresses of those not reported gone.
pub(super) struct Shadow {
    entries: Vec<Entry>,
    peers: Vec<(ConnWord, std::net::IpAddr)>,
    key_connections_max: usize,
}

impl Shadow {
    pub(super) fn new(key_connections_max: usize) -> Self {
        Self { entries: Vec::new(), peers: Vec::new(), key_connections_max }
    }

    pub(super) fn note(&mut self, event: &Event) {
        match event {
            Event::Admitted { conn, peer, member, key, replaced } => {
                let (key, same) = (key.to_string(), self.of_key(&key.to_string()));
                let over = (same.len() + 1).saturating_sub(self.key_connections_max);
                assert_eq!(over, *replaced, "connections of {key} that had to go");
                // Newest first, so the last ones are the oldest.
                let gone: Vec<ConnWord> = same[same.len() - over..].to_vec();
                self.entries.retain(|entry| !gone.contains(&entry.conn));
                self.entries.push(Entry { conn: *conn, key, member: *member });
                self.peers.push((*conn, peer.ip()));
            }
            Event::Gone { conn, peer, .. } => {
                self.entries.retain(|entry| entry.conn != *conn);
                if let Some(at) = self.peers.iter().position(|(known, _)| known == conn) {
                    assert_eq!(self.peers.swap_remove(at).1, peer.ip(), "the address it came from");
                }
            }
            _ => {}
        }
    }

    /// Connections of a key, newest first.
    pub(super) fn of_key(&self, key: &str) -> Vec<ConnWord> {
        self.entries.iter().rev().filter(|entry| entry.key == key).map(|entry| entry.conn).collect()
    }

    /// Connections of a member; who names none has none.
    pub(super) fn of_member(&self, member: i64) -> BTreeSet<ConnWord> {
        self.entries.iter().filter(|entry| member > 0 && entry.member == member).map(|entry| entry.conn).collect()
    }

    pub(super) fn all(&self) -> BTreeSet<ConnWord> {
        self.entries.iter().map(|entry| entry.conn).collect()
    }

    /// At any moment: the directory says the same.
    pub(super) fn compare(&self, world: &World) {
        let directory = &world.directory;
        assert_eq!(directory.connections(), self.entries.len() as u64, "connections");
        for (shard, count) in directory.connections_by_shard() {
            let here = self.entries.iter().filter(|entry| entry.conn.shard() == shard).count();
            assert_eq!(count, here as u64, "connections of shard {}", shard.0);
        }
        let addresses: BTreeSet<_> = self.peers.iter().map(|(_, address)| address).collect();
        assert_eq!(directory.addresses(), addresses.len() as u64, "addresses");
        for entry in &self.entries {
            assert_eq!(directory.key_connections(&entry.key), self.of_key(&entry.key), "of {}", entry.key);
            let of_member = directory.member_connections(entry.member);
            assert!(of_member.iter().all(|(conn, key)| self.of_key(&key.to_string()).contains(conn)));
            let conns: BTreeSet<_> = of_member.into_iter().map(|(conn, _)| conn).collect();
            assert_eq!(conns, self.of_member(entry.member), "of member {}", entry.member);
        }
    }
}
