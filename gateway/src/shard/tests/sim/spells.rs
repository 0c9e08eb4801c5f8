//! Quiet spells: hours in which little happens beside heartbeats; the clock goes from one deadline to the next.

use halley_protocol::operation;
use halley_ring::Slot;

use super::actor::Stage;
use super::story::Story;
use crate::shard::conn::Phase;
use crate::shard::timers::TICK_MS;

/// Steps of a spell; with many short deadlines it ends early.
const STEPS_MAX: usize = 1500;

/// Something happens at least as often.
const PAUSE_MS_MAX: usize = 40_000;

/// One in so many does not keep its heartbeats, where that may end it.
const FORGETFUL: usize = 5;

/// Deadlines further away than this are none.
const NEVER_MS: u64 = 1 << 30;

impl Story {
    /// Time passes, faster the less there is to do.
    pub(super) fn spell(&mut self) -> String {
        self.rest();
        let minutes: u64 = self.dice.pick(&[1, 20, 60, 240]);
        let until = self.world.now_ms + minutes * 60_000;
        let mut steps = 0;
        while self.world.now_ms < until && steps < STEPS_MAX {
            steps += 1;
            let pause = self.dice.below(PAUSE_MS_MAX) as u64;
            let now_ms = self.world.now_ms;
            self.world.now_ms = self.next_ms().min(now_ms + pause).clamp(now_ms + 1, until);
            self.keep_alive();
            if self.dice.once_in(2) {
                let number = self.pushes.len() as u64;
                self.event(super::events::FIRST_COME + number);
            }
            self.round();
            self.settle();
            self.read();
            if steps % 16 == 0 {
                self.world.control.publish_online(&self.world.links);
            }
        }
        self.rest();
        format!("{minutes} minutes in {steps} steps")
    }

    /// When something is due: a deadline of a shard, or a client's next heartbeat.
    fn next_ms(&self) -> u64 {
        let tick = u64::from(TICK_MS);
        let deadlines = self.world.shards.iter().flat_map(|shard| {
            let conns = (0..shard.table.used()).map(|slot| &shard.table[Slot(slot)]);
            let timed = conns.filter(|conn| !matches!(conn.phase, Phase::Free | Phase::Accepting | Phase::Closing));
            timed.map(move |conn| u64::from(conn.deadline) * tick)
        });
        let beats = (0..self.actors.len()).filter_map(|at| self.beat_ms(at));
        deadlines.chain(beats).filter(|due| *due > self.world.now_ms).min().unwrap_or(NEVER_MS)
    }

    /// When a client says its next heartbeat, if it keeps them: at half of what it may wait.
    fn beat_ms(&self, at: usize) -> Option<u64> {
        let actor = &self.actors[at];
        let max = u64::from(self.world.shards[0].settings.listeners[actor.listener].heartbeat_ms_max);
        let keeps = self.calm || !actor.client.id.0.is_multiple_of(FORGETFUL);
        let says = actor.stage == Stage::In && !actor.partial && max < NEVER_MS;
        (keeps && says).then(|| actor.heartbeat_ms.0.max(actor.beat_ms) + max / 2)
    }

    fn keep_alive(&mut self) {
        let now_ms = self.world.now_ms;
        // Who does not read is not read for ever, so that its heartbeats are not heard.
        for actor in self.actors.iter_mut().filter(|_| self.calm) {
            actor.slow = false;
            actor.client.set_window(usize::MAX);
        }
        for at in 0..self.actors.len() {
            if self.beat_ms(at).is_some_and(|due| due <= now_ms) {
                let actor = &mut self.actors[at];
                actor.beat_ms = now_ms;
                actor.say(operation::HEARTBEAT, b"", now_ms);
                actor.client.drip(usize::MAX);
            }
        }
    }
}
