//! Rooms: who is in them, what waits for them, and the pass that a run makes through the members.
//!
//! The cursor counts down: `members[..cursor]` are those still to be served by the run. A joiner is put
//! behind it and gets the next run; a leaver is swapped out without anybody being passed over or served
//! twice.

use std::collections::VecDeque;

use bytemuck::Zeroable;
use halley_ring::Slot;

use crate::ids::{Generation, RoomIndex, RoomRef};
use crate::payload::Payload;
use crate::sabotage::{Bug, planted};

use super::blocks::Blocks;
use super::conn::{Table, flag};
use super::runs::RunIndex;

/// Members in a unit of the member array.
const UNIT: u32 = 4;

/// One connection's membership. Held one higher than its place; 0 is none.
#[derive(Clone, Copy, Zeroable)]
struct Link {
    room: u32,
    /// Where the connection stands among the room's members.
    position: u32,
    /// The connection's next room, or the next free link.
    next: u32,
}

const _: () = assert!(size_of::<Link>() == 12, "as the memory budget says");

/// Bits of [`Room::flags`].
mod mark {
    /// Has work: a run or pending messages; on the list of active rooms.
    pub(super) const ACTIVE: u8 = 1;
    /// Changed since it was last reported; on the list of dirty rooms.
    pub(super) const DIRTY: u8 = 1 << 1;
    /// Its members lie in a block.
    pub(super) const BLOCK: u8 = 1 << 2;
    /// A join was carried out under its generation.
    pub(super) const KNOWN: u8 = 1 << 3;
}

#[derive(Clone, Copy, Zeroable)]
struct Room {
    generation: Generation,
    joins: u32,
    /// First unit of the block, and its class.
    unit: u32,
    members: u32,
    cursor: u32,
    /// The run that passes, one more than its place; 0 is none.
    run: u32,
    /// Messages that wait for the next run, one more than their places.
    pending_head: u32,
    pending_tail: u32,
    pending_bytes: u32,
    class: u8,
    flags: u8,
}

/// A message that waits for its room's run.
struct Pending {
    payload: Option<Payload>,
    next: u32,
}

/// All rooms of a shard.
pub(super) struct Rooms {
    places: Box<[Room]>,
    members: Box<[u32]>,
    blocks: Blocks,
    links: Box<[Link]>,
    free_link: u32,
    fresh_link: u32,
    pending: Vec<Pending>,
    free_pending: u32,
    /// Rooms with work, in the order they are served.
    pub(super) active: VecDeque<RoomIndex>,
    /// Rooms to be reported.
    pub(super) dirty: VecDeque<RoomIndex>,
    with_members: u32,
    /// Bytes that wait in all rooms.
    waiting_bytes: usize,
}

/// Messages that may wait in all rooms of a shard together.
const PENDING_MAX: usize = 1 << 16;

/// What a join found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The connection is a member now.
    New,
    /// It was one already.
    Already,
    /// It is in as many rooms as it may be, or the shard's memory for members is used up.
    TooMany,
}

impl Rooms {
    /// Tables for so many rooms, and for so many connections with so many rooms each.
    pub(super) fn new(rooms_max: u32, slots: u32, rooms_per_connection_max: u32) -> Self {
        // Address space: blocks are at least half full, and one that grows holds its old block meanwhile;
        // what is left of smaller classes is as much again, unless sizes of all rooms change together.
        let memberships = slots.saturating_mul(rooms_per_connection_max).max(1);
        let units = (memberships.div_ceil(UNIT)).saturating_mul(4).saturating_add(rooms_max);
        Self {
            places: bytemuck::zeroed_slice_box(rooms_max as usize),
            members: bytemuck::zeroed_slice_box((units * UNIT) as usize),
            blocks: Blocks::new(units),
            links: bytemuck::zeroed_slice_box(memberships as usize),
            free_link: 0,
            fresh_link: 0,
            pending: Vec::with_capacity(PENDING_MAX),
            free_pending: 0,
            active: VecDeque::with_capacity(rooms_max as usize),
            dirty: VecDeque::with_capacity(rooms_max as usize),
            with_members: 0,
            waiting_bytes: 0,
        }
    }

    fn room(&mut self, room: RoomIndex) -> &mut Room {
        &mut self.places[room.0 as usize]
    }

    /// The room under the name that control used, if it is not stale.
    pub(super) fn find(&self, room: RoomRef) -> Option<RoomIndex> {
        let found = self.places.get(room.index.0 as usize)?;
        let same = found.generation == room.generation || planted(Bug::RoomGenerationIgnored);
        (same && found.flags & mark::KNOWN != 0).then_some(room.index)
    }

