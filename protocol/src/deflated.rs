//! What clients with compression get of a push: one frame of pieces, each deflated once and joined by copying.
//!
//! ```text
//! ┌────────┬──────────────────────────┬─────────┬─────────┬───┬─────────┐
//! │ frame  │ stored block: the outer  │ piece   │ piece   │ … │ tail,   │
//! │ header │ header, op 9             │         │         │   │ unsent  │
//! └────────┴──────────────────────────┴─────────┴─────────┴───┴─────────┘
//! ```
//!
//! A piece is an inner packet as deflate blocks that refer to nothing before them and end where a byte ends. So pieces
//! in any row are a deflate stream, and a run of messages is deflated by whoever dispatched each of them, not anew.

use crate::packet::{HEADER_BYTES, header};
use crate::websocket::Opcode;
use crate::websocket::deflate::{Deflater, TAIL};
use crate::websocket::encode::{FRAME_HEADER_BYTES_MAX, frame_header, frame_header_bytes};
use crate::websocket::frame::RSV1;
use crate::{operation, push};

/// Bytes before the data of a stored block that begins where a byte begins: its type, its length, and that inverted.
const STORED_HEAD_BYTES: usize = 5;
/// Bytes of the outer header as a stored block.
const OUTER_BYTES: usize = STORED_HEAD_BYTES + HEADER_BYTES;
/// Most bytes of a stored block's data.
const STORED_BYTES_MAX: usize = 0xffff;

/// Appends to an encoded push ([`push::encode`]) the frame of its piece, tail included; `false`, and nothing is
/// appended, if that would not be smaller than the frame that others get.
pub fn append(buffer: &mut Vec<u8>, deflater: &mut Deflater) -> bool {
    let inner = &buffer[push::INNER_START..];
    let inner_bytes = inner.len();
    let plain_bytes = buffer.len() - push::websocket_start(inner_bytes);
    let Some(piece) = deflater.piece(inner, inner_bytes) else { return false };
    let frame_bytes = frame_bytes(piece.len());
    if frame_bytes >= plain_bytes {
        return false;
    }
    let start = buffer.len();
    buffer.reserve_exact(frame_bytes + TAIL.len());
    buffer.resize(start + frame_bytes + TAIL.len(), 0);
    let pieces = open(&mut buffer[start..], inner_bytes, piece.len());
    buffer[start + pieces..].copy_from_slice(piece);
    true
}

/// Bytes of the frame of so many bytes of pieces, as it is sent.
pub const fn frame_bytes(pieces_bytes: usize) -> usize {
    let payload_bytes = OUTER_BYTES + pieces_bytes - TAIL.len();
    frame_header_bytes(payload_bytes) + payload_bytes
}

/// Writes frame header and outer header to the front of `out` and returns where the pieces begin.
pub fn open(out: &mut [u8], inner_bytes: usize, pieces_bytes: usize) -> usize {
    let mut frame = [0; FRAME_HEADER_BYTES_MAX];
    let start = frame_header(&mut frame, Opcode::Binary, OUTER_BYTES + pieces_bytes - TAIL.len());
    frame[0] |= RSV1;
    out[..start].copy_from_slice(&frame[..start]);
    start + store_block(&mut out[start..], &header(inner_bytes, push::VERSION, operation::RAW, 0))
}

/// The piece of a frame that [`append`] made, tails included.
pub fn piece(frame: &[u8]) -> &[u8] {
    let header_bytes = match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    &frame[header_bytes + OUTER_BYTES..]
}

/// Bytes of an inner packet as a piece that is not deflated.
pub const fn stored_bytes(inner_bytes: usize) -> usize {
    inner_bytes + STORED_HEAD_BYTES * inner_bytes.div_ceil(STORED_BYTES_MAX) + 1 + TAIL.len()
}

/// Writes such a piece to the front of `out` and returns its length, [`stored_bytes`].
pub fn store(out: &mut [u8], inner: &[u8]) -> usize {
    let mut at = 0;
    for data in inner.chunks(STORED_BYTES_MAX) {
        at += store_block(&mut out[at..], data);
    }
    // An empty block, of which a message leaves the tail unsaid.
    let end = at + 1 + TAIL.len();
    out[at] = 0;
    out[at + 1..end].copy_from_slice(&TAIL);
    end
}

fn store_block(out: &mut [u8], data: &[u8]) -> usize {
    let bytes = u16::try_from(data.len()).expect("a stored block is short");
    let end = STORED_HEAD_BYTES + data.len();
    out[0] = 0;
    out[1..3].copy_from_slice(&bytes.to_le_bytes());
    out[3..5].copy_from_slice(&(!bytes).to_le_bytes());
    out[5..end].copy_from_slice(data);
    end
}
