//! The end of a connection: one reason, said once, told to the client where the protocol can.
//!
//! `end` decides it: the connection leaves its rooms, gets its last bytes and lingers until it has ended
//! its own side, so that nothing unread turns the close into a reset. `shut` closes the socket; the slot
//! is free when nothing of it is in flight any more (`join`, in `reports`).

use halley_protocol::halley::{Kick, retry_text};
use halley_protocol::operation;
use halley_protocol::packet::Packet;
use halley_protocol::reply;
use halley_protocol::websocket::encode::{CONTROL_BYTES_MAX, close_frame};
use halley_ring::{ArmedPolls, Ring, Slot};

use crate::order::DrainPlan;
use crate::reason::{CloseReason, DropReason};
use crate::sabotage::{Bug, planted};

use super::Shard;
use super::chunks::ChunkIndex;
use super::conn::{Conn, Phase, flag};
use super::flush::Said;
use super::timers;

/// Told to a client that never finished its HTTP request.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Told to a client that comes while the gateway drains.
const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// Told to a client whose network has as many connections as it may have.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 10\r\nContent-Length: 0\r\n\r\n";

/// Longest text of a kick: the longest name of a reason, and when to come back.
const FAREWELL_BYTES_MAX: usize = 64;

impl<R: Ring> Shard<R> {
    /// Ends a connection. The first reason counts; later ones are ignored.
    pub(super) fn end(&mut self, slot: Slot, reason: CloseReason) {
        let Conn { phase, flags, .. } = self.table[slot];
        let held = flags & flag::HELD != 0;
        if !self.decide_end(slot, reason) {
            return;
        }
        if held || is_slow(reason) {
            self.drop_unbegun(slot, DropReason::Closed, u32::MAX);
            self.close_empty_outbox(slot);
        }
        if held {
            // Replies that waited behind the question may leave now.
            self.mark_writable(slot);
        }
        if self.drop_chunk(slot) {
            self.table[slot].set(flag::DEAF);
        }
        self.say_farewell(slot, phase, reason);
        if self.table[slot].phase == Phase::Lingering {
            self.linger(slot, reason);
        }
    }

    /// Ends a connection without a word: it is gone, or something that it should get is lost or torn, and nothing
    /// may follow that.
    pub(super) fn cut(&mut self, slot: Slot, reason: CloseReason) {
        self.decide_end(slot, reason);
        self.shut(slot);
    }

    /// Takes a live connection out of its rooms and notes its reason; `false` when it has one already.
    fn decide_end(&mut self, slot: Slot, reason: CloseReason) -> bool {
        if !matches!(self.table[slot].phase, Phase::Handshake | Phase::Login | Phase::Open) {
            return false;
        }
        self.stats().closes[reason.at()].add(1);
        if !planted(Bug::MemberLeftInRoom) {
            self.rooms.leave_all(&mut self.table, slot);
        }
        let conn = &mut self.table[slot];
        conn.reason = reason as u8;
        conn.phase = Phase::Lingering;
        conn.clear(flag::HELD | flag::PAUSED | flag::PROXIED);
        true
    }

    /// Sets the last deadline, and reads on to find the peer's end.
    fn linger(&mut self, slot: Slot, reason: CloseReason) {
        let linger = self.tick + timers::ticks(self.listener(slot).linger_ms_max);
        let deadline = match self.draining {
            Some(drain) if reason == CloseReason::Drain && self.table[slot].outbox != 0 => drain.deadline,
            _ => linger,
        };
        self.table[slot].deadline = deadline;
        self.wheel.set(&mut self.table, slot, deadline);
        // When its turn among the replies comes, everything said so far has been handed over.
        self.table[slot].set(flag::UNSAID);
        self.queues.push_reply(slot, self.table[slot].generation, Said::All);
        self.mark_ready(slot);
    }

    /// Queues the last bytes, if the client can be told.
    fn say_farewell(&mut self, slot: Slot, phase: Phase, reason: CloseReason) {
        self.reply.clear();
        if self.is_shaking(slot) {
            return self.tls.deafen(slot);
        }
        if phase == Phase::Handshake {
            match reason {
                CloseReason::LoginLate => self.reply.extend_from_slice(REQUEST_TIMEOUT),
                CloseReason::Drain => self.reply.extend_from_slice(UNAVAILABLE),
                CloseReason::NetworkFull => self.reply.extend_from_slice(TOO_MANY),
                // The answer to a refused handshake has been queued already.
                _ => {}
            }
        } else if let Some(code) = reason.code() {
            let mut text = [0; FAREWELL_BYTES_MAX];
            let text = self.farewell_text(slot, reason, &mut text);
            self.write_farewell(slot, code, text);
        }
        if !self.reply.is_empty() {
            self.table[slot].set(flag::TOLD);
            self.queue_reply(slot);
        }
        if reason != CloseReason::TlsRecord {
            self.say_close_notify(slot);
        }
    }

