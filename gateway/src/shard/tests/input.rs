//! Stories of odd input: in single bytes, in floods, in empty fragments, and beyond every limit.

use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::client::{Client, Got};
use super::session::{BOTH, login, marked};
use super::world::{Setup, World};
use crate::control::decide::LoginRule;
use crate::identity::testing;
use crate::order::Order;
use crate::reason::CloseReason;
use crate::shard::Rate;
use crate::shard::Transport::{Tcp, WebSocket};

/// Says the bytes one at a time, each to be read by itself.
fn drip(world: &mut World, client: &Client, bytes: &[u8]) {
    for byte in bytes {
        client.say(&[*byte]);
        world.round();
        world.round();
    }
    world.settle();
}

#[test]
fn a_session_in_single_bytes_is_like_any_other() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = Client::connect_silent(&world.net, usize::from(transport == WebSocket), transport);
        if transport == WebSocket {
            let request = halley_protocol::websocket::client::request("gateway", "/sub", "dGhlIHNhbXBsZSBub25jZQ==");
            drip(&mut world, &client, request.as_bytes());
        }
        let bytes = client.packet_bytes(operation::AUTH, login("key", "room").to_json().as_bytes());
        drip(&mut world, &client, &bytes);
        let bytes = client.packet_bytes(operation::SUBSCRIBE, b"1001,1002");
        drip(&mut world, &client, &bytes);
        let got = client.take();
        assert!(matches!(got[1], Got::Reply { operation: operation::SUBSCRIBE_REPLY, .. }), "{got:?}");
        assert_eq!((got.len(), world.shards[0].chunks.kept()), (2, 0), "nothing is kept between packets");
    }
}

#[test]
fn twenty_thousand_tiny_packets_are_all_answered_while_others_are_served() {
    for transport in BOTH {
        let mut world = World::new();
        let mut flood = world.enter(transport, &login("flood", ""));
        let mut other = world.enter(transport, &login("other", ""));
        flood.set_window(usize::MAX);
        let packets: Vec<u8> = (0..20_000).flat_map(|_| flood.packet_bytes(1, b"")).collect();
        flood.say(&packets);
        for _ in 0..10 {
            let asked = other.send(operation::HEARTBEAT, b"");
            world.round();
            world.round();
            world.round();
            let got = other.take();
            assert!(matches!(got[..], [Got::Reply { sequence, .. }] if sequence == asked), "{got:?}");
        }
        world.settle();
        assert_eq!(flood.take().len(), 20_000);
    }
}

#[test]
fn a_turn_serves_a_bounded_part_of_a_flood() {
    let mut world = World::new();
    let mut flood = world.enter(Tcp, &login("flood", ""));
    flood.set_window(usize::MAX);
    let packets: Vec<u8> = (0..5000).flat_map(|_| flood.packet_bytes(1, b"")).collect();
    flood.say(&packets);
    let mut served = world.stats(0).packets.get();
    while world.round() {
        let now = world.stats(0).packets.get();
        assert!(now - served <= 128, "{} packets in a turn", now - served);
        served = now;
    }
    world.settle();
    assert_eq!(flood.take().len(), 5000);
}

#[test]
fn a_hundred_thousand_empty_fragments_end_at_the_limit_of_a_message() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    client.frame(false, Opcode::Binary, b"");
    for _ in 0..100_000 {
        client.frame(false, Opcode::Continuation, b"");
    }
    world.settle();
    assert_eq!(client.take(), [Got::Close(Some(1009))]);
    assert_eq!(world.closes(CloseReason::FrameTooBig), 1);
    client.half_close();
    world.settle();
    assert!(client.is_closed() && !world.net.server_reset(client.id));
    world.assert_empty();
}

#[test]
fn pings_without_end_are_all_answered() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    client.set_window(usize::MAX);
    (0..5000).for_each(|_| client.frame(true, Opcode::Ping, &[7; 125]));
    world.settle();
    assert_eq!(client.take(), vec![Got::Pong(vec![7; 125]); 5000]);
}

