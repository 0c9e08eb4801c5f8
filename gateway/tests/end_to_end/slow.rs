//! Slow clients: bounded, every drop counted, and nobody else held up.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, PATIENCE, Transport, until};

const MESSAGES: usize = 600;
const BYTES: usize = 1000;

/// Small buffers everywhere: a run of 4 KiB at most, 4 KiB in the kernel, 8 KiB in the outbox.
fn gateway(policy: &str) -> Gateway {
    let keys =
        format!("login = \"open\"\nsend_buffer_bytes = 4096\noutbox_bytes_max = 8192\nslow_policy = \"{policy}\"\n");
    let listeners = LISTENERS.replace("login = \"open\"\n", &keys);
    Gateway::start(&format!("{OPEN}[shard]\nrun_bytes_max = 4096\n{listeners}"))
}

/// A connection whose receive buffer is as small as the kernel makes it.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(2048).expect("an option");
    socket.set_read_timeout(Some(PATIENCE)).expect("an option");
    socket.connect(&address.into()).expect("the listener listens");
    socket.into()
}

fn slow_client(gateway: &Gateway, transport: Transport) -> Client {
    let address = if transport == Transport::Tcp { gateway.tcp() } else { gateway.ws() };
    let mut client = Client::over(narrow(address), transport);
    client.send(halley_protocol::operation::AUTH, 1, br#"{"key":"slow","room_id":"r","accepts":[1]}"#);
    client.expect(halley_protocol::operation::AUTH_REPLY, 1, b"");
    client
}

/// Numbered messages to the room, a few per call so that the quick client keeps up.
fn push_all(gateway: &Gateway, quick: &mut Client) {
    for batch in 0..MESSAGES / 5 {
        let pushes: Vec<Value> = (0..5).map(|n| push(batch * 5 + n)).collect();
        gateway.push(&json!(pushes));
        for n in 0..5 {
            quick.expect_push(1, &text(batch * 5 + n));
        }
    }
}

fn push(n: usize) -> Value {
    json!({ "target": { "room": "r" }, "operation": 1, "payload": { "text": text(n) } })
}

fn text(n: usize) -> String {
    format!("{n:0BYTES$}")
}

/// The numbers of the messages that the slow client gets once it reads.
fn read_numbers(client: &mut Client, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        match client.hear() {
            Heard::Packet { operation: 1, body, .. } => {
                assert_eq!(body.len(), BYTES);
                numbers.push(String::from_utf8(body).expect("digits").parse().expect("a number"));
            }
            other => panic!("after {}: {other:?}", numbers.len()),
        }
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "in order and once: {numbers:?}");
    numbers
}

fn misses_exactly_what_was_counted(policy: &str, reason: &str, transport: Transport) -> Vec<usize> {
    let gateway = gateway(policy);
    let mut slow = slow_client(&gateway, transport);
    let mut quick = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"quick","room_id":"r"}"#);
    push_all(&gateway, &mut quick);
    until("drops", || gateway.counter(&format!("/dropped/{reason}")) > 0);
    let waiting = gateway.get("/v1/connections/slow").json()["connections"][0]["queued_bytes"].as_u64();
    assert!(waiting.is_some_and(|bytes| bytes > 0 && bytes <= 8192 + 4096 + 1100), "{waiting:?}");
    let dropped = usize::try_from(gateway.counter(&format!("/dropped/{reason}"))).expect("few");
    let numbers = read_numbers(&mut slow, MESSAGES - dropped);
    slow.expect_quiet();
    let stats = gateway.settled();
    assert_eq!(gateway.counter(&format!("/dropped/{reason}")), dropped as u64, "{stats}");
    assert_eq!(gateway.counter("/offered"), 2 * MESSAGES as u64);
    assert_eq!(gateway.counter("/sent"), (2 * MESSAGES - dropped) as u64);
    assert_eq!(gateway.counter("/pinned_bytes"), 0, "nothing is kept for anybody");
    // It is a member as before.
    gateway.push(&push(MESSAGES));
    slow.expect_push(1, &text(MESSAGES));
    drop((slow, quick));
    gateway.stop();
    numbers
}

#[test]
fn a_slow_client_misses_the_newest_and_exactly_as_many_as_are_counted() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let numbers = misses_exactly_what_was_counted("drop-newest", "slow-newest", transport);
        assert!(!numbers.contains(&(MESSAGES - 1)), "the newest are those it misses");
        assert_eq!(numbers[0], 0);
    }
}

#[test]
fn a_slow_client_misses_the_oldest_and_exactly_as_many_as_are_counted() {
    for transport in [Transport::Tcp, Transport::WebSocket] {
        let numbers = misses_exactly_what_was_counted("drop-oldest", "slow-oldest", transport);
        assert!(numbers.contains(&(MESSAGES - 1)), "the newest are those it gets");
        assert_eq!(numbers[0], 0, "what has begun is finished");
    }
}

#[test]
fn a_slow_client_is_closed_where_the_policy_says_so() {
    let gateway = gateway("close");
    let mut slow = slow_client(&gateway, Transport::WebSocket);
    let mut quick = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"quick","room_id":"r"}"#);
    push_all(&gateway, &mut quick);
    gateway.until_counter("/closes/too-slow", 1);
    let mut got = 0;
    loop {
        match slow.hear() {
            Heard::Packet { operation: 1, .. } => got += 1,
            Heard::Close { code } => break assert_eq!(code, 4006),
            other => panic!("{other:?}"),
        }
    }
    drop(slow);
    gateway.until_counter("/connections", 1);
    gateway.settled();
    assert_eq!(gateway.counter("/sent"), MESSAGES as u64 + got, "sent is what both have got");
    quick.expect_quiet();
}

#[test]
fn a_client_that_takes_nothing_for_too_long_is_closed() {
    let keys = "login = \"open\"\nsend_buffer_bytes = 4096\nstall_ms_max = 500\nlinger_ms_max = 200\n";
    let gateway = Gateway::start(&format!("{OPEN}{}", LISTENERS.replace("login = \"open\"\n", keys)));
    let slow = slow_client(&gateway, Transport::Tcp);
    let mut quick = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"quick","room_id":"r"}"#);
    for n in 0..100 {
        gateway.push(&push(n));
        quick.expect_push(1, &text(n));
    }
    gateway.until_counter("/closes/stalled", 1);
    gateway.until_counter("/connections", 1);
    gateway.settled();
    drop(slow);
}
