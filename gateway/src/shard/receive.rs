//! Receiving: batches of receives into scratch, decoding, and what stays of unfinished packets.

use std::ops::Range;

use halley_protocol::packet::{self, PacketReject};
use halley_protocol::v1;
use halley_protocol::websocket::encode::{CONTROL_BYTES_MAX, control_frame};
use halley_protocol::websocket::frame::{Event, FrameLimits, FrameReject};
use halley_protocol::websocket::handshake::{self, HandshakeReject, Rules};
use halley_protocol::websocket::{MessageKind, Opcode};
use halley_ring::{RECV_BATCH_MAX, Received, RecvRequest, Ring, Slot};

use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

use super::chunks::{CHUNK_BYTES, ChunkIndex, Chunks, FRAME_LIMITS};
use super::conn::{Phase, flag};
use super::echo::Echo;
use super::flush::rewind;
use super::requests::{PER_TURN_MAX, Request};
use super::{Dialect, RECVS_PER_TURN_MAX, Shard};

/// What decoding found next.
pub(super) enum Input {
    Request(Request),
    /// A packet that came compressed; its body lies in the chunk for what is inflated.
    Inflated(Request),
    /// A piece of a message that is to be echoed.
    Echo(Echo),
    Ping(Range<usize>),
    /// A pong, or a message of a connection that no longer matters.
    Nothing,
    Upgraded(Dialect),
    Closed(Option<u16>),
    /// No whole packet is left.
    NeedMore,
}

impl<R: Ring> Shard<R> {
    /// Reads the connections that were ready when the turn began, each once; whether some are left.
    pub(super) fn receive(&mut self) -> bool {
        self.serve_ask_waiters();
        self.serve_handshakes();
        let mut left = self.ready.len().min(RECVS_PER_TURN_MAX);
        while left > 0 {
            self.requests.clear();
            let mut batch = [(Slot(0), ChunkIndex(0)); RECV_BATCH_MAX];
            let mut reserved = 0;
            while left > 0 && self.requests.len() < RECV_BATCH_MAX {
                left -= 1;
                let Some(slot) = self.ready.pop_front() else { break };
                if let Some(entry) = self.prepare(slot, &mut reserved) {
                    batch[self.requests.len() - 1] = entry;
                }
            }
            if self.requests.is_empty() {
                continue;
            }
            self.ring.recv(self.chunks.all(), &self.requests, &mut self.received);
            for (at, (slot, chunk)) in batch.iter().enumerate().take(self.requests.len()) {
                self.received(*slot, *chunk, self.received[at]);
            }
        }
        rewind(&mut self.ready);
        rewind(&mut self.wait_ask);
        self.has_handshakes() || !self.ready.is_empty() || !(self.wait_ask.is_empty() || self.asks.is_empty())
    }

    /// Adds a receive for a ready connection to the batch; serves it without one if it has a backlog.
    fn prepare(&mut self, slot: Slot, reserved: &mut usize) -> Option<(Slot, ChunkIndex)> {
        let conn = &mut self.table[slot];
        if !conn.has(flag::READY) {
            return None;
        }
        conn.clear(flag::READY);
        if !self.may_read(slot) {
            return None;
        }
        if self.speaks_tls(slot) {
            return self.prepare_tls(slot, reserved);
        }
        if !self.reserve_ask(slot, reserved) {
            return None;
        }
        let chunk = if let Some(chunk) = self.table[slot].chunk.checked_sub(1) {
            ChunkIndex(chunk)
        } else {
            let chunk = self.chunks.take();
            self.table[slot].chunk = chunk.0 + 1;
            chunk
        };
        let (_, state) = self.chunks.parts(chunk);
        if std::mem::take(&mut state.backlog) {
            self.serve_chunk(slot, chunk);
            // More may be in the socket than in the chunk: whoever is not held up reads on.
            if self.may_read(slot) {
                self.mark_ready(slot);
            }
            return None;
        }
        let filled = state.cursor.filled;
        let bytes = u32::try_from(CHUNK_BYTES - filled).unwrap_or(0);
        self.requests.push(RecvRequest { slot, start: Chunks::start(chunk) + filled, bytes });
        Some((slot, chunk))
    }

