//! Frames that a client sends, decoded in place; fragments grow together at the front of the buffer.
//!
//! ```text
//!  0          held            read             filled
//! ┌──────────┬───────────────┬────────────────┬────────┐
//! │ message  │ used up       │ raw bytes      │ free   │
//! │ so far   │               │                │        │
//! └──────────┴───────────────┴────────────────┴────────┘
//! ```
//!
//! The caller reads into `buffer[filled..]`, calls [`Frames::next`] until it returns `None`, then
//! [`Frames::compact`]. A buffer of [`FrameLimits::buffer_bytes`] then always has room for at least one byte
//! more. A message in one frame is never copied.

use super::encode::CONTROL_PAYLOAD_BYTES_MAX;
pub use super::reject::FrameReject;
use super::{MessageKind, Opcode, apply_mask};
use crate::close;
use core::ops::Range;

/// Most bytes of a client's control frame: header 2, mask 4, payload 125.
pub(super) const MASKED_CONTROL_BYTES_MAX: usize = 2 + 4 + CONTROL_PAYLOAD_BYTES_MAX;
/// Most bytes of a client's frame header: 2, length 8, mask 4.
const MASKED_HEADER_BYTES_MAX: usize = 2 + 8 + 4;
/// The first reserved bit: on the first frame of a message it says that the message is deflated.
pub(crate) const RSV1: u8 = 0x40;

/// What one message may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Most payload bytes of a message, its fragments together.
    pub message_bytes_max: u32,
    /// Most frames of a message.
    pub fragments_max: u16,
    /// Messages may come deflated.
    pub deflate: bool,
}

impl FrameLimits {
    /// The smallest buffer that is always enough: a message that lacks nothing but its last frame, and
    /// then the longest thing that may come: a control frame, or the header of that last frame.
    pub const fn buffer_bytes(self) -> usize {
        const { assert!(MASKED_HEADER_BYTES_MAX < MASKED_CONTROL_BYTES_MAX) };
        self.message_bytes_max as usize + MASKED_CONTROL_BYTES_MAX
    }
}

impl Default for FrameLimits {
    /// goim reads a frame into a buffer of 8192 bytes; nothing it understands needs fragments.
    fn default() -> Self {
        Self { message_bytes_max: 8192, fragments_max: 1024, deflate: false }
    }
}

/// Where the raw bytes lie in the caller's buffer: `read..filled`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// First byte not yet decoded; at least [`Frames::held`].
    pub read: usize,
    /// Behind the last byte received.
    pub filled: usize,
}

/// One thing that a client said. Ranges lie in the buffer and are valid until the next call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// Its payload.
        range: Range<usize>,
        /// It is deflated ([`super::deflate`]); text is not checked to be UTF-8 then.
        deflated: bool,
    },
    /// To be answered with a pong of the same payload.
    Ping {
        /// Its payload.
        range: Range<usize>,
    },
    /// Nothing to do.
    Pong,
    /// To be answered with a close frame; nothing may follow.
    Close {
        /// The client's code, a legal one.
        code: Option<u16>,
    },
}

/// What must survive between two reads of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Payload bytes of the unfinished message at the front of the buffer.
    pub(super) held: u32,
    /// Frames of the unfinished message.
    fragments: u16,
    /// How many of the last held bytes are a character not yet complete, 0 to 3.
    utf8_tail: u8,
    pub(super) phase: Phase,
}

const _: () = assert!(size_of::<Frames>() == 8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// No message is unfinished.
    #[default]
    Between,
    /// A text message is unfinished.
    Text,
    /// A binary message is unfinished.
    Binary,
    /// A deflated text message is unfinished.
    DeflatedText,
    /// A deflated binary message is unfinished.
    DeflatedBinary,
    /// A close frame or a reject has come.
    Closed,
}

/// A frame header that keeps every rule a header can keep.
pub(super) struct Header {
    pub(super) fin: bool,
    /// RSV1: the message that begins is deflated.
    deflated: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    pub(super) payload_bytes: u32,
    pub(super) bytes: usize,
}

