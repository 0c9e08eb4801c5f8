//! Control against shards that carry out orders as late, and report as late, as they like.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use proptest::prelude::*;

use super::*;

const SHARDS: u8 = 3;

/// A connection as its shard sees it.
#[derive(Default)]
struct Conn {
    ticket: u64,
    asking: bool,
    ended: bool,
    login_room: Option<RoomRef>,
    rooms: BTreeSet<u32>,
}

#[derive(Default)]
struct Room {
    generation: u32,
    joins: u32,
    members: BTreeSet<ConnWord>,
    dirty: bool,
}

#[derive(Default)]
struct Shard {
    orders: VecDeque<Order>,
    reports: VecDeque<Report>,
    rooms: BTreeMap<u32, Room>,
    conns: BTreeMap<ConnWord, Conn>,
}

impl Shard {
    /// Counts a join; whoever is still there becomes a member.
    fn join(&mut self, conn: ConnWord, to: RoomRef) {
        let room = self.rooms.entry(to.index.0).or_default();
        if room.generation != to.generation {
            assert!(room.members.is_empty(), "an index in use was given to another room");
            assert!(!room.dirty || room.joins == 0, "an index was given away before its last report");
            *room = Room { generation: to.generation, ..Room::default() };
        }
        room.joins = room.joins.wrapping_add(1);
        room.dirty = true;
        let known = self.conns.get_mut(&conn).expect("a connection waits for its answer");
        if !known.ended {
            room.members.insert(conn);
            known.rooms.insert(to.index.0);
        }
    }

    fn leave(&mut self, conn: ConnWord, index: u32) {
        let room = self.rooms.get_mut(&index).expect("a room it was in");
        if room.members.remove(&conn) {
            room.dirty = true;
        }
        self.conns.get_mut(&conn).expect("a connection").rooms.remove(&index);
    }

    fn end(&mut self, conn: ConnWord) {
        let Some(known) = self.conns.get_mut(&conn).filter(|known| !known.ended) else { return };
        known.ended = true;
        for index in known.rooms.clone() {
            self.leave(conn, index);
        }
        self.go_if_over(conn);
    }

    fn go_if_over(&mut self, conn: ConnWord) {
        if let Some(&Conn { ticket, asking: false, ended: true, .. }) = self.conns.get(&conn) {
            self.conns.remove(&conn);
            self.reports.push_back(Report::Gone { conn, ticket, reason: CloseReason::PeerClosed, peer: peer_of(conn) });
        }
    }

    fn carry_out(&mut self) {
        match self.orders.pop_front() {
            Some(Order::Grant { conn, grant }) => {
                self.conns.get_mut(&conn).expect("it waits for its answer").ticket = grant.ticket;
                if let Some(room) = grant.room {
                    self.join(conn, room);
                    self.conns.get_mut(&conn).expect("it waits").login_room = Some(room);
                }
            }
            Some(Order::Answer { conn, verdict, .. }) => self.answer(conn, verdict),
            Some(Order::Close { conn, .. }) => self.end(conn),
            Some(other) => panic!("not an order of this test: {other:?}"),
            None => {}
        }
    }

    fn answer(&mut self, conn: ConnWord, verdict: Verdict) {
        let known = self.conns.get_mut(&conn).expect("a connection waits for its answer");
        assert!(std::mem::take(&mut known.asking), "one answer");
        match verdict {
            Verdict::Move(to) => {
                let from = std::mem::replace(&mut known.login_room, to);
                if let Some(from) = from.filter(|from| Some(*from) != to && known.rooms.contains(&from.index.0)) {
                    self.leave(conn, from.index.0);
                }
                if let Some(to) = to {
                    self.join(conn, to);
                }
            }
            Verdict::Join { room, .. } => self.join(conn, room),
            Verdict::Leave(Some(room)) => {
                if known.rooms.contains(&room.index.0) && self.rooms[&room.index.0].generation == room.generation {
                    self.leave(conn, room.index.0);
                }
            }
            Verdict::Refuse(_) => self.end(conn),
            Verdict::Admit | Verdict::Leave(None) | Verdict::JoinRefused => {}
            Verdict::Later
            | Verdict::RoomFull { .. }
            | Verdict::Accept
            | Verdict::AcceptRefused
            | Verdict::Refreshed { .. }
            | Verdict::RefreshRefused { .. } => {
                panic!("nobody asks for it here")
            }
        }
        self.go_if_over(conn);
    }