    /// Counts a join that control ordered, whatever becomes of it, and takes the room's new generation over.
    pub(super) fn count_join(&mut self, room: RoomRef) -> bool {
        let Some(entry) = self.places.get_mut(room.index.0 as usize) else { return false };
        if entry.generation != room.generation || entry.flags & mark::KNOWN == 0 {
            // Control gives an index to another room only after the last join of the room before was
            // carried out and its last member had left.
            assert!(entry.members == 0, "a room index is used again only when the room is empty");
            entry.generation = room.generation;
            entry.joins = 0;
            entry.flags |= mark::KNOWN;
            // What still waits was for those who have left.
            while self.dequeue(room.index).is_some() {}
        }
        let entry = self.room(room.index);
        entry.joins = entry.joins.wrapping_add(1);
        self.mark_dirty(room.index);
        true
    }

    fn mark_dirty(&mut self, room: RoomIndex) {
        let entry = self.room(room);
        if entry.flags & mark::DIRTY == 0 {
            entry.flags |= mark::DIRTY;
            self.dirty.push_back(room);
        }
    }

    /// What to report of a dirty room; it is clean then.
    pub(super) fn clean(&mut self, room: RoomIndex) -> (RoomRef, u32, u32) {
        let entry = self.room(room);
        entry.flags &= !mark::DIRTY;
        (RoomRef { index: room, generation: entry.generation }, entry.members, entry.joins)
    }

    /// The report was not taken: the room is dirty again.
    pub(super) fn stay_dirty(&mut self, room: RoomIndex) {
        self.room(room).flags |= mark::DIRTY;
        self.dirty.push_front(room);
    }

    /// Members now.
    pub(super) fn members(&self, room: RoomIndex) -> u32 {
        self.places[room.0 as usize].members
    }

    /// Rooms that have members.
    pub(super) fn with_members(&self) -> u32 {
        self.with_members
    }

    /// Rooms with members: index, generation, members.
    #[cfg(test)]
    pub(super) fn populated(&self) -> impl Iterator<Item = (u32, Generation, u32)> {
        let with_members = (0..).zip(&self.places).filter(|(_, room)| room.members > 0);
        with_members.map(|(index, room)| (index, room.generation, room.members))
    }

