//! Messages passed on by a hostile kernel's shards to a moody place: each is answered once, and acknowledged only if the place
//! said that it has it; what comes there comes in its client's order and under its name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::hash::Hasher;
use std::sync::Arc;

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_ring::sim::Weather;

use super::dice::{Dice, Trace};
use super::plan::{LINGER_MS_MAX, weather};
use crate::order::DrainPlan;
use crate::shard::Transport::{Tcp, WebSocket};
use crate::shard::tests::client::{Client, Got};
use crate::shard::tests::world::{Setup, World};
use crate::upstream::{Answer, Clerk, Kept, Outcome, Place, Refused, Rules, Shared};

const CLIENTS: usize = 8;
const STEPS: usize = 250;
const ROOMS: [&str; 3] = ["", "a", "b"];

/// What is known of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// It was said.
    Aloud,
    /// It came to the place.
    There,
    /// The place said what became of it.
    Decided(Outcome),
}

/// A client, and its messages that have no answer yet.
struct Talker {
    client: Client,
    login: Login,
    entered: bool,
    /// It has ended, or may have: nothing is owed to it.
    ending: bool,
    said: BTreeMap<i32, Said>,
    /// The last message that came to the place.
    last: i32,
}

impl Talker {
    fn connect(world: &World, dice: &mut Dice, name: usize) -> Self {
        let transport = dice.pick(&[Tcp, WebSocket]);
        let mut client = Client::connect(&world.net, usize::from(transport == WebSocket), transport);
        let login = Login {
            // One of them is a UUID, which the directory packs.
            key: if name == 0 { "00000000-0000-4000-8000-000000000001".into() } else { format!("key-{name}") },
            mid: i64::try_from(name).expect("few"),
            room_id: dice.pick(&ROOMS).into(),
            halley: dice.once_in(2),
            ..Login::default()
        };
        client.login(&login);
        Self { client, login, entered: false, ending: false, said: BTreeMap::new(), last: 0 }
    }

    fn speak(&mut self, dice: &mut Dice) {
        let operation = dice.pick(&[operation::SEND_MESSAGE, 1000, 1500]);
        // It says who says it, by which the story knows several of one key apart.
        let mut body = format!("{:04}", self.client.id.0).into_bytes();
        body.resize(dice.pick(&[4, 5, 20, 21, 4096]), b'x');
        let sequence = self.client.send(operation, &body);
        self.said.insert(sequence, Said::Aloud);
    }

    fn read(&mut self, trace: &mut Trace) {
        for got in self.client.take() {
            writeln!(trace, "{} {got:?}", self.client.id.0).expect("a trace takes all");
            match got {
                Got::Reply { operation: operation::AUTH_REPLY, .. } => self.entered = true,
                Got::Reply { operation, sequence, body } => self.answered(operation, sequence, &body),
                Got::Kick { .. } | Got::Close(_) | Got::Http(_) => self.ending = true,
                other => panic!("nobody pushes: {other:?}"),
            }
        }
        self.ending |= self.client.is_closed();
    }

    fn answered(&mut self, operation: i32, sequence: i32, body: &[u8]) {
        assert!([operation::SEND_MESSAGE_REPLY, 1000, 1500].contains(&operation), "{operation} is no reply");
        let said = self.said.remove(&sequence).expect("a message is answered once");
        let refused = Refused::ALL.into_iter().find(|refused| refused.body().as_bytes() == body);
        match said {
            Said::Decided(outcome) => {
                assert_eq!(refused, outcome.err(), "as the place said");
                assert_eq!(body.is_empty(), outcome.is_ok(), "an acknowledgement is empty");
            }
            said => {
                let refused = refused.expect("only the place acknowledges");
                let own = !matches!(refused, Refused::PlaceAway | Refused::PlaceRefused | Refused::TimeOut);
                assert!(own && said == Said::Aloud, "{refused:?} {said:?}");
            }
        }
    }
}

