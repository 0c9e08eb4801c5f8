//! What a shard has a fixed number of, and how much of it is taken.

use super::Counter;

/// Something of which a shard has so much and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pool {
    /// Sets of accepted operations.
    AcceptSets,
    /// Questions to control.
    Asks,
    /// Slots for connections.
    Connections,
    /// Entries of outboxes.
    OutboxEntries,
    /// Buffers for unfinished packets.
    Partials,
    /// Bytes of runs that blocked connections hold.
    PinnedBytes,
    /// Bytes of pushes that the shard has taken and not begun to send.
    PushBytes,
    /// Rooms with members.
    Rooms,
    /// Runs.
    Runs,
}

impl Pool {
    /// Every pool, in order of its number.
    pub const ALL: [Self; 9] = [
        Self::AcceptSets,
        Self::Asks,
        Self::Connections,
        Self::OutboxEntries,
        Self::Partials,
        Self::PinnedBytes,
        Self::PushBytes,
        Self::Rooms,
        Self::Runs,
    ];

    /// The label in metrics and `/v1/stats`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AcceptSets => "accept-sets",
            Self::Asks => "asks",
            Self::Connections => "connections",
            Self::OutboxEntries => "outbox-entries",
            Self::Partials => "partials",
            Self::PinnedBytes => "pinned-bytes",
            Self::PushBytes => "push-bytes",
            Self::Rooms => "rooms",
            Self::Runs => "runs",
        }
    }

    /// The pool's number: its place in [`Pool::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

/// How much of one pool is taken, and how much there is. Both are written by the shard.
#[derive(Debug, Default)]
pub struct Fill {
    /// Taken (gauge).
    pub used: Counter,
    /// There is.
    pub max: Counter,
}

impl Fill {
    /// The part that is taken, 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    pub fn ratio(&self) -> f64 {
        let max = self.max.get();
        if max == 0 { 0.0 } else { self.used.get() as f64 / max as f64 }
    }
}
