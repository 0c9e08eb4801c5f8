//! Stories of questions to control: buffers used up, queues full, control asleep.

use halley_protocol::operation;
use halley_ring::{Completion, Ring};

use super::client::{Client, Got};
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::control::decide::LoginRule;
use crate::limits::ASKS_MAX;
use crate::order::{DrainPlan, Order, Report};
use crate::reason::CloseReason;
use crate::shard::Transport::{Tcp, WebSocket};

fn many() -> World {
    Setup::new().shard(|s| (s.connections_max, s.partials_max, s.accepts_armed_max) = (2048, 32, 16)).build()
}

#[test]
fn more_logins_than_question_buffers_wait_for_one() {
    for transport in BOTH {
        let mut world = many();
        world.control_works = false;
        let listener = usize::from(transport == WebSocket);
        let mut clients: Vec<_> = (0..1000).map(|_| Client::connect(&world.net, listener, transport)).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            client.login(&login(&format!("key-{number}"), "room"));
        }
        world.settle();
        assert_eq!(world.shards[0].asks.len(), 0);
        assert_eq!(world.stats(0).logins.get(), 0);
        world.control_works = true;
        world.settle();
        assert!(clients.iter_mut().all(|client| client.take().len() == 1), "everybody is let in");
        assert_eq!(world.sum(|stats| &stats.closes[CloseReason::PartialPool.at()]), 0);
        assert_eq!(world.shards[0].asks.len(), ASKS_MAX);
    }
}

#[test]
fn who_waits_for_control_is_not_late() {
    for transport in BOTH {
        let mut world = many();
        world.control_works = false;
        let listener = usize::from(transport == WebSocket);
        let mut clients: Vec<_> = (0..200).map(|_| Client::connect(&world.net, listener, transport)).collect();
        clients.iter_mut().for_each(|client| client.login(&login("", "room")));
        let _silent = world.connect(transport);
        world.settle();
        let login_ms_max = world.shards[0].settings.listeners[listener].login_ms_max;
        world.advance(u64::from(login_ms_max) + 1000);
        world.settle();
        assert_eq!(world.closes(CloseReason::LoginLate), 0);
        world.control_works = true;
        world.settle();
        assert!(clients.iter_mut().all(|client| client.take().len() == 1), "everybody is let in");
        world.advance(1000);
        assert_eq!(world.closes(CloseReason::LoginLate), 1, "who has said nothing is");
    }
}

#[test]
fn heartbeats_while_no_question_can_be_asked_cost_nobody_its_connection() {
    let mut world = many();
    let mut clients: Vec<_> = (0..200).map(|n| world.enter(Tcp, &login(&format!("key-{n}"), "room"))).collect();
    world.control_works = false;
    let mut late: Vec<_> = (0..300).map(|_| Client::connect(&world.net, 0, Tcp)).collect();
    late.iter_mut().for_each(|client| client.login(&login("", "")));
    world.settle();
    assert_eq!(world.shards[0].asks.len(), 0, "all buffers are out");
    clients.iter_mut().for_each(|client| _ = client.send(operation::HEARTBEAT, b""));
    world.settle();
    world.control_works = true;
    world.settle();
    assert_eq!(world.closes(CloseReason::PartialPool), 0);
    assert!(clients.iter_mut().chain(&mut late).all(|client| client.take().len() == 1));
}

#[test]
fn who_waits_for_an_answer_with_nothing_more_to_say_keeps_no_buffer() {
    for transport in BOTH {
        let mut world = Setup::new().shard(|shard| shard.partials_max = 2).build();
        let mut clients: Vec<_> = (0..20).map(|_| world.connect(transport)).collect();
        world.control_works = false;
        clients.iter_mut().for_each(|client| client.login(&login("", "room")));
        world.settle();
        assert_eq!(world.shards[0].chunks.kept(), 0);
        world.control_works = true;
        world.settle();
        assert_eq!(world.stats(0).logins.get(), 20);
    }
}

#[test]
fn those_who_wait_for_a_buffer_without_a_question_do_not_hold_up_those_with_one() {
    let mut world = World::new();
    // One buffer for all.
    world.shards[0].asks.truncate(1);
    world.control_works = false;
    let mut first = Client::connect(&world.net, 0, Tcp);
    first.login(&login("first", ""));
    world.settle();
    let _silent: Vec<_> = (0..5).map(|_| world.connect(Tcp)).collect();
    let mut last = Client::connect(&world.net, 0, Tcp);
    last.login(&login("last", ""));
    world.settle();
    world.control_works = true;
    world.settle();
    assert_eq!((first.take().len(), last.take().len()), (1, 1));
}

