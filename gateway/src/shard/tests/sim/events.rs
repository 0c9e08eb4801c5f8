//! What happens in a simulation: clients come, ask, listen and slow down; somebody pushes; time passes.

use std::sync::Arc;

use halley_protocol::login::Login;
use halley_protocol::websocket::Opcode;
use halley_protocol::{operation, v1};

use serde_json::json;

use super::actor::{Actor, Change, Granted, Pushed, Renewal, Stage, Target};
use super::plan::{BY_TOKEN, COMPRESSING, LISTENERS, REFUSING, SEALED, compresses, is_generous, weather};
use super::platform;
use super::story::Story;
use crate::dispatch::{self, DispatchError};
use crate::identity::testing;
use crate::ids::ConnWord;
use crate::limits;
use crate::order::Order;
use crate::reason::CloseReason;
use crate::shard::tests::client::Client;
use crate::shard::{Dialect, Reloadable, SlowPolicy, Transport};

/// Clients at a time.
const ACTORS_MAX: usize = 56;

/// Events at the beginning, each of which is somebody who connects.
pub(super) const FIRST_COME: u64 = 52;

/// Names of which one begins another; in some stories there are more rooms, of few members each.
/// Clients of goim v1 are in the first, or in none.
const ROOMS: [&str; 6] = [v1::ROOM, "a", "b", "c", "ab", "abc"];
const OPERATIONS: [i32; 3] = [1000, 1001, 1002];

impl Story {
    /// One event, in plain words.
    pub(super) fn event(&mut self, number: u64) -> String {
        if number < FIRST_COME {
            return self.connect(usize::try_from(number % 8).expect("small"));
        }
        match self.dice.below(26) {
            0..=2 => {
                let listener = self.dice.below(LISTENERS.len());
                self.connect(listener)
            }
            3..=8 => self.change(),
            9 | 10 => self.chat(),
            11..=16 => {
                let times = self.dice.pick(&[1, 1, 1, 5, 30]);
                (0..times).map(|_| self.push()).collect::<Vec<_>>().join("; ")
            }
            17 if self.dice.once_in(3) => self.hear_of_others(),
            17 => self.append_records(),
            18 | 19 => self.slow_down_or_up(),
            20 => self.time(),
            21 if self.dice.once_in(3) => self.reload(),
            21 => self.trouble_control(),
            22 => self.much_at_once(),
            23 => self.drip(),
            _ if self.calm => self.chat(),
            _ => self.harm(),
        }
    }

    fn connect(&mut self, listener: usize) -> String {
        if self.actors.len() >= ACTORS_MAX || (self.calm && listener == REFUSING) {
            return "the house is full".into();
        }
        let (transport, dialect) = LISTENERS[listener];
        // Keys are taken over only where connections may end.
        let fresh = self.calm || self.dice.once_in(2);
        self.keys += usize::from(fresh);
        let key = if fresh { self.keys } else { self.keys - self.dice.below(self.keys.clamp(1, 8)) };
        // Some keys are UUIDs, which the directory packs.
        let key = if key % 3 == 0 { format!("00000000-0000-4000-8000-{key:012x}") } else { format!("key-{key}") };
        let mut login = Login {
            key,
            mid: i64::try_from(self.dice.below(6)).expect("small"),
            room_id: self.room_or_none(),
            accepts: OPERATIONS.into_iter().filter(|_| self.dice.once_in(2)).collect(),
            halley: self.dice.once_in(2),
            ..Login::default()
        };
        if dialect == Dialect::GoimV1 {
            login = Self::number(&login);
        }
        if self.hooks && login.room_id == platform::BARRED {
            login.room_id = "a".into();
        }
        let mut client = Client::connect_silent(&self.world.net, listener, transport).speaking(dialect);
        if compresses(self.seed) && COMPRESSING.contains(&listener) && self.keys.is_multiple_of(2) {
            client = client.deflating();
        }
        client.set_window(usize::MAX);
        if SEALED.contains(&listener) {
            // The older version's keys wear out, which ends a connection.
            let version = self.dice.below(if self.calm { 1 } else { 2 });
            client.begin_tls(Arc::clone(&self.tls[version]));
        }
        if transport == Transport::WebSocket {
            let head = client.request();
            client.say(head.replace("\r\n\r\n", &format!("\r\nOrigin: {}\r\n\r\n", super::plan::ORIGIN)).as_bytes());
        }
        let grant = ((self.tokens || self.hooks) && BY_TOKEN.contains(&listener)).then(|| self.grant(&mut login));
        let refused = self.hooks && grant.is_some() && !platform::lets_in(&login.token);
        self.actors.push(Actor::new(client, listener, login, !is_generous(listener), self.world.now_ms));
        let actor = self.actors.last_mut().expect("just pushed");
        (actor.grant, actor.refused, actor.hooks) = (grant, refused, self.hooks);
        format!("{} connects to listener {listener}", self.actors.last().expect("just pushed").name())
    }

