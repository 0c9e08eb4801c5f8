//! The two queues between a shard and the rest, their credits, and who wakes whom.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use halley_ring::Bell;

use crate::limits;
use crate::order::{Order, Report};
use crate::sabotage::{Bug, planted};
use crate::stats::ShardStats;
use crate::upstream::{Answer, UpstreamLink};

mod parked;

use self::parked::Owes;
pub use self::parked::Parked;

/// What one shard and the rest of the process share.
///
/// Control and dispatch have a queue each. A shard that takes a push carries out all of control's orders
/// before it: a push that knows a connection or a room from the directory finds it in the shard.
#[derive(Debug)]
pub struct ShardLink {
    orders: ArrayQueue<Order>,
    pushes: ArrayQueue<Order>,
    reports: ArrayQueue<Report>,
    /// Places in `pushes` that are not taken.
    credits: CachePadded<AtomicUsize>,
    /// Pushes that the shard has taken, since its start.
    taken: CachePadded<AtomicU64>,
    /// What the pushes that have a place weigh together.
    weight: CachePadded<AtomicUsize>,
    parked: CachePadded<Parked>,
    /// The shard holds reports that found the queue full; ring it after draining.
    owes: CachePadded<Owes>,
    bell: OnceLock<Bell>,
    /// The shard's counters, written by the shard alone.
    pub stats: ShardStats,
    /// Members of each of the shard's rooms in the whole process, for heartbeat replies: written by
    /// control about once a second, indexed by the shard's room index.
    pub room_online: Box<[AtomicU32]>,
    /// What the shard and the upstream thread share, where messages are passed on.
    pub upstream: Option<UpstreamLink>,
}

impl ShardLink {
    /// Queues for one shard whose room table has `rooms_max` places.
    pub fn new(rooms_max: usize) -> Self {
        Self::with_orders(rooms_max, limits::ORDERS_MAX)
    }

    /// The same with another number of places, of which [`limits::ORDERS_CONTROL_SHARE`] stay control's.
    pub fn with_orders(rooms_max: usize, orders_max: usize) -> Self {
        assert!(orders_max > limits::ORDERS_CONTROL_SHARE, "dispatch needs places too");
        let pushes_max = orders_max - limits::ORDERS_CONTROL_SHARE;
        Self::with_places(rooms_max, limits::ORDERS_CONTROL_SHARE, pushes_max, limits::REPORTS_MAX)
    }

    /// The same with so many places for control's orders, for pushes and for reports.
    pub fn with_places(rooms_max: usize, control_max: usize, pushes_max: usize, reports_max: usize) -> Self {
        Self {
            orders: ArrayQueue::new(control_max),
            pushes: ArrayQueue::new(pushes_max),
            reports: ArrayQueue::new(reports_max),
            credits: CachePadded::new(AtomicUsize::new(pushes_max)),
            taken: CachePadded::default(),
            weight: CachePadded::default(),
            parked: CachePadded::default(),
            owes: CachePadded::default(),
            bell: OnceLock::new(),
            stats: ShardStats::default(),
            room_online: bytemuck::zeroed_slice_box(rooms_max),
            upstream: None,
        }
    }

    /// The same with queues for messages that are passed on.
    #[must_use]
    pub fn with_upstream(self, upstream: UpstreamLink) -> Self {
        Self { upstream: Some(upstream), ..self }
    }

    // ---- dispatch and control ----

