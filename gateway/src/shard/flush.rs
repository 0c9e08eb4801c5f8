//! Sending: batches of sends, the passes of runs through rooms, and what becomes of those that block.
//!
//! Deliveries are counted here: `offered` when a pass reaches a connection, `sent` when a send is put
//! into a batch, taken back for what the kernel did not take.

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use halley_ring::{Ring, SEND_BATCH_MAX, Slot};

use crate::ids::{ConnWord, Generation, RoomIndex};
use crate::payload::Payload;
use crate::reason::{CloseReason, DropReason, Reject};

use super::Shard;
use super::conn::{Phase, flag};
use super::outbox::SlotList;
use super::runs::RunIndex;
use super::settings::{SlowPolicy, Transport};
use super::timers;

/// Members that one room is served before the next one has its turn.
const ROOM_QUANTUM: u32 = 1024;

/// Direct pushes and pushes to all that wait in a shard; beyond this no more orders are taken.
const DIRECTS_MAX: usize = 4096;

/// One send of a batch.
#[derive(Clone, Copy)]
struct Send {
    slot: Slot,
    run: RunIndex,
    /// First byte, and how many.
    offset: u32,
    bytes: u32,
    messages: u32,
    transport: Transport,
    /// It is the front of the connection's outbox.
    from_outbox: bool,
}

/// The sends that go to the kernel next.
pub(super) struct Batch {
    sends: ArrayVec<Send, SEND_BATCH_MAX>,
    /// Never two sends to one connection in a batch: each connection remembers its last.
    number: u32,
    has_outbox: bool,
    /// Runs to be released when the batch has been submitted.
    spent: ArrayVec<RunIndex, SEND_BATCH_MAX>,
    /// Lingering connections to be looked at then.
    settling: ArrayVec<Slot, SEND_BATCH_MAX>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { sends: ArrayVec::new(), number: 1, has_outbox: false, spent: ArrayVec::new(), settling: ArrayVec::new() }
    }

    fn is_full(&self) -> bool {
        self.sends.is_full() || self.spent.is_full() || self.settling.is_full()
    }
}

/// Bytes for one connection; without a run: everything said so far has been handled.
struct Reply {
    slot: Slot,
    generation: Generation,
    run: Option<RunIndex>,
}

/// A push to some connections.
struct Direct {
    conns: Box<[ConnWord]>,
    /// Those before it are still to be served.
    cursor: usize,
    payload: Option<Payload>,
    run: Option<RunIndex>,
}

/// The pass through all connections.
#[derive(Default)]
struct AllPass {
    waiting: VecDeque<Payload>,
    run: Option<RunIndex>,
    operation: i32,
    /// Slots below it are still to be served.
    cursor: u32,
}

/// Work that waits for `flush`.
pub(super) struct Queues {
    /// Connections whose outbox can be sent from.
    pub(super) writable: SlotList,
    replies: VecDeque<Reply>,
    directs: VecDeque<Direct>,
    all: AllPass,
}

impl Queues {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            writable: VecDeque::with_capacity(slots as usize),
            replies: VecDeque::with_capacity(2 * slots as usize + super::RECVS_PER_TURN_MAX),
            directs: VecDeque::with_capacity(DIRECTS_MAX),
            all: AllPass { waiting: VecDeque::with_capacity(DIRECTS_MAX), ..AllPass::default() },
        }
    }

    pub(super) fn push_reply(&mut self, slot: Slot, generation: Generation, run: Option<RunIndex>) {
        self.replies.push_back(Reply { slot, generation, run });
    }

    pub(super) fn push_direct(&mut self, conns: Box<[ConnWord]>, payload: Payload) {
        let cursor = conns.len();
        self.directs.push_back(Direct { conns, cursor, payload: Some(payload), run: None });
    }

    pub(super) fn push_all(&mut self, payload: Payload) {
        self.all.waiting.push_back(payload);
    }

    /// Whether another direct push can wait here.
    pub(super) fn has_room(&self) -> bool {
        self.directs.len() + self.all.waiting.len() < DIRECTS_MAX
    }
}

