//! Stories of accepting: few slots, two listeners, two shards, and a kernel without files.

use halley_protocol::operation;
use halley_ring::sim::Weather;

use super::client::{Client, Got};
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::order::{DrainPlan, Order};
use crate::reason::{CloseReason, Reject};
use crate::shard::AcceptRate;
use crate::shard::Transport::{self, Tcp, WebSocket};

fn slots(slots: u32, armed_max: u16) -> Setup {
    Setup::new().shard(|s| (s.connections_max, s.accepts_armed_max) = (slots, armed_max))
}

fn connect(world: &World, transport: Transport) -> Client {
    Client::connect(&world.net, usize::from(transport == WebSocket), transport)
}

fn is_accepted(world: &World, client: &Client) -> bool {
    world.net.accepted_by(client.id).is_some()
}

#[test]
fn a_full_shard_stops_accepting_and_goes_on_when_a_slot_is_free() {
    let mut world = slots(3, 2).build();
    let clients: Vec<_> = (0..5).map(|_| connect(&world, Tcp)).collect();
    world.settle();
    let accepted = |world: &World| clients.iter().filter(|client| is_accepted(world, client)).count();
    assert_eq!((accepted(&world), world.net.waiting(0)), (3, 2));
    assert_eq!(world.stats(0).accept_pauses.get(), 1);
    clients[0].reset();
    world.settle();
    assert_eq!(world.net.waiting(0), 1, "one more");
    clients[1].reset();
    clients[2].reset();
    world.settle();
    assert_eq!(world.net.waiting(0), 0);
    assert_eq!(world.stats(0).accepted.get(), 5);
    clients[3..].iter().for_each(Client::reset);
    world.settle();
    world.assert_empty();
}

#[test]
fn a_client_of_either_listener_gets_the_last_slot() {
    for (first, second) in [(Tcp, WebSocket), (WebSocket, Tcp), (Tcp, Tcp), (WebSocket, WebSocket)] {
        for slots_max in 1..6 {
            let mut world = slots(slots_max, 2).build();
            for number in 0..slots_max {
                let client = connect(&world, if number % 2 == 0 { first } else { second });
                world.settle();
                assert!(is_accepted(&world, &client), "{number} of {slots_max}, {first:?} then {second:?}");
            }
            assert_eq!(world.stats(0).connections.get(), u64::from(slots_max));
        }
    }
}

#[test]
fn no_client_waits_while_a_slot_is_free_however_they_come_and_go() {
    let mut random = 7u64;
    let mut pick = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    for (slots_max, armed_max) in [(1, 1), (2, 2), (3, 1), (4, 16), (7, 2)] {
        let mut world = slots(slots_max, armed_max).build();
        let mut open: Vec<Client> = Vec::new();
        for event in 0..300 {
            if pick(2) == 0 || open.is_empty() {
                open.push(connect(&world, if pick(2) == 0 { Tcp } else { WebSocket }));
            } else {
                let at = usize::try_from(pick(open.len() as u64)).expect("small");
                if is_accepted(&world, &open[at]) {
                    open.swap_remove(at).reset();
                }
            }
            world.settle();
            let accepted = open.iter().filter(|client| is_accepted(&world, client)).count();
            let waiting = world.net.waiting(0) + world.net.waiting(1);
            let free = slots_max as usize - accepted;
            assert!(waiting == 0 || free == 0, "event {event}: {waiting} wait, {free} of {slots_max} are free");
            world.now_ms += 1000 * u64::from(event % 3 == 0);
            open.retain(|client| !client.is_closed());
        }
    }
}

#[test]
fn a_full_shard_leaves_its_clients_to_another() {
    let mut setup = slots(4, 2).shards(2);
    setup.listeners.truncate(1);
    let mut world = setup.build();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let client = connect(&world, Tcp);
            world.settle();
            client
        })
        .collect();
    assert!(clients.iter().all(|client| is_accepted(&world, client)));
    let of_first: Vec<_> = clients.iter().filter(|client| world.net.accepted_by(client.id) == Some(0)).collect();
    assert_eq!(of_first.len(), 4, "they take turns");
    of_first[0].reset();
    world.settle();
    let next = connect(&world, Tcp);
    world.settle();
    assert_eq!(world.net.accepted_by(next.id), Some(0), "the other one is full");
}

#[test]
fn a_kernel_without_files_is_asked_again_after_a_tick_and_not_in_between() {
    let mut world = slots(8, 2).build();
    world.net.set_weather(Weather { failed_accept: 255, ..Weather::default() });
    let mut client = connect(&world, Tcp);
    world.settle();
    let failed = world.rejects(Reject::AcceptFailed);
    assert!((1..=2).contains(&failed), "{failed}");
    world.settle();
    assert_eq!(world.rejects(Reject::AcceptFailed), failed, "no spin");
    world.advance(1000);
    assert!((5..=22).contains(&world.rejects(Reject::AcceptFailed)));
    world.net.set_weather(Weather::default());
    world.advance(200);
    client.login(&login("key", ""));
    world.settle();
    assert_eq!(client.take().len(), 1);
    client.reset();
    world.settle();
    world.assert_empty();
}

