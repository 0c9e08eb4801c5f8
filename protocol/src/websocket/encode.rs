//! Frames that the server sends: complete (FIN), unmasked, with the shortest length there is.

use super::Opcode;

/// Most bytes of a frame header without a mask.
pub const FRAME_HEADER_BYTES_MAX: usize = 10;
/// Most payload bytes of a control frame.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;
/// Most bytes of a control frame that the server sends.
pub const CONTROL_BYTES_MAX: usize = 2 + CONTROL_PAYLOAD_BYTES_MAX;

/// Bytes of the header of a complete frame: 2, 4 or 10.
pub const fn frame_header_bytes(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the header of a complete frame and returns its length: 2, 4 or 10.
pub fn frame_header(out: &mut [u8; FRAME_HEADER_BYTES_MAX], opcode: Opcode, payload_bytes: usize) -> usize {
    out[0] = 0x80 | opcode as u8;
    if let Ok(short @ 0..=125) = u8::try_from(payload_bytes) {
        out[1] = short;
        2
    } else if let Ok(medium) = u16::try_from(payload_bytes) {
        out[1] = 126;
        out[2..4].copy_from_slice(&medium.to_be_bytes());
        4
    } else {
        out[1] = 127;
        out[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
        10
    }
}

/// Writes a whole control frame and returns its length. What exceeds 125 payload bytes is cut off; a decoded
/// ping cannot.
pub fn control_frame(opcode: Opcode, payload: &[u8], out: &mut [u8; CONTROL_BYTES_MAX]) -> usize {
    let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_BYTES_MAX)];
    let bytes = 2 + payload.len();
    out[0] = 0x80 | opcode as u8;
    out[1] = u8::try_from(payload.len()).unwrap_or(0); // at most 125
    out[2..bytes].copy_from_slice(payload);
    bytes
}

/// Writes a whole close frame and returns its length. `None` answers a close without a code. A reason over
/// 123 bytes is cut at a character.
pub fn close_frame(code: Option<u16>, reason: &str, out: &mut [u8; CONTROL_BYTES_MAX]) -> usize {
    let Some(code) = code else {
        return control_frame(Opcode::Close, &[], out);
    };
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_BYTES_MAX - 2)];
    let mut payload = [0; CONTROL_PAYLOAD_BYTES_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    control_frame(Opcode::Close, &payload[..2 + reason.len()], out)
}
