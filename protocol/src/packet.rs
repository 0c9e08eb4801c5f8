//! The goim packet: a header of 16 bytes, big endian and signed, then the body.
//!
//! ```text
//!  0       4         6     8       12      16        packLen
//! ┌───────┬─────────┬─────┬───────┬───────┬───────────┐
//! │packLen│headerLen│ ver │  op   │  seq  │ body      │
//! │ i32   │ i16 = 16│ i16 │ i32   │ i32   │ packLen−16│
//! └───────┴─────────┴─────┴───────┴───────┴───────────┘
//! ```

use crate::close;
use crate::websocket::MessageKind;

/// Bytes of a packet header.
pub const HEADER_BYTES: usize = 16;
/// Most body bytes a client may send in one packet (goim v2). What the server sends has no limit.
pub const BODY_BYTES_MAX: usize = 4096;
/// Most bytes of a packet from a client.
pub const PACKET_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;

/// One packet; `body` borrows the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Echoed in replies, never interpreted; 1 on pushes.
    pub version: i16,
    /// See [`crate::operation`].
    pub operation: i32,
    /// Chosen by the client, echoed in replies; 0 on pushes.
    pub sequence: i32,
    /// Meaning depends on the operation.
    pub body: &'a [u8],
}

impl Packet<'_> {
    /// Bytes of the whole packet on the wire, header included.
    pub const fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Header of this packet.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        header(self.body.len(), self.version, self.operation, self.sequence)
    }
}

/// Why a packet closes its connection. goim closes without a word; WebSocket clients are told
/// [`PacketReject::close_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketReject {
    /// packLen is below 16, the header itself.
    TooShort,
    /// packLen is over the limit.
    TooLong,
    /// headerLen is not 16.
    HeaderLength,
    /// The packet (or its header) reaches beyond its WebSocket message.
    BeyondMessage,
}

impl PacketReject {
    /// Every reject, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::TooShort, Self::TooLong, Self::HeaderLength, Self::BeyondMessage];

    /// WebSocket close code for a message of this kind. goim takes text messages that hold a packet, so only
    /// the bad ones are the wrong type.
    pub const fn close_code(self, kind: MessageKind) -> u16 {
        match (kind, self) {
            (MessageKind::Text, _) => close::WRONG_TYPE,
            (MessageKind::Binary, Self::TooLong) => close::TOO_BIG,
            (MessageKind::Binary, Self::TooShort | Self::HeaderLength | Self::BeyondMessage) => close::PROTOCOL,
        }
    }

    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "packet-too-short",
            Self::TooLong => "packet-too-long",
            Self::HeaderLength => "packet-header-length",
            Self::BeyondMessage => "packet-beyond-message",
        }
    }
}

/// The first packet of a TCP byte stream; `None` while bytes are missing. Consume [`Packet::bytes`] and
/// call again. A wrong length is rejected as soon as the header is there.
pub fn decode(stream: &[u8]) -> Result<Option<Packet<'_>>, PacketReject> {
    decode_within(stream, PACKET_BYTES_MAX)
}

/// As [`decode`], with the caller's limit on the whole packet: goim v1 has a smaller one, and clients use a larger one,
/// because pushes may be larger than what a client may send.
pub fn decode_within(stream: &[u8], packet_bytes_max: usize) -> Result<Option<Packet<'_>>, PacketReject> {
    let Some((head, rest)) = stream.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let body_bytes = body_bytes(head, packet_bytes_max)?;
    Ok(rest.get(..body_bytes).map(|body| packet(head, body)))
}

/// The packet of a WebSocket message. There is one per message; bytes after it are ignored, as goim does.
///
/// goim does not compare packLen with the message and answers with other clients' memory; here
/// that is [`PacketReject::BeyondMessage`], and so is a message shorter than a header.
pub fn decode_message(message: &[u8]) -> Result<Packet<'_>, PacketReject> {
    decode_message_within(message, PACKET_BYTES_MAX)
}

/// As [`decode_message`], with the caller's limit on the whole packet.
pub fn decode_message_within(message: &[u8], packet_bytes_max: usize) -> Result<Packet<'_>, PacketReject> {
    let (head, rest) = message.split_first_chunk::<HEADER_BYTES>().ok_or(PacketReject::BeyondMessage)?;
    let body_bytes = body_bytes(head, packet_bytes_max)?;
    let body = rest.get(..body_bytes).ok_or(PacketReject::BeyondMessage)?;
    Ok(packet(head, body))
}

/// The header of a packet with `body_bytes` bytes of body, below 2 GiB in all.
pub fn header(body_bytes: usize, version: i16, operation: i32, sequence: i32) -> [u8; HEADER_BYTES] {
    let packet_bytes = i32::try_from(HEADER_BYTES + body_bytes).expect("a packet is below 2 GiB");
    let [p0, p1, p2, p3] = packet_bytes.to_be_bytes();
    let [v0, v1] = version.to_be_bytes();
    let [o0, o1, o2, o3] = operation.to_be_bytes();
    let [s0, s1, s2, s3] = sequence.to_be_bytes();
    [p0, p1, p2, p3, 0, 16, v0, v1, o0, o1, o2, o3, s0, s1, s2, s3]
}

/// Judges both lengths, in goim's order.
fn body_bytes(head: &[u8; HEADER_BYTES], packet_bytes_max: usize) -> Result<usize, PacketReject> {
    let &[p0, p1, p2, p3, h0, h1, ..] = head;
    let packet_bytes =
        usize::try_from(i32::from_be_bytes([p0, p1, p2, p3])).map_err(|_negative| PacketReject::TooShort)?;
    if packet_bytes > packet_bytes_max {
        return Err(PacketReject::TooLong);
    }
    if [h0, h1] != [0, 16] {
        return Err(PacketReject::HeaderLength);
    }
    packet_bytes.checked_sub(HEADER_BYTES).ok_or(PacketReject::TooShort)
}

fn packet<'a>(head: &[u8; HEADER_BYTES], body: &'a [u8]) -> Packet<'a> {
    let &[_, _, _, _, _, _, v0, v1, o0, o1, o2, o3, s0, s1, s2, s3] = head;
    Packet {
        version: i16::from_be_bytes([v0, v1]),
        operation: i32::from_be_bytes([o0, o1, o2, o3]),
        sequence: i32::from_be_bytes([s0, s1, s2, s3]),
        body,
    }
}
