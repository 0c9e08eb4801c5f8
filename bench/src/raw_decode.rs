//! What any WebSocket server sends, cut anywhere, into the marks in it, without allocation.
//!
//! A message may hold several marks, and anything else around them. Frames of a fragmented message
//! are one message. What may be the beginning of a mark, or of another text looked for, is kept by
//! the caller until more bytes are there, and so is the head of a frame that is cut:
//!
//! ```text
//! kept = end of the payload so far (`tail` bytes), beginning of a frame head or control frame
//! ```

use memchr::memchr_iter;
use memchr::memmem::Finder;

use crate::decode::{ELEMENT_BYTES_MAX, Item, Malformed, SHOWN_BYTES_MAX, control, frame_head};
use crate::schedule::{MARK_TEXT_BYTES, MARK_TEXT_PREFIX, Mark};

/// Longest text to look for besides marks.
pub const MARKER_BYTES_MAX: usize = 200;

/// What to look for in messages.
#[derive(Clone, Debug)]
pub struct Watch {
    marks: Finder<'static>,
    ready: Option<Finder<'static>>,
    pings: Vec<Vec<u8>>,
    /// Bytes of the longest thing to look for.
    window: usize,
}

impl Watch {
    /// Looks for marks, for a text that shows readiness, and for lines that are pings of the
    /// application; none of the texts longer than [`MARKER_BYTES_MAX`].
    pub fn new(ready: Option<&str>, pings: Vec<Vec<u8>>) -> Self {
        let of_line = |ping: &Vec<u8>| ping.len() + 2; // a carriage return and one more to tell longer lines
        let longest = pings.iter().map(of_line).chain(ready.map(str::len)).max();
        Self {
            marks: Finder::new(MARK_TEXT_PREFIX),
            ready: ready.map(|text| Finder::new(text).into_owned()),
            pings,
            window: longest.unwrap_or(0).max(MARK_TEXT_BYTES),
        }
    }
}

/// Where in the stream of one connection its decoder stands.
#[derive(Clone, Copy, Debug)]
pub struct RawDecoder {
    /// Bytes of the current frame's payload still to come.
    left: u32,
    /// Bytes of payload at the front of what is kept.
    tail: u8,
    place: Place,
    /// What is kept of the payload begins at the beginning of a line.
    fresh: bool,
    /// The current message had something that was looked for.
    telling: bool,
}

/// Which frame of a message has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// None: the next one begins a message.
    Between,
    /// One that others follow.
    Inside,
    /// The last or only one.
    Last,
}

impl Default for RawDecoder {
    fn default() -> Self {
        Self { left: 0, tail: 0, place: Place::Between, fresh: true, telling: false }
    }
}

impl RawDecoder {
    /// Takes the next bytes of the stream, behind the handshake, and hands out what is in them;
    /// [`Item::Ready`] may come more than once. `kept` is what the last call left; it is replaced
    /// by what this one leaves, at most 400 bytes.
    ///
    /// # Errors
    /// [`Malformed`]: do not call again for this stream. `kept` is then the beginning of what was
    /// malformed, for somebody to look at.
    #[inline]
    pub fn feed(
        &mut self,
        kept: &mut Vec<u8>,
        mut input: &[u8],
        watch: &Watch,
        mut each: impl FnMut(Item<'_>),
    ) -> Result<(), Malformed> {
        loop {
            if self.left > 0 {
                input = self.payload(kept, input, watch, &mut each);
            }
            if input.is_empty() {
                return Ok(());
            }
            input = match self.head(kept, input, &mut each) {
                Ok(rest) => rest,
                Err(malformed) => {
                    kept.drain(..usize::from(self.tail).min(kept.len()));
                    kept.extend_from_slice(&input[..input.len().min(SHOWN_BYTES_MAX)]);
                    return Err(malformed);
                }
            };
            if self.place != Place::Between && self.left == 0 && kept.len() == usize::from(self.tail) {
                self.payload(kept, &[], watch, &mut each); // a frame without payload
            }
        }
    }

    /// Takes payload at the front of `input`; answers the rest.
    #[inline]
    fn payload<'a>(
        &mut self,
        kept: &mut Vec<u8>,
        input: &'a [u8],
        watch: &Watch,
        each: &mut impl FnMut(Item<'_>),
    ) -> &'a [u8] {
        let (piece, rest) = input.split_at(input.len().min(self.left as usize));
        self.left -= u32::try_from(piece.len()).unwrap_or(u32::MAX); // at most `left`
        let ended = self.left == 0 && self.place == Place::Last;
        if kept.is_empty() {
            let done = self.scan(piece, ended, watch, each);
            kept.extend_from_slice(&piece[done..]);
        } else {
            kept.extend_from_slice(piece);
            let done = self.scan(kept, ended, watch, each);
            kept.drain(..done);
        }
        #[allow(clippy::cast_possible_truncation, reason = "shorter than the window")]
        (self.tail = kept.len() as u8);
        rest
    }