impl<R: Ring> Shard<R> {
    /// Sends what is marked, up to the turn's maximum; whether work is left.
    pub(super) fn flush(&mut self) -> bool {
        let mut left = self.settings.sends_per_turn_max;
        self.flush_outboxes(&mut left);
        rewind(&mut self.queues.writable);
        self.flush_replies();
        rewind(&mut self.queues.replies);
        self.flush_directs(&mut left);
        self.flush_all(&mut left);
        self.flush_rooms(&mut left);
        rewind(&mut self.rooms.active);
        self.submit();
        !self.queues.writable.is_empty() || !self.queues.replies.is_empty() || self.has_pushes() || self.is_telling()
    }

    /// Whether pushes wait, or are under way, that have not reached all their connections.
    pub(super) fn has_pushes(&self) -> bool {
        let Queues { directs, all, .. } = &self.queues;
        !directs.is_empty() || all.run.is_some() || !all.waiting.is_empty() || !self.rooms.active.is_empty()
    }

    /// Sends the fronts of outboxes that may be writable again.
    fn flush_outboxes(&mut self, left: &mut u32) {
        while *left > 0 {
            let Some(slot) = self.queues.writable.pop_front() else { break };
            let conn = &mut self.table[slot];
            if !conn.has(flag::WRITABLE) {
                continue;
            }
            if conn.batch == self.batch.number || self.batch.is_full() {
                self.queues.writable.push_front(slot);
                self.submit();
                continue;
            }
            conn.clear(flag::WRITABLE);
            if conn.outbox == 0 || conn.has(flag::HELD | flag::POLL_WRITE) || conn.phase == Phase::Closing {
                continue;
            }
            let Some(front) = self.outboxes.front(conn.outbox) else { continue };
            *left -= 1;
            let transport = self.transport(slot);
            let bytes = self.bytes_of(front.run, transport) - front.offset;
            self.stats().queued.sub(u64::from(front.messages));
            self.push(Send {
                slot,
                run: front.run,
                offset: front.offset,
                bytes,
                messages: front.messages,
                transport,
                from_outbox: true,
            });
        }
        // Appending to an outbox whose front is in a batch could drop that front: not in the same batch.
        self.submit();
    }

    fn flush_replies(&mut self) {
        while let Some(reply) = self.queues.replies.front() {
            let Reply { slot, generation, run } = *reply;
            if self.batch.is_full() || (run.is_some() && self.table[slot].batch == self.batch.number) {
                self.submit();
                continue;
            }
            self.queues.replies.pop_front();
            let conn = &self.table[slot];
            if conn.generation != generation || matches!(conn.phase, Phase::Closing | Phase::Free) {
                if let Some(run) = run {
                    self.runs.release(run);
                }
                continue;
            }
            match run {
                Some(run) if conn.is_blocked() => {
                    self.append(slot, run);
                    self.runs.release(run);
                }
                Some(run) => {
                    let transport = self.transport(slot);
                    let bytes = self.bytes_of(run, transport);
                    self.push(Send { slot, run, offset: 0, bytes, messages: 0, transport, from_outbox: false });
                    self.batch.spent.push(run);
                }
                None => {
                    self.table[slot].clear(flag::UNSAID);
                    self.batch.settling.push(slot);
                }
            }
        }
    }

    fn flush_directs(&mut self, left: &mut u32) {
        while *left > 0 {
            let Some(mut direct) = self.queues.directs.pop_front() else { return };
            if let Some(payload) = direct.payload.take() {
                match self.runs.message(payload) {
                    Ok(run) => direct.run = Some(run),
                    Err(payload) => {
                        direct.payload = Some(payload);
                        self.queues.directs.push_front(direct);
                        return;
                    }
                }
            }
            let Some(run) = direct.run else { continue };
            while direct.cursor > 0 && *left > 0 {
                direct.cursor -= 1;
                *left -= 1;
                let word = direct.conns[direct.cursor];
                let operation = self.operation_of(run);
                let conn = &self.table[word.slot()];
                if conn.generation != word.generation() || !conn.takes_pushes() {
                    self.reject(Reject::StaleConnection);
                } else if self.accept_sets.accepts(conn.accepts, operation) {
                    self.deliver(word.slot(), run);
                }
            }
            if direct.cursor == 0 {
                self.spend(run);
            } else {
                self.queues.directs.push_front(direct);
            }
        }
    }

