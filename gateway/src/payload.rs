//! A push, encoded once: the bytes that every connection of a transport gets.

use bytes::Bytes;
use halley_protocol::websocket::deflate::{Deflater, TAIL};
use halley_protocol::{deflated, push};

/// What a message says of its way so far: when it was dispatched, and of a record of a log how old it was then.
///
/// Packed: microseconds of [`halley_ring::now_us`] (48 bits, nine years), above them the age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note(u64);

impl Note {
    const TIME_BITS: u32 = 48;

    /// Bytes of a short one: how much later than another message's (microseconds, 4 bytes), and the age.
    pub const SHORT_BYTES: usize = 6;

    /// Of a message that is dispatched now. A record's age in milliseconds is kept up to a minute and five seconds.
    pub fn new(dispatched_us: u64, record_age_ms: Option<u64>) -> Self {
        let age = record_age_ms.map_or(0, |ms| 1 + ms.min(u64::from(u16::MAX) - 1));
        Self(age << Self::TIME_BITS | dispatched_us & ((1 << Self::TIME_BITS) - 1))
    }

    /// When it was dispatched, microseconds.
    pub fn dispatched_us(self) -> u64 {
        self.0 & ((1 << Self::TIME_BITS) - 1)
    }

    /// How old its record was then, milliseconds; `None`: it came over the API.
    pub fn record_age_ms(self) -> Option<u64> {
        (self.0 >> Self::TIME_BITS).checked_sub(1)
    }

    /// In six bytes, beside the note of a message that was dispatched before.
    pub fn shorten(self, first: Self) -> [u8; Self::SHORT_BYTES] {
        let later_us = self.dispatched_us().saturating_sub(first.dispatched_us()).min(u64::from(u32::MAX));
        let short = (self.0 >> Self::TIME_BITS << u32::BITS | later_us).to_le_bytes();
        std::array::from_fn(|at| short[at])
    }

    /// The note that was shortened to these bytes.
    pub fn lengthen(first: Self, short: [u8; Self::SHORT_BYTES]) -> Self {
        let short = u64::from_le_bytes(std::array::from_fn(|at| short.get(at).copied().unwrap_or(0)));
        let later_us = short & u64::from(u32::MAX);
        Self(short >> u32::BITS << Self::TIME_BITS | (first.dispatched_us() + later_us))
    }

    /// As bytes, native order: it never leaves the process.
    pub fn bytes(self) -> [u8; push::NOTE_BYTES] {
        self.0.to_ne_bytes()
    }

    /// From the first of these bytes.
    pub fn read(bytes: &[u8]) -> Self {
        Self(bytes.first_chunk().map_or(0, |note| u64::from_ne_bytes(*note)))
    }
}

/// One message as it goes out. Layout and source: [`halley_protocol::push`].
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
    /// Encodes `body` as a push of `operation`.
    pub fn encode(operation: i32, body: &[u8], note: Note) -> Self {
        let (bytes, _) = push::encode(operation, body);
        Self::of(bytes, operation, note, |_| {})
    }

    /// The same, and as those with compression get it if that is smaller.
    pub fn encode_deflated(operation: i32, body: &[u8], note: Note, deflater: &mut Deflater) -> Self {
        let (bytes, _) = push::encode(operation, body);
        Self::of(bytes, operation, note, |bytes| _ = deflated::append(bytes, deflater))
    }

    fn of(mut bytes: Vec<u8>, operation: i32, note: Note, append: impl FnOnce(&mut Vec<u8>)) -> Self {
        bytes[..push::NOTE_BYTES].copy_from_slice(&note.bytes());
        let plain_bytes = u32::try_from(bytes.len()).expect("a push is far below 4 GiB");
        append(&mut bytes);
        Self { bytes: Bytes::from(bytes), operation, plain_bytes }
    }

    /// When it was dispatched.
    pub fn note(&self) -> Note {
        Note::read(&self.bytes)
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
