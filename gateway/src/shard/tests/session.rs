//! Stories of a session: login, heartbeats, what is echoed, pings, and the end that the client makes.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::client::{Client, Got};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::reason::CloseReason;
use crate::shard::Transport::{self, Tcp, WebSocket};

pub(super) const BOTH: [Transport; 2] = [Tcp, WebSocket];

/// A login of a key in a room that accepts operation 1000.
pub(super) fn login(key: &str, room: &str) -> Login {
    Login { key: key.into(), room_id: room.into(), accepts: vec![1000], ..Login::default() }
}

/// The same with Halley's mark.
pub(super) fn marked(key: &str, room: &str) -> Login {
    Login { halley: true, ..login(key, room) }
}

#[test]
fn a_login_is_answered_with_an_empty_op_8_and_counted() {
    for transport in BOTH {
        let mut world = World::new();
        let _client = world.enter(transport, &login("key", "live://1"));
        assert_eq!(world.sum(|stats| &stats.logins), 1);
        assert_eq!(world.directory.key_connections("key").len(), 1);
    }
}

#[test]
fn whatever_is_said_before_the_login_is_ignored() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.connect(transport);
        for operation in [operation::HEARTBEAT, operation::SUBSCRIBE, operation::CHANGE_ROOM, operation::JOIN, 1000] {
            client.send(operation, b"1000");
        }
        world.settle();
        assert_eq!(client.take(), []);
        client.login(&login("key", ""));
        world.settle();
        let welcome = Got::Reply { operation: operation::AUTH_REPLY, sequence: 6, body: Vec::new() };
        assert_eq!(client.take(), [welcome]);
    }
}

#[test]
fn requests_behind_the_login_are_answered_after_it_in_their_order() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = Client::connect(&world.net, usize::from(transport == WebSocket), transport);
        client.login(&login("key", "live://1"));
        for body in ["1001", "1002", "1003"] {
            client.send(operation::SUBSCRIBE, body.as_bytes());
        }
        client.send(operation::CHANGE_ROOM, b"live://2");
        client.send(operation::HEARTBEAT, b"");
        world.settle();
        let replies: Vec<_> = client.take();
        let reply = |operation, sequence, body: &[u8]| Got::Reply { operation, sequence, body: body.to_vec() };
        let expected = [
            reply(operation::AUTH_REPLY, 1, b""),
            reply(operation::SUBSCRIBE_REPLY, 2, b"1001"),
            reply(operation::SUBSCRIBE_REPLY, 3, b"1002"),
            reply(operation::SUBSCRIBE_REPLY, 4, b"1003"),
            reply(operation::CHANGE_ROOM_REPLY, 5, b"live://2"),
            reply(operation::HEARTBEAT_REPLY, 6, &1i32.to_be_bytes()),
        ];
        assert_eq!(replies, expected);
    }
}

#[test]
fn a_heartbeat_is_answered_with_the_members_of_the_login_room_in_all_shards() {
    let mut world = Setup::new().shards(2).build();
    let mut clients: Vec<_> =
        (0..5).map(|number| world.enter(BOTH[number % 2], &login(&format!("key-{number}"), "live://1"))).collect();
    world.control.publish_online(&world.links);
    for client in &mut clients {
        let reply = world.ask(client, operation::HEARTBEAT, b"ignored");
        assert_eq!(reply, (operation::HEARTBEAT_REPLY, 5i32.to_be_bytes().to_vec()));
    }
}

#[test]
fn the_count_is_kept_after_the_room_is_left_and_0_without_one() {
    let mut world = World::new();
    let mut other = world.enter(Tcp, &login("other", "live://1"));
    let mut client = world.enter(WebSocket, &login("key", "live://1"));
    world.ask(&mut client, operation::CHANGE_ROOM, b"");
    assert_eq!(world.ask(&mut client, operation::HEARTBEAT, b"").1, 2i32.to_be_bytes());
    assert_eq!(world.ask(&mut other, operation::HEARTBEAT, b"").1, 1i32.to_be_bytes());
    let mut roomless = world.enter(Tcp, &login("roomless", ""));
    assert_eq!(world.ask(&mut roomless, operation::HEARTBEAT, b"").1, 0i32.to_be_bytes());
}

#[test]
fn operations_of_goim_that_nobody_knows_are_echoed_empty() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", "live://1"));
        let others = [0, 1, 4, 5, 6, operation::AUTH, 8, 10, 11, 18, 254, 1000, i32::MAX, -1, i32::MIN];
        let unmarked = [operation::JOIN, operation::LEAVE, operation::KICK, operation::REFRESH];
        for operation in others.into_iter().chain(unmarked) {
            assert_eq!(world.ask(&mut client, operation, b"body"), (operation, Vec::new()));
        }
        let count = world.ask(&mut client, operation::HEARTBEAT_REPLY, b"body");
        assert_eq!(count, (operation::HEARTBEAT_REPLY, 1i32.to_be_bytes().to_vec()), "goim's own branch");
    }
}

#[test]
fn op_9_is_answered_on_websocket_only() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", ""));
        let sequence = client.send(operation::RAW, b"body");
        world.settle();
        let reply = Got::Reply { operation: operation::RAW, sequence, body: Vec::new() };
        assert_eq!(client.take(), if transport == Tcp { vec![] } else { vec![reply] });
    }
}

