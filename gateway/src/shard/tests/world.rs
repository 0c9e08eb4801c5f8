//! A gateway in one thread: shards on simulated rings, the real queues, directory, dispatch and decisions.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_ring::sim::{SimNet, SimRing, Weather};
use halley_ring::{Ring, Slot};

use super::client::{Client, Got};
use crate::compression::Compression;
use crate::control::decide::{
    Control, Event, HookAnswer, HookPolicy, KeyPolicy, LoginRule, OrderSink, OutgoingQueues, Policy, Question,
};
use crate::directory::{Directory, DirectoryWriter, HashSecret};
use crate::dispatch::{Dispatch, DispatchError, Dispatched, Target};
use crate::identity::testing;
use crate::ids::{ConnWord, ShardIndex};
use crate::limits;
use crate::link::{ControlBell, ShardLink};
use crate::networks::{Networks, Prefixes};
use crate::order::Order;
use crate::payload::Note;
use crate::reason::{CloseReason, DropReason, Reject};
use crate::shard::conn::flag;
use crate::shard::{ListenerSettings, Shard, ShardSettings, Transport, Turn};
use crate::stats::{Counter, ShardStats};
use crate::upstream::UpstreamLink;

/// What a world is made of; the listeners are one for TCP and one for WebSocket unless changed.
pub(super) struct Setup {
    pub(super) shards: u8,
    pub(super) seed: u64,
    pub(super) weather: Weather,
    pub(super) listeners: Vec<ListenerSettings>,
    /// For every shard; `index` and `listeners` are filled in.
    pub(super) shard: ShardSettings,
    pub(super) policy: Policy,
    /// Places in the order queue that pushes can take.
    pub(super) pushes_max: usize,
    /// Places for control's orders, and for reports.
    pub(super) control_max: usize,
    pub(super) reports_max: usize,
    /// Level, and bytes from which on pushes are compressed.
    pub(super) compression: (u8, usize),
    /// Messages that each shard may have passed on without their answers; what is passed on is in `shard`.
    pub(super) in_flight_max: usize,
}

impl Setup {
    pub(super) fn new() -> Self {
        let mut shard = ShardSettings::new(ShardIndex(0), 64, Arc::new([]));
        shard.accepts_armed_max = 2;
        shard.rooms_max = 256;
        shard.outbox_entries_max = 4096;
        shard.pinned_bytes_max = 4 << 20;
        shard.partials_max = 32;
        Self {
            shards: 1,
            seed: 1,
            weather: Weather::default(),
            listeners: vec![ListenerSettings::new(Transport::Tcp), ListenerSettings::new(Transport::WebSocket)],
            shard,
            policy: Policy {
                listeners: vec![LoginRule::Open; 8],
                key_connections_max: 1,
                key_policy: KeyPolicy::Replace,
                room_members_max: 0,
                hooks: HookPolicy::default(),
            },
            pushes_max: limits::ORDERS_MAX - limits::ORDERS_CONTROL_SHARE,
            control_max: limits::ORDERS_CONTROL_SHARE,
            reports_max: limits::REPORTS_MAX,
            compression: (6, 60),
            in_flight_max: 64,
        }
    }

    /// Applies a change to all listeners.
    pub(super) fn listeners(mut self, change: impl Fn(&mut ListenerSettings)) -> Self {
        self.listeners.iter_mut().for_each(change);
        self
    }

    pub(super) fn shard(mut self, change: impl FnOnce(&mut ShardSettings)) -> Self {
        change(&mut self.shard);
        self
    }

    /// Networks of 28 bits, which have so many connections at most; in the simulated network sixteen clients in a row
    /// are of two.
    pub(super) fn networks(self, most: u32) -> Self {
        let prefixes = Prefixes { v4_bits: 28, v6_bits: 124 };
        let networks = Arc::new(Networks::new(64, prefixes, &HashSecret::fixed(1)));
        self.shard(|shard| (shard.network_connections_max, shard.networks) = (most, Arc::clone(&networks)))
    }

    pub(super) fn shards(self, shards: u8) -> Self {
        Self { shards, ..self }
    }