#[test]
fn a_packet_in_fragments_with_pings_between_is_one_packet() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    let packet = halley_protocol::client::packet(operation::SUBSCRIBE, 9, b"1001");
    client.frame(false, Opcode::Binary, &packet[..7]);
    client.frame(true, Opcode::Ping, b"?");
    world.settle();
    client.frame(false, Opcode::Continuation, &packet[7..18]);
    world.settle();
    client.frame(true, Opcode::Continuation, &packet[18..]);
    world.settle();
    let reply = Got::Reply { operation: operation::SUBSCRIBE_REPLY, sequence: 9, body: b"1001".into() };
    assert_eq!(client.take(), [Got::Pong(b"?".into()), reply]);
}

#[test]
fn the_largest_packet_is_served_and_one_byte_more_is_not() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", ""));
        let (operation, body) = world.ask(&mut client, operation::SUBSCRIBE, &[b'x'; 4096]);
        assert_eq!((operation, body.len()), (operation::SUBSCRIBE_REPLY, 4096));
        client.send(operation::SUBSCRIBE, &[b'x'; 4097]);
        world.settle();
        assert_eq!(world.closes(CloseReason::PacketTooBig), 1);
    }
}

#[test]
fn what_is_right_before_a_mistake_is_answered_first() {
    for transport in BOTH {
        let mut world = World::new();
        let mut client = world.enter(transport, &login("key", ""));
        let sequence = client.send(operation::SUBSCRIBE, b"1001");
        client.say(&[0xff; 100]);
        client.send(operation::SUBSCRIBE, b"never read");
        world.settle();
        let reply = Got::Reply { operation: operation::SUBSCRIBE_REPLY, sequence, body: b"1001".into() };
        let close = Got::Close(Some(1002));
        assert_eq!(client.take(), if transport == Tcp { vec![reply] } else { vec![reply, close] });
    }
}

#[test]
fn whoever_is_told_a_reason_can_read_it_whatever_it_still_says() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    client.say(&[0x82, 0x01, b'x']);
    for _ in 0..20 {
        client.say(&vec![0; 50_000]);
        world.round();
    }
    world.settle();
    assert_eq!(client.take(), [Got::Close(Some(1002))]);
    assert!(!client.is_closed(), "its end is waited for");
    world.advance(2200);
    assert!(client.is_closed(), "but not for ever");
    assert!(!world.net.server_reset(client.id));
    world.assert_empty();
}

#[test]
fn nothing_is_kept_of_what_follows_a_mistake() {
    let mut world = World::new();
    let client = world.enter(WebSocket, &login("key", ""));
    for bytes in [&[0x82, 0x01, b'x'][..], &[0x82], &[0x80, 0xff, 0xff]] {
        client.say(bytes);
        world.settle();
        assert_eq!(world.shards[0].chunks.kept(), 0);
    }
}

#[test]
fn who_ends_in_the_turn_in_which_it_is_told_a_reason_still_gets_it() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    client.half_close();
    world.turn(0);
    world.kick("key");
    assert_eq!(client.take(), [Got::Close(Some(4005))]);
    assert!(client.is_closed());
    assert_eq!(world.closes(CloseReason::Kicked), 1);
}

#[test]
fn the_clients_answer_to_a_close_frame_ends_it_at_once() {
    let mut world = World::new();
    let mut client = world.enter(WebSocket, &login("key", ""));
    world.kick("key");
    assert_eq!(client.take(), [Got::Close(Some(4005))]);
    assert!(!client.is_closed());
    client.frame(true, Opcode::Close, &4005u16.to_be_bytes());
    world.settle();
    assert!(client.is_closed());
    assert_eq!(world.closes(CloseReason::Kicked), 1);
    world.assert_empty();
}

