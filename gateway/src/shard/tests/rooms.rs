//! Stories of rooms: changing, joining and leaving them, their counts, and what becomes of stale ones.

use halley_protocol::halley::{JoinReply, JoinStatus, LeaveStatus};
use halley_protocol::operation;

use super::client::{Client, Got};
use super::session::{BOTH, login, marked};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::ids::{RoomIndex, RoomRef};
use crate::limits::{ROOM_NAME_BYTES_MAX, ROOMS_PER_CONNECTION_MAX};
use crate::order::{Order, Report};
use crate::payload::{Note, Payload};
use crate::reason::{CloseReason, Reject};
use crate::shard::Transport::{Tcp, WebSocket};

fn join(world: &mut World, client: &mut Client, room: &str) -> JoinReply {
    let (operation, body) = world.ask(client, operation::JOIN, room.as_bytes());
    assert_eq!(operation, operation::JOIN_REPLY);
    JoinReply::parse(&body).expect("a join reply")
}

fn leave(world: &mut World, client: &mut Client, room: &str) -> LeaveStatus {
    let (operation, body) = world.ask(client, operation::LEAVE, room.as_bytes());
    assert_eq!(operation, operation::LEAVE_REPLY);
    LeaveStatus::parse(&body).expect("a leave reply")
}

fn joined(members: i32) -> JoinReply {
    JoinReply { status: JoinStatus::Joined, members }
}

/// Pushes its own name to each room and returns which arrived.
fn heard(world: &mut World, client: &mut Client, rooms: &[&str]) -> Vec<String> {
    for room in rooms {
        world.dispatch(&Target::Room((*room).into()), 1000, room).expect("places");
    }
    world.settle();
    let mut heard = client.texts();
    heard.sort();
    heard
}

#[test]
fn a_change_of_room_is_echoed_and_moves_the_login_room() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", "a"));
        let rooms = ["a", "b"];
        assert_eq!(heard(&mut world, &mut client, &rooms), ["a"]);
        for (to, hears) in [("b", &["b"][..]), ("b", &["b"]), ("", &[]), ("a", &["a"])] {
            let echo = world.ask(&mut client, operation::CHANGE_ROOM, to.as_bytes());
            assert_eq!(echo, (operation::CHANGE_ROOM_REPLY, to.into()));
            assert_eq!(heard(&mut world, &mut client, &rooms), hears, "after moving to {to:?}");
        }
    }
}

#[test]
fn further_rooms_are_joined_and_left_with_statuses() {
    for transport in BOTH {
        let mut world = World::new();
        let mut other = world.enter(Tcp, &login("other", "b"));
        let mut client = world.enter(transport, &marked("key", "a"));
        assert_eq!(join(&mut world, &mut client, "b"), joined(2));
        assert_eq!(join(&mut world, &mut client, "c"), joined(1));
        assert_eq!(heard(&mut world, &mut client, &["a", "b", "c"]), ["a", "b", "c"]);
        assert_eq!(other.texts(), ["b"]);
        assert_eq!(leave(&mut world, &mut client, "b"), LeaveStatus::Left);
        assert_eq!(leave(&mut world, &mut client, "b"), LeaveStatus::NotMember);
        assert_eq!(leave(&mut world, &mut client, "nowhere"), LeaveStatus::NotMember);
        assert_eq!(leave(&mut world, &mut client, ""), LeaveStatus::NotMember);
        assert_eq!(heard(&mut world, &mut client, &["a", "b", "c"]), ["a", "c"]);
        for bad in [&b""[..], &[0xff], &[b'x'; ROOM_NAME_BYTES_MAX + 1]] {
            let (_, body) = world.ask(&mut client, operation::JOIN, bad);
            let refused = JoinReply { status: JoinStatus::Refused, members: 0 };
            assert_eq!(JoinReply::parse(&body), Some(refused));
        }
    }
}

