//! What `[limits]` says of clients, networks and rooms, gone to from outside.

use halley_protocol::halley::{JoinReply, JoinStatus, Kick};
use halley_protocol::operation;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, Transport, connect, ended, folder_with, halley, until};

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// A gateway with these lines of `[limits]`, and the file that it read.
fn limited(lines: &str) -> (Gateway, std::path::PathBuf) {
    let folder = folder_with(&text(lines));
    let path = folder.path().join("halley.toml");
    let mut command = halley();
    command.arg("--config").arg("halley.toml").current_dir(folder.path());
    (Gateway::run(command, Some(folder)), path)
}

fn text(lines: &str) -> String {
    format!("{OPEN}[limits]\n{lines}\n{LISTENERS}")
}

/// The same gateway goes on by other lines.
fn reload(gateway: &Gateway, path: &std::path::Path, lines: &str) {
    let before = gateway.log().matches("\"event\":\"reload\"").count();
    std::fs::write(path, text(lines)).expect("written");
    gateway.signal(Signal::HUP);
    until("the reload", || gateway.log().matches("\"event\":\"reload\"").count() > before);
}

fn address(gateway: &Gateway, transport: Transport) -> std::net::SocketAddr {
    if transport == Transport::Tcp { gateway.tcp() } else { gateway.ws() }
}

fn marked(gateway: &Gateway, transport: Transport, key: &str, room: &str) -> Client {
    let login = json!({ "key": key, "room_id": room, "halley": 1, "accepts": [1] });
    Client::login(address(gateway, transport), transport, &login.to_string())
}

fn join(client: &mut Client, room: &str) -> JoinReply {
    JoinReply::parse(&client.ask(operation::JOIN, room.as_bytes())).expect("a join reply")
}

fn closes(gateway: &Gateway, reason: &str) -> u64 {
    gateway.counter(&format!("/closes/{reason}"))
}

/// Reads over replies until the client is told to go.
fn told(client: &mut Client) -> Vec<Heard> {
    let mut told = Vec::new();
    loop {
        match client.hear() {
            Heard::Packet { operation: operation::HEARTBEAT_REPLY, .. } => {}
            Heard::End => return told,
            heard => {
                let is_close = matches!(heard, Heard::Close { .. });
                told.push(heard);
                if is_close {
                    return told;
                }
            }
        }
    }
}

fn kick(code: i32, text: &str) -> Heard {
    let mut body = vec![0; 4 + text.len()];
    Kick { code, text }.write(&mut body);
    Heard::Packet { operation: operation::KICK, sequence: 0, body }
}