    /// Memberships, units of member blocks, and waiting messages that are in use.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> (u32, u32, u32) {
        let free = std::iter::successors(Some(self.free_link).filter(|link| *link != 0), |link| {
            Some(self.links[*link as usize - 1].next).filter(|link| *link != 0)
        });
        let waiting = self.pending.iter().filter(|pending| pending.payload.is_some()).count();
        let unused = std::iter::successors(Some(self.free_pending).filter(|place| *place != 0), |place| {
            Some(self.pending[*place as usize - 1].next).filter(|place| *place != 0)
        });
        assert_eq!(waiting + unused.count(), self.pending.len(), "every place has a message or is free");
        let count = |count: usize| u32::try_from(count).expect("places are u32");
        (self.fresh_link - count(free.count()), self.blocks.in_use(), count(waiting))
    }

    /// Whether the connection is in the room.
    pub(super) fn is_member(&self, table: &Table, slot: Slot, room: RoomIndex) -> bool {
        self.link_of(table, slot, room).is_some()
    }

    /// The link of a membership and the link before it in the connection's list (0: none).
    fn link_of(&self, table: &Table, slot: Slot, room: RoomIndex) -> Option<(u32, u32)> {
        let (mut before, mut at) = (0, table[slot].link);
        while at != 0 {
            let link = &self.links[at as usize - 1];
            if link.room == room.0 {
                return Some((at, before));
            }
            (before, at) = (at, link.next);
        }
        None
    }

    /// The rooms of a connection, the login room first if it has one.
    pub(super) fn of(&self, table: &Table, slot: Slot) -> impl Iterator<Item = RoomRef> {
        let mut at = table[slot].link;
        std::iter::from_fn(move || {
            let link = self.links[at.checked_sub(1)? as usize];
            at = link.next;
            let generation = self.places[link.room as usize].generation;
            Some(RoomRef { index: RoomIndex(link.room), generation })
        })
    }

    /// Makes the connection a member, in front of its other rooms if it is the login room.
    pub(super) fn join(
        &mut self,
        table: &mut Table,
        slot: Slot,
        room: RoomIndex,
        rooms_per_connection_max: u8,
        login_room: bool,
    ) -> Joined {
        if self.is_member(table, slot, room) {
            return Joined::Already;
        }
        if table[slot].rooms >= rooms_per_connection_max {
            return Joined::TooMany;
        }
        let Some(position) = self.push_member(room, slot) else { return Joined::TooMany };
        let link = self.take_link();
        let conn = &mut table[slot];
        conn.rooms += 1;
        if login_room || !conn.has(flag::LOGIN_ROOM) {
            self.links[link as usize - 1] = Link { room: room.0, position, next: conn.link };
            conn.link = link;
        } else {
            let first = conn.link;
            let next = self.links[first as usize - 1].next;
            self.links[link as usize - 1] = Link { room: room.0, position, next };
            self.links[first as usize - 1].next = link;
        }
        self.mark_dirty(room);
        Joined::New
    }

    /// Puts a room that the connection is already in at the front of its list: it is the login room now.
    pub(super) fn make_first(&mut self, table: &mut Table, slot: Slot, room: RoomIndex) {
        if let Some((link, before)) = self.link_of(table, slot, room)
            && before != 0
        {
            self.links[before as usize - 1].next = self.links[link as usize - 1].next;
            self.links[link as usize - 1].next = table[slot].link;
            table[slot].link = link;
        }
    }

    /// There is a link for every room of every connection.
    fn take_link(&mut self) -> u32 {
        if self.free_link == 0 {
            self.fresh_link += 1;
            return self.fresh_link;
        }
        let link = self.free_link;
        self.free_link = self.links[link as usize - 1].next;
        link
    }

    /// Puts a member behind all others; returns where it stands. `None` when there is no block for a room of that
    /// size: blocks are cut and not joined again, so that sizes that all change together can use the array up.
    fn push_member(&mut self, room: RoomIndex, slot: Slot) -> Option<u32> {
        let entry = self.places[room.0 as usize];
        let capacity = if entry.flags & mark::BLOCK == 0 { 0 } else { UNIT << entry.class };
        if entry.members == capacity {
            let class = if capacity == 0 { 0 } else { entry.class + 1 };
            let unit = self.blocks.take(class)?;
            if capacity > 0 {
                let from = (entry.unit * UNIT) as usize;
                self.members.copy_within(from..from + entry.members as usize, (unit * UNIT) as usize);
                self.blocks.give(entry.unit, entry.class);
            }
            let entry = self.room(room);
            (entry.unit, entry.class) = (unit, class);
            entry.flags |= mark::BLOCK;
        }
        if entry.members == 0 {
            self.with_members += 1;
        }
        let entry = self.room(room);
        let position = entry.members;
        entry.members += 1;
        let at = entry.unit * UNIT + position;
        self.members[at as usize] = slot.0;
        Some(position)
    }

    /// Ends a membership; `false` when there is none.
    pub(super) fn leave(&mut self, table: &mut Table, slot: Slot, room: RoomIndex) -> bool {
        let Some((link, before)) = self.link_of(table, slot, room) else { return false };
        let Link { position, next, .. } = self.links[link as usize - 1];
        match before {
            0 => table[slot].link = next,
            before => self.links[before as usize - 1].next = next,
        }
        table[slot].rooms -= 1;
        self.links[link as usize - 1].next = self.free_link;
        self.free_link = link;
        self.remove_member(table, room, position);
        self.mark_dirty(room);
        true
    }

    /// Ends all memberships of a connection.
    pub(super) fn leave_all(&mut self, table: &mut Table, slot: Slot) {
        while let Some(first) = table[slot].link.checked_sub(1) {
            let room = RoomIndex(self.links[first as usize].room);
            self.leave(table, slot, room);
        }
    }

    fn remove_member(&mut self, table: &Table, room: RoomIndex, position: u32) {
        let Room { unit, members, cursor, .. } = *self.room(room);
        let mut hole = position;
        if hole < cursor && !planted(Bug::LeaverSkipsMember) {
            // Still to be served: the last of those takes its place, and the hole moves behind them.
            self.move_member(table, room, unit, cursor - 1, hole);
            hole = cursor - 1;
            self.room(room).cursor = cursor - 1;
        }
        self.move_member(table, room, unit, members - 1, hole);
        let entry = self.room(room);
        entry.members -= 1;
        if entry.members == 0 {
            entry.flags &= !mark::BLOCK;
            let class = entry.class;
            self.blocks.give(unit, class);
            self.with_members -= 1;
        }
    }

    /// Moves the member at `from` to `to` and tells its link.
    fn move_member(&mut self, table: &Table, room: RoomIndex, unit: u32, from: u32, to: u32) {
        if from == to {
            return;
        }
        let base = (unit * UNIT) as usize;
        let slot = Slot(self.members[base + from as usize]);
        self.members[base + to as usize] = slot.0;
        if let Some((link, _)) = self.link_of(table, slot, room) {
            self.links[link as usize - 1].position = to;
        }
    }

    /// Bytes that wait in all rooms.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes that wait for the room's next run.
    pub(super) fn pending_bytes(&self, room: RoomIndex) -> u32 {
        self.places[room.0 as usize].pending_bytes
    }

    /// Puts a message into the room's queue; it comes back when too much waits in all rooms together.
    #[allow(clippy::result_large_err, reason = "the payload goes back to its owner")]
    pub(super) fn enqueue(&mut self, room: RoomIndex, payload: Payload) -> Result<(), Payload> {
        let bytes = u32::try_from(payload.inner().len()).unwrap_or(u32::MAX);
        let entry = Pending { payload: Some(payload), next: 0 };
        let number = if self.free_pending != 0 {
            let number = self.free_pending;
            self.free_pending = self.pending[number as usize - 1].next;
            self.pending[number as usize - 1] = entry;
            number
        } else if self.pending.len() < PENDING_MAX {
            self.pending.push(entry);
            u32::try_from(self.pending.len()).unwrap_or(u32::MAX)
        } else {
            return entry.payload.map_or(Ok(()), Err);
        };
        let Room { pending_tail, .. } = *self.room(room);
        match pending_tail {
            0 => self.room(room).pending_head = number,
            tail => self.pending[tail as usize - 1].next = number,
        }
        let entry = self.room(room);
        entry.pending_tail = number;
        entry.pending_bytes += bytes;
        self.waiting_bytes += bytes as usize;
        let entry = self.room(room);
        if entry.flags & mark::ACTIVE == 0 {
            entry.flags |= mark::ACTIVE;
            self.active.push_back(room);
        }
        Ok(())
    }

    /// The messages that wait, oldest first.
    pub(super) fn waiting(&self, room: RoomIndex) -> impl Iterator<Item = &Payload> + Clone {
        let mut at = self.places[room.0 as usize].pending_head;
        std::iter::from_fn(move || {
            let pending = &self.pending[at.checked_sub(1)? as usize];
            at = pending.next;
            pending.payload.as_ref()
        })
    }

    /// Takes the oldest waiting message.
    pub(super) fn dequeue(&mut self, room: RoomIndex) -> Option<Payload> {
        let number = self.room(room).pending_head;
        let pending = self.pending.get_mut(number.checked_sub(1)? as usize)?;
        let payload = pending.payload.take()?;
        let next = std::mem::replace(&mut pending.next, self.free_pending);
        self.free_pending = number;
        let entry = self.room(room);
        entry.pending_head = next;
        if next == 0 {
            entry.pending_tail = 0;
        }
        let bytes = u32::try_from(payload.inner().len()).unwrap_or(u32::MAX);
        entry.pending_bytes -= bytes;
        self.waiting_bytes -= bytes as usize;
        Some(payload)
    }

    /// The run that passes.
    pub(super) fn run(&self, room: RoomIndex) -> Option<RunIndex> {
        self.places[room.0 as usize].run.checked_sub(1).map(RunIndex)
    }

    /// Starts a pass through those who are members now.
    pub(super) fn start(&mut self, room: RoomIndex, run: RunIndex) {
        let entry = self.room(room);
        debug_assert!(entry.run == 0 && entry.cursor == 0, "one run at a time");
        entry.run = run.0 + 1;
        entry.cursor = entry.members;
    }

    /// The next member of the pass; `None` at its end.
    pub(super) fn step(&mut self, room: RoomIndex) -> Option<Slot> {
        let entry = &mut self.places[room.0 as usize];
        entry.cursor = entry.cursor.checked_sub(1)?;
        let at = entry.unit * UNIT + entry.cursor;
        Some(Slot(self.members[at as usize]))
    }

    /// The pass has ended: its run is handed back.
    pub(super) fn finish(&mut self, room: RoomIndex) -> Option<RunIndex> {
        let entry = self.room(room);
        debug_assert_eq!(entry.cursor, 0);
        std::mem::take(&mut entry.run).checked_sub(1).map(RunIndex)
    }

    /// Whether the room has a run or messages; if not, it leaves the list of active rooms (the caller has
    /// taken it off the list).
    pub(super) fn stays_active(&mut self, room: RoomIndex) -> bool {
        let entry = self.room(room);
        let active = entry.run != 0 || entry.pending_head != 0;
        if !active {
            entry.flags &= !mark::ACTIVE;
        }
        active
    }
}

#[cfg(test)]
#[path = "rooms_tests.rs"]
mod tests;
