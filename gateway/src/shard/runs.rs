//! Runs: the bytes that many connections get, held once, counted by plain references.
//!
//! A run is one message (its payload as dispatch encoded it), several messages joined by one copy, or a
//! reply to one connection. Joined runs and replies lie in blocks of one array, and so does what goim v1's clients get
//! of a run: one more copy, made when the first of them is met.

use halley_protocol::websocket::deflate::TAIL;
use halley_protocol::{deflated, push, v1};

use crate::payload::{Note, Payload};
use crate::sabotage::{Bug, planted};

use super::blocks::Blocks;
use super::conn::Class;
use super::tls::Content;

/// A run's place in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunIndex(pub(super) u32);

/// Bytes of a block's unit.
const UNIT: u32 = 64;

enum Body {
    /// Nobody refers to it; the next free run, one more than its place.
    Free(u32),
    /// One message, as dispatch encoded it.
    Message(Payload),
    /// Several messages: bytes of the array. In front stands the note of the first, behind the bytes a short
    /// one of each, and behind that what those with compression get, if that is smaller.
    Block { unit: u32, class: u8, bytes: u32, websocket_start: u8, deflated_bytes: u32 },
    /// Bytes for one connection, the same for every transport.
    Own { unit: u32, class: u8, bytes: u32, kind: Kind },
}

/// What the bytes for one connection are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reply,
    /// What is echoed has a bound of its own.
    Echo,
    /// An alert of TLS.
    Alert,
    /// What TLS has made already.
    Raw,
}

/// A run as goim v1's clients get it: a block of the array.
#[derive(Clone, Copy)]
struct Translation {
    unit: u32,
    class: u8,
    websocket_start: u8,
}

struct Run {
    body: Body,
    /// `None` as long as no client of goim v1 is to get it.
    v1: Option<Translation>,
    /// Who keeps the run: the pass it makes, and outbox entries.
    references: u32,
    /// How many of these are outbox entries.
    pins: u32,
    messages: u32,
}

/// All runs of a shard.
pub(super) struct Runs {
    places: Vec<Run>,
    places_max: usize,
    free: u32,
    used: u32,
    array: Box<[u8]>,
    blocks: Blocks,
    /// Bytes held for blocked connections, and of these what is echoed apart; each with its maximum.
    pinned_bytes: [u64; 2],
    pinned_bytes_max: [u64; 2],
}

impl Runs {
    /// A pool of at most `runs_max` runs and `array_bytes` for joined runs and replies. The maxima of pinned bytes are
    /// that of echoes and, before it, that of everything else.
    pub(super) fn new(runs_max: usize, array_bytes: u32, pinned_bytes_max: [u32; 2]) -> Self {
        let units = array_bytes / UNIT;
        Self {
            places: Vec::with_capacity(runs_max),
            places_max: runs_max,
            free: 0,
            used: 0,
            array: bytemuck::zeroed_slice_box((units * UNIT) as usize),
            blocks: Blocks::new(units),
            pinned_bytes: [0; 2],
            pinned_bytes_max: pinned_bytes_max.map(u64::from),
        }
    }

    /// A run of one message. The payload comes back when the pool is used up.
    #[allow(clippy::result_large_err, reason = "the payload goes back to its owner")]
    pub(super) fn message(&mut self, payload: Payload) -> Result<RunIndex, Payload> {
        if !self.has_place() {
            return Err(payload);
        }
        Ok(self.put(Body::Message(payload), 1))
    }

    /// A run of a reply; `None` when the pool or the array is used up.
    pub(super) fn reply(&mut self, bytes: &[u8]) -> Option<RunIndex> {
        self.own(&[], bytes, Kind::Reply, 0)
    }

    /// A run of what is echoed; otherwise like a reply.
    pub(super) fn echo(&mut self, bytes: &[u8]) -> Option<RunIndex> {
        self.own(&[], bytes, Kind::Echo, 0)
    }

    /// A run of an alert, which TLS seals as one.
    pub(super) fn alert(&mut self, alert: [u8; 2]) -> Option<RunIndex> {
        self.own(&[], &alert, Kind::Alert, 0)
    }

