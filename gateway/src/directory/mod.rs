//! The directory: which connections a key or a member has, and which shards have members of a room.
//!
//! Control alone writes it, through [`DirectoryWriter`]; any thread reads it, through [`Directory`]. No guard
//! of a table leaves the function that took it, and none is held while another table is touched. Where several nodes share a
//! Kafka, what the others have is summed up in [`Elsewhere`], and sizes of rooms are those over all nodes.
//!
//! User memory of an idle connection with its own member and a generated key, at the worst fill of the tables: key table
//! 36 bytes, record 48, member table 36.

mod addresses;
mod elsewhere;
mod key;
mod keys;
mod members;
mod rooms;
mod writer;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{ConnWord, RoomRef, ShardIndex};

pub use elsewhere::{Elsewhere, RoomsOfNode};
pub use key::{HashSecret, Key};
pub use rooms::{JoinOrdered, RoomCount, RoomTableFull};
pub use writer::DirectoryWriter;

use keys::KeyTable;
use members::MemberTable;
use rooms::{Part, RoomTable};

/// What may be read by any thread. Answers are as of some moment during the call; a connection or room word
/// that is stale when it arrives at its shard is refused there by its generation.
pub struct Directory {
    keys: KeyTable,
    members: MemberTable,
    rooms: RoomTable,
    /// Logged-in connections of each shard.
    connections: Box<[AtomicU64]>,
    addresses: AtomicU64,
    elsewhere: Elsewhere,
}

impl Directory {
    fn new(shards: usize, secret: &HashSecret) -> Self {
        Self {
            keys: KeyTable::new(secret.clone()),
            members: MemberTable::new(secret),
            rooms: RoomTable::new(shards, secret),
            connections: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            addresses: AtomicU64::new(0),
            elsewhere: Elsewhere::new(secret),
        }
    }

    /// What other nodes have; nothing where there are none.
    pub fn elsewhere(&self) -> &Elsewhere {
        &self.elsewhere
    }

    /// Connections logged in.
    pub fn connections(&self) -> u64 {
        self.connections.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Connections logged in on each shard, in order.
    pub fn connections_by_shard(&self) -> impl Iterator<Item = (ShardIndex, u64)> {
        (0..=u8::MAX).map(ShardIndex).zip(self.connections.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Distinct IP addresses with logged-in connections.
    pub fn addresses(&self) -> u64 {
        self.addresses.load(Ordering::Relaxed)
    }

    /// The connections of a key, newest first.
    pub fn key_connections(&self, key: &str) -> Vec<ConnWord> {
        let mut conns = Vec::new();
        self.add_key_connections(key, &mut conns);
        conns
    }

    /// The same, behind what is in `conns` already.
    pub fn add_key_connections(&self, key: &str, conns: &mut Vec<ConnWord>) {
        self.keys.each_of_key(key, |record| conns.push(record.conn));
    }

    /// The connections of a member with their keys, in no order.
    pub fn member_connections(&self, member: i64) -> Vec<(ConnWord, Key)> {
        let mut found = Vec::new();
        for hash in self.members.hashes(member) {
            self.keys.each_of_member(hash, member, |record| found.push((record.conn, record.key.clone())));
        }
        found
    }

    /// The connections of a member, in no order, behind what is in `conns` already.
    pub fn add_member_connections(&self, member: i64, conns: &mut Vec<ConnWord>) {
        for hash in self.members.hashes(member) {
            self.keys.each_of_member(hash, member, |record| conns.push(record.conn));
        }
    }

    /// Member and key of a connection by its ticket; `None` if it was taken out.
    pub fn connection(&self, ticket: u64, conn: ConnWord) -> Option<(i64, Key)> {
        self.keys.find(ticket, conn)
    }

    /// Rooms with members, or with joins on the way.
    pub fn rooms(&self) -> u64 {
        self.rooms.count()
    }

    /// Members of a room over all nodes: as the shards reported, plus joins on the way, plus what other nodes said.
    pub fn room_size(&self, name: &str) -> u64 {
        self.rooms.members(name) + self.elsewhere.room_size(name)
    }

    /// Members of a room on this node.
    pub fn room_size_here(&self, name: &str) -> u64 {
        self.rooms.members(name)
    }

    /// Up to `limit` rooms of this node, most members first.
    pub fn rooms_here(&self, limit: usize) -> Vec<RoomCount> {
        self.rooms.top("", limit)
    }

    /// Up to `limit` rooms whose names begin with `prefix` and are greater than `after` (`""`: from the
    /// start), in order of their names. Looks at every room; keeps only `limit`.
    pub fn rooms_page(&self, prefix: &str, after: &str, limit: usize) -> Vec<RoomCount> {
        if self.elsewhere.is_empty() {
            return self.rooms.page(prefix, after, limit);
        }
        let mut rooms = self.rooms_everywhere(prefix, after);
        rooms.sort_unstable();
        rooms.truncate(limit);
        rooms
    }

    /// Up to `limit` rooms whose names begin with `prefix`, most members first, equal ones by name.
    pub fn rooms_top(&self, prefix: &str, limit: usize) -> Vec<RoomCount> {
        if self.elsewhere.is_empty() {
            return self.rooms.top(prefix, limit);
        }
        let mut rooms = self.rooms_everywhere(prefix, "");
        rooms.sort_unstable_by(|a, b| b.members.cmp(&a.members).then_with(|| a.name.cmp(&b.name)));
        rooms.truncate(limit);
        rooms
    }

    /// The rooms of all nodes, each once, in no order. A list of all of them, because no table may be looked into while
    /// another one is.
    fn rooms_everywhere(&self, prefix: &str, after: &str) -> Vec<RoomCount> {
        let mut rooms = self.rooms.page(prefix, after, usize::MAX);
        let mut others = self.elsewhere.each(prefix, after);
        others.sort_unstable();
        for room in &mut rooms {
            if let Ok(at) = others.binary_search_by(|other| other.name.cmp(&room.name)) {
                room.members += std::mem::take(&mut others[at].members);
            }
        }
        rooms.extend(others.into_iter().filter(|other| other.members > 0));
        rooms
    }

    /// Up to `limit` rooms that goim v1 has a number for, with their members, most members first.
    pub fn rooms_numbered(&self, limit: usize) -> Vec<(i32, u64)> {
        if self.elsewhere.is_empty() {
            return self.rooms.numbered(limit);
        }
        let rooms = self.rooms_everywhere("", "").into_iter();
        let mut counts: Vec<_> = rooms.filter_map(|room| Some((rooms::number(&room.name)?, room.members))).collect();
        counts.sort_unstable_by_key(|(number, members)| (Reverse(*members), *number));
        counts.truncate(limit);
        counts
    }

    /// The room's name as one shard numbers it, or `None` if that number means another room by now.
    pub fn room_name(&self, shard: ShardIndex, room: RoomRef) -> Option<Arc<str>> {
        self.rooms.name(shard, room)
    }

    /// The room as one shard numbers it, if it has members there or joins on the way.
    pub fn room_in(&self, shard: ShardIndex, name: &str) -> Option<RoomRef> {
        self.room_parts(name).into_iter().find(|part| part.shard == shard).map(|part| part.room)
    }

    /// The shards that a push to the room concerns.
    pub(crate) fn room_parts(&self, name: &str) -> Vec<Part> {
        self.rooms.parts(name)
    }
}
