//! What is made of other nodes' records, with the time in hand.

use halley_protocol::node::{Command, write};

use super::*;
use crate::directory::{DirectoryWriter, HashSecret};
use crate::ids::ShardIndex;

const PATIENCE: Duration = Duration::from_secs(10);
const BEAT: Duration = Duration::from_secs(1);
const UNIX_MS: i64 = 1_000_000;

struct World {
    nodes: Nodes,
    directory: Arc<Directory>,
    writer: DirectoryWriter,
    begun: Instant,
    now: Instant,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let writer = DirectoryWriter::new(1, 100_000, &HashSecret::fixed(1));
        let (directory, now) = (Arc::clone(writer.directory()), Instant::now());
        let nodes = Nodes::new("own".into(), PATIENCE, BEAT, Arc::clone(&directory), Arc::default(), now);
        Self { nodes, directory, writer, begun: now, now, sequence: 0 }
    }

    /// One whose own beat has come back.
    fn begun() -> Self {
        let mut world = Self::new();
        world.beat("own", 0);
        world
    }

    fn hear(&mut self, key: &str, value: Option<&V1>) -> Heard {
        let value = value.map(|value| write(value).expect("small"));
        self.nodes.hear(key.as_bytes(), value.as_deref(), self.now, UNIX_MS)
    }

    fn beat(&mut self, id: &str, connections: u64) {
        self.sequence += 1;
        let beat = Beat {
            sequence: self.sequence,
            connections,
            addresses: 1,
            rooms: 1,
            left_out: 0,
            lag: 0,
            draining: false,
            instance: String::new(),
        };
        assert_eq!(self.hear(&Key::Beat(id).write(), Some(&V1::Beat(beat))), Heard::Nothing);
    }

    fn rooms(&mut self, id: &str, part: u16, members: &[(&str, u32)]) {
        self.sequence += 1;
        let members = members.iter().map(|(name, members)| ((*name).into(), *members)).collect();
        let rooms = V1::Rooms(Rooms { sequence: self.sequence, members });
        assert_eq!(self.hear(&Key::Rooms(id, part).write(), Some(&rooms)), Heard::Nothing);
    }

    /// Time goes by, with our own beats coming back and those of `others`.
    fn pass(&mut self, seconds: u64, others: &[&str]) {
        for _ in 0..seconds {
            self.now += BEAT;
            self.beat("own", 0);
            for id in others {
                self.beat(id, 5);
            }
            self.nodes.tick(self.now);
        }
    }

    fn size(&self, room: &str) -> u64 {
        self.directory.room_size(room)
    }

    fn connections(&self) -> u64 {
        self.directory.elsewhere().connections()
    }
}

#[test]
fn a_node_counts_from_its_beat_until_it_is_silent_for_too_long() {
    let mut world = World::begun();
    world.rooms("a", 0, &[("r", 3)]);
    assert_eq!(world.size("r"), 0, "who has not said that it lives does not count");
    world.beat("a", 5);
    world.rooms("b", 0, &[("r", 4), ("s", 1)]);
    world.beat("b", 6);
    assert_eq!((world.size("r"), world.size("s"), world.connections()), (7, 1, 11));
    assert_eq!(world.nodes.stats.living(), 2, "whoever asks knows it at once");
    world.pass(10, &["b"]);
    assert_eq!(world.size("r"), 7, "not before its time");
    world.pass(2, &["b"]);
    assert_eq!((world.size("r"), world.connections()), (4, 5));
    world.beat("a", 5);
    assert_eq!(world.size("r"), 7, "it was only slow: what it said before still holds");
    assert_eq!(world.hear("beat/a", None), Heard::Nothing);
    world.nodes.tick(world.now);
    assert_eq!((world.size("r"), world.connections()), (4, 5), "it has gone in order");
    assert!(world.nodes.stats.list().iter().all(|node| &*node.id != "a"));
}

#[test]
fn what_was_said_before_we_came_is_no_sign_of_life() {
    let mut world = World::new();
    world.rooms("a", 0, &[("r", 3)]);
    world.beat("a", 5);
    world.nodes.tick(world.now);
    assert_eq!((world.size("r"), world.connections()), (0, 0));
    world.beat("own", 0);
    assert_eq!(world.size("r"), 0);
    world.beat("a", 5);
    assert_eq!(world.size("r"), 3);
}

