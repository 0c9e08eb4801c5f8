//! Compression: one message compressed once for all who read it so, and what clients send compressed.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::websocket::{Opcode, client as websocket};
use halley_ring::sim::Weather;

use super::client::{Client, Got, KEY, deflated};
use super::session::login;
use super::steady;
use super::tls::{one_server, talk, tls13};
use super::world::{Setup, World};
use crate::compression::Deflated;
use crate::dispatch::Target;
use crate::reason::{CloseReason, DropReason};
use crate::shard::{Dialect, ListenerSettings, SlowPolicy, Transport};

/// A world whose WebSocket listener agrees to compression.
fn setup() -> Setup {
    let mut setup = Setup::new();
    setup.listeners[1].compression = true;
    setup
}

/// Connects with compression and logs in.
pub(super) fn enter(world: &mut World, login: &Login) -> Client {
    let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket).deflating();
    client.upgrade();
    world.settle();
    client.login(login);
    world.settle();
    assert!(matches!(client.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }]));
    client
}

fn counts(world: &World) -> Deflated {
    world.compression.as_ref().expect("a listener compresses").counts()
}

/// A text that compresses.
fn text(number: usize) -> String {
    format!("{number} the same again and the same again and the same again and the same again")
}

#[test]
fn a_message_is_compressed_once_for_all_who_read_it_so() {
    let mut world = setup().shards(2).build();
    let mut plain: Vec<_> = [Transport::Tcp, Transport::WebSocket]
        .map(|transport| world.enter(transport, &login(&format!("{transport:?}"), "room")))
        .into();
    world.push_room("room", &text(0));
    assert_eq!(counts(&world), Deflated::default(), "nobody reads it compressed");
    let mut deflating: Vec<_> = (0..6).map(|n| enter(&mut world, &login(&format!("key-{n}"), "room"))).collect();
    assert_eq!(world.sum(|stats| &stats.deflating), 6);
    plain.iter_mut().for_each(|client| drop(client.take()));
    let before: Vec<_> = plain.iter().chain(&deflating).map(|client| client.bytes).collect();
    world.push_room("room", &text(1));
    world.push_room("room", "short");
    assert_eq!((counts(&world).smaller, counts(&world).kept), (1, 0), "and what is short is let alone");
    for client in plain.iter_mut().chain(&mut deflating) {
        assert_eq!(client.texts(), [text(1), "short".into()]);
    }
    let bytes: Vec<_> =
        plain.iter().chain(&deflating).zip(before).map(|(client, before)| client.bytes - before).collect();
    assert!(bytes[2..].iter().all(|of| *of < bytes[1]), "{bytes:?}");
    assert!(deflating.iter().all(|client| client.deflated == 1));
    for client in plain.iter().chain(&deflating) {
        client.half_close();
    }
    world.advance(3000);
    assert_eq!(world.sum(|stats| &stats.deflating), 0);
    world.assert_empty();
}

#[test]
fn what_waits_in_a_room_is_one_compressed_frame() {
    let mut world = setup().build();
    let mut deflating = enter(&mut world, &login("deflating", "room"));
    let mut plain = world.enter(Transport::WebSocket, &login("plain", "room"));
    for target in [Target::Room("room".into()), Target::All] {
        let (frames, bytes) = (deflating.deflated, deflating.bytes);
        for number in 0..20 {
            let body = if number % 3 == 0 { number.to_string() } else { text(number) };
            world.dispatch(&target, 1000, &body).expect("places");
        }
        world.settle();
        let expected: Vec<_> = (0..20).map(|n| if n % 3 == 0 { n.to_string() } else { text(n) }).collect();
        assert_eq!(deflating.texts(), expected);
        assert_eq!(plain.texts(), expected);
        assert_eq!(deflating.deflated - frames, 1, "{target:?}");
        assert!((deflating.bytes - bytes) * 3 < plain.bytes * 2);
    }
}