    /// What goim v1 makes of a login's number.
    fn number(login: &Login) -> Login {
        let room_id = if login.mid == 0 { String::new() } else { v1::ROOM.into() };
        Login { key: format!("number {}", login.mid), mid: login.mid, room_id, ..Login::default() }
    }

    /// Gives a login a token that allows what it asks, for some time; or one by which the platform does, or not.
    fn grant(&mut self, login: &mut Login) -> Granted {
        if !login.room_id.starts_with(['a', 'r']) {
            login.room_id = "ab".into();
        }
        login.accepts.retain(|operation| *operation < 1002);
        let ends_s = self.world.now_s() + self.dice.pick(&[2, 4, 100_000]);
        let id = format!("token-{}-{}", login.key, self.pushes.len());
        login.token = if self.hooks {
            platform::login(&mut self.dice, ends_s)
        } else {
            token(&login.key, login.mid, &id, ends_s)
        };
        Granted { id, ends_s }
    }

    /// A new token for somebody who came with one; now and then one of another member.
    fn renewal(&mut self, at: usize) -> Change {
        let ends_s = self.world.now_s() + self.dice.pick(&[1, 3, 100_000]);
        // Whom the platform let in has nothing to renew.
        let good = !self.dice.once_in(4) && !self.hooks;
        let Actor { login, grant, .. } = &self.actors[at];
        let id = &grant.as_ref().expect("it came with one").id;
        let mid = if good { login.mid } else { login.mid + 1 };
        Change::Refresh(Renewal { token: token(&login.key, mid, id, ends_s), ends_s, good })
    }

    pub(super) fn room(&mut self) -> String {
        let at = self.dice.below(self.rooms);
        ROOMS.get(at).map_or_else(|| format!("room-{at}"), |name| (*name).to_owned())
    }

    fn room_or_none(&mut self) -> String {
        if self.dice.once_in(7) { String::new() } else { self.room() }
    }

    pub(super) fn pick(&mut self) -> Option<usize> {
        (!self.actors.is_empty()).then(|| self.dice.below(self.actors.len()))
    }

    /// Somebody logs in, or changes what it hears.
    fn change(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let (room, operation) = (self.room_or_none(), self.dice.pick(&OPERATIONS));
        let choice = self.dice.below(6);
        let now_ms = self.world.now_ms;
        let renews = self.actors[at].grant.is_some() && self.actors[at].login.halley && self.dice.once_in(3);
        let renewal = if renews { Some(self.renewal(at)) } else { None };
        let actor = &mut self.actors[at];
        if actor.stage == Stage::Ending || actor.partial || actor.is_logging_in() {
            return format!("{} stays as it is", actor.name());
        }
        let marked = actor.login.halley && !room.is_empty();
        let change = match choice {
            _ if actor.stage == Stage::New => Change::Login,
            _ if actor.is_v1() => return format!("{} stays where it is", actor.name()),
            _ if renewal.is_some() => renewal.expect("just seen"),
            0 | 1 if marked => Change::Join(room),
            2 if marked => Change::Leave(room),
            3 => Change::Accept(operation),
            4 => Change::Refuse(operation),
            _ => Change::Move(room),
        };
        let key = actor.login.key.clone();
        if change == Change::Login && !actor.is_v1() {
            self.log_in(at, &key);
        }
        let actor = &mut self.actors[at];
        if let Change::Move(room) = &change
            && !room.is_empty()
            && !actor.may_join(room)
        {
            actor.client.send(operation::CHANGE_ROOM, room.as_bytes());
            actor.end_as(CloseReason::LoginRefused);
            actor.partial = true;
            return format!("{} wants into {room}, which it may not", actor.name());
        }
        actor.ask(change.clone(), now_ms);
        format!("{} asks: {change:?}", actor.name())
    }