#[test]
fn while_kafka_is_away_nobody_is_declared_gone() {
    let mut world = World::begun();
    world.rooms("a", 0, &[("r", 3)]);
    world.beat("a", 5);
    world.now += 100 * PATIENCE;
    world.nodes.tick(world.now);
    assert_eq!(world.size("r"), 3, "our own beats do not come back either");
    world.beat("own", 0);
    world.nodes.tick(world.now);
    assert_eq!(world.size("r"), 3, "it has its time from now on");
    world.pass(12, &[]);
    assert_eq!(world.size("r"), 0);
}

#[test]
fn a_part_takes_the_place_of_the_one_before() {
    let mut world = World::begun();
    world.beat("a", 5);
    world.rooms("a", 0, &[("p", 1), ("q", 2), ("r", 3)]);
    world.rooms("a", 1, &[("z", 9)]);
    world.rooms("a", 0, &[("q", 5), ("r", 3), ("s", 4), ("t", 0)]);
    assert_eq!(["p", "q", "r", "s", "t", "z"].map(|room| world.size(room)), [0, 5, 3, 4, 0, 9]);
    assert_eq!(world.directory.elsewhere().rooms(), 4);
    // One that was overtaken.
    world.sequence -= 2;
    world.rooms("a", 0, &[("q", 99)]);
    assert_eq!(world.size("q"), 5);
    world.hear("rooms/a/1", None);
    assert_eq!((world.size("z"), world.nodes.held), (0, 3));
}

#[test]
fn rooms_of_all_nodes_are_paged_and_ranked_as_one() {
    let mut world = World::begun();
    for (name, size) in [("live://a", 5), ("live://c", 2)] {
        let ordered = world.writer.order_join(ShardIndex(0), name).expect("a place");
        world.writer.room_reported(ShardIndex(0), ordered.room, size, 1);
    }
    world.beat("a", 5);
    world.rooms("a", 0, &[("chat://x", 50), ("live://b", 6), ("live://c", 9)]);
    let show = |rooms: Vec<crate::directory::RoomCount>| {
        rooms.into_iter().map(|room| (room.name.to_string(), room.members)).collect::<Vec<_>>()
    };
    let expect = |rooms: &[(&str, u64)]| rooms.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<Vec<_>>();
    let directory = &world.directory;
    assert_eq!(show(directory.rooms_top("live://", 2)), expect(&[("live://c", 11), ("live://b", 6)]));
    assert_eq!(show(directory.rooms_page("live://", "", 2)), expect(&[("live://a", 5), ("live://b", 6)]));
    assert_eq!(show(directory.rooms_page("live://", "live://b", 9)), expect(&[("live://c", 11)]));
    let ordered = world.writer.order_join(ShardIndex(0), "live://b").expect("a place");
    assert_eq!(ordered.members, 7, "who joins is told the size over all nodes");
}

#[test]
fn nothing_is_read_on_before_control_has_taken_what_changed() {
    let mut world = World::begun();
    let ordered = world.writer.order_join(ShardIndex(0), "r").expect("a place");
    world.writer.room_reported(ShardIndex(0), ordered.room, 1, 1);
    world.beat("a", 5);
    for changes in 0..=CHANGES_WAITING_MAX {
        assert!(world.nodes.takes_more(), "{changes} changes wait");
        // Never as many as before.
        let members = u32::try_from(changes % 2).expect("0 or 1") + 1;
        world.rooms("a", 0, &[("elsewhere alone", members), ("r", members)]);
    }
    assert!(!world.nodes.takes_more());
    world.writer.publish_online(&[Arc::new(crate::link::ShardLink::new(10))]);
    assert!(world.nodes.takes_more());
}