#[test]
fn op_12_moves_the_login_room_only() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &marked("key", "a"));
    let rooms = ["a", "b", "c", "d"];
    join(&mut world, &mut client, "b");
    join(&mut world, &mut client, "c");
    world.ask(&mut client, operation::CHANGE_ROOM, b"d");
    assert_eq!(heard(&mut world, &mut client, &rooms), ["b", "c", "d"]);
    world.ask(&mut client, operation::CHANGE_ROOM, b"c");
    assert_eq!(heard(&mut world, &mut client, &rooms), ["b", "c"], "a joined room becomes the login room");
    world.ask(&mut client, operation::CHANGE_ROOM, b"");
    assert_eq!(heard(&mut world, &mut client, &rooms), ["b"], "and is left with it");
    world.ask(&mut client, operation::CHANGE_ROOM, b"");
    assert_eq!(heard(&mut world, &mut client, &rooms), ["b"], "there was no login room");
    world.ask(&mut client, operation::CHANGE_ROOM, b"a");
    assert_eq!(leave(&mut world, &mut client, "a"), LeaveStatus::Left);
    world.ask(&mut client, operation::CHANGE_ROOM, b"d");
    assert_eq!(heard(&mut world, &mut client, &rooms), ["b", "d"], "the login room can be left like any other");
}

#[test]
fn the_count_is_the_login_rooms_whatever_else_is_joined() {
    let mut world = World::new();
    let _others: Vec<_> = (0..3).map(|n| world.enter(Tcp, &login(&format!("other-{n}"), "b"))).collect();
    let mut client = world.enter(Tcp, &marked("key", "a"));
    join(&mut world, &mut client, "b");
    join(&mut world, &mut client, "c");
    assert_eq!(world.ask(&mut client, operation::HEARTBEAT, b"").1, 1i32.to_be_bytes());
    world.ask(&mut client, operation::CHANGE_ROOM, b"b");
    assert_eq!(world.ask(&mut client, operation::HEARTBEAT, b"").1, 4i32.to_be_bytes());
    leave(&mut world, &mut client, "b");
    assert_eq!(world.ask(&mut client, operation::HEARTBEAT, b"").1, 4i32.to_be_bytes(), "the last one told");
}

#[test]
fn a_connection_has_as_many_rooms_as_the_configuration_lets_it() {
    let mut world = Setup::new().shard(|shard| shard.rooms_per_connection_max = 2).build();
    let mut client = world.enter(Tcp, &marked("key", "a"));
    assert_eq!(join(&mut world, &mut client, "b"), joined(1));
    let too_many = JoinReply { status: JoinStatus::TooManyRooms, members: 0 };
    assert_eq!(join(&mut world, &mut client, "c"), too_many);
    let mut settings = world.shards[0].settings.reloadable();
    settings.rooms_per_connection_max = 1;
    world.order(0, Order::Reload { settings: settings.into() });
    world.settle();
    assert_eq!(heard(&mut world, &mut client, &["a", "b"]), ["a", "b"], "who is in more stays in them");
    leave(&mut world, &mut client, "b");
    assert_eq!(join(&mut world, &mut client, "b"), too_many);
}

