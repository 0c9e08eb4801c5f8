//! Receiving over TLS: from records in an inbox to data in the connection's chunk.

use std::ops::Range;

use halley_ring::{Received, RecvRequest, Ring, Slot};

use crate::reason::{CloseReason, Handshake};
use crate::sabotage::{Bug, planted};

use super::super::Shard;
use super::super::chunks::{CHUNK_BYTES, ChunkIndex};
use super::super::conn::{Phase, flag};
use super::super::flush::rewind;
use super::handshake::{self, Step};
use super::inbox::{INBOX_BYTES, InboxIndex};
use super::records::{Content, Fault, HEADER_BYTES, record_bytes};
use super::{HANDSHAKES_PER_TURN_MAX, Records, Stage};

/// Records of one connection that a turn opens: empty ones cost work too.
const RECORDS_PER_TURN_MAX: usize = 128;

/// A whole record of this length holds data: what is none, an alert or new keys, has five bytes at most. What is shorter
/// asks for no answer: a ping of WebSocket has six.
const DATA_RECORD_BYTES_MIN: usize = HEADER_BYTES + 6 + 1 + 16;

/// What the front of an inbox is.
enum Next {
    /// Data for the connection's chunk.
    Data,
    /// A record that holds no data.
    Done,
    /// Not a whole record.
    NeedMore,
    /// The peer says that it will send no more.
    Closed,
    /// The peer says that the connection has failed.
    Broken,
    Failed(Fault),
}

impl<R: Ring> Shard<R> {
    /// Gives handshakes that wait their turn, those that have waited longest first.
    pub(in crate::shard) fn serve_handshakes(&mut self) {
        self.tls.turns = HANDSHAKES_PER_TURN_MAX;
        while self.tls.turns > 0 {
            let Some(slot) = self.tls.waiting.pop_front() else { return };
            if self.table[slot].has(flag::WAITS_TURN) {
                self.tls.turns -= 1;
                self.table[slot].clear(flag::WAITS_TURN);
                self.table[slot].set(flag::HAS_TURN);
                self.mark_ready(slot);
            }
        }
    }

    /// Whether handshakes wait for the next turn.
    pub(in crate::shard) fn has_handshakes(&mut self) -> bool {
        rewind(&mut self.tls.waiting);
        !self.tls.waiting.is_empty()
    }

    /// Whether a handshake may go on in this turn; else it waits for the next, its input in its socket.
    fn takes_turn(&mut self, slot: Slot) -> bool {
        let conn = &mut self.table[slot];
        if conn.has(flag::HAS_TURN) {
            conn.clear(flag::HAS_TURN);
            return true;
        }
        if self.tls.turns > 0 {
            self.tls.turns -= 1;
            return true;
        }
        if !conn.has(flag::WAITS_TURN) {
            conn.set(flag::WAITS_TURN);
            self.tls.waiting.push_back(slot);
        }
        false
    }

    /// Adds a receive for a ready connection to the batch; serves it without one if it has a backlog.
    pub(in crate::shard) fn prepare_tls(&mut self, slot: Slot, reserved: &mut usize) -> Option<(Slot, ChunkIndex)> {
        let waits = if self.is_shaking(slot) && !self.tls.session(slot).deaf {
            !self.takes_turn(slot)
        } else {
            !self.reserve_ask(slot, reserved)
        };
        if waits {
            return None;
        }
        if self.tls.records(slot).is_some_and(|records| records.is_worn()) {
            self.end(slot, CloseReason::TlsWorn);
            if self.table[slot].phase == Phase::Closing {
                return None;
            }
        }
        let inbox = self.inbox(slot);
        if self.has_backlog(slot, inbox) {
            self.serve_tls(slot);
            if self.may_read(slot) && !self.table[slot].has(flag::WAITS_ASK) {
                self.mark_ready(slot);
            }
            return None;
        }
        let start = self.tls.inboxes.range(inbox).start;
        let filled = self.tls.inboxes.state(inbox).filled;
        let bytes = u32::try_from(INBOX_BYTES - filled).unwrap_or(0);
        self.requests.push(RecvRequest { slot, start: start + filled, bytes });
        Some((slot, ChunkIndex(inbox.0)))
    }

    /// The connection's inbox; it gets one if it has none.
    fn inbox(&mut self, slot: Slot) -> InboxIndex {
        if let Some(inbox) = self.tls.session(slot).inbox.checked_sub(1) {
            return InboxIndex(inbox);
        }
        let inbox = self.tls.inboxes.take();
        self.tls.session(slot).inbox = inbox.0 + 1;
        inbox
    }

