//! A random simulation: clients of all kinds over a hostile kernel, and at every step what must hold.

mod actor;
mod dice;
mod events;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use halley_protocol::websocket::Opcode;
use halley_ring::sim::Weather;

use self::actor::{Actor, Pushed};
use self::dice::Dice;
use super::client::Got;
use super::world::{Setup, World};
use crate::ids::ShardIndex;
use crate::reason::{CloseReason, DropReason};
use crate::shard::{ListenerSettings, SlowPolicy, Transport};

/// Seeds that every test run takes.
const SEEDS: u64 = 40;

/// Events of a seed.
const EVENTS: usize = 2500;

/// The listeners of a simulation: generous ones for both transports, then tight ones.
const GENEROUS: usize = 2;

struct Story {
    world: World,
    dice: Dice,
    /// Nobody is ever closed, so that what was sent is what was received.
    calm: bool,
    weather: Weather,
    actors: Vec<Actor>,
    pushes: Vec<Pushed>,
    keys: usize,
    /// Counted by those who have left.
    received: u64,
    /// Rounds in which control does not work.
    control_rests: usize,
    trace: DefaultHasher,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let calm = dice.once_in(3);
        let mut setup = Setup::new().shards(u8::try_from(1 + dice.below(3)).expect("few"));
        setup.seed = seed;
        setup.pushes_max = dice.pick(&[4, 64, 3000]);
        setup.policy.key_connections_max = dice.pick(&[1, 1, 2]);
        let policies = [SlowPolicy::DropNewest, SlowPolicy::DropOldest, SlowPolicy::Close];
        setup.listeners =
            [Transport::Tcp, Transport::WebSocket].iter().cycle().take(4).copied().map(ListenerSettings::new).collect();
        for (at, listener) in setup.listeners.iter_mut().enumerate() {
            let generous = calm || at < GENEROUS;
            listener.outbox_bytes_max =
                if at < GENEROUS { 8 << 20 } else { 300 + u32::try_from(dice.below(1500)).expect("small") };
            listener.slow_policy = if calm { policies[dice.below(2)] } else { dice.pick(&policies) };
            if generous {
                let never = u32::MAX / 2;
                (listener.login_ms_max, listener.stall_ms_max, listener.heartbeat_ms_max) = (never, never, never);
            } else {
                (listener.login_ms_max, listener.stall_ms_max, listener.heartbeat_ms_max) = (2000, 600, 2000);
            }
            listener.linger_ms_max = 100;
        }
        let shard = &mut setup.shard;
        shard.connections_max = dice.pick(&[8, 12, 40]);
        shard.accepts_armed_max = dice.pick(&[1, 2, 5]);
        shard.sends_per_turn_max = dice.pick(&[3, 20, 4096]);
        shard.run_messages_max = dice.pick(&[1, 4, 256]);
        shard.run_bytes_max = dice.pick(&[100, 1000, 16384]);
        if !calm {
            shard.outbox_entries_max = dice.pick(&[16, 4096]);
            shard.partials_max = dice.pick(&[2, 32]);
            shard.room_pending_bytes_max = dice.pick(&[600, 4 << 20, 4 << 20]);
        }
        Self {
            world: setup.build(),
            weather: weather(&mut dice, calm),
            dice,
            calm,
            actors: Vec::new(),
            pushes: Vec::new(),
            keys: 0,
            received: 0,
            control_rests: 0,
            trace: DefaultHasher::new(),
        }
    }

    /// Its trace, and the reasons that it reached.
    fn run(mut self) -> (u64, BTreeSet<&'static str>) {
        for event in 0..EVENTS {
            self.event();
            for _ in 0..self.dice.below(4) {
                self.round();
            }
            if event % 250 == 249 {
                self.rest();
            }
        }
        self.rest();
        self.end();
        (self.trace.finish(), self.reached())
    }

    /// Turns of the shards in any order, and perhaps control; readers read.
    fn round(&mut self) {
        for _ in 0..self.world.shards.len() {
            let at = self.dice.below(self.world.shards.len());
            self.world.turn(at);
        }
        if self.control_rests > 0 {
            self.control_rests -= 1;
        } else {
            let most = self.dice.pick(&[1, 3, 1000]);
            self.world.control_round(most);
        }
        if self.dice.once_in(2) {
            self.read();
        }
    }

    fn read(&mut self) {
        for at in 0..self.actors.len() {
            let actor = &mut self.actors[at];
            if actor.slow {
                let bytes = self.dice.below(60);
                actor.client.read(bytes);
            }
            if !actor.slow || self.dice.once_in(8) {
                let got = actor.take(&self.pushes);
                format!("{at} {got:?}").hash(&mut self.trace);
                self.react(at, &got);
            }
        }
        let gone = |actor: &Actor| actor.client.is_closed() && self.world.net.arrived(actor.client.id) == 0;
        self.received += self.actors.iter().filter(|actor| gone(actor)).map(|actor| actor.received).sum::<u64>();
        self.actors.retain(|actor| !gone(actor));
    }

    /// Who is told to go answers, or leaves, or stays silent.
    fn react(&mut self, at: usize, got: &[Got]) {
        let told = |got: &Got| matches!(got, Got::Close(_) | Got::Kick { .. } | Got::Http(_));
        if got.iter().any(told) {
            let client = &self.actors[at].client;
            match self.dice.below(3) {
                0 if client.transport == Transport::WebSocket => client.frame(true, Opcode::Close, &[]),
                1 => client.half_close(),
                _ => {}
            }
        }
    }

    /// Everything that is on its way arrives; then what was promised must have been kept.
    fn rest(&mut self) {
        self.world.net.set_weather(Weather::default());
        self.control_rests = 0;
        for actor in &mut self.actors {
            actor.client.set_window(usize::MAX);
            actor.slow = false;
        }
        for _ in 0..3 {
            self.world.settle();
            self.world.now_ms += 100;
            self.read();
        }
        let dropped = |world: &World| {
            let slow = [DropReason::SlowNewest, DropReason::SlowOldest, DropReason::RoomBehind];
            slow.iter().map(|reason| world.dropped(*reason)).sum::<u64>()
        };
        let mut missing = 0;
        for actor in &mut self.actors {
            actor.assert_at_rest();
            let misses = std::mem::take(&mut actor.owed);
            let may_miss = actor.may_miss || self.world.dropped(DropReason::RoomBehind) > 0;
            assert!(misses.is_empty() || may_miss, "{misses:?} never came to {:?}", actor.login);
            missing += misses.len() as u64;
        }
        assert!(missing <= dropped(&self.world), "{missing} missed, {} counted", dropped(&self.world));
        let sent = self.world.sum(|stats| &stats.sent);
        let received = self.received + self.actors.iter().map(|actor| actor.received).sum::<u64>();
        if self.calm {
            assert_eq!(sent, received, "nobody was closed");
            let bytes: u64 = self.actors.iter().map(|actor| actor.client.bytes).sum();
            assert_eq!(self.world.sum(|stats| &stats.sent_bytes), bytes);
            assert!(CloseReason::ALL.iter().all(|reason| self.world.closes(*reason) == 0), "calm");
        }
        assert!(sent >= received);
        assert_eq!(self.world.sum(|stats| &stats.queued), 0, "nobody is slow");
        self.world.net.set_weather(self.weather);
    }

    /// Everybody leaves, or is sent away; then nothing must be left.
    fn end(&mut self) {
        self.world.net.set_weather(Weather::default());
        let drains = self.dice.once_in(2);
        if drains {
            self.world.control.drain(2000, &mut self.world.outgoing);
        }
        for actor in &self.actors {
            match self.dice.below(3) {
                0 => actor.client.half_close(),
                1 => actor.client.reset(),
                // Silent until its end.
                _ if drains => {}
                _ => actor.client.half_close(),
            }
        }
        self.world.advance(5000);
        assert_eq!(self.world.drained, if drains { self.world.shards.len() } else { 0 });
        self.world.assert_empty();
        for (at, link) in self.world.links.iter().enumerate() {
            format!("{:?}", link.stats).hash(&mut self.trace);
            assert!(self.world.outgoing.ready(ShardIndex(u8::try_from(at).expect("few"))));
        }
    }

    /// Names of the reasons that were reached.
    fn reached(&self) -> BTreeSet<&'static str> {
        let closes =
            CloseReason::ALL.iter().filter(|reason| self.world.closes(**reason) > 0).map(|reason| reason.name());
        let drops =
            DropReason::ALL.iter().filter(|reason| self.world.dropped(**reason) > 0).map(|reason| reason.name());
        closes.chain(drops).collect()
    }
}