#[test]
fn a_slow_reader_of_compressed_messages_misses_what_is_counted_and_gets_the_rest_in_order() {
    for policy in [SlowPolicy::DropNewest, SlowPolicy::DropOldest] {
        let mut setup = setup().listeners(|l| (l.outbox_bytes_max, l.slow_policy) = (1024, policy));
        setup.weather = Weather { short_send: 100, ..Weather::default() };
        let mut world = setup.shard(|shard| shard.run_messages_max = 4).build();
        let mut client = enter(&mut world, &login("key", "room"));
        client.set_window(37);
        let pushed: Vec<_> = (0..200).map(text).collect();
        for text in &pushed {
            world.dispatch(&Target::Room("room".into()), 1000, text).expect("places");
            world.round();
        }
        world.settle();
        client.set_window(usize::MAX);
        world.settle();
        let got = client.texts();
        let mut rest = pushed.iter();
        assert!(got.iter().all(|text| rest.any(|pushed| pushed == text)), "in order");
        let dropped = world.dropped(DropReason::SlowNewest) + world.dropped(DropReason::SlowOldest);
        assert_eq!(got.len() as u64 + dropped, 200);
        assert!(dropped > 0 && got.len() > 4 && client.deflated > 2);
        client.half_close();
        world.advance(3000);
        world.assert_empty();
    }
}

#[test]
fn a_compressed_packet_is_served_wherever_the_network_cuts_it() {
    let bytes = {
        let world = setup().build();
        let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket).deflating();
        client.packet_bytes(operation::AUTH, login("key", "room").to_json().as_bytes())
    };
    let mut world = setup().build();
    for cut in 1..bytes.len() {
        let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket).deflating();
        client.upgrade();
        client.say(&bytes[..cut]);
        world.settle();
        client.say(&bytes[cut..]);
        world.settle();
        let got = client.take();
        assert!(
            matches!(got[..], [Got::Reply { operation: operation::AUTH_REPLY, sequence: 1, .. }]),
            "{cut}: {got:?}"
        );
        client.reset();
        world.settle();
    }
    world.assert_empty();
    assert_eq!(world.sum(|stats| &stats.inflated), bytes.len() as u64 - 1);
    assert!(world.sum(|stats| &stats.inflate_in_bytes) < world.sum(|stats| &stats.inflate_out_bytes));
    assert_eq!(world.sum(|stats| &stats.deflating), 0);
}

#[test]
fn compressed_requests_are_answered_like_plain_ones() {
    let mut world = setup().build();
    let mut client = enter(&mut world, &login("key", "room"));
    for _ in 0..6 {
        assert_eq!(world.ask(&mut client, operation::SUBSCRIBE, b"1001,1002"), (15, b"1001,1002".to_vec()));
        assert_eq!(world.ask(&mut client, operation::CHANGE_ROOM, b"hall"), (13, b"hall".to_vec()));
    }
    // A message in fragments, with a ping between them.
    let message = client.packet_bytes(operation::HEARTBEAT, b"")[..0].to_vec();
    assert!(message.is_empty());
    let payload = deflated(&halley_protocol::client::heartbeat(77));
    let (first, second) = payload.split_at(3);
    let mut bytes = Vec::new();
    websocket::deflated_frame(&mut bytes, false, Opcode::Binary, [1; 4], first);
    websocket::frame(&mut bytes, true, Opcode::Ping, [2; 4], b"between");
    websocket::frame(&mut bytes, true, Opcode::Continuation, [3; 4], second);
    client.say(&bytes);
    world.settle();
    let got = client.take();
    assert!(matches!(&got[..], [Got::Pong(ping), Got::Reply { sequence: 77, .. }] if ping == b"between"), "{got:?}");
}