    fn flush_all(&mut self, left: &mut u32) {
        while *left > 0 {
            let run = match self.queues.all.run {
                Some(run) => run,
                None => match self.start_all() {
                    Some(run) => run,
                    None => return,
                },
            };
            while self.queues.all.cursor > 0 && *left > 0 {
                self.queues.all.cursor -= 1;
                *left -= 1;
                let slot = Slot(self.queues.all.cursor);
                let conn = &self.table[slot];
                if conn.takes_pushes() && self.accept_sets.accepts(conn.accepts, self.queues.all.operation) {
                    self.deliver(slot, run);
                }
            }
            if self.queues.all.cursor == 0 {
                self.queues.all.run = None;
                self.spend(run);
            }
        }
    }

    /// Starts a pass through all connections with the waiting messages of one operation.
    fn start_all(&mut self) -> Option<RunIndex> {
        let all = &mut self.queues.all;
        let operation = all.waiting.front()?.operation;
        let same = all.waiting.iter().take_while(|payload| payload.operation == operation);
        let (messages, bytes) = fitting(same, self.settings.run_messages_max, self.settings.run_bytes_max);
        let joined = (messages > 1)
            .then(|| self.runs.joined(bytes, messages, all.waiting.iter().take(messages as usize)))
            .flatten();
        let run = if let Some(run) = joined {
            all.waiting.drain(..messages as usize);
            run
        } else {
            match self.runs.message(all.waiting.pop_front()?) {
                Ok(run) => run,
                Err(payload) => {
                    all.waiting.push_front(payload);
                    return None;
                }
            }
        };
        all.operation = operation;
        all.cursor = self.table.used();
        all.run = Some(run);
        self.stats().run_messages.record(u64::from(self.runs.messages(run)));
        Some(run)
    }

    fn flush_rooms(&mut self, left: &mut u32) {
        for _ in 0..self.rooms.active.len() {
            if *left == 0 {
                return;
            }
            let Some(room) = self.rooms.active.pop_front() else { return };
            self.serve_room(room, left);
            if self.rooms.stays_active(room) {
                self.rooms.active.push_back(room);
            }
        }
    }

    /// Serves a quantum of a room's pass; starts one if none is under way.
    fn serve_room(&mut self, room: RoomIndex, left: &mut u32) {
        let run = match self.rooms.run(room) {
            Some(run) => run,
            None => match self.start_run(room) {
                Some(run) => run,
                None => return,
            },
        };
        for _ in 0..ROOM_QUANTUM.min(*left) {
            let Some(slot) = self.rooms.step(room) else {
                if let Some(run) = self.rooms.finish(room) {
                    self.spend(run);
                }
                return;
            };
            *left -= 1;
            self.deliver(slot, run);
        }
    }

    /// Makes a run of what waits in the room.
    fn start_run(&mut self, room: RoomIndex) -> Option<RunIndex> {
        let (messages, bytes) =
            fitting(self.rooms.waiting(room), self.settings.run_messages_max, self.settings.run_bytes_max);
        let joined = (messages > 1)
            .then(|| self.runs.joined(bytes, messages, self.rooms.waiting(room).take(messages as usize)))
            .flatten();
        let run = if let Some(run) = joined {
            (0..messages).for_each(|_| drop(self.rooms.dequeue(room)));
            run
        } else {
            // The pool may be used up; then the room waits for its next turn.
            if !self.runs.has_place() {
                return None;
            }
            self.runs.message(self.rooms.dequeue(room)?).ok()?
        };
        self.stats().run_messages.record(u64::from(self.runs.messages(run)));
        self.rooms.start(room, run);
        Some(run)
    }

    /// One connection's turn in a pass.
    fn deliver(&mut self, slot: Slot, run: RunIndex) {
        let messages = self.runs.messages(run);
        let stats = &self.link.stats;
        stats.offered.add(u64::from(messages));
        if self.table[slot].is_blocked() {
            self.append(slot, run);
            return;
        }
        if self.table[slot].batch == self.batch.number || self.batch.is_full() {
            self.submit();
            if self.table[slot].is_blocked() {
                self.append(slot, run);
                return;
            }
            if !self.table[slot].takes_pushes() {
                self.count_dropped(DropReason::Closed, messages);
                return;
            }
        }
        let transport = self.transport(slot);
        let bytes = self.bytes_of(run, transport);
        self.push(Send { slot, run, offset: 0, bytes, messages, transport, from_outbox: false });
    }

