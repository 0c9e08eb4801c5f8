//! Outboxes: what a connection still has to get while the kernel takes nothing from it.

use bytemuck::Zeroable;
use halley_ring::Slot;

use super::runs::RunIndex;

/// One run that waits for one connection: 16 bytes.
#[derive(Clone, Copy, Debug, Zeroable)]
struct Entry {
    run: u32,
    /// Bytes of it that the kernel has.
    offset: u32,
    /// Messages of it not yet counted as sent.
    messages: u32,
    /// The next entry of the outbox or of the free list; one more than its place.
    next: u32,
}

const _: () = assert!(size_of::<Entry>() == 16, "as the memory bound says");

/// The queue of one blocked connection.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
struct Outbox {
    /// First and last entry, one more than their places; `head` links the free list.
    head: u32,
    tail: u32,
    bytes: u32,
    messages: u32,
    /// Closed when it has taken nothing until this tick.
    stall_at: u32,
}

/// The front entry of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Front {
    pub(super) run: RunIndex,
    pub(super) offset: u32,
    pub(super) messages: u32,
}

/// All outboxes of a shard. Outbox numbers are one more than the place, as in `Conn::outbox`.
pub(super) struct Outboxes {
    places: Box<[Outbox]>,
    free: u32,
    fresh: u32,
    entries: Box<[Entry]>,
    free_entry: u32,
    fresh_entry: u32,
    used_entries: u32,
}

impl Outboxes {
    /// So many outboxes at most, and so many entries in all of them together.
    pub(super) fn new(outboxes: u32, entries_max: u32) -> Self {
        Self {
            places: bytemuck::zeroed_slice_box(outboxes as usize),
            free: 0,
            fresh: 0,
            entries: bytemuck::zeroed_slice_box(entries_max as usize),
            free_entry: 0,
            fresh_entry: 0,
            used_entries: 0,
        }
    }

    /// An empty outbox for a connection that has none. There are enough for every slot.
    pub(super) fn open(&mut self, stall_at: u32) -> u32 {
        let number = if self.free != 0 {
            let number = self.free;
            self.free = self.places[number as usize - 1].head;
            number
        } else {
            self.fresh += 1;
            self.fresh
        };
        self.places[number as usize - 1] = Outbox { stall_at, ..Outbox::zeroed() };
        number
    }

    /// Gives an empty outbox back.
    pub(super) fn close(&mut self, number: u32) {
        let outbox = &mut self.places[number as usize - 1];
        assert_eq!((outbox.head, outbox.bytes, outbox.messages), (0, 0, 0), "an outbox is emptied before it goes");
        outbox.head = self.free;
        self.free = number;
    }

    fn take_entry(&mut self) -> Option<u32> {
        let number = if self.free_entry != 0 {
            let number = self.free_entry;
            self.free_entry = self.entries[number as usize - 1].next;
            number
        } else if (self.fresh_entry as usize) < self.entries.len() {
            self.fresh_entry += 1;
            self.fresh_entry
        } else {
            return None;
        };
        self.used_entries += 1;
        Some(number)
    }

    /// Entries that some outbox has.
    pub(super) fn used_entries(&self) -> u32 {
        self.used_entries
    }

    /// Appends what remains of a run, `bytes` long; `false` when all entries are taken. The caller pins the run.
    pub(super) fn append(&mut self, number: u32, run: RunIndex, offset: u32, bytes: u32, messages: u32) -> bool {
        let Some(entry) = self.take_entry() else { return false };
        self.entries[entry as usize - 1] = Entry { run: run.0, offset, messages, next: 0 };
        let outbox = &mut self.places[number as usize - 1];
        if outbox.tail == 0 {
            outbox.head = entry;
        } else {
            self.entries[outbox.tail as usize - 1].next = entry;
        }
        outbox.tail = entry;
        outbox.bytes += bytes;
        outbox.messages += messages;
        true
    }

    /// Puts a reply before all pushes, none of which may have begun, and behind the replies made before it; `false`
    /// when all entries are taken.
    pub(super) fn insert_reply(&mut self, number: u32, run: RunIndex, bytes: u32) -> bool {
        let Some(entry) = self.take_entry() else { return false };
        let (mut before, mut next) = (0, self.places[number as usize - 1].head);
        while next != 0 && self.entries[next as usize - 1].messages == 0 {
            (before, next) = (next, self.entries[next as usize - 1].next);
        }
        self.entries[entry as usize - 1] = Entry { run: run.0, offset: 0, messages: 0, next };
        let outbox = &mut self.places[number as usize - 1];
        if next == 0 {
            outbox.tail = entry;
        }
        outbox.bytes += bytes;
        match before {
            0 => outbox.head = entry,
            before => self.entries[before as usize - 1].next = entry,
        }
        true
    }

