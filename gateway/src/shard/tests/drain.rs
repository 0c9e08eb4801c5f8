//! Stories of a drain: everybody is told, outboxes are emptied, and the deadline ends the rest.

use halley_protocol::halley::retry_ms;
use halley_protocol::operation;
use halley_ring::sim::Weather;
use halley_ring::{Ring, Wait};

use super::client::{Client, Got};
use super::session::{BOTH, login, marked};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::order::DrainPlan;
use crate::reason::{CloseReason, DropReason};
use crate::shard::Transport::{Tcp, WebSocket};

/// All are told at once.
fn drain(world: &mut World, deadline_ms: u32) {
    drain_by(world, DrainPlan::new(0, 0, deadline_ms));
}

fn drain_by(world: &mut World, plan: DrainPlan) {
    world.control.drain(plan, &mut world.outgoing);
    world.settle();
}

#[test]
fn a_drain_tells_everybody_and_ends_when_all_are_gone() {
    let mut world = Setup::new().shards(2).build();
    let mut clients: Vec<_> = (0..10).map(|n| world.enter(BOTH[n % 2], &marked(&format!("key-{n}"), "room"))).collect();
    let mut upgrading = Client::connect_silent(&world.net, 1, WebSocket);
    world.settle();
    drain(&mut world, 10_000);
    assert_eq!(upgrading.take(), [Got::Http("503".into())]);
    for client in &mut clients {
        let mut told = vec![Got::Kick { code: 1012, text: "drain".into() }];
        told.extend((client.transport == WebSocket).then_some(Got::Close(Some(1012))));
        assert_eq!(client.take(), told);
        client.half_close();
    }
    upgrading.half_close();
    world.settle();
    assert_eq!(world.drained, 2);
    assert_eq!(world.closes(CloseReason::Drain), 11);
    world.assert_empty();
}

#[test]
fn a_drain_empties_outboxes_first() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", "room"));
        client.set_window(10);
        world.push_room("room", "one");
        world.push_room("room", "two");
        drain(&mut world, 60_000);
        world.advance(20_000);
        assert!(!client.is_closed(), "longer than it would linger");
        client.set_window(usize::MAX);
        world.settle();
        let got = client.take();
        assert_eq!(got[..2], ["one", "two"].map(|body| Got::Push { operation: 1000, body: body.into() }));
        assert_eq!(got[2..], if transport == Tcp { vec![] } else { vec![Got::Close(Some(1012))] });
        client.half_close();
        world.settle();
        assert_eq!((world.drained, world.stats(0).sent.get()), (1, 2));
    }
}

#[test]
fn the_deadline_ends_those_who_take_nothing_and_counts_what_they_miss() {
    let mut world = World::new();
    let client = world.enter(WebSocket, &login("key", "room"));
    client.set_window(10);
    (0..3).for_each(|_| world.push_room("room", "x"));
    drain(&mut world, 3000);
    world.advance(2900);
    assert!(!client.is_closed());
    world.advance(300);
    assert!(client.is_closed());
    assert_eq!((world.drained, world.dropped(DropReason::Closed)), (1, 3));
    world.assert_empty();
}

#[test]
fn who_stalls_in_a_drain_is_waited_for_until_the_deadline() {
    let mut world = Setup::new().listeners(|listener| listener.stall_ms_max = 500).build();
    let mut client = world.enter(Tcp, &login("key", "room"));
    client.set_window(10);
    world.push_room("room", "x");
    drain(&mut world, 3000);
    world.advance(2500);
    assert!(!client.is_closed());
    client.set_window(usize::MAX);
    world.settle();
    assert_eq!(client.texts(), ["x"]);
    assert_eq!(world.drained, 1);
}

#[test]
fn a_drain_of_nobody_is_over_at_once_and_told_once() {
    let mut world = Setup::new().shards(3).build();
    drain(&mut world, 10_000);
    drain(&mut world, 10_000);
    assert_eq!(world.drained, 3);
    let late = Client::connect(&world.net, 0, Tcp);
    world.settle();
    assert_eq!(world.net.accepted_by(late.id), None);
}

#[test]
fn who_is_accepted_while_the_drain_begins_is_told_too() {
    for transport in BOTH {
        let mut world = World::new();
        let mut early = world.enter(transport, &login("key", ""));
        // The kernel has accepted it when the accepts are cancelled.
        let mut late = Client::connect(&world.net, usize::from(transport == WebSocket), transport);
        world.net.set_weather(Weather { late: 255, ..Weather::default() });
        world.shards[0].ring.wait(Wait::Poll);
        world.control.drain(DrainPlan::new(0, 0, 60_000), &mut world.outgoing);
        world.turn(0);
        world.net.set_weather(Weather::default());
        world.settle();
        assert_eq!(world.closes(CloseReason::Drain), 2);
        for client in [&mut early, &mut late] {
            client.take();
            client.half_close();
        }
        world.settle();
        assert!(early.is_closed() && late.is_closed());
        assert_eq!(world.drained, 1, "long before the deadline");
    }
}