    fn bytes_of(&self, run: RunIndex, transport: Transport) -> u32 {
        u32::try_from(self.runs.bytes(run, transport).len()).unwrap_or(u32::MAX)
    }

    /// The operation of a run of one message.
    fn operation_of(&self, run: RunIndex) -> i32 {
        self.runs.operation(run)
    }

    /// Puts a send into the batch, which has room and no other send to this connection.
    fn push(&mut self, send: Send) {
        self.table[send.slot].batch = self.batch.number;
        let stats = &self.link.stats;
        stats.sent.add(u64::from(send.messages));
        stats.sent_bytes.add(u64::from(send.bytes));
        self.batch.has_outbox |= send.from_outbox;
        self.batch.sends.push(send);
    }

    /// Releases a run that has passed, as soon as the batch that may hold it is out.
    fn spend(&mut self, run: RunIndex) {
        if self.batch.spent.is_full() {
            self.submit();
        }
        self.batch.spent.push(run);
    }

    /// Hands the batch to the kernel and works off what it did not take.
    fn submit(&mut self) {
        if !self.batch.sends.is_empty() {
            self.stats().sends.add(self.batch.sends.len() as u64);
            let runs = &self.runs;
            let batch = self.batch.sends.iter().map(|send| {
                let bytes = runs.bytes(send.run, send.transport);
                (send.slot, &bytes[send.offset as usize..])
            });
            self.ring.send(batch, &mut self.failures);
            self.batch.number = self.batch.number.wrapping_add(1).max(1);
            self.work_off();
            self.batch.sends.clear();
            self.batch.has_outbox = false;
        }
        for run in self.batch.spent.take() {
            self.runs.release(run);
        }
        for slot in self.batch.settling.take() {
            self.settle(slot);
        }
    }

    fn work_off(&mut self) {
        let mut failed = [false; SEND_BATCH_MAX];
        for at in 0..self.failures.len() {
            let failure = self.failures[at];
            let send = self.batch.sends[usize::from(failure.place)];
            failed[usize::from(failure.place)] = true;
            match failure.result {
                Ok(taken) => self.short(send, taken),
                Err(_) => self.broken(send),
            }
        }
        if self.batch.has_outbox {
            for (at, failed) in failed.iter().enumerate().take(self.batch.sends.len()) {
                let send = self.batch.sends[at];
                if send.from_outbox && !failed {
                    self.front_sent(send);
                }
            }
        }
    }

    /// The kernel took a part: the rest goes to, or stays in, the outbox.
    fn short(&mut self, send: Send, taken: u32) {
        let Send { slot, run, offset, bytes, messages, transport, from_outbox } = send;
        let all = self.runs.messages(run);
        let done = messages - (all - self.runs.messages_within(run, transport, offset + taken)).min(messages);
        let rest = messages - done;
        let stats = &self.link.stats;
        stats.sent.sub(u64::from(rest));
        stats.sent_bytes.sub(u64::from(bytes - taken));
        let stall_at = self.stall_at(slot);
        if from_outbox {
            stats.queued.add(u64::from(rest));
            let outbox = self.table[slot].outbox;
            self.outboxes.advance(outbox, taken, done);
            if taken > 0 {
                self.outboxes.set_stall_at(outbox, stall_at);
            }
        } else {
            self.open_outbox(slot);
            let outbox = self.table[slot].outbox;
            if !self.hold(outbox, run, taken, bytes - taken, rest) {
                self.count_dropped(DropReason::Closed, rest);
                self.close_outbox(slot);
                // Nothing can follow a torn frame or a lost reply.
                if taken > 0 || messages == 0 {
                    self.cut(slot, CloseReason::OutboxPool);
                } else {
                    self.end(slot, CloseReason::OutboxPool);
                }
                return;
            }
        }
        self.poll_writable(slot);
    }

    fn stall_at(&self, slot: Slot) -> u32 {
        self.tick + timers::ticks(self.listener(slot).stall_ms_max).max(1)
    }