#[test]
fn bad_compressed_messages_are_told_their_close_code_and_cost_no_more() {
    let bomb = deflated(&vec![0; 4 << 20]);
    let blocks = [0x03, 0x00].repeat(4000);
    let cases: [(Opcode, &[u8], CloseReason); 7] = [
        (Opcode::Binary, &[0xff; 20], CloseReason::FrameNotDeflate),
        (Opcode::Binary, b"", CloseReason::FrameNotDeflate),
        (Opcode::Binary, &bomb[..4000], CloseReason::FrameTooBig),
        (Opcode::Binary, &blocks, CloseReason::FrameTooBig),
        (Opcode::Text, &deflated(&[0xff; 20]), CloseReason::FrameNotUtf8),
        (Opcode::Text, &deflated(b"no packet"), CloseReason::FrameWrongType),
        (Opcode::Ping, b"", CloseReason::FrameMalformed),
    ];
    for (opcode, payload, reason) in cases {
        let mut world = setup().build();
        let mut client = enter(&mut world, &login("key", "room"));
        client.deflated_frame(opcode, payload);
        world.settle();
        assert_eq!(client.take(), [Got::Close(reason.code())], "{reason:?}");
        assert_eq!(world.closes(reason), 1);
    }
    let mut world = setup().build();
    let mut client = world.enter(Transport::WebSocket, &login("key", "room"));
    client.deflated_frame(Opcode::Binary, &deflated(&halley_protocol::client::heartbeat(1)));
    world.settle();
    assert_eq!(client.take(), [Got::Close(Some(1002))], "it has not agreed to compression");
}

#[test]
fn compression_is_agreed_to_where_it_is_configured_and_goim_v2_is_spoken() {
    let request = websocket::deflate_request("gateway", "/sub", KEY);
    for (compression, dialect, agreed) in [
        (true, Dialect::GoimV2, true),
        (false, Dialect::GoimV2, false),
        (true, Dialect::GoimV1, false),
        (true, Dialect::Echo, false),
    ] {
        let mut setup = Setup::new();
        setup.listeners[1] = ListenerSettings::new(Transport::WebSocket).speaking(dialect);
        setup.listeners[1].compression = compression;
        let mut world = setup.build();
        let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
        client.say(request.as_bytes());
        world.settle();
        let answer = client.read_stream();
        let read = if agreed { websocket::deflate_response } else { websocket::response };
        assert_eq!(read(&answer, KEY), Ok(Some(answer.len())), "{compression} {dialect:?}");
    }
    let mut world = setup().build();
    let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
    client.say(request.replace("permessage-deflate;", "permessage-deflate ; =").as_bytes());
    world.settle();
    assert_eq!(client.take(), [Got::Http("400".into())]);
}

#[test]
fn compression_goes_on_under_tls() {
    let mut setup = setup();
    setup.listeners[1].tls = Some(one_server());
    let mut world = setup.shard(|shard| shard.run_messages_max = 8).build();
    let mut client = Client::connect_tls(&world.net, 1, Transport::WebSocket, tls13()).deflating();
    talk(&mut world, &mut client);
    client.upgrade();
    talk(&mut world, &mut client);
    client.login(&login("key", "room"));
    talk(&mut world, &mut client);
    assert_eq!(client.take().len(), 1);
    world.net.set_weather(Weather { short_send: 100, blocked_send: 60, ..Weather::default() });
    client.set_window(300);
    let pushed: Vec<_> = (0..60).map(text).collect();
    for text in &pushed {
        world.dispatch(&Target::Room("room".into()), 1000, text).expect("places");
        world.settle();
    }
    client.set_window(usize::MAX);
    talk(&mut world, &mut client);
    assert_eq!(client.texts(), pushed);
    assert!(client.deflated > 10);
    client.reset();
    world.settle();
    world.assert_empty();
}

#[test]
fn a_shard_that_inflates_and_sends_compressed_runs_allocates_nothing() {
    let mut world = setup().build();
    let mut clients: Vec<_> = (0..20).map(|n| enter(&mut world, &login(&format!("key-{n}"), "room"))).collect();
    for _ in 0..6 {
        steady::load(&mut world, &mut clients);
    }
    let (inflated, deflated) = (world.stats(0).inflated.get(), clients[1].deflated);
    let allocated: u64 = (0..6).map(|_| steady::load(&mut world, &mut clients)).sum();
    assert_eq!(allocated, 0);
    assert!(world.stats(0).inflated.get() > inflated && clients[1].deflated > deflated);
}
