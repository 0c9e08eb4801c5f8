//! How long deliveries took, as the shard measures it: each message from its own dispatch, when its last byte left.

use super::client::{Client, push_bytes};
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::payload::Note;

/// Body bytes of each push.
const BODY: usize = 100;

fn dispatch(world: &World) {
    world.dispatch(&Target::Room("room".into()), 1000, &"x".repeat(BODY)).expect("places");
}

/// Deliveries measured so far, and their milliseconds together.
fn measured(world: &World) -> (u64, u64) {
    let spread = &world.stats(0).delivery_us;
    (spread.count(), spread.sum() / 1000)
}

fn members(world: &mut World, count: usize) -> Vec<Client> {
    (0..count).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect()
}

#[test]
fn a_delivery_takes_from_its_dispatch_until_the_kernel_has_it() {
    let mut world = World::new();
    let _members = members(&mut world, 10);
    dispatch(&world);
    world.now_ms += 40;
    world.settle();
    assert_eq!(measured(&world), (10, 400));
    let forty_ms = world.stats(0).delivery_us.counts()[16];
    assert_eq!(forty_ms, 10, "32,768 to 65,535 microseconds");
}

#[test]
fn each_message_of_a_joined_run_has_its_own_time() {
    let mut world = World::new();
    let _members = members(&mut world, 4);
    for wait in [10, 20, 0] {
        dispatch(&world);
        world.now_ms += wait;
    }
    world.settle();
    assert_eq!(world.stats(0).run_messages.counts()[2], 1, "one run of three");
    assert_eq!(measured(&world), (12, 4 * (30 + 20)));
}

#[test]
fn a_record_of_a_log_brings_its_age() {
    let mut world = World::new();
    let _members = members(&mut world, 2);
    let target = Target::Room("room".into());
    for age_ms in [None, Some(7000), Some(0), Some(u64::MAX)] {
        let note = Note::new(world.now_ms * 1000, age_ms);
        world.dispatch.push(&target, 1000, b"body", note).expect("places");
        world.now_ms += 10;
    }
    world.settle();
    let records = &world.stats(0).record_delivery_us;
    assert_eq!(measured(&world), (8, 2 * (40 + 30 + 20 + 10)));
    assert_eq!((records.count(), records.sum() / 1000), (6, 2 * (7030 + 20 + 65_534 + 10)), "at most 65.5 s are kept");
}

#[test]
fn what_waits_for_a_slow_client_is_counted_when_it_leaves() {
    for transport in BOTH {
        let mut world = World::new();
        let slow = world.enter(transport, &login("slow", "room"));
        // Of a run of three the first gets through, and a part of the second.
        slow.set_window(push_bytes(transport, BODY) + BODY);
        (0..3).for_each(|_| dispatch(&world));
        world.now_ms += 5;
        world.settle();
        assert_eq!(measured(&world), (1, 5), "{transport:?}");
        world.now_ms += 300;
        slow.set_window(usize::MAX);
        world.settle();
        assert_eq!(measured(&world), (3, 5 + 2 * 305), "{transport:?}");
    }
}

#[test]
fn what_is_dropped_or_said_in_reply_is_not_a_delivery() {
    let mut world = Setup::new().listeners(|listener| listener.outbox_bytes_max = 1).build();
    let slow = world.enter(BOTH[0], &login("slow", "room"));
    slow.set_window(0);
    for _ in 0..5 {
        dispatch(&world);
        world.settle();
    }
    slow.set_window(usize::MAX);
    world.settle();
    assert_eq!(measured(&world).0, world.stats(0).sent.get());
    assert!(measured(&world).0 < 5, "some were dropped");
}
