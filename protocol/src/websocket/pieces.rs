//! Messages longer than a receive buffer, decoded piece by piece: for a server that holds or passes them on itself.
//!
//! ```text
//!  0          front            read             filled
//! ┌──────────┬───────────────┬────────────────┬────────┐
//! │ piece    │ used up       │ raw bytes      │ free   │
//! │ so far   │               │                │        │
//! └──────────┴───────────────┴────────────────┴────────┘
//! ```
//!
//! The caller works as with [`Frames`]: reads into `buffer[filled..]`, calls [`Pieces::next`] until it returns `None`,
//! then [`Pieces::compact`]. Pieces end at every [`PIECE_BYTES`] of a message and at its end, however the
//! client cut it into frames and the network into reads.

use core::ops::Range;

use super::encode::CONTROL_PAYLOAD_BYTES_MAX;
use super::frame::{Cursor, Event, FrameLimits, FrameReject, Frames, MASKED_CONTROL_BYTES_MAX, Phase};
use super::{MessageKind, Opcode, apply_mask};

/// Bytes of a piece; the last one of a message may be shorter, or empty.
pub const PIECE_BYTES: usize = 8192;
/// The smallest buffer that is always enough: a piece that lacks a byte, and then the longest control frame.
pub const BUFFER_BYTES: usize = PIECE_BYTES + MASKED_CONTROL_BYTES_MAX;

const _: () = assert!(CONTROL_PAYLOAD_BYTES_MAX < PIECE_BYTES);

/// One thing that a client said. Ranges lie in the buffer and are valid until the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of a message.
    Data {
        /// Text or binary.
        kind: MessageKind,
        /// These bytes.
        range: Range<usize>,
        /// Bytes of the message before them.
        before: u32,
        /// Whether the message ends with them.
        last: bool,
    },
    /// To be answered with a pong of the same payload.
    Ping {
        /// Its payload.
        range: Range<usize>,
    },
    /// Nothing to do.
    Pong,
    /// To be answered with a close frame; nothing may follow.
    Close {
        /// The client's code, a legal one.
        code: Option<u16>,
    },
}

/// What must survive between two reads of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// The rules of frames; `held` counts all of the message's bytes that its headers announced.
    frames: Frames,
    /// Bytes of the message in earlier pieces.
    before: u32,
    /// Payload bytes that the frame under way still lacks.
    left: u32,
    /// Its mask, turned so that the first byte is for the next one.
    mask: [u8; 4],
    /// Bytes of the piece so far, at the front of the buffer.
    front: u16,
    in_frame: bool,
    fin: bool,
    tail: Character,
}

impl Pieces {
    /// Bytes of the unfinished piece, which are `buffer[..front]`.
    const fn front(&self) -> usize {
        self.front as usize
    }

    /// Decodes until something has been said; `None` when bytes are missing. After a reject the connection is over:
    /// further bytes are [`FrameReject::AfterClose`].
    pub fn next(
        &mut self,
        message_bytes_max: u32,
        buffer: &mut [u8],
        cursor: &mut Cursor,
    ) -> Result<Option<Piece>, FrameReject> {
        let result = self.decode(message_bytes_max, buffer, cursor);
        if result.is_err() {
            self.frames.phase = Phase::Closed;
            self.in_frame = false;
        }
        result
    }

    /// Moves what is not yet decoded behind the piece so far, so that the rest of the buffer can be read into.
    pub fn compact(&self, buffer: &mut [u8], cursor: &mut Cursor) {
        let front = self.front();
        debug_assert!(front <= cursor.read && cursor.read <= cursor.filled);
        if cursor.read > front {
            buffer.copy_within(cursor.read..cursor.filled, front);
            cursor.filled -= cursor.read - front;
            cursor.read = front;
        }
    }

