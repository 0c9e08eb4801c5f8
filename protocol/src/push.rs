//! What the server pushes, encoded once for both transports.
//!
//! ```text
//!  0       8        start     18                34
//! ┌───────┬────────┬─────────┬─────────────────┬──────────────────────┐
//! │ note  │ unused │ frame   │ outer header,   │ inner packets, each  │
//! │       │        │ header  │ op 9            │ ver 1, op, seq 0     │
//! └───────┴────────┴─────────┴─────────────────┴──────────────────────┘
//!                  └── WebSocket sends from here
//!                                              └── TCP sends from here
//! ```
//!
//! A run of several messages is one frame with one outer header, so it is shared like a single one.

use crate::operation;
use crate::packet::{HEADER_BYTES, header};
use crate::websocket::Opcode;
use crate::websocket::encode::{FRAME_HEADER_BYTES_MAX, frame_header, frame_header_bytes};
use core::ops::Range;

/// Bytes at the front that are never sent: whoever holds the buffer may note something there.
pub const NOTE_BYTES: usize = 8;
/// Where the outer header begins: before it is room for the note and the frame header.
pub const HEADROOM: usize = NOTE_BYTES + FRAME_HEADER_BYTES_MAX;
/// Where the first inner packet begins: TCP sends from here.
pub const INNER_START: usize = HEADROOM + HEADER_BYTES;
/// `ver` of every push.
pub const VERSION: i16 = 1;

/// Encodes one message. Returns the buffer and where WebSocket sends from; TCP sends from [`INNER_START`].
pub fn encode(operation: i32, body: &[u8]) -> (Vec<u8>, u8) {
    let mut buffer = Vec::with_capacity(INNER_START + HEADER_BYTES + body.len());
    buffer.resize(INNER_START, 0);
    buffer.extend_from_slice(&header(body.len(), VERSION, operation, 0));
    buffer.extend_from_slice(body);
    let start = seal(&mut buffer);
    (buffer, start)
}

/// Writes outer header and frame header in front of the inner packets that lie in `buffer[INNER_START..]`, and
/// returns where WebSocket sends from. `buffer` holds at least [`INNER_START`] bytes.
pub fn seal(buffer: &mut [u8]) -> u8 {
    let inner_bytes = buffer.len() - INNER_START;
    let outer = header(inner_bytes, VERSION, operation::RAW, 0);
    buffer[HEADROOM..INNER_START].copy_from_slice(&outer);
    let mut frame = [0; FRAME_HEADER_BYTES_MAX];
    let frame_bytes = frame_header(&mut frame, Opcode::Binary, HEADER_BYTES + inner_bytes);
    let start = HEADROOM - frame_bytes;
    debug_assert_eq!(start, websocket_start(inner_bytes));
    buffer[start..HEADROOM].copy_from_slice(&frame[..frame_bytes]);
    u8::try_from(start).unwrap_or(0) // at most HEADROOM
}

/// Where WebSocket sends from, with so many bytes of inner packets.
pub const fn websocket_start(inner_bytes: usize) -> usize {
    HEADROOM - frame_header_bytes(HEADER_BYTES + inner_bytes)
}

/// Where each packet of `inner` lies, one after the other; ends at the first that is not complete.
pub fn packets(inner: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    core::iter::from_fn(move || {
        let head = inner.get(start..)?.first_chunk::<4>()?;
        let bytes = usize::try_from(i32::from_be_bytes(*head)).ok()?;
        let end = start.checked_add(bytes)?;
        if bytes < HEADER_BYTES || end > inner.len() {
            return None;
        }
        let range = start..end;
        start = end;
        Some(range)
    })
}
