//! Room name to its parts in the shards, and each shard's numbering of its rooms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use foldhash::fast::SeedableRandomState;

use super::elsewhere::Elsewhere;
use super::key::HashSecret;
use crate::ids::{Generation, RoomIndex, RoomRef, ShardIndex};
use crate::sabotage::{Bug, planted};

/// A room and how many members it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomCount {
    /// The room's name.
    pub name: Arc<str>,
    /// Its members, joins on the way included.
    pub members: u64,
}

/// What a room is in one shard. A shard is concerned by pushes to the room exactly while its part is
/// here: from before the first join is ordered until it reported no members with every ordered join done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardIndex,
    pub(crate) room: RoomRef,
    /// As last reported.
    size: u32,
    /// Joins ordered and reported done in this generation; both wrap.
    joins_ordered: u32,
    joins_done: u32,
}

impl Part {
    /// At most this many members: a join on the way may turn out to be late or repeated.
    pub(crate) fn members(self) -> u64 {
        u64::from(self.size) + u64::from(self.joins_ordered.wrapping_sub(self.joins_done))
    }
}

#[derive(Default)]
struct Room {
    /// In no order, one for a shard at most.
    parts: Vec<Part>,
    /// The count changed since it was last published; the writer's list holds the name.
    changed: bool,
}

impl Room {
    fn members(&self) -> u64 {
        self.parts.iter().map(|part| part.members()).sum()
    }
}

/// No room has generation 0: it is what a shard's zeroed table holds.
const FIRST_GENERATION: Generation = 1;

/// An index of one shard.
struct Place {
    generation: Generation,
    name: Option<Arc<str>>,
}

pub(super) struct RoomTable {
    rooms: DashMap<Arc<str>, Room, SeedableRandomState>,
    /// For each shard: what its indices mean now. Grows to the most rooms the shard ever had at once.
    places: Box<[RwLock<Vec<Place>>]>,
}

impl RoomTable {
    pub(super) fn new(shards: usize, secret: &HashSecret) -> Self {
        Self { rooms: DashMap::with_hasher(secret.state()), places: (0..shards).map(|_| RwLock::default()).collect() }
    }

    pub(super) fn count(&self) -> u64 {
        self.rooms.len() as u64
    }

    /// The shards with a part of the room; empty if nobody is in it.
    pub(super) fn parts(&self, name: &str) -> Vec<Part> {
        self.rooms.view(name, |_, room| room.parts.clone()).unwrap_or_default()
    }

    pub(super) fn members(&self, name: &str) -> u64 {
        self.rooms.view(name, |_, room| room.members()).unwrap_or(0)
    }

    /// Up to `limit` rooms by name, behind `after`.
    pub(super) fn page(&self, prefix: &str, after: &str, limit: usize) -> Vec<RoomCount> {
        self.first(limit, |name, members| {
            (name.starts_with(prefix) && **name > *after).then(|| RoomCount { name: name.clone(), members })
        })
    }

    /// Up to `limit` rooms by members, most first.
    pub(super) fn top(&self, prefix: &str, limit: usize) -> Vec<RoomCount> {
        let top = self.first(limit, |name, members| name.starts_with(prefix).then(|| (Reverse(members), name.clone())));
        top.into_iter().map(|(Reverse(members), name)| RoomCount { name, members }).collect()
    }

    /// Up to `limit` rooms whose names are the decimal numbers of goim v1's rooms, by members, most first.
    pub(super) fn numbered(&self, limit: usize) -> Vec<(i32, u64)> {
        let most = self.first(limit, |name, members| Some((Reverse(members), number(name)?)));
        most.into_iter().map(|(Reverse(members), number)| (number, members)).collect()
    }

    /// The `limit` smallest of what `pick` makes of the rooms, in order, without sorting all.
    fn first<T: Ord>(&self, limit: usize, pick: impl Fn(&Arc<str>, u64) -> Option<T>) -> Vec<T> {
        let mut first = BinaryHeap::new();
        for room in &self.rooms {
            if let Some(item) = pick(room.key(), room.members()) {
                first.push(item);
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        first.into_sorted_vec()
    }

    /// The room that a shard's index means, if it still has this generation.
    pub(super) fn name(&self, shard: ShardIndex, room: RoomRef) -> Option<Arc<str>> {
        let places = self.places.get(shard.at())?.read().unwrap_or_else(PoisonError::into_inner);
        let place = places.get(room.index.0 as usize).filter(|place| place.generation == room.generation)?;
        place.name.clone()
    }

    #[cfg(test)]
    pub(super) fn preset_joins(&self, name: &str, joins: u32) {
        for part in &mut self.rooms.get_mut(name).expect("a room of the test").parts {
            (part.joins_ordered, part.joins_done) = (joins, joins);
        }
    }
}

/// A room that a join may be ordered into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinOrdered {
    /// The room as the shard numbers it.
    pub room: RoomRef,
    /// Members on all nodes, the joining one included.
    pub members: u64,
}

/// The shard has as many rooms as it can number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomTableFull;

/// The writer's half: free indices and what is to be published.
pub(super) struct RoomNumbers {
    rooms_max: usize,
    free: Box<[Vec<RoomIndex>]>,
    changed: Vec<Arc<str>>,
    freed: Vec<(ShardIndex, RoomIndex)>,
}

impl RoomNumbers {
    pub(super) fn new(shards: usize, rooms_max: usize) -> Self {
        Self { rooms_max, free: vec![Vec::new(); shards].into(), changed: Vec::new(), freed: Vec::new() }
    }

