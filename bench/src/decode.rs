//! What the server sends, cut anywhere, into marks and operations, without allocation.
//!
//! ```text
//! TCP        packet packet packet …
//! WebSocket  frame[ packet ] frame[ outer packet (op 9) [ packet packet … ] ] …
//! ```
//! Only the beginnings of things are looked at: frame headers, packet headers, marks. They are
//! the elements; the rest of a body is skipped as it comes. An element that is cut is kept by the
//! caller until more bytes are there.

use halley_protocol::packet::HEADER_BYTES;
use halley_protocol::{halley, operation};

use crate::raw_decode::RawDecoder;
use crate::schedule::{MARK_BYTES, Mark};

/// The longest element: a control frame, whose payload is at most 125 bytes.
pub const ELEMENT_BYTES_MAX: usize = 127;

/// A packet or frame longer than this is taken for nonsense.
const BODY_BYTES_MAX: u32 = 64 << 20;

/// Something the server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A message of a generator.
    Message(Mark),
    /// A message of the operation looked for that is too short for a mark.
    Unmarked,
    /// Any other packet, by its operation.
    Operation(i32),
    /// A WebSocket ping with its payload.
    Ping(&'a [u8]),
    /// A WebSocket close frame with its code, 0 if it has none, and the milliseconds after which to come back, if it
    /// says so.
    CloseFrame(u16, Option<u32>),
    /// Raw: what shows that the server is ready for messages.
    Ready,
    /// Raw: the application's ping with this index.
    Asked(usize),
}

/// How the server broke the framing; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A packet whose header does not say that it has 16 bytes.
    PacketHeader,
    /// A packet or frame above the limit.
    TooLong,
    /// A packet that is longer than its WebSocket message.
    BeyondMessage,
    /// A WebSocket message too short for a packet header.
    ShortMessage,
    /// A masked frame; only clients mask.
    Masked,
    /// A reserved bit or opcode.
    Reserved,
    /// A control frame that is fragmented or longer than 125 bytes.
    Control,
    /// A fragment where none can be, or in goim's dialect, which has none.
    Fragment,
}

impl Malformed {
    /// What is wrong, in words.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::PacketHeader => "a packet header that is not 16 bytes long",
            Self::TooLong => "a packet or frame of more than 64 MiB",
            Self::BeyondMessage => "a packet longer than its WebSocket message",
            Self::ShortMessage => "a WebSocket message shorter than a packet header",
            Self::Masked => "a masked frame",
            Self::Reserved => "a frame with a reserved bit or opcode",
            Self::Control => "a control frame that is too long or fragmented",
            Self::Fragment => "a fragment where none can be",
        }
    }
}

/// Bytes that are shown of what was malformed.
pub const SHOWN_BYTES_MAX: usize = 64;

/// The head of a WebSocket frame.
pub(crate) struct FrameHead {
    /// Flags and opcode.
    pub(crate) first: u8,
    /// Bytes of the payload.
    pub(crate) length: u32,
    /// Bytes of the head.
    pub(crate) bytes: usize,
}

/// The head of the frame at the front of `input`, none while it is not complete.
#[inline]
pub(crate) fn frame_head(input: &[u8]) -> Result<Option<FrameHead>, Malformed> {
    let &[first, second, ..] = input else { return Ok(None) };
    let (length, bytes) = match second {
        126 => match input[2..].first_chunk() {
            Some(&bytes) => (u64::from(u16::from_be_bytes(bytes)), 4),
            None => return Ok(None),
        },
        127 => match input[2..].first_chunk() {
            Some(&bytes) => (u64::from_be_bytes(bytes), 10),
            None => return Ok(None),
        },
        short if short < 126 => (u64::from(short), 2),
        _ => return Err(Malformed::Masked),
    };
    let length = u32::try_from(length).map_err(|_| Malformed::TooLong)?;
    if length > BODY_BYTES_MAX {
        return Err(Malformed::TooLong);
    }
    Ok(Some(FrameHead { first, length, bytes }))
}