    /// Puts an entry that has not begun before all others; `false` when all entries are taken.
    pub(super) fn put_first(&mut self, number: u32, run: RunIndex, bytes: u32) -> bool {
        let Some(entry) = self.take_entry() else { return false };
        let outbox = &mut self.places[number as usize - 1];
        self.entries[entry as usize - 1] = Entry { run: run.0, offset: 0, messages: 0, next: outbox.head };
        outbox.head = entry;
        if outbox.tail == 0 {
            outbox.tail = entry;
        }
        outbox.bytes += bytes;
        true
    }

    /// Puts what is left of something begun before all others: `bytes` of a run behind its first byte, with the last
    /// bytes of so many messages; `false` when all entries are taken.
    pub(super) fn put_begun(&mut self, number: u32, run: RunIndex, bytes: u32, messages: u32) -> bool {
        if !self.put_first(number, run, bytes) {
            return false;
        }
        let outbox = &mut self.places[number as usize - 1];
        outbox.messages += messages;
        let entry = &mut self.entries[outbox.head as usize - 1];
        (entry.offset, entry.messages) = (1, messages);
        true
    }

    /// Moves all entries of the outbox `from` behind those of `number`, and gives `from` back.
    pub(super) fn take_over(&mut self, number: u32, from: u32) {
        let Outbox { head, tail, bytes, messages, .. } = std::mem::take(&mut self.places[from as usize - 1]);
        self.close(from);
        if head == 0 {
            return;
        }
        let outbox = &mut self.places[number as usize - 1];
        if outbox.tail == 0 {
            outbox.head = head;
        } else {
            self.entries[outbox.tail as usize - 1].next = head;
        }
        outbox.tail = tail;
        outbox.bytes += bytes;
        outbox.messages += messages;
    }

    /// The entry to send next.
    pub(super) fn front(&self, number: u32) -> Option<Front> {
        let head = self.places[number as usize - 1].head.checked_sub(1)?;
        let entry = &self.entries[head as usize];
        Some(Front { run: RunIndex(entry.run), offset: entry.offset, messages: entry.messages })
    }

    /// The kernel took `bytes` of the front entry and with them the last byte of `messages`; some remain.
    pub(super) fn advance(&mut self, number: u32, bytes: u32, messages: u32) {
        let outbox = &mut self.places[number as usize - 1];
        outbox.bytes -= bytes;
        outbox.messages -= messages;
        let entry = &mut self.entries[outbox.head as usize - 1];
        entry.offset += bytes;
        entry.messages -= messages;
    }

    /// Removes the front entry, of which `bytes` remain; the caller unpins its run.
    pub(super) fn pop(&mut self, number: u32, bytes: u32) -> Front {
        let front = self.front(number).expect("an entry to remove");
        let entry = self.places[number as usize - 1].head;
        self.unlink(number, 0, self.entries[entry as usize - 1].next);
        self.settle(number, entry, bytes, front);
        front
    }

    /// Removes the oldest push that has not begun (`bytes` is asked for its run). Replies stay.
    pub(super) fn pop_unbegun(&mut self, number: u32, bytes: impl Fn(RunIndex) -> u32) -> Option<Front> {
        let (mut before, mut at) = (0, self.places[number as usize - 1].head);
        while at != 0 {
            let entry = self.entries[at as usize - 1];
            if entry.offset == 0 && entry.messages > 0 {
                let removed = Front { run: RunIndex(entry.run), offset: 0, messages: entry.messages };
                self.unlink(number, before, entry.next);
                self.settle(number, at, bytes(removed.run), removed);
                return Some(removed);
            }
            (before, at) = (at, entry.next);
        }
        None
    }

    /// Takes the entry behind `before` (0: the first) out of the outbox's list.
    fn unlink(&mut self, number: u32, before: u32, next: u32) {
        let outbox = &mut self.places[number as usize - 1];
        match before {
            0 => outbox.head = next,
            before => self.entries[before as usize - 1].next = next,
        }
        if next == 0 {
            outbox.tail = before;
        }
    }

