//! Replies to one client, written without allocation: plain on TCP, one binary frame on WebSocket.

use crate::packet::{HEADER_BYTES, PACKET_BYTES_MAX, Packet};
use crate::websocket::Opcode;
use crate::websocket::encode::{FRAME_HEADER_BYTES_MAX, frame_header};

/// Bytes that hold every reply: the longest body a client can have echoed, framed.
pub const REPLY_BYTES_MAX: usize = FRAME_HEADER_BYTES_MAX + PACKET_BYTES_MAX;

/// Writes `packet` as TCP clients read it and returns its length, [`Packet::bytes`], which `out` must hold.
pub fn write_tcp(packet: &Packet<'_>, out: &mut [u8]) -> usize {
    let bytes = packet.bytes();
    out[..HEADER_BYTES].copy_from_slice(&packet.header());
    out[HEADER_BYTES..bytes].copy_from_slice(packet.body);
    bytes
}

/// Writes `packet` as one binary frame and returns its length, at most 10 more than [`Packet::bytes`], which
/// `out` must hold.
pub fn write_websocket(packet: &Packet<'_>, out: &mut [u8]) -> usize {
    let mut frame = [0; FRAME_HEADER_BYTES_MAX];
    let frame_bytes = frame_header(&mut frame, Opcode::Binary, packet.bytes());
    out[..frame_bytes].copy_from_slice(&frame[..frame_bytes]);
    frame_bytes + write_tcp(packet, &mut out[frame_bytes..])
}
