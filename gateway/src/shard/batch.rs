//! Batches: sends go to the kernel together, and what it did not take is worked off.
//!
//! `sent` is counted when a send is put into a batch, and taken back for what the kernel did not take.

use arrayvec::ArrayVec;
use halley_ring::{Ring, SEND_BATCH_MAX, Slot};

use crate::reason::{CloseReason, DropReason};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::conn::Class;
use super::runs::RunIndex;

/// One send of a batch.
#[derive(Clone, Copy)]
pub(super) struct Send {
    pub(super) slot: Slot,
    pub(super) run: RunIndex,
    /// First byte, and how many.
    pub(super) offset: u32,
    pub(super) bytes: u32,
    pub(super) messages: u32,
    pub(super) class: Class,
    /// It is the front of the connection's outbox.
    pub(super) from_outbox: bool,
}

/// The sends that go to the kernel next.
pub(super) struct Batch {
    pub(super) sends: ArrayVec<Send, SEND_BATCH_MAX>,
    /// Never two sends to one connection in a batch: each connection remembers its last.
    pub(super) number: u32,
    pub(super) has_outbox: bool,
    /// Runs to be released when the batch has been submitted.
    pub(super) spent: ArrayVec<RunIndex, SEND_BATCH_MAX>,
    /// Lingering connections to be looked at then.
    pub(super) settling: ArrayVec<Slot, SEND_BATCH_MAX>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { sends: ArrayVec::new(), number: 1, has_outbox: false, spent: ArrayVec::new(), settling: ArrayVec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.sends.is_full() || self.spent.is_full() || self.settling.is_full()
    }
}

impl<R: Ring> Shard<R> {
    /// Puts a send into the batch, which has room and no other send to this connection.
    pub(super) fn push(&mut self, send: Send) {
        self.table[send.slot].batch = self.batch.number;
        let stats = &self.link.stats;
        stats.sent.add(u64::from(send.messages));
        stats.sent_bytes.add(u64::from(send.bytes));
        self.batch.has_outbox |= send.from_outbox;
        self.batch.sends.push(send);
    }

    /// Releases a run that has passed, as soon as the batch that may hold it is out.
    pub(super) fn spend(&mut self, run: RunIndex) {
        if self.batch.spent.is_full() {
            self.submit();
        }
        if planted(Bug::RunFreedEarly) {
            return self.runs.release(run);
        }
        self.batch.spent.push(run);
    }

    /// Hands the batch to the kernel and works off what it did not take.
    pub(super) fn submit(&mut self) {
        if !self.batch.sends.is_empty() {
            self.stats().sends.add(self.batch.sends.len() as u64);
            let runs = &self.runs;
            let batch = self.batch.sends.iter().map(|send| {
                let bytes = runs.bytes(send.run, send.class);
                (send.slot, &bytes[send.offset as usize..])
            });
            self.ring.send(batch, &mut self.failures);
            self.work_off();
            self.batch.sends.clear();
            self.batch.has_outbox = false;
        }
        // Also after an empty one: the number comes round, and a connection may remember it from long ago.
        self.batch.number = self.batch.number.wrapping_add(1).max(1);
        for run in self.batch.spent.take() {
            self.runs.release(run);
        }
        for slot in self.batch.settling.take() {
            self.settle(slot);
        }
    }

    pub(super) fn work_off(&mut self) {
        let mut failed = [false; SEND_BATCH_MAX];
        for at in 0..self.failures.len() - usize::from(planted(Bug::CompletionLeft) && !self.failures.is_empty()) {
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
    pub(super) fn short(&mut self, send: Send, taken: u32) {
        let Send { slot, run, offset, bytes, messages, class, from_outbox } = send;
        let all = self.runs.messages(run);
        let done = messages - (all - self.runs.messages_within(run, class, offset + taken)).min(messages);
        let rest = messages - done;
        let stats = &self.link.stats;
        stats.sent.sub(if planted(Bug::SentTooMuch) { 0 } else { u64::from(rest) });
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
            let from = if planted(Bug::TornFrame) { taken.saturating_sub(1) } else { taken };
            if !self.hold(outbox, run, from, bytes - from, rest) {
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

    /// The connection broke under a send.
    pub(super) fn broken(&mut self, send: Send) {
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
    pub(super) fn front_sent(&mut self, send: Send) {
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
}