    pub(super) fn build(self) -> World {
        let net = SimNet::new(self.listeners.len(), self.seed, self.weather);
        let rooms_max = self.shard.rooms_max as usize;
        let link = || ShardLink::with_places(rooms_max, self.control_max, self.pushes_max, self.reports_max);
        let file = std::fs::File::options().write(true).open("/dev/null").expect("a file");
        let bell = Arc::new(ControlBell::new(file.into()));
        let compresses = self.listeners.iter().any(|listener| listener.compression);
        let compression = compresses.then(|| Arc::new(Compression::new(self.compression.0, self.compression.1)));
        let passing = |link: ShardLink| match &self.shard.upstream {
            Some(_) => link.with_upstream(UpstreamLink::new(self.in_flight_max, Arc::clone(&bell))),
            None => link,
        };
        let links: Arc<[_]> = (0..self.shards).map(|_| Arc::new(passing(link()))).collect();
        let listeners: Arc<[_]> = self.listeners.into();
        let accepts = self.shard.accepts_armed_max * u16::try_from(listeners.len()).expect("few");
        let shard = |(at, link): (usize, &Arc<ShardLink>)| {
            let index = ShardIndex(u8::try_from(at).expect("few shards"));
            let settings = ShardSettings { index, listeners: Arc::clone(&listeners), ..self.shard.clone() };
            let ring = net.ring(settings.connections_max, accepts);
            link.set_bell(ring.bell());
            Shard::new(settings, ring, Arc::clone(link), Arc::clone(&bell))
        };
        let shards = links.iter().enumerate().map(shard).collect();
        let writer = DirectoryWriter::new(usize::from(self.shards), rooms_max, &HashSecret::fixed(self.seed));
        let directory = Arc::clone(writer.directory());
        let mut made = 0_u128;
        let random = move || {
            made += 1;
            made.to_be_bytes()
        };
        let mut control = Control::new(writer, self.policy, random);
        control.set_tokens(testing::tokens());
        let mut world = World {
            net,
            shards,
            control,
            outgoing: OutgoingQueues::new(Arc::clone(&links)),
            dispatch: Dispatch::new(Arc::clone(&directory), Arc::clone(&links)).compressing(compression.clone()),
            compression,
            directory,
            links,
            now_ms: 0,
            events: Vec::new(),
            questions: Vec::new(),
            gone: HashSet::new(),
            drained: 0,
            control_works: true,
            bell,
            places_max: self.pushes_max,
            asks: limits::ASKS_MAX,
        };
        world.settle();
        world
    }
}

pub(super) struct World {
    pub(super) net: SimNet,
    pub(super) shards: Vec<Shard<SimRing>>,
    pub(super) links: Arc<[Arc<ShardLink>]>,
    pub(super) control: Control,
    pub(super) outgoing: OutgoingQueues,
    pub(super) dispatch: Dispatch,
    pub(super) compression: Option<Arc<Compression>>,
    pub(super) directory: Arc<Directory>,
    pub(super) now_ms: u64,
    pub(super) events: Vec<Event>,
    /// Questions to the platform that it has not answered.
    pub(super) questions: Vec<(u64, Question)>,
    gone: HashSet<ConnWord>,
    pub(super) drained: usize,
    /// Whether control takes reports.
    pub(super) control_works: bool,
    pub(super) bell: Arc<ControlBell>,
    /// Places for pushes in each shard's queue.
    pub(super) places_max: usize,
    /// Buffers for questions in each shard.
    pub(super) asks: usize,
}

impl World {
    pub(super) fn new() -> Self {
        Setup::new().build()
    }

    /// One turn of every shard, and a round of control; whether anything happened or is left to do.
    pub(super) fn round(&mut self) -> bool {
        let mut busy = false;
        for at in 0..self.shards.len() {
            let before = self.shards[at].ring.counters().completions;
            busy |= self.turn(at) || self.shards[at].ring.counters().completions > before;
        }
        busy | (self.control_works && self.control_round(usize::MAX))
    }

