//! The story of a seed: events, turns between them, and rests at which everything promised must have been kept.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Arc;

use halley_protocol::websocket::Opcode;
use halley_ring::sim::Weather;
use rustls::ClientConfig;

use super::actor::{Actor, Pushed, Stage};
use super::dice::{Dice, Trace};
use super::living::Living;
use super::others::Others;
use super::plan::Plan;
use super::platform;
use super::shadow::Shadow;
use super::source::Source;
use crate::control::decide::Policy;
use crate::ids::ShardIndex;
use crate::order::{DrainPlan, Order};
use crate::reason::{CloseReason, DropReason, Reject};
use crate::shard::tests::client::Got;
use crate::shard::tests::tls::{tls12, tls13};
use crate::shard::tests::world::World;
use crate::shard::{Reloadable, Transport};

/// Events between two rests.
const REST_EVERY: u64 = 250;

/// Times in a row that a source is turned away with the shards at rest, before it is stuck.
const REFUSED_MAX: u64 = 64;

/// Events between two quiet spells, on average.
const SPELL_EVERY: usize = 300;

/// What is left of a story.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) trace: u64,
    pub(super) events: u64,
    /// Reasons that it reached.
    pub(super) reached: BTreeSet<String>,
    /// Milliseconds of its own clock.
    pub(super) simulated_ms: u64,
    /// Most clients at a time of each transport, and of the same in goim v1.
    pub(super) clients: [usize; 4],
}

#[allow(clippy::struct_excessive_bools, reason = "what a story is like is independent of the rest")]
pub(super) struct Story {
    pub(super) seed: u64,
    pub(super) world: World,
    pub(super) living: Living,
    pub(super) shadow: Shadow,
    pub(super) source: Source,
    pub(super) others: Others,
    /// Choices of the present event.
    pub(super) dice: Dice,
    pub(super) calm: bool,
    pub(super) weather: Weather,
    pub(super) actors: Vec<Actor>,
    pub(super) pushes: Vec<Pushed>,
    pub(super) keys: usize,
    pub(super) rooms: usize,
    /// Keys of those who are gone with their login on its way, since the last rest.
    pub(super) haunted: BTreeSet<String>,
    /// Counted by those who have left.
    received: u64,
    /// Rounds in which control does not work.
    pub(super) control_rests: usize,
    pub(super) draining: bool,
    pub(super) policy: Policy,
    /// Settings that the shards were given, the newest last.
    pub(super) reloads: Vec<Arc<Reloadable>>,
    /// Has quiet spells.
    long: bool,
    pub(super) key_policy_replaces: bool,
    pub(super) tokens: bool,
    pub(super) hooks: bool,
    /// What clients speak TLS with, in either version; it has no tickets of another story.
    pub(super) tls: [Arc<ClientConfig>; 2],
    trace: Trace,
    events: u64,
    clients: [usize; 4],
}

/// Transports in goim v2, and in v1.
const CLASSES: [(Transport, bool); 4] =
    [(Transport::Tcp, false), (Transport::WebSocket, false), (Transport::Tcp, true), (Transport::WebSocket, true)];

impl Story {
    pub(super) fn new(seed: u64, long: bool) -> Self {
        let mut plan = Plan::new(seed);
        if long {
            plan.lengthen(seed);
        }
        let Plan { setup, calm, weather, asks, rooms, tokens, hooks } = plan;
        let shadow = Shadow::new(setup.policy.key_connections_max);
        let key_policy_replaces = setup.policy.key_policy == crate::control::decide::KeyPolicy::Replace;
        let policy = setup.policy.clone();
        let mut world = setup.build();
        for shard in &mut world.shards {
            shard.asks.truncate(asks);
        }
        world.asks = asks;
        Self {
            seed,
            living: Living::new(&world),
            shadow,
            source: Source::default(),
            others: Others::default(),
            world,
            dice: Dice::new(seed, 0),
            calm,
            weather,
            actors: Vec::new(),
            pushes: Vec::new(),
            keys: 0,
            rooms,
            haunted: BTreeSet::new(),
            received: 0,
            control_rests: 0,
            draining: false,
            policy,
            reloads: Vec::new(),
            long,
            key_policy_replaces,
            tokens,
            hooks,
            tls: [tls13(), tls12()],
            trace: Trace::new(),
            events: 0,
            clients: [0; 4],
        }
    }