/// Who said what came to the place.
fn speaker<'a>(talkers: &'a mut [Talker], kept: &Kept) -> &'a mut Talker {
    let id = std::str::from_utf8(&kept.body[..4]).ok().and_then(|id| id.parse().ok());
    talkers.iter_mut().find(|talker| Some(talker.client.id.0) == id).expect("somebody said it")
}

/// The gateway, its clients, and the place.
struct Story {
    world: World,
    shared: Shared,
    place: Place,
    talkers: Vec<Talker>,
    /// What the place has and has not answered.
    there: VecDeque<Kept>,
    trace: Trace,
}

fn world(seed: u64, dice: &mut Dice) -> World {
    let mut setup = Setup::new().shards(dice.pick(&[1, 2])).listeners(|listener| {
        listener.linger_ms_max = LINGER_MS_MAX;
        listener.heartbeat_ms_max = u32::MAX / 2;
    });
    setup.seed = seed;
    setup.in_flight_max = dice.pick(&[3, 64]);
    setup.control_max = dice.pick(&[2, 512]);
    setup.shard.connections_max = dice.pick(&[10, 64]);
    setup.shard.upstream = Some(Arc::new(Rules {
        operations: Box::new([(4, 4), (1000, 1999)]),
        message_bytes_max: dice.pick(&[20, 4096]),
        per_second: dice.pick(&[0, 5]),
        burst: dice.pick(&[1, 4]),
        connection_in_flight_max: dice.pick(&[2, 8]),
    }));
    setup.build()
}

impl Story {
    fn new(seed: u64, dice: &mut Dice) -> Self {
        let world = world(seed, dice);
        let (directory, links) = (Arc::clone(&world.directory), Arc::clone(&world.links));
        let shared = Shared { directory, links, node: "node".into() };
        let talkers = (0..CLIENTS).map(|name| Talker::connect(&world, dice, name)).collect();
        let place = Place::List(RefCell::default());
        Self { world, shared, place, talkers, there: VecDeque::new(), trace: Trace::new() }
    }

    /// The upstream thread takes what waits for it.
    fn pass_on(&mut self) {
        Clerk::new(&self.shared, &self.place).round(self.world.now_ms);
        let Place::List(list) = &self.place else { panic!("a list") };
        for kept in list.borrow_mut().drain(..) {
            let Kept { receipt, member, key, rooms, body } = &kept;
            writeln!(self.trace, "{key} {rooms:?} {receipt:?} {}", body.len()).expect("a trace takes all");
            let talker = speaker(&mut self.talkers, &kept);
            assert_eq!((*member, key), (talker.login.mid, &talker.login.key), "who said it");
            let room = Some(talker.login.room_id.as_str()).filter(|room| !room.is_empty());
            let named: Vec<_> = rooms.iter().map(|room| &**room).collect();
            // Who has ended has left its room, which nobody may be in any more.
            assert!(named == Vec::from_iter(room) || named.is_empty() && talker.ending, "{named:?}, not {room:?}");
            assert!(receipt.sequence > talker.last, "in its order");
            talker.last = receipt.sequence;
            let before = talker.said.insert(receipt.sequence, Said::There);
            assert_eq!(before, Some(Said::Aloud), "once");
            self.there.push_back(kept);
        }
    }

    /// The place answers the oldest that it has, or now and then another.
    fn answer(&mut self, dice: &mut Dice) {
        let at = if dice.once_in(3) { dice.below(self.there.len().max(1)) } else { 0 };
        let Some(kept) = self.there.remove(at) else { return };
        let outcomes = [Ok(()), Ok(()), Err(Refused::TimeOut), Err(Refused::PlaceAway), Err(Refused::PlaceRefused)];
        let (outcome, receipt) = (dice.pick(&outcomes), kept.receipt);
        let before = speaker(&mut self.talkers, &kept).said.insert(receipt.sequence, Said::Decided(outcome));
        assert_eq!(before, Some(Said::There));
        self.world.links[receipt.conn.shard().at()].put_answer(Answer { receipt, outcome });
    }

