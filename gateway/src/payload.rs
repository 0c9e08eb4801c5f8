//! A push, encoded once: the bytes that every connection of a transport gets.

use bytes::Bytes;
use halley_protocol::websocket::deflate::{Deflater, TAIL};
use halley_protocol::{deflated, push};

/// One message as it goes out. Layout and source: [`halley_protocol::push`]; the note is when it was dispatched.
#[derive(Clone, Debug)]
pub struct Payload {
    /// `[headroom][op 9 header][one inner packet]`, and behind it perhaps `[deflated frame][tail]`.
    bytes: Bytes,
    /// The operation the client sees.
    pub operation: i32,
    /// Bytes up to the end of the inner packet.
    plain_bytes: u32,
}

impl Payload {
    /// Encodes `body` as a push of `operation` that is dispatched at this time ([`halley_ring::now_us`]).
    pub fn encode(operation: i32, body: &[u8], dispatched_us: u64) -> Self {
        let (bytes, _) = push::encode(operation, body);
        Self::of(bytes, operation, dispatched_us, |_| {})
    }

    /// The same, and as those with compression get it if that is smaller.
    pub fn encode_deflated(operation: i32, body: &[u8], dispatched_us: u64, deflater: &mut Deflater) -> Self {
        let (bytes, _) = push::encode(operation, body);
        Self::of(bytes, operation, dispatched_us, |bytes| _ = deflated::append(bytes, deflater))
    }

    fn of(mut bytes: Vec<u8>, operation: i32, dispatched_us: u64, append: impl FnOnce(&mut Vec<u8>)) -> Self {
        bytes[..push::NOTE_BYTES].copy_from_slice(&dispatched_us.to_ne_bytes());
        let plain_bytes = u32::try_from(bytes.len()).expect("a push is far below 4 GiB");
        append(&mut bytes);
        Self { bytes: Bytes::from(bytes), operation, plain_bytes }
    }

    /// When it was dispatched.
    pub fn dispatched_us(&self) -> u64 {
        self.bytes.first_chunk().map_or(0, |note| u64::from_ne_bytes(*note))
    }

    /// Bytes of its body.
    pub fn weight(&self) -> usize {
        self.inner().len() - halley_protocol::packet::HEADER_BYTES
    }

    fn plain_bytes(&self) -> usize {
        self.plain_bytes as usize
    }

    /// What a WebSocket client gets: one frame.
    pub fn websocket(&self) -> &[u8] {
        &self.bytes[push::websocket_start(self.plain_bytes() - push::INNER_START)..self.plain_bytes()]
    }

    /// What a TCP client gets, and what a joined run copies: the inner packet.
    pub fn inner(&self) -> &[u8] {
        &self.bytes[push::INNER_START..self.plain_bytes()]
    }

    /// What a WebSocket client with compression gets, if that is smaller: one frame.
    pub fn deflated(&self) -> Option<&[u8]> {
        let frame = &self.bytes[self.plain_bytes()..];
        frame.get(..frame.len().checked_sub(TAIL.len())?)
    }

    /// What of it a deflated run joins.
    pub fn piece(&self) -> Option<&[u8]> {
        let frame = &self.bytes[self.plain_bytes()..];
        (!frame.is_empty()).then(|| deflated::piece(frame))
    }

    /// Bytes that it holds for clients, in each form that there is.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() - self.plain_bytes() + self.websocket().len()
    }
}