    /// Who has the key now may have to go from here on, or keeps the newcomer out. Of several who are on their way
    /// nobody knows who comes last.
    fn log_in(&mut self, at: usize, key: &str) {
        let refuses = !self.key_policy_replaces || self.actors[at].listener == REFUSING;
        if refuses {
            self.actors[at].expects.push(CloseReason::LoginRefused);
        }
        if self.hooks {
            self.actors[at].expects.extend([CloseReason::LoginRefused, CloseReason::HookFailed]);
        }
        let mut contested = self.haunted.contains(key);
        for (_, other) in self.actors.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            if other.login.key != key || !self.key_policy_replaces {
                continue;
            }
            other.expects.push(CloseReason::Replaced);
            if other.stage == Stage::In {
                other.end();
            } else if other.is_logging_in() {
                (contested, other.contested) = (true, true);
            }
        }
        if contested {
            self.actors[at].contested = true;
            self.actors[at].expects.push(CloseReason::Replaced);
        }
    }

    /// Requests without consequence.
    fn chat(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let mut operation =
            self.dice.pick(&[operation::HEARTBEAT, operation::HEARTBEAT_REPLY, operation::RAW, 4, 1000]);
        if self.actors[at].is_v1() {
            operation = self.dice.pick(&[operation::HEARTBEAT, v1::SEND, v1::TEST]);
        }
        let (ping, now_ms) = (self.dice.once_in(4), self.world.now_ms);
        let actor = &mut self.actors[at];
        if actor.partial {
        } else if ping && actor.client.transport == Transport::WebSocket {
            actor.client.frame(true, Opcode::Ping, b"ping");
        } else if actor.stage == Stage::In {
            actor.say(operation, b"whatever", now_ms);
        }
        format!("{} says {operation}, or pings", actor.name())
    }

    fn drip(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let client = &mut self.actors[at].client;
        client.drips = !client.drips;
        format!("{} speaks byte by byte: {}", self.actors[at].name(), self.actors[at].client.drips)
    }

    /// A flood of packets, of joins beyond the limit, or more accepted operations than one may have.
    fn much_at_once(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let (kind, now_ms) = (self.dice.below(4), self.world.now_ms);
        let actor = &mut self.actors[at];
        if actor.stage != Stage::In || actor.partial {
            return format!("{} is not there yet", actor.name());
        }
        let name = actor.name();
        match kind {
            0 if actor.login.halley => {
                for room in 0..limits::ROOMS_PER_CONNECTION_MAX {
                    actor.ask(Change::Join(format!("many-{room}")), now_ms);
                }
                format!("{name} joins many rooms")
            }
            1 if actor.login.halley => {
                for room in actor.joined.clone() {
                    actor.ask(Change::Leave(room), now_ms);
                }
                format!("{name} leaves what it joined")
            }
            2 if !actor.is_v1() => {
                let many: Vec<_> = (2000..=2000 + limits::ACCEPTS_MAX).map(|n| n.to_string()).collect();
                actor.say(operation::SUBSCRIBE, many.join(",").as_bytes(), now_ms);
                format!("{name} accepts too much")
            }
            _ => {
                for _ in 0..300 {
                    actor.say(operation::HEARTBEAT, b"", now_ms);
                }
                format!("{name} floods")
            }
        }
    }

    fn some_push(&mut self) -> Pushed {
        let key = |story: &mut Self| {
            let of = story.pick();
            of.map_or_else(|| "nobody".to_owned(), |of| story.actors[of].login.key.clone())
        };
        let target = match self.dice.below(9) {
            0 => Target::Keys(vec![key(self)]),
            1 => Target::Keys(vec![key(self), "nobody".into(), key(self), key(self)]),
            2 => Target::Members(vec![i64::try_from(self.dice.below(6)).expect("small")]),
            3 => Target::Members(vec![1, 5, 3, 77, 1]),
            4 => Target::All,
            _ => Target::Room(self.room()),
        };
        Pushed { target, operation: self.dice.pick(&OPERATIONS), padding: self.dice.pick(&[0, 0, 20, 200, 2000]) }
    }

    fn push(&mut self) -> String {
        let pushed = self.some_push();
        let taken = self.dispatch(&pushed);
        format!("push {} to {:?}: {taken:?}", self.pushes.len(), pushed.target)
    }

    fn append_records(&mut self) -> String {
        let again = if self.dice.once_in(4) { self.source.crash(self.pushes.len() % 8) } else { 0 };
        let records = self.dice.pick(&[1, 10, 40]);
        for _ in 0..records {
            let record = self.some_push();
            self.source.append(record);
        }
        self.pull();
        format!("{records} records come from the log, {again} of them again")
    }

    /// The source goes on until a shard has no place; then it pauses.
    pub(super) fn pull(&mut self) {
        while let Some(record) = self.source.next().cloned() {
            if self.dispatch(&record).is_err() {
                self.source.refused += 1;
                return;
            }
            self.source.taken();
        }
    }

    /// Dispatches, and checks that all shards concerned have it, or none.
    pub(super) fn dispatch(&mut self, pushed: &Pushed) -> Result<(), DispatchError> {
        let number = self.pushes.len();
        let to = match pushed.target.clone() {
            Target::Room(room) => dispatch::Target::Room(room),
            Target::Keys(keys) => dispatch::Target::Keys(keys),
            Target::Members(members) => dispatch::Target::Members(members),
            Target::All => dispatch::Target::All,
        };
        let (shards, connections, offline) = self.concerned(&pushed.target);
        let before: Vec<_> = self.world.links.iter().map(|link| link.places()).collect();
        let dispatched = self.world.dispatch(&to, pushed.operation, &pushed.body(number));
        for (at, link) in self.world.links.iter().enumerate() {
            let put = usize::from(dispatched.is_ok() && shards.contains(&at));
            let (credits, taken, weight) = link.places();
            assert_eq!((credits, taken), (before[at].0 - put, before[at].1 + put), "shard {at} of {pushed:?}");
            assert_eq!(weight > before[at].2, put > 0, "weight at shard {at}");
        }
        let dispatched = dispatched?;
        assert_eq!((dispatched.connections, dispatched.offline), (connections, offline), "{pushed:?}");
        for actor in self.actors.iter_mut().filter(|actor| actor.is_owed(pushed)) {
            actor.owed.insert(number, pushed.stream());
        }
        self.pushes.push(pushed.clone());
        Ok(())
    }

    /// The shards that a push concerns, how many connections, and how many named have none.
    fn concerned(&self, target: &Target) -> (Vec<usize>, u64, u64) {
        let directory = &self.world.directory;
        let named = |each: Vec<Vec<ConnWord>>| {
            let offline = each.iter().filter(|conns| conns.is_empty()).count() as u64;
            let mut conns = each.concat();
            conns.sort_unstable();
            conns.dedup();
            let mut shards: Vec<_> = conns.iter().map(|conn| conn.shard().at()).collect();
            shards.dedup();
            (shards, conns.len() as u64, offline)
        };
        let distinct = |len: usize, at: usize, same: &dyn Fn(usize, usize) -> bool| {
            (0..len).position(|other| same(other, at)) == Some(at)
        };
        match target {
            Target::Keys(keys) => {
                let each = (0..keys.len()).filter(|at| distinct(keys.len(), *at, &|a, b| keys[a] == keys[b]));
                named(each.map(|at| self.shadow.of_key(&keys[at])).collect())
            }
            Target::Members(members) => {
                let each =
                    (0..members.len()).filter(|at| distinct(members.len(), *at, &|a, b| members[a] == members[b]));
                named(each.map(|at| self.shadow.of_member(members[at]).into_iter().collect()).collect())
            }
            Target::Room(room) => {
                let shards = (0..self.world.links.len()).filter(|at| {
                    directory.room_in(crate::ids::ShardIndex(u8::try_from(*at).expect("few")), room).is_some()
                });
                let shards: Vec<_> = shards.collect();
                let offline = u64::from(shards.is_empty());
                (shards, directory.room_size_here(room), offline)
            }
            Target::All => {
                let (shards, connections, _) = named(vec![self.shadow.all().into_iter().collect()]);
                (shards, connections, 0)
            }
        }
    }

    fn slow_down_or_up(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let window = self.dice.below(400);
        let actor = &mut self.actors[at];
        actor.slow = !actor.slow;
        // A generous outbox holds all that can come between two rests: whoever has one misses nothing.
        actor.client.set_window(if actor.slow { window } else { usize::MAX });
        format!("{} {}", actor.name(), if actor.slow { "stops reading" } else { "reads again" })
    }

    fn time(&mut self) -> String {
        let jump = if self.calm { 150 } else { self.dice.pick(&[50, 100, 100, 150, 700, 2500, 60_000]) };
        self.world.now_ms += jump;
        self.weather = weather(&mut self.dice, self.calm);
        self.world.net.set_weather(self.weather);
        self.world.control.publish_online(&self.world.links);
        format!("{jump} ms pass; the weather is {:?}", self.weather)
    }

    /// Every shard gets other settings; each goes by all of the old or all of the new.
    fn reload(&mut self) -> String {
        let mut new = self.world.shards[0].settings.reloadable();
        if let Some(last) = self.reloads.last() {
            new = Reloadable::clone(last);
        }
        new.run_messages_max = self.dice.pick(&[1, 4, 256]);
        new.run_bytes_max = self.dice.pick(&[100, 1000, 16384]);
        new.sends_per_turn_max = self.dice.pick(&[3, 20, 4096]);
        let mut listeners = new.listeners.to_vec();
        let (calm, mut dice) = (self.calm, self.dice.next());
        for (_, listener) in listeners.iter_mut().enumerate().filter(|(at, _)| !is_generous(*at)) {
            dice /= 3;
            // In a calm story nobody is closed.
            let policies = [SlowPolicy::DropNewest, SlowPolicy::DropOldest, SlowPolicy::Close];
            listener.slow_policy = policies[usize::try_from(dice % if calm { 2 } else { 3 }).expect("small")];
        }
        // By this the listeners are told apart, whatever else they have.
        listeners[REFUSING].outbox_bytes_max = 4000 + u32::try_from(self.reloads.len()).expect("few");
        new.listeners = listeners.into();
        let policy = self.policy.clone();
        self.reloads.push(Arc::new(new));
        self.world.control.reload(policy, &self.reloads[self.reloads.len() - 1], &mut self.world.outgoing);
        format!("reload {}", self.reloads.len())
    }

    /// Each shard goes by the settings of one reload, or by those it began with.
    pub(super) fn check_reloads(&self) {
        for shard in &self.world.shards {
            let settings = &shard.settings;
            let number = settings.listeners[REFUSING].outbox_bytes_max.checked_sub(4000);
            let Some(reload) = number.and_then(|number| self.reloads.get(number as usize)) else { continue };
            let limits = (settings.run_messages_max, settings.run_bytes_max, settings.sends_per_turn_max);
            let whole = (reload.run_messages_max, reload.run_bytes_max, reload.sends_per_turn_max);
            assert_eq!(limits, whole, "a shard goes by the half of a reload");
        }
    }

    fn trouble_control(&mut self) -> String {
        self.control_rests = self.dice.below(12);
        let hold = self.dice.once_in(3);
        (0..self.world.shards.len()).for_each(|at| self.world.order(at, Order::HoldAccepts { hold }));
        if let Some(at) = self.pick() {
            let conns = self.world.directory.key_connections(&self.actors[at].login.key);
            for token in 0..self.dice.pick(&[1, 1, 80]) {
                if let Some(conn) = conns.first() {
                    self.world.control.inspect(*conn, token, &mut self.world.outgoing);
                }
            }
        }
        format!("control rests for {} rounds, accepts are held: {hold}", self.control_rests)
    }
}

fn token(key: &str, mid: i64, id: &str, ends_s: u64) -> String {
    let rooms = ["a*", "room-*", "many-*", "new-*"];
    let claims =
        json!({ "key": key, "mid": mid, "jti": id, "exp": ends_s, "rooms": rooms, "operations": [1000, 1001] });
    testing::token(&claims)
}
