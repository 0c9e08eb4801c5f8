//! One timer per connection in a coarse wheel, linked through the connections themselves.

use halley_ring::Slot;

use super::conn::{Conn, Table};

/// Milliseconds of a tick: how exact deadlines are.
pub(super) const TICK_MS: u32 = 100;

/// Buckets of the wheel, one a tick: later deadlines are put in again when their bucket comes round.
const BUCKETS: u32 = 8192;

/// Ticks that hold so many milliseconds, rounded up.
pub(super) fn ticks(ms: u32) -> u32 {
    ms.div_ceil(TICK_MS)
}

/// The wheel. Slots are held one higher; 0 is none.
pub(super) struct Wheel {
    heads: Box<[u32]>,
    /// The tick whose bucket was emptied last.
    now: u32,
}

impl Wheel {
    pub(super) fn new() -> Self {
        Self { heads: bytemuck::zeroed_slice_box(BUCKETS as usize), now: 0 }
    }

    /// Whether no timer is set.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.heads.iter().all(|head| *head == 0)
    }

    fn bucket(tick: u32) -> usize {
        (tick % BUCKETS) as usize
    }

    /// Sets the connection's timer for a tick, or moves it there.
    pub(super) fn set(&mut self, table: &mut Table, slot: Slot, tick: u32) {
        self.clear(table, slot);
        let tick = tick.clamp(self.now + 1, self.now + BUCKETS - 1);
        let bucket = Self::bucket(tick);
        let next = self.heads[bucket];
        let conn = &mut table[slot];
        conn.timer_at = tick;
        conn.timer_next = next;
        conn.timer_prev = 0;
        if next != 0 {
            table[Slot(next - 1)].timer_prev = slot.0 + 1;
        }
        self.heads[bucket] = slot.0 + 1;
    }

    /// Takes the connection out of the wheel.
    pub(super) fn clear(&mut self, table: &mut Table, slot: Slot) {
        let Conn { timer_at, timer_next, timer_prev, .. } = table[slot];
        if timer_at == 0 {
            return;
        }
        if timer_prev == 0 {
            self.heads[Self::bucket(timer_at)] = timer_next;
        } else {
            table[Slot(timer_prev - 1)].timer_next = timer_next;
        }
        if timer_next != 0 {
            table[Slot(timer_next - 1)].timer_prev = timer_prev;
        }
        let conn = &mut table[slot];
        (conn.timer_at, conn.timer_next, conn.timer_prev) = (0, 0, 0);
    }

    /// The next connection whose tick has come; `None` when the wheel stands at `now`.
    pub(super) fn next(&mut self, table: &mut Table, now: u32) -> Option<Slot> {
        while self.now < now {
            let head = self.heads[Self::bucket(self.now + 1)];
            if head != 0 {
                let slot = Slot(head - 1);
                self.clear(table, slot);
                return Some(slot);
            }
            self.now += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, table: &mut Table, now: u32) -> Vec<u32> {
        let mut slots: Vec<_> = std::iter::from_fn(|| wheel.next(table, now).map(|slot| slot.0)).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn timers_fire_at_their_tick_and_once() {
        let (mut wheel, mut table) = (Wheel::new(), Table::new(8));
        for (slot, tick) in [(0, 5), (1, 5), (2, 6), (3, 5)] {
            wheel.set(&mut table, Slot(slot), tick);
        }
        wheel.clear(&mut table, Slot(1));
        assert!(fired(&mut wheel, &mut table, 4).is_empty());
        assert_eq!(fired(&mut wheel, &mut table, 5), [0, 3]);
        assert_eq!(fired(&mut wheel, &mut table, 9), [2]);
        assert!(fired(&mut wheel, &mut table, 20000).is_empty());
    }

    #[test]
    fn who_has_no_timer_loses_none_of_others() {
        let (mut wheel, mut table) = (Wheel::new(), Table::new(2));
        // The bucket of tick 0.
        wheel.now = 5;
        wheel.set(&mut table, Slot(0), BUCKETS);
        wheel.clear(&mut table, Slot(1));
        assert_eq!(fired(&mut wheel, &mut table, BUCKETS), [0]);
    }

    #[test]
    fn a_timer_can_be_moved_both_ways() {
        let (mut wheel, mut table) = (Wheel::new(), Table::new(2));
        wheel.set(&mut table, Slot(0), 100);
        wheel.set(&mut table, Slot(0), 3);
        wheel.set(&mut table, Slot(1), 3);
        wheel.set(&mut table, Slot(1), 7);
        assert_eq!(fired(&mut wheel, &mut table, 3), [0]);
        assert_eq!(fired(&mut wheel, &mut table, 200), [1]);
    }

    #[test]
    fn a_tick_that_has_passed_fires_with_the_next() {
        let (mut wheel, mut table) = (Wheel::new(), Table::new(1));
        assert!(fired(&mut wheel, &mut table, 50).is_empty());
        wheel.set(&mut table, Slot(0), 10);
        assert_eq!(fired(&mut wheel, &mut table, 51), [0]);
    }

    #[test]
    fn a_far_deadline_fires_early_and_can_be_set_again() {
        let (mut wheel, mut table) = (Wheel::new(), Table::new(1));
        wheel.set(&mut table, Slot(0), 1_000_000);
        let at = (1..10_000).find(|now| wheel.next(&mut table, *now).is_some());
        assert_eq!(at, Some(BUCKETS - 1));
    }
}
