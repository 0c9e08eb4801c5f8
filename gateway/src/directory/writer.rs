//! The directory's one writer, owned by control.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::addresses::Addresses;
use super::keys::Record;
use super::rooms::{JoinOrdered, RoomNumbers, RoomTableFull};
use super::{Directory, HashSecret, Key};
use crate::ids::{ConnWord, RoomRef, ShardIndex};
use crate::limits;
use crate::link::ShardLink;
use crate::sabotage::{Bug, planted};

/// Everything that changes the directory. There is one.
pub struct DirectoryWriter {
    directory: Arc<Directory>,
    numbers: RoomNumbers,
    addresses: Addresses,
}

impl DirectoryWriter {
    /// An empty directory for `shards` shards, each of which numbers up to `rooms_max` rooms.
    pub fn new(shards: usize, rooms_max: usize, secret: &HashSecret) -> Self {
        assert!(shards <= limits::SHARDS_MAX, "checked by the configuration");
        assert!(u32::try_from(rooms_max).is_ok(), "a room's index has 32 bits");
        Self {
            directory: Arc::new(Directory::new(shards, secret)),
            numbers: RoomNumbers::new(shards, rooms_max),
            addresses: Addresses::new(secret),
        }
    }

    /// The half that everybody may read.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Enters a connection under its key and member (none if not above 0), and takes out the oldest
    /// connections of the key beyond `key_connections_max`, in one step for readers. Returns the ticket for
    /// [`Self::remove`] and who was taken out.
    pub fn insert(
        &mut self,
        conn: ConnWord,
        key: Key,
        member: i64,
        key_connections_max: usize,
    ) -> (u64, Vec<ConnWord>) {
        let ticket = self.ticket(&key);
        let removed = self.directory.keys.insert(ticket, key, member, conn, key_connections_max);
        if member > 0 {
            self.directory.members.add(member, ticket);
        }
        self.directory.connections[conn.shard().at()].fetch_add(1, Ordering::Relaxed);
        let replaced = removed.iter().map(|record| record.conn).collect();
        for record in &removed {
            self.forget(ticket, record);
        }
        (ticket, replaced)
    }

    /// The ticket that [`Self::insert`] gives to a connection of this key; never 0.
    pub fn ticket(&self, key: &Key) -> u64 {
        self.directory.keys.hash(key)
    }

    /// Takes a connection out; `false` if it was taken out before.
    pub fn remove(&mut self, ticket: u64, conn: ConnWord) -> bool {
        let removed = self.directory.keys.remove(ticket, conn);
        if let Some(record) = &removed {
            self.forget(ticket, record);
        }
        removed.is_some()
    }

    /// Undoes what a record, already out of its chain, left elsewhere.
    fn forget(&mut self, ticket: u64, record: &Record) {
        self.directory.connections[record.conn.shard().at()].fetch_sub(1, Ordering::Relaxed);
        if record.member > 0 {
            let mut others = false;
            self.directory.keys.each_of_member(ticket, record.member, |_| others = true);
            if !others {
                self.directory.members.remove(record.member, ticket);
            }
        }
    }

    /// A logged-in connection of this address came.
    pub fn address_came(&mut self, address: IpAddr) {
        self.addresses.came(address);
        self.directory.addresses.store(self.addresses.distinct(), Ordering::Relaxed);
    }

    /// A logged-in connection of this address went.
    pub fn address_went(&mut self, address: IpAddr) {
        self.addresses.went(address);
        self.directory.addresses.store(self.addresses.distinct(), Ordering::Relaxed);
    }

    /// Marks the room in the shard and counts one join into it. The caller must now put exactly one order that
    /// joins this room, or the room is never freed.
    pub fn order_join(&mut self, shard: ShardIndex, name: &str) -> Result<JoinOrdered, RoomTableFull> {
        let mut ordered = self.numbers.order_join(&self.directory.rooms, shard, name)?;
        ordered.members += self.directory.elsewhere().room_size(name);
        Ok(ordered)
    }

    /// Takes over a shard's report of a room's size and of the joins it has carried out.
    pub fn room_reported(&mut self, shard: ShardIndex, room: RoomRef, size: u32, joins: u32) {
        self.numbers.report(&self.directory.rooms, shard, room, size, joins);
    }

    /// Writes the members of rooms that changed since the last call, here or elsewhere, to where the shards read them for
    /// heartbeat replies. `links` are all shards in order.
    pub fn publish_online(&mut self, links: &[Arc<ShardLink>]) {
        let elsewhere = self.directory.elsewhere();
        let changed = elsewhere.take_changed();
        if !planted(Bug::ElsewhereUnheard) {
            self.numbers.note_changes(&self.directory.rooms, changed);
        }
        self.numbers.publish(&self.directory.rooms, elsewhere, |shard, index, members| {
            let members = u32::try_from(members).unwrap_or(u32::MAX);
            links[shard.at()].room_online[index.0 as usize].store(members, Ordering::Relaxed);
        });
    }
}
