//! A push, encoded once: the bytes that every connection of a transport gets.

use bytes::Bytes;
use halley_protocol::push;

/// One message as it goes out. Layout and source: [`halley_protocol::push`]; the note is when it was dispatched.
#[derive(Clone, Debug)]
pub struct Payload {
    /// `[headroom][op 9 header][one inner packet]`.
    bytes: Bytes,
    /// The operation the client sees.
    pub operation: i32,
    websocket_start: u8,
}

impl Payload {
    /// Encodes `body` as a push of `operation` that is dispatched at this time ([`halley_ring::now_us`]).
    pub fn encode(operation: i32, body: &[u8], dispatched_us: u64) -> Self {
        let (mut bytes, websocket_start) = push::encode(operation, body);
        bytes[..push::NOTE_BYTES].copy_from_slice(&dispatched_us.to_ne_bytes());
        Self { bytes: Bytes::from(bytes), operation, websocket_start }
    }

    /// When it was dispatched.
    pub fn dispatched_us(&self) -> u64 {
        self.bytes.first_chunk().map_or(0, |note| u64::from_ne_bytes(*note))
    }

    /// Bytes of its body.
    pub fn weight(&self) -> usize {
        self.inner().len() - halley_protocol::packet::HEADER_BYTES
    }

    /// What a WebSocket client gets: one frame.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes[usize::from(self.websocket_start)..]
    }

    /// What a TCP client gets, and what a joined run copies: the inner packet.
    pub fn inner(&self) -> &[u8] {
        &self.bytes[push::INNER_START..]
    }
}