    /// Whether what comes is TLS: the header of a proxy is before it.
    fn speaks_tls(&self, slot: Slot) -> bool {
        let conn = &self.table[slot];
        conn.has(flag::TLS) && !conn.has(flag::PROXIED)
    }

    /// The next packet of a connection may be a question to control: it is not read before a buffer is there for it, or
    /// the packet would have to be kept in a chunk meanwhile.
    pub(super) fn reserve_ask(&mut self, slot: Slot, reserved: &mut usize) -> bool {
        if self.table[slot].phase == Phase::Lingering || self.table[slot].has(flag::ECHO) {
            return true;
        }
        if *reserved >= self.asks.len() {
            self.wait_for_ask(slot);
            return false;
        }
        *reserved += 1;
        true
    }

    /// Whether the connection's input is wanted now.
    pub(super) fn may_read(&self, slot: Slot) -> bool {
        let conn = &self.table[slot];
        matches!(conn.phase, Phase::Handshake | Phase::Login | Phase::Open | Phase::Lingering)
            && !(conn.has(flag::ASK) && conn.phase != Phase::Lingering)
            && !conn.has(flag::PAUSED)
    }

    fn wait_for_ask(&mut self, slot: Slot) {
        if !self.table[slot].has(flag::WAITS_ASK) {
            self.table[slot].set(flag::WAITS_ASK);
            self.wait_ask.push_back(slot);
        }
    }

    /// For every buffer that is free somebody who waits for one is read. Not all of them will ask: whoever is left
    /// has the next turn.
    fn serve_ask_waiters(&mut self) {
        let mut free = self.asks.len();
        while free > 0 {
            let Some(slot) = self.wait_ask.pop_front() else { return };
            if self.table[slot].has(flag::WAITS_ASK) {
                self.table[slot].clear(flag::WAITS_ASK);
                self.mark_ready(slot);
                free -= 1;
            }
        }
    }

    fn received(&mut self, slot: Slot, chunk: ChunkIndex, received: Received) {
        if self.speaks_tls(slot) {
            return self.received_tls(slot, chunk, received);
        }
        if !self.owns(slot, chunk) {
            // It ended while the batch was worked off.
            return self.poll_readable(slot);
        }
        match received {
            Received::Bytes { bytes, more } => {
                let (_, state) = self.chunks.parts(chunk);
                state.cursor.filled += bytes as usize;
                if !self.may_say(slot, bytes) {
                    self.end_deaf(slot, CloseReason::TooFast);
                } else if !self.table[slot].has(flag::PROXIED) || self.take_header(slot, chunk) {
                    self.serve_chunk(slot, chunk);
                }
                if more && self.may_read(slot) {
                    self.mark_ready(slot);
                } else {
                    self.poll_readable(slot);
                }
            }
            Received::Nothing => {
                self.keep_or_give(slot, chunk);
                self.poll_readable(slot);
            }
            Received::End => {
                self.keep_or_give(slot, chunk);
                self.table[slot].set(flag::ENDED);
                self.end(slot, CloseReason::PeerClosed);
                self.settle(slot);
            }
            Received::Broken(_) => self.cut(slot, CloseReason::PeerReset),
        }
    }

    pub(super) fn poll_readable(&mut self, slot: Slot) {
        const COMES_BY_ITSELF: u32 = flag::READY | flag::WAITS_ASK | flag::WAITS_TURN;
        if self.may_read(slot) && !self.table[slot].has(COMES_BY_ITSELF | flag::POLL_READ | flag::ENDED) {
            let conn = &mut self.table[slot];
            conn.set(flag::POLL_READ);
            self.ring.poll_readable(slot, conn.generation);
        }
    }

    /// Serves what lies in the chunk, and keeps what is left.
    pub(super) fn serve_chunk(&mut self, slot: Slot, chunk: ChunkIndex) {
        if self.table[slot].has(flag::DEAF) {
            self.look_for_close(slot, chunk);
            return;
        }
        self.reply.clear();
        let outcome = self.serve_packets(slot, chunk);
        self.queue_reply(slot);
        if let Err(reason) = outcome {
            self.end_deaf(slot, reason);
        } else if self.owns(slot, chunk) {
            self.compact(slot, chunk);
            self.keep_or_give(slot, chunk);
        }
        if self.is_over_its_outbox(slot) {
            self.table[slot].set(flag::PAUSED);
        }
    }

