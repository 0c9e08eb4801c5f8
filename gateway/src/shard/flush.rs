//! Sending: outboxes that are writable again, replies, and the passes of pushes and runs.
//!
//! The order of a turn: outboxes and replies, then pushes to connections and to all, then rooms in turn.
//! A delivery is `offered` when its pass reaches the connection.

use std::collections::VecDeque;

use halley_ring::{Ring, Slot};

use crate::ids::{ConnWord, Generation, RoomIndex};
use crate::order::push_weight;
use crate::payload::Payload;
use crate::reason::{CloseReason, DropReason, Reject};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::batch::Send;
use super::conn::{Class, Conn, Phase, flag};
use super::outbox::SlotList;
use super::runs::RunIndex;
use super::tls::Sealed;
use super::upstream::ANSWERS_PER_TURN_MAX;

/// Members that one room is served before the next one has its turn,
const ROOM_QUANTUM: u32 = 1024;

/// and bytes that are sent to them: long runs take the kernel their bytes' time, which nobody else should wait for.
const ROOM_QUANTUM_BYTES: u32 = 1 << 20;

/// Direct pushes and pushes to all that wait in a shard; beyond this no more orders are taken.
const DIRECTS_MAX: usize = 4096;

/// What a turn has for one connection.
struct Reply {
    slot: Slot,
    generation: Generation,
    what: Said,
}

/// What a reply is.
#[derive(Clone, Copy)]
pub(super) enum Said {
    /// Bytes.
    Run(RunIndex),
    /// A long message of an echo connection, in an outbox of its own.
    Held(u32),
    /// Nothing: everything said before has been handled.
    All,
}

/// A push to some connections.
struct Direct {
    conns: Box<[ConnWord]>,
    /// Those before it are still to be served.
    cursor: usize,
    /// What it weighs until all are served.
    weight: usize,
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
    /// What waits in `directs` and `all` weighs together.
    weight: usize,
}

impl Queues {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            writable: VecDeque::with_capacity(slots as usize),
            replies: VecDeque::with_capacity(2 * slots as usize + super::RECVS_PER_TURN_MAX + ANSWERS_PER_TURN_MAX),
            directs: VecDeque::with_capacity(DIRECTS_MAX),
            all: AllPass { waiting: VecDeque::with_capacity(DIRECTS_MAX), ..AllPass::default() },
            weight: 0,
        }
    }

    pub(super) fn push_reply(&mut self, slot: Slot, generation: Generation, what: Said) {
        self.replies.push_back(Reply { slot, generation, what });
    }

    pub(super) fn push_direct(&mut self, conns: Box<[ConnWord]>, payload: Payload) {
        let cursor = conns.len();
        let weight = push_weight(payload.weight(), cursor);
        self.weight += weight;
        self.directs.push_back(Direct { conns, cursor, weight, payload: Some(payload), run: None });
    }

    pub(super) fn push_all(&mut self, payload: Payload) {
        self.weight += payload.weight();
        self.all.waiting.push_back(payload);
    }

    /// What waits here weighs.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether another direct push can wait here.
    pub(super) fn has_room(&self) -> bool {
        self.directs.len() + self.all.waiting.len() < DIRECTS_MAX
    }
}