    fn poll_writable(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        if !conn.has(flag::POLL_WRITE) {
            conn.set(flag::POLL_WRITE);
            self.ring.poll_writable(slot, conn.generation);
        }
    }

    /// The connection broke under a send.
    fn broken(&mut self, send: Send) {
        let stats = &self.link.stats;
        stats.sent.sub(u64::from(send.messages));
        stats.sent_bytes.sub(u64::from(send.bytes));
        if send.from_outbox {
            stats.queued.add(u64::from(send.messages));
        } else {
            self.count_dropped(DropReason::Closed, send.messages);
        }
        self.cut(send.slot, CloseReason::PeerReset);
    }

    /// The front of an outbox has left whole.
    fn front_sent(&mut self, send: Send) {
        let stall_at = self.stall_at(send.slot);
        let outbox = self.table[send.slot].outbox;
        self.outboxes.pop(outbox, send.bytes);
        self.runs.unpin(send.run);
        if self.outboxes.front(outbox).is_some() {
            self.outboxes.set_stall_at(outbox, stall_at);
            self.mark_writable(send.slot);
        } else {
            self.close_outbox(send.slot);
            self.unblocked(send.slot);
        }
    }

    /// The connection takes everything again.
    fn unblocked(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        if conn.has(flag::PAUSED) {
            conn.clear(flag::PAUSED);
            self.mark_ready(slot);
        }
        if self.table[slot].phase == Phase::Lingering {
            let deadline = self.tick + timers::ticks(self.listener(slot).linger_ms_max);
            self.table[slot].deadline = deadline;
            self.wheel.set(&mut self.table, slot, deadline);
            self.settle(slot);
        }
    }

    fn open_outbox(&mut self, slot: Slot) {
        if self.table[slot].outbox == 0 {
            let stall_at = self.stall_at(slot);
            self.table[slot].outbox = self.outboxes.open(stall_at);
            self.stats().blocked.add(1);
            if stall_at < self.table[slot].timer_at {
                self.wheel.set(&mut self.table, slot, stall_at);
            }
        }
    }

    fn close_outbox(&mut self, slot: Slot) {
        let outbox = std::mem::take(&mut self.table[slot].outbox);
        self.outboxes.close(outbox);
        self.stats().blocked.sub(1);
    }

    /// Puts what remains of a run behind an outbox; `false` when the shard's memory for this is used up.
    fn hold(&mut self, outbox: u32, run: RunIndex, offset: u32, bytes: u32, messages: u32) -> bool {
        if !self.runs.pin(run) {
            return false;
        }
        if !self.outboxes.append(outbox, run, offset, bytes, messages) {
            self.runs.unpin(run);
            return false;
        }
        self.stats().queued.add(u64::from(messages));
        true
    }

    /// A run for a blocked connection: waits in its outbox, as far as its policy lets it.
    fn append(&mut self, slot: Slot, run: RunIndex) {
        self.open_outbox(slot);
        let outbox = self.table[slot].outbox;
        let messages = self.runs.messages(run);
        let bytes = self.bytes_of(run, self.transport(slot));
        if messages > 0 && !self.make_room(slot, bytes, messages) {
            return;
        }
        if !self.hold(outbox, run, 0, bytes, messages) {
            self.count_dropped(DropReason::Closed, messages);
            self.close_empty_outbox(slot);
            if messages == 0 {
                self.cut(slot, CloseReason::OutboxPool);
            } else {
                self.end(slot, CloseReason::OutboxPool);
            }
        }
    }

    /// Applies the listener's policy to a push of so many bytes; `false`: the push is dropped and counted.
    fn make_room(&mut self, slot: Slot, bytes: u32, messages: u32) -> bool {
        let outbox = self.table[slot].outbox;
        let bytes_max = self.listener(slot).outbox_bytes_max;
        let fits = |waiting: u32| waiting == 0 || waiting.saturating_add(bytes) <= bytes_max;
        if fits(self.outboxes.bytes(outbox)) {
            return true;
        }
        match self.listener(slot).slow_policy {
            SlowPolicy::DropNewest => {
                self.count_dropped(DropReason::SlowNewest, messages);
                false
            }
            SlowPolicy::DropOldest => {
                self.drop_unbegun(slot, DropReason::SlowOldest, bytes_max.saturating_sub(bytes));
                let fits = fits(self.outboxes.bytes(outbox));
                if !fits {
                    self.count_dropped(DropReason::SlowNewest, messages);
                }
                fits
            }
            SlowPolicy::Close => {
                self.count_dropped(DropReason::Closed, messages);
                self.end(slot, CloseReason::TooSlow);
                false
            }
        }
    }

