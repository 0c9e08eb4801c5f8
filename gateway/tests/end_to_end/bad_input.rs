//! Bytes that break the protocol: told, counted, and without effect on anybody else.

use std::io::Write as _;

use halley_protocol::websocket::{Opcode, client as websocket};
use halley_protocol::{client as packets, operation};

use crate::support::{Client, Gateway, Heard, Transport, connect, until};

/// A masked frame with its first byte as given.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    websocket::frame(&mut out, true, Opcode::Binary, [9, 8, 7, 6], payload);
    out[0] = first;
    out
}

/// A packet's header with these lengths.
fn head(packet_bytes: i32, header_bytes: i16) -> Vec<u8> {
    let mut head = packets::packet(operation::HEARTBEAT, 1, b"");
    head[..4].copy_from_slice(&packet_bytes.to_be_bytes());
    head[4..6].copy_from_slice(&header_bytes.to_be_bytes());
    head
}

#[test]
fn malformed_frames_are_told_their_close_code() {
    let gateway = Gateway::open();
    let mut witness = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"witness"}"#);
    let fragments = [frame(0x02, b""), frame(0x00, b"").repeat(1500)].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", vec![0x82, 0x00], 1002),
        ("reserved bit", frame(0xc2, b"x"), 1002),
        ("reserved opcode", frame(0x83, b"x"), 1002),
        ("control in fragments", frame(0x09, b"x"), 1002),
        ("control too long", frame(0x89, &[0; 126]), 1002),
        ("continuation of nothing", frame(0x80, b"x"), 1002),
        ("message inside a message", [frame(0x02, b"x"), frame(0x82, b"x")].concat(), 1002),
        ("close with one byte", frame(0x88, &[3]), 1002),
        ("close code that may not be sent", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("close reason that is not UTF-8", frame(0x88, &[3, 232, 0xff]), 1007),
        ("text that is not UTF-8", frame(0x81, &[0xff]), 1007),
        ("text that holds no packet", frame(0x81, b"hello"), 1003),
        ("message too big", frame(0x82, &[0; 8193]), 1009),
        ("too many fragments", fragments, 1009),
        ("packet beyond its message", frame(0x82, &head(17, 16)), 1002),
        ("packet without a header", frame(0x82, b"x"), 1002),
        ("packet too short", frame(0x82, &head(15, 16)), 1002),
        ("packet too long", frame(0x82, &head(4113, 16)), 1009),
        ("header length", frame(0x82, &head(16, 17)), 1002),
    ];
    let all = cases.len() as u64;
    for (name, bytes, code) in cases {
        let mut client = Client::login(gateway.ws(), Transport::WebSocket, "{}");
        client.write(&bytes);
        assert_eq!(client.close_code(), code, "{name}");
        // The gateway waits for the answer to its close, so that nothing of it is lost; then it is gone.
        drop(client);
    }
    gateway.until_counter("/connections", 1);
    let closes = |reason: &str| gateway.counter(&format!("/closes/{reason}"));
    let told = ["frame-malformed", "frame-not-utf8", "frame-wrong-type", "frame-too-big"].map(closes);
    assert_eq!(told, [9, 2, 1, 2]);
    assert_eq!(closes("packet-malformed") + closes("packet-too-big"), all - 14);
    witness.expect_quiet();
}

#[test]
fn malformed_packets_on_tcp_end_the_connection_without_a_word() {
    let gateway = Gateway::open();
    let mut witness = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"witness"}"#);
    for (packet_bytes, header_bytes) in [(15, 16), (0, 16), (-1, 16), (4113, 16), (i32::MAX, 16), (16, 15), (16, -16)] {
        for logged_in in [false, true] {
            let mut client = Client::connect(gateway.tcp(), Transport::Tcp);
            if logged_in {
                client.send(operation::AUTH, 1, b"{}");
                client.expect(operation::AUTH_REPLY, 1, b"");
            }
            client.write(&head(packet_bytes, header_bytes));
            assert_eq!(client.hear(), Heard::End, "{packet_bytes} {header_bytes}");
        }
    }
    gateway.until_counter("/closes/packet-malformed", 10);
    gateway.until_counter("/closes/packet-too-big", 4);
    witness.expect_quiet();
}

