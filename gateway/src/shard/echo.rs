//! Echo connections: every message comes back as it was, so that tools can be pointed at the WebSocket layer.
//!
//! A message of one piece is answered like a request. A longer one is held until its end, because a client may
//! send all of it before it reads; its pieces wait in an outbox of its own, under a bound that is
//! theirs alone. Whoever does not take its echo is not read.

use std::ops::Range;

use halley_protocol::websocket::encode::{FRAME_HEADER_BYTES_MAX, frame_header};
use halley_protocol::websocket::pieces::Piece;
use halley_protocol::websocket::{MessageKind, Opcode};
use halley_ring::{Ring, Slot};

use crate::limits::ECHO_MESSAGE_BYTES_MAX;
use crate::reason::CloseReason;

use super::Shard;
use super::chunks::ChunkIndex;
use super::conn::{Class, Phase, flag};
use super::flush::Said;
use super::receive::{Input, frame_reason};
use super::timers;

/// A piece of a message in the connection's chunk.
pub(super) struct Echo {
    kind: MessageKind,
    range: Range<usize>,
    before: u32,
    last: bool,
}

impl Echo {
    /// Whether its message ends with it.
    pub(super) fn is_last(&self) -> bool {
        self.last
    }
}

impl<R: Ring> Shard<R> {
    /// The connection has asked for the path of the echo: nobody else hears of it.
    pub(super) fn begin_echo(&mut self, slot: Slot) {
        let conn = &mut self.table[slot];
        conn.phase = Phase::Open;
        conn.set(flag::ECHO);
        self.heard_echo(slot);
        self.set_timer(slot);
    }

    /// Anything that it says keeps an echo connection.
    fn heard_echo(&mut self, slot: Slot) {
        self.table[slot].deadline = self.tick + timers::ticks(self.listener(slot).heartbeat_ms_max);
    }

    pub(super) fn decode_echo(&mut self, chunk: ChunkIndex) -> Result<Input, CloseReason> {
        let (bytes, state) = self.chunks.parts(chunk);
        let piece = state.pieces.next(ECHO_MESSAGE_BYTES_MAX, bytes, &mut state.cursor).map_err(frame_reason)?;
        Ok(match piece {
            None => Input::NeedMore,
            Some(Piece::Data { kind, range, before, last }) => Input::Echo(Echo { kind, range, before, last }),
            Some(Piece::Ping { range }) => Input::Ping(range),
            Some(Piece::Pong) => Input::Nothing,
            Some(Piece::Close { code }) => Input::Closed(code),
        })
    }

    /// Answers a message, or holds a piece of it.
    pub(super) fn echo(&mut self, slot: Slot, chunk: ChunkIndex, echo: Echo) -> Result<(), CloseReason> {
        if self.table[slot].phase != Phase::Open {
            return Ok(());
        }
        self.heard_echo(slot);
        let Echo { kind, range, before, last } = echo;
        let opcode = if kind == MessageKind::Text { Opcode::Text } else { Opcode::Binary };
        let message_bytes = before as usize + range.len();
        let mut header = [0; FRAME_HEADER_BYTES_MAX];
        let header_bytes = frame_header(&mut header, opcode, message_bytes);
        if last && before == 0 {
            let (bytes, _) = self.chunks.parts(chunk);
            self.reply.extend_from_slice(&header[..header_bytes]);
            self.reply.extend_from_slice(&bytes[range]);
            return Ok(());
        }
        self.hold_piece(chunk, range).ok_or(CloseReason::OutboxPool)?;
        if last {
            let (_, state) = self.chunks.parts(chunk);
            let held = std::mem::take(&mut state.held);
            // Replies to what came before the message go before it.
            self.queue_reply(slot);
            if !self.put_header(held, &header[..header_bytes]) {
                self.drop_held(held);
                return Err(CloseReason::OutboxPool);
            }
            self.queues.push_reply(slot, self.table[slot].generation, Said::Held(held));
        }
        Ok(())
    }

    /// Puts the header of a held message before its pieces; `false` when the shard holds too much.
    fn put_header(&mut self, held: u32, header: &[u8]) -> bool {
        let Some(run) = self.runs.echo(header) else { return false };
        let pinned = self.runs.pin(run);
        let put = pinned && self.outboxes.put_first(held, run, u32::try_from(header.len()).unwrap_or(u32::MAX));
        if pinned && !put {
            self.runs.unpin(run);
        }
        self.runs.release(run);
        put
    }

    /// Puts a piece behind those that the connection has said before; `None` when the shard holds too much.
    fn hold_piece(&mut self, chunk: ChunkIndex, range: Range<usize>) -> Option<()> {
        let (bytes, state) = self.chunks.parts(chunk);
        let piece = &bytes[range];
        if state.held == 0 {
            state.held = self.outboxes.open(0);
        }
        if piece.is_empty() {
            return Some(());
        }
        let (held, length) = (state.held, u32::try_from(piece.len()).ok()?);
        let run = self.runs.echo(piece)?;
        let fits = self.hold(held, run, 0, length, 0);
        self.runs.release(run);
        fits.then_some(())
    }

    /// A held message's turn among the replies: it goes behind what the connection still has to take.
    pub(super) fn send_held(&mut self, slot: Slot, held: u32) {
        self.open_outbox(slot);
        let outbox = self.table[slot].outbox;
        self.outboxes.take_over(outbox, held);
        self.mark_writable(slot);
    }

    /// Forgets a held message; 0: there is none.
    pub(super) fn drop_held(&mut self, held: u32) {
        if held == 0 {
            return;
        }
        while let Some(front) = self.outboxes.front(held) {
            let bytes = self.bytes_of(front.run, Class::WebSocket);
            self.outboxes.pop(held, bytes);
            self.runs.unpin(front.run);
        }
        self.outboxes.close(held);
    }
}