    fn step(&mut self, dice: &mut Dice) {
        let at = dice.below(self.talkers.len());
        match dice.below(20) {
            0..=6 => {
                let talker = &mut self.talkers[at];
                let times = if talker.entered && !talker.ending { dice.pick(&[1, 1, 2, 6]) } else { 0 };
                (0..times).for_each(|_| talker.speak(dice));
            }
            7..=11 => self.pass_on(),
            12..=16 => (0..dice.pick(&[1, 3, 12])).for_each(|_| self.answer(dice)),
            17 => self.world.now_ms += dice.pick(&[10, 100, 300]),
            18 if dice.once_in(2) => {
                let talker = &mut self.talkers[at];
                talker.ending = true;
                if dice.once_in(2) { talker.client.half_close() } else { talker.client.reset() }
            }
            18 => {
                // Somebody else with the same key.
                let name = dice.below(CLIENTS);
                let mid = i64::try_from(name).expect("few");
                self.talkers.iter_mut().filter(|it| it.login.mid == mid).for_each(|it| it.ending = true);
                let next = Talker::connect(&self.world, dice, name);
                self.talkers.push(next);
            }
            _ => {
                let weather = weather(dice, true);
                self.world.net.set_weather(weather);
            }
        }
        for _ in 0..dice.below(3) {
            self.world.round();
        }
        self.read();
    }

    fn read(&mut self) {
        self.talkers.iter_mut().for_each(|talker| talker.read(&mut self.trace));
    }

    /// Everything is answered, and who may stay has heard all of it.
    fn rest(&mut self, dice: &mut Dice) {
        self.world.net.set_weather(Weather::default());
        for _ in 0..40 {
            self.world.settle();
            self.pass_on();
            while !self.there.is_empty() {
                self.answer(dice);
            }
        }
        self.world.settle();
        self.read();
        for talker in self.talkers.iter().filter(|talker| !talker.ending) {
            let left: Vec<_> = talker.said.iter().filter(|_| talker.entered).collect();
            assert!(left.is_empty(), "{} was not answered: {left:?}", talker.login.key);
        }
    }

    /// Sends everybody away, with messages on their way.
    fn drain(&mut self, dice: &mut Dice) {
        let deadline_ms = dice.pick(&[300, 60_000]);
        self.world.control.drain(DrainPlan::new(0, 0, deadline_ms), &mut self.world.outgoing);
        self.world.settle();
        for talker in self.talkers.iter_mut().filter(|talker| talker.entered && !talker.ending) {
            talker.speak(dice);
        }
        if deadline_ms > 1000 {
            self.rest(dice);
        }
    }
}

/// The story of a seed; its trace, and the reasons that it reached.
pub(super) fn play(seed: u64) -> (u64, BTreeSet<String>) {
    let dice = &mut Dice::new(seed, u64::MAX - 11);
    let mut story = Story::new(seed, dice);
    for _ in 0..STEPS {
        story.step(dice);
    }
    story.rest(dice);
    if dice.once_in(2) {
        for talker in story.talkers.iter_mut().filter(|talker| talker.entered && !talker.ending) {
            talker.speak(dice);
        }
        story.world.settle();
        story.drain(dice);
    }
    for talker in &mut story.talkers {
        talker.ending = true;
        talker.client.half_close();
    }
    for _ in 0..10 {
        story.world.advance(100);
        story.read();
    }
    story.rest(dice);
    story.world.advance(400);
    story.world.assert_empty();
    let reached =
        Refused::ALL.into_iter().filter(|refused| story.world.sum(|stats| &stats.upstream.refused[refused.at()]) > 0);
    let reached = reached.map(|refused| format!("upstream {}", refused.name())).collect();
    for link in story.world.links.iter() {
        writeln!(story.trace, "{:?}", link.stats.upstream).expect("a trace takes all");
    }
    (story.trace.finish(), reached)
}