/// The control frame at the front of `input`, none while it is not complete: its bytes and what it is.
#[allow(clippy::type_complexity, reason = "the same answer as `Decoder::element`")]
pub(crate) fn control<'a>(head: &FrameHead, input: &'a [u8]) -> Result<Option<(usize, Option<Item<'a>>)>, Malformed> {
    match head.first {
        0x88..=0x8a if head.length <= 125 => {}
        0x88..=0x8a | 0x08..=0x0a => return Err(Malformed::Control),
        _ => return Err(Malformed::Reserved),
    }
    let end = head.bytes + head.length as usize;
    let Some(payload) = input.get(head.bytes..end) else { return Ok(None) };
    let item = match head.first {
        0x88 => {
            let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
            let text = payload.get(2..).and_then(|text| str::from_utf8(text).ok());
            Some(Item::CloseFrame(code, text.and_then(halley::retry_ms)))
        }
        0x89 => Some(Item::Ping(payload)),
        _ => None,
    };
    Ok(Some((end, item)))
}

/// The decoder of a connection in either dialect.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// goim's.
    Goim(Decoder),
    /// Any other WebSocket server's.
    Raw(RawDecoder),
}

const _: () = assert!(size_of::<Stream>() <= 12, "an idle client must stay cheap");

/// Where in the stream of one connection its decoder stands.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    websocket: bool,
    /// Bytes of the current WebSocket message not yet announced by a packet header.
    message_left: u32,
    /// Bytes of a body still to pass over.
    skip: u32,
}

impl Decoder {
    /// A decoder at the beginning of a stream, behind any handshake.
    pub fn new(websocket: bool) -> Self {
        Self { websocket, message_left: 0, skip: 0 }
    }

    /// Takes the next bytes of the stream and hands out what is complete. `kept` is what the last
    /// call left; it is replaced by what this one leaves, at most [`ELEMENT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`Malformed`]: do not call again for this stream. `kept` is then the beginning of what was
    /// malformed, for somebody to look at.
    #[inline]
    pub fn feed(
        &mut self,
        kept: &mut Vec<u8>,
        mut input: &[u8],
        operation: i32,
        mut each: impl FnMut(Item<'_>),
    ) -> Result<(), Malformed> {
        if !kept.is_empty() {
            input = self.join(kept, input, operation, &mut each)?;
        }
        loop {
            let skipped = input.len().min(self.skip as usize);
            input = &input[skipped..];
            self.skip -= narrow(skipped);
            if input.is_empty() {
                return Ok(());
            }
            let element = match self.element(input, operation) {
                Ok(element) => element,
                Err(malformed) => {
                    kept.extend_from_slice(&input[..input.len().min(SHOWN_BYTES_MAX)]);
                    return Err(malformed);
                }
            };
            let Some((consumed, item)) = element else {
                kept.extend_from_slice(input);
                return Ok(());
            };
            input = &input[consumed..];
            if let Some(item) = item {
                each(item);
            }
        }
    }

    /// Completes the kept element with the first bytes of `input`; answers the rest of `input`.
    fn join<'a>(
        &mut self,
        kept: &mut Vec<u8>,
        input: &'a [u8],
        operation: i32,
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<&'a [u8], Malformed> {
        let before = kept.len();
        let added = input.len().min(ELEMENT_BYTES_MAX - before);
        kept.extend_from_slice(&input[..added]);
        let Some((consumed, item)) = self.element(kept, operation)? else {
            return Ok(&input[added..]); // kept holds less than an element, so all was added
        };
        if let Some(item) = item {
            each(item);
        }
        kept.clear();
        Ok(&input[consumed - before..])
    }