    /// Marks the room in the shard and counts one join, which must now be ordered.
    pub(super) fn order_join(
        &mut self,
        table: &RoomTable,
        shard: ShardIndex,
        name: &str,
    ) -> Result<JoinOrdered, RoomTableFull> {
        let known = table.rooms.view(name, |name, room| (name.clone(), part_of(room, shard).is_some()));
        let (name, has_part) = known.unwrap_or_else(|| (name.into(), false));
        let new = if has_part { None } else { Some(self.take_index(table, shard, &name)?) };
        let mut entry = table.rooms.entry(name).or_default();
        let (name, room) = entry.pair_mut();
        if let Some(new) = new {
            room.parts.push(Part { shard, room: new, size: 0, joins_ordered: 0, joins_done: 0 });
        }
        let part = room.parts.iter_mut().find(|part| part.shard == shard).expect("there before, or just pushed");
        part.joins_ordered = part.joins_ordered.wrapping_add(u32::from(!planted(Bug::GrantedRoomUncounted)));
        let ordered = part.room;
        note_change(&mut self.changed, name, room);
        Ok(JoinOrdered { room: ordered, members: room.members() })
    }

    /// Takes over a shard's report; a stale one says nothing. An empty room with no join on the way
    /// loses its part, and the index goes to the next room under the next generation.
    pub(super) fn report(&mut self, table: &RoomTable, shard: ShardIndex, room: RoomRef, size: u32, joins: u32) {
        let Some(name) = table.name(shard, room) else { return };
        let Some(mut entry) = table.rooms.get_mut(&*name) else { return };
        let known = entry.value_mut();
        let Some(at) = known.parts.iter().position(|part| part.shard == shard) else { return };
        let part = &mut known.parts[at];
        (part.size, part.joins_done) = (size, joins);
        let over = size == 0 && joins == part.joins_ordered;
        if over {
            known.parts.swap_remove(at);
        }
        note_change(&mut self.changed, &name, known);
        drop(entry);
        if over {
            table.rooms.remove_if(&*name, |_, room| room.parts.is_empty());
            self.give_index(table, shard, room.index);
        }
    }

    /// Counts of these rooms changed elsewhere.
    pub(super) fn note_changes(&mut self, table: &RoomTable, names: Vec<Arc<str>>) {
        for name in names {
            if let Some(mut room) = table.rooms.get_mut(&*name) {
                note_change(&mut self.changed, &name, room.value_mut());
            }
        }
    }

    /// The changed counts since the last call, each part of a room by itself, and 0 for freed indices.
    pub(super) fn publish(
        &mut self,
        table: &RoomTable,
        elsewhere: &Elsewhere,
        mut each: impl FnMut(ShardIndex, RoomIndex, u64),
    ) {
        for (shard, index) in self.freed.drain(..) {
            each(shard, index, 0);
        }
        for name in self.changed.drain(..) {
            let others = elsewhere.room_size(&name);
            let Some(mut room) = table.rooms.get_mut(&*name) else { continue };
            room.changed = false;
            let members = room.members() + others;
            for part in &room.parts {
                each(part.shard, part.room.index, members);
            }
        }
    }

    fn take_index(&mut self, table: &RoomTable, shard: ShardIndex, name: &Arc<str>) -> Result<RoomRef, RoomTableFull> {
        let mut places = table.places[shard.at()].write().unwrap_or_else(PoisonError::into_inner);
        let index = match self.free[shard.at()].pop() {
            Some(index) => index,
            None if places.len() >= self.rooms_max => return Err(RoomTableFull),
            None => {
                places.push(Place { generation: FIRST_GENERATION, name: None });
                RoomIndex(u32::try_from(places.len() - 1).expect("rooms_max fits"))
            }
        };
        let place = &mut places[index.0 as usize];
        place.name = Some(name.clone());
        Ok(RoomRef { index, generation: place.generation })
    }

    fn give_index(&mut self, table: &RoomTable, shard: ShardIndex, index: RoomIndex) {
        let mut places = table.places[shard.at()].write().unwrap_or_else(PoisonError::into_inner);
        let place = &mut places[index.0 as usize];
        place.name = None;
        let step = u32::from(!planted(Bug::RoomIndexReused));
        place.generation = place.generation.wrapping_add(step).max(FIRST_GENERATION);
        self.free[shard.at()].push(index);
        self.freed.push((shard, index));
    }
}

fn part_of(room: &Room, shard: ShardIndex) -> Option<Part> {
    room.parts.iter().copied().find(|part| part.shard == shard)
}

fn note_change(changed: &mut Vec<Arc<str>>, name: &Arc<str>, room: &mut Room) {
    if !room.changed {
        room.changed = true;
        changed.push(name.clone());
    }
}

/// The number that goim v1 has for a room of this name.
pub(super) fn number(name: &str) -> Option<i32> {
    name.parse::<i32>().ok().filter(|number| number.to_string() == name)
}