    fn decode(
        &mut self,
        message_bytes_max: u32,
        buffer: &mut [u8],
        cursor: &mut Cursor,
    ) -> Result<Option<Piece>, FrameReject> {
        // Fragments cost nothing: they are not held as such.
        let limits = FrameLimits { message_bytes_max, fragments_max: u16::MAX, deflate: false };
        loop {
            if self.in_frame {
                let piece = self.payload(buffer, cursor)?;
                if piece.is_some() || self.in_frame {
                    return Ok(piece);
                }
                continue;
            }
            let raw = &buffer[cursor.read..cursor.filled];
            let Some(header) = self.frames.header(limits, raw)? else { return Ok(None) };
            let start = cursor.read + header.bytes;
            if header.opcode.is_control() {
                let end = start + header.payload_bytes as usize;
                if end > cursor.filled {
                    return Ok(None);
                }
                apply_mask(&mut buffer[start..end], header.mask);
                cursor.read = end;
                return Ok(Some(match self.frames.control(header.opcode, buffer, start..end)? {
                    Event::Ping { range } => Piece::Ping { range },
                    Event::Close { code } => Piece::Close { code },
                    Event::Message { .. } | Event::Pong => Piece::Pong,
                }));
            }
            cursor.read = start;
            match header.opcode {
                Opcode::Text => self.frames.phase = Phase::Text,
                Opcode::Binary => self.frames.phase = Phase::Binary,
                _ => {}
            }
            self.frames.held += header.payload_bytes;
            (self.left, self.mask, self.fin, self.in_frame) = (header.payload_bytes, header.mask, header.fin, true);
        }
    }

    /// Takes payload of the frame under way: as far as it is there, and at most to the end of the piece.
    fn payload(&mut self, buffer: &mut [u8], cursor: &mut Cursor) -> Result<Option<Piece>, FrameReject> {
        let taken = (cursor.filled - cursor.read).min(self.left as usize).min(PIECE_BYTES - self.front());
        let range = cursor.read..cursor.read + taken;
        apply_mask(&mut buffer[range.clone()], self.mask);
        self.mask.rotate_left(taken % 4);
        self.left -= u32::try_from(taken).unwrap_or(u32::MAX); // at most `left`
        cursor.read = range.end;
        let ends = self.left == 0 && self.fin;
        let text = self.frames.phase == Phase::Text;
        if text && !self.tail.goes_on(&buffer[range.clone()], ends) {
            return Err(FrameReject::TextNotUtf8);
        }
        self.in_frame = self.left > 0;
        let complete = ends || self.front() + taken == PIECE_BYTES;
        if !complete || self.front > 0 {
            let front = self.front();
            buffer.copy_within(range.clone(), front);
            self.front += u16::try_from(taken).unwrap_or(u16::MAX); // at most a piece
        }
        if !complete {
            return Ok(None);
        }
        let range = if self.front > 0 { 0..self.front() } else { range };
        let kind = if text { MessageKind::Text } else { MessageKind::Binary };
        let piece = Piece::Data { kind, before: self.before, last: ends, range: range.clone() };
        if ends {
            *self = Self::default();
        } else {
            self.front = 0;
            self.before += u32::try_from(range.len()).unwrap_or(u32::MAX); // at most a piece
        }
        Ok(Some(piece))
    }
}

/// The bytes of a character that is not yet complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Character {
    bytes: [u8; 4],
    length: u8,
}

impl Character {
    /// Whether the text is still UTF-8 with these bytes, and not in the middle of a character if it ends with them.
    fn goes_on(&mut self, mut text: &[u8], ends: bool) -> bool {
        while self.length > 0 {
            let Some((&next, rest)) = text.split_first() else { return !ends };
            text = rest;
            self.bytes[usize::from(self.length)] = next;
            self.length += 1;
            match core::str::from_utf8(&self.bytes[..usize::from(self.length)]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(text) else { return true };
        if ends || error.error_len().is_some() {
            return false;
        }
        let begun = &text[error.valid_up_to()..];
        self.bytes[..begun.len()].copy_from_slice(begun);
        self.length = u8::try_from(begun.len()).unwrap_or(0); // at most 3
        true
    }
}