#[test]
fn subscriptions_are_echoed_and_filter_what_is_pushed_to_keys() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &Login { accepts: Vec::new(), ..login("key", "") });
        let gets = |world: &mut World, client: &mut Client, operation| {
            world.dispatch(&Target::Keys(vec!["key".into()]), operation, "x").expect("places");
            world.settle();
            !client.take().is_empty()
        };
        assert!(!gets(&mut world, &mut client, 1000));
        let say = |world: &mut World, client: &mut Client, operation, body: &str| {
            let echo = world.ask(client, operation, body.as_bytes());
            assert_eq!(echo, (operation + 1, body.as_bytes().to_vec()), "always echoed");
        };
        say(&mut world, &mut client, operation::SUBSCRIBE, "1000,1001");
        assert!(gets(&mut world, &mut client, 1000) && gets(&mut world, &mut client, 1001));
        for nothing in ["1002, 1003", "1002,x", "", "1002,"] {
            say(&mut world, &mut client, operation::SUBSCRIBE, nothing);
        }
        say(&mut world, &mut client, operation::UNSUBSCRIBE, "1001, 1000");
        say(&mut world, &mut client, operation::UNSUBSCRIBE, "1001,7");
        assert!(!gets(&mut world, &mut client, 1001) && !gets(&mut world, &mut client, 1002));
        assert!(gets(&mut world, &mut client, 1000), "not in the list that stood");
    }
}

#[test]
fn only_heartbeats_move_the_deadline() {
    for (said, ends) in [(operation::HEARTBEAT, false), (operation::HEARTBEAT_REPLY, true), (1000, true)] {
        let mut world = Setup::new().listeners(|listener| listener.heartbeat_ms_max = 1000).build();
        let mut client = world.enter(Tcp, &login("key", ""));
        for _ in 0..6 {
            world.advance(500);
            client.send(said, b"");
        }
        world.settle();
        assert_eq!(client.is_closed(), ends, "saying {said}");
        assert_eq!(world.closes(CloseReason::HeartbeatMissed), u64::from(ends));
    }
}

#[test]
fn a_deadline_is_not_missed_before_its_time_nor_much_after() {
    let mut world =
        Setup::new().listeners(|l| (l.heartbeat_ms_max, l.login_ms_max, l.linger_ms_max) = (3000, 2000, 0)).build();
    let waits = world.connect(Tcp);
    let mut client = world.enter(Tcp, &login("key", ""));
    world.advance(1800);
    assert!(!waits.is_closed(), "login");
    world.advance(300);
    assert!(waits.is_closed() && !client.is_closed());
    client.send(operation::HEARTBEAT, b"");
    world.settle();
    world.advance(2800);
    assert!(!client.is_closed(), "heartbeat");
    world.advance(300);
    assert!(client.is_closed());
}

#[test]
fn a_ping_is_answered_with_its_payload_before_and_after_the_login() {
    let mut world = World::new();
    let mut client = world.connect(WebSocket);
    client.frame(true, Opcode::Ping, b"early");
    world.settle();
    assert_eq!(client.take(), [Got::Pong(b"early".to_vec())]);
    client.login(&login("key", ""));
    client.frame(true, Opcode::Pong, b"unasked");
    client.frame(true, Opcode::Ping, b"");
    world.settle();
    assert_eq!(client.take()[1..], [Got::Pong(Vec::new())]);
}

#[test]
fn a_close_frame_is_answered_with_its_code_and_the_socket_closed() {
    for (payload, code) in [(&[0x03, 0xe8][..], Some(1000)), (&[0x0f, 0xa0, b'x'], Some(4000)), (&[], None)] {
        let mut world = World::new();
        let mut client = world.enter(WebSocket, &login("key", "live://1"));
        client.send(operation::SUBSCRIBE, b"1001");
        client.frame(true, Opcode::Close, payload);
        world.settle();
        assert!(matches!(client.take().as_slice(), [Got::Reply { .. }, Got::Close(got)] if *got == code));
        assert!(client.is_closed());
        assert_eq!(world.closes(CloseReason::PeerClosed), 1);
        world.assert_empty();
    }
}

#[test]
fn whoever_ends_its_side_still_gets_what_waits_for_it() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", "live://1"));
        client.set_window(10);
        world.push_room("live://1", "begun before the end");
        client.half_close();
        world.settle();
        assert!(!client.is_closed());
        client.set_window(1000);
        world.settle();
        assert_eq!(client.texts(), ["begun before the end"]);
        assert!(client.is_closed());
        assert_eq!((world.sum(|stats| &stats.sent), world.closes(CloseReason::PeerClosed)), (1, 1));
        world.assert_empty();
    }
}

#[test]
fn a_newer_connection_takes_the_key_and_the_old_one_is_told() {
    let mut world = Setup::new().shards(2).build();
    let mut old = world.enter(WebSocket, &login("key", "live://1"));
    let mut new = world.enter(Tcp, &login("key", "live://1"));
    assert_eq!(old.take(), [Got::Close(Some(4004))]);
    old.half_close();
    world.settle();
    assert!(old.is_closed());
    world.push_room("live://1", "one");
    world.dispatch(&Target::Keys(vec!["key".into()]), 1000, "two").expect("places");
    world.settle();
    assert_eq!(new.texts(), ["one", "two"]);
    assert_eq!(world.closes(CloseReason::Replaced), 1);
}

#[test]
fn a_key_may_have_several_connections_and_a_push_reaches_all() {
    let mut setup = Setup::new().shards(2);
    setup.policy.key_connections_max = 3;
    let mut world = setup.build();
    let mut clients: Vec<_> = (0..3).map(|at| world.enter(BOTH[at % 2], &login("key", ""))).collect();
    let dispatched = world.dispatch(&Target::Keys(vec!["key".into()]), 1000, "all three").expect("places");
    assert_eq!(dispatched.connections, 3);
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts() == ["all three"]));
}
