//! Receive buffers: scratch for a batch of receives, and what is kept of unfinished packets.
//!
//! A chunk that still holds bytes after its connection was served stays with the connection; nothing is
//! copied from scratch to keep. At most `kept_max` stay; the oldest of them can be found.

use std::ops::Range;

use halley_protocol::websocket::deflate::Inflater;
use halley_protocol::websocket::frame::{Cursor, FrameLimits, FrameReject, Frames};
use halley_protocol::websocket::pieces::{self, Pieces};
use halley_ring::{RECV_BATCH_MAX, Slot};

/// Bytes of a chunk: the longest unfinished thing a client can send.
pub(super) const CHUNK_BYTES: usize = 8448;

/// What a WebSocket message may take, as goim reads it.
pub(super) const FRAME_LIMITS: FrameLimits =
    FrameLimits { message_bytes_max: 8192, fragments_max: 1024, deflate: false };

const _: () = assert!(FRAME_LIMITS.buffer_bytes() < CHUNK_BYTES, "there is always room for another byte");
const _: () =
    assert!((FRAME_LIMITS.message_bytes_max as usize) < CHUNK_BYTES, "what is inflated shows when it is too long");
const _: () = assert!(pieces::BUFFER_BYTES < CHUNK_BYTES);
const _: () = assert!(halley_protocol::websocket::handshake::HEAD_BYTES_MAX < CHUNK_BYTES);
const _: () = assert!(halley_protocol::packet::PACKET_BYTES_MAX < CHUNK_BYTES);

/// A chunk's place. As a field of a connection one more, 0 being none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkIndex(pub(super) u32);

#[derive(Clone, Copy, Default)]
struct Keep {
    owner: u32,
    /// Neighbours in the list of kept chunks, oldest first, or in the free list; one more than their places.
    next: u32,
    prev: u32,
    kept: bool,
}

/// Decoding state of a chunk.
#[derive(Clone, Copy, Default)]
pub(super) struct State {
    pub(super) frames: Frames,
    /// The same of an echo connection.
    pub(super) pieces: Pieces,
    /// An outbox with the earlier pieces of the message that it is saying; 0: none.
    pub(super) held: u32,
    pub(super) cursor: Cursor,
    /// Whole packets may be left: decode before receiving more.
    pub(super) backlog: bool,
}

impl State {
    /// Whether a packet, frame or message is unfinished.
    pub(super) fn is_unfinished(&self) -> bool {
        self.cursor.read < self.cursor.filled || self.frames != Frames::default() || self.pieces != Pieces::default()
    }
}

/// Places of equal buffers: free, lent for a batch, or kept by a connection until it has the rest of something.
pub(super) struct Pool {
    keeps: Vec<Keep>,
    free: u32,
    oldest: u32,
    newest: u32,
    kept: u32,
    kept_max: u32,
}

impl Pool {
    /// So many places, of which so many may be kept.
    pub(super) fn new(count: u32, kept_max: u32) -> Self {
        let keeps = (0..count).map(|at| Keep { next: if at + 1 < count { at + 2 } else { 0 }, ..Keep::default() });
        Self { keeps: keeps.collect(), free: 1, oldest: 0, newest: 0, kept: 0, kept_max }
    }

    /// A free place. There is one for every receive of a batch, however many are kept.
    pub(super) fn take(&mut self) -> u32 {
        let at = self.free.checked_sub(1).expect("scratch for every receive of a batch");
        self.free = self.keeps[at as usize].next;
        self.keeps[at as usize] = Keep::default();
        at
    }

    /// Gives a place back.
    pub(super) fn give(&mut self, at: u32) {
        self.unkeep(at);
        self.keeps[at as usize].next = self.free;
        self.free = at + 1;
    }

    /// Keeps a place for its connection, as the newest unless it was kept before. Returns the owner of
    /// the oldest if one too many is kept now: it must go.
    pub(super) fn keep(&mut self, number: u32, owner: Slot) -> Option<Slot> {
        let at = number as usize;
        if self.keeps[at].kept {
            return None;
        }
        self.keeps[at] = Keep { owner: owner.0, next: 0, prev: self.newest, kept: true };
        if self.newest == 0 {
            self.oldest = number + 1;
        } else {
            self.keeps[self.newest as usize - 1].next = number + 1;
        }
        self.newest = number + 1;
        self.kept += 1;
        (self.kept > self.kept_max).then(|| Slot(self.keeps[self.oldest as usize - 1].owner))
    }

    fn unkeep(&mut self, at: u32) {
        let Keep { next, prev, kept, .. } = self.keeps[at as usize];
        if !kept {
            return;
        }
        match prev {
            0 => self.oldest = next,
            prev => self.keeps[prev as usize - 1].next = next,
        }
        match next {
            0 => self.newest = prev,
            next => self.keeps[next as usize - 1].prev = prev,
        }
        self.keeps[at as usize] = Keep::default();
        self.kept -= 1;
    }