    /// Takes a place for a push of this weight; give it back with [`Self::return_credit`] or use it with
    /// [`Self::put_push`].
    pub fn take_credit(&self, weight: usize) -> bool {
        let take = |left: usize| left.checked_sub(1);
        if self.credits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).is_err() {
            return false;
        }
        let fits = |waiting: usize| {
            let together = waiting + weight;
            (waiting == 0 || together <= limits::PUSHES_WEIGHT_MAX).then_some(together)
        };
        let taken = self.weight.fetch_update(Ordering::AcqRel, Ordering::Relaxed, fits).is_ok();
        if !taken {
            self.credits.fetch_add(1, Ordering::AcqRel);
        }
        taken
    }

    /// Gives back a place that was taken for this weight.
    pub fn return_credit(&self, weight: usize) {
        self.weight.fetch_sub(weight, Ordering::AcqRel);
        self.credits.fetch_add(1, Ordering::AcqRel);
    }

    /// Puts a push for which a place of its weight was taken, and wakes the shard.
    pub fn put_push(&self, order: Order) {
        debug_assert!(order.is_push());
        let put = self.pushes.push(order);
        assert!(put.is_ok(), "a credit is a place in the queue");
        if !planted(Bug::LostWakeUp) {
            self.wake();
        }
    }

    /// Puts an order of control, or gives it back when its queue is full.
    #[allow(clippy::result_large_err, reason = "the order goes back to its owner")]
    pub fn put_control(&self, order: Order) -> Result<(), Order> {
        debug_assert!(!order.is_push());
        self.orders.push(order)?;
        self.wake();
        Ok(())
    }

    /// Pushes that the shard has taken, since its start.
    pub fn pushes_taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    /// At least the pushes that were put, since the start, when this was called.
    pub fn pushes_put(&self) -> u64 {
        // In this order: what is taken in between counts twice, and nothing is left out.
        let waiting = self.pushes.len() as u64;
        waiting + self.pushes_taken()
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
        if self.owes.collect() && !planted(Bug::DebtorSleeps) {
            self.wake();
        }
    }

    /// Puts the answer to a message that was passed on, and wakes the shard.
    pub fn put_answer(&self, answer: Answer) {
        if let Some(upstream) = &self.upstream {
            upstream.put_answer(answer);
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

    /// Orders, pushes and reports that wait, and the places there are for each.
    pub fn queues(&self) -> [(usize, usize); 3] {
        [
            (self.orders.len(), self.orders.capacity()),
            (self.pushes.len(), self.pushes.capacity()),
            (self.reports.len(), self.reports.capacity()),
        ]
    }

    /// Places for pushes that are not taken, those that are, and what these weigh.
    #[cfg(test)]
    pub(crate) fn places(&self) -> (usize, usize, usize) {
        (self.credits.load(Ordering::SeqCst), self.pushes.len(), self.weight.load(Ordering::SeqCst))
    }

    /// Orders and pushes that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.orders.len() + self.pushes.len()
    }

    // ---- the shard ----

    /// Names the bell of the shard's ring, once, before the shard serves.
    pub fn set_bell(&self, bell: Bell) {
        let first = self.bell.set(bell).is_ok();
        assert!(first, "one ring per shard");
    }

    /// Takes the next order of control.
    pub fn next_control(&self) -> Option<Order> {
        self.orders.pop()
    }

    /// Takes the next push and gives its place back. Before it is carried out, `next_control` must be empty.
    pub fn next_push(&self) -> Option<Order> {
        let order = self.pushes.pop()?;
        // The shard alone writes it.
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Release);
        self.return_credit(order.weight());
        Some(order)
    }

    /// Takes the next order, control's first.
    pub fn next_order(&self) -> Option<Order> {
        self.next_control().or_else(|| self.next_push())
    }

    /// Whether pushes wait.
    pub fn has_pushes(&self) -> bool {
        !self.pushes.is_empty()
    }

    /// Announces sleep, and says whether the shard may sleep: not when orders are waiting, nor when it owes
    /// reports (`owing`) and control has made room since the last attempt.
    pub fn park(&self, owing: bool) -> bool {
        self.parked.park_unless(|| {
            let orders_wait = !self.orders.is_empty() || !self.pushes.is_empty();
            let answers_wait = self.upstream.as_ref().is_some_and(UpstreamLink::has_answers);
            let orders_wait = (orders_wait || answers_wait) && !planted(Bug::ParkWithoutLook);
            orders_wait || owing && self.owes.are_collected()
        })
    }

    /// The shard is awake.
    pub fn unpark(&self) {
        self.parked.unpark();
    }

    /// Puts a report, or gives it back and remembers that the shard owes.
    #[allow(clippy::result_large_err, reason = "the report goes back to its owner")]
    pub fn put_report(&self, report: Report) -> Result<(), Report> {
        self.reports.push(report).or_else(|report| {
            if !planted(Bug::DebtUnsaid) {
                self.owes.owe();
            }
            // Control may have drained in between and not seen the flag: try once more.
            self.reports.push(report)
        })
    }
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
    use crate::order::DrainPlan;
    use crate::payload::{Note, Payload};

    fn push() -> Order {
        Order::All { payload: Payload::encode(1000, b"x", Note::default()) }
    }

    #[test]
    fn pushes_cannot_take_the_places_of_control() {
        let link = ShardLink::with_orders(1, limits::ORDERS_CONTROL_SHARE + 2);
        for _ in 0..2 {
            assert!(link.take_credit(1));
            link.put_push(push());
        }
        assert!(!link.take_credit(1), "dispatch's places are used up");
        for _ in 0..limits::ORDERS_CONTROL_SHARE {
            link.put_control(Order::Drain { plan: DrainPlan::new(0, 0, 0) }).expect("control has its share");
        }
        assert!(link.put_control(Order::Drain { plan: DrainPlan::new(0, 0, 0) }).is_err());
        assert!(matches!(link.next_push(), Some(Order::All { .. })));
        assert!(
            link.put_control(Order::Drain { plan: DrainPlan::new(0, 0, 0) }).is_err(),
            "nor can control take those of dispatch"
        );
        assert!(link.take_credit(1), "a push that was taken frees its place");
    }

    #[test]
    fn pushes_are_refused_by_weight_but_never_a_single_one() {
        let link = ShardLink::new(1);
        assert!(link.take_credit(2 * limits::PUSHES_WEIGHT_MAX), "nothing waits");
        assert!(!link.take_credit(1));
        link.return_credit(2 * limits::PUSHES_WEIGHT_MAX);
        assert!(link.take_credit(limits::PUSHES_WEIGHT_MAX));
        assert!(!link.take_credit(1));
    }

    #[test]
    fn a_shard_with_orders_does_not_sleep() {
        let link = ShardLink::new(1);
        assert!(link.park(false));
        link.put_control(Order::Drain { plan: DrainPlan::new(0, 0, 0) }).expect("empty queue");
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
