//! TLS that ends, or changes, on the way: failed handshakes, bad records, new keys, closes, tickets, new certificates.

use std::sync::Arc;

use halley_protocol::operation;
use rustls::{AlertDescription, Error};

use super::client::{Client, Got};
use super::session::login;
use super::tls::{connect, enter, handshakes, leave, one_server, secure, server, talk, tls12, tls13};
use super::world::{Setup, World};
use crate::dispatch::Target;
use crate::order::Order;
use crate::reason::{CloseReason, Handshake};
use crate::shard::Transport;

/// A client over TCP or WebSocket says something that is no handshake; what it hears.
fn failed_handshake(bytes: &[u8]) -> Vec<u8> {
    let mut world = secure().build();
    let client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
    client.say_raw(bytes);
    world.settle();
    assert_eq!(world.closes(CloseReason::TlsHandshake), 1, "{bytes:?}");
    assert_eq!(handshakes(&world, Handshake::Failed), 1);
    let heard = world.net.recv(client.id, usize::MAX);
    client.half_close();
    world.settle();
    assert!(client.is_closed());
    world.assert_empty();
    heard
}

#[test]
fn a_handshake_that_fails_is_told_by_an_alert_and_counted() {
    for garbage in [&b"GET /sub HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff], &[23, 3, 3, 0, 1, 0]] {
        let heard = failed_handshake(garbage);
        assert!(matches!(heard[..], [21, 3, _, 0, 2, 2, _]), "a fatal alert for {garbage:?}, not {heard:?}");
    }
    // A version that is not spoken, told by rustls's own words.
    let mut world = Setup::new()
        .listeners(|listener| {
            let mut config = (*one_server()).clone();
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            listener.tls = Some(Arc::new(config));
        })
        .build();
    let mut config = (*tls13()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let client = connect(&mut world, Transport::Tcp, &Arc::new(config));
    assert_eq!(client.tls_error, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
    assert_eq!(world.closes(CloseReason::TlsHandshake), 1);
}

#[test]
fn a_handshake_that_never_ends_is_late_and_told_nothing() {
    let mut world = secure().build();
    let client = Client::connect_silent(&world.net, 1, Transport::WebSocket);
    client.say_raw(&[0x16, 3, 1, 0]);
    world.advance(5300);
    assert_eq!(world.closes(CloseReason::LoginLate), 1);
    assert!(client.is_closed());
    assert_eq!(world.net.recv(client.id, usize::MAX), [0; 0]);
    world.assert_empty();
}

#[test]
fn a_record_that_cannot_be_opened_or_may_not_come_ends_the_connection() {
    let long = [&[23, 3, 3, 0x48, 0x01][..], &vec![0; 0x4801]].concat();
    let cases: [(&[u8], AlertDescription); 5] = [
        (
            &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
            AlertDescription::BadRecordMac,
        ),
        (&[23, 3, 3, 0, 1, 0], AlertDescription::BadRecordMac),
        (&[20, 3, 3, 0, 1, 1], AlertDescription::UnexpectedMessage),
        (&[21, 3, 3, 0, 2, 1, 0], AlertDescription::UnexpectedMessage),
        (&long, AlertDescription::RecordOverflow),
    ];
    for (record, alert) in cases {
        let mut world = secure().build();
        let mut client = enter(&mut world, Transport::WebSocket, &tls13(), "key", "room");
        client.say_raw(record);
        talk(&mut world, &mut client);
        assert_eq!(client.tls_error, Some(Error::AlertReceived(alert)), "{record:?}");
        assert_eq!(world.closes(CloseReason::TlsRecord), 1, "{record:?}");
        client.half_close();
        world.settle();
        assert!(client.is_closed());
        world.assert_empty();
    }
}

#[test]
fn keys_change_when_either_side_wants_it_and_in_tls_12_the_connection_ends() {
    let mut world = secure().build();
    let mut client = enter(&mut world, Transport::Tcp, &tls13(), "key", "room");
    for number in 0..350 {
        if number % 50 == 7 {
            client.with_tls(|tls| tls.refresh_traffic_keys().expect("TLS 1.3"));
        }
        world.push_room("room", &number.to_string());
        client.send(operation::HEARTBEAT, b"");
        talk(&mut world, &mut client);
        let got = client.take();
        assert_eq!(got.len(), 2, "a push and a reply: {got:?}");
    }
    leave(world, &client);

    let mut world = secure().build();
    let mut client = enter(&mut world, Transport::WebSocket, &tls12(), "key", "room");
    let mut got = Vec::new();
    for number in 0..620 {
        world.push_room("room", &number.to_string());
        talk(&mut world, &mut client);
        got.extend(client.take());
    }
    assert_eq!(world.closes(CloseReason::TlsWorn), 1);
    assert_eq!(got.last(), Some(&Got::Close(Some(1012))));
    client.half_close();
    world.settle();
    world.assert_empty();
}

#[test]
fn a_close_is_answered_with_a_close() {
    for config in [tls13(), tls12()] {
        let mut world = secure().build();
        let mut client = enter(&mut world, Transport::Tcp, &config, "key", "room");
        client.with_tls(|tls| tls.send_close_notify());
        talk(&mut world, &mut client);
        let closed = client.with_tls(|tls| tls.process_new_packets().map(|state| state.peer_has_closed()));
        assert_eq!(closed, Ok(true));
        assert_eq!(world.closes(CloseReason::PeerClosed), 1);
        assert!(client.is_closed(), "without waiting for the end of the stream");
        world.assert_empty();
    }
}

#[test]
fn a_kick_is_told_behind_what_waits_and_before_the_close() {
    let mut world = secure().build();
    let mut client = enter(&mut world, Transport::WebSocket, &tls13(), "key", "room");
    client.set_window(10);
    world.push_room("room", "last");
    world.kick("key");
    client.set_window(usize::MAX);
    talk(&mut world, &mut client);
    let got = client.take();
    assert!(matches!(&got[..], [Got::Push { .. }, Got::Kick { code: 4005, .. }, Got::Close(Some(4005))]), "{got:?}");
    let closed = client.with_tls(|tls| tls.process_new_packets().map(|state| state.peer_has_closed()));
    assert_eq!(closed, Ok(true));
}

#[test]
fn a_client_comes_back_with_its_ticket() {
    for config in [tls13(), tls12()] {
        let mut world = secure().build();
        let first = enter(&mut world, Transport::Tcp, &config, "one", "room");
        let second = enter(&mut world, Transport::Tcp, &config, "two", "room");
        assert_eq!((handshakes(&world, Handshake::Full), handshakes(&world, Handshake::Resumed)), (1, 1));
        first.half_close();
        leave(world, &second);
    }
}

#[test]
fn new_connections_begin_with_new_certificates_and_old_ones_stay() {
    let mut world = secure().build();
    let mut old = enter(&mut world, Transport::Tcp, &tls13(), "old", "room");
    let shown =
        |client: &Client| client.with_tls(|tls| tls.peer_certificates().expect("shown")[0].clone().into_owned());
    let order = Order::Certificates { listener: 0, config: server().config };
    world.order(0, order);
    world.settle();
    let mut new = enter(&mut world, Transport::Tcp, &tls13(), "new", "room");
    assert_ne!(shown(&old), shown(&new));
    world.push_room("room", "to both");
    for client in [&mut old, &mut new] {
        talk(&mut world, client);
        assert_eq!(client.texts(), ["to both"]);
    }
    old.half_close();
    leave(world, &new);
}

#[test]
fn a_turn_goes_on_with_a_bounded_number_of_handshakes_while_pushes_are_sent() {
    let mut world = secure().shard(|shard| shard.accepts_armed_max = 16).build();
    let mut member = enter(&mut world, Transport::Tcp, &tls13(), "key", "room");
    let mut storm: Vec<_> =
        (0..40).map(|_| Client::connect_tls(&world.net, 1, Transport::WebSocket, tls13())).collect();
    let answered = |world: &World, client: &Client| world.net.arrived(client.id) > 0;
    let mut most = 0;
    for number in 0..200 {
        world.dispatch(&Target::Room("room".into()), 1000, &number.to_string()).expect("places");
        let before = storm.iter().filter(|client| answered(&world, client)).count();
        world.turn(0);
        let after = storm.iter().filter(|client| answered(&world, client)).count();
        most = most.max(after - before);
        member.read(usize::MAX);
        assert_eq!(member.texts(), [number.to_string()], "in the same turn");
    }
    assert_eq!(most, 4, "handshakes of a turn");
    for client in &mut storm {
        talk(&mut world, client);
        client.upgrade();
        talk(&mut world, client);
        client.login(&login("", "room"));
    }
    for client in &mut storm {
        talk(&mut world, client);
        assert!(matches!(client.take()[..], [Got::Reply { operation: operation::AUTH_REPLY, .. }]));
    }
    assert_eq!(handshakes(&world, Handshake::Full), 41);
}

#[test]
fn unfinished_records_are_bounded_and_the_oldest_is_closed() {
    let mut world = secure().shard(|shard| shard.partials_max = 1).build();
    let mut first = enter(&mut world, Transport::WebSocket, &tls13(), "one", "room");
    let second = enter(&mut world, Transport::WebSocket, &tls13(), "two", "room");
    first.say_raw(&[23, 3, 3, 0]);
    world.settle();
    second.say_raw(&[23, 3, 3, 0]);
    talk(&mut world, &mut first);
    assert_eq!(world.closes(CloseReason::PartialPool), 1);
    assert!(first.take().contains(&Got::Close(Some(1013))));
    second.half_close();
    first.half_close();
    world.advance(2500);
    world.assert_empty();
}