    /// Whether something can be served before more is received.
    fn has_backlog(&mut self, slot: Slot, inbox: InboxIndex) -> bool {
        if let Some(chunk) = self.table[slot].chunk.checked_sub(1)
            && self.chunks.parts(ChunkIndex(chunk)).1.backlog
        {
            return true;
        }
        let start = self.tls.inboxes.range(inbox).start;
        let state = self.tls.inboxes.state(inbox);
        let rest = &self.chunks.all()[start + state.read.max(state.fed)..start + state.filled];
        let whole = record_bytes(rest).is_some_and(|bytes| bytes <= rest.len());
        state.plain.0 < state.plain.1 || whole
    }

    /// What was received of a TLS connection before anybody knew that it is TLS.
    pub(in crate::shard) fn receive_tls(&mut self, slot: Slot, from: Range<usize>) {
        let inbox = self.inbox(slot);
        let start = self.tls.inboxes.range(inbox).start;
        self.tls.inboxes.state(inbox).filled = from.len();
        self.chunks.all().copy_within(from, start);
        self.keep_or_give_inbox(slot);
    }

    /// A receive of a TLS connection has ended.
    pub(in crate::shard) fn received_tls(&mut self, slot: Slot, inbox: ChunkIndex, received: Received) {
        if self.tls.places[slot.at()] == 0 || self.tls.session(slot).inbox != inbox.0 + 1 {
            // It ended, or lost its inbox, while the batch was worked off.
            return self.poll_readable(slot);
        }
        match received {
            Received::Bytes { bytes, more } => {
                self.tls.inboxes.state(InboxIndex(inbox.0)).filled += bytes as usize;
                if !self.may_say(slot, bytes) {
                    self.table[slot].set(flag::DEAF);
                    self.end(slot, CloseReason::TooFast);
                }
                self.serve_tls(slot);
                if more && self.may_read(slot) {
                    self.mark_ready(slot);
                } else {
                    self.poll_readable(slot);
                }
            }
            Received::Nothing => {
                if self.is_shaking(slot) {
                    self.tls.turns += 1;
                }
                self.keep_or_give_inbox(slot);
                self.poll_readable(slot);
            }
            Received::End => {
                self.keep_or_give_inbox(slot);
                self.peer_ended(slot);
            }
            Received::Broken(_) => self.cut(slot, CloseReason::PeerReset),
        }
    }

    fn peer_ended(&mut self, slot: Slot) {
        self.table[slot].set(flag::ENDED);
        self.end(slot, CloseReason::PeerClosed);
        self.settle(slot);
    }

    /// Serves what lies in the inbox, as far as the connection may be read, and keeps what is left.
    fn serve_tls(&mut self, slot: Slot) {
        // Data that has been moved and not been served: that of several records is, together, and has its replies in one
        // send.
        let mut fed = false;
        for _ in 0..RECORDS_PER_TURN_MAX {
            if !self.may_read(slot) || self.table[slot].has(flag::WAITS_ASK | flag::WAITS_TURN) {
                return self.keep_or_give_inbox(slot);
            }
            if let Some(chunk) = self.table[slot].chunk.checked_sub(1).map(ChunkIndex)
                && std::mem::take(&mut self.chunks.parts(chunk).1.backlog)
            {
                self.serve_chunk(slot, chunk);
            } else if !self.serve_record(slot, &mut fed) {
                return self.keep_or_give_inbox(slot);
            }
            // The chunk has had its share of the turn.
            if let Some(chunk) = self.table[slot].chunk.checked_sub(1)
                && self.chunks.parts(ChunkIndex(chunk)).1.backlog
            {
                return self.keep_or_give_inbox(slot);
            }
        }
        self.serve_fed(slot, &mut fed);
        self.mark_ready(slot);
        self.keep_or_give_inbox(slot);
    }

