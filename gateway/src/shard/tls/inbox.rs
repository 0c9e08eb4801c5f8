//! Buffers for records that have arrived in part, or whose data has not been decoded yet.

use std::ops::Range;

use halley_ring::{RECV_BATCH_MAX, Slot};

use super::super::chunks::Pool;
use super::records::{BODY_BYTES_MAX, HEADER_BYTES};

/// Bytes of an inbox: the longest record.
pub(in crate::shard) const INBOX_BYTES: usize = (HEADER_BYTES + BODY_BYTES_MAX).next_multiple_of(64);

/// An inbox's place. As a field of a session one more, 0 being none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct InboxIndex(pub(in crate::shard) u32);

/// What an inbox holds: `filled` bytes, of which those before `read` are done with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    pub(super) read: usize,
    pub(super) filled: usize,
    /// Data of a record that has been opened, before `read`.
    pub(super) plain: (usize, usize),
    /// The handshake has seen what lies before it.
    pub(super) fed: usize,
}

const _: () = assert!(super::super::chunks::CHUNK_BYTES <= INBOX_BYTES, "what a chunk has received fits");

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.read == self.filled && self.plain.0 == self.plain.1
    }
}

/// The inboxes of a shard; their bytes lie behind those of the chunks, so that one batch receives into both.
pub(super) struct Inboxes {
    start: usize,
    states: Vec<State>,
    pool: Pool,
}

impl Inboxes {
    /// Bytes of all inboxes, when so many may be kept.
    pub(in crate::shard) fn bytes(kept_max: u32) -> usize {
        Self::count(kept_max) as usize * INBOX_BYTES
    }

    fn count(kept_max: u32) -> u32 {
        kept_max + u32::try_from(RECV_BATCH_MAX).unwrap_or(u32::MAX)
    }

    /// Inboxes from `start` on in the array of all buffers.
    pub(super) fn new(kept_max: u32, start: usize) -> Self {
        let count = Self::count(kept_max);
        Self { start, states: vec![State::default(); count as usize], pool: Pool::new(count, kept_max) }
    }

    /// An inbox as scratch. There is one for every receive of a batch, however many are kept.
    pub(super) fn take(&mut self) -> InboxIndex {
        let at = self.pool.take();
        self.states[at as usize] = State::default();
        InboxIndex(at)
    }

    pub(super) fn give(&mut self, inbox: InboxIndex) {
        self.pool.give(inbox.0);
    }

    /// Keeps an inbox for its connection; the owner of the oldest if one too many is kept now: it must go.
    pub(super) fn keep(&mut self, inbox: InboxIndex, owner: Slot) -> Option<Slot> {
        self.pool.keep(inbox.0, owner)
    }

    /// Where it lies in the array of all buffers.
    pub(super) fn range(&self, inbox: InboxIndex) -> Range<usize> {
        let start = self.start + inbox.0 as usize * INBOX_BYTES;
        start..start + INBOX_BYTES
    }

    pub(super) fn state(&mut self, inbox: InboxIndex) -> &mut State {
        &mut self.states[inbox.0 as usize]
    }

    /// Inboxes that connections keep.
    #[cfg(test)]
    pub(super) fn kept(&self) -> u32 {
        self.pool.kept()
    }
}