    /// Drops waiting pushes (not replies), the oldest first, but none that has begun, until at most `bytes_max` wait;
    /// with `u32::MAX` all of them.
    pub(super) fn drop_unbegun(&mut self, slot: Slot, reason: DropReason, bytes_max: u32) {
        let Some(outbox) = Some(self.table[slot].outbox).filter(|outbox| *outbox != 0) else { return };
        let transport = self.transport(slot);
        while bytes_max == u32::MAX || self.outboxes.bytes(outbox) > bytes_max {
            let runs = &self.runs;
            let length = |run| u32::try_from(runs.bytes(run, transport).len()).unwrap_or(u32::MAX);
            let Some(front) = self.outboxes.pop_unbegun(outbox, length) else { break };
            self.stats().queued.sub(u64::from(front.messages));
            self.count_dropped(reason, front.messages);
            self.runs.unpin(front.run);
        }
    }

    /// Gives an outbox back in which nothing is left.
    pub(super) fn close_empty_outbox(&mut self, slot: Slot) {
        let outbox = self.table[slot].outbox;
        if outbox != 0 && self.outboxes.front(outbox).is_none() {
            self.close_outbox(slot);
        }
    }

    /// Drops everything that waits, also what has begun: the socket closes.
    pub(super) fn empty_outbox(&mut self, slot: Slot) {
        let outbox = self.table[slot].outbox;
        if outbox == 0 {
            return;
        }
        let transport = self.transport(slot);
        while let Some(front) = self.outboxes.front(outbox) {
            let bytes = self.bytes_of(front.run, transport) - front.offset;
            self.outboxes.pop(outbox, bytes);
            self.stats().queued.sub(u64::from(front.messages));
            self.count_dropped(DropReason::Closed, front.messages);
            self.runs.unpin(front.run);
        }
        self.close_outbox(slot);
    }

    /// Sends the bytes in `reply` to one connection, after what was queued for it before.
    pub(super) fn queue_reply(&mut self, slot: Slot) {
        if self.reply.is_empty() {
            return;
        }
        match self.runs.reply(&self.reply) {
            Some(run) => self.queues.push_reply(slot, self.table[slot].generation, Some(run)),
            None => self.cut(slot, CloseReason::OutboxPool),
        }
        self.reply.clear();
    }

    /// Puts the reply to a login before the pushes that came meanwhile.
    pub(super) fn insert_reply(&mut self, slot: Slot) {
        let outbox = self.table[slot].outbox;
        let bytes = u32::try_from(self.reply.len()).unwrap_or(u32::MAX);
        let run = self.runs.reply(&self.reply);
        self.reply.clear();
        let Some(run) = run else { return self.cut(slot, CloseReason::OutboxPool) };
        let pinned = self.runs.pin(run);
        if !pinned || !self.outboxes.insert_reply(outbox, run, bytes) {
            if pinned {
                self.runs.unpin(run);
            }
            self.cut(slot, CloseReason::OutboxPool);
        }
        self.runs.release(run);
    }
}

/// Lets an empty list begin at the front of its memory again: otherwise it would in time touch all of it.
pub(super) fn rewind<T>(list: &mut VecDeque<T>) {
    if list.is_empty() {
        list.clear();
    }
}

/// How many of the first messages fit a run, at least one, and the bytes of their inner packets.
fn fitting<'p>(messages: impl Iterator<Item = &'p Payload>, messages_max: u32, bytes_max: u32) -> (u32, u32) {
    let (mut count, mut bytes) = (0u32, 0u32);
    for payload in messages.take(messages_max as usize) {
        let more = u32::try_from(payload.inner().len()).unwrap_or(u32::MAX);
        let together = bytes.saturating_add(more);
        if count > 0 && together > bytes_max {
            break;
        }
        (count, bytes) = (count + 1, together);
    }
    (count, bytes)
}
