//! The tables of ends, drops and rejects: every reason is reached, counted once, and told as it should be.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::packet::header;
use halley_protocol::websocket::Opcode;
use halley_ring::sim::Weather;
use serde_json::json;

use super::client::{Client, Got};
use super::deflate;
use super::session::{BOTH, login, marked};
use super::v1::{enter_v1, four_classes};
use super::world::{Setup, World};
use crate::control::decide::{Event, HookAnswer, LoginRule, Revoked};
use crate::dispatch::Target;
use crate::identity::testing;
use crate::ids::{RoomIndex, RoomRef};
use crate::limits::{ACCEPTS_MAX, ROOM_NAME_BYTES_MAX, ROOMS_PER_CONNECTION_MAX};
use crate::networks::Cidr;
use crate::order::{DrainPlan, Order};
use crate::payload::{Note, Payload};
use crate::reason::{CloseReason, DropReason, Reject};
use crate::shard::{ClientAddress, Rate, SlowPolicy, Transport};

/// A login with a token for so many seconds.
fn by_token(seconds: u64) -> Login {
    let exp = testing::EPOCH_S + seconds;
    let token = testing::token(&json!({ "key": "key", "rooms": ["*"], "operations": [1000], "jti": "t", "exp": exp }));
    Login { token, ..marked("key", "room") }
}

/// A world whose limits are near, those that lead to this end above all.
fn tight(reason: CloseReason) -> Setup {
    use CloseReason as R;
    let mut small = Setup::new()
        .shard(|shard| (shard.outbox_entries_max, shard.partials_max) = (2, 1))
        .listeners(|l| (l.login_ms_max, l.heartbeat_ms_max, l.stall_ms_max) = (500, 5000, 1000))
        .listeners(|l| (l.outbox_bytes_max, l.slow_policy) = (150, SlowPolicy::Close));
    if reason == R::TooFast {
        small = small.listeners(|l| l.client_rates.packets = Rate { per_second: 10, burst: 15 });
    }
    if matches!(reason, R::GrantExpired | R::GrantRevoked) {
        small.policy.listeners.fill(LoginRule::Jwt);
    } else if reason == R::HookFailed {
        small.policy.listeners.fill(LoginRule::Hook);
    }
    small.listeners[1].compression = reason == R::FrameNotDeflate;
    if reason == R::RoomFull {
        small.policy.room_members_max = 1;
    }
    if reason == R::NetworkFull {
        small = small.networks(1);
    }
    if matches!(reason, R::ProxyUntrusted | R::ProxyMalformed) {
        let trusted = if reason == R::ProxyMalformed {
            vec![Cidr::try_from("0.0.0.0/0".to_owned()).expect("all")]
        } else {
            vec![]
        };
        small = small
            .listeners(|l| (l.client_address, l.trusted_proxies) = (ClientAddress::ProxyProtocol, trusted.clone()));
    }
    small
}

