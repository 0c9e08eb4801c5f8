//! Stories of pushes: who gets them, in which order, joined how, and refused when.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::client::{Client, Got};
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::dispatch::{DispatchError, Target};
use crate::order::Order;
use crate::payload::{Note, Payload};
use crate::reason::Reject;
use crate::shard::Transport::{Tcp, WebSocket};

#[test]
fn each_target_reaches_exactly_whom_it_names() {
    let mut world = Setup::new().shards(3).build();
    let mut clients: Vec<_> = (0..12)
        .map(|number| {
            let room = format!("live://{}", number % 4);
            let of_member = Login { mid: 1 + number % 3, ..login(&format!("key-{number}"), &room) };
            world.enter(BOTH[usize::try_from(number % 2).expect("small")], &of_member)
        })
        .collect();
    let mut gets = |target: Target, operation| {
        world.dispatch(&target, operation, "x").expect("places");
        world.settle();
        let got = clients.iter_mut().enumerate().filter_map(|(at, client)| (!client.texts().is_empty()).then_some(at));
        got.collect::<Vec<_>>()
    };
    assert_eq!(gets(Target::Keys(["key-3", "key-8", "key-3", "nobody"].map(String::from).to_vec()), 1000), [3, 8]);
    assert_eq!(gets(Target::Members(vec![2, 2, 99]), 1000), [1, 4, 7, 10]);
    assert_eq!(gets(Target::Room("live://3".into()), 1000), [3, 7, 11]);
    assert_eq!(gets(Target::All, 1000), (0..12).collect::<Vec<_>>());
    assert_eq!(gets(Target::All, 1001), [0; 0], "nobody accepts it");
    assert_eq!(gets(Target::Members(vec![2]), 1001), [0; 0]);
    assert_eq!(gets(Target::Room("live://3".into()), 1001), [3, 7, 11], "rooms do not ask");
    assert_eq!(gets(Target::Room("live://9".into()), 1000), [0; 0]);
}

#[test]
fn sent_is_what_the_clients_counted_and_runs_grow_when_many_wait() {
    let mut world = Setup::new().shards(2).build();
    let mut clients: Vec<_> =
        (0..10).map(|number| world.enter(BOTH[number % 2], &login(&format!("key-{number}"), "live://1"))).collect();
    let sends_before = world.sum(|stats| &stats.sends);
    for number in 0..100 {
        world.dispatch(&Target::Room("live://1".into()), 1000 + number % 3, &number.to_string()).expect("places");
    }
    world.settle();
    let expected: Vec<_> = (0..100).map(|number| number.to_string()).collect();
    assert!(clients.iter_mut().all(|client| client.texts() == expected));
    assert_eq!(world.sum(|stats| &stats.sent), 1000);
    assert_eq!(world.sum(|stats| &stats.sends) - sends_before, 10, "one send of the joined run for each");
}

#[test]
fn a_joined_run_ends_at_its_messages_and_at_its_bytes() {
    let setup = Setup::new().shard(|shard| (shard.run_messages_max, shard.run_bytes_max) = (3, 200));
    let mut world = setup.build();
    let mut client = world.enter(WebSocket, &login("key", "live://1"));
    let long = "x".repeat(300);
    for body in ["1", "2", "3", "4", "5", &long, "7", "8"] {
        world.dispatch(&Target::Room("live://1".into()), 1000, body).expect("places");
    }
    let before = world.sum(|stats| &stats.sends);
    world.settle();
    assert_eq!(client.texts(), ["1", "2", "3", "4", "5", &long, "7", "8"]);
    assert_eq!(world.sum(|stats| &stats.sends) - before, 4, "123, 45, the long one, 78");
    assert_eq!(world.stats(0).run_messages.sum(), 8);
    // Sixteen bytes of a header and these are a hundred: two fill a run.
    for (second, sends) in [(84, 1), (85, 2)] {
        let before = world.sum(|stats| &stats.sends);
        for bytes in [84, second] {
            world.dispatch(&Target::Room("live://1".into()), 1000, &"y".repeat(bytes)).expect("places");
        }
        world.settle();
        assert_eq!(world.sum(|stats| &stats.sends) - before, sends, "{second}");
    }
}

