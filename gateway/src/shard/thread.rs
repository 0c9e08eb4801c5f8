//! The body of a shard's thread: makes the ring, says whether it serves, and turns until it has drained.

use std::sync::Arc;
use std::time::Duration;

use halley_ring::{KernelRing, Ring, RingSettings};

use crate::alloc;
use crate::link::{ControlBell, ShardLink};

use super::{Shard, ShardSettings, Turn};

/// Control may share a shard's CPU: a shard that it rings shall not wait for the end of its slice. Shards that share a
/// CPU with each other keep long ones, for taking turns costs them the caches.
const SLICE: Duration = Duration::from_micros(100);

/// What a shard's thread is given.
pub struct ShardStart {
    /// What the shard is to do.
    pub settings: ShardSettings,
    /// What its ring is made for.
    pub ring: RingSettings,
    /// Its queues and counters.
    pub link: Arc<ShardLink>,
    /// How it wakes control.
    pub bell: Arc<ControlBell>,
    /// No other shard is pinned to its CPU.
    pub alone: bool,
    /// Told once: the shard serves, or one sentence why not.
    pub ready: Box<dyn FnOnce(Result<(), String>) + Send>,
}

/// Serves until the shard has drained. A ring belongs to the thread that makes it: this one.
pub fn run(start: ShardStart) {
    let ShardStart { settings, ring, link, bell, alone, ready } = start;
    if alone && let Err(error) = halley_ring::shorten_slice(SLICE) {
        tracing::debug!(%error, "the kernel refuses a shard a short time slice");
    }
    let ring = match KernelRing::new(&ring) {
        Ok(ring) => ring,
        Err(error) => return ready(Err(error.to_string())),
    };
    link.set_bell(ring.bell());
    let mut shard = Shard::new(settings, ring, Arc::clone(&link), bell);
    ready(Ok(()));
    let allocations = alloc::allocations();
    let mut begin_us = halley_ring::now_us();
    loop {
        let turn = shard.turn(begin_us / 1000);
        let end_us = halley_ring::now_us();
        link.stats.turn_us.record(end_us - begin_us);
        link.stats.allocations.set(alloc::allocations() - allocations);
        // After the last turn too: control hears that the shard has drained through an entry not yet submitted.
        shard.wait(turn);
        let next_us = halley_ring::now_us();
        // With work left it has not slept: the kernel worked for it.
        link.stats.busy_us.add(if turn == Turn::Busy { next_us } else { end_us } - begin_us);
        begin_us = next_us;
        if turn == Turn::Done {
            return;
        }
    }
}