    /// Serves the front of the inbox; `false` when nothing can be served.
    fn serve_record(&mut self, slot: Slot, fed: &mut bool) -> bool {
        if self.tls.places[slot.at()] == 0 {
            return false;
        }
        if self.tls.session(slot).deaf {
            self.drop_inbox(slot);
            return false;
        }
        let Some(inbox) = self.tls.session(slot).inbox.checked_sub(1).map(InboxIndex) else { return false };
        if self.is_shaking(slot) {
            return self.shake(slot, inbox);
        }
        let next = self.next(slot, inbox);
        if !matches!(next, Next::Data) {
            // It looked like data.
            self.serve_fed(slot, fed);
            if self.tls.places[slot.at()] == 0 {
                return false;
            }
        }
        match next {
            Next::NeedMore => false,
            Next::Done => true,
            Next::Data => {
                self.feed(slot, inbox);
                *fed = true;
                if !self.goes_on(slot, inbox) {
                    self.serve_fed(slot, fed);
                }
                true
            }
            Next::Closed => {
                self.tls.session(slot).deaf = true;
                self.peer_ended(slot);
                false
            }
            Next::Broken => {
                self.cut(slot, CloseReason::PeerReset);
                false
            }
            Next::Failed(fault) => {
                self.fail(slot, fault);
                false
            }
        }
    }

    /// Serves what has been moved to the connection's chunk.
    fn serve_fed(&mut self, slot: Slot, fed: &mut bool) {
        if let Some(chunk) = self.table[slot].chunk.checked_sub(1)
            && std::mem::take(fed)
        {
            self.serve_chunk(slot, ChunkIndex(chunk));
        }
    }

    /// Whether the next record's data fits behind what lies in the chunk, if it is data.
    fn goes_on(&mut self, slot: Slot, inbox: InboxIndex) -> bool {
        let Some(chunk) = self.table[slot].chunk.checked_sub(1).map(ChunkIndex) else { return false };
        let room = CHUNK_BYTES - self.chunks.parts(chunk).1.cursor.filled;
        let start = self.tls.inboxes.range(inbox).start;
        let state = *self.tls.inboxes.state(inbox);
        let rest = &self.chunks.all()[start + state.read..start + state.filled];
        let whole = record_bytes(rest).filter(|bytes| *bytes <= rest.len());
        let is_data = whole.is_some_and(|bytes| rest[0] == 23 && (DATA_RECORD_BYTES_MIN..room).contains(&bytes));
        state.plain.0 == state.plain.1 && is_data && !planted(Bug::RecordServedAlone)
    }

    /// Goes on with the handshake; whether it is complete now.
    fn shake(&mut self, slot: Slot, inbox: InboxIndex) -> bool {
        let range = self.tls.inboxes.range(inbox);
        let state = *self.tls.inboxes.state(inbox);
        let place = self.tls.places[slot.at()] as usize - 1;
        let Stage::Shaking(handshake) = &mut self.tls.sessions[place].stage else { return false };
        let input = &mut self.chunks.all()[range.start + state.read..range.start + state.filled];
        let mut fed = state.fed.max(state.read) - state.read;
        self.tls.said.clear();
        let (done, step) = handshake::step(handshake, input, &mut fed, &mut self.tls.said);
        let after = self.tls.inboxes.state(inbox);
        after.fed = state.read + fed;
        after.read += done;
        let is_full = after.filled - after.read == INBOX_BYTES;
        self.say_handshake(slot);
        if self.table[slot].phase == Phase::Closing {
            return false;
        }
        match step {
            Step::Done => self.open(slot),
            Step::NeedMore if !is_full => false,
            Step::NeedMore | Step::Failed => self.handshake_failed(slot),
        }
    }

    fn handshake_failed(&mut self, slot: Slot) -> bool {
        self.stats().tls_handshakes[Handshake::Failed.at()].add(1);
        self.tls.session(slot).deaf = true;
        self.table[slot].set(flag::TOLD);
        self.end(slot, CloseReason::TlsHandshake);
        false
    }

    /// Queues what the handshake says.
    fn say_handshake(&mut self, slot: Slot) {
        if self.tls.said.is_empty() {
            return;
        }
        match self.runs.handshake(&self.tls.said) {
            Some(run) => self.queue_run(slot, run),
            None => self.cut(slot, CloseReason::OutboxPool),
        }
    }