impl<R: Ring> Shard<R> {
    /// Sends what is marked, up to the turn's maximum; whether work is left.
    pub(super) fn flush(&mut self) -> bool {
        // The last quarter is kept for rooms: pushes to connections and to all cannot starve them.
        let kept = self.settings.sends_per_turn_max / 4;
        let mut left = self.settings.sends_per_turn_max - kept;
        self.flush_outboxes(&mut left);
        rewind(&mut self.queues.writable);
        self.flush_replies();
        rewind(&mut self.queues.replies);
        self.flush_directs(&mut left);
        self.flush_all(&mut left);
        left += kept;
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
            let conn = &self.table[slot];
            if !conn.has(flag::WRITABLE) {
                continue;
            }
            if conn.batch == self.batch.number || self.is_batch_full() {
                self.queues.writable.push_front(slot);
                self.submit();
                continue;
            }
            let conn = &mut self.table[slot];
            conn.clear(flag::WRITABLE);
            if conn.outbox == 0 || conn.has(flag::HELD | flag::POLL_WRITE) || conn.phase == Phase::Closing {
                continue;
            }
            let Some(front) = self.outboxes.front(conn.outbox) else { continue };
            *left -= 1;
            let class = self.class(slot);
            let bytes = self.bytes_of(front.run, class) - front.offset;
            self.stats().queued.sub(u64::from(front.messages));
            self.push(Send {
                slot,
                run: front.run,
                offset: front.offset,
                bytes,
                messages: front.messages,
                class,
                from_outbox: true,
                sealed: Sealed::default(),
            });
        }
        // Appending to an outbox whose front is in a batch could drop that front: not in the same batch.
        self.submit();
    }

    fn flush_replies(&mut self) {
        while let Some(reply) = self.queues.replies.front() {
            let Reply { slot, generation, what } = *reply;
            let said_all = matches!(what, Said::All);
            if self.is_batch_full() || (!said_all && self.table[slot].batch == self.batch.number) {
                self.submit();
                continue;
            }
            self.queues.replies.pop_front();
            let conn = &self.table[slot];
            if conn.generation != generation || matches!(conn.phase, Phase::Closing | Phase::Free) {
                match what {
                    Said::Run(run) => self.runs.release(run),
                    Said::Held(held) => self.drop_held(held),
                    Said::All => {}
                }
                continue;
            }
            match what {
                Said::Held(held) => self.send_held(slot, held),
                Said::Run(run) if conn.is_blocked() => {
                    self.append(slot, run);
                    self.runs.release(run);
                }
                Said::Run(run) => {
                    let class = self.class(slot);
                    let bytes = self.bytes_of(run, class);
                    self.push(whole(slot, run, bytes, 0, class));
                    self.batch.spent.push(run);
                }
                Said::All => {
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
                let stale = conn.generation != word.generation() && !planted(Bug::ConnectionGenerationIgnored);
                if stale || !conn.takes_pushes() {
                    self.reject(Reject::StaleConnection);
                } else if self.wants(conn, operation) {
                    self.deliver(word.slot(), run);
                }
            }
            if direct.cursor == 0 {
                self.queues.weight -= direct.weight;
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
                let wants = self.wants(conn, self.queues.all.operation);
                if conn.takes_pushes() && (wants || planted(Bug::AcceptsIgnored)) {
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
        let deflates = self.deflates();
        let all = &mut self.queues.all;
        let operation = all.waiting.front()?.operation;
        let same = all.waiting.iter().take_while(|payload| payload.operation == operation);
        let (messages, bytes) = fitting(same, self.settings.run_messages_max, self.settings.run_bytes_max);
        let joined = (messages > 1)
            .then(|| self.runs.joined(bytes, messages, all.waiting.iter().take(messages as usize), deflates))
            .flatten();
        let run = if let Some(run) = joined {
            let weight: usize = all.waiting.drain(..messages as usize).map(|payload| payload.weight()).sum();
            self.queues.weight -= weight;
            run
        } else {
            let payload = all.waiting.pop_front()?;
            let weight = payload.weight();
            match self.runs.message(payload) {
                Ok(run) => {
                    self.queues.weight -= weight;
                    run
                }
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
        let bytes = self.bytes_of(run, Class::Tcp).max(1);
        let quantum = ROOM_QUANTUM.min(ROOM_QUANTUM_BYTES / bytes).max(1);
        for _ in 0..quantum.min(*left) {
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
            .then(|| {
                self.runs.joined(bytes, messages, self.rooms.waiting(room).take(messages as usize), self.deflates())
            })
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

    /// Whether somebody here has agreed to compression.
    fn deflates(&self) -> bool {
        self.stats().deflating.get() > 0
    }

    /// Whether a push to keys, members or all is for the connection. goim v1 knows no accepted operations: all are.
    fn wants(&self, conn: &Conn, operation: i32) -> bool {
        self.accept_sets.accepts(conn.accepts, operation) || conn.has(flag::V1)
    }

    /// One connection's turn in a pass.
    fn deliver(&mut self, slot: Slot, run: RunIndex) {
        let messages = self.runs.messages(run);
        let stats = &self.link.stats;
        stats.offered.add(u64::from(messages));
        let class = self.class(slot);
        if class.is_v1() && !self.runs.translate(run) {
            self.count_dropped(DropReason::Closed, messages);
            self.end(slot, CloseReason::OutboxPool);
            return;
        }
        if self.table[slot].is_blocked() && !planted(Bug::OutboxOvertaken) {
            self.append(slot, run);
            return;
        }
        if self.table[slot].batch == self.batch.number || self.is_batch_full() {
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
        let bytes = self.bytes_of(run, class);
        self.push(whole(slot, run, bytes, messages, class));
    }

    pub(super) fn bytes_of(&self, run: RunIndex, class: Class) -> u32 {
        u32::try_from(self.runs.bytes(run, class).len()).unwrap_or(u32::MAX)
    }

    /// The operation of a run of one message.
    fn operation_of(&self, run: RunIndex) -> i32 {
        self.runs.operation(run)
    }

    /// Sends the bytes in `reply` to one connection, after what was queued for it before.
    pub(super) fn queue_reply(&mut self, slot: Slot) {
        if self.reply.is_empty() {
            return;
        }
        let echo = self.table[slot].has(flag::ECHO);
        let run = if echo { self.runs.echo(&self.reply) } else { self.runs.reply(&self.reply) };
        match run {
            Some(run) => self.queues.push_reply(slot, self.table[slot].generation, Said::Run(run)),
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

/// A send of a whole run.
fn whole(slot: Slot, run: RunIndex, bytes: u32, messages: u32, class: Class) -> Send {
    Send { slot, run, offset: 0, bytes, messages, class, from_outbox: false, sealed: Sealed::default() }
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
