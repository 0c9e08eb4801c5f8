//! The world with sleep in it: a shard or control that sleeps does nothing until it is woken.

use std::cell::RefCell;
use std::rc::Rc;

use halley_ring::sim::SimRing;
use halley_ring::{Ring, Slot, Wait};

use super::platform;
use crate::shard::conn::{Conn, Phase};
use crate::shard::tests::world::World;
use crate::shard::{AcceptRate, Shard, Turn};

/// Longest sleep of a shard.
const SLEEP_MS_MAX: u64 = 100;

/// Replies that one connection can have in a turn: to its packets, to its question, and its last words.
const REPLIES_MAX: u64 = 4;

impl Shard<SimRing> {
    /// Connections whose login stands, and those of them that are about to end.
    pub(super) fn logged_in(&self) -> (u64, u64) {
        let open = self.table.hot.iter().filter(|conn| conn.phase == Phase::Open).count();
        let ends = |conn: &&Conn| matches!(conn.phase, Phase::Lingering | Phase::Closing) && conn.ticket != 0;
        (open as u64, self.table.hot.iter().filter(ends).count() as u64)
    }

    /// After a turn nobody is there whose deadline has passed, or who has taken nothing for too long.
    fn assert_nobody_is_late(&self, turn: Turn) {
        if turn == Turn::Busy {
            return;
        }
        for slot in (0..self.table.used()).map(Slot) {
            let conn = &self.table[slot];
            match conn.phase {
                Phase::Free | Phase::Accepting | Phase::Closing => {}
                phase => {
                    assert!(self.tick < conn.deadline, "{slot:?} {phase:?} at {} until {}", self.tick, conn.deadline);
                    let stalled =
                        phase == Phase::Open && conn.outbox != 0 && self.tick >= self.outboxes.stall_at(conn.outbox);
                    assert!(!stalled, "{slot:?} has stalled");
                }
            }
        }
    }
}

impl Shard<SimRing> {
    /// A drain keeps its pace: nobody is told before its time.
    fn assert_nobody_goes_early(&self) {
        let Some(drain) = self.draining else { return };
        let used = u64::from(self.table.used());
        let elapsed = (self.now_ms - drain.begun_ms).min(drain.plan.evict_ms.into());
        let due = used * elapsed / u64::from(drain.plan.evict_ms.max(1));
        let told = u64::from(drain.cursor);
        assert!(told <= due || drain.plan.evict_ms == 0, "{told} of {used} slots told after {elapsed} ms");
    }
}

/// Nobody is accepted beyond the rate.
fn assert_accepts_keep_their_rate(shard: &Shard<SimRing>, accepted: u64, now_ms: u64) {
    let AcceptRate { per_1000_s, burst } = shard.settings.accept_rate;
    let most = u64::from(burst) + per_1000_s * now_ms / 1_000_000;
    assert!(per_1000_s == 0 || accepted <= most, "{accepted} accepted of {most}");
}

/// Who sleeps.
pub(super) struct Living {
    /// Since when each shard sleeps.
    asleep: Vec<Option<u64>>,
    /// How often the shards had notified control when it fell asleep.
    control_asleep: Option<u64>,
    notified: Vec<Rc<RefCell<u64>>>,
}

impl Living {
    pub(super) fn new(world: &World) -> Self {
        Self {
            asleep: vec![None; world.shards.len()],
            control_asleep: None,
            notified: world.shards.iter().map(|shard| shard.ring.notified()).collect(),
        }
    }

    fn notified(&self) -> u64 {
        self.notified.iter().map(|count| *count.borrow()).sum()
    }

    /// A turn of a shard unless it sleeps. What comes next is its [`Self::sleep`].
    pub(super) fn turn(&mut self, world: &mut World, at: usize) -> Option<Turn> {
        let now_ms = world.now_ms;
        let shard = &mut world.shards[at];
        if let Some(since) = self.asleep[at] {
            if !shard.ring.is_woken() && now_ms < since + SLEEP_MS_MAX {
                return None;
            }
            self.asleep[at] = None;
            shard.ring.wait(Wait::Sleep(std::time::Duration::from_millis(SLEEP_MS_MAX)));
            shard.link.unpark();
        }
        let sends = world.links[at].stats.sends.get();
        shard.ring.set_now_us(now_ms * 1000);
        let turn = shard.turn(now_ms);
        let stats = &world.links[at].stats;
        let (offered, accounted) = stats.law();
        assert_eq!(offered, accounted, "offered = sent + dropped + queued, after every turn");
        assert_eq!(stats.delivery_us.count(), stats.sent.get(), "what was sent was measured, after every turn");
        assert!(stats.balance().holds(), "what is published adds up");
        let sends_max = u64::from(shard.settings.sends_per_turn_max) + REPLIES_MAX * stats.connections.get() + 64;
        assert!(stats.sends.get() - sends <= sends_max, "{} sends in a turn", stats.sends.get() - sends);
        shard.assert_nobody_is_late(turn);
        shard.assert_nobody_goes_early();
        assert_accepts_keep_their_rate(shard, stats.accepted.get(), now_ms);
        Some(turn)
    }

    /// What follows a turn: sleep, if there is nothing to do.
    pub(super) fn sleep(&mut self, world: &mut World, at: usize, turn: Turn) {
        let shard = &mut world.shards[at];
        match shard.park(turn) {
            Wait::Sleep(_) => {
                assert_eq!(world.links[at].waiting(), 0, "shard {at} falls asleep over orders");
                shard.ring.fall_asleep();
                self.asleep[at] = Some(world.now_ms);
            }
            Wait::Poll => {
                // What it owes is no reason: the queue that was full in its turn is still so.
                let idles = turn == Turn::Idle && world.links[at].waiting() == 0;
                assert!(!idles, "shard {at} has nothing to do and does not sleep");
                shard.ring.wait(Wait::Poll);
                shard.link.unpark();
            }
        }
    }

    /// A round of control unless it sleeps; whether anything happened.
    pub(super) fn control(&mut self, world: &mut World, most: usize) -> bool {
        // Its own tick wakes it for grants that have ended.
        world.control.set_now(world.now_s());
        let rung = self.control_asleep.is_none_or(|notified| notified != self.notified());
        if !rung && world.outgoing.waiting() == 0 && !world.control.is_due() {
            return false;
        }
        world.bell.unpark();
        self.control_asleep = None;
        let busy = world.control_round(most);
        if !busy {
            world.bell.park();
            if world.links.iter().any(|link| link.has_reports()) {
                world.bell.unpark();
                return true;
            }
            self.control_asleep = Some(self.notified());
        }
        true
    }

    /// Goes on until everybody sleeps. Who sleeps over work that waits for it has lost its wake-up.
    pub(super) fn settle(&mut self, world: &mut World) {
        for _ in 0..20_000 {
            let mut busy = false;
            for at in 0..world.shards.len() {
                let Some(turn) = self.turn(world, at) else { continue };
                self.sleep(world, at, turn);
                busy |= turn != Turn::Done;
            }
            busy |= self.control(world, usize::MAX);
            if !world.questions.is_empty() {
                world.answer_question(0, platform::answer);
                busy = true;
            }
            if !busy {
                for (at, link) in world.links.iter().enumerate() {
                    let done = self.asleep[at].is_none();
                    assert!(done || link.waiting() == 0, "shard {at} sleeps over {} orders", link.waiting());
                    assert!(!link.has_reports(), "control sleeps over a report of shard {at}");
                    assert!(done || !world.shards[at].owes(), "shard {at} sleeps over what it owes");
                }
                return;
            }
        }
        panic!("the shards never come to rest");
    }
}
