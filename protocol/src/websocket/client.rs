//! A client's half of WebSocket, for tests and load: masked frames out, the server's frames in.

use super::extension::Agreed;
use super::frame::RSV1;
use super::{Opcode, apply_mask, encode, handshake};
use crate::packet::Packet;
use core::ops::Range;

/// Appends one masked frame. `fin` false begins or continues a fragmented message.
pub fn frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, mask: [u8; 4], payload: &[u8]) {
    let mut header = [0; encode::FRAME_HEADER_BYTES_MAX];
    let header_bytes = encode::frame_header(&mut header, opcode, payload.len());
    header[0] = opcode as u8 | if fin { 0x80 } else { 0 };
    header[1] |= 0x80;
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask);
}

/// Appends one masked frame that begins a deflated message.
pub fn deflated_frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, mask: [u8; 4], payload: &[u8]) {
    let start = out.len();
    frame(out, fin, opcode, mask, payload);
    out[start] |= RSV1;
}

/// Appends `packet` as one masked binary frame.
pub fn packet(out: &mut Vec<u8>, mask: [u8; 4], packet: &Packet<'_>) {
    let mut header = [0; encode::FRAME_HEADER_BYTES_MAX];
    let header_bytes = encode::frame_header(&mut header, Opcode::Binary, packet.bytes());
    header[1] |= 0x80;
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(&packet.header());
    out.extend_from_slice(packet.body);
    apply_mask(&mut out[start..], mask);
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// Whether the message ends here; Halley sends no fragments.
    pub fin: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Whether the message is deflated.
    pub deflated: bool,
    /// Its payload in the stream; the next frame begins at its end.
    pub payload: Range<usize>,
}

/// The server broke the frame rules: masked, a reserved bit or opcode, or a length beyond memory; or its response to the
/// handshake is no acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadServerFrame;

/// The first frame of what the server sent; `None` while bytes are missing.
pub fn decode(stream: &[u8]) -> Result<Option<ServerFrame>, BadServerFrame> {
    match decode_deflated(stream)? {
        Some(ServerFrame { deflated: true, .. }) => Err(BadServerFrame),
        plain => Ok(plain),
    }
}

/// The same where compression is agreed on.
pub fn decode_deflated(stream: &[u8]) -> Result<Option<ServerFrame>, BadServerFrame> {
    let &[first, second, ..] = stream else {
        return Ok(None);
    };
    let opcode = Opcode::from_bits(first).ok_or(BadServerFrame)?;
    let deflated = first & RSV1 != 0;
    if first & 0x70 & !RSV1 != 0 || second & 0x80 != 0 || (deflated && opcode.is_control()) {
        return Err(BadServerFrame);
    }
    let (payload_bytes, start) = match second {
        126 => match stream[2..].first_chunk() {
            Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 4),
            None => return Ok(None),
        },
        127 => match stream[2..].first_chunk() {
            Some(&bytes) => (u64::from_be_bytes(bytes), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    let end = usize::try_from(payload_bytes).ok().and_then(|bytes| bytes.checked_add(start)).ok_or(BadServerFrame)?;
    Ok((end <= stream.len()).then_some(ServerFrame { fin: first & 0x80 != 0, opcode, deflated, payload: start..end }))
}

/// A handshake request. `key` is 16 random bytes in base64.
pub fn request(host: &str, path: &str, key: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A handshake request that offers compression, as browsers do.
pub fn deflate_request(host: &str, path: &str, key: &str) -> String {
    let plain = request(host, path, key);
    let head = &plain[..plain.len() - 2];
    format!("{head}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
}

/// Bytes of the server's response if it accepts `key`, `Ok(None)` while it is not complete, and an error if
/// it is anything else than that acceptance.
pub fn response(stream: &[u8], key: &str) -> Result<Option<usize>, BadServerFrame> {
    let mut expected = [0; handshake::RESPONSE_BYTES];
    let bytes = handshake::response(&handshake::accept(key.as_bytes()), &mut expected);
    starts_with(stream, &expected[..bytes])
}

/// The same of a response that agrees to the compression of [`deflate_request`].
pub fn deflate_response(stream: &[u8], key: &str) -> Result<Option<usize>, BadServerFrame> {
    let upgrade = handshake::Upgrade {
        head_bytes: 0,
        accept: handshake::accept(key.as_bytes()),
        deflate: Some(Agreed { window: false }),
    };
    let mut expected = [0; handshake::ANSWER_BYTES];
    let bytes = handshake::answer(&upgrade, &mut expected);
    starts_with(stream, &expected[..bytes])
}

fn starts_with(stream: &[u8], expected: &[u8]) -> Result<Option<usize>, BadServerFrame> {
    let got = &stream[..stream.len().min(expected.len())];
    if got != &expected[..got.len()] {
        return Err(BadServerFrame);
    }
    Ok((got.len() == expected.len()).then_some(expected.len()))
}