    /// Decodes one element at the front of `input`: bytes consumed and what it was, if anything.
    #[inline]
    fn element<'a>(&mut self, input: &'a [u8], operation: i32) -> Result<Option<(usize, Option<Item<'a>>)>, Malformed> {
        if self.websocket && self.message_left == 0 {
            return self.frame(input);
        }
        if self.websocket && (self.message_left as usize) < HEADER_BYTES {
            return Err(Malformed::ShortMessage);
        }
        let Some(header) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let word = u128::from_be_bytes(*header);
        #[allow(clippy::cast_possible_truncation, reason = "takes the header apart")]
        let (length, header_bytes, found) = ((word >> 96) as u32, (word >> 80) as u16, (word >> 32) as i32);
        let body_bytes = length.wrapping_sub(narrow(HEADER_BYTES));
        if usize::from(header_bytes) != HEADER_BYTES {
            return Err(Malformed::PacketHeader);
        }
        if body_bytes > BODY_BYTES_MAX {
            return Err(Malformed::TooLong);
        }
        if self.websocket && length > self.message_left {
            return Err(Malformed::BeyondMessage);
        }
        if self.websocket && found == operation::RAW {
            self.message_left -= narrow(HEADER_BYTES); // the inner packets follow
            return Ok(Some((HEADER_BYTES, None)));
        }
        let (consumed, item) = if found != operation {
            (HEADER_BYTES, Item::Operation(found))
        } else if (body_bytes as usize) < MARK_BYTES {
            (HEADER_BYTES, Item::Unmarked)
        } else {
            let Some(mark) = input[HEADER_BYTES..].first_chunk() else { return Ok(None) };
            (HEADER_BYTES + MARK_BYTES, Item::Message(Mark::read(mark)))
        };
        if self.websocket {
            self.message_left -= length;
        }
        self.skip = length - narrow(consumed);
        Ok(Some((consumed, Some(item))))
    }

    /// Decodes a frame header of the server, or a whole control frame.
    #[allow(clippy::type_complexity, reason = "the same answer as `element`")]
    fn frame<'a>(&mut self, input: &'a [u8]) -> Result<Option<(usize, Option<Item<'a>>)>, Malformed> {
        let Some(head) = frame_head(input)? else { return Ok(None) };
        match head.first {
            0x81 | 0x82 => {
                self.message_left = head.length;
                Ok(Some((head.bytes, None)))
            }
            0x00..=0x02 | 0x80 => Err(Malformed::Fragment), // no gateway we know sends them
            _ => control(&head, input),
        }
    }
}

