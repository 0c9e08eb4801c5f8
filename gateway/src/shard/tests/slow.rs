//! Stories of slow clients: what each policy drops, exactly, and that what has begun arrives whole.

use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::client::{Client, Got, push_bytes};
use super::session::{BOTH, login, marked};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::reason::{CloseReason, DropReason};
use crate::shard::{SlowPolicy, Transport};

/// Body bytes of each push: a number in front, then padding.
const BODY: usize = 100;

fn body(number: usize) -> String {
    format!("{number:0BODY$}")
}

fn number(body: &str) -> usize {
    body.parse().expect("a number")
}

/// A world whose outboxes hold `pushes` pushes of this transport.
fn world(transport: Transport, policy: SlowPolicy, pushes: usize) -> World {
    let bytes = u32::try_from(pushes * push_bytes(transport, BODY)).expect("small");
    Setup::new().listeners(|listener| (listener.outbox_bytes_max, listener.slow_policy) = (bytes, policy)).build()
}

/// Pushes one after the other, each in its own run.
fn push(world: &mut World, numbers: std::ops::Range<usize>) {
    for number in numbers {
        world.push_room("room", &body(number));
    }
}

/// Opens the window and returns the numbers that arrived.
fn drain(world: &mut World, client: &mut Client) -> Vec<usize> {
    client.set_window(usize::MAX);
    world.settle();
    let numbers = client.texts().iter().map(|body| number(body)).collect();
    assert!(!client.is_torn());
    numbers
}

/// The counters of one slow client: sent, queued, dropped newest and oldest.
fn counted(world: &World) -> [u64; 4] {
    let stats = world.stats(0);
    let dropped = |reason: DropReason| stats.dropped[reason.at()].get();
    [stats.sent.get(), stats.queued.get(), dropped(DropReason::SlowNewest), dropped(DropReason::SlowOldest)]
}

#[test]
fn drop_newest_keeps_what_waits_and_counts_what_comes() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::DropNewest, 4);
        let mut client = world.enter(transport, &login("key", "room"));
        client.set_window(2 * push_bytes(transport, BODY));
        push(&mut world, 0..10);
        assert_eq!(counted(&world), [2, 4, 4, 0]);
        assert_eq!(drain(&mut world, &mut client), [0, 1, 2, 3, 4, 5]);
        assert_eq!(counted(&world), [6, 0, 4, 0]);
        assert_eq!(world.stats(0).sent_bytes.get(), client.bytes);
        push(&mut world, 10..12);
        assert_eq!(drain(&mut world, &mut client), [10, 11], "and it goes on");
    }
}

#[test]
fn drop_oldest_keeps_the_newest_but_never_drops_what_has_begun() {
    for transport in BOTH {
        for begun in [0, 1, 50] {
            let mut world = world(transport, SlowPolicy::DropOldest, 4);
            let mut client = world.enter(transport, &login("key", "room"));
            client.set_window(2 * push_bytes(transport, BODY) + begun);
            push(&mut world, 0..10);
            if begun == 0 {
                assert_eq!(counted(&world), [2, 4, 0, 4]);
                assert_eq!(drain(&mut world, &mut client), [0, 1, 6, 7, 8, 9]);
            } else {
                assert_eq!(counted(&world), [2, 4, 0, 4], "the rest of the third, and three more");
                assert_eq!(drain(&mut world, &mut client), [0, 1, 2, 7, 8, 9]);
            }
            assert_eq!(counted(&world)[..2], [6, 0]);
        }
    }
}

#[test]
fn drop_oldest_drops_all_that_waits_for_one_push_as_large_as_the_outbox() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::DropOldest, 4);
        let mut client = world.enter(transport, &login("key", "room"));
        let mut other = world.enter(transport, &login("other", "other room"));
        for slow in [&client, &other] {
            slow.set_window(0);
        }
        push(&mut world, 0..3);
        let large = "1".repeat(10 * BODY);
        world.push_room("room", &large);
        assert_eq!(counted(&world), [0, 1, 0, 3]);
        world.push_room("other room", "for the other");
        push(&mut world, 3..4);
        client.set_window(usize::MAX);
        other.set_window(usize::MAX);
        world.settle();
        assert_eq!(other.texts(), ["for the other"]);
        let got = client.texts();
        assert_eq!(got, [body(3)], "the small one took the place of the large one");
        assert_eq!(counted(&world), [2, 0, 0, 4]);
        for client in [&client, &other] {
            client.half_close();
        }
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn drop_oldest_still_reads_a_client_whose_outbox_it_emptied() {
    let mut world = world(Transport::Tcp, SlowPolicy::DropOldest, 4);
    let mut client = world.enter(Transport::Tcp, &login("key", "room"));
    client.set_window(0);
    push(&mut world, 0..4);
    // Held up because so much waits for it; goim has no reply to this one.
    client.send(operation::RAW, b"");
    world.settle();
    world.push_room("room", &"1".repeat(10 * BODY));
    client.set_window(usize::MAX);
    world.settle();
    assert_eq!(client.take().len(), 1, "the large push");
    let (operation, _) = world.ask(&mut client, operation::HEARTBEAT, b"");
    assert_eq!(operation, operation::HEARTBEAT_REPLY);
}