#[test]
fn pushes_to_all_are_joined_only_while_their_operation_is_the_same() {
    let mut world = World::new();
    let mut both = world.enter(Tcp, &Login { accepts: vec![1000, 1001], ..login("both", "") });
    let mut one = world.enter(WebSocket, &Login { accepts: vec![1001], ..login("one", "") });
    for (operation, body) in [(1000, "a"), (1000, "b"), (1001, "c"), (1001, "d"), (1000, "e")] {
        world.dispatch(&Target::All, operation, body).expect("places");
    }
    world.settle();
    assert_eq!(both.texts(), ["a", "b", "c", "d", "e"]);
    assert_eq!(one.texts(), ["c", "d"]);
    assert_eq!(world.sum(|stats| &stats.offered), 7, "offered is what a connection accepts");
}

#[test]
fn a_push_to_nobody_in_particular_is_offered_to_nobody() {
    let mut world = World::new();
    let mut waits = world.connect(Tcp);
    world.dispatch(&Target::All, 1000, "x").expect("places");
    world.dispatch(&Target::Room("live://1".into()), 1000, "x").expect("places");
    world.settle();
    assert_eq!((world.sum(|stats| &stats.offered), waits.take().len()), (0, 0));
}

#[test]
fn a_turn_makes_so_many_sends_and_the_next_goes_on() {
    let mut world = Setup::new().shard(|shard| (shard.sends_per_turn_max, shard.connections_max) = (7, 64)).build();
    let mut clients: Vec<_> =
        (0..40).map(|number| world.enter(BOTH[number % 2], &login(&format!("key-{number}"), "live://1"))).collect();
    for target in
        [Target::Room("live://1".into()), Target::All, Target::Keys((0..40).map(|n| format!("key-{n}")).collect())]
    {
        let before = world.sum(|stats| &stats.sends);
        world.dispatch(&target, 1000, "x").expect("places");
        for turns in 1..4 {
            assert!(world.turn(0), "work is left");
            assert!(world.sum(|stats| &stats.sends) - before <= 7 * turns);
        }
        world.settle();
        assert!(clients.iter_mut().all(|client| client.texts() == ["x"]));
    }
}

#[test]
fn many_rooms_share_a_turn() {
    let mut world = Setup::new().shard(|shard| shard.sends_per_turn_max = 1500).build();
    let mut big: Vec<_> = (0..30).map(|n| world.enter(Tcp, &login(&format!("big-{n}"), "big"))).collect();
    let mut small = world.enter(Tcp, &login("small", "small"));
    for _ in 0..200 {
        world.dispatch(&Target::Room("big".into()), 1000, &"x".repeat(16000)).expect("places");
    }
    world.dispatch(&Target::Room("small".into()), 1000, "soon").expect("places");
    world.turn(0);
    world.turn(0);
    assert_eq!(small.texts(), ["soon"], "before the big room is through");
    for client in &mut big {
        client.set_window(usize::MAX);
    }
    world.settle();
    assert!(big.iter_mut().all(|client| client.texts().len() == 200));
}

#[test]
fn a_room_of_long_messages_makes_others_wait_for_a_mebibyte_only() {
    let mut world = Setup::new().shard(|shard| shard.connections_max = 128).build();
    let mut big: Vec<_> = (0..100).map(|n| world.enter(Tcp, &login(&format!("big-{n}"), "big"))).collect();
    let mut small = world.enter(Tcp, &login("small", "small"));
    big.iter().for_each(|client| client.set_window(usize::MAX));
    let long = "x".repeat(32_000);
    world.dispatch(&Target::Room("big".into()), 1000, &long).expect("places");
    world.dispatch(&Target::Room("small".into()), 1000, "soon").expect("places");
    world.turn(0);
    let mut served = || big.iter_mut().map(Client::texts).filter(|texts| *texts == [&*long]).count();
    let first = served();
    assert_eq!((first, small.texts()), (32, vec!["soon".to_owned()]));
    world.settle();
    assert_eq!(served(), 100 - first);
}

#[test]
fn a_full_queue_takes_nothing_and_nobody_gets_a_part() {
    let mut setup = Setup::new().shards(2);
    setup.pushes_max = 4;
    let mut world = setup.build();
    let mut clients: Vec<_> = (0..4).map(|n| world.enter(Tcp, &login(&format!("key-{n}"), "live://1"))).collect();
    let counted = |world: &World| world.directory.connections_by_shard().map(|(_, n)| n).collect::<Vec<_>>();
    assert!(counted(&world).iter().all(|connections| *connections > 0), "both shards are concerned");
    let taken = (0..10).filter(|_| world.dispatch(&Target::All, 1000, "x").is_ok()).count();
    assert_eq!(taken, 4);
    assert_eq!(world.dispatch(&Target::Room("live://1".into()), 1000, "x"), Err(DispatchError::Full));
    world.turn(0);
    assert_eq!(world.dispatch(&Target::All, 1000, "x"), Err(DispatchError::Full), "one shard has room, one has not");
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts() == ["x"; 4]));
    world.dispatch(&Target::All, 1000, "again").expect("places again");
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts() == ["again"]));
}

