//! Batches: sends go to the kernel together, and what it did not take is worked off.
//!
//! `sent` is counted when a send is put into a batch, and taken back for what the kernel did not take.

use arrayvec::ArrayVec;
use halley_ring::{Ring, SEND_BATCH_MAX, Slot};

use crate::reason::{CloseReason, DropReason};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::conn::{Class, flag};
use super::runs::RunIndex;
use super::tls::{self, Sealed};

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
    /// How TLS has sealed it.
    pub(super) sealed: Sealed,
}

impl Send {
    /// Bytes that the kernel is given.
    fn wire_bytes(&self) -> u32 {
        if self.sealed.bytes > 0 { self.sealed.bytes } else { self.bytes }
    }
}

/// The sends that go to the kernel next.
pub(super) struct Batch {
    pub(super) sends: ArrayVec<Send, SEND_BATCH_MAX>,
    /// Never two sends to one connection in a batch: each connection remembers its last.
    pub(super) number: u32,
    pub(super) has_outbox: bool,
    /// Some sends hold only a part of what is to be sent.
    pub(super) has_parts: bool,
    /// Runs to be released when the batch has been submitted.
    pub(super) spent: ArrayVec<RunIndex, SEND_BATCH_MAX>,
    /// Lingering connections to be looked at then.
    pub(super) settling: ArrayVec<Slot, SEND_BATCH_MAX>,
    /// When the last one had been handed to the kernel.
    sent_us: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            sends: ArrayVec::new(),
            number: 1,
            has_outbox: false,
            has_parts: false,
            spent: ArrayVec::new(),
            settling: ArrayVec::new(),
            sent_us: 0,
        }
    }

    fn is_full(&self) -> bool {
        self.sends.is_full() || self.spent.is_full() || self.settling.is_full()
    }
}

impl<R: Ring> Shard<R> {
    /// Whether another send might not fit the batch.
    pub(super) fn is_batch_full(&self) -> bool {
        self.batch.is_full() || !self.tls.has_room()
    }

    /// Puts a send into the batch, which has room and no other send to this connection.
    pub(super) fn push(&mut self, mut send: Send) {
        let conn = &mut self.table[send.slot];
        conn.batch = self.batch.number;
        if conn.has(flag::TLS) {
            send.sealed = self.seal(&send);
            self.batch.has_parts |= send.sealed.is_part(send.bytes);
        }
        let stats = &self.link.stats;
        stats.sent.add(u64::from(send.messages));
        stats.sent_bytes.add(u64::from(send.wire_bytes()));
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
            let (runs, sealed) = (&self.runs, self.tls.sealed());
            let batch = self.batch.sends.iter().map(|send| {
                if send.sealed.bytes > 0 {
                    return (send.slot, tls::bytes_of(sealed, &send.sealed));
                }
                let bytes = runs.bytes(send.run, send.class);
                (send.slot, &bytes[send.offset as usize..])
            });
            self.ring.send(batch, &mut self.failures);
            let failed = self.failed();
            self.measure(&failed);
            self.work_off(&failed);
            self.batch.sends.clear();
            self.tls.forget_sealed();
            (self.batch.has_outbox, self.batch.has_parts) = (false, false);
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

    /// Which sends of the batch the kernel did not take whole.
    fn failed(&self) -> [bool; SEND_BATCH_MAX] {
        let mut failed = [false; SEND_BATCH_MAX];
        self.failures.iter().for_each(|failure| failed[usize::from(failure.place)] = true);
        failed
    }

    /// Counts how long the deliveries of the batch took: the clock is read once, and sends in a row of one run, which
    /// are the rule, are counted together.
    fn measure(&mut self, failed: &[bool; SEND_BATCH_MAX]) {
        self.batch.sent_us = self.ring.now_us();
        let whole = |at: usize| {
            let send = &self.batch.sends[at];
            (!failed[at] && !send.sealed.is_part(send.bytes)).then_some(send)
        };
        let mut at = 0;
        while at < self.batch.sends.len() {
            let begin = at;
            at += 1;
            let Some(Send { run, messages, .. }) = whole(begin) else { continue };
            while at < self.batch.sends.len()
                && whole(at).is_some_and(|send| send.run == *run && send.messages == *messages)
            {
                at += 1;
            }
            let first = self.runs.messages(*run) - messages;
            self.count_taken(*run, first, *messages, (at - begin) as u64);
        }
    }

    /// So many sends took so many messages of a run with them, from `first` on.
    pub(super) fn count_taken(&self, run: RunIndex, first: u32, messages: u32, sends: u64) {
        for note in self.runs.notes(run, first).take(messages as usize) {
            let taken_us = self.batch.sent_us.saturating_sub(note.dispatched_us());
            self.stats().delivery_us.record_many(taken_us, sends);
            if let Some(age_ms) = note.record_age_ms() {
                self.stats().record_delivery_us.record_many(taken_us + age_ms * 1000, sends);
            }
        }
    }

    fn work_off(&mut self, failed: &[bool; SEND_BATCH_MAX]) {
        for at in 0..self.failures.len() - usize::from(planted(Bug::CompletionLeft) && !self.failures.is_empty()) {
            let failure = self.failures[at];
            let send = self.batch.sends[usize::from(failure.place)];
            match failure.result {
                Ok(taken) if send.sealed.bytes > 0 => self.short_sealed(send, taken),
                Ok(taken) => self.short(send, taken),
                Err(_) => self.broken(send),
            }
        }
        if self.batch.has_outbox || self.batch.has_parts {
            for (at, failed) in failed.iter().enumerate().take(self.batch.sends.len()) {
                let send = self.batch.sends[at];
                if *failed {
                    continue;
                }
                if send.sealed.is_part(send.bytes) {
                    self.short_sealed(send, send.sealed.bytes);
                } else if send.from_outbox {
                    self.front_sent(send);
                }
            }
        }
    }

    /// The kernel took a part: the rest goes to, or stays in, the outbox.
    pub(super) fn short(&mut self, send: Send, taken: u32) {
        let Send { slot, run, offset, bytes, messages, class, from_outbox, .. } = send;
        let all = self.runs.messages(run);
        let done = messages - (all - self.runs.messages_within(run, class, offset + taken)).min(messages);
        let rest = messages - done;
        self.count_taken(run, all - messages, done, 1);
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
        stats.sent_bytes.sub(u64::from(send.wire_bytes()));
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