#[test]
fn a_full_report_queue_loses_no_login_and_no_departure() {
    let mut world = Setup::new().shard(|s| (s.connections_max, s.accepts_armed_max) = (4096, 16)).build();
    let mut clients: Vec<_> = (0..1500).map(|_| Client::connect(&world.net, 0, Tcp)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.login(&login(&format!("key-{number}"), &format!("room-{}", number % 200)));
    }
    world.settle();
    assert_eq!(world.directory.connections(), 1500);
    world.control_works = false;
    let others: Vec<_> = (0..2000).map(|_| Client::connect(&world.net, 0, Tcp)).collect();
    world.settle();
    while world.links[0].put_report(Report::Inspected { token: 0, found: None }).is_ok() {}
    clients.iter().for_each(Client::reset);
    world.settle();
    assert_eq!(world.stats(0).closes[CloseReason::PeerReset.at()].get(), 1500);
    assert!(world.stats(0).connections.get() >= 1500, "their slots are held until control knows");
    assert_eq!(world.directory.connections(), 1500);
    world.control_works = true;
    world.settle();
    assert_eq!((world.directory.connections(), world.directory.rooms()), (0, 0));
    others.iter().for_each(Client::reset);
    world.settle();
    world.assert_empty();
}

#[test]
fn a_client_may_leave_while_its_question_is_out() {
    for asked in [operation::AUTH, operation::CHANGE_ROOM] {
        for transport in BOTH {
            let mut world = World::new();
            let mut client = world.connect(transport);
            if asked != operation::AUTH {
                client.login(&login("key", "room"));
                world.settle();
            }
            world.control_works = false;
            client.send(asked, if asked == operation::AUTH { b"{\"key\":\"key\"}" } else { b"other" });
            world.settle();
            client.reset();
            world.settle();
            world.control_works = true;
            world.advance(6000);
            world.settle();
            if !client.is_closed() {
                assert_eq!(asked, operation::CHANGE_ROOM, "a login would be late");
                world.push_room("other", "breaks on this");
            }
            assert!(client.is_closed());
            world.assert_empty();
        }
    }
}

#[test]
fn control_is_woken_once_when_it_sleeps_and_not_when_it_does_not() {
    let mut world = World::new();
    let notified = world.shards[0].ring.notified();
    world.control_works = false;
    let before = *notified.borrow();
    let mut first = world.connect(Tcp);
    first.login(&login("first", ""));
    world.settle();
    assert_eq!(*notified.borrow(), before, "it was awake");
    world.shards[0].control.park();
    let mut second = world.connect(Tcp);
    second.login(&login("second", ""));
    let mut third = world.connect(Tcp);
    third.login(&login("third", ""));
    world.settle();
    assert_eq!(*notified.borrow(), before + 1, "once for all");
}

#[test]
fn an_order_put_while_the_shard_falls_asleep_rings_it() {
    let mut world = World::new();
    let client = world.enter(Tcp, &login("key", ""));
    let link = std::sync::Arc::clone(&world.links[0]);
    let conn = world.directory.key_connections("key")[0];
    let mut order = Some(Order::Close { conn, reason: CloseReason::Kicked });
    world.shards[0].ring.on_sleep(move || {
        if let Some(order) = order.take() {
            link.put_control(order).expect("a place");
        }
    });
    world.turn(0);
    assert!(matches!(world.shards[0].ring.next(), Some(Completion::Doorbell)));
    world.settle();
    assert!(client.is_closed());
}

#[test]
fn an_order_put_before_the_shard_sleeps_keeps_it_awake() {
    let mut world = World::new();
    let slept = std::rc::Rc::new(std::cell::Cell::new(0));
    let count = std::rc::Rc::clone(&slept);
    world.shards[0].ring.on_sleep(move || count.set(count.get() + 1));
    world.turn(0);
    assert_eq!(slept.get(), 1);
    let turn = world.shards[0].turn(0);
    world.links[0].put_control(Order::Drain { plan: DrainPlan::new(0, 0, 0) }).expect("a place");
    world.shards[0].wait(turn);
    assert_eq!(slept.get(), 1, "it looked at its queue once more");
}

#[test]
fn each_listener_has_its_own_rule_for_logins() {
    let mut setup = Setup::new();
    setup.policy.listeners = vec![LoginRule::Open, LoginRule::Refuse];
    let mut world = setup.build();
    world.enter(Tcp, &login("let in", ""));
    let mut refused = world.connect(WebSocket);
    refused.login(&login("refused", ""));
    world.settle();
    assert_eq!(refused.take(), [Got::Close(Some(4002))]);
    assert_eq!(world.sum(|stats| &stats.logins), 1);
}

#[test]
fn a_refused_login_is_told_and_nothing_is_left() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.connect(transport);
        client.send(operation::AUTH, b"[]");
        world.settle();
        let told = if transport == Tcp { vec![] } else { vec![Got::Close(Some(4002))] };
        assert_eq!(client.take(), told);
        client.half_close();
        world.settle();
        assert!(client.is_closed());
        world.assert_empty();
    }
}
