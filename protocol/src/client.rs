//! Packets that a client sends, for tests and load.

use crate::login::Login;
use crate::operation;
use crate::packet::{HEADER_BYTES, Packet, header};

/// The version goim's own clients put into their packets.
pub const VERSION: i16 = 1;

/// Appends a packet as TCP carries it; [`crate::websocket::client::packet`] does it for WebSocket.
pub fn append(out: &mut Vec<u8>, packet: &Packet<'_>) {
    out.extend_from_slice(&packet.header());
    out.extend_from_slice(packet.body);
}

/// A whole packet as TCP carries it.
pub fn packet(operation: i32, sequence: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + body.len());
    out.extend_from_slice(&header(body.len(), VERSION, operation, sequence));
    out.extend_from_slice(body);
    out
}

/// A login.
pub fn login(login: &Login, sequence: i32) -> Vec<u8> {
    packet(operation::AUTH, sequence, login.to_json().as_bytes())
}

/// A heartbeat.
pub fn heartbeat(sequence: i32) -> [u8; HEADER_BYTES] {
    header(0, VERSION, operation::HEARTBEAT, sequence)
}
