//! Flags by which sleepers are woken. `races/` checks this file with loom, which brings atomics of its own.

use super::{AtomicBool, Ordering};

/// A sleeper's flag: set before sleeping, taken by whoever puts something into its queue.
///
/// The sleeper sets it, looks at its queue once more, then sleeps. The other side puts, then takes it, and rings if it
/// was set. Either the sleeper sees the item or the other side sees the flag: each swaps, and so the later of
/// them has seen what the earlier one did before.
#[derive(Debug, Default)]
pub struct Parked(AtomicBool);

impl Parked {
    /// Announces sleep. The caller must look at its queue after this and before sleeping.
    pub fn park(&self) {
        self.0.swap(true, Ordering::SeqCst);
    }

    /// Announces sleep, and says whether the caller may sleep: not if something waits, asked after the announcement.
    pub fn park_unless(&self, waits: impl FnOnce() -> bool) -> bool {
        self.park();
        let may_sleep = !waits();
        if !may_sleep {
            self.unpark();
        }
        may_sleep
    }

    /// The sleeper is awake.
    pub fn unpark(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Called after putting an item: whether the sleeper must be rung.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// Set by who found a queue full and holds something for it; whoever makes room in the queue collects it, and rings.
#[derive(Debug, Default)]
pub(super) struct Owes(AtomicBool);

impl Owes {
    /// Something found the queue full. The caller must try once more after this: room may have been made in between.
    pub(super) fn owe(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Called after making room: whether somebody owes, who must be rung.
    pub(super) fn collect(&self) -> bool {
        self.0.load(Ordering::SeqCst) && self.0.swap(false, Ordering::SeqCst)
    }

    /// Whether room was made since the last [`Self::owe`].
    pub(super) fn are_collected(&self) -> bool {
        !self.0.load(Ordering::SeqCst)
    }
}