impl Frames {
    /// Bytes of the unfinished message, which are `buffer[..held]`.
    pub const fn held(&self) -> usize {
        self.held as usize
    }

    /// Decodes frames until one of them is an event; `None` when no complete frame is left. After a reject
    /// the connection is over: further bytes are [`FrameReject::AfterClose`].
    pub fn next(
        &mut self,
        limits: FrameLimits,
        buffer: &mut [u8],
        cursor: &mut Cursor,
    ) -> Result<Option<Event>, FrameReject> {
        let result = self.decode(limits, buffer, cursor);
        if result.is_err() {
            self.phase = Phase::Closed;
        }
        result
    }

    /// Moves what is not yet decoded behind the held bytes, so that the rest of the buffer can be read into.
    /// Ranges of earlier events are void then.
    pub fn compact(&self, buffer: &mut [u8], cursor: &mut Cursor) {
        let held = self.held();
        debug_assert!(held <= cursor.read && cursor.read <= cursor.filled);
        if cursor.read > held {
            buffer.copy_within(cursor.read..cursor.filled, held);
            cursor.filled -= cursor.read - held;
            cursor.read = held;
        }
    }

    fn decode(
        &mut self,
        limits: FrameLimits,
        buffer: &mut [u8],
        cursor: &mut Cursor,
    ) -> Result<Option<Event>, FrameReject> {
        loop {
            let raw = &buffer[cursor.read..cursor.filled];
            let Some(header) = self.header(limits, raw)? else {
                return Ok(None);
            };
            let frame_bytes = header.bytes + header.payload_bytes as usize;
            if raw.len() < frame_bytes {
                return Ok(None);
            }
            let payload = cursor.read + header.bytes..cursor.read + frame_bytes;
            apply_mask(&mut buffer[payload.clone()], header.mask);
            cursor.read += frame_bytes;
            let event = if header.opcode.is_control() {
                Some(self.control(header.opcode, buffer, payload)?)
            } else {
                self.data(&header, buffer, payload)?
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Judges a header as far as it is there, each byte once all before it are found good; so the reject does not
    /// depend on how the stream was cut.
    pub(super) fn header(self, limits: FrameLimits, raw: &[u8]) -> Result<Option<Header>, FrameReject> {
        if self.phase == Phase::Closed && !raw.is_empty() {
            return Err(FrameReject::AfterClose);
        }
        let &[first, second, ..] = raw else {
            return Ok(None);
        };
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first);
        let deflated = first & RSV1 != 0;
        let begins = matches!(opcode, Some(Opcode::Text | Opcode::Binary));
        if first & 0x70 & !RSV1 != 0 || (deflated && !(limits.deflate && begins)) {
            return Err(FrameReject::ReservedBits);
        }
        let opcode = opcode.ok_or(FrameReject::UnknownOpcode)?;
        if second & 0x80 == 0 {
            return Err(FrameReject::Unmasked);
        }
        self.in_place(limits, opcode, fin, second & 0x7f)?;
        let Some((payload_bytes, mask_at)) = length(raw, second & 0x7f)? else {
            return Ok(None);
        };
        let payload_bytes = u32::try_from(payload_bytes)
            .ok()
            .filter(|&bytes| {
                opcode.is_control() || u64::from(self.held) + u64::from(bytes) <= u64::from(limits.message_bytes_max)
            })
            .ok_or(FrameReject::MessageTooBig)?;
        let Some(&mask) = raw[mask_at..].first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Header { fin, deflated, opcode, mask, payload_bytes, bytes: mask_at + 4 }))
    }

    /// Whether such a frame may come now; `short` is the length in the second byte.
    fn in_place(self, limits: FrameLimits, opcode: Opcode, fin: bool, short: u8) -> Result<(), FrameReject> {
        let between = self.phase == Phase::Between;
        match opcode {
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                if !fin {
                    return Err(FrameReject::FragmentedControl);
                }
                if usize::from(short) > CONTROL_PAYLOAD_BYTES_MAX {
                    return Err(FrameReject::ControlTooLong);
                }
            }
            Opcode::Continuation if between => return Err(FrameReject::ContinuationWithoutStart),
            Opcode::Continuation if self.fragments >= limits.fragments_max => {
                return Err(FrameReject::TooManyFragments);
            }
            Opcode::Text | Opcode::Binary if !between => {
                return Err(FrameReject::DataInsideMessage);
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {}
        }
        Ok(())
    }

