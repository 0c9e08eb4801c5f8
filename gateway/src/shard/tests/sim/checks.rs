//! What must hold at a rest, and what a client may be told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::actor::{Actor, Stage};
use super::plan::is_generous;
use super::story::Story;
use crate::control::decide::Event;
use crate::ids::{RoomIndex, RoomRef, ShardIndex};
use crate::reason::CloseReason;
use crate::shard::tests::client::Got;
use crate::shard::timers::ticks;
use crate::shard::{ClientRates, Rate, Shard};

/// How early or late a deadline may be: ticks, and rounds without a turn of the shard.
const SLACK_MS: u64 = 200;

/// Whether a client can have said more than its rates let it: the shortest packet is a frame without a body.
fn has_said_much(actor: &Actor, rates: ClientRates) -> bool {
    let said = actor.client.said_bytes();
    let over = |rate: Rate, bytes: u64| rate.per_second > 0 && said > u64::from(rate.burst) * bytes;
    over(rates.packets, 6) || over(rates.bytes, 1)
}

impl Story {
    /// A client is told only what has happened to it.
    pub(super) fn check_word(&self, at: usize, got: &Got) {
        let actor = &self.actors[at];
        let code = match got {
            Got::Close(Some(code)) => *code,
            Got::Kick { code, .. } => u16::try_from(*code).expect("a close code"),
            Got::Http(status) => {
                let fits = match status.as_str() {
                    "408" => self.is_late(actor),
                    "503" => self.draining,
                    "429" => self.world.shards[0].settings.network_connections_max > 0,
                    _ => actor.expects.contains(&CloseReason::HandshakeRefused),
                };
                assert!(fits, "{} is answered {status}", actor.name());
                return;
            }
            _ => return,
        };
        let listener = &self.world.shards[0].settings.listeners[actor.listener];
        let fits = match code {
            1000 => actor.expects.contains(&CloseReason::PeerClosed),
            // Keys that cannot be changed seal a few hundred records in tests.
            1012 if actor.client.speaks_tls() && !self.calm => true,
            1012 => self.draining,
            1013 => !self.calm,
            4001 => self.is_late(actor),
            4003 => self.world.now_ms + SLACK_MS >= actor.heartbeat_ms.0 + u64::from(listener.heartbeat_ms_max),
            4006 => !is_generous(actor.listener) && !self.calm,
            4008 => has_said_much(actor, listener.client_rates),
            4002 if self.policy.room_members_max > 0 => true,
            4002 | 4007 if actor.is_due(self.world.now_s()) => true,
            code => actor.expects.iter().any(|reason| reason.code() == Some(code)),
        };
        assert!(fits, "{} is told {code}, expected is one of {:?}", actor.name(), actor.expects);
    }

    fn is_late(&self, actor: &Actor) -> bool {
        let login_ms_max = self.world.shards[0].settings.listeners[actor.listener].login_ms_max;
        self.world.now_ms + SLACK_MS >= actor.connected_ms + u64::from(login_ms_max)
    }

    pub(super) fn check_at_rest(&mut self) {
        for (at, link) in self.world.links.iter().enumerate() {
            let (credits, taken, weight) = link.places();
            assert_eq!((taken, weight), (0, 0), "pushes wait for shard {at}");
            assert_eq!(credits, self.world.places_max, "every place of shard {at} is free");
        }
        assert!(self.source.next().is_none(), "the source goes on when there are places");
        self.shadow.compare(&self.world);
        for (shard, connections) in self.world.directory.connections_by_shard() {
            let (open, ending) = self.world.shards[shard.at()].logged_in();
            let fits = (open..=open + ending).contains(&connections);
            assert!(fits, "{connections} on shard {}, where {open} are open and {ending} ending", shard.0);
        }
        for actor in &self.actors {
            actor.assert_at_rest(self.world.now_ms);
            self.check_deadlines(actor);
        }
        self.check_rooms();
        self.check_networks();
        self.check_inspections();
        self.check_online();
    }

