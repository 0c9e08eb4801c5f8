//! Maxima of a shard, gone to from outside: what happens there, and that nobody else notices.

use halley_protocol::{client as packets, operation};
use serde_json::{Value, json};

use crate::support::{Client, Gateway, Heard, LISTENERS, Transport, until};

/// One shard, with further keys for it and for its listeners.
fn one_shard(shard: &str, listener: &str) -> Gateway {
    let listeners = LISTENERS.replace("login = \"open\"\n", &format!("login = \"open\"\n{listener}\n"));
    Gateway::start(&format!(
        "connections_max = 1200\nshards = 1\n[api]\nbind = \"127.0.0.1:0\"\nauth = \"none\"\n[shard]\n{shard}\n{listeners}"
    ))
}

fn login(gateway: &Gateway, key: &str) -> Client {
    Client::login(gateway.tcp(), Transport::Tcp, &format!(r#"{{"key":"{key}","accepts":[1,2],"halley":1}}"#))
}

fn push(key: &str, operation: i32, bytes: usize) -> Value {
    json!({ "target": { "keys": [key] }, "operation": operation, "payload": { "text": "x".repeat(bytes) } })
}

fn closes(gateway: &Gateway, reason: &str) -> u64 {
    gateway.counter(&format!("/closes/{reason}"))
}

#[test]
fn bytes_held_for_slow_clients_are_bounded_and_the_one_beyond_is_closed() {
    let gateway = one_shard("pinned_bytes_max = 2097152", "send_buffer_bytes = 4096\noutbox_bytes_max = 2097152");
    let mut quick = login(&gateway, "quick");
    // None of these reads, and each has a message of its own.
    let slow: Vec<Client> = (0..8).map(|n| login(&gateway, &format!("slow{n}"))).collect();
    for n in 0..8 {
        gateway.push(&push(&format!("slow{n}"), 1, 900_000));
        gateway.push(&push("quick", 1, 1));
        quick.expect_push(1, "x");
        assert!(gateway.counter("/pinned_bytes") <= 2_097_152);
    }
    until("closes", || closes(&gateway, "outbox-pool") >= 1);
    let closed = closes(&gateway, "outbox-pool");
    assert!(closed <= 6, "the first two fit: {closed}");
    drop(slow);
    gateway.until_counter("/connections", 1);
    gateway.settled();
    assert_eq!(gateway.counter("/pinned_bytes"), 0);
    assert_eq!(gateway.counter("/offered"), 16);
}

#[test]
fn entries_held_for_slow_clients_are_bounded_and_the_one_beyond_is_closed() {
    let gateway = one_shard("outbox_entries_max = 1024", "send_buffer_bytes = 4096\noutbox_bytes_max = 8388608");
    let mut quick = login(&gateway, "quick");
    let slow = login(&gateway, "slow");
    gateway.push(&push("slow", 1, 1_000_000));
    until("the slow one to be blocked", || gateway.counter("/blocked") == 1);
    // Two operations in turn: no two messages are joined.
    let pushes: Vec<Value> = (0..500).map(|n| push("slow", 1 + n % 2, 10)).collect();
    for _ in 0..3 {
        gateway.push(&json!(pushes));
    }
    gateway.until_counter("/closes/outbox-pool", 1);
    gateway.push(&push("quick", 1, 1));
    quick.expect_push(1, "x");
    drop(slow);
    gateway.until_counter("/connections", 1);
    gateway.settled();
    assert!(gateway.counter("/dropped/closed") > 1000);
}

#[test]
fn unfinished_packets_are_bounded_and_the_oldest_is_closed() {
    let gateway = one_shard("partials_max = 4", "");
    let mut clients: Vec<Client> = (0..6).map(|n| login(&gateway, &format!("k{n}"))).collect();
    let mut witness = login(&gateway, "witness");
    let packet = packets::packet(1000, 5, b"in two parts");
    for (n, client) in clients.iter_mut().enumerate() {
        client.write(&packet[..20]);
        // Its part was there before, so it has been read when this is answered.
        witness.expect_quiet();
        assert_eq!(closes(&gateway, "partial-pool"), (n as u64 + 1).saturating_sub(4));
    }
    for (n, client) in clients.iter_mut().enumerate() {
        if n < 2 {
            let Heard::Packet { operation: operation::KICK, body, .. } = client.hear() else { panic!("no kick: {n}") };
            assert_eq!(body[..4], 1013i32.to_be_bytes());
        } else {
            client.write(&packet[20..]);
            client.expect(1000, 5, b"");
        }
    }
}

#[test]
fn a_client_that_does_not_end_its_side_is_gone_after_its_linger() {
    let gateway = one_shard("", "linger_ms_max = 300");
    let mut told = login(&gateway, "told");
    gateway.call("DELETE", "/v1/connections/told", "", "");
    assert!(matches!(told.hear(), Heard::Packet { operation: operation::KICK, .. }));
    assert_eq!(gateway.counter("/closes/kicked"), 1);
    gateway.until_counter("/connections", 0);
    assert_eq!(told.hear(), Heard::End);
}

#[test]
fn a_drain_ends_at_its_deadline_whoever_stays() {
    let mut gateway = Gateway::start(&format!(
        "drain_ms_max = 500\n{}{}",
        crate::support::OPEN,
        LISTENERS.replace("login = \"open\"\n", "login = \"open\"\nlinger_ms_max = 60000\n")
    ));
    let mut stays = Client::login(gateway.ws(), Transport::WebSocket, "{}");
    gateway.terminate();
    assert_eq!(stays.close_code(), 1012);
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
}

#[test]
fn more_logins_at_once_than_a_shard_may_ask_about_are_all_answered() {
    let gateway = one_shard("", "");
    let mut clients: Vec<Client> = (0..800).map(|_| Client::connect(gateway.tcp(), Transport::Tcp)).collect();
    for client in &mut clients {
        client.send(operation::AUTH, 1, br#"{"room_id":"r"}"#);
    }
    for client in &mut clients {
        client.expect(operation::AUTH_REPLY, 1, b"");
    }
    assert_eq!(gateway.get("/v1/rooms/r").json()["members"], 800);
}

#[test]
fn accepts_beyond_a_connections_maximum_are_echoed_and_ignored() {
    let gateway = one_shard("", "");
    let mut client = login(&gateway, "k");
    let list = |numbers: std::ops::Range<i32>| numbers.map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let fits = list(3..65);
    assert_eq!(client.ask(operation::SUBSCRIBE, fits.as_bytes()), fits.as_bytes());
    assert_eq!(client.ask(operation::SUBSCRIBE, b"65"), b"65");
    assert_eq!(gateway.counter("/rejects/too-many-accepts"), 1);
    for operation in [65, 64] {
        gateway.push(&push("k", operation, 1));
    }
    client.expect_push(64, "x");
    client.expect_quiet();
}

#[test]
fn sets_of_accepts_beyond_a_shards_maximum_are_echoed_and_ignored() {
    let gateway = one_shard("", "");
    let mut clients: Vec<Client> = (0..1030).map(|_| Client::connect(gateway.tcp(), Transport::Tcp)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(operation::AUTH, 1, format!(r#"{{"key":"k{n}","accepts":[{}]}}"#, 1000 + n).as_bytes());
        client.expect(operation::AUTH_REPLY, 1, b"");
    }
    let without = gateway.counter("/rejects/too-many-accepts");
    assert!((1..=10).contains(&without), "{without}");
    gateway.push(&push("k0", 1000, 1));
    clients[0].expect_push(1000, "x");
    gateway.push(&push("k1029", 2029, 1));
    clients[1029].expect_quiet();
}