// long: a way to each reason
/// A connection of this transport is brought to this end; `None` where the transport has no such end.
fn cause(reason: CloseReason, transport: Transport) -> Option<(World, Client)> {
    use CloseReason as R;
    let websocket = transport == Transport::WebSocket;
    if matches!(
        reason,
        R::HandshakeRefused
            | R::FrameMalformed
            | R::FrameWrongType
            | R::FrameNotUtf8
            | R::FrameNotDeflate
            | R::FrameTooBig
    ) && !websocket
    {
        return None;
    }
    // They need a client that speaks TLS: `tls_endings.rs` has them.
    if matches!(reason, R::TlsHandshake | R::TlsRecord | R::TlsWorn) {
        return None;
    }
    let mut world = tight(reason).build();
    let mut client = match reason {
        R::FrameNotDeflate => deflate::enter(&mut world, &marked("key", "room")),
        R::GrantExpired | R::GrantRevoked => world.enter(transport, &by_token(4)),
        R::LoginLate | R::LoginRefused | R::HandshakeRefused | R::HookFailed => world.connect(transport),
        R::ProxyUntrusted | R::ProxyMalformed => Client::connect_silent(&world.net, usize::from(websocket), transport),
        R::NetworkFull => {
            world.connect(Transport::Tcp);
            Client::connect_silent(&world.net, usize::from(websocket), transport)
        }
        _ => world.enter(transport, &marked("key", "room")),
    };
    match reason {
        R::PeerClosed => client.half_close(),
        R::PeerReset => client.reset(),
        R::PacketMalformed => {
            broken_packet(&client, header(0, 1, 15, 1).map(|byte| if byte == 16 { 15 } else { byte }));
        }
        R::PacketTooBig => broken_packet(&client, header(4097, 1, 2, 1)),
        R::HandshakeRefused => {
            client = Client::connect_silent(&world.net, 1, transport);
            client.say(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        R::FrameMalformed => client.say(&[0x82, 0x01, b'x']),
        R::FrameWrongType => client.frame(true, Opcode::Text, b"not a packet"),
        R::FrameNotUtf8 => client.frame(true, Opcode::Text, &[0xff; 20]),
        R::FrameNotDeflate => client.deflated_frame(Opcode::Binary, &[0xff; 20]),
        R::FrameTooBig => client.frame(true, Opcode::Binary, &[0; 8193]),
        R::LoginLate => world.advance(600),
        R::LoginRefused => _ = client.send(operation::AUTH, b"not JSON"),
        R::HeartbeatMissed => world.advance(5100),
        R::Replaced => drop(world.enter(Transport::Tcp, &login("key", ""))),
        R::Kicked => world.kick("key"),
        R::GrantExpired => world.advance(4100),
        R::GrantRevoked => {
            let what = Revoked::Token("t".into());
            assert_eq!(world.control.revoke(&what, u64::MAX, &mut world.outgoing), Ok(1));
        }
        R::HookFailed => {
            client.login(&marked("key", "room"));
            world.settle();
            world.answer_question(0, |_| HookAnswer::Down);
        }
        R::TooFast => (0..20).for_each(|_| _ = client.send(operation::HEARTBEAT, b"")),
        R::TooSlow | R::Stalled => {
            client.set_window(0);
            world.push_room("room", "waits");
            if reason == R::Stalled {
                world.advance(1100);
            } else {
                world.push_room("room", &"x".repeat(150));
            }
            client.set_window(usize::MAX);
        }
        R::OutboxPool => {
            client.set_window(0);
            (0..3).for_each(|_| world.push_room("room", ""));
            client.set_window(usize::MAX);
        }
        R::PartialPool => {
            client.say(&[0x82]);
            world.settle();
            world.connect(Transport::Tcp).say(&[0]);
        }
        R::RoomFull => {
            world.enter(Transport::Tcp, &login("other", "full"));
            client.send(operation::CHANGE_ROOM, b"full");
        }
        R::RoomNameBad => _ = client.send(operation::CHANGE_ROOM, &[b'x'; ROOM_NAME_BYTES_MAX + 1]),
        R::OperationUnknown => {
            world = four_classes().build();
            client = enter_v1(&mut world, transport, "7");
            client.send(operation::CHANGE_ROOM, b"1");
        }
        R::Drain => world.control.drain(DrainPlan::new(0, 0, 10_000), &mut world.outgoing),
        R::ProxyMalformed => client.say(b"GET / HTTP/1.1\r\n"),
        R::ProxyUntrusted | R::NetworkFull | R::TlsHandshake | R::TlsRecord | R::TlsWorn => {}
    }
    world.settle();
    Some((world, client))
}

/// A header that no packet has, as the whole of a message.
fn broken_packet(client: &Client, header: [u8; 16]) {
    match client.transport {
        Transport::Tcp => client.say(&header),
        Transport::WebSocket => client.frame(true, Opcode::Binary, &header),
    }
}

#[test]
fn every_close_reason_is_reached_counted_once_and_told() {
    use CloseReason as R;
    for reason in CloseReason::ALL {
        for transport in BOTH {
            let Some((mut world, mut client)) = cause(reason, transport) else { continue };
            assert_eq!(world.closes(reason), 1, "{reason:?} over {transport:?}");
            let others: u64 = CloseReason::ALL.iter().map(|reason| world.closes(*reason)).sum();
            assert_eq!(others, 1, "nothing but {reason:?} over {transport:?}");
            told(reason, &mut client);
            client.half_close();
            world.advance(2500);
            assert!(client.is_closed(), "{reason:?} over {transport:?}");
            let gone = world.events.iter().find_map(|event| match event {
                Event::Gone { reason, .. } => Some(*reason),
                _ => None,
            });
            // Control knows of those who have asked it something.
            let known = !matches!(
                reason,
                R::LoginLate | R::HandshakeRefused | R::NetworkFull | R::ProxyUntrusted | R::ProxyMalformed
            );
            assert_eq!(gone, known.then_some(reason), "over {transport:?}");
        }
    }
}

/// The client got the code of the reason as its transport tells it, and nothing behind it.
fn told(reason: CloseReason, client: &mut Client) {
    let mut got = client.take();
    if reason == CloseReason::HandshakeRefused {
        return assert_eq!(got, [Got::Http("404".into())]);
    }
    if reason == CloseReason::NetworkFull && client.transport == Transport::WebSocket {
        return assert_eq!(got, [Got::Http("429".into())]);
    }
    got.retain(|got| !matches!(got, Got::Push { .. } | Got::Reply { operation: operation::HEARTBEAT_REPLY, .. }));
    let mut expected = Vec::new();
    // A login that never was carries no mark, and one of goim v1 cannot.
    let is_marked = !matches!(
        reason,
        CloseReason::LoginLate | CloseReason::LoginRefused | CloseReason::OperationUnknown | CloseReason::HookFailed
    );
    if let Some(code) = reason.code() {
        if is_marked {
            expected.push(Got::Kick { code: code.into(), text: reason.name().into() });
        }
        if client.transport == Transport::WebSocket {
            expected.push(Got::Close(Some(code)));
        }
    }
    assert_eq!(got, expected, "{reason:?} over {:?}", client.transport);
}

#[test]
fn a_goim_client_on_tcp_is_closed_without_a_word() {
    let mut world = World::new();
    let mut client = world.enter(Transport::Tcp, &login("key", ""));
    world.kick("key");
    assert!(client.is_closed(), "and does not linger");
    assert_eq!(client.take(), []);
    world.assert_empty();
}

#[test]
fn every_refused_handshake_gets_its_status() {
    let refused = [
        ("", "POST /sub HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("", "GET /sub HTTP/1.1\r\nHost: x\r\n\r\n", "426"),
        ("", "nonsense\r\n\r\n", "400"),
        ("X: ", &"y".repeat(9000), "431"),
    ];
    for (head, rest, status) in refused {
        let mut world = World::new();
        let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
        let text = if head.is_empty() { rest.to_owned() } else { format!("GET /sub HTTP/1.1\r\n{head}{rest}") };
        client.say(text.as_bytes());
        world.settle();
        assert_eq!(client.take(), [Got::Http(status.into())]);
        client.half_close();
        world.settle();
        assert_eq!(world.closes(CloseReason::HandshakeRefused), 1);
        world.assert_empty();
    }
}

#[test]
fn a_handshake_that_never_ends_is_answered_with_408() {
    let mut world = World::new();
    let mut client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
    client.say(b"GET /sub HTTP/1.1\r\n");
    world.advance(5200);
    assert_eq!(client.take(), [Got::Http("408".into())]);
    assert_eq!(world.closes(CloseReason::LoginLate), 1);
}

/// A world in which exactly so many deliveries were dropped for this reason, and none for others.
fn drop_some(reason: DropReason) -> (World, u64) {
    let policy = match reason {
        DropReason::SlowOldest => SlowPolicy::DropOldest,
        _ => SlowPolicy::DropNewest,
    };
    let setup = Setup::new().listeners(|l| (l.outbox_bytes_max, l.slow_policy) = (100, policy));
    let mut world = setup.shard(|shard| shard.room_pending_bytes_max = 100).build();
    let client = world.enter(Transport::Tcp, &login("key", "room"));
    let sixty = "x".repeat(60 - 16);
    match reason {
        DropReason::SlowNewest | DropReason::SlowOldest => {
            client.set_window(0);
            (0..4).for_each(|_| world.push_room("room", &sixty));
            (world, 3)
        }
        DropReason::Closed => {
            client.set_window(0);
            world.push_room("room", &sixty);
            client.reset();
            world.settle();
            (world, 1)
        }
        DropReason::RoomBehind => {
            let push = |world: &World| world.dispatch(&Target::Room("room".into()), 1000, &sixty).expect("places");
            (0..3).for_each(|_| _ = push(&world));
            world.settle();
            (world, 2)
        }
    }
}

#[test]
fn every_drop_reason_is_reached_and_counts_each_delivery() {
    for reason in DropReason::ALL {
        let (world, count) = drop_some(reason);
        for other in DropReason::ALL {
            assert_eq!(world.dropped(other), if other == reason { count } else { 0 }, "{other:?} for {reason:?}");
        }
    }
}

/// A world in which the shard rejected once for this reason.
fn reject(reason: Reject) -> World {
    let mut setup = Setup::new().shard(|shard| shard.accepts_armed_max = 1);
    let by_token = reason == Reject::NotGranted;
    if by_token {
        setup.policy.listeners.fill(LoginRule::Jwt);
    }
    if reason == Reject::RoomFull {
        setup.policy.room_members_max = 1;
    }
    let mut world = setup.build();
    if reason == Reject::RoomFull {
        world.enter(Transport::Tcp, &login("other", "full"));
    }
    let login = if by_token { self::by_token(100) } else { Login { mid: 1, ..marked("key", "room") } };
    let mut client = world.enter(Transport::Tcp, &login);
    match reason {
        Reject::StaleConnection => {
            let conn = world.directory.key_connections("key")[0];
            client.reset();
            world.settle();
            world.order(0, Order::Close { conn, reason: CloseReason::Kicked });
        }
        Reject::StaleRoom => {
            let room = RoomRef { index: RoomIndex(200), generation: 1 };
            assert!(world.links[0].take_credit(0));
            world.links[0].put_push(Order::Room { room, payload: Payload::encode(1000, b"", Note::default()) });
        }
        Reject::TooManyRooms => {
            for number in 0..ROOMS_PER_CONNECTION_MAX {
                client.send(operation::JOIN, number.to_string().as_bytes());
            }
        }
        Reject::RoomFull => _ = client.send(operation::JOIN, b"full"),
        Reject::TooManyAccepts => {
            let list: Vec<_> = (0..=ACCEPTS_MAX).map(|operation| operation.to_string()).collect();
            client.send(operation::SUBSCRIBE, list.join(",").as_bytes());
        }
        Reject::NotGranted => _ = client.send(operation::SUBSCRIBE, b"1000,1001"),
        Reject::AcceptFailed => {
            world.net.set_weather(Weather { failed_accept: 255, ..Weather::default() });
            world.net.connect(0);
            world.settle();
            world.net.set_weather(Weather::default());
        }
    }
    world.settle();
    world
}

#[test]
fn every_reject_is_reached_and_counted_once() {
    for reason in Reject::ALL {
        let world = reject(reason);
        for other in Reject::ALL {
            let expected = u64::from(other == reason);
            let rejects = world.rejects(other);
            assert!(rejects == expected, "{rejects} {other:?} for {reason:?}");
        }
    }
}
