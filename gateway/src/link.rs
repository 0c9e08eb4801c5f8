//! The two queues between a shard and the rest, their credits, and who wakes whom.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use halley_ring::Bell;

use crate::limits;
use crate::order::{Order, Report};
use crate::stats::ShardStats;

/// A sleeper's flag: set before sleeping, taken by whoever puts something into its queue.
///
/// The sleeper stores `true`, looks at its queue once more, then sleeps. The other side puts, then
/// swaps to `false`, and rings if it was `true`. All operations are sequentially consistent: either
/// the sleeper sees the item or the other side sees the flag.
#[derive(Debug, Default)]
pub struct Parked(AtomicBool);

impl Parked {
    /// Announces sleep. The caller must look at its queue after this and before sleeping.
    pub fn park(&self) {
        self.0.store(true, Ordering::SeqCst);
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

/// What one shard and the rest of the process share.
#[derive(Debug)]
pub struct ShardLink {
    orders: ArrayQueue<Order>,
    reports: ArrayQueue<Report>,
    /// Places in `orders` that dispatch may still take.
    credits: CachePadded<AtomicUsize>,
    /// Places that control may still take.
    control_credits: CachePadded<AtomicUsize>,
    parked: CachePadded<Parked>,
    /// The shard holds reports that found the queue full; ring it after draining.
    owes: CachePadded<AtomicBool>,
    bell: OnceLock<Bell>,
    /// The shard's counters, written by the shard alone.
    pub stats: ShardStats,
    /// Members of each of the shard's rooms in the whole process, for heartbeat replies: written by
    /// control about once a second, indexed by the shard's room index.
    pub room_online: Box<[AtomicU32]>,
}

impl ShardLink {
    /// Queues for one shard whose room table has `rooms_max` places.
    pub fn new(rooms_max: usize) -> Self {
        Self::with_orders(rooms_max, limits::ORDERS_MAX)
    }

    /// The same with another order queue length, of which [`limits::ORDERS_CONTROL_SHARE`] stays control's.
    pub fn with_orders(rooms_max: usize, orders_max: usize) -> Self {
        assert!(orders_max > limits::ORDERS_CONTROL_SHARE, "dispatch needs a share of the queue");
        Self {
            orders: ArrayQueue::new(orders_max),
            reports: ArrayQueue::new(limits::REPORTS_MAX),
            credits: CachePadded::new(AtomicUsize::new(orders_max - limits::ORDERS_CONTROL_SHARE)),
            control_credits: CachePadded::new(AtomicUsize::new(limits::ORDERS_CONTROL_SHARE)),
            parked: CachePadded::default(),
            owes: CachePadded::default(),
            bell: OnceLock::new(),
            stats: ShardStats::default(),
            room_online: bytemuck::zeroed_slice_box(rooms_max),
        }
    }

    // ---- dispatch and control ----

    /// Takes one place for a push; give it back with [`Self::return_credit`] or use it with [`Self::put_push`].
    pub fn take_credit(&self) -> bool {
        take_one(&self.credits)
    }

    /// Gives back a place that was not used.
    pub fn return_credit(&self) {
        self.credits.fetch_add(1, Ordering::AcqRel);
    }

    /// Puts a push for which a credit was taken, and wakes the shard.
    pub fn put_push(&self, order: Order) {
        debug_assert!(order.is_push());
        let put = self.orders.push(order);
        assert!(put.is_ok(), "a credit is a place in the queue");
        self.wake();
    }

    /// Puts an order of control, or gives it back when control's share is used up.
    #[allow(clippy::result_large_err, reason = "the order goes back to its owner")]
    pub fn put_control(&self, order: Order) -> Result<(), Order> {
        debug_assert!(!order.is_push());
        if !take_one(&self.control_credits) {
            return Err(order);
        }
        let put = self.orders.push(order);
        assert!(put.is_ok(), "control's share is places in the queue");
        self.wake();
        Ok(())
    }

    /// Takes the shard's next report.
    pub fn next_report(&self) -> Option<Report> {
        self.reports.pop()
    }

    /// Whether reports wait (looked at between parking and sleeping).
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }

    /// Called by control after it drained reports: lets a shard that found the queue full go on.
    pub fn collect_debts(&self) {
        if self.owes.load(Ordering::SeqCst) && self.owes.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes the shard if it sleeps.
    pub fn wake(&self) {
        if self.parked.take()
            && let Some(bell) = self.bell.get()
        {
            bell.ring();
        }
    }

    // ---- the shard ----

    /// Names the bell of the shard's ring, once, before the shard serves.
    pub fn set_bell(&self, bell: Bell) {
        let first = self.bell.set(bell).is_ok();
        assert!(first, "one ring per shard");
    }

    /// Takes the shard's next order and gives its place back to whom it belongs.
    pub fn next_order(&self) -> Option<Order> {
        let order = self.orders.pop()?;
        if order.is_push() {
            self.return_credit();
        } else {
            self.control_credits.fetch_add(1, Ordering::AcqRel);
        }
        Some(order)
    }

    /// Announces sleep, and says whether the shard may sleep: not when orders are waiting, nor when it owes
    /// reports (`owing`) and control has made room since the last attempt.
    pub fn park(&self, owing: bool) -> bool {
        self.parked.park();
        let room_made = owing && !self.owes.load(Ordering::SeqCst);
        let may_sleep = self.orders.is_empty() && !room_made;
        if !may_sleep {
            self.parked.unpark();
        }
        may_sleep
    }

    /// The shard is awake.
    pub fn unpark(&self) {
        self.parked.unpark();
    }

    /// Puts a report, or gives it back and remembers that the shard owes.
    #[allow(clippy::result_large_err, reason = "the report goes back to its owner")]
    pub fn put_report(&self, report: Report) -> Result<(), Report> {
        self.reports.push(report).or_else(|report| {
            self.owes.store(true, Ordering::SeqCst);
            // Control may have drained in between and not seen the flag: try once more.
            self.reports.push(report)
        })
    }
}

fn take_one(credits: &AtomicUsize) -> bool {
    credits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Control's side of being woken: its flag, and a file that its runtime reads.
#[derive(Debug)]
pub struct ControlBell {
    parked: CachePadded<Parked>,
    file: std::os::fd::OwnedFd,
}

impl ControlBell {
    /// A bell over an eventfd.
    pub fn new(file: std::os::fd::OwnedFd) -> Self {
        Self { parked: CachePadded::default(), file }
    }

    /// The eventfd, for the reader in control and for the shards' rings.
    pub fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.file)
    }

    /// Control announces sleep; it must look at the report queues after this.
    pub fn park(&self) {
        self.parked.park();
    }

    /// Control is awake.
    pub fn unpark(&self) {
        self.parked.unpark();
    }

    /// Called by a shard after putting reports: whether it must write the file.
    pub fn take(&self) -> bool {
        self.parked.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    fn push() -> Order {
        Order::All { payload: Payload::encode(1000, b"x") }
    }

    #[test]
    fn pushes_cannot_take_the_places_of_control() {
        let link = ShardLink::with_orders(1, limits::ORDERS_CONTROL_SHARE + 2);
        for _ in 0..2 {
            assert!(link.take_credit());
            link.put_push(push());
        }
        assert!(!link.take_credit(), "dispatch's share is used up");
        for _ in 0..limits::ORDERS_CONTROL_SHARE {
            link.put_control(Order::Drain { deadline_ms: 0 }).expect("control has its share");
        }
        assert!(link.put_control(Order::Drain { deadline_ms: 0 }).is_err());
        link.return_credit();
        assert!(link.put_control(Order::Drain { deadline_ms: 0 }).is_err(), "nor control those of dispatch");
        assert!(link.take_credit());
        assert!(matches!(link.next_order(), Some(Order::All { .. })));
        assert!(link.take_credit(), "a carried out push frees its place");
    }

    #[test]
    fn a_shard_with_orders_does_not_sleep() {
        let link = ShardLink::new(1);
        assert!(link.park(false));
        link.put_control(Order::Drain { deadline_ms: 0 }).expect("empty queue");
        assert!(!link.parked.take(), "whoever put the order took the flag");
        assert!(!link.park(false));
    }

    #[test]
    fn a_shard_that_owes_does_not_sleep_over_the_room_that_control_made() {
        let link = ShardLink::new(1);
        while link.put_report(Report::Drained).is_ok() {}
        assert!(link.park(true), "control will ring");
        link.unpark();
        while link.next_report().is_some() {}
        link.collect_debts();
        assert!(!link.park(true), "control has been, and rang nobody");
    }
}