    /// The reason's name, and in a drain when to come back, if that is not at once.
    fn farewell_text<'a>(&self, slot: Slot, reason: CloseReason, text: &'a mut [u8; FAREWELL_BYTES_MAX]) -> &'a str {
        let away_ms = match self.draining {
            Some(drain) if reason == CloseReason::Drain => drain.plan.away_ms(slot.0, self.table.used()),
            _ => 0,
        };
        if away_ms == 0 {
            return reason.name();
        }
        let bytes = retry_text(reason.name(), away_ms, text);
        str::from_utf8(&text[..bytes]).unwrap_or(reason.name())
    }

    /// The kick of a client with Halley's mark, and a WebSocket's close frame.
    fn write_farewell(&mut self, slot: Slot, code: u16, text: &str) {
        if self.table[slot].has(flag::MARKED) {
            let mut body = [0; 4 + FAREWELL_BYTES_MAX];
            let bytes = Kick { code: i32::from(code), text }.write(&mut body);
            let kick = Packet { version: 1, operation: operation::KICK, sequence: 0, body: &body[..bytes] };
            self.write_packet(slot, &kick);
        }
        if self.class(slot).is_websocket() {
            let mut frame = [0; CONTROL_BYTES_MAX];
            let bytes = close_frame(Some(code), text, &mut frame);
            self.reply.extend_from_slice(&frame[..bytes]);
        }
    }

    /// The client has closed its WebSocket: its close frame is answered, and then the socket closed.
    pub(super) fn answer_close(&mut self, slot: Slot, code: Option<u16>) {
        if self.table[slot].phase == Phase::Lingering {
            self.table[slot].set(flag::ENDED);
            self.settle(slot);
            return;
        }
        let mut frame = [0; CONTROL_BYTES_MAX];
        let bytes = close_frame(code, "", &mut frame);
        self.reply.extend_from_slice(&frame[..bytes]);
        self.queue_reply(slot);
        self.table[slot].set(flag::ENDED);
        self.end(slot, CloseReason::PeerClosed);
    }

    /// A lingering connection whose last bytes have left: closed when its peer has ended or was told nothing.
    pub(super) fn settle(&mut self, slot: Slot) {
        let conn = &self.table[slot];
        if conn.phase != Phase::Lingering || conn.outbox != 0 || conn.has(flag::UNSAID) {
            return;
        }
        if !conn.has(flag::TOLD) || conn.has(flag::ENDED) {
            self.shut(slot);
        }
    }

    /// Closes the socket. What still waits is dropped and counted.
    pub(super) fn shut(&mut self, slot: Slot) {
        let phase = self.table[slot].phase;
        if matches!(phase, Phase::Free | Phase::Accepting | Phase::Closing) {
            return;
        }
        self.empty_outbox(slot);
        self.drop_chunk(slot);
        self.end_tls(slot);
        self.forget_network(slot);
        self.wheel.clear(&mut self.table, slot);
        let conn = &mut self.table[slot];
        self.accept_sets.give(std::mem::take(&mut conn.accepts));
        let writable = conn.has(flag::POLL_WRITE) && !planted(Bug::SecondPollLeft);
        let armed = ArmedPolls { readable: conn.has(flag::POLL_READ), writable };
        conn.set(flag::CLOSE);
        conn.phase = Phase::Closing;
        self.ring.close(slot, conn.generation, armed);
    }

    /// Gives the connection's chunk back; whether it had one.
    pub(super) fn drop_chunk(&mut self, slot: Slot) -> bool {
        let Some(chunk) = std::mem::take(&mut self.table[slot].chunk).checked_sub(1) else { return false };
        let (_, state) = self.chunks.parts(ChunkIndex(chunk));
        let held = std::mem::take(&mut state.held);
        self.drop_held(held);
        self.chunks.give(ChunkIndex(chunk));
        true
    }

    /// The connection's timer has fired: a deadline has passed, or only its tick was early.
    pub(super) fn timer_fired(&mut self, slot: Slot) {
        let conn = &self.table[slot];
        let late = self.tick >= conn.deadline + u32::from(planted(Bug::HeartbeatLate));
        let phase = conn.phase;
        match phase {
            Phase::Handshake | Phase::Login if late && self.may_have_spoken(slot) => {
                self.table[slot].deadline = self.tick + 1;
                self.set_timer(slot);
            }
            Phase::Handshake | Phase::Login if late => self.end(slot, CloseReason::LoginLate),
            Phase::Open if late => self.end(slot, CloseReason::HeartbeatMissed),
            Phase::Lingering if late => self.shut(slot),
            Phase::Open if self.tick >= self.due_at(slot) => self.end(slot, CloseReason::Stalled),
            Phase::Handshake | Phase::Login | Phase::Open | Phase::Lingering => self.set_timer(slot),
            Phase::Free | Phase::Accepting | Phase::Closing => {}
        }
    }

    /// Whether something that a late client said may wait for control, for the shard, or in its socket, which is
    /// read once more: then it is not the client that is late.
    fn may_have_spoken(&mut self, slot: Slot) -> bool {
        let conn = &mut self.table[slot];
        if conn.has(flag::READY | flag::WAITS_ASK | flag::WAITS_TURN | flag::ASK) {
            return true;
        }
        let read_again = !conn.has(flag::LAST_READ);
        if read_again {
            conn.set(flag::LAST_READ);
            self.mark_ready(slot);
        }
        read_again
    }

    /// Sets the connection's timer for what is due next.
    pub(super) fn set_timer(&mut self, slot: Slot) {
        let due_at = self.due_at(slot);
        self.wheel.set(&mut self.table, slot, due_at);
    }

    /// Its deadline, or when it has stalled. Who waits for its login or its end cannot stall: its deadline is near.
    fn due_at(&self, slot: Slot) -> u32 {
        let conn = &self.table[slot];
        if conn.phase == Phase::Open && conn.outbox != 0 {
            conn.deadline.min(self.outboxes.stall_at(conn.outbox))
        } else {
            conn.deadline
        }
    }

    /// Begins to drain: no more clients, and those who are there are sent away at the pace of the plan.
    pub(super) fn begin_drain(&mut self, plan: DrainPlan) {
        if self.draining.is_none() {
            self.acceptor.stop(&mut self.ring);
            let deadline = self.tick + timers::ticks(plan.deadline_ms).max(1);
            let (begun, begun_ms) = (self.tick, self.now_ms);
            self.draining = Some(super::Drain { plan, begun, begun_ms, deadline, cursor: 0, reported: false });
        }
    }

    /// Tells some more connections; all that are left when the deadline has come.
    pub(super) fn drain_step(&mut self) {
        /// Connections told in a turn.
        const STEP: u32 = 1024;
        /// Ticks for which pushes taken before the drain go first; steady pushing must not hold it up.
        const PUSHES_FIRST: u32 = 5;
        let Some(mut drain) = self.draining else { return };
        if self.tick >= drain.deadline {
            for slot in (0..self.table.used()).map(Slot) {
                self.cut(slot, CloseReason::Drain);
                self.forget_answers(slot);
            }
        }
        let pushes = self.has_pushes() || self.link.has_pushes();
        if drain.cursor == 0 && pushes && self.tick < drain.begun + PUSHES_FIRST {
            return;
        }
        let until = self.told_by_now(&drain).min(drain.cursor + STEP);
        for slot in (drain.cursor..until).map(Slot) {
            if !self.waits_for_answers(slot) {
                self.end(slot, CloseReason::Drain);
            }
        }
        drain.cursor = drain.cursor.max(until);
        self.draining = Some(drain);
    }

    /// Slots below this are told to go by now.
    fn told_by_now(&self, drain: &super::Drain) -> u32 {
        let used = self.table.used();
        if planted(Bug::EvictedAtOnce) { used } else { drain.plan.due(used, self.now_ms - drain.begun_ms) }
    }

    /// Whether a drain has more connections to tell.
    pub(super) fn is_telling(&self) -> bool {
        self.draining.is_some_and(|drain| drain.cursor < self.told_by_now(&drain))
    }

    pub(super) fn is_drained(&self) -> bool {
        self.draining.is_some_and(|drain| drain.reported)
    }

    /// Writes a packet as this connection reads it.
    pub(super) fn write_packet(&mut self, slot: Slot, packet: &Packet<'_>) {
        append_packet(&mut self.reply, self.table[slot].has(flag::WEBSOCKET), packet);
    }
}

/// Adds a packet to `reply`, on a WebSocket in a frame of its own.
pub(super) fn append_packet(reply: &mut Vec<u8>, websocket: bool, packet: &Packet<'_>) {
    let start = reply.len();
    reply.resize(start + reply::REPLY_BYTES_MAX, 0);
    let write = if websocket { reply::write_websocket } else { reply::write_tcp };
    let bytes = write(packet, &mut reply[start..]);
    reply.truncate(start + bytes);
}

/// Reasons of a client that takes nothing: what has not begun is not worth waiting for.
fn is_slow(reason: CloseReason) -> bool {
    matches!(reason, CloseReason::TooSlow | CloseReason::Stalled | CloseReason::OutboxPool)
}