fn weather(dice: &mut Dice, calm: bool) -> Weather {
    let mut chance = |most: usize| u8::try_from(if dice.once_in(2) { 0 } else { dice.below(most) }).expect("small");
    Weather {
        short_send: chance(128),
        blocked_send: chance(128),
        short_recv: chance(200),
        late: chance(128),
        failed_accept: chance(60),
        broken: if calm { 0 } else { chance(2) },
    }
}

/// The standard seeds, or as many as the environment asks for.
fn seeds() -> u64 {
    std::env::var("HALLEY_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn clients_of_all_kinds_get_what_they_are_promised_and_every_reason_is_reached() {
    let mut reached = BTreeSet::new();
    for seed in 0..seeds() {
        let story = std::panic::catch_unwind(|| Story::new(seed).run());
        let Ok((_, names)) = story else { panic!("seed {seed}") };
        reached.extend(names);
    }
    let reasons = CloseReason::ALL.iter().map(|reason| reason.name()).chain(DropReason::ALL.iter().map(|r| r.name()));
    let missing: Vec<_> = reasons.filter(|name| !reached.contains(name)).collect();
    assert!(seeds() < SEEDS || missing.is_empty(), "not reached: {missing:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 4, 5] {
        assert_eq!(Story::new(seed).run(), Story::new(seed).run());
    }
    assert_ne!(Story::new(3).run(), Story::new(4).run());
}