#[test]
fn heartbeats_tell_the_size_over_all_nodes() {
    use std::sync::atomic::Ordering;
    let mut world = World::begun();
    let links = [Arc::new(crate::link::ShardLink::new(10))];
    let ordered = world.writer.order_join(ShardIndex(0), "r").expect("a place");
    world.writer.room_reported(ShardIndex(0), ordered.room, 2, 1);
    let online = |world: &mut World| {
        world.writer.publish_online(&links);
        links[0].room_online[ordered.room.index.0 as usize].load(Ordering::Relaxed)
    };
    assert_eq!(online(&mut world), 2);
    world.beat("a", 5);
    world.rooms("a", 0, &[("other", 1), ("r", 3)]);
    assert_eq!(online(&mut world), 5);
    world.writer.room_reported(ShardIndex(0), ordered.room, 4, 1);
    assert_eq!(online(&mut world), 7);
    world.hear("beat/a", None);
    assert_eq!(online(&mut world), 4);
}

#[test]
fn commands_are_done_by_who_runs_and_kept_ones_by_who_starts_later() {
    let kick = NodeCommand::Kick { key: "k".into(), reason: String::new() };
    let command = |until_ms, body: &str| V1::Command(Command { until_ms, body: body.into() });
    let body = serde_json::to_string(&kick).expect("plain");
    let mut world = World::new();
    assert_eq!(world.hear("command/a/1", Some(&command(0, &body))), Heard::Nothing, "before our time");
    let kept = Heard::Do(NodeCommand::Kick { key: "k".into(), reason: String::new() });
    assert_eq!(world.hear("command/a/2", Some(&command(UNIX_MS + 1, &body))), kept);
    world.beat("own", 0);
    assert_eq!(world.hear("command/a/3", Some(&command(0, &body))), Heard::Do(kick));
    assert_eq!(world.hear("command/own/3", Some(&command(0, &body))), Heard::Nothing, "our own");
    let unknown = command(0, "{\"dance\":{}}");
    assert_eq!(world.hear("command/a/4", Some(&unknown)), Heard::Reject(JobReject::Json));
}

#[test]
fn bad_records_are_refused_and_change_nothing() {
    let mut world = World::begun();
    world.beat("a", 5);
    world.rooms("a", 0, &[("r", 3)]);
    let beat = write(&V1::Command(Command { until_ms: 0, body: String::new() })).expect("small");
    for (key, value, reject) in [
        (&b"beat/a"[..], &b"junk"[..], JobReject::EnvelopeLength),
        (b"beat/a", &[0; 64], JobReject::UnknownFormat),
        (b"beat/a", &beat, JobReject::UnknownKind),
        (b"nonsense", &beat, JobReject::BadName),
        (b"\xff", &beat, JobReject::BadName),
    ] {
        assert_eq!(world.nodes.hear(key, Some(value), world.now, UNIX_MS), Heard::Reject(reject));
    }
    for key in ["beat/nobody", "rooms/nobody/3", "command/nobody/1"] {
        assert_eq!(world.hear(key, None), Heard::Nothing);
    }
    assert_eq!((world.size("r"), world.connections()), (3, 5));
}

#[test]
fn nodes_and_rooms_have_a_maximum() {
    let mut world = World::begun();
    for n in 0..NODES_MAX {
        world.beat(&format!("n{n:03}"), 1);
    }
    let beat = Beat {
        sequence: 1,
        connections: 1,
        addresses: 1,
        rooms: 1,
        left_out: 0,
        lag: 0,
        draining: false,
        instance: String::new(),
    };
    assert_eq!(world.hear("beat/one-more", Some(&V1::Beat(beat))), Heard::Reject(JobReject::TooManyTargets));
    assert_eq!(world.connections(), NODES_MAX as u64);
    let names: Vec<String> = (0..8192).map(|n| format!("room {n:04}")).collect();
    let rooms: Vec<_> = names.iter().map(|name| (&**name, 1)).collect();
    for part in 0..64 {
        world.rooms("n000", part, &rooms);
    }
    assert_eq!(world.nodes.held, ROOMS_HELD_MAX);
    world.rooms("n001", 0, &rooms[..10]);
    world.nodes.tick(world.now);
    assert_eq!((world.nodes.held, world.size("room 0000")), (ROOMS_HELD_MAX, 64), "no more are taken");
    assert_eq!(world.nodes.stats.list()[1].left_out, 10, "and it is said how many");
    world.rooms("n000", 0, &rooms[..5]);
    world.rooms("n001", 0, &rooms[..10]);
    assert_eq!(world.size("room 0000"), 65, "where there is room again, they are");
}

