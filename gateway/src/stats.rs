//! A shard's counters: written by the shard alone, read by anybody at any time.

mod pool;
mod upstream;

use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::reason::{CloseReason, DropReason, Handshake, Reject};

pub use pool::{Fill, Pool};
pub use upstream::UpstreamStats;

/// A counter or gauge with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning shard may call this.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes back; only the owning shard may call this.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets; only the owning shard may call this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter for each entry of a closed list, however long that is.
#[derive(Debug)]
pub struct Counters<const N: usize>([Counter; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl<const N: usize> std::ops::Deref for Counters<N> {
    type Target = [Counter; N];
    fn deref(&self) -> &[Counter; N] {
        &self.0
    }
}

/// Buckets of a [`Spread`]: bucket `i` counts values in `2^(i-1) .. 2^i` (bucket 0: zero).
pub const SPREAD_BUCKETS: usize = 32;

/// A histogram by powers of two with one writer.
#[derive(Debug, Default)]
pub struct Spread {
    buckets: [Counter; SPREAD_BUCKETS],
    sum: Counter,
}

impl Spread {
    /// Counts one value.
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts the same value so many times.
    pub fn record_many(&self, value: u64, times: u64) {
        let bucket = (u64::BITS - value.leading_zeros()) as usize;
        self.buckets[bucket.min(SPREAD_BUCKETS - 1)].add(times);
        self.sum.add(value.wrapping_mul(times));
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }

    /// How many values fell into each bucket; bucket `i` has the upper bound `2^i - 1`.
    pub fn counts(&self) -> [u64; SPREAD_BUCKETS] {
        std::array::from_fn(|at| self.buckets[at].get())
    }

    /// Sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// The terms of the law, as they stood together between two turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// As [`ShardStats::offered`].
    pub offered: u64,
    /// As [`ShardStats::sent`].
    pub sent: u64,
    /// As [`ShardStats::queued`].
    pub queued: u64,
    /// As [`ShardStats::dropped`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Balance {
    /// Whether `offered = sent + Σ dropped + queued`.
    pub fn holds(&self) -> bool {
        self.offered == self.sent + self.dropped.iter().sum::<u64>() + self.queued
    }
}

/// A balance that one thread publishes and any thread reads whole: the version is odd while it changes.
#[derive(Debug, Default)]
struct Published {
    version: AtomicU64,
    terms: [AtomicU64; 3 + DropReason::ALL.len()],
}

impl Published {
    fn write(&self, balance: &Balance) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let values = [balance.offered, balance.sent, balance.queued].into_iter().chain(balance.dropped);
        for (term, value) in self.terms.iter().zip(values) {
            term.store(value, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// `None` before the first balance.
    fn read(&self) -> Option<Balance> {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let terms: [u64; 3 + DropReason::ALL.len()] =
                std::array::from_fn(|at| self.terms[at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                let [offered, sent, queued, dropped @ ..] = terms;
                return Some(Balance { offered, sent, queued, dropped });
            }
            std::hint::spin_loop();
        }
    }
}

/// The counters of one shard. Deliveries are counted as message × connection.
///
/// The law: `offered = sent + Σ dropped + queued`, at every moment between two turns. No term is derived from the others.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Deliveries that a pass reached (or that a full room refused).
    pub offered: Counter,
    /// Deliveries of which the kernel took every byte.
    pub sent: Counter,
    /// Deliveries that did not happen, by [`DropReason`].
    pub dropped: [Counter; DropReason::ALL.len()],
    /// Deliveries waiting in outboxes (gauge).
    pub queued: Counter,
    /// Connections open, logged in or not (gauge).
    pub connections: Counter,
    /// Connections that have agreed to compression (gauge).
    pub deflating: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Logins admitted.
    pub logins: Counter,
    /// Connections ended, by [`CloseReason`].
    pub closes: Counters<{ CloseReason::ALL.len() }>,
    /// TLS handshakes that ended, by [`Handshake`].
    pub tls_handshakes: [Counter; Handshake::ALL.len()],
    /// Refusals that closed nothing, by [`Reject`].
    pub rejects: [Counter; Reject::ALL.len()],
    /// Calls of `io_uring_enter`.
    pub enters: Counter,
    /// Completions read from the ring.
    pub completions: Counter,
    /// Heap allocations of the shard's thread since it began to serve.
    pub allocations: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Sends submitted.
    pub sends: Counter,
    /// Bytes the kernel took.
    pub sent_bytes: Counter,
    /// Packets received.
    pub packets: Counter,
    /// Compressed messages received, whether they were sound or not.
    pub inflated: Counter,
    /// Bytes of these.
    pub inflate_in_bytes: Counter,
    /// Bytes that the sound ones hold.
    pub inflate_out_bytes: Counter,
    /// Times the full table stopped accepting.
    pub accept_pauses: Counter,
    /// Times that `accepts_per_second_max` stopped accepting.
    pub accept_rate_pauses: Counter,
    /// Times that `memory_bytes_max` stopped accepting.
    pub accept_memory_pauses: Counter,
    /// Connections that found no place to be counted in their network.
    pub network_uncounted: Counter,
    /// Rooms with members or joins on the way (gauge).
    pub rooms: Counter,
    /// Connections that the kernel takes nothing from at the moment (gauge).
    pub blocked: Counter,
    /// Bytes of runs held for blocked connections (gauge).
    pub pinned_bytes: Counter,
    /// Microseconds in which the shard did not sleep.
    pub busy_us: Counter,
    /// What there is a fixed number of, by [`Pool`].
    pub pools: [Fill; Pool::ALL.len()],
    /// Duration of turns without their sleep, microseconds.
    pub turn_us: Spread,
    /// Messages of a run.
    pub run_messages: Spread,
    /// From the dispatch of a delivery to the end of the batch that handed its last byte to the kernel, microseconds.
    pub delivery_us: Spread,
    /// The same of deliveries of Kafka's records, from the record's timestamp.
    pub record_delivery_us: Spread,
    /// What is passed on.
    pub upstream: UpstreamStats,
    balance: Published,
}

impl ShardStats {
    /// Publishes the terms of the law; called by the shard between turns.
    pub fn publish_balance(&self) {
        self.balance.write(&self.terms());
    }

    /// The terms of the law as they stood between two turns, at any moment from any thread.
    pub fn balance(&self) -> Balance {
        self.balance.read().unwrap_or_else(|| self.terms())
    }

    fn terms(&self) -> Balance {
        Balance {
            offered: self.offered.get(),
            sent: self.sent.get(),
            queued: self.queued.get(),
            dropped: std::array::from_fn(|at| self.dropped[at].get()),
        }
    }

    /// The three sides of the law: offered, sent + dropped + queued.
    pub fn law(&self) -> (u64, u64) {
        let dropped: u64 = self.dropped.iter().map(Counter::get).sum();
        (self.offered.get(), self.sent.get() + dropped + self.queued.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_is_read_whole_while_it_changes() {
        let stats = std::sync::Arc::new(ShardStats::default());
        // Until the first balance is published, the terms are read one by one.
        stats.publish_balance();
        let writer = std::sync::Arc::clone(&stats);
        let thread = std::thread::spawn(move || {
            for n in 0..200_000 {
                writer.offered.add(3);
                writer.sent.add(1);
                writer.queued.set(n + 1);
                writer.dropped[usize::try_from(n % 4).expect("small")].add(1);
                writer.publish_balance();
            }
        });
        while !thread.is_finished() {
            let balance = stats.balance();
            assert!(balance.holds(), "{balance:?}");
        }
        thread.join().expect("no panic");
        assert!(stats.balance().holds());
        assert_eq!(stats.balance().offered, 600_000);
    }

    #[test]
    fn a_spread_puts_a_value_under_its_power_of_two() {
        let spread = Spread::default();
        for value in [0, 1, 2, 3, 4, u64::MAX / 2] {
            spread.record(value);
        }
        let counts = spread.counts();
        assert_eq!(&counts[..4], &[1, 1, 2, 1]);
        assert_eq!(counts[SPREAD_BUCKETS - 1], 1);
        assert_eq!(counts.iter().sum::<u64>(), 6);
    }
}