    fn report_rooms(&mut self) {
        for (index, room) in self.rooms.iter_mut().filter(|(_, room)| room.dirty) {
            room.dirty = false;
            let size = u32::try_from(room.members.len()).expect("small");
            let to = RoomRef { index: crate::ids::RoomIndex(*index), generation: room.generation };
            self.reports.push_back(Report::Room { room: to, size, joins: room.joins });
        }
    }
}

struct World {
    control: Control,
    shards: Vec<Shard>,
    /// What each room word ever meant: it must not change.
    meanings: HashMap<(ShardIndex, RoomRef), Arc<str>>,
    next_slot: u32,
}

impl OrderSink for Vec<Shard> {
    fn put(&mut self, shard: ShardIndex, order: Order) {
        self[shard.at()].orders.push_back(order);
    }
}

fn peer_of(conn: ConnWord) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(conn.slot().0 % 4).expect("small")], 1))
}

impl World {
    fn new(secret: &HashSecret, key_policy: KeyPolicy) -> Self {
        let writer = DirectoryWriter::new(usize::from(SHARDS), 4, secret);
        let policy = Policy {
            listeners: vec![LoginRule::Open],
            key_connections_max: 2,
            key_policy,
            room_members_max: 0,
            hooks: HookPolicy::default(),
        };
        Self {
            control: Control::new(writer, policy, || [7; 16]),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            meanings: HashMap::new(),
            next_slot: 0,
        }
    }

    fn ask(&mut self, conn: ConnWord, operation: i32, body: &str) {
        let shard = &mut self.shards[conn.shard().at()];
        let known = shard.conns.entry(conn).or_default();
        if known.asking || known.ended {
            return;
        }
        known.asking = true;
        let ticket = known.ticket;
        let ask = Box::new(Ask { ticket, peer: peer_of(conn), ..ask(operation, body.as_bytes()) });
        shard.reports.push_back(Report::Ask { conn, ask });
    }

    /// Some connection of the shard that has logged in.
    fn some(&self, shard: usize, choice: u8) -> Option<ConnWord> {
        let conns: Vec<_> = self.shards[shard].conns.iter().filter(|(_, conn)| conn.ticket != 0).collect();
        conns.get(usize::from(choice) % conns.len().max(1)).map(|(conn, _)| **conn)
    }