#[test]
fn starts_that_crashed_keep_nobody_out_who_lives() {
    let mut world = World::new();
    world.rooms("lives", 3, &[("r", 2)]);
    world.beat("lives", 5);
    for n in 0..2 * NODES_MAX {
        world.beat(&format!("crashed-{n:03}"), 1);
    }
    world.beat("own", 0);
    world.beat("lives", 5);
    assert_eq!((world.size("r"), world.connections()), (2, 5));
    assert_eq!(world.nodes.known.len(), NODES_MAX);
}

#[test]
fn the_first_node_removes_what_those_left_that_are_long_gone() {
    let mut world = World::begun();
    world.rooms("a", 3, &[("r", 1)]);
    world.beat("a", 5);
    let later = UNIX_MS + 2 * COMMAND_STAYS_MS;
    let command = V1::Command(Command { until_ms: 0, body: "{}".into() });
    let _ = world.hear("command/a/7", Some(&command));
    world.pass(5, &[]);
    assert!(world.nodes.litter(world.now, later).is_empty(), "a lives, and comes before us");
    world.pass(10, &[]);
    assert_eq!(world.nodes.litter(world.now, UNIX_MS), Vec::<String>::new(), "it may be slow");
    world.pass(100, &[]);
    assert_eq!(world.nodes.litter(world.now, later), ["rooms/a/3", "beat/a", "command/a/7"]);
    world.beat("b", 1);
    world.nodes.tick(world.now);
    assert!(world.nodes.litter(world.now, later).is_empty(), "b is first now");
    for key in ["rooms/a/3", "beat/a", "command/a/7"] {
        world.hear(key, None);
    }
    assert_eq!((world.nodes.held, world.nodes.commands.len()), (0, 0));
    assert_eq!(world.hear("beat/own", None), Heard::TellAgain, "somebody thought that we are gone");
    assert!(world.now > world.begun);
}

#[test]
fn only_parts_that_changed_are_told_a_bounded_piece_at_a_time() {
    let mut world = World::begun();
    let mut telling = Telling::new("me".into(), 50_000);
    assert!(telling.rooms(&world.directory).is_empty());
    let join = |world: &mut World, name: &str, size: u32| {
        let ordered = world.writer.order_join(ShardIndex(0), name).expect("a place");
        world.writer.room_reported(ShardIndex(0), ordered.room, size, 1);
        ordered.room
    };
    let room = join(&mut world, "r", 2);
    let told = telling.rooms(&world.directory);
    let [(key, Some(value))] = &told[..] else { panic!("{told:?}") };
    let Ok(V1::Rooms(rooms)) = node::read(value) else { panic!("rooms") };
    assert!(key.starts_with("rooms/me/") && rooms.members == [("r".to_owned(), 2)], "{key}");
    assert!(telling.rooms(&world.directory).is_empty(), "nothing changed");
    world.writer.room_reported(ShardIndex(0), room, 0, 1);
    assert_eq!(telling.rooms(&world.directory), [(key.clone(), None)]);

    for n in 0..60_000 {
        join(&mut world, &format!("a room with a name of some length, number {n}"), 1 + u32::from(n < 50_000));
    }
    let (mut told, mut turns) = (std::collections::BTreeSet::new(), 0);
    loop {
        let records = telling.rooms(&world.directory);
        if records.is_empty() {
            break;
        }
        turns += 1;
        let bytes: usize = records.iter().filter_map(|(_, value)| Some(value.as_ref()?.len())).sum();
        assert!(bytes < telling::ROOM_BYTES_PER_BEAT_MAX + (100 << 10), "{bytes}");
        for (_, value) in records {
            let Ok(V1::Rooms(rooms)) = node::read(&value.expect("rooms")) else { panic!("rooms") };
            told.extend(rooms.members.into_iter().map(|(name, _)| name));
        }
    }
    assert!(turns > 3, "in {turns} pieces");
    assert_eq!((told.len(), telling.left_out()), (50_000, 10_000), "the largest are told");
    assert_eq!(telling.end().len(), 257);
    telling.tell_again();
    assert!(!telling.rooms(&world.directory).is_empty());
}