    /// One event, the turns that follow it, and perhaps a rest; what happened, in plain words.
    pub(super) fn play(&mut self, number: u64) -> String {
        self.events += 1;
        self.dice = Dice::new(self.seed, number);
        self.world.net.reseed(self.dice.next());
        let words = if self.long && self.dice.once_in(SPELL_EVERY) { self.spell() } else { self.event(number) };
        for _ in 0..self.dice.below(4) {
            self.round();
        }
        for (count, class) in self.clients.iter_mut().zip(CLASSES) {
            let here = self.actors.iter().filter(|actor| (actor.client.transport, actor.is_v1()) == class).count();
            *count = here.max(*count);
        }
        if number % REST_EVERY == REST_EVERY - 1 {
            self.rest();
        }
        words
    }

    /// The last rest, and the end of everybody.
    pub(super) fn finish(mut self) -> Ending {
        self.dice = Dice::new(self.seed, u64::MAX - 1);
        self.rest();
        self.end();
        Ending {
            trace: self.trace.finish(),
            events: self.events,
            reached: self.reached(),
            simulated_ms: self.world.now_ms,
            clients: self.clients,
        }
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Turns of the shards in any order, and perhaps control; readers read, byte-wise speakers speak.
    pub(super) fn round(&mut self) {
        for _ in 0..self.world.shards.len() {
            let at = self.dice.below(self.world.shards.len());
            let Some(turn) = self.living.turn(&mut self.world, at) else { continue };
            if self.dice.once_in(4) {
                // Others do not wait for a shard to fall asleep.
                self.pull();
            }
            self.living.sleep(&mut self.world, at, turn);
        }
        if self.control_rests > 0 {
            self.control_rests -= 1;
        } else {
            let most = self.dice.pick(&[1, 3, 1000]);
            self.living.control(&mut self.world, most);
            self.listen_to_control();
        }
        if self.hooks {
            for _ in 0..self.dice.below(4).min(self.world.questions.len()) {
                let at = self.dice.below(self.world.questions.len());
                self.world.answer_question(at, platform::answer);
            }
            self.listen_to_control();
        }
        for actor in &self.actors {
            if actor.client.is_speaking() {
                actor.client.drip(1 + self.dice.below(9));
            }
        }
        if self.dice.once_in(2) {
            self.read();
        }
        self.pull();
    }

    fn listen_to_control(&mut self) {
        self.check_reloads();
        for event in std::mem::take(&mut self.world.events) {
            self.shadow.note(&event);
        }
    }

    pub(super) fn read(&mut self) {
        let now_ms = self.world.now_ms;
        for at in 0..self.actors.len() {
            let actor = &mut self.actors[at];
            if actor.slow {
                let bytes = self.dice.below(60);
                actor.client.read(bytes);
            }
            if !actor.slow || self.dice.once_in(8) {
                let got = actor.take(&self.pushes, now_ms);
                let id = actor.client.id.0;
                for got in &got {
                    writeln!(self.trace, "{id} {got:?}").expect("a trace takes all");
                    self.check_word(at, got);
                }
                self.react(at, &got);
            }
        }
        let gone = |actor: &Actor| actor.client.is_closed() && self.world.net.arrived(actor.client.id) == 0;
        self.received += self.actors.iter().filter(|actor| gone(actor)).map(|actor| actor.received).sum::<u64>();
        for at in (0..self.actors.len()).rev().filter(|at| gone(&self.actors[*at])).collect::<Vec<_>>() {
            let actor = self.actors.remove(at);
            if actor.is_logging_in() {
                self.haunt(actor.login.key);
            }
        }
    }

    /// Control may yet admit somebody of this key who is gone already, and send away whoever has the key then.
    fn haunt(&mut self, key: String) {
        for other in self.actors.iter_mut().filter(|other| other.login.key == key) {
            other.expects.extend([CloseReason::Replaced, CloseReason::LoginRefused]);
            other.contested = true;
            if other.stage == Stage::In {
                other.end();
            }
        }
        self.haunted.insert(key);
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

    pub(super) fn settle(&mut self) {
        self.living.settle(&mut self.world);
        self.listen_to_control();
    }

    /// Everything that is on its way arrives; then what was promised must have been kept.
    pub(super) fn rest(&mut self) {
        self.world.net.set_weather(Weather::default());
        self.control_rests = 0;
        (0..self.world.shards.len()).for_each(|at| self.world.order(at, Order::HoldAccepts { hold: false }));
        for actor in &mut self.actors {
            actor.client.set_window(usize::MAX);
            actor.slow = false;
            actor.client.drips = false;
            actor.client.drip(usize::MAX);
        }
        for _ in 0..4 {
            self.settle();
            for actor in self.actors.iter_mut().filter(|actor| actor.accepted_ms.is_none()) {
                let accepted = self.world.net.accepted_by(actor.client.id).is_some();
                actor.accepted_ms = accepted.then_some(self.world.now_ms);
            }
            while self.source.next().is_some() && self.source.refused < REFUSED_MAX {
                self.pull();
                self.settle();
            }
            self.world.now_ms += 100;
            self.read();
        }
        self.settle();
        self.read();
        self.haunted.clear();
        self.check_at_rest();
        self.check_counts();
        let lost = |actor: &&Actor| actor.stage == Stage::Ending;
        let leaving: Vec<_> = self.actors.iter().filter(lost).map(|actor| actor.client.id).collect();
        for id in leaving {
            if self.dice.once_in(2) {
                self.world.net.close(id);
            }
        }
        self.world.net.set_weather(self.weather);
    }

    /// What was sent, received and dropped adds up.
    fn check_counts(&mut self) {
        let slow = [DropReason::SlowNewest, DropReason::SlowOldest, DropReason::RoomBehind];
        let dropped: u64 = slow.iter().map(|reason| self.world.dropped(*reason)).sum();
        let behind = self.world.dropped(DropReason::RoomBehind) > 0;
        let mut missing = 0;
        for actor in &mut self.actors {
            let misses = std::mem::take(&mut actor.owed);
            assert!(misses.is_empty() || actor.may_miss || behind, "{misses:?} never came to {}", actor.name());
            missing += misses.len() as u64;
        }
        assert!(missing <= dropped, "{missing} missed, {dropped} counted");
        let sent = self.world.sum(|stats| &stats.sent);
        let received = self.received + self.actors.iter().map(|actor| actor.received).sum::<u64>();
        if self.calm {
            assert_eq!(sent, received, "nobody was closed");
            let bytes: u64 = self.actors.iter().map(|actor| actor.client.bytes).sum();
            assert_eq!(self.world.sum(|stats| &stats.sent_bytes), bytes, "bytes that the kernel took");
            assert!(CloseReason::ALL.iter().all(|reason| self.world.closes(*reason) == 0), "calm");
        }
        assert!(sent >= received, "{received} received, {sent} sent");
        assert_eq!(self.world.sum(|stats| &stats.queued), 0, "nobody is slow");
    }

    /// Everybody leaves, or is sent away; then nothing must be left.
    fn end(&mut self) {
        self.world.net.set_weather(Weather::default());
        self.draining = self.dice.once_in(2);
        if self.draining {
            let evict_ms = self.dice.pick(&[0, 500, 1500]);
            let window_ms = evict_ms + self.dice.pick(&[0, 5000]);
            let plan = DrainPlan { evict_ms, window_ms, deadline_ms: 2000 };
            self.world.control.drain(plan, &mut self.world.outgoing);
        }
        for actor in &mut self.actors {
            actor.end();
            match self.dice.below(3) {
                0 => actor.client.half_close(),
                1 => actor.client.reset(),
                // Silent until its end.
                _ if self.draining => {}
                _ => actor.client.half_close(),
            }
        }
        for _ in 0..50 {
            self.world.now_ms += 100;
            self.settle();
            self.read();
        }
        assert_eq!(self.world.drained, if self.draining { self.world.shards.len() } else { 0 });
        self.shadow.compare(&self.world);
        self.world.assert_empty();
        self.end_of_others();
        for (at, link) in self.world.links.iter().enumerate() {
            writeln!(self.trace, "{:?}", link.stats).expect("a trace takes all");
            assert!(self.world.outgoing.ready(ShardIndex(u8::try_from(at).expect("few"))));
        }
    }

    /// Names of the reasons that were reached.
    fn reached(&self) -> BTreeSet<String> {
        let world = &self.world;
        let closes = CloseReason::ALL.iter().filter(|reason| world.closes(**reason) > 0);
        let drops = DropReason::ALL.iter().filter(|reason| world.dropped(**reason) > 0);
        let rejects = Reject::ALL.iter().filter(|reject| world.rejects(**reject) > 0);
        let closes = closes.map(|reason| format!("close {}", reason.name()));
        let drops = drops.map(|reason| format!("drop {}", reason.name()));
        closes.chain(drops).chain(rejects.map(|reject| format!("reject {}", reject.name()))).collect()
    }
}