    fn step(&mut self, (what, at, choice): (u8, u8, u8)) {
        let at = usize::from(at % SHARDS);
        let name = format!("room-{}", choice % 6);
        match what % 8 {
            0 => {
                self.next_slot += 1;
                let conn = conn(ShardIndex(u8::try_from(at).expect("small")), self.next_slot);
                let (key, mid) = (choice % 5, choice % 3);
                let room = if choice % 7 == 0 { "" } else { &name };
                self.ask(conn, operation::AUTH, &format!(r#"{{"key":"k{key}","mid":{mid},"room_id":"{room}"}}"#));
            }
            1 | 2 => {
                let operations = [operation::CHANGE_ROOM, operation::JOIN, operation::LEAVE];
                if let Some(conn) = self.some(at, choice / 6) {
                    self.ask(conn, operations[usize::from(choice) % 3], &name);
                }
            }
            3 => {
                if let Some(conn) = self.some(at, choice) {
                    self.shards[at].end(conn);
                }
            }
            4 | 5 => self.shards[at].carry_out(),
            6 => self.handle(at),
            _ => self.shards[at].report_rooms(),
        }
        self.check();
    }

    fn handle(&mut self, at: usize) {
        if let Some(report) = self.shards[at].reports.pop_front() {
            let shard = ShardIndex(u8::try_from(at).expect("small"));
            self.control.handle(shard, report, &mut self.shards);
        }
    }

    /// At every moment: a member that its shard serves is in a room that pushes find, under the word that the shard has.
    fn check(&mut self) {
        let directory = self.control.directory();
        for name in (0..6).map(|n| Arc::from(format!("room-{n}"))) {
            for part in directory.room_parts(&name) {
                let meaning = self.meanings.entry((part.shard, part.room)).or_insert_with(|| Arc::clone(&name));
                assert_eq!(*meaning, name, "a room word means one room for ever");
                assert_eq!(directory.room_name(part.shard, part.room), Some(name.clone()));
            }
        }
        for (shard, known) in (0..).map(ShardIndex).zip(&self.shards) {
            for (index, room) in known.rooms.iter().filter(|(_, room)| !room.members.is_empty()) {
                let room = RoomRef { index: crate::ids::RoomIndex(*index), generation: room.generation };
                let name = directory.room_name(shard, room).expect("members of a room that is not in the directory");
                assert_eq!(directory.room_in(shard, &name), Some(room));
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            for at in 0..self.shards.len() {
                while !(self.shards[at].orders.is_empty() && self.shards[at].reports.is_empty()) {
                    self.shards[at].carry_out();
                    self.handle(at);
                    self.check();
                }
                self.shards[at].report_rooms();
            }
        }
    }

    /// Nothing is on the way: the directory says what the shards say.
    fn compare(&self) {
        let directory = self.control.directory();
        let conns: Vec<ConnWord> = self.shards.iter().flat_map(|shard| shard.conns.keys().copied()).collect();
        assert_eq!(directory.connections(), conns.len() as u64);
        let addresses: BTreeSet<_> = conns.iter().map(|conn| peer_of(*conn).ip()).collect();
        assert_eq!(directory.addresses(), addresses.len() as u64);
        let by_key: BTreeSet<_> = (0..5).flat_map(|n| directory.key_connections(&format!("k{n}"))).collect();
        assert_eq!(by_key, conns.iter().copied().collect());
        for member in 1..3 {
            for (conn, key) in directory.member_connections(member) {
                assert!(directory.key_connections(&key.to_string()).contains(&conn));
            }
        }
        let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
        for (shard, known) in (0..).map(ShardIndex).zip(&self.shards) {
            for (index, room) in known.rooms.iter().filter(|(_, room)| !room.members.is_empty()) {
                let word = RoomRef { index: crate::ids::RoomIndex(*index), generation: room.generation };
                let name = directory.room_name(shard, word).expect("in the directory");
                *sizes.entry(name.to_string()).or_default() += room.members.len() as u64;
            }
        }
        let page = directory.rooms_page("", "", 100);
        assert_eq!(page.iter().map(|room| (room.name.to_string(), room.members)).collect::<BTreeMap<_, _>>(), sizes);
    }

    fn end_all(&mut self) {
        for shard in &mut self.shards {
            for conn in shard.conns.keys().copied().collect::<Vec<_>>() {
                shard.end(conn);
            }
        }
    }
}

fn policies() -> impl Strategy<Value = KeyPolicy> {
    prop_oneof![Just(KeyPolicy::Replace), Just(KeyPolicy::Refuse), Just(KeyPolicy::Share)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_directory_agrees_with_the_shards_whatever_the_interleaving(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..300),
        collide in any::<bool>(),
        key_policy in policies(),
    ) {
        let secret = if collide { HashSecret::colliding(1) } else { HashSecret::fixed(1) };
        let mut world = World::new(&secret, key_policy);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.compare();
        world.end_all();
        world.settle();
        world.compare();
        prop_assert_eq!(world.control.directory().rooms(), 0);
        prop_assert_eq!(world.control.directory().connections(), 0);
    }
}