#[test]
fn a_full_room_is_told_to_who_would_be_one_too_many_and_a_reload_makes_room() {
    let (gateway, path) = limited("room_members_max = 2");
    let mut inside: Vec<_> = BOTH.map(|transport| marked(&gateway, transport, &format!("{transport:?}"), "r")).into();
    let mut late = marked(&gateway, Transport::Tcp, "late", "");
    assert_eq!(join(&mut late, "r"), JoinReply { status: JoinStatus::RoomFull, members: 0 });
    assert_eq!(join(&mut inside[0], "r"), JoinReply { status: JoinStatus::Joined, members: 2 }, "who is in it");
    let mut refused = Client::connect(gateway.ws(), Transport::WebSocket);
    refused.send(operation::AUTH, 1, br#"{"room_id":"r"}"#);
    assert_eq!(refused.close_code(), 4002);
    assert_eq!(gateway.counter("/rejects/room-full"), 1);
    assert_eq!(closes(&gateway, "room-full"), 1);
    assert_eq!(gateway.get("/v1/stats").json()["logins"]["room-full"], 1);
    reload(&gateway, &path, "room_members_max = 3");
    assert_eq!(join(&mut late, "r"), JoinReply { status: JoinStatus::Joined, members: 3 });
    gateway.push(&json!({ "target": { "room": "r" }, "operation": 1, "payload": { "text": "x" } }));
    inside.push(late);
    for mut client in inside {
        client.expect_push(1, "x");
    }
}

#[test]
fn a_client_that_says_too_much_is_told_4008_and_others_go_on() {
    let (gateway, path) = limited("client_packets_per_second_max = 5\nclient_packets_burst_max = 40");
    for (at, transport) in BOTH.into_iter().enumerate() {
        let mut other = marked(&gateway, transport, "other", "");
        let mut flood = marked(&gateway, transport, "flood", "");
        flood.flood(100, operation::HEARTBEAT, 1, b"");
        let mut expected = vec![kick(4008, "too-fast")];
        expected.extend((transport == Transport::WebSocket).then_some(Heard::Close { code: 4008 }));
        assert_eq!(told(&mut flood), expected);
        other.expect_quiet();
        assert_eq!(closes(&gateway, "too-fast"), at as u64 + 1);
    }
    let mut unmarked = Client::login(gateway.tcp(), Transport::Tcp, "{}");
    unmarked.flood(100, operation::HEARTBEAT, 1, b"");
    assert_eq!(told(&mut unmarked), [], "goim's plain close");
    reload(&gateway, &path, "client_bytes_per_second_max = 20000");
    let mut client = marked(&gateway, Transport::Tcp, "bytes", "");
    client.flood(100, operation::HEARTBEAT, 1, b"");
    client.send(1000, 1, &[b'x'; 4096]);
    (0..101).for_each(|_| assert!(matches!(client.hear(), Heard::Packet { .. })));
    client.flood(5, 1000, 1, &[b'x'; 4096]);
    let last =
        std::iter::from_fn(|| Some(client.hear())).find(|heard| !matches!(heard, Heard::Packet { sequence: 1, .. }));
    assert_eq!(last, Some(kick(4008, "too-fast")));
}

#[test]
fn a_network_that_is_full_gets_no_further_connection_until_one_ends() {
    let (gateway, path) = limited("network_connections_max = 3\nnetwork_v4_bits = 32");
    // Who only connects counts as well.
    let silent = connect(gateway.tcp());
    gateway.until_counter("/connections", 1);
    let mut inside = marked(&gateway, Transport::Tcp, "inside", "");
    let other = marked(&gateway, Transport::WebSocket, "other", "");
    assert!(ended(&mut connect(gateway.tcp())), "without a word");
    let answer = crate::support::exchange(gateway.ws(), "GET /sub HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: "), "{answer}");
    assert_eq!(closes(&gateway, "network-full"), 2);
    let elsewhere = elsewhere(gateway.tcp());
    until("a connection of another address", || gateway.counter("/connections") == 4);
    drop(silent);
    until("a place", || !ended_soon(gateway.tcp()));
    inside.expect_quiet();
    reload(&gateway, &path, "network_v4_bits = 32");
    let more: Vec<_> = (0..5).map(|n| marked(&gateway, Transport::Tcp, &format!("more{n}"), "")).collect();
    drop((inside, other, elsewhere, more));
    gateway.until_counter("/connections", 0);
    reload(&gateway, &path, "network_connections_max = 1\nnetwork_v4_bits = 32");
    drop(marked(&gateway, Transport::Tcp, "nothing is left of those before", ""));
}

/// A connection from another address of this machine.
fn elsewhere(to: std::net::SocketAddr) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let from: std::net::SocketAddr = "127.0.0.2:0".parse().expect("an address");
    socket.bind(&from.into()).expect("loopback is a network");
    socket.connect(&to.into()).expect("the listener listens");
    socket
}

/// Whether a new connection is ended without a word; one that is not asks for its login's answer.
fn ended_soon(address: std::net::SocketAddr) -> bool {
    let mut client = Client::connect(address, Transport::Tcp);
    // The write may find the connection ended already.
    let login = halley_protocol::client::packet(operation::AUTH, 1, b"{}");
    let _ = std::io::Write::write_all(&mut client.stream, &login);
    client.hear() == Heard::End
}

#[test]
fn a_room_is_pushed_to_as_fast_as_the_configuration_lets_it() {
    let (gateway, path) = limited("room_pushes_per_second_max = 1");
    let mut client = marked(&gateway, Transport::Tcp, "key", "live://1");
    let push = |uri: &str, body: &str, kind: &str| {
        gateway.call("POST", uri, &format!("Content-Type: {kind}\r\n"), body).status
    };
    let body = json!({ "target": { "room": "live://1" }, "operation": 1, "payload": { "text": "x" } }).to_string();
    assert_eq!(push("/v1/push", &body, "application/json"), 200);
    assert_eq!(push("/v1/push", &body, "application/json"), 429);
    assert_eq!(push("/goim/push/room?operation=1&type=live&room=1", "x", "text/plain"), 429);
    let mixed: Vec<Value> = ["live://1", "nobody is here"]
        .map(|room| json!({ "target": { "room": room }, "operation": 1, "payload": { "text": "x" } }))
        .into();
    let results = gateway.push(&json!(mixed));
    assert_eq!((&results[0]["error"]["code"], &results[1]["offline"]), (&json!("too-fast"), &json!(1)));
    client.expect_push(1, "x");
    client.expect_quiet();
    assert!(gateway.get("/metrics").body.contains("halley_pushes_too_fast_total 3"));
    reload(&gateway, &path, "room_pushes_per_second_max = 0");
    (0..20).for_each(|_| assert_eq!(push("/v1/push", &body, "application/json"), 200));
    (0..20).for_each(|_| client.expect_push(1, "x"));
}