    /// Takes the keys over from a complete handshake.
    fn open(&mut self, slot: Slot) -> bool {
        let session = self.tls.session(slot);
        let Stage::Shaking(handshake) = std::mem::replace(&mut session.stage, Stage::Free) else { return false };
        let kind = match handshake.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => Handshake::Resumed,
            _ => Handshake::Full,
        };
        let Some(records) = Records::new(*handshake) else { return self.handshake_failed(slot) };
        session.stage = Stage::Open(Box::new(records));
        self.stats().tls_handshakes[kind.at()].add(1);
        self.table[slot].clear(flag::HAS_TURN);
        true
    }

    /// Opens the next record of the inbox, unless data of the one before is left.
    fn next(&mut self, slot: Slot, inbox: InboxIndex) -> Next {
        let start = self.tls.inboxes.range(inbox).start;
        let mut state = *self.tls.inboxes.state(inbox);
        if state.plain.0 < state.plain.1 {
            return Next::Data;
        }
        let rest = &mut self.chunks.all()[start + state.read..start + state.filled];
        let Some(bytes) = record_bytes(rest) else { return Next::NeedMore };
        if bytes > INBOX_BYTES {
            return Next::Failed(Fault::TooLong);
        }
        let Some(record) = rest.get_mut(..bytes) else { return Next::NeedMore };
        let Some(records) = self.tls.records(slot) else { return Next::NeedMore };
        let (content, range) = match records.open(record) {
            Ok(opened) => opened,
            Err(fault) => return Next::Failed(fault),
        };
        let message = &record[range.clone()];
        let next = match content {
            Content::Data => {
                state.plain = (state.read + range.start, state.read + range.end);
                if range.is_empty() { Next::Done } else { Next::Data }
            }
            Content::Handshake => records.handle(message).map_or_else(Next::Failed, |()| Next::Done),
            Content::Alert => match *message {
                [_, 0] => Next::Closed,
                // The peer's user has cancelled; its close follows.
                [_, 90] => Next::Done,
                [_, _] => Next::Broken,
                _ => Next::Failed(Fault::Malformed),
            },
        };
        state.read += bytes;
        *self.tls.inboxes.state(inbox) = state;
        next
    }

    /// Moves data from the inbox to the connection's chunk, as much as fits.
    fn feed(&mut self, slot: Slot, inbox: InboxIndex) {
        let chunk = if let Some(chunk) = self.table[slot].chunk.checked_sub(1) {
            ChunkIndex(chunk)
        } else {
            let chunk = self.chunks.take();
            self.table[slot].chunk = chunk.0 + 1;
            chunk
        };
        let start = self.tls.inboxes.range(inbox).start;
        let filled = self.chunks.parts(chunk).1.cursor.filled;
        let state = self.tls.inboxes.state(inbox);
        let from = state.plain.0;
        let bytes = (state.plain.1 - from).min(CHUNK_BYTES - filled);
        state.plain.0 += bytes;
        let into = super::Chunks::start(chunk) + filled;
        self.chunks.all().copy_within(start + from..start + from + bytes, into);
        self.chunks.parts(chunk).1.cursor.filled += bytes;
    }

    /// The peer has broken the protocol: it is told how, and not listened to any more.
    fn fail(&mut self, slot: Slot, fault: Fault) {
        self.tls.session(slot).deaf = true;
        self.drop_inbox(slot);
        if self.table[slot].phase == Phase::Lingering {
            return;
        }
        self.reply.clear();
        self.say_alert(slot, [2, fault as u8]);
        self.table[slot].set(flag::TOLD);
        self.end(slot, CloseReason::TlsRecord);
    }

    /// Keeps an inbox in which something is unfinished with its connection; else gives it back.
    fn keep_or_give_inbox(&mut self, slot: Slot) {
        if self.tls.places[slot.at()] == 0 {
            return;
        }
        let Some(inbox) = self.tls.session(slot).inbox.checked_sub(1).map(InboxIndex) else { return };
        let range = self.tls.inboxes.range(inbox);
        let state = self.tls.inboxes.state(inbox);
        if state.is_empty() {
            return self.drop_inbox(slot);
        }
        let front = if state.plain.0 < state.plain.1 { state.plain.0 } else { state.read };
        if front > 0 {
            self.chunks.all().copy_within(range.start + front..range.start + state.filled, range.start);
            state.plain = (state.plain.0.saturating_sub(front), state.plain.1.saturating_sub(front));
            state.read -= front;
            state.filled -= front;
            state.fed = state.fed.saturating_sub(front);
        }
        if let Some(oldest) = self.tls.inboxes.keep(inbox, slot) {
            self.end(oldest, CloseReason::PartialPool);
            if self.tls.places[oldest.at()] != 0 {
                // Without the bytes that are lost nothing that comes can be opened.
                self.tls.session(oldest).deaf = true;
                self.drop_inbox(oldest);
            }
        }
    }

    fn drop_inbox(&mut self, slot: Slot) {
        if let Some(inbox) = std::mem::take(&mut self.tls.session(slot).inbox).checked_sub(1) {
            self.tls.inboxes.give(InboxIndex(inbox));
        }
    }
}