#[test]
fn the_policy_close_ends_the_slow_client_and_counts_what_it_misses() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::Close, 4);
        let mut client = world.enter(transport, &marked("key", "room"));
        client.set_window(2 * push_bytes(transport, BODY) + 1);
        push(&mut world, 0..10);
        assert_eq!(world.closes(CloseReason::TooSlow), 1);
        let closed = world.dropped(DropReason::Closed);
        client.set_window(usize::MAX);
        world.settle();
        let got = client.take();
        let pushes = got.iter().filter(|got| matches!(got, Got::Push { .. })).count();
        assert_eq!(pushes, 3, "what had begun comes whole");
        assert!(got.contains(&Got::Kick { code: 4006, text: "too-slow".into() }), "{got:?}");
        assert_eq!(
            (world.stats(0).sent.get(), closed),
            (3, 4),
            "three waited, one did not fit, nothing later is offered"
        );
        client.half_close();
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn what_a_slow_client_misses_is_what_was_counted_and_the_others_miss_nothing() {
    for policy in [SlowPolicy::DropNewest, SlowPolicy::DropOldest] {
        let mut world = Setup::new()
            .listeners(|listener| (listener.outbox_bytes_max, listener.slow_policy) = (3000, policy))
            .build();
        let mut clients: Vec<_> =
            (0..8).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
        let slow = 3;
        clients.iter().for_each(|client| client.set_window(usize::MAX));
        clients[slow].set_window(1000);
        for round in 0..50 {
            for at in 0..5 {
                let body = format!("{:050}", round * 5 + at);
                world.dispatch(&Target::Room("room".into()), 1000, &body).expect("places");
            }
            world.settle();
            if round % 10 == 9 {
                clients[slow].read(700);
            }
        }
        clients[slow].set_window(usize::MAX);
        world.settle();
        let counts: Vec<_> = clients.iter_mut().map(|client| client.texts().len()).collect();
        let missing = 250 - counts[slow] as u64;
        assert!(missing > 50, "{missing}");
        assert_eq!(counted(&world)[2] + counted(&world)[3], missing);
        assert!(counts.iter().enumerate().all(|(at, count)| at == slow || *count == 250), "{counts:?}");
        assert_eq!(world.stats(0).sent.get(), counts.iter().sum::<usize>() as u64);
    }
}

#[test]
fn replies_and_pushes_of_a_blocked_client_arrive_in_the_order_they_were_made() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::DropNewest, 50);
        let mut client = world.enter(transport, &login("key", "room"));
        client.set_window(1);
        push(&mut world, 0..2);
        client.send(operation::SUBSCRIBE, b"7");
        world.settle();
        push(&mut world, 2..3);
        for window in [1, 30, 100, 150, 40, usize::MAX] {
            client.set_window(window);
            world.settle();
            client.read(window);
        }
        world.settle();
        let order: Vec<_> = client
            .take()
            .into_iter()
            .map(|got| match got {
                Got::Push { body, .. } => number(std::str::from_utf8(&body).expect("text")),
                _ => 99,
            })
            .collect();
        assert_eq!(order, [0, 1, 99, 2]);
        assert_eq!(counted(&world), [3, 0, 0, 0]);
    }
}

#[test]
fn a_part_of_a_joined_run_counts_the_messages_whose_last_byte_was_taken() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::DropNewest, 50);
        let mut client = world.enter(transport, &login("key", "room"));
        // A joined run of five has as long a header as one of its messages alone.
        let header = push_bytes(transport, BODY) - (16 + BODY);
        client.set_window(header + 2 * (16 + BODY) + 1);
        for number in 0..5 {
            world.dispatch(&Target::Room("room".into()), 1000, &body(number)).expect("places");
        }
        world.settle();
        assert_eq!(counted(&world), [2, 3, 0, 0]);
        client.set_window(header + 4 * (16 + BODY) - 1);
        world.settle();
        assert_eq!(counted(&world), [3, 2, 0, 0]);
        assert_eq!(drain(&mut world, &mut client), [0, 1, 2, 3, 4]);
        assert_eq!(counted(&world), [5, 0, 0, 0]);
    }
}