    /// A turn of one shard, and its sleep; whether work is left.
    pub(super) fn turn(&mut self, at: usize) -> bool {
        let shard = &mut self.shards[at];
        shard.ring.set_now_us(self.now_ms * 1000);
        let turn = shard.turn(self.now_ms);
        let stats = &self.links[at].stats;
        let (offered, accounted) = stats.law();
        assert_eq!(offered, accounted, "offered = sent + dropped + queued, after every turn");
        assert_eq!(stats.delivery_us.count(), stats.sent.get(), "what was sent was measured, after every turn");
        let (received, answered) = stats.upstream.law();
        assert_eq!(received, answered, "received = acknowledged + refused + in flight, after every turn");
        shard.wait(turn);
        turn == Turn::Busy
    }

    /// Control handles at most so many reports of each shard; whether there were any, or orders wait.
    pub(super) fn control_round(&mut self, most: usize) -> bool {
        self.control.set_now(self.now_s());
        let mut busy = self.control.is_due();
        self.control.expire(&mut self.outgoing);
        for at in 0..self.shards.len() {
            let shard = ShardIndex(u8::try_from(at).expect("few shards"));
            for _ in 0..most {
                if !self.outgoing.ready(shard) {
                    break;
                }
                let Some(report) = self.links[at].next_report() else { break };
                busy = true;
                let event = self.control.handle(shard, report, &mut self.outgoing);
                self.note(event);
            }
            self.links[at].collect_debts();
        }
        busy || self.outgoing.waiting() > 0
    }

    /// The time that tokens are measured by.
    pub(super) fn now_s(&self) -> u64 {
        testing::EPOCH_S + self.now_ms / 1000
    }

    fn note(&mut self, event: Option<Event>) {
        match &event {
            Some(Event::Asks { token, question }) => self.questions.push((*token, Question::clone(question))),
            Some(Event::Gone { conn, .. }) => assert!(self.gone.insert(*conn), "{conn:?} is gone twice"),
            Some(Event::Drained { .. }) => self.drained += 1,
            _ => {}
        }
        self.events.extend(event);
    }

    /// The platform answers the question at this place among those that wait.
    pub(super) fn answer_question(&mut self, at: usize, answer: impl FnOnce(&Question) -> HookAnswer) {
        let (token, question) = self.questions.remove(at);
        let event = self.control.hook_answered(token, answer(&question), &mut self.outgoing);
        self.note(event);
    }

    /// Lets the only login that is asked for be granted; its answer, which the caller puts when it likes.
    pub(super) fn grant_without_answer(&mut self) -> Order {
        self.control_works = false;
        self.settle();
        self.control_round(1);
        self.control_works = true;
        let grant = self.links[0].next_order().expect("the grant");
        let answer = self.links[0].next_order().expect("the answer");
        self.links[0].put_control(grant).expect("a place");
        answer
    }

    /// Rounds until nothing happens any more. A shard that never comes to rest fails.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..20_000 {
            quiet = if self.round() { 0 } else { quiet + 1 };
            if quiet == 4 {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// Lets time pass, in steps of a tick.
    pub(super) fn advance(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = until.min(self.now_ms + 100);
            self.settle();
        }
    }

    /// Connects to the listener of a transport and is accepted.
    pub(super) fn connect(&mut self, transport: Transport) -> Client {
        let listener = usize::from(transport == Transport::WebSocket);
        let client = Client::connect(&self.net, listener, transport);
        self.settle();
        client
    }

    /// Connects and logs in.
    pub(super) fn enter(&mut self, transport: Transport, login: &Login) -> Client {
        let mut client = self.connect(transport);
        client.login(login);
        self.settle();
        let welcome = Got::Reply { operation: operation::AUTH_REPLY, sequence: 1, body: Vec::new() };
        assert_eq!(client.take(), [welcome]);
        client
    }

    /// Says a packet and returns the body of its reply, the only thing that arrives.
    pub(super) fn ask(&mut self, client: &mut Client, operation: i32, body: &[u8]) -> (i32, Vec<u8>) {
        let asked = client.send(operation, body);
        self.settle();
        match client.take().as_slice() {
            [Got::Reply { operation, sequence, body }] => {
                assert_eq!(*sequence, asked, "the reply has the sequence of its request");
                (*operation, body.clone())
            }
            other => panic!("one reply, not {other:?}"),
        }
    }

    pub(super) fn dispatch(&self, target: &Target, operation: i32, body: &str) -> Result<Dispatched, DispatchError> {
        self.dispatch.push(target, operation, body.as_bytes(), Note::new(self.now_ms * 1000, None))
    }