    /// A run of what a TLS handshake says.
    pub(super) fn handshake(&mut self, bytes: &[u8]) -> Option<RunIndex> {
        self.own(&[], bytes, Kind::Raw, 0)
    }

    /// A run of the rest of what has been sealed, in which so many messages end. It is begun: a byte before
    /// the rest stands for what has left. Behind it stands the note of the oldest of the messages.
    pub(super) fn sealed(&mut self, rest: &[u8], messages: u32, note: Note) -> Option<RunIndex> {
        let run = self.own(&[0], rest, Kind::Raw, messages)?;
        if let Body::Own { unit, bytes, .. } = &self.at(run).body
            && messages > 0
        {
            let end = (unit * UNIT + bytes) as usize;
            self.array[end..end + push::NOTE_BYTES].copy_from_slice(&note.bytes());
        }
        Some(run)
    }

    fn own(&mut self, before: &[u8], bytes: &[u8], kind: Kind, messages: u32) -> Option<RunIndex> {
        if !self.has_place() {
            return None;
        }
        let length = u32::try_from(before.len() + bytes.len()).ok()?;
        let note = if messages > 0 { u32::try_from(push::NOTE_BYTES).ok()? } else { 0 };
        let class = Blocks::class((length + note).div_ceil(UNIT));
        let unit = self.blocks.take(class)?;
        let block = &mut self.array[(unit * UNIT) as usize..][..length as usize];
        block[..before.len()].copy_from_slice(before);
        block[before.len()..].copy_from_slice(bytes);
        Some(self.put(Body::Own { unit, class, bytes: length, kind }, messages))
    }

    /// What TLS seals the run as; `None`: it goes as it is.
    pub(super) fn content(&self, run: RunIndex) -> Option<Content> {
        match &self.at(run).body {
            Body::Own { kind: Kind::Raw, .. } => None,
            Body::Own { kind: Kind::Alert, .. } => Some(Content::Alert),
            _ => Some(Content::Data),
        }
    }