#[test]
fn a_full_room_has_no_place_for_others_and_its_members_notice_nothing() {
    for transport in BOTH {
        let mut setup = Setup::new().shards(2);
        setup.policy.room_members_max = 2;
        let mut world = setup.build();
        let mut member = world.enter(transport, &marked("member", "a"));
        let mut further = world.enter(transport, &marked("further", "other"));
        assert_eq!(join(&mut world, &mut further, "a"), joined(2));
        assert_eq!(join(&mut world, &mut further, "a"), joined(2), "who is in it may join it again");
        assert_eq!(world.ask(&mut member, operation::CHANGE_ROOM, b"a").1, b"a");
        assert_eq!(world.ask(&mut further, operation::CHANGE_ROOM, b"a").1, b"a", "and make it the login room");
        assert_eq!(heard(&mut world, &mut further, &["a", "other"]), ["a"]);
        assert_eq!(member.texts(), ["a"]);

        let mut outside = world.enter(transport, &marked("outside", ""));
        let full = JoinReply { status: JoinStatus::RoomFull, members: 0 };
        assert_eq!(join(&mut world, &mut outside, "a"), full);
        assert_eq!((world.rejects(Reject::RoomFull), world.closes(CloseReason::RoomFull)), (1, 0));
        outside.send(operation::CHANGE_ROOM, b"a");
        world.settle();
        let kick = Got::Kick { code: 4002, text: "room-full".into() };
        assert_eq!(outside.take()[0], kick);
        let mut newcomer = world.connect(transport);
        newcomer.login(&login("newcomer", "a"));
        world.settle();
        let told = if transport == WebSocket { vec![Got::Close(Some(4002))] } else { Vec::new() };
        assert_eq!(newcomer.take(), told);
        assert_eq!((world.rejects(Reject::RoomFull), world.closes(CloseReason::RoomFull)), (1, 2));

        assert_eq!(leave(&mut world, &mut member, "a"), LeaveStatus::Left);
        assert_eq!(world.ask(&mut member, operation::CHANGE_ROOM, b"a").1, b"a", "a place is free again");
        for client in [&member, &further, &outside, &newcomer] {
            client.reset();
        }
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn rooms_of_a_connection_have_an_end() {
    let mut world = World::new();
    let mut client = world.enter(Tcp, &marked("key", "login"));
    let rooms: Vec<_> = (1..ROOMS_PER_CONNECTION_MAX).map(|number| format!("room-{number}")).collect();
    for room in &rooms {
        assert_eq!(join(&mut world, &mut client, room).status, JoinStatus::Joined);
    }
    let too_many = JoinReply { status: JoinStatus::TooManyRooms, members: 0 };
    assert_eq!(join(&mut world, &mut client, "one too many"), too_many);
    assert_eq!(join(&mut world, &mut client, "room-1").status, JoinStatus::Joined, "is in it already");
    world.ask(&mut client, operation::CHANGE_ROOM, b"other");
    assert_eq!(heard(&mut world, &mut client, &["login", "other", "room-1"]), ["other", "room-1"]);
    leave(&mut world, &mut client, "other");
    join(&mut world, &mut client, "further");
    world.ask(&mut client, operation::CHANGE_ROOM, b"no place");
    assert_eq!(heard(&mut world, &mut client, &["no place", "further"]), ["further"]);
    assert_eq!(world.rejects(Reject::TooManyRooms), 2);
    client.reset();
    world.settle();
    world.assert_empty();
}

#[test]
fn a_join_of_a_client_that_is_gone_leaves_no_room_behind() {
    for asked in [operation::JOIN, operation::CHANGE_ROOM] {
        let mut world = World::new();
        let mut client = world.enter(Tcp, &marked("key", "a"));
        world.control_works = false;
        client.send(asked, b"b");
        world.settle();
        world.kick("key");
        world.control_works = true;
        world.settle();
        client.take();
        client.half_close();
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn a_login_that_comes_too_late_leaves_nothing_behind() {
    let mut world = Setup::new().listeners(|listener| listener.login_ms_max = 500).build();
    let mut clients: Vec<_> = BOTH.map(|transport| world.connect(transport)).into();
    world.control_works = false;
    clients.iter_mut().for_each(|client| client.login(&login("key", "a")));
    world.advance(1000);
    world.control_works = true;
    world.settle();
    clients.iter().for_each(Client::half_close);
    world.settle();
    assert!(clients.iter().all(Client::is_closed));
    world.assert_empty();
}

#[test]
fn a_push_for_a_room_whose_index_was_given_to_another_reaches_nobody() {
    let mut world = World::new();
    let client = world.enter(Tcp, &login("old", "old room"));
    let old = world.directory.room_in(crate::ids::ShardIndex(0), "old room").expect("its part");
    client.reset();
    world.settle();
    let mut heir = world.enter(Tcp, &login("new", "new room"));
    let new = world.directory.room_in(crate::ids::ShardIndex(0), "new room").expect("its part");
    assert_eq!((new.index, new.generation), (old.index, old.generation + 1), "the index is used again");
    let unknown = RoomRef { index: RoomIndex(9999), generation: 1 };
    for room in [old, unknown] {
        assert!(world.links[0].take_credit(0));
        world.links[0].put_push(Order::Room { room, payload: Payload::encode(1000, b"stale", Note::default()) });
    }
    world.settle();
    assert_eq!(heir.take(), []);
    assert_eq!(world.rejects(Reject::StaleRoom), 2);
}

#[test]
fn what_waits_in_a_room_is_not_for_those_who_get_its_index() {
    // Few sends a turn: pushes to all hold the room's run up while its last member goes and another room comes.
    let mut world = Setup::new().shard(|shard| (shard.sends_per_turn_max, shard.connections_max) = (4, 64)).build();
    let _others: Vec<_> = (0..30).map(|n| world.enter(Tcp, &login(&format!("other-{n}"), ""))).collect();
    let client = world.enter(Tcp, &login("old", "old room"));
    let mut heir = world.enter(Tcp, &login("heir", ""));
    for _ in 0..40 {
        world.dispatch(&Target::All, 1000, "to all").expect("places");
    }
    world.dispatch(&Target::Room("old room".into()), 1000, "secret").expect("places");
    world.round();
    client.reset();
    for _ in 0..5 {
        world.round();
    }
    assert_eq!(world.directory.rooms(), 0, "the room is gone while its message waits");
    heir.send(operation::CHANGE_ROOM, b"new room");
    world.settle();
    let got = heir.take();
    let secret = Got::Push { operation: 1000, body: b"secret".into() };
    assert!(got.len() > 1 && !got.contains(&secret), "{got:?}");
}

#[test]
fn a_push_after_the_reply_to_a_join_arrives_and_none_after_that_to_a_leave() {
    // A run in passing when somebody joins or leaves: few sends a turn.
    let mut world = Setup::new().shard(|shard| shard.sends_per_turn_max = 2).build();
    let mut members: Vec<_> = (0..9).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    let mut client = world.enter(WebSocket, &marked("guest", ""));
    for turn in 0..20 {
        let (asked, hears) = if turn % 2 == 0 { (operation::JOIN, true) } else { (operation::LEAVE, false) };
        world.dispatch(&Target::Room("room".into()), 1000, "before").expect("places");
        let sequence = client.send(asked, b"room");
        for _ in 0..100 {
            world.round();
            let got = client.take();
            if got.iter().any(|got| matches!(got, Got::Reply { sequence: of, .. } if *of == sequence)) {
                break;
            }
        }
        world.dispatch(&Target::Room("room".into()), 1000, &turn.to_string()).expect("places");
        world.settle();
        assert_eq!(client.texts().contains(&turn.to_string()), hears);
    }
    assert!(members.iter_mut().all(|member| member.texts().len() == 40), "everybody else gets each push once");
}

#[test]
fn changes_of_a_room_in_one_turn_are_one_report() {
    let mut world = World::new();
    let clients: Vec<_> = (0..5).map(|n| world.enter(Tcp, &login(&format!("key-{n}"), "room"))).collect();
    world.control_works = false;
    clients[..4].iter().for_each(Client::reset);
    world.settle();
    let reports: Vec<_> = std::iter::from_fn(|| world.links[0].next_report()).collect();
    let sizes = reports.iter().filter_map(|report| match report {
        Report::Room { size, .. } => Some(*size),
        _ => None,
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [1]);
}

#[test]
fn what_waits_in_a_room_is_bounded_and_the_rest_is_dropped_and_counted() {
    let mut world = Setup::new().shard(|shard| shard.room_pending_bytes_max = 1000).build();
    let mut clients: Vec<_> = (0..3).map(|n| world.enter(Tcp, &login(&format!("key-{n}"), "room"))).collect();
    let body = "x".repeat(100 - 16);
    for _ in 0..25 {
        world.dispatch(&Target::Room("room".into()), 1000, &body).expect("places");
    }
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts().len() == 10));
    assert_eq!(world.dropped(crate::reason::DropReason::RoomBehind), 3 * 15);
    assert_eq!(world.sum(|stats| &stats.sent), 3 * 10);
    world.push_room("room", &"y".repeat(5000));
    assert!(clients.iter_mut().all(|client| client.texts().len() == 1), "one message always may wait");
}
