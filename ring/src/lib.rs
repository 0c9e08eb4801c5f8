//! The one crate that knows io_uring: a small safe reactor for one shard, and a simulated one beside it.
//!
//! A reactor is used by one thread. Receives and sends are batches that complete before the call
//! returns, so that their buffers are only borrowed; accepts, polls and closes are queued, reach the
//! kernel in [`Ring::wait`] and complete later as [`Completion`]s.

#![allow(unsafe_code, reason = "talking to the kernel is what this crate is for")]

mod bell;
pub mod client;
mod clock;
mod kernel;
mod setup;
pub mod sim;
mod slice;

pub use bell::Bell;
pub use clock::now_us;
pub use kernel::KernelRing;
pub use setup::{RingSettings, SetupError};
pub use slice::shorten_slice;

use std::net::SocketAddr;
use std::time::Duration;

/// A place in the ring's table of direct descriptors: the connection's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

impl Slot {
    /// The slot as a position in an array of connections.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The operation was cancelled.
    pub const CANCELED: Self = Self(libc::ECANCELED);
    /// Nothing can be done without waiting.
    pub const AGAIN: Self = Self(libc::EAGAIN);
}

/// Most sends of one batch.
pub const SEND_BATCH_MAX: usize = 256;

/// Most receives of one batch.
pub const RECV_BATCH_MAX: usize = 64;

/// A queued operation that finished.
#[derive(Debug)]
pub enum Completion {
    /// An accept finished; the socket is in the slot given when it was armed.
    Accepted {
        /// The accept's place.
        place: u16,
        /// The peer's address, or why there is none.
        result: Result<SocketAddr, Errno>,
    },
    /// A poll for reading fired, failed or was cancelled; nothing is armed now.
    Readable {
        /// The connection.
        slot: Slot,
        /// As given when armed.
        generation: u32,
    },
    /// A poll for writing fired, failed or was cancelled; nothing is armed now.
    Writable {
        /// The connection.
        slot: Slot,
        /// As given when armed.
        generation: u32,
    },
    /// The slot is empty. Polls cancelled with the close complete separately.
    Closed {
        /// The connection.
        slot: Slot,
        /// As given when queued.
        generation: u32,
    },
    /// A watched listener has a waiting connection (or the watch was cancelled).
    ListenerReady {
        /// Its index in [`RingSettings::listeners`].
        listener: usize,
    },
    /// Somebody rang.
    Doorbell,
}

/// Which polls are armed on a connection that closes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArmedPolls {
    /// A poll for reading.
    pub readable: bool,
    /// A poll for writing.
    pub writable: bool,
}

/// One receive of a batch: into `buffer[start..start + bytes]` of the buffer given with the batch.
#[derive(Clone, Copy, Debug)]
pub struct RecvRequest {
    /// The connection.
    pub slot: Slot,
    /// First byte to fill.
    pub start: usize,
    /// Bytes to fill at most; not 0.
    pub bytes: u32,
}

/// What one receive found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes. `more`: unread bytes, or the end of file, are left in the socket.
    Bytes {
        /// At least 1.
        bytes: u32,
        /// Read again before arming a poll.
        more: bool,
    },
    /// End of file.
    End,
    /// Nothing to read: arm a poll.
    Nothing,
    /// The connection broke.
    Broken(Errno),
}

/// One send of a batch that the kernel did not take whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// The send's place in its batch.
    pub place: u16,
    /// Bytes taken (0: the socket is full), or why the connection broke.
    pub result: Result<u32, Errno>,
}

/// How long [`Ring::wait`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: take everything that has completed.
    Poll,
    /// Until something completes or this much time has passed.
    Sleep(Duration),
}

/// Counters of a ring since it was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct RingCounters {
    /// Calls of `io_uring_enter`.
    pub enters: u64,
    /// Completions read.
    pub completions: u64,
}

/// A reactor for one shard: the kernel's ([`KernelRing`]) or a simulated one ([`sim::SimRing`]).
pub trait Ring {
    /// Queues an accept on a listener into `slot`, which must be free. `place` names the accept, is
    /// below [`RingSettings::accepts`] and has no other accept in flight.
    fn accept(&mut self, listener: usize, place: u16, slot: Slot);

    /// Queues the cancellation of an accept; it completes as [`Errno::CANCELED`] if it was not too late.
    fn cancel_accept(&mut self, place: u16);

    /// Queues a one-shot poll of a listener, for a shard that has no slot to spare for an accept.
    fn watch_listener(&mut self, listener: usize);

    /// Queues the end of such a poll; it completes as ready if it was still armed.
    fn unwatch_listener(&mut self, listener: usize);

    /// Queues a one-shot poll for reading (data, end of file or an error). At most one per slot.
    fn poll_readable(&mut self, slot: Slot, generation: u32);

    /// Queues a one-shot poll for writing. At most one per slot.
    fn poll_writable(&mut self, slot: Slot, generation: u32);

    /// Queues the close of a slot, and the cancellation of the polls that are armed on it: a poll
    /// left out would keep the socket open for ever.
    fn close(&mut self, slot: Slot, generation: u32, armed: ArmedPolls);

    /// Queues a write to the file that wakes control.
    fn notify(&mut self);

    /// Receives once on each connection, without waiting; `received` gets one entry per request, in
    /// order. At most [`RECV_BATCH_MAX`] requests. Panics when a request lies outside `buffer`.
    fn recv(&mut self, buffer: &mut [u8], requests: &[RecvRequest], received: &mut Vec<Received>);

    /// Sends once on each connection, without waiting; `failures` gets those that the kernel did not
    /// take whole. At most [`SEND_BATCH_MAX`] sends, never two to one slot.
    fn send<'a>(&mut self, batch: impl ExactSizeIterator<Item = (Slot, &'a [u8])>, failures: &mut Vec<SendFailure>);

    /// Hands what is queued to the kernel and waits.
    fn wait(&mut self, how: Wait);

    /// The next completion; `None` when there is none left.
    fn next(&mut self) -> Option<Completion>;

    /// Wakes this ring's thread from others.
    fn bell(&self) -> Bell;

    /// Counters so far.
    fn counters(&self) -> RingCounters;

    /// Microseconds of the clock that [`now_us`] reads; a simulated ring has its network's.
    fn now_us(&self) -> u64;
}