    fn settle(&mut self, number: u32, entry: u32, bytes: u32, front: Front) {
        let outbox = &mut self.places[number as usize - 1];
        outbox.bytes -= bytes;
        outbox.messages -= front.messages;
        self.entries[entry as usize - 1].next = self.free_entry;
        self.free_entry = entry;
        self.used_entries -= 1;
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self, number: u32) -> u32 {
        self.places[number as usize - 1].bytes
    }

    /// Messages that wait.
    pub(super) fn messages(&self, number: u32) -> u32 {
        self.places[number as usize - 1].messages
    }

    /// When the connection has stalled.
    pub(super) fn stall_at(&self, number: u32) -> u32 {
        self.places[number as usize - 1].stall_at
    }

    /// Outboxes and entries that somebody has.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> (u32, u32) {
        let outbox = |number: u32| (number != 0).then_some(number);
        let outboxes =
            std::iter::successors(outbox(self.free), |number| outbox(self.places[*number as usize - 1].head));
        let entries =
            std::iter::successors(outbox(self.free_entry), |number| outbox(self.entries[*number as usize - 1].next));
        let count = |free: usize| u32::try_from(free).expect("places are u32");
        let entries = self.fresh_entry - count(entries.count());
        assert_eq!(self.used_entries, entries, "entries");
        (self.fresh - count(outboxes.count()), entries)
    }

    /// The connection took something.
    pub(super) fn set_stall_at(&mut self, number: u32, tick: u32) {
        self.places[number as usize - 1].stall_at = tick;
    }
}

/// One bounded list of slots that a turn works off; each slot is on it once, marked by a flag.
pub(super) type SlotList = std::collections::VecDeque<Slot>;

#[cfg(test)]
mod tests {
    use super::*;

    fn runs_of(outboxes: &mut Outboxes, number: u32) -> Vec<u32> {
        std::iter::from_fn(|| outboxes.front(number).map(|_| outboxes.pop(number, 10).run.0)).collect()
    }

    #[test]
    fn entries_leave_in_order_with_the_replies_first() {
        let mut outboxes = Outboxes::new(2, 8);
        let number = outboxes.open(0);
        for run in 1..4 {
            assert!(outboxes.append(number, RunIndex(run), 0, 10, 1));
        }
        assert!(outboxes.insert_reply(number, RunIndex(8), 10));
        assert!(outboxes.insert_reply(number, RunIndex(9), 10));
        assert_eq!((outboxes.bytes(number), outboxes.messages(number)), (50, 3));
        assert_eq!(runs_of(&mut outboxes, number), [8, 9, 1, 2, 3]);
        outboxes.close(number);
        assert_eq!(outboxes.open(0), number, "used again");
    }

    #[test]
    fn what_has_begun_is_not_taken_out() {
        let mut outboxes = Outboxes::new(1, 8);
        let number = outboxes.open(0);
        for run in 1..4 {
            outboxes.append(number, RunIndex(run), 0, 10, 1);
        }
        outboxes.advance(number, 4, 0);
        assert_eq!(outboxes.pop_unbegun(number, |_| 10).map(|front| front.run), Some(RunIndex(2)));
        assert_eq!(outboxes.pop_unbegun(number, |_| 10).map(|front| front.run), Some(RunIndex(3)));
        assert_eq!(outboxes.pop_unbegun(number, |_| 10), None);
        assert_eq!((outboxes.bytes(number), outboxes.messages(number)), (6, 1));
        assert!(outboxes.append(number, RunIndex(5), 0, 10, 1), "the tail is right");
        assert_eq!(outboxes.pop(number, 6).run, RunIndex(1));
        assert_eq!(outboxes.pop(number, 10).run, RunIndex(5));
        outboxes.close(number);
    }

    #[test]
    fn entries_have_an_end_and_come_back() {
        let mut outboxes = Outboxes::new(1, 2);
        let number = outboxes.open(0);
        assert!(outboxes.append(number, RunIndex(1), 0, 1, 0));
        assert!(outboxes.append(number, RunIndex(2), 0, 1, 0));
        assert!(!outboxes.append(number, RunIndex(3), 0, 1, 0));
        outboxes.pop(number, 1);
        assert!(outboxes.append(number, RunIndex(3), 0, 1, 0));
    }
}