    pub(super) fn control(&mut self, opcode: Opcode, buffer: &[u8], range: Range<usize>) -> Result<Event, FrameReject> {
        match opcode {
            Opcode::Ping => Ok(Event::Ping { range }),
            Opcode::Close => {
                let code = close_payload(&buffer[range])?;
                self.phase = Phase::Closed;
                Ok(Event::Close { code })
            }
            _ => Ok(Event::Pong),
        }
    }

    /// Adds a frame to its message; the message if this was its last frame.
    fn data(
        &mut self,
        header: &Header,
        buffer: &mut [u8],
        payload: Range<usize>,
    ) -> Result<Option<Event>, FrameReject> {
        let (text, deflated) = match header.opcode {
            Opcode::Continuation => (
                matches!(self.phase, Phase::Text | Phase::DeflatedText),
                matches!(self.phase, Phase::DeflatedText | Phase::DeflatedBinary),
            ),
            opcode => (opcode == Opcode::Text, header.deflated),
        };
        let held = self.held();
        let message = if header.fin && held == 0 {
            payload
        } else {
            let end = held + payload.len();
            buffer.copy_within(payload, held);
            0..end
        };
        if text && !deflated {
            let unchecked = message.start + held - usize::from(self.utf8_tail)..message.end;
            self.utf8_tail = utf8_tail(&buffer[unchecked], header.fin)?;
        }
        if header.fin {
            *self = Self::default();
            let kind = if text { MessageKind::Text } else { MessageKind::Binary };
            return Ok(Some(Event::Message { kind, range: message, deflated }));
        }
        self.held += header.payload_bytes;
        self.fragments = self.fragments.saturating_add(1);
        self.phase = match (text, deflated) {
            (true, false) => Phase::Text,
            (false, false) => Phase::Binary,
            (true, true) => Phase::DeflatedText,
            (false, true) => Phase::DeflatedBinary,
        };
        Ok(None)
    }
}

/// Payload length and where the mask begins; `None` while bytes of the length are missing.
fn length(raw: &[u8], short: u8) -> Result<Option<(u64, usize)>, FrameReject> {
    let (length, least, mask_at) = match short {
        126 => {
            let Some(&bytes) = raw[2..].first_chunk() else {
                return Ok(None);
            };
            (u64::from(u16::from_be_bytes(bytes)), 126, 4)
        }
        127 => {
            let Some(&bytes) = raw[2..].first_chunk() else {
                return Ok(None);
            };
            (u64::from_be_bytes(bytes), 1 << 16, 10)
        }
        short => (u64::from(short), 0, 2),
    };
    if length >> 63 != 0 {
        return Err(FrameReject::LengthTopBit);
    }
    if length < least {
        return Err(FrameReject::LengthNotMinimal);
    }
    Ok(Some((length, mask_at)))
}

/// The code of a close frame, once code and reason are found good.
fn close_payload(payload: &[u8]) -> Result<Option<u16>, FrameReject> {
    let Some((&code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(FrameReject::ClosePayload),
        };
    };
    let code = u16::from_be_bytes(code);
    if !close::is_legal(code) {
        return Err(FrameReject::CloseCode);
    }
    match simdutf8::basic::from_utf8(reason) {
        Ok(_) => Ok(Some(code)),
        Err(_) => Err(FrameReject::CloseReasonNotUtf8),
    }
}

/// How many bytes at the end are a character begun; an error if the text is wrong already, or ends with one.
fn utf8_tail(text: &[u8], ends: bool) -> Result<u8, FrameReject> {
    let Err(error) = simdutf8::compat::from_utf8(text) else {
        return Ok(0);
    };
    if ends || error.error_len().is_some() {
        return Err(FrameReject::TextNotUtf8);
    }
    u8::try_from(text.len() - error.valid_up_to()).map_err(|_| FrameReject::TextNotUtf8)
}