    /// Nobody outlives its deadline.
    fn check_deadlines(&self, actor: &Actor) {
        let now_ms = self.world.now_ms;
        let listener = &self.world.shards[0].settings.listeners[actor.listener];
        let passed = |since: u64, max: u32| now_ms > since + u64::from(max) + SLACK_MS;
        let late = match actor.stage {
            Stage::New => actor.accepted_ms.is_some_and(|since| passed(since, listener.login_ms_max)),
            Stage::In => passed(actor.heartbeat_ms.1, listener.heartbeat_ms_max),
            Stage::Ending => false,
        };
        let ended =
            actor.stage == Stage::In && actor.grant.as_ref().is_some_and(|grant| grant.ends_s < self.world.now_s());
        assert!(!ended, "{} outlives its token: {:?}", actor.name(), actor.grant);
        assert!(!late, "{} is still there at {now_ms}: {:?}", actor.name(), actor.times());
    }

    /// The directory counts the members that the shards have, under the names that the clients said.
    fn check_rooms(&self) {
        let directory = &self.world.directory;
        let mut rooms: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (at, shard) in self.world.shards.iter().enumerate() {
            let at = ShardIndex(u8::try_from(at).expect("few shards"));
            for (index, generation, members) in shard.rooms.populated() {
                let room = RoomRef { index: RoomIndex(index), generation };
                let name = self.world.control.room_of(at, room).expect("a room with members has a name");
                assert_eq!(directory.room_in(at, &name), Some(room), "{name} is found by its name");
                *rooms.entry(name).or_default() += u64::from(members);
            }
        }
        let members_max = u64::from(self.policy.room_members_max);
        assert!(members_max == 0 || rooms.values().all(|members| *members <= members_max), "full rooms: {rooms:?}");
        assert_eq!(directory.rooms(), rooms.len() as u64, "rooms");
        assert_eq!(directory.elsewhere().rooms(), self.others.rooms(), "rooms elsewhere");
        let here = directory.rooms_here(1000);
        assert!(here.len() == rooms.len() && here.iter().all(|room| rooms[&room.name] == room.members), "rooms here");
        let mut all = self.others.with(&rooms);
        let number = |name: &str| name.parse::<i32>().ok().filter(|number| number.to_string() == name);
        let mut numbered: Vec<_> = all.iter().filter_map(|room| Some((number(&room.name)?, room.members))).collect();
        numbered.sort_unstable_by_key(|(number, members)| (Reverse(*members), *number));
        assert_eq!(directory.rooms_numbered(1000), numbered, "rooms of goim v1");
        assert_eq!(directory.rooms_page("", "", 1000), all, "rooms by name");
        assert!(all.iter().all(|room| directory.room_size(&room.name) == room.members), "sizes");
        if let Some(second) = all.get(1) {
            let after: Vec<_> = all[2..].iter().take(2).cloned().collect();
            assert_eq!(directory.rooms_page("", &second.name, 2), after, "the next page");
            let like: Vec<_> = all.iter().filter(|room| room.name.starts_with(&*second.name)).cloned().collect();
            assert_eq!(directory.rooms_page(&second.name, "", 1000), like, "rooms by prefix");
            assert!(directory.rooms_top(&second.name, 1000).iter().all(|room| like.contains(room)), "top by prefix");
        }
        all.sort_by(|a, b| b.members.cmp(&a.members).then(a.name.cmp(&b.name)));
        all.truncate(3);
        assert_eq!(directory.rooms_top("", 3), all, "the largest rooms");
        assert_eq!(directory.room_size("nobody is here"), 0);
    }

    /// Networks count who is there, and have no more than they may.
    fn check_networks(&self) {
        let settings = &self.world.shards[0].settings;
        let mut counted: Vec<_> = self.world.shards.iter().flat_map(Shard::counted).collect();
        assert_eq!(settings.networks.all(), counted.len() as u64, "connections in networks");
        counted.dedup();
        for ip in counted {
            let connections = settings.networks.connections(ip);
            assert!((1..=settings.network_connections_max.into()).contains(&connections), "{connections} of {ip}");
        }
    }

