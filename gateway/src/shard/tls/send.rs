//! Sending over TLS: a send is sealed when it is put into its batch.
//!
//! What waits in an outbox is not sealed before its turn. What has been sealed and not taken goes first and unchanged,
//! since its records are numbered: it becomes a run of its own, which nobody drops.

use halley_ring::{Ring, Slot};

use crate::payload::Note;
use crate::reason::{CloseReason, DropReason};

use super::super::Shard;
use super::super::batch::Send;
use super::super::conn::flag;
use super::super::flush::Said;
use super::super::runs::RunIndex;
use super::records::SEAL_PLAIN_BYTES_MAX;

/// Where a send lies sealed in its batch. Nothing: it goes as it is.
#[derive(Clone, Copy, Default)]
pub(in crate::shard) struct Sealed {
    start: u32,
    pub(in crate::shard) bytes: u32,
    /// How much of the send it holds.
    plain: u32,
    /// Bytes before the first record of data.
    lead: u32,
}

impl Sealed {
    /// Whether something of the send has yet to be sealed.
    pub(in crate::shard) fn is_part(&self, send_bytes: u32) -> bool {
        self.bytes > 0 && self.plain < send_bytes
    }
}

/// A batch's sealed records.
pub(in crate::shard) fn bytes_of<'a>(sealed: &'a [u8], at: &Sealed) -> &'a [u8] {
    &sealed[at.start as usize..(at.start + at.bytes) as usize]
}

fn short(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl<R: Ring> Shard<R> {
    /// Seals a send of a TLS connection, if it is not sealed already.
    pub(in crate::shard) fn seal(&mut self, send: &Send) -> Sealed {
        let Some(content) = self.runs.content(send.run) else { return Sealed::default() };
        let place = self.tls.places[send.slot.at()] as usize - 1;
        let super::Stage::Open(records) = &mut self.tls.sessions[place].stage else {
            unreachable!("before the handshake is complete nothing is said")
        };
        let bytes = &self.runs.bytes(send.run, send.class)[send.offset as usize..];
        let plain = &bytes[..bytes.len().min(SEAL_PLAIN_BYTES_MAX)];
        let start = self.tls.sealed.len();
        let lead = records.seal(content, plain, &mut self.tls.sealed);
        let (plain, is_worn) = (short(plain.len()), records.is_worn());
        if is_worn {
            self.mark_ready(send.slot);
        }
        Sealed { start: short(start), bytes: short(self.tls.sealed.len() - start), plain, lead: short(lead) }
    }

    /// Of a sealed send the kernel took so many bytes, or all and the send goes on: what is left of it waits, sealed
    /// bytes first.
    pub(in crate::shard) fn short_sealed(&mut self, send: Send, taken: u32) {
        let Send { slot, run, offset, bytes, messages, class, from_outbox, sealed } = send;
        let all = self.runs.messages(run);
        let within = |runs: &super::super::runs::Runs, upto: u32| {
            messages - (all - runs.messages_within(run, class, offset + upto)).min(messages)
        };
        let begun = within(&self.runs, sealed.plain);
        let readable = self
            .tls
            .records(slot)
            .map_or(0, |records| records.readable(taken as usize, sealed.lead as usize, sealed.plain as usize));
        let gone = within(&self.runs, short(readable));
        self.count_taken(run, all - messages, gone, 1);
        let note = self.runs.notes(run, all - messages + gone).next().unwrap_or_default();
        let stats = &self.link.stats;
        stats.sent.sub(u64::from(messages - gone));
        stats.sent_bytes.sub(u64::from(sealed.bytes - taken));
        let stall_at = self.stall_at(slot);
        let rest = messages - begun;
        if from_outbox {
            stats.queued.add(u64::from(rest));
            let outbox = self.table[slot].outbox;
            if sealed.plain == bytes {
                self.outboxes.pop(outbox, bytes);
                self.runs.unpin(run);
            } else {
                self.outboxes.advance(outbox, sealed.plain, begun);
            }
            if taken > 0 {
                self.outboxes.set_stall_at(outbox, stall_at);
            }
        } else {
            self.open_outbox(slot);
            let outbox = self.table[slot].outbox;
            if sealed.plain < bytes && !self.hold(outbox, run, offset + sealed.plain, bytes - sealed.plain, rest) {
                self.count_dropped(DropReason::Closed, messages - gone);
                return self.cut(slot, CloseReason::OutboxPool);
            }
        }
        if taken == sealed.bytes {
            return self.mark_writable(slot);
        }
        let first = sealed.start + taken..sealed.start + sealed.bytes;
        if self.hold_sealed(slot, first, begun - gone, note) {
            self.poll_writable(slot);
        } else {
            self.count_dropped(DropReason::Closed, begun - gone);
            self.cut(slot, CloseReason::OutboxPool);
        }
    }

    /// Puts sealed bytes before everything that waits for the connection.
    fn hold_sealed(&mut self, slot: Slot, range: std::ops::Range<u32>, messages: u32, note: Note) -> bool {
        let bytes = &self.tls.sealed[range.start as usize..range.end as usize];
        let Some(run) = self.runs.sealed(bytes, messages, note) else { return false };
        let outbox = self.table[slot].outbox;
        let pinned = self.runs.pin(run);
        let held = pinned && self.outboxes.put_begun(outbox, run, range.end - range.start, messages);
        if pinned && !held {
            self.runs.unpin(run);
        }
        self.runs.release(run);
        if held {
            self.stats().queued.add(u64::from(messages));
        }
        held
    }

    /// Queues a run among the connection's replies.
    pub(super) fn queue_run(&mut self, slot: Slot, run: RunIndex) {
        self.queues.push_reply(slot, self.table[slot].generation, Said::Run(run));
    }

    /// Queues an alert behind the connection's replies.
    pub(in crate::shard) fn say_alert(&mut self, slot: Slot, alert: [u8; 2]) {
        match self.runs.alert(alert) {
            Some(run) => self.queue_run(slot, run),
            None => self.cut(slot, CloseReason::OutboxPool),
        }
    }

    /// Says, behind everything else, that nothing more follows.
    pub(in crate::shard) fn say_close_notify(&mut self, slot: Slot) {
        if self.table[slot].has(flag::TLS) && !self.is_shaking(slot) {
            self.say_alert(slot, [1, 0]);
        }
    }
}