    /// A run that joins messages whose inner packets have `inner_bytes` together; deflated too, if somebody may read it
    /// so and some of them came deflated.
    pub(super) fn joined<'p>(
        &mut self,
        inner_bytes: u32,
        messages: u32,
        payloads: impl Iterator<Item = &'p Payload> + Clone,
        deflates: bool,
    ) -> Option<RunIndex> {
        if !self.has_place() {
            return None;
        }
        let bytes = inner_bytes.checked_add(u32::try_from(push::INNER_START).ok()?)?;
        let notes = messages.checked_mul(u32::try_from(Note::SHORT_BYTES).ok()?)?;
        let pieces_bytes = if deflates { pieces_bytes(payloads.clone()) } else { None };
        let frame_bytes = pieces_bytes.map_or(0, deflated::frame_bytes);
        let plain_bytes = bytes as usize - push::websocket_start(inner_bytes as usize);
        let frame_bytes = if frame_bytes < plain_bytes { u32::try_from(frame_bytes).ok()? } else { 0 };
        // The last piece's tail is written and not sent.
        let behind = if frame_bytes > 0 { frame_bytes + u32::try_from(TAIL.len()).ok()? } else { 0 };
        let class = Blocks::class(bytes.checked_add(notes)?.checked_add(behind)?.div_ceil(UNIT));
        let unit = self.blocks.take(class)?;
        let start = (unit * UNIT) as usize;
        let all = &mut self.array[start..start + (bytes + notes + behind) as usize];
        let (block, behind) = all.split_at_mut(bytes as usize);
        let (notes, frame) = behind.split_at_mut(notes as usize);
        if let Some(pieces_bytes) = pieces_bytes.filter(|_| !frame.is_empty()) {
            join_pieces(frame, inner_bytes as usize, pieces_bytes, payloads.clone());
        }
        let mut at = push::INNER_START;
        let mut first = None;
        for (payload, short) in payloads.zip(notes.chunks_exact_mut(Note::SHORT_BYTES)) {
            let inner = payload.inner();
            block[at..at + inner.len()].copy_from_slice(inner);
            at += inner.len();
            let note = payload.note();
            short.copy_from_slice(&note.shorten(*first.get_or_insert(note)));
        }
        debug_assert_eq!(at, block.len(), "the caller added the lengths up");
        let websocket_start = push::seal(block);
        block[..push::NOTE_BYTES].copy_from_slice(&first.unwrap_or_default().bytes());
        Some(self.put(Body::Block { unit, class, bytes, websocket_start, deflated_bytes: frame_bytes }, messages))
    }

    /// Whether another run can be made.
    pub(super) fn has_place(&self) -> bool {
        self.free != 0 || self.places.len() < self.places_max
    }

    /// Puts a body into a place that `has_place` found; the caller holds the only reference.
    fn put(&mut self, body: Body, messages: u32) -> RunIndex {
        let run = Run { body, v1: None, references: 1, pins: 0, messages };
        self.used += 1;
        if self.free == 0 {
            self.places.push(run);
            return RunIndex(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX));
        }
        let at = self.free - 1;
        let Body::Free(next) = self.places[at as usize].body else { unreachable!("the free list holds free runs") };
        self.free = next;
        self.places[at as usize] = run;
        RunIndex(at)
    }

    fn at(&self, run: RunIndex) -> &Run {
        &self.places[run.0 as usize]
    }

    /// Messages of the run; 0 for a reply.
    pub(super) fn messages(&self, run: RunIndex) -> u32 {
        self.at(run).messages
    }

    /// The operation of a run of one message; 0 for others.
    pub(super) fn operation(&self, run: RunIndex) -> i32 {
        match &self.at(run).body {
            Body::Message(payload) => payload.operation,
            _ => 0,
        }
    }

    /// The notes of the messages of the run from `first` on.
    pub(super) fn notes(&self, run: RunIndex, first: u32) -> impl Iterator<Item = Note> {
        let note = |at: usize| Note::read(&self.array[at..]);
        let Run { body, messages, .. } = self.at(run);
        let (of_first, short) = match body {
            Body::Message(payload) => (payload.note(), &[][..]),
            Body::Block { unit, bytes, .. } => {
                let start = (unit * UNIT) as usize;
                (note(start), &self.array[start + *bytes as usize..][..*messages as usize * Note::SHORT_BYTES])
            }
            Body::Own { unit, bytes, .. } if *messages > 0 => (note((unit * UNIT + bytes) as usize), &[][..]),
            Body::Own { .. } | Body::Free(_) => (Note::default(), &[][..]),
        };
        (first..*messages).map(move |message| {
            let short = short.get(message as usize * Note::SHORT_BYTES..).and_then(<[u8]>::first_chunk);
            short.map_or(of_first, |short| Note::lengthen(of_first, *short))
        })
    }

    /// What a connection of this class gets; of goim v1, once the run is translated.
    pub(super) fn bytes(&self, run: RunIndex, class: Class) -> &[u8] {
        let (unit, bytes, first) = match (&self.at(run).body, class) {
            (Body::Message(payload), Class::Deflate) => return payload.deflated().unwrap_or(payload.websocket()),
            (Body::Block { unit, bytes, deflated_bytes, .. }, Class::Deflate) if *deflated_bytes > 0 => {
                let first = *bytes as usize + self.at(run).messages as usize * Note::SHORT_BYTES;
                (*unit, u32::try_from(first).unwrap_or(u32::MAX) + deflated_bytes, first)
            }
            (Body::Message(payload), Class::Tcp) => return payload.inner(),
            (Body::Message(payload), Class::WebSocket) => return payload.websocket(),
            (Body::Block { unit, bytes, .. }, Class::Tcp) => (*unit, *bytes, push::INNER_START),
            (Body::Block { unit, bytes, websocket_start, .. }, Class::WebSocket | Class::Deflate) => {
                (*unit, *bytes, usize::from(*websocket_start))
            }
            (Body::Own { unit, bytes, .. }, _) => (*unit, *bytes, 0),
            (Body::Message(_) | Body::Block { .. }, Class::TcpV1 | Class::WebSocketV1) => return self.v1(run, class),
            (Body::Free(_), _) => unreachable!("a free run has no bytes"),
        };
        let start = (unit * UNIT) as usize;
        &self.array[start + first..start + bytes as usize]
    }

    fn v1(&self, run: RunIndex, class: Class) -> &[u8] {
        let translation = self.at(run).v1.expect("translated when its first reader was met");
        let first = if class == Class::TcpV1 { v1::HEADROOM } else { usize::from(translation.websocket_start) };
        let start = (translation.unit * UNIT) as usize;
        &self.array[start + first..start + self.v1_bytes(run)]
    }

    /// Bytes of a run of messages in goim v1's words, the room for the frame header included.
    fn v1_bytes(&self, run: RunIndex) -> usize {
        v1::HEADROOM + self.bytes(run, Class::Tcp).len()
    }

    /// Sees to it that goim v1's clients can get the run; `false` when the array is used up, or when more bytes would be
    /// pinned than may be.
    pub(super) fn translate(&mut self, run: RunIndex) -> bool {
        if self.at(run).v1.is_some() || self.at(run).messages == 0 {
            return true;
        }
        let bytes = self.v1_bytes(run);
        let pinned = if self.at(run).pins > 0 { bytes as u64 } else { 0 };
        if self.pinned_bytes[0] + pinned > self.pinned_bytes_max[0] {
            return false;
        }
        let Ok(units) = u32::try_from(bytes.div_ceil(UNIT as usize)) else { return false };
        let class = Blocks::class(units);
        let Some(unit) = self.blocks.take(class) else { return false };
        let start = (unit * UNIT) as usize;
        let (inner, end) = (start + v1::HEADROOM, start + bytes);
        match &self.places[run.0 as usize].body {
            Body::Message(payload) => self.array[inner..end].copy_from_slice(payload.inner()),
            Body::Block { unit, bytes, .. } => {
                let from = (unit * UNIT) as usize;
                self.array.copy_within(from + push::INNER_START..from + *bytes as usize, inner);
            }
            Body::Own { .. } | Body::Free(_) => unreachable!("only messages are counted"),
        }
        let websocket_start = v1::seal(&mut self.array[start..end]);
        self.places[run.0 as usize].v1 = Some(Translation { unit, class, websocket_start });
        self.pinned_bytes[0] += pinned;
        true
    }

    /// How many of the run's messages end within the first `taken` bytes of what this class gets.
    pub(super) fn messages_within(&self, run: RunIndex, class: Class, taken: u32) -> u32 {
        if self.at(run).messages == 0 {
            return 0;
        }
        if let Body::Own { bytes, .. } = &self.at(run).body {
            return if taken == *bytes { self.at(run).messages } else { 0 };
        }
        let whole = self.bytes(run, class);
        if class == Class::Deflate && self.is_deflated(run) {
            // Of a part nothing can be read.
            return if taken as usize == whole.len() { self.at(run).messages } else { 0 };
        }
        // goim v1's packets are as long.
        let inner = self.bytes(run, Class::Tcp);
        let before = whole.len() - inner.len();
        let within = (taken as usize).saturating_sub(before);
        let count = push::packets(inner).take_while(|packet| packet.end <= within).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The bytes that the run itself holds, for the bound on pinned runs.
    fn held_bytes(&self, run: RunIndex) -> u64 {
        let v1 = if self.at(run).v1.is_some() { self.v1_bytes(run) } else { 0 };
        let own = match &self.at(run).body {
            Body::Message(payload) => payload.held_bytes(),
            Body::Block { deflated_bytes, .. } => self.bytes(run, Class::WebSocket).len() + *deflated_bytes as usize,
            _ => self.bytes(run, Class::WebSocket).len(),
        };
        (own + v1) as u64
    }

    /// Whether those with compression get other bytes than those without.
    fn is_deflated(&self, run: RunIndex) -> bool {
        match &self.at(run).body {
            Body::Message(payload) => payload.deflated().is_some(),
            Body::Block { deflated_bytes, .. } => *deflated_bytes > 0,
            Body::Own { .. } | Body::Free(_) => false,
        }
    }

    /// Which of the two bounds on pinned bytes holds for the run.
    fn account(&self, run: RunIndex) -> usize {
        usize::from(matches!(self.at(run).body, Body::Own { kind: Kind::Echo, .. }))
    }

    /// Adds a reference of an outbox entry; `false` when too many bytes would be pinned.
    pub(super) fn pin(&mut self, run: RunIndex) -> bool {
        if self.at(run).pins == 0 {
            let (account, bytes) = (self.account(run), self.held_bytes(run));
            if self.pinned_bytes[account] + bytes > self.pinned_bytes_max[account] {
                return false;
            }
            self.pinned_bytes[account] += bytes;
        }
        let run = &mut self.places[run.0 as usize];
        run.pins += 1;
        run.references += 1;
        true
    }

    /// Takes the reference of an outbox entry back.
    pub(super) fn unpin(&mut self, run: RunIndex) {
        let entry = &mut self.places[run.0 as usize];
        entry.pins -= 1;
        if entry.pins == 0 {
            self.pinned_bytes[self.account(run)] -= self.held_bytes(run);
        }
        self.release(run);
    }

    /// Takes back one reference; the last one frees the run.
    pub(super) fn release(&mut self, run: RunIndex) {
        let entry = &mut self.places[run.0 as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        if let Some(Translation { unit, class, .. }) = entry.v1.take()
            && !planted(Bug::V1BlockKept)
        {
            self.blocks.give(unit, class);
        }
        match std::mem::replace(&mut entry.body, Body::Free(self.free)) {
            Body::Block { unit, class, .. } | Body::Own { unit, class, .. } => self.blocks.give(unit, class),
            Body::Message(_) => {}
            Body::Free(_) => unreachable!("a run is freed once"),
        }
        self.free = run.0 + 1;
        self.used -= 1;
    }

    /// Runs that somebody refers to.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// The most there can be.
    pub(super) fn places_max(&self) -> usize {
        self.places_max
    }

    /// Bytes held for blocked connections that do not echo.
    pub(super) fn pushed_bytes(&self) -> u64 {
        self.pinned_bytes[0]
    }

    /// Bytes held for blocked connections.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.pinned_bytes.iter().sum()
    }

    /// Runs that somebody refers to, counted.
    #[cfg(test)]
    pub(super) fn live(&self) -> usize {
        let live = self.places.iter().filter(|run| run.references > 0).count();
        assert_eq!(self.used as usize, live, "runs");
        assert!(live > 0 || self.blocks.in_use() == 0, "a block without a run");
        live
    }
}

/// Bytes of the pieces of these messages, each as it came deflated or else stored; `None` if none came deflated.
fn pieces_bytes<'p>(payloads: impl Iterator<Item = &'p Payload>) -> Option<usize> {
    let (mut bytes, mut any) = (0, false);
    for payload in payloads {
        let piece = payload.piece();
        any |= piece.is_some();
        bytes += piece.map_or_else(|| deflated::stored_bytes(payload.inner().len()), <[u8]>::len);
    }
    any.then_some(bytes)
}

/// Writes the frame of these pieces, and behind it the last one's tail.
fn join_pieces<'p>(
    frame: &mut [u8],
    inner_bytes: usize,
    pieces_bytes: usize,
    payloads: impl Iterator<Item = &'p Payload>,
) {
    let mut at = deflated::open(frame, inner_bytes, pieces_bytes);
    for payload in payloads {
        match payload.piece() {
            Some(piece) => {
                frame[at..at + piece.len()].copy_from_slice(piece);
                at += piece.len();
            }
            None => at += deflated::store(&mut frame[at..], payload.inner()),
        }
    }
    debug_assert_eq!(at, frame.len(), "the caller added the lengths up");
}

#[cfg(test)]
#[path = "runs_tests.rs"]
mod tests;