    /// Pushes to a room and lets it arrive.
    pub(super) fn push_room(&mut self, room: &str, body: &str) {
        self.dispatch(&Target::Room(room.into()), 1000, body).expect("places in the queues");
        self.settle();
    }

    /// Puts an order of control.
    pub(super) fn order(&mut self, shard: usize, order: Order) {
        self.outgoing.put(ShardIndex(u8::try_from(shard).expect("few")), order);
    }

    pub(super) fn kick(&mut self, key: &str) {
        assert!(self.control.kick(key, CloseReason::Kicked, &mut self.outgoing) > 0, "{key} is there");
        self.settle();
    }

    pub(super) fn stats(&self, shard: usize) -> &ShardStats {
        &self.links[shard].stats
    }

    pub(super) fn sum(&self, counter: impl Fn(&ShardStats) -> &Counter) -> u64 {
        self.links.iter().map(|link| counter(&link.stats).get()).sum()
    }

    pub(super) fn closes(&self, reason: CloseReason) -> u64 {
        self.sum(|stats| &stats.closes[reason.at()])
    }

    pub(super) fn dropped(&self, reason: DropReason) -> u64 {
        self.sum(|stats| &stats.dropped[reason.at()])
    }

    pub(super) fn rejects(&self, reject: Reject) -> u64 {
        self.sum(|stats| &stats.rejects[reject.at()])
    }

    /// After everybody has left nothing must be left of them.
    pub(super) fn assert_empty(&mut self) {
        for (at, shard) in self.shards.iter().enumerate() {
            let stats = &self.links[at].stats;
            let closes: u64 = stats.closes.iter().map(Counter::get).sum();
            assert_eq!(closes, stats.accepted.get(), "every connection ends with one reason");
            assert_eq!(stats.queued.get(), 0, "queued");
            assert_eq!((stats.blocked.get(), stats.pinned_bytes.get()), (0, 0), "blocked, pinned");
            assert_eq!((stats.connections.get(), stats.rooms.get()), (0, 0), "connections, rooms");
            shard.assert_empty(self.asks);
            if let Some(link) = &self.links[at].upstream {
                assert_eq!(link.in_use(), 0, "messages and answers on their way");
            }
            assert_eq!(shard.settings.networks.all(), 0, "networks");
        }
        assert_eq!((self.directory.connections(), self.directory.rooms()), (0, 0), "the directory");
        assert_eq!((self.directory.addresses(), self.control.pending()), (0, 0), "addresses, questions");
        assert_eq!(self.control.stays(), 0, "those who are gone and were not told of");
    }
}

impl Shard<SimRing> {
    /// The addresses of connections that count in their networks.
    pub(super) fn counted(&self) -> Vec<IpAddr> {
        let slots = (0..self.table.used()).map(Slot);
        slots.filter(|slot| self.table[*slot].has(flag::COUNTED)).map(|slot| self.table.peer(slot).ip()).collect()
    }

    fn assert_empty(&self, asks: usize) {
        assert_eq!(self.open, 0, "open connections");
        assert_eq!(self.runs.live(), 0, "runs");
        assert_eq!(self.chunks.kept(), 0, "kept chunks");
        assert_eq!(self.tls.in_use(), (0, 0, 0), "TLS sessions, kept inboxes, handshakes that wait");
        assert_eq!(self.accept_sets.in_use(), 0, "accept sets");
        assert_eq!(self.outboxes.in_use(), (0, 0), "outboxes and their entries");
        assert_eq!(self.rooms.in_use(), (0, 0, 0), "memberships, members' blocks, waiting messages");
        assert_eq!(self.asks.len(), asks, "ask buffers");
        assert_eq!(self.upstream.in_flight(), 0, "messages without answers");
        assert_eq!((self.queues.weight(), self.rooms.waiting_bytes()), (0, 0), "weight of pushes");
        assert_eq!(self.ring.leaked(), 0, "sockets held open by a forgotten poll");
        assert!(self.wheel.is_empty(), "timers");
        assert!(self.debts.is_empty() && self.rooms.dirty.is_empty(), "reports");
        let armed = self.acceptor.armed();
        assert_eq!(self.table.free_slots() + armed, self.settings.connections_max, "slots");
    }
}