    /// A shard knows of each client what the client knows of itself.
    fn check_inspections(&mut self) {
        let conns = self.shadow.all();
        for (token, conn) in (0..).zip(&conns) {
            self.world.control.inspect(*conn, token, &mut self.world.outgoing);
            self.living.settle(&mut self.world);
        }
        let mut found = BTreeMap::new();
        let mut words = BTreeMap::new();
        for event in std::mem::take(&mut self.world.events) {
            if let Event::Inspected { token, found: Some(inspection) } = &event {
                let conn = conns.iter().nth(usize::try_from(*token).expect("small")).expect("one of them");
                words.insert(inspection.peer, *conn);
                found.insert(inspection.peer, (conn.shard(), inspection.clone()));
            }
            self.shadow.note(&event);
        }
        for actor in self.actors.iter().filter(|actor| actor.stage == Stage::In && actor.is_quiet()) {
            let peer = self.world.net.address(actor.client.id);
            let (shard, seen) = found.get(&peer).unwrap_or_else(|| panic!("{} is not in the directory", actor.name()));
            let conn = words[&peer];
            let ticket = self.world.shards[shard.at()].table[conn.slot()].ticket;
            let (member, key) = self.world.directory.connection(ticket, conn).expect("it is in the directory");
            assert!(
                member == actor.login.mid && (actor.is_v1() || key.to_string() == actor.login.key),
                "{member} {key}"
            );
            let names: Vec<_> =
                seen.rooms.iter().map(|room| self.world.control.room_of(*shard, *room).expect("a name")).collect();
            if self.hooks {
                let stay = self.world.control.stay(words[&peer]).expect("it is logged in");
                let [told, there] = [&stay.rooms, &names].map(|rooms| rooms.iter().collect::<BTreeSet<_>>());
                assert_eq!(told, there, "what control would tell of {}", actor.name());
            }
            if let Some(room) = &actor.login_room {
                assert_eq!(names.first().map(|name| &**name), Some(&**room), "the login room is first");
            }
            let rooms: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
            let known: BTreeSet<&str> = actor.joined.iter().chain(&actor.login_room).map(|room| &**room).collect();
            assert_eq!(rooms, known, "rooms of {}", actor.name());
            assert_eq!(seen.accepts, actor.accepts.iter().copied().collect::<Vec<_>>(), "of {}", actor.name());
            assert_eq!((seen.queued_bytes, seen.queued_messages), (0, 0), "nothing waits for {}", actor.name());
            assert_eq!(usize::from(seen.listener), actor.listener);
            let heartbeat_max = ticks(self.world.shards[0].settings.listeners[actor.listener].heartbeat_ms_max);
            let [first, last] = [actor.heartbeat_ms.0, actor.heartbeat_ms.1]
                .map(|ms| u32::try_from(ms / 100).expect("small").saturating_add(heartbeat_max));
            let deadline = self.world.shards[shard.at()].table[conn.slot()].deadline;
            assert!(
                (first..=last).contains(&deadline),
                "{first} {deadline} {last} is the deadline of {}",
                actor.name()
            );
            assert!(seen.age_ms <= self.world.now_ms - actor.connected_ms + SLACK_MS, "{} ms old", seen.age_ms);
        }
    }

    /// Who asks is told how many are in its room.
    fn check_online(&mut self) {
        self.world.control.publish_online(&self.world.links);
        let now_ms = self.world.now_ms;
        let asks = |actor: &&mut Actor| actor.stage == Stage::In && actor.is_quiet() && !actor.is_v1();
        for actor in self.actors.iter_mut().filter(asks) {
            if let Some(room) = &actor.login_room {
                let members = self.world.directory.room_size_here(room) + self.others.members(room);
                actor.count(members, now_ms);
            }
        }
        self.settle();
        self.read();
        for actor in &self.actors {
            actor.assert_at_rest(self.world.now_ms);
        }
    }
}
