//! How fast one room may be pushed to: for each room a time until which its allowance is used up.
//!
//! A rate of `r` a second lets a second's worth through at once, and then one each `1/r` seconds. Two numbers are kept of a
//! room, and only while they say something.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

/// What a room may get at once: the worth of so many nanoseconds.
const ALLOWANCE_NS: u64 = 1_000_000_000;

/// Rooms that are remembered; beyond it those whose allowance is whole again are forgotten.
const SWEEP_ROOMS: usize = 1024;

/// How fast one room may be pushed to; 0: as fast as one likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomRates {
    /// Pushes a second.
    pub pushes_per_second: u32,
    /// Bytes of their bodies a second.
    pub bytes_per_second: u32,
}

/// The rates, and the rooms that were pushed to lately.
#[derive(Debug)]
pub struct Rates {
    /// Both in one word, so that there is nothing to lock without any.
    in_force: AtomicU64,
    hasher: RandomState,
    rooms: Mutex<Rooms>,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Rooms {
    /// By the hash of the name: when pushes and when bytes are whole again.
    until_ns: HashMap<u64, [u64; 2], RandomState>,
    sweep_at: usize,
}

impl Rates {
    /// Nobody has been pushed to yet.
    pub fn new(rates: RoomRates) -> Self {
        let made = Self {
            in_force: AtomicU64::new(0),
            hasher: RandomState::default(),
            rooms: Mutex::new(Rooms { sweep_at: SWEEP_ROOMS, ..Rooms::default() }),
            refused: AtomicU64::new(0),
        };
        made.set(rates);
        made
    }

    /// Other rates from now on. What was pushed before is counted by the old ones.
    pub fn set(&self, rates: RoomRates) {
        let word = u64::from(rates.pushes_per_second) << 32 | u64::from(rates.bytes_per_second);
        self.in_force.store(word, Ordering::Relaxed);
    }

    /// Pushes that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether the room may get a push of so many bytes now; if so, it is counted. A push that is larger than what a
    /// second lets through is taken when nothing else was.
    pub fn take(&self, room: &str, bytes: usize, now_us: u64) -> bool {
        let costs = self.costs(bytes);
        if costs == [0, 0] {
            return true;
        }
        let at_ns = now_us.saturating_mul(1000);
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms.sweep(at_ns);
        let until_ns = rooms.until_ns.entry(self.hasher.hash_one(room)).or_default();
        let next = [0, 1].map(|at| until_ns[at].max(at_ns) + costs[at]);
        let fits = |at: usize| costs[at] == 0 || until_ns[at] <= at_ns || next[at] <= at_ns + ALLOWANCE_NS;
        let taken = fits(0) && fits(1);
        if taken {
            *until_ns = next;
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// A push that was counted went nowhere.
    pub(super) fn give_back(&self, room: &str, bytes: usize) {
        let costs = self.costs(bytes);
        if costs == [0, 0] {
            return;
        }
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until_ns) = rooms.until_ns.get_mut(&self.hasher.hash_one(room)) {
            *until_ns = [0, 1].map(|at| until_ns[at].saturating_sub(costs[at]));
        }
    }

    /// Nanoseconds of each rate that a push of so many bytes uses up; 0 without the rate.
    fn costs(&self, bytes: usize) -> [u64; 2] {
        let rates = self.in_force.load(Ordering::Relaxed);
        let cost_ns = |count: u64, rate: u64| (count * 1_000_000_000).checked_div(rate).map_or(0, |cost| cost.max(1));
        [cost_ns(1, rates >> 32), cost_ns(bytes as u64, rates & u64::from(u32::MAX))]
    }
}

impl Rooms {
    /// Forgets rooms whose allowance is whole, when there are twice as many as after the last time.
    fn sweep(&mut self, now_ns: u64) {
        if self.until_ns.len() < self.sweep_at {
            return;
        }
        self.until_ns.retain(|_, until_ns| until_ns.iter().any(|until_ns| *until_ns > now_ns));
        self.sweep_at = (2 * self.until_ns.len()).max(SWEEP_ROOMS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(pushes_per_second: u32, bytes_per_second: u32) -> Rates {
        Rates::new(RoomRates { pushes_per_second, bytes_per_second })
    }

    fn taken(rates: &Rates, room: &str, bytes: usize, now_us: u64, tries: usize) -> usize {
        (0..tries).filter(|_| rates.take(room, bytes, now_us)).count()
    }

    #[test]
    fn a_room_gets_a_seconds_worth_at_once_and_then_its_rate() {
        let rates = rates(10, 0);
        assert_eq!(taken(&rates, "a", 5000, 0, 30), 10);
        assert_eq!(taken(&rates, "b", 5000, 0, 30), 10, "each room by itself");
        let later: usize = (1..=100).map(|tick| taken(&rates, "a", 5000, tick * 50_000, 3)).sum();
        assert_eq!(later, 50, "ten a second for five seconds");
        assert_eq!(taken(&rates, "a", 5000, 60_000_000, 30), 10, "what is not used does not pile up");
    }

    #[test]
    fn bytes_have_a_rate_of_their_own_and_one_push_always_may() {
        let rates = rates(0, 1000);
        assert_eq!(taken(&rates, "a", 100, 0, 30), 10);
        assert!(rates.take("big", 50_000, 0), "nothing came before it");
        assert!(!rates.take("big", 1, 49_000_000), "it is paid for first");
        assert!(rates.take("big", 1, 50_000_000));
    }

    #[test]
    fn what_went_nowhere_is_given_back_and_no_rate_refuses_nothing() {
        let limited = rates(2, 0);
        assert_eq!(taken(&limited, "a", 1, 0, 9), 2);
        limited.give_back("a", 1);
        assert_eq!(taken(&limited, "a", 1, 0, 9), 1);
        assert_eq!(taken(&rates(0, 0), "a", 1, 0, 100_000), 100_000);
    }

    #[test]
    fn other_rates_hold_from_when_they_are_set() {
        let rates = rates(2, 0);
        assert_eq!(taken(&rates, "a", 1, 0, 9), 2);
        rates.set(RoomRates { pushes_per_second: 10, bytes_per_second: 0 });
        assert_eq!(taken(&rates, "a", 1, 500_000, 9), 5, "half a second of the old rate is used up");
        rates.set(RoomRates::default());
        assert_eq!(taken(&rates, "a", 1, 500_000, 9), 9);
        assert_eq!(rates.refused(), 7 + 4);
    }

    #[test]
    fn rooms_that_are_quiet_are_forgotten() {
        let rates = rates(10, 0);
        for at in 0..100_000_u64 {
            assert!(rates.take(&at.to_string(), 1, at * 1000));
        }
        let kept = rates.rooms.lock().expect("no panic").until_ns.len();
        assert!(kept <= SWEEP_ROOMS, "{kept}");
    }
}
