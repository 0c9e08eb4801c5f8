//! The steady state: a shard under load allocates nothing, and an idle one does nothing.

use halley_protocol::operation;

use super::client::Client;
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::alloc::allocations;
use crate::dispatch::Target;

/// Turns of the shard until it rests; what they allocated.
pub(super) fn turns(world: &mut World) -> u64 {
    let before = allocations();
    let mut quiet = 0;
    while quiet < 3 {
        quiet = if world.turn(0) { 0 } else { quiet + 1 };
    }
    allocations() - before
}

/// One round of everything a client does, with slow ones among them; what the shard allocated for it.
pub(super) fn load(world: &mut World, clients: &mut [Client]) -> u64 {
    let mut allocated = 0;
    for number in 0..8 {
        for target in [Target::Room("room".into()), Target::All, Target::Keys(vec!["key-1".into(), "key-2".into()])] {
            world.dispatch(&target, 1000, &"x".repeat(100 * number)).expect("places");
        }
    }
    for (at, client) in clients.iter_mut().enumerate() {
        client.set_window(if at % 5 == 0 { 50 } else { 1 << 16 });
        client.send(operation::HEARTBEAT, b"");
        client.send(operation::SUBSCRIBE, b"1001,1002");
        client.send(operation::UNSUBSCRIBE, b"1001");
        let bytes = client.packet_bytes(operation::CHANGE_ROOM, if at % 2 == 0 { b"room" } else { b"hall" });
        client.say(&bytes[..9]);
        client.say(&bytes[9..]);
    }
    for _ in 0..4 {
        allocated += turns(world);
        world.control_round(usize::MAX);
    }
    for client in clients.iter_mut() {
        client.set_window(1 << 16);
    }
    for _ in 0..4 {
        allocated += turns(world);
        clients.iter_mut().for_each(|client| drop(client.take()));
    }
    world.now_ms += 100;
    allocated
}

#[test]
fn a_shard_under_load_allocates_nothing() {
    let mut world = Setup::new().build();
    let mut clients: Vec<_> = (0..40).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    for _ in 0..6 {
        load(&mut world, &mut clients);
    }
    let allocated: u64 = (0..6).map(|_| load(&mut world, &mut clients)).sum();
    assert_eq!(allocated, 0);
    assert!(world.stats(0).sent.get() > 1000 && world.stats(0).blocked.get() == 0);
}

#[test]
fn a_shard_without_work_sends_nothing_and_makes_one_call_a_turn() {
    let mut world = Setup::new().build();
    let _clients: Vec<_> = (0..20).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    let before = (world.stats(0).sends.get(), world.stats(0).enters.get(), world.stats(0).completions.get());
    (0..50).for_each(|_| assert!(!world.turn(0), "it may sleep"));
    let after = (world.stats(0).sends.get(), world.stats(0).enters.get(), world.stats(0).completions.get());
    assert_eq!(after, (before.0, before.1 + 50, before.2));
}

#[test]
fn a_push_to_many_is_one_call_of_the_kernel() {
    let mut world = Setup::new().build();
    let mut clients: Vec<_> = (0..40).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    let keys = (0..40).map(|n| format!("key-{n}")).collect();
    for target in [Target::Room("room".into()), Target::All, Target::Keys(keys)] {
        let before = (world.stats(0).sends.get(), world.stats(0).enters.get());
        world.dispatch(&target, 1000, "x").expect("places");
        world.turn(0);
        // Counted before the call that ends a turn.
        world.turn(0);
        let calls = world.stats(0).enters.get() - before.1;
        assert_eq!(world.stats(0).sends.get() - before.0, 40, "{target:?}");
        assert_eq!(calls, 1 + 2, "a batch, and the ends of two turns");
        assert!(clients.iter_mut().all(|client| client.take().len() == 1));
    }
}

#[test]
fn a_batch_number_that_comes_round_holds_nobody_up() {
    for number in [7, u32::MAX] {
        let mut world = Setup::new().build();
        let mut clients: Vec<_> =
            (0..4).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
        let come_round = |world: &mut World| {
            let shard = &mut world.shards[0];
            shard.batch.number = number;
            shard.table.hot.iter_mut().for_each(|conn| conn.batch = number);
        };
        clients[0].set_window(10);
        come_round(&mut world);
        world.push_room("room", "x");
        clients.iter_mut().for_each(|client| _ = client.send(operation::HEARTBEAT, b""));
        come_round(&mut world);
        world.settle();
        clients[0].set_window(1000);
        come_round(&mut world);
        world.settle();
        assert!(clients.iter_mut().all(|client| client.take().len() == 2));
    }
}

#[test]
fn the_same_events_give_the_same_counters() {
    let run = || {
        let mut world = Setup::new().shards(2).build();
        let mut clients: Vec<_> =
            (0..12).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
        load(&mut world, &mut clients);
        world.links.iter().map(|link| format!("{:?}", link.stats)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