#[test]
fn an_order_for_a_connection_that_is_gone_reaches_nobody_in_its_slot() {
    let mut world = Setup::new().shard(|shard| shard.connections_max = 1).build();
    let client = world.enter(Tcp, &login("old", ""));
    let old = world.directory.key_connections("old")[0];
    client.reset();
    world.settle();
    let mut heir = world.enter(Tcp, &login("new", ""));
    let new = world.directory.key_connections("new")[0];
    assert_eq!(new.slot(), old.slot(), "the slot is used again");
    let before = world.rejects(Reject::StaleConnection);
    let orders = [
        Order::Close { conn: old, reason: crate::reason::CloseReason::Kicked },
        Order::Inspect { conn: old, token: 7 },
    ];
    orders.into_iter().for_each(|order| world.order(0, order));
    assert!(world.links[0].take_credit(0));
    world.links[0]
        .put_push(Order::Direct { conns: [old].into(), payload: Payload::encode(1000, b"stale", Note::default()) });
    world.settle();
    assert_eq!(heir.take(), []);
    assert!(!heir.is_closed());
    assert_eq!(world.rejects(Reject::StaleConnection) - before, 2, "the close and the push");
}

#[test]
fn a_push_from_between_grant_and_answer_comes_behind_the_reply_to_the_login() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.connect(transport);
        client.login(&login("key", "live://1"));
        let answer = world.grant_without_answer();
        let conn = world.directory.key_connections("key")[0];
        for body in ["first", "second"] {
            assert!(world.links[0].take_credit(0));
            let payload = Payload::encode(1000, body.as_bytes(), Note::default());
            world.links[0].put_push(Order::Direct { conns: [conn].into(), payload });
        }
        world.dispatch(&Target::Room("live://1".into()), 1000, "room").expect("places");
        world.turn(0);
        world.turn(0);
        assert_eq!(client.take(), [], "nothing before the verdict");
        assert_eq!(world.stats(0).queued.get(), 3);
        world.links[0].put_control(answer).expect("a place");
        world.settle();
        let got = client.take();
        assert!(matches!(got[0], Got::Reply { operation: operation::AUTH_REPLY, .. }), "{got:?}");
        let push = |body: &str| Got::Push { operation: 1000, body: body.into() };
        assert_eq!(got[1..], [push("first"), push("second"), push("room")]);
        assert_eq!(world.stats(0).sent.get(), 3);
    }
}

#[test]
fn the_reply_to_a_login_comes_behind_what_was_said_before_it() {
    for pushed in [false, true] {
        let mut world = World::new();
        let mut client = Client::connect_silent(&world.net, 1, WebSocket);
        client.set_window(20);
        client.upgrade();
        client.frame(true, Opcode::Ping, b"ping");
        client.login(&login("key", "room"));
        let answer = world.grant_without_answer();
        if pushed {
            world.dispatch(&Target::Room("room".into()), 1000, "push").expect("places");
            world.settle();
        }
        world.links[0].put_control(answer).expect("a place");
        world.settle();
        client.set_window(usize::MAX);
        world.settle();
        let mut expected = vec![
            Got::Pong(b"ping".into()),
            Got::Reply { operation: operation::AUTH_REPLY, sequence: 1, body: Vec::new() },
        ];
        expected.extend(pushed.then(|| Got::Push { operation: 1000, body: b"push".into() }));
        assert_eq!(client.take(), expected);
    }
}

#[test]
fn an_inspection_tells_what_is_known_of_a_connection() {
    let mut world = World::new();
    let client = world.enter(WebSocket, &Login { accepts: vec![3, 1, 2, 1], ..login("key", "live://1") });
    client.set_window(0);
    world.push_room("live://1", "waits");
    world.advance(1000);
    let conn = world.directory.key_connections("key")[0];
    world.order(0, Order::Inspect { conn, token: 5 });
    world.settle();
    let found = world.events.iter().find_map(|event| match event {
        crate::control::decide::Event::Inspected { token: 5, found } => found.as_ref(),
        _ => None,
    });
    let found = found.expect("answered");
    assert_eq!((found.listener, found.age_ms, found.accepts.as_slice()), (1, 1000, &[1, 2, 3][..]));
    assert_eq!((found.queued_messages, found.queued_bytes), (1, 2 + 16 + 16 + 5));
    assert_eq!(found.rooms.len(), 1);
}