#[test]
fn slots_are_used_again_and_deadlines_are_those_of_the_new_connection() {
    let mut world = slots(1, 1).listeners(|listener| listener.login_ms_max = 1000).build();
    for _ in 0..5 {
        let client = connect(&world, Tcp);
        world.settle();
        world.advance(800);
        assert!(is_accepted(&world, &client) && !client.is_closed());
        client.reset();
        world.settle();
    }
    assert_eq!(world.closes(CloseReason::LoginLate), 0);
    let late = connect(&world, Tcp);
    world.advance(1300);
    assert!(late.is_closed());
    world.assert_empty();
}

#[test]
fn an_accept_given_up_before_does_not_count_as_one_given_up_now() {
    let mut world = slots(2, 2).build();
    let first = connect(&world, Tcp);
    world.settle();
    let second = connect(&world, Tcp);
    world.settle();
    assert!(is_accepted(&world, &second), "in the slot that the other listener gave up");
    first.reset();
    world.settle();
    let third = connect(&world, WebSocket);
    world.settle();
    assert!(is_accepted(&world, &third));
}

#[test]
fn accepts_beyond_the_rate_wait_and_nobody_is_refused() {
    let rate = AcceptRate { per_1000_s: 20_000, burst: 3 };
    let mut world = Setup::new().shard(|shard| (shard.accepts_armed_max, shard.accept_rate) = (8, rate)).build();
    let mut clients: Vec<_> = (0..23).map(|n| Client::connect(&world.net, n % 2, BOTH[n % 2])).collect();
    world.settle();
    assert_eq!(world.stats(0).accepted.get(), 3, "the burst");
    assert_eq!(world.stats(0).accept_rate_pauses.get(), 1);
    world.advance(500);
    assert_eq!(world.stats(0).accepted.get(), 13, "twenty a second");
    world.advance(500);
    assert_eq!(world.stats(0).accepted.get(), 23);
    for (n, client) in clients.iter_mut().enumerate() {
        client.login(&login(&format!("key-{n}"), "room"));
    }
    world.settle();
    assert_eq!(world.stats(0).logins.get(), 23, "nobody was turned away");
}

#[test]
fn held_accepts_take_nobody_until_they_go_on() {
    let mut world = World::new();
    let mut inside = world.enter(Tcp, &login("inside", "room"));
    world.order(0, Order::HoldAccepts { hold: true });
    world.settle();
    let waiting = Client::connect(&world.net, 0, Tcp);
    world.advance(1000);
    assert_eq!(world.net.accepted_by(waiting.id), None);
    world.push_room("room", "x");
    assert_eq!(inside.texts(), ["x"], "who is in is served");
    world.order(0, Order::HoldAccepts { hold: true });
    world.order(0, Order::HoldAccepts { hold: false });
    world.settle();
    assert!(world.net.accepted_by(waiting.id).is_some());
    assert_eq!(world.stats(0).accept_memory_pauses.get(), 1);
    // A drain outlives it.
    world.order(0, Order::HoldAccepts { hold: true });
    world.order(0, Order::Drain { plan: DrainPlan::new(0, 0, 1000) });
    world.order(0, Order::HoldAccepts { hold: false });
    world.advance(2000);
    assert_eq!(world.drained, 1);
}

#[test]
fn a_network_has_so_many_connections_and_no_more() {
    for transport in BOTH {
        let mut world = Setup::new().shards(2).networks(2).build();
        // Of four clients in a row one speaks IPv6: it is of another network.
        let clients: Vec<_> = (0..4).map(|_| world.connect(transport)).collect();
        let is_in = |client: &Client| !client.is_closed();
        assert_eq!(clients.iter().map(is_in).collect::<Vec<_>>(), [true, true, transport == WebSocket, true]);
        assert_eq!((world.closes(CloseReason::NetworkFull), world.shards[0].settings.networks.all()), (1, 3));
        clients[0].reset();
        world.settle();
        let mut newcomer = world.connect(transport);
        newcomer.login(&login("newcomer", ""));
        world.settle();
        assert!(matches!(newcomer.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }]));
        assert_eq!(world.closes(CloseReason::NetworkFull), 1);
        clients.iter().chain([&newcomer]).for_each(Client::half_close);
        world.advance(2500);
        world.assert_empty();
    }
}

#[test]
fn a_reload_counts_networks_from_then_on_and_lets_go_of_them() {
    let mut world = Setup::new().networks(0).build();
    let before = world.connect(Tcp);
    let set = |world: &mut World, most: u32| {
        let mut settings = world.shards[0].settings.reloadable();
        settings.network_connections_max = most;
        world.order(0, Order::Reload { settings: settings.into() });
        world.settle();
    };
    set(&mut world, 1);
    let (first, second) = (world.connect(Tcp), world.connect(Tcp));
    assert_eq!([&before, &first, &second].map(Client::is_closed), [false, false, true]);
    set(&mut world, 0);
    [&before, &first].into_iter().for_each(Client::reset);
    world.settle();
    world.assert_empty();
}