#[test]
fn unfinished_packets_have_a_bounded_pool_and_the_oldest_goes() {
    for transport in BOTH {
        let mut world = Setup::new().shard(|shard| shard.partials_max = 3).build();
        let mut clients: Vec<_> = (0..5).map(|n| world.enter(transport, &login(&format!("key-{n}"), ""))).collect();
        for client in &clients {
            client.say(&[0x82, 0x80]);
            world.settle();
        }
        assert_eq!(world.closes(CloseReason::PartialPool), 2);
        assert_eq!(world.shards[0].chunks.kept(), 3);
        let closed = |client: &mut Client| match transport {
            Tcp => client.is_closed(),
            WebSocket => client.take() == [Got::Close(Some(1013))],
        };
        assert_eq!(clients.iter_mut().map(closed).collect::<Vec<_>>(), [true, true, false, false, false]);
    }
}

#[test]
fn who_loses_its_unfinished_packet_while_more_of_it_arrives_harms_nobody() {
    for order in [[0, 1], [1, 0]] {
        let mut world = Setup::new().shard(|shard| shard.partials_max = 1).build();
        let [mut old, mut new, mut third] = ["old", "new", "third"].map(|key| world.enter(Tcp, &login(key, "")));
        let packet = halley_protocol::client::packet(operation::HEARTBEAT, 7, b"");
        old.say(&packet[..6]);
        world.settle();
        // Both are read in one turn, and the first takes the other's place.
        for at in order {
            if at == 0 { old.say(&packet[6..11]) } else { new.say(&packet[..9]) }
        }
        world.settle();
        assert_eq!(world.closes(CloseReason::PartialPool), 1);
        assert!(old.is_closed() && old.take().is_empty());
        third.say(&packet);
        new.say(&packet[9..]);
        world.settle();
        for client in [&mut new, &mut third] {
            let got = client.take();
            assert!(
                matches!(got[..], [Got::Reply { operation: operation::HEARTBEAT_REPLY, sequence: 7, .. }]),
                "{got:?}"
            );
        }
        assert_eq!(world.closes(CloseReason::PartialPool), 1);
    }
}

#[test]
fn unfinished_frames_of_those_who_linger_do_not_use_the_pool_up() {
    // One byte of a frame, and a frame that is wrong.
    for said in [&[0x88][..], &[0xff, 0xff]] {
        let mut world = Setup::new().shard(|s| (s.partials_max, s.connections_max) = (2, 256)).build();
        let clients: Vec<_> = (0..150).map(|_| world.connect(WebSocket)).collect();
        world.advance(5200);
        assert_eq!(world.closes(CloseReason::LoginLate), 150);
        clients.iter().for_each(|client| client.say(said));
        world.settle();
        assert!(world.shards[0].chunks.kept() <= 2);
        clients.iter().for_each(Client::half_close);
        world.settle();
        assert!(clients.iter().all(Client::is_closed));
        world.assert_empty();
    }
}

/// What a client is told that has said more than it may.
fn too_fast(client: &Client) -> Vec<Got> {
    let kick = Got::Kick { code: 4008, text: "too-fast".into() };
    if client.transport == WebSocket { vec![kick, Got::Close(Some(4008))] } else { vec![kick] }
}

/// Heartbeats, and what came of them but replies.
fn beat(world: &mut World, client: &mut Client, times: usize) -> (usize, Vec<Got>) {
    (0..times).for_each(|_| _ = client.send(operation::HEARTBEAT, b""));
    world.settle();
    let (replies, others): (Vec<_>, Vec<_>) =
        client.take().into_iter().partition(|got| matches!(got, Got::Reply { .. }));
    (replies.len(), others)
}

#[test]
fn a_client_that_says_more_packets_than_it_may_is_told_and_others_are_served() {
    for transport in BOTH {
        let rate = Rate { per_second: 10, burst: 20 };
        let mut world = Setup::new().listeners(|l| l.client_rates.packets = rate).build();
        let mut client = world.enter(transport, &marked("key", ""));
        let mut other = world.enter(transport, &marked("other", ""));
        assert_eq!(beat(&mut world, &mut client, 19), (19, vec![]), "the login was one");
        world.advance(500);
        assert_eq!(beat(&mut world, &mut client, 5), (5, vec![]));
        let told = too_fast(&client);
        assert_eq!(beat(&mut world, &mut client, 9), (0, told));
        assert_eq!((world.closes(CloseReason::TooFast), beat(&mut world, &mut other, 9)), (1, (9, vec![])));
        client.half_close();
        other.half_close();
        world.advance(2500);
        world.assert_empty();
    }
}