    /// Places that connections keep.
    pub(super) fn kept(&self) -> u32 {
        self.kept
    }
}

/// All chunks of a shard.
pub(super) struct Chunks {
    bytes: Box<[u8]>,
    states: Vec<State>,
    pool: Pool,
    inflater: Option<Inflater>,
}

impl Chunks {
    /// Chunks of which so many may be kept, and behind them `more` bytes for other buffers; with another chunk for what
    /// is inflated, if anything is.
    pub(super) fn new(kept_max: u32, more: usize, inflates: bool) -> Self {
        let scratch = u32::try_from(RECV_BATCH_MAX).unwrap_or(u32::MAX);
        let count = kept_max + scratch + u32::from(inflates);
        Self {
            bytes: bytemuck::zeroed_slice_box(count as usize * CHUNK_BYTES + more),
            states: vec![State::default(); count as usize],
            pool: Pool::new(kept_max + scratch, kept_max),
            inflater: inflates.then(Inflater::default),
        }
    }

    /// Where the bytes for other buffers begin.
    pub(super) fn end(&self) -> usize {
        self.states.len() * CHUNK_BYTES
    }

    /// A chunk as scratch. There is one for every receive of a batch, however many are kept.
    pub(super) fn take(&mut self) -> ChunkIndex {
        let at = self.pool.take();
        self.states[at as usize] = State::default();
        ChunkIndex(at)
    }

    /// Gives a chunk back.
    pub(super) fn give(&mut self, chunk: ChunkIndex) {
        self.pool.give(chunk.0);
    }

    /// Keeps a chunk for its connection, as the newest unless it was kept before. Returns the owner of
    /// the oldest chunk if one too many is kept now: it must go.
    pub(super) fn keep(&mut self, chunk: ChunkIndex, owner: Slot) -> Option<Slot> {
        self.pool.keep(chunk.0, owner)
    }

    /// The bytes of all buffers, for a batch of receives; a chunk begins at `start`.
    pub(super) fn all(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Where a chunk begins in `all`.
    pub(super) fn start(chunk: ChunkIndex) -> usize {
        chunk.0 as usize * CHUNK_BYTES
    }

    /// A chunk's bytes and its decoding state.
    pub(super) fn parts(&mut self, chunk: ChunkIndex) -> (&mut [u8], &mut State) {
        let start = Self::start(chunk);
        (&mut self.bytes[start..start + CHUNK_BYTES], &mut self.states[chunk.0 as usize])
    }

    /// Inflates a message to the chunk for that, which holds it until the next one is; its bytes.
    pub(super) fn inflate(&mut self, chunk: ChunkIndex, range: Range<usize>) -> Result<usize, FrameReject> {
        let inflater = self.inflater.as_mut().expect("somebody could agree to it");
        let (chunks, out) = self.bytes.split_at_mut((self.states.len() - 1) * CHUNK_BYTES);
        let payload = &chunks[Self::start(chunk)..][range];
        inflater.inflate(payload, &mut out[..=FRAME_LIMITS.message_bytes_max as usize])
    }

    /// The chunk for what is inflated.
    pub(super) fn inflated(&self) -> ChunkIndex {
        ChunkIndex(u32::try_from(self.states.len() - 1).unwrap_or(u32::MAX))
    }

    /// Chunks that connections keep.
    pub(super) fn kept(&self) -> u32 {
        self.pool.kept()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_kept_chunk_goes_when_one_too_many_is_kept() {
        let mut chunks = Chunks::new(2, 0, false);
        let [first, second, third] = [1, 2, 3].map(|_| chunks.take());
        assert_eq!(chunks.keep(first, Slot(1)), None);
        assert_eq!(chunks.keep(second, Slot(2)), None);
        assert_eq!(chunks.keep(first, Slot(1)), None, "keeping again does not make it newer");
        assert_eq!(chunks.keep(third, Slot(3)), Some(Slot(1)));
        chunks.give(first);
        assert_eq!(chunks.kept(), 2);
        let fourth = chunks.take();
        assert_eq!(chunks.keep(fourth, Slot(4)), Some(Slot(2)));
    }

    #[test]
    fn scratch_is_there_when_all_that_may_be_is_kept() {
        let mut chunks = Chunks::new(3, 0, false);
        for owner in 0..3 {
            let chunk = chunks.take();
            chunks.keep(chunk, Slot(owner));
        }
        let scratch: Vec<_> = (0..RECV_BATCH_MAX).map(|_| chunks.take()).collect();
        for chunk in scratch {
            chunks.give(chunk);
        }
    }
}