#[test]
fn a_client_with_the_mark_is_told_by_a_kick_before_the_end() {
    let gateway = Gateway::open();
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"halley":1}"#);
    client.write(&head(4113, 16));
    let Heard::Packet { operation: operation::KICK, body, .. } = client.hear() else { panic!("no kick") };
    assert_eq!(body[..4], 1009i32.to_be_bytes());
    drop(client);
    gateway.until_counter("/connections", 0);
}

#[test]
fn unknown_operations_are_ignored_before_the_login_and_echoed_after() {
    let gateway = Gateway::open();
    for (address, transport) in [(gateway.tcp(), Transport::Tcp), (gateway.ws(), Transport::WebSocket)] {
        let mut client = Client::connect(address, transport);
        for operation in [operation::HEARTBEAT, operation::CHANGE_ROOM, 18, 1000, -1, operation::JOIN] {
            client.send(operation, 4, b"before the login");
        }
        client.send(operation::AUTH, 5, br#"{"room_id":"r"}"#);
        client.expect(operation::AUTH_REPLY, 5, b"");
        for operation in [operation::AUTH, 0, 1, 4, 6, 18, 1000, i32::MAX, -1, operation::JOIN] {
            client.send(operation, 6, b"x");
            client.expect(operation, 6, b"");
        }
        client.expect_quiet();
    }
}

#[test]
fn bytes_one_at_a_time_and_many_packets_at_once_are_served() {
    const PACKETS: i32 = 20_000;
    let gateway = Gateway::open();
    let mut slow = Client::connect(gateway.tcp(), Transport::Tcp);
    slow.stream.set_nodelay(true).expect("an option");
    for byte in packets::packet(operation::AUTH, 1, br#"{"key":"slow"}"#) {
        slow.write(&[byte]);
    }
    slow.expect(operation::AUTH_REPLY, 1, b"");

    let mut fast = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"fast"}"#);
    let burst: Vec<u8> = (0..PACKETS).flat_map(|n| packets::packet(1000, n, b"")).collect();
    let mut writer = fast.stream.try_clone().expect("a second handle");
    // Replies are read meanwhile: who does not read its replies is not read either.
    let written = std::thread::spawn(move || writer.write_all(&burst));
    for n in 0..PACKETS {
        fast.expect(1000, n, b"");
    }
    written.join().expect("a thread that ends").expect("all is taken");
    slow.expect_quiet();
}

#[test]
fn garbage_on_every_port_hurts_nobody() {
    let gateway = Gateway::open();
    let mut witness = Client::login(gateway.ws(), Transport::WebSocket, r#"{"key":"witness","accepts":[1]}"#);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let ports = [gateway.tcp(), gateway.ws(), gateway.api];
    for round in 0..150usize {
        let bytes: Vec<u8> = (0..=random.next() % 3000).map(|_| random.next().to_le_bytes()[0]).collect();
        for address in ports {
            let mut stream = connect(address);
            // It may be refused in the middle.
            let _ = stream.write_all(&bytes);
        }
        // Garbage behind a sound beginning gets further.
        let mut ws = Client::connect(gateway.ws(), Transport::WebSocket);
        if round % 2 == 0 {
            ws.send(operation::AUTH, 1, b"{}");
        }
        let _ = ws.stream.write_all(&bytes);
        let mut tcp = Client::connect(gateway.tcp(), Transport::Tcp);
        tcp.send(operation::AUTH, 1, &bytes[..bytes.len().min(4096)]);
        let _ = tcp.stream.write_all(&bytes);
        let mut api = connect(gateway.api);
        let _ = api.write_all(
            b"POST /v1/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n",
        );
        let _ = api.write_all(&bytes);
    }
    until("only the witness to be left", || gateway.counter("/connections") == 1);
    assert_eq!(gateway.get("/healthz").status, 200);
    gateway.curl("/goim/push/all?operation=1", "still here");
    witness.expect_push(1, "still here");
    Client::login(gateway.tcp(), Transport::Tcp, "{}").expect_quiet();
    gateway.settled();
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

/// xorshift64: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