    /// Looks through payload; answers how much of it is done with.
    #[inline]
    fn scan(&mut self, bytes: &[u8], ended: bool, watch: &Watch, each: &mut impl FnMut(Item<'_>)) -> usize {
        let mut done = 0;
        while let Some(place) = watch.marks.find(&bytes[done..]) {
            let Some(text) = bytes[done + place..].first_chunk() else { break };
            let mark = Mark::read_text(text);
            done += place + if mark.is_some() { MARK_TEXT_BYTES } else { 1 };
            if let Some(mark) = mark {
                self.telling = true;
                each(Item::Message(mark));
            }
        }
        if watch.ready.as_ref().is_some_and(|ready| ready.find(bytes).is_some()) {
            self.telling = true;
            each(Item::Ready);
        }
        let line = if watch.pings.is_empty() { 0 } else { self.lines(bytes, ended, watch, each) };
        if ended {
            if !self.telling {
                each(Item::Unmarked);
            }
            *self = Self::default();
            return bytes.len();
        }
        let start = done.max(line).max((bytes.len() + 1).saturating_sub(watch.window));
        self.fresh &= start == line;
        start
    }

    /// Compares whole lines with the pings; answers where the last line begins that is not whole.
    fn lines(&mut self, bytes: &[u8], ended: bool, watch: &Watch, each: &mut impl FnMut(Item<'_>)) -> usize {
        let mut start = 0;
        let ends = memchr_iter(b'\n', bytes).chain(ended.then_some(bytes.len()));
        for end in ends {
            let line = &bytes[start.min(end)..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if let (true, Some(ping)) = (self.fresh, watch.pings.iter().position(|ping| ping == line)) {
                self.telling = true;
                each(Item::Asked(ping));
            }
            (start, self.fresh) = (end + 1, true);
        }
        start
    }

    /// Takes the head of a frame, or a whole control frame, at the front of `input`, its beginning
    /// perhaps in `kept`; answers the rest, empty while it is not complete.
    fn head<'a>(
        &mut self,
        kept: &mut Vec<u8>,
        input: &'a [u8],
        each: &mut impl FnMut(Item<'_>),
    ) -> Result<&'a [u8], Malformed> {
        let before = kept.len() - usize::from(self.tail);
        if before == 0 {
            let Some(bytes) = self.element(input, each)? else {
                kept.extend_from_slice(input);
                return Ok(&[]);
            };
            return Ok(&input[bytes..]);
        }
        let added = input.len().min(ELEMENT_BYTES_MAX - before);
        kept.extend_from_slice(&input[..added]);
        let element = self.element(&kept[usize::from(self.tail)..], each).inspect_err(|_| {
            kept.truncate(usize::from(self.tail) + before); // the caller adds the input
        });
        let Some(bytes) = element? else { return Ok(&input[added..]) };
        kept.truncate(usize::from(self.tail));
        Ok(&input[bytes - before..])
    }

    /// Decodes a frame's head, or a whole control frame: its bytes.
    #[inline]
    fn element(&mut self, input: &[u8], each: &mut impl FnMut(Item<'_>)) -> Result<Option<usize>, Malformed> {
        let Some(head) = frame_head(input)? else { return Ok(None) };
        let begins = match head.first {
            0x01 | 0x02 | 0x81 | 0x82 => true,
            0x00 | 0x80 => false,
            _ => {
                let Some((bytes, item)) = control(&head, input)? else { return Ok(None) };
                if let Some(item) = item {
                    each(item);
                }
                return Ok(Some(bytes));
            }
        };
        if begins != (self.place == Place::Between) {
            return Err(Malformed::Fragment);
        }
        self.place = if head.first & 0x80 == 0 { Place::Inside } else { Place::Last };
        self.left = head.length;
        Ok(Some(head.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    enum Owned {
        Message(u32),
        Unmarked,
        Ping(Vec<u8>),
        CloseFrame(u16),
        Ready,
        Asked(usize),
    }

    fn decode(parts: &mut dyn Iterator<Item = &[u8]>) -> Result<Vec<Owned>, (Malformed, Vec<u8>)> {
        let watch = Watch::new(Some("welcome to"), vec![b"{}".to_vec(), b"PING".to_vec()]);
        let (mut decoder, mut kept, mut items) = (RawDecoder::default(), Vec::new(), Vec::new());
        for part in parts {
            let fed = decoder.feed(&mut kept, part, &watch, |item| {
                let item = match item {
                    Item::Message(mark) => Owned::Message(mark.sequence),
                    Item::Unmarked => Owned::Unmarked,
                    Item::Ping(payload) => Owned::Ping(payload.to_vec()),
                    Item::CloseFrame(code, _) => Owned::CloseFrame(code),
                    Item::Ready if items.contains(&Owned::Ready) => return,
                    Item::Ready => Owned::Ready,
                    Item::Asked(ping) => Owned::Asked(ping),
                    Item::Operation(_) => unreachable!("goim's"),
                };
                items.push(item);
            });
            fed.map_err(|malformed| (malformed, kept.clone()))?;
            assert!(kept.len() <= 400);
        }
        Ok(items)
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match u16::try_from(payload.len()).unwrap() {
            short @ 0..126 => frame.push(u8::try_from(short).unwrap()),
            long => {
                frame.push(126);
                frame.extend(long.to_be_bytes());
            }
        }
        [frame, payload.to_vec()].concat()
    }

    fn mark(sequence: u32) -> String {
        Mark { run: 1, sequence, due_ns: 0xabcd }.text()
    }

    fn stream() -> (Vec<u8>, Vec<Owned>) {
        let split = format!("{}..{}", mark(4), mark(5));
        let (first, second) = split.as_bytes().split_at(50);
        let stream = [
            frame(0x81, b"0{\"sid\":\"welcome to it\"}"),
            frame(0x81, mark(0).as_bytes()),
            frame(0x81, format!("{{\"data\":\"{}{}\"}}", mark(1), ".".repeat(300)).as_bytes()),
            frame(0x82, format!("MSG r\r\n{}\r\nMSG r\r\n{}\r\nPING\r\n", mark(2), mark(3)).as_bytes()),
            frame(0x89, b"hi"),
            frame(0x81, b"{}"),
            frame(0x81, format!("{{}}\n{{}} \nhb:00 {}x\n{{}}", "y".repeat(250)).as_bytes()),
            frame(0x81, b"{} or {}"),
            frame(0x01, first),
            frame(0x89, b""),
            frame(0x00, b""),
            frame(0x80, second),
            frame(0x81, b""),
            frame(0x81, b"hb:hb:0000000g"),
            frame(0x02, mark(6).as_bytes()),
            frame(0x80, b""),
            frame(0x88, &[3, 0xe8]),
        ];
        let items = vec![
            Owned::Ready,
            Owned::Message(0),
            Owned::Message(1),
            Owned::Message(2),
            Owned::Message(3),
            Owned::Asked(1),
            Owned::Ping(b"hi".to_vec()),
            Owned::Asked(0),
            Owned::Asked(0),
            Owned::Asked(0),
            Owned::Unmarked,
            Owned::Message(4),
            Owned::Ping(vec![]),
            Owned::Message(5),
            Owned::Unmarked,
            Owned::Unmarked,
            Owned::Message(6),
            Owned::CloseFrame(1000),
        ];
        (stream.concat(), items)
    }

    #[test]
    fn a_stream_decodes_the_same_however_it_is_cut() {
        let (stream, items) = stream();
        assert_eq!(decode(&mut [&stream[..]].into_iter()).unwrap(), items);
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(decode(&mut [a, b].into_iter()).unwrap(), items, "cut at {cut}");
        }
        for size in 1..130 {
            assert_eq!(decode(&mut stream.chunks(size)).unwrap(), items, "parts of {size}");
        }
    }

    #[test]
    fn broken_framing_is_reported_with_its_bytes_however_it_is_cut() {
        let good = [frame(0x81, b"{}"), frame(0x01, b"something longer than two")].concat();
        for (bad, expected) in [
            (&[0x80, 0x85, 1, 2, 3, 4][..], Malformed::Masked),
            (&[0x81, 1, b'x'], Malformed::Fragment),
            (&[0xf0, 0, 0], Malformed::Reserved),
            (&[0x8b, 0], Malformed::Reserved),
            (&[0x89, 126, 0, 200, 7], Malformed::Control),
            (&[0x09, 1, 7], Malformed::Control),
            (&[0x80, 127, 0, 0, 0, 1, 0, 0, 0, 0], Malformed::TooLong),
        ] {
            let stream = [&good, bad].concat();
            for size in 1..=stream.len() {
                let (malformed, bytes) = decode(&mut stream.chunks(size)).unwrap_err();
                assert_eq!(malformed, expected, "parts of {size}");
                assert!(bad.starts_with(&bytes) && !bytes.is_empty(), "{bytes:02x?} of {bad:02x?}, parts of {size}");
            }
        }
        assert_eq!(decode(&mut [&[0x80, 0][..]].into_iter()).unwrap_err().0, Malformed::Fragment, "none was begun");
    }
}