    /// Ends a connection that is not listened to any more.
    pub(super) fn end_deaf(&mut self, slot: Slot, reason: CloseReason) {
        self.drop_chunk(slot);
        self.table[slot].set(flag::DEAF);
        self.end(slot, reason);
    }

    /// Counts bytes that a client has said; `false`: more than it may. Who goes already may say what it likes.
    pub(super) fn may_say(&mut self, slot: Slot, bytes: u32) -> bool {
        let rates = self.listener(slot).client_rates;
        self.table[slot].phase == Phase::Lingering || self.pace.bytes(slot, rates, self.now_ms, bytes)
    }

    /// Counts what a client has said.
    fn count_said(&mut self, slot: Slot, input: &Input) -> Result<(), CloseReason> {
        let counts = match input {
            Input::Request(_) | Input::Inflated(_) | Input::Ping(_) | Input::Nothing => true,
            Input::Echo(echo) => echo.is_last(),
            Input::Upgraded(_) | Input::Closed(_) | Input::NeedMore => false,
        };
        let rates = self.listener(slot).client_rates;
        if !counts || self.table[slot].phase == Phase::Lingering || self.pace.packet(slot, rates, self.now_ms) {
            return Ok(());
        }
        Err(CloseReason::TooFast)
    }

    /// A connection whose input cannot be decoded any more has been told so. Its client's next word is most
    /// often a close frame: then the socket need not wait for the end of the stream.
    fn look_for_close(&mut self, slot: Slot, chunk: ChunkIndex) {
        let websocket = self.table[slot].has(flag::WEBSOCKET);
        let (bytes, state) = self.chunks.parts(chunk);
        let close = matches!(bytes[..state.cursor.filled], [0x88, length, ..] if length & 0x80 != 0);
        self.drop_chunk(slot);
        if websocket && close {
            self.table[slot].set(flag::ENDED);
            self.settle(slot);
        }
    }

    /// Serves whole packets until none is left, the connection must wait, or its share of the turn is used up.
    fn serve_packets(&mut self, slot: Slot, chunk: ChunkIndex) -> Result<(), CloseReason> {
        for _ in 0..PER_TURN_MAX {
            let may_ask =
                matches!(self.table[slot].phase, Phase::Login | Phase::Open) && !self.table[slot].has(flag::ECHO);
            if may_ask && self.asks.is_empty() {
                self.wait_for_ask(slot);
                break;
            }
            if self.table[slot].has(flag::ASK) {
                break;
            }
            let input = self.decode(slot, chunk)?;
            self.count_said(slot, &input)?;
            match input {
                Input::NeedMore => return Ok(()),
                Input::Nothing => {}
                Input::Request(request) => self.serve(slot, chunk, &request)?,
                Input::Inflated(request) => self.serve(slot, self.chunks.inflated(), &request)?,
                Input::Ping(payload) => self.pong(slot, chunk, payload),
                Input::Echo(echo) => self.echo(slot, chunk, echo)?,
                Input::Upgraded(Dialect::GoimV2) => self.table[slot].phase = Phase::Login,
                Input::Upgraded(Dialect::GoimV1) => {
                    self.table[slot].phase = Phase::Login;
                    self.table[slot].set(flag::V1);
                }
                Input::Upgraded(Dialect::Echo) => self.begin_echo(slot),
                Input::Closed(code) => self.answer_close(slot, code),
            }
            if !self.owns(slot, chunk) {
                return Ok(());
            }
        }
        let (_, state) = self.chunks.parts(chunk);
        // With nothing left the chunk need not wait with the connection.
        state.backlog = state.cursor.read < state.cursor.filled && !planted(Bug::PacketsLeft);
        if state.backlog && self.may_read(slot) && !self.table[slot].has(flag::WAITS_ASK) {
            self.mark_ready(slot);
        }
        Ok(())
    }

    /// Whether more waits for the connection than it may have: then it is not read, and gets no replies.
    fn is_over_its_outbox(&self, slot: Slot) -> bool {
        let conn = &self.table[slot];
        matches!(conn.phase, Phase::Login | Phase::Open)
            && conn.outbox != 0
            && (conn.has(flag::ECHO) || self.outboxes.bytes(conn.outbox) >= self.listener(slot).outbox_bytes_max)
    }