#[test]
fn pings_are_packets_and_pieces_of_messages_are_none() {
    let mut world = Setup::new().listeners(|l| l.client_rates.packets = Rate { per_second: 1, burst: 9 }).build();
    let mut client = world.enter(WebSocket, &marked("key", ""));
    let bytes = client.packet_bytes(operation::HEARTBEAT, b"");
    // The payload of its frame, in sixteen fragments.
    let packet: Vec<u8> = bytes[6..].iter().zip(bytes[2..6].iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    for (at, byte) in packet.iter().enumerate() {
        client.frame(at + 1 == packet.len(), if at == 0 { Opcode::Binary } else { Opcode::Continuation }, &[*byte]);
    }
    world.settle();
    assert!(matches!(client.take()[..], [Got::Reply { operation: operation::HEARTBEAT_REPLY, .. }]));
    (0..7).for_each(|_| client.frame(true, Opcode::Ping, b""));
    world.settle();
    assert_eq!(client.take().len(), 7);
    client.frame(true, Opcode::Pong, b"");
    world.settle();
    assert_eq!(client.take(), too_fast(&client));
}

#[test]
fn a_client_that_says_more_bytes_than_it_may_is_told_before_they_are_a_packet() {
    for transport in BOTH {
        let rate = Rate { per_second: 1000, burst: 3000 };
        let mut world = Setup::new().listeners(|l| l.client_rates.bytes = rate).build();
        let mut client = world.enter(transport, &marked("key", ""));
        let bytes = client.packet_bytes(1000, &[b'x'; 2500]);
        world.advance(1000);
        client.say(&bytes[..2400]);
        world.settle();
        client.say(&bytes[2400..]);
        world.settle();
        assert!(matches!(client.take()[..], [Got::Reply { .. }]), "a packet in two reads");
        client.say(&bytes[..1000]);
        world.settle();
        assert_eq!(client.take(), too_fast(&client));
        client.half_close();
        world.advance(2500);
        world.assert_empty();
    }
}

#[test]
fn a_token_says_how_fast_its_client_may_speak_until_the_next_one() {
    let token = |rate: u32| {
        let exp = testing::EPOCH_S + 1000;
        testing::token(&serde_json::json!({ "key": "key", "rooms": ["*"], "exp": exp, "rate": rate }))
    };
    let mut setup = Setup::new();
    setup.policy.listeners.fill(LoginRule::Jwt);
    let mut world = setup.build();
    let mut client = world.enter(Tcp, &halley_protocol::login::Login { token: token(5), ..marked("key", "") });
    assert_eq!(beat(&mut world, &mut client, 4), (4, vec![]));
    world.advance(1000);
    world.ask(&mut client, operation::REFRESH, token(50).as_bytes());
    assert_eq!(beat(&mut world, &mut client, 49), (49, vec![]));
    assert_eq!(beat(&mut world, &mut client, 9).1, too_fast(&client));
}

#[test]
fn a_reload_brings_rates_to_those_who_are_in() {
    let mut world = World::new();
    let mut client = world.enter(Tcp, &marked("key", ""));
    assert_eq!(beat(&mut world, &mut client, 99), (99, vec![]));
    let mut settings = world.shards[0].settings.reloadable();
    let mut listeners = settings.listeners.to_vec();
    listeners[0].client_rates.packets.per_second = 10;
    settings.listeners = listeners.into();
    world.order(0, Order::Reload { settings: settings.into() });
    world.settle();
    assert_eq!(beat(&mut world, &mut client, 10), (10, vec![]));
    assert_eq!(beat(&mut world, &mut client, 1).1, too_fast(&client));
}