#[test]
fn who_waits_for_its_login_is_sent_away_without_pushes() {
    let mut world = World::new();
    let mut client = world.connect(WebSocket);
    client.login(&login("key", "room"));
    let answer = world.grant_without_answer();
    world.dispatch(&Target::Room("room".into()), 1000, "behind the reply").expect("places");
    world.turn(0);
    drain(&mut world, 10_000);
    assert_eq!(client.take(), [Got::Close(Some(1012))]);
    assert_eq!(world.dropped(DropReason::Closed), 1);
    world.links[0].put_control(answer).expect("a place");
    client.half_close();
    world.settle();
    assert_eq!(world.drained, 1);
    world.assert_empty();
}

#[test]
fn who_waits_for_its_login_with_its_handshake_half_sent_gets_the_rest_and_the_reason() {
    let mut world = World::new();
    let mut client = Client::connect_silent(&world.net, 1, WebSocket);
    client.set_window(20);
    client.upgrade();
    client.login(&login("key", "room"));
    let answer = world.grant_without_answer();
    world.settle();
    client.read(20);
    world.settle();
    drain(&mut world, 10_000);
    client.set_window(usize::MAX);
    world.links[0].put_control(answer).expect("a place");
    world.settle();
    assert_eq!(client.take(), [Got::Close(Some(1012))]);
}

#[test]
fn many_are_told_over_several_turns() {
    let mut world = Setup::new().shard(|s| (s.connections_max, s.accepts_armed_max) = (3000, 16)).build();
    let clients: Vec<_> = (0..2500).map(|_| Client::connect(&world.net, 0, Tcp)).collect();
    world.settle();
    world.control.drain(DrainPlan::new(0, 0, 60_000), &mut world.outgoing);
    assert!(world.turn(0), "work is left");
    let told = world.closes(CloseReason::Drain);
    assert!((1..2500).contains(&told), "{told} in a turn");
    world.settle();
    assert!(clients.iter().all(Client::is_closed));
    assert_eq!(world.drained, 1);
}

#[test]
fn a_drain_spreads_over_its_window_and_pushes_reach_those_who_are_still_there() {
    let mut world = World::new();
    let mut clients: Vec<_> = (0..10).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    let used = u64::from(world.shards[0].table.used());
    drain_by(&mut world, DrainPlan { evict_ms: 2000, window_ms: 2000, deadline_ms: 60_000 });
    assert_eq!(world.closes(CloseReason::Drain), 0, "nobody at its beginning");
    for step in 1..=20 {
        world.advance(100);
        let told = world.closes(CloseReason::Drain);
        assert!(told <= used * step / 20 + 1, "{told} after {step} of 20 steps");
        let sent = world.stats(0).sent.get();
        world.push_room("room", "x");
        assert_eq!(world.stats(0).sent.get() - sent, 10 - told, "who is still there gets what is pushed");
    }
    assert_eq!(world.closes(CloseReason::Drain), 10);
    let pushes = |client: &mut Client| client.take().iter().filter(|got| matches!(got, Got::Push { .. })).count();
    let got: Vec<_> = clients.iter_mut().map(pushes).collect();
    assert!(got.windows(2).all(|two| two[0] <= two[1]) && got[0] < got[9], "one after the other: {got:?}");
    clients.iter().for_each(Client::half_close);
    world.settle();
    assert_eq!(world.drained, 1);
}

#[test]
fn where_a_drain_has_less_time_than_its_window_clients_are_told_to_stay_away_for_the_rest() {
    let mut world = World::new();
    let mut clients: Vec<_> = (0..8).map(|n| world.enter(BOTH[n % 2], &marked(&format!("key-{n}"), "room"))).collect();
    drain_by(&mut world, DrainPlan { evict_ms: 100, window_ms: 60_100, deadline_ms: 2000 });
    world.advance(200);
    let mut away = Vec::new();
    for client in &mut clients {
        let Got::Kick { code: 1012, text } = &client.take()[0] else { panic!("a kick") };
        assert!(text.starts_with("drain"), "{text}");
        away.push(retry_ms(text).unwrap_or(0));
    }
    assert!(away.windows(2).all(|two| two[0] < two[1]), "evenly: {away:?}");
    assert!(away.iter().all(|ms| *ms < 60_000), "within the window: {away:?}");
}

#[test]
fn a_plan_leaves_few_clients_no_window_and_last_bytes_their_time() {
    assert_eq!(DrainPlan::new(10, 20_000, 30_000), DrainPlan { evict_ms: 10, window_ms: 10, deadline_ms: 30_000 });
    let many = DrainPlan::new(1_000_000, 60_000, 20_000);
    assert_eq!(many, DrainPlan { evict_ms: 15_000, window_ms: 60_000, deadline_ms: 20_000 });
    assert_eq!((many.due(1000, 0), many.due(1000, 7500), many.due(1000, 15_000)), (0, 500, 1000));
    assert_eq!((many.away_ms(0, 1000), many.away_ms(500, 1000)), (0, 22_500));
    assert_eq!(many.away_ms(0, 0), 0, "nobody was ever there");
    let none = DrainPlan::new(0, 0, 1);
    assert_eq!((none.due(0, 0), none.due(7, 0)), (0, 7), "all at once");
}

#[test]
fn requests_behind_a_farewell_are_not_answered() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", "room"));
    world.kick("key");
    client.send(operation::HEARTBEAT, b"");
    client.send(operation::CHANGE_ROOM, b"other");
    world.settle();
    assert_eq!(client.take(), [Got::Close(Some(4005))]);
    client.half_close();
    world.settle();
    world.assert_empty();
}