    /// Decodes the next thing in the chunk.
    fn decode(&mut self, slot: Slot, chunk: ChunkIndex) -> Result<Input, CloseReason> {
        match self.table[slot].phase {
            Phase::Handshake => self.decode_handshake(slot, chunk),
            _ if self.table[slot].has(flag::ECHO) => self.decode_echo(chunk),
            _ if self.table[slot].has(flag::WEBSOCKET) => self.decode_frame(slot, chunk),
            _ => self.decode_packet(chunk, self.packet_bytes_max(slot)),
        }
    }

    fn packet_bytes_max(&self, slot: Slot) -> usize {
        if self.table[slot].has(flag::V1) { v1::PACKET_BYTES_MAX } else { packet::PACKET_BYTES_MAX }
    }

    fn decode_packet(&mut self, chunk: ChunkIndex, bytes_max: usize) -> Result<Input, CloseReason> {
        let (bytes, state) = self.chunks.parts(chunk);
        let cursor = &mut state.cursor;
        match packet::decode_within(&bytes[cursor.read..cursor.filled], bytes_max) {
            Ok(None) => Ok(Input::NeedMore),
            Ok(Some(packet)) => {
                let end = cursor.read + packet.bytes();
                let body = cursor.read + packet::HEADER_BYTES..end;
                cursor.read = end;
                Ok(Input::Request(Request::new(&packet, body)))
            }
            Err(reject) => Err(packet_reason(reject)),
        }
    }

    fn decode_frame(&mut self, slot: Slot, chunk: ChunkIndex) -> Result<Input, CloseReason> {
        let packet_bytes_max = self.packet_bytes_max(slot);
        let limits = FrameLimits { deflate: self.table[slot].has(flag::DEFLATE), ..FRAME_LIMITS };
        let (bytes, state) = self.chunks.parts(chunk);
        let event = state.frames.next(limits, bytes, &mut state.cursor).map_err(frame_reason)?;
        match event {
            None => Ok(Input::NeedMore),
            Some(Event::Pong) => Ok(Input::Nothing),
            Some(Event::Ping { range }) => Ok(Input::Ping(range)),
            Some(Event::Close { code }) => Ok(Input::Closed(code)),
            Some(Event::Message { kind, range, deflated: false }) => {
                let request = request(bytes, kind, range, packet_bytes_max)?;
                Ok(Input::Request(request))
            }
            Some(Event::Message { kind, range, deflated: true }) => self.inflate(chunk, kind, range),
        }
    }

    /// Inflates a message, which goes on like one that came plain.
    fn inflate(&mut self, chunk: ChunkIndex, kind: MessageKind, range: Range<usize>) -> Result<Input, CloseReason> {
        let stats = &self.link.stats;
        stats.inflated.add(1);
        stats.inflate_in_bytes.add(range.len() as u64);
        let length = self.chunks.inflate(chunk, range).map_err(frame_reason)?;
        stats.inflate_out_bytes.add(length as u64);
        let (bytes, _) = self.chunks.parts(self.chunks.inflated());
        if kind == MessageKind::Text && std::str::from_utf8(&bytes[..length]).is_err() {
            return Err(CloseReason::FrameNotUtf8);
        }
        Ok(Input::Inflated(request(bytes, kind, 0..length, packet::PACKET_BYTES_MAX)?))
    }

