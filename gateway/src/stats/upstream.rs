//! Counters of the messages that a shard passes on.

use super::{Counter, Spread};
use crate::upstream::Refused;

/// `received = acknowledged + Σ refused + in flight`, at every moment between two turns.
#[derive(Debug, Default)]
pub struct UpstreamStats {
    /// Messages of clients for the place.
    pub received: Counter,
    /// Messages that the place has.
    pub acknowledged: Counter,
    /// Messages refused, by [`Refused`].
    pub refused: [Counter; Refused::ALL.len()],
    /// Messages without their answers (gauge).
    pub in_flight: Counter,
    /// From a message to its acknowledgement, microseconds.
    pub answer_us: Spread,
}

impl UpstreamStats {
    /// Both sides of that.
    pub fn law(&self) -> (u64, u64) {
        let refused: u64 = self.refused.iter().map(Counter::get).sum();
        (self.received.get(), self.acknowledged.get() + refused + self.in_flight.get())
    }
}