#[test]
fn who_takes_nothing_for_the_stated_time_is_closed_and_who_takes_a_byte_is_not() {
    let mut world = Setup::new().listeners(|l| (l.stall_ms_max, l.linger_ms_max) = (1000, 500)).build();
    let stalled = world.enter(Transport::Tcp, &login("stalled", "room"));
    let mut slow = world.enter(Transport::Tcp, &login("slow", "room"));
    let silent = world.enter(Transport::Tcp, &login("silent", ""));
    stalled.set_window(10);
    slow.set_window(10);
    push(&mut world, 0..3);
    for _ in 0..16 {
        world.advance(500);
        slow.read(1);
        world.settle();
        assert_eq!(world.closes(CloseReason::Stalled), u64::from(world.now_ms >= 1000));
    }
    assert!(stalled.is_closed() && !slow.is_closed() && !silent.is_closed());
    assert_eq!(drain(&mut world, &mut slow), [0, 1, 2]);
    assert_eq!(world.dropped(DropReason::Closed), 3);
    world.advance(2000);
    assert!(!slow.is_closed(), "nothing waits for it any more");
}

#[test]
fn a_connection_that_breaks_under_a_send_has_its_pushes_dropped_and_counted() {
    for transport in BOTH {
        for waits in [false, true] {
            let mut world = world(transport, SlowPolicy::DropNewest, 10);
            let client = world.enter(transport, &login("key", "room"));
            if waits {
                client.set_window(0);
                push(&mut world, 0..2);
                // Its poll for writing fires; the connection breaks before the send.
                client.set_window(usize::MAX);
                world.turn(0);
            }
            for target in [Target::Room("room".into()), Target::Keys(vec!["key".into()])] {
                world.dispatch(&target, 1000, "x").expect("places");
            }
            client.reset();
            world.turn(0);
            assert_eq!(world.closes(CloseReason::PeerReset), 1, "found out by the send");
            world.settle();
            let stats = world.stats(0);
            let dropped = world.dropped(DropReason::Closed);
            assert_eq!((stats.sent.get(), dropped, stats.offered.get()), (0, stats.offered.get(), dropped));
            assert_eq!(dropped, 2, "two that waited, or a direct one and that of the room behind it");
            assert_eq!(stats.sent_bytes.get(), client.bytes, "what broke was not sent");
            world.assert_empty();
        }
    }
}

#[test]
fn more_slow_clients_than_a_batch_holds_go_on_together() {
    let mut world = Setup::new().shard(|s| (s.connections_max, s.accepts_armed_max) = (700, 16)).build();
    let mut clients: Vec<_> = (0..600).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    clients.iter().for_each(|client| client.set_window(10));
    push(&mut world, 0..2);
    assert_eq!(world.stats(0).blocked.get(), 600);
    clients.iter().for_each(|client| client.set_window(usize::MAX));
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts() == [body(0), body(1)]));
    assert_eq!(counted(&world), [1200, 0, 0, 0]);
}

#[test]
fn who_stalls_before_its_login_has_until_then_and_is_closed_for_it_after() {
    let mut world = Setup::new().listeners(|l| (l.stall_ms_max, l.login_ms_max) = (500, 5000)).build();
    let mut clients = [world.connect(Transport::WebSocket), world.connect(Transport::WebSocket)];
    for client in &mut clients {
        client.take();
        client.set_window(2);
        client.frame(true, Opcode::Ping, b"long enough to block");
    }
    world.advance(2000);
    assert_eq!(world.closes(CloseReason::Stalled), 0);
    clients.iter_mut().for_each(|client| client.login(&login("", "")));
    world.settle();
    clients[0].set_window(usize::MAX);
    world.advance(400);
    assert_eq!(world.closes(CloseReason::Stalled), 0, "the time counts from the login");
    world.advance(300);
    assert_eq!(world.closes(CloseReason::Stalled), 1);
    assert_eq!(clients[0].take().len(), 2, "the pong and the reply to the login");
}

#[test]
fn a_client_that_asks_without_reading_is_not_read_until_it_reads() {
    for transport in BOTH {
        let mut world = world(transport, SlowPolicy::DropNewest, 4);
        let mut client = world.enter(transport, &login("key", ""));
        client.set_window(100);
        let list = "1".to_owned() + &",1".repeat(500);
        for _ in 0..200 {
            client.send(operation::SUBSCRIBE, list.as_bytes());
        }
        world.settle();
        let waits = world.shards[0].outboxes.in_use().1;
        assert!(waits < 20, "{waits} replies wait");
        assert!(world.stats(0).pinned_bytes.get() < 40_000);
        client.set_window(usize::MAX);
        world.settle();
        assert_eq!(client.take().len(), 200, "every request is answered in the end");
    }
}