    fn decode_handshake(&mut self, slot: Slot, chunk: ChunkIndex) -> Result<Input, CloseReason> {
        let listener = &self.settings.listeners[usize::from(self.table[slot].listener)];
        let (bytes, state) = self.chunks.parts(chunk);
        let request = &bytes[..state.cursor.filled];
        let judge = |(path, dialect): &(String, Dialect)| {
            let deflate = listener.compression && *dialect == Dialect::GoimV2;
            let rules = Rules { path, origins: &listener.origins, deflate };
            (handshake::parse(request, &rules), *dialect)
        };
        let mut paths = listener.paths.iter().map(judge);
        let (judged, dialect) = paths
            .find(|(judged, _)| *judged != Err(HandshakeReject::Path))
            .unwrap_or((Err(HandshakeReject::Path), Dialect::GoimV2));
        match judged {
            Ok(None) => Ok(Input::NeedMore),
            Ok(Some(upgrade)) => {
                state.cursor.read = upgrade.head_bytes;
                self.take_forwarded(slot, chunk, upgrade.head_bytes)?;
                let mut response = [0; handshake::ANSWER_BYTES];
                let bytes = handshake::answer(&upgrade, &mut response);
                self.reply.extend_from_slice(&response[..bytes]);
                if upgrade.deflate.is_some() {
                    self.table[slot].set(flag::DEFLATE);
                    self.link.stats.deflating.add(1);
                }
                Ok(Input::Upgraded(dialect))
            }
            Err(reject) => {
                // Whoever has sent nothing but a request reads the answer to its end; over anything else a
                // close could become a reset.
                if !bytes[..state.cursor.filled].ends_with(b"\r\n\r\n") {
                    self.table[slot].set(flag::TOLD);
                }
                self.reply.extend_from_slice(reject.response());
                Err(CloseReason::HandshakeRefused)
            }
        }
    }

    fn pong(&mut self, slot: Slot, chunk: ChunkIndex, payload: Range<usize>) {
        if self.table[slot].phase == Phase::Lingering {
            return;
        }
        let (bytes, _) = self.chunks.parts(chunk);
        let mut frame = [0; CONTROL_BYTES_MAX];
        let length = control_frame(Opcode::Pong, &bytes[payload], &mut frame);
        self.reply.extend_from_slice(&frame[..length]);
    }

    /// Moves what is left of the chunk to its front.
    fn compact(&mut self, slot: Slot, chunk: ChunkIndex) {
        let websocket = self.table[slot].has(flag::WEBSOCKET) && self.table[slot].phase != Phase::Handshake;
        let (bytes, state) = self.chunks.parts(chunk);
        if self.table[slot].has(flag::ECHO) {
            state.pieces.compact(bytes, &mut state.cursor);
        } else if websocket {
            state.frames.compact(bytes, &mut state.cursor);
        } else if state.cursor.read > 0 {
            bytes.copy_within(state.cursor.read..state.cursor.filled, 0);
            state.cursor.filled -= state.cursor.read;
            state.cursor.read = 0;
        }
    }

    /// Whether the connection still has the chunk that it was given for reading.
    fn owns(&self, slot: Slot, chunk: ChunkIndex) -> bool {
        self.table[slot].chunk == chunk.0 + 1
    }

    /// Keeps a chunk in which something is unfinished with its connection; else gives it back.
    pub(super) fn keep_or_give(&mut self, slot: Slot, chunk: ChunkIndex) {
        let (_, state) = self.chunks.parts(chunk);
        if !state.backlog && (!state.is_unfinished() || planted(Bug::PartialForgotten)) {
            self.drop_chunk(slot);
        } else if let Some(oldest) = self.chunks.keep(chunk, slot) {
            self.end(oldest, CloseReason::PartialPool);
            // Who lingers has its reason already, and loses only its chunk.
            if self.drop_chunk(oldest) {
                self.table[oldest].set(flag::DEAF);
            }
        }
    }
}

/// The packet of a message that lies in `bytes[range]`.
fn request(bytes: &[u8], kind: MessageKind, range: Range<usize>, bytes_max: usize) -> Result<Request, CloseReason> {
    let packet = packet::decode_message_within(&bytes[range.clone()], bytes_max);
    let packet = packet.map_err(|reject| match kind {
        MessageKind::Text => CloseReason::FrameWrongType,
        MessageKind::Binary => packet_reason(reject),
    })?;
    let start = range.start + packet::HEADER_BYTES;
    Ok(Request::new(&packet, start..start + packet.body.len()))
}

fn packet_reason(reject: PacketReject) -> CloseReason {
    match reject {
        PacketReject::TooLong => CloseReason::PacketTooBig,
        PacketReject::TooShort | PacketReject::HeaderLength | PacketReject::BeyondMessage => {
            CloseReason::PacketMalformed
        }
    }
}

pub(super) fn frame_reason(reject: FrameReject) -> CloseReason {
    match reject.close_code() {
        _ if reject == FrameReject::NotDeflate => CloseReason::FrameNotDeflate,
        1007 => CloseReason::FrameNotUtf8,
        1009 => CloseReason::FrameTooBig,
        _ => CloseReason::FrameMalformed,
    }
}
