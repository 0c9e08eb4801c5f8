//! Stories of pools that are used up: outbox entries, pinned bytes, accept sets, member arrays.

use halley_protocol::operation;

use super::client::{Client, Got, push_bytes};
use super::session::{BOTH, login, marked};
use super::world::Setup;
use crate::dispatch::Target;
use crate::limits::{ACCEPT_SETS_MAX, ROOMS_PER_CONNECTION_MAX};
use crate::reason::{CloseReason, DropReason, Reject};
use crate::shard::Transport::{Tcp, WebSocket};
use crate::shard::runs::Runs;

#[test]
fn when_outbox_entries_are_used_up_the_connection_at_hand_goes_and_others_stay() {
    for transport in BOTH {
        let mut world = Setup::new().shard(|shard| shard.outbox_entries_max = 5).build();
        let slow = world.enter(transport, &login("slow", "room"));
        let mut other = world.enter(transport, &login("other", "room"));
        slow.set_window(0);
        for number in 0..8 {
            world.push_room("room", &number.to_string());
        }
        assert_eq!(world.closes(CloseReason::OutboxPool), 1);
        assert_eq!(world.dropped(DropReason::Closed), 6, "five that waited and the one without a place");
        assert_eq!(other.texts().len(), 8);
        slow.reset();
        other.half_close();
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn pinned_bytes_have_an_end_and_one_run_counts_once_for_all_who_wait_for_it() {
    for transport in BOTH {
        let one = u32::try_from(push_bytes(WebSocket, 1000)).expect("small");
        let mut world = Setup::new().shard(|shard| shard.pinned_bytes_max = 3 * one).build();
        let clients: Vec<_> = (0..10).map(|n| world.enter(transport, &login(&format!("key-{n}"), "room"))).collect();
        clients.iter().for_each(|client| client.set_window(0));
        let body = "x".repeat(1000);
        for pinned in 1..=3 {
            world.push_room("room", &body);
            assert_eq!(world.stats(0).pinned_bytes.get(), u64::from(pinned * one));
        }
        assert_eq!(world.closes(CloseReason::OutboxPool), 0);
        world.push_room("room", &body);
        assert_eq!(world.closes(CloseReason::OutboxPool), 10);
        assert_eq!(world.dropped(DropReason::Closed), 40);
        clients.iter().for_each(Client::reset);
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn a_client_cut_off_within_a_frame_by_a_full_pool_gets_nothing_behind_the_torn_frame() {
    for transport in BOTH {
        let mut world = Setup::new().shard(|shard| shard.outbox_entries_max = 1).build();
        let holder = world.enter(Tcp, &login("holder", "held"));
        holder.set_window(0);
        world.push_room("held", "the only entry");
        let mut client = world.enter(transport, &marked("key", "room"));
        client.set_window(push_bytes(transport, 3) - 1);
        world.push_room("room", "abc");
        assert_eq!(world.closes(CloseReason::OutboxPool), 1);
        assert!(client.is_closed(), "no word fits behind a part of a frame");
        client.set_window(usize::MAX);
        assert_eq!(client.take(), []);
        assert!(client.is_torn());
        assert_eq!(world.dropped(DropReason::Closed), 1);
        holder.reset();
        world.settle();
        world.assert_empty();
    }
}

#[test]
fn a_login_without_memory_for_its_reply_ends() {
    let mut world = Setup::new().shard(|shard| shard.outbox_entries_max = 1).build();
    let holder = world.enter(Tcp, &login("holder", "held"));
    holder.set_window(0);
    world.push_room("held", "the only entry");
    let mut client = world.connect(Tcp);
    client.set_window(0);
    client.login(&login("key", "room"));
    world.settle();
    assert_eq!(world.closes(CloseReason::OutboxPool), 1);
    assert_eq!(client.take(), []);
    holder.reset();
    client.half_close();
    world.settle();
    world.assert_empty();
}

#[test]
fn a_login_whose_reply_finds_no_entry_before_its_pushes_ends_with_all_of_them() {
    let mut world = Setup::new().shard(|shard| shard.outbox_entries_max = 1).build();
    let mut client = world.connect(Tcp);
    client.login(&login("key", "room"));
    let answer = world.grant_without_answer();
    world.dispatch(&Target::Room("room".into()), 1000, "waits behind the reply").expect("places");
    world.settle();
    world.links[0].put_control(answer).expect("a place");
    world.settle();
    assert!(client.is_closed());
    assert_eq!((client.take(), world.closes(CloseReason::OutboxPool)), (Vec::new(), 1));
    assert_eq!(world.dropped(DropReason::Closed), 1);
    world.assert_empty();
}

#[test]
fn a_handshake_without_memory_for_its_response_gets_nothing_in_its_place() {
    let mut world = Setup::new().shard(|shard| shard.outbox_entries_max = 1).build();
    let holder = world.enter(Tcp, &login("holder", "held"));
    holder.set_window(0);
    world.push_room("held", "the only entry");
    let mut client = Client::connect_silent(&world.net, 1, WebSocket);
    client.set_window(0);
    client.upgrade();
    world.settle();
    client.set_window(usize::MAX);
    world.settle();
    assert!(client.is_closed(), "no frame without the response");
    assert_eq!((client.take(), world.closes(CloseReason::OutboxPool)), (Vec::new(), 1));
    holder.reset();
    world.settle();
    world.assert_empty();
}

#[test]
fn when_runs_are_used_up_pushes_wait_and_arrive_in_their_order() {
    let mut world = Setup::new().build();
    let mut holder = world.enter(Tcp, &login("holder", "held"));
    let mut client = world.enter(WebSocket, &login("key", "room"));
    world.shards[0].runs = Runs::new(4, 1 << 20, [1 << 20, 0]);
    holder.set_window(0);
    (0..4).for_each(|number| world.push_room("held", &number.to_string()));
    assert!(!world.shards[0].runs.has_place());
    for number in 0..3 {
        for target in [Target::Room("room".into()), Target::Keys(vec!["key".into()]), Target::All] {
            world.dispatch(&target, 1000, &format!("{target:?} {number}")).expect("places");
        }
    }
    (0..20).for_each(|_| _ = world.round());
    assert_eq!(client.take(), []);
    holder.set_window(usize::MAX);
    world.settle();
    let mut texts = client.texts();
    texts.sort_by_key(|text| text[..3].to_owned());
    let expected = ["All 0", "All 1", "All 2"].map(String::from);
    assert_eq!(texts[..3], expected);
    let number = |text: &String| text.as_bytes()[text.len() - 1];
    assert_eq!(texts.iter().map(number).collect::<Vec<_>>(), b"012012012", "{texts:?}");
    assert_eq!(holder.texts().len(), 4 + 3);
}

#[test]
fn a_large_push_to_many_slow_clients_is_held_once() {
    let mut world = Setup::new().build();
    let mut clients: Vec<_> = (0..40).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    clients.iter().for_each(|client| client.set_window(100));
    let body = "x".repeat(1 << 20);
    world.push_room("room", &body);
    let pinned = world.stats(0).pinned_bytes.get();
    assert!((1 << 20..(1 << 20) + 100).contains(&pinned), "{pinned}");
    clients.iter().for_each(|client| client.set_window(usize::MAX));
    world.settle();
    assert!(clients.iter_mut().all(|client| client.texts() == [body.as_str()]));
    assert_eq!((world.shards[0].runs.live(), world.stats(0).blocked.get()), (0, 0));
}

#[test]
fn accept_sets_beyond_their_number_change_nothing_and_are_echoed() {
    let mut world = Setup::new().shard(|shard| (shard.connections_max, shard.accepts_armed_max) = (1100, 16)).build();
    let mut clients: Vec<_> = (0..ACCEPT_SETS_MAX)
        .map(|number| {
            let mut client = world.enter(Tcp, &login("", ""));
            client.send(operation::SUBSCRIBE, (2000 + number).to_string().as_bytes());
            client
        })
        .collect();
    world.settle();
    assert!(clients.iter_mut().all(|client| client.take().len() == 1), "all are echoed");
    assert!(world.rejects(Reject::TooManyAccepts) > 0);
    let sets = world.shards[0].accept_sets.in_use();
    assert_eq!(sets, ACCEPT_SETS_MAX - 1, "and the empty one");
    world.dispatch(&Target::All, 1000, "x").expect("places");
    world.settle();
    assert!(clients.iter_mut().all(|client| client.take().len() == 1), "what was accepted before still is");
    clients.iter().for_each(Client::reset);
    world.settle();
    world.assert_empty();
}

#[test]
fn rooms_that_grow_and_shrink_in_turn_never_bring_the_shard_down() {
    // Sizes that change for all rooms together: each class of blocks is wanted in full, one after the other.
    let mut world = Setup::new().shard(|s| (s.connections_max, s.rooms_max, s.partials_max) = (42, 2600, 64)).build();
    let mut clients: Vec<_> = (0..40).map(|n| world.enter(Tcp, &marked(&format!("key-{n}"), ""))).collect();
    clients.iter().for_each(|client| client.set_window(usize::MAX));
    let mut refusals = 0;
    for size in [1, 5, 9, 17, 33] {
        for asked in [operation::JOIN, operation::LEAVE] {
            for membership in 0..40 * ROOMS_PER_CONNECTION_MAX / size * size {
                let room = format!("{size}-{}", membership / size);
                clients[membership % 40].send(asked, room.as_bytes());
            }
            world.settle();
            let refused = |got: &Got| matches!(got, Got::Reply { operation: operation::JOIN_REPLY, body, .. } if body[..4] == 2i32.to_be_bytes());
            let replies = clients.iter_mut().flat_map(Client::take);
            refusals += replies.filter(refused).count() as u64;
        }
        assert_eq!(world.shards[0].rooms.in_use(), (0, 0, 0), "after rooms of {size}");
    }
    assert!(refusals > 0, "the array is used up");
    assert_eq!(world.rejects(Reject::TooManyRooms), refusals);
    world.push_room("nobody", "x");
    let mut client = world.enter(WebSocket, &login("last", "room"));
    world.push_room("room", "still served");
    assert_eq!(client.take(), [Got::Push { operation: 1000, body: b"still served".into() }]);
}