fn narrow(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use halley_protocol::packet::header;
    use halley_protocol::push;

    use super::*;

    const OPERATION: i32 = 1000;

    #[derive(Debug, PartialEq)]
    enum Owned {
        Message(u32),
        Unmarked,
        Operation(i32),
        Ping(Vec<u8>),
        CloseFrame(u16, Option<u32>),
    }

    fn decode(websocket: bool, parts: &[&[u8]]) -> Result<Vec<Owned>, Malformed> {
        let mut decoder = Decoder::new(websocket);
        let mut kept = Vec::new();
        let mut items = Vec::new();
        for part in parts {
            decoder.feed(&mut kept, part, OPERATION, |item| {
                items.push(match item {
                    Item::Message(mark) => Owned::Message(mark.sequence),
                    Item::Unmarked => Owned::Unmarked,
                    Item::Operation(operation) => Owned::Operation(operation),
                    Item::Ping(payload) => Owned::Ping(payload.to_vec()),
                    Item::CloseFrame(code, retry_ms) => Owned::CloseFrame(code, retry_ms),
                    Item::Ready | Item::Asked(_) => unreachable!("goim has neither"),
                });
            })?;
            assert!(kept.len() <= ELEMENT_BYTES_MAX);
        }
        Ok(items)
    }

    fn packet(operation: i32, body: &[u8]) -> Vec<u8> {
        [&header(body.len(), 1, operation, 0)[..], body].concat()
    }

    fn message(sequence: u32, bytes: usize) -> Vec<u8> {
        let mark = Mark { run: 1, sequence, due_ns: 9 };
        packet(OPERATION, &mark.payload(bytes))
    }

    /// A run of messages as the gateway joins them, and a few other things.
    fn websocket_stream() -> (Vec<u8>, Vec<Owned>) {
        let login_reply = packet(8, b"");
        let mut run = vec![0; push::INNER_START];
        run.extend(message(0, 16));
        run.extend(message(1, 300));
        run.extend(packet(OPERATION, b"short"));
        let start = usize::from(push::seal(&mut run));
        let mut stream = vec![0x82, 16];
        stream.extend(login_reply);
        stream.extend_from_slice(&run[start..]);
        stream.extend_from_slice(&[0x89, 2, b'h', b'i', 0x8a, 0]);
        let mut long = vec![0; push::INNER_START];
        long.extend(message(2, 70_000)); // a length of 8 bytes in the frame header
        let start = usize::from(push::seal(&mut long));
        stream.extend_from_slice(&long[start..]);
        stream.extend_from_slice(&[0x88, 2, 0x03, 0xe8]);
        let items = vec![
            Owned::Operation(8),
            Owned::Message(0),
            Owned::Message(1),
            Owned::Unmarked,
            Owned::Ping(b"hi".to_vec()),
            Owned::Message(2),
            Owned::CloseFrame(1000, None),
        ];
        (stream, items)
    }

    #[test]
    fn a_websocket_stream_decodes_the_same_however_it_is_cut() {
        let (stream, items) = websocket_stream();
        assert_eq!(decode(true, &[&stream]).as_ref(), Ok(&items));
        for cut in 0..1200 {
            let (a, b) = stream.split_at(cut);
            assert_eq!(decode(true, &[a, b]).as_ref(), Ok(&items), "cut at {cut}");
        }
        for size in [1, 2, 3, 7, 31, 127, 2048] {
            let parts: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(decode(true, &parts).as_ref(), Ok(&items), "parts of {size}");
        }
    }

    #[test]
    fn a_tcp_stream_decodes_the_same_however_it_is_cut() {
        let stream = [packet(3, &[0; 4]), message(5, 16), message(6, 400), message(7, 16)].concat();
        let items = [Owned::Operation(3), Owned::Message(5), Owned::Message(6), Owned::Message(7)];
        for size in 1..stream.len() {
            let parts: Vec<&[u8]> = stream.chunks(size).collect();
            assert_eq!(decode(false, &parts).unwrap(), items, "parts of {size}");
        }
    }

    #[test]
    fn broken_framing_is_reported() {
        let mut bad_header = packet(OPERATION, b"x");
        bad_header[5] = 15;
        assert_eq!(decode(false, &[&bad_header]), Err(Malformed::PacketHeader));
        let mut endless = header(0, 1, OPERATION, 0);
        endless[0] = 0x7f;
        assert_eq!(decode(false, &[&endless]), Err(Malformed::TooLong));
        assert_eq!(decode(true, &[&[0x82, 0x81, 0, 0, 0, 0, 0]]), Err(Malformed::Masked));
        assert_eq!(decode(true, &[&[0x02, 3, 0, 0, 0]]), Err(Malformed::Fragment));
        assert_eq!(decode(true, &[&[0x89, 126, 1, 0]]), Err(Malformed::Control), "a long ping");
        assert_eq!(decode(true, &[&[0xc2, 3, 0, 0, 0]]), Err(Malformed::Reserved), "compressed");
        assert_eq!(decode(true, &[b"\x81\x03ack"]), Err(Malformed::ShortMessage));
        let beyond = [&[0x82, 16][..], &header(1, 1, OPERATION, 0)].concat();
        assert_eq!(decode(true, &[&beyond]), Err(Malformed::BeyondMessage));
    }

    #[test]
    fn the_beginning_of_what_was_malformed_is_left_to_look_at() {
        let stream = [message(0, 16), vec![0xee; 100]].concat();
        for cut in [1, 20, 32, 33, 40, 70, stream.len()] {
            let (mut decoder, mut kept) = (Decoder::new(false), Vec::new());
            let parts = stream.chunks(cut);
            let fed = parts.map(|part| decoder.feed(&mut kept, part, OPERATION, |_| ())).find(Result::is_err);
            assert_eq!(fed, Some(Err(Malformed::PacketHeader)), "parts of {cut}");
            assert!(kept.len() >= 16 && kept.iter().all(|byte| *byte == 0xee), "parts of {cut}");
        }
    }
}
