//! Blocked connections: what waits in their outboxes, what their policy drops, and when they are free again.

use halley_ring::{Ring, Slot};

use crate::reason::{CloseReason, DropReason};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::conn::{Phase, flag};
use super::runs::RunIndex;
use super::settings::SlowPolicy;
use super::timers;

impl<R: Ring> Shard<R> {
    pub(super) fn stall_at(&self, slot: Slot) -> u32 {
        self.tick + timers::ticks(self.listener(slot).stall_ms_max).max(1)
    }

    pub(super) fn poll_writable(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        if !conn.has(flag::POLL_WRITE) {
            conn.set(flag::POLL_WRITE);
            self.ring.poll_writable(slot, conn.generation);
        }
    }

    /// The connection takes everything again.
    pub(super) fn unblocked(&mut self, slot: Slot) {
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

    pub(super) fn open_outbox(&mut self, slot: Slot) {
        if self.table[slot].outbox == 0 {
            let stall_at = self.stall_at(slot);
            self.table[slot].outbox = self.outboxes.open(stall_at);
            self.stats().blocked.add(1);
            if stall_at < self.table[slot].timer_at && !planted(Bug::StallUnnoticed) {
                self.wheel.set(&mut self.table, slot, stall_at);
            }
        }
    }

    pub(super) fn close_outbox(&mut self, slot: Slot) {
        let outbox = std::mem::take(&mut self.table[slot].outbox);
        self.outboxes.close(outbox);
        self.stats().blocked.sub(1);
    }

    /// Puts what remains of a run behind an outbox; `false` when the shard's memory for this is used up.
    pub(super) fn hold(&mut self, outbox: u32, run: RunIndex, offset: u32, bytes: u32, messages: u32) -> bool {
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
    pub(super) fn append(&mut self, slot: Slot, run: RunIndex) {
        self.open_outbox(slot);
        let outbox = self.table[slot].outbox;
        let messages = self.runs.messages(run);
        let bytes = self.bytes_of(run, self.class(slot));
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
    pub(super) fn make_room(&mut self, slot: Slot, bytes: u32, messages: u32) -> bool {
        let outbox = self.table[slot].outbox;
        let bytes_max = self.listener(slot).outbox_bytes_max;
        let fits = |waiting: u32| waiting == 0 || waiting.saturating_add(bytes) <= bytes_max;
        if fits(self.outboxes.bytes(outbox)) {
            return true;
        }
        match self.listener(slot).slow_policy {
            SlowPolicy::DropNewest if planted(Bug::DropUncounted) => false,
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
        let class = self.class(slot);
        while bytes_max == u32::MAX || self.outboxes.bytes(outbox) > bytes_max {
            let runs = &self.runs;
            let length = |run| u32::try_from(runs.bytes(run, class).len()).unwrap_or(u32::MAX);
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
        let class = self.class(slot);
        while let Some(front) = self.outboxes.front(outbox) {
            let bytes = self.bytes_of(front.run, class) - front.offset;
            self.outboxes.pop(outbox, bytes);
            self.stats().queued.sub(u64::from(front.messages));
            self.count_dropped(DropReason::Closed, front.messages);
            self.runs.unpin(front.run);
        }
        self.close_outbox(slot);
    }
}
