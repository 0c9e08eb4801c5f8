//! Who receives what: both transports, all targets, several rooms per connection.

use std::net::SocketAddr;

use halley_protocol::halley::{JoinReply, JoinStatus, LeaveStatus};
use halley_protocol::operation;
use serde_json::json;

use crate::support::{Client, Gateway, Heard, Transport};

/// One client of each transport: member 7 with key `tcp`, member 8 with key `ws`, both in `live://1`.
fn pair(gateway: &Gateway) -> [Client; 2] {
    let login = |member: i64, key: &str| {
        format!(r#"{{"mid":{member},"key":"{key}","room_id":"live://1","accepts":[1000],"halley":1}}"#)
    };
    [
        Client::login(gateway.tcp(), Transport::Tcp, &login(7, "tcp")),
        Client::login(gateway.ws(), Transport::WebSocket, &login(8, "ws")),
    ]
}

fn push(gateway: &Gateway, target: &serde_json::Value, text: &str) -> serde_json::Value {
    let results = gateway.push(&json!({ "target": target, "operation": 1000, "payload": { "text": text } }));
    results[0].clone()
}

#[test]
fn each_target_reaches_its_clients_on_both_transports_and_nobody_else() {
    let gateway = Gateway::open();
    let [mut tcp, mut ws] = pair(&gateway);
    let dispatched = |n: u32, offline: u32| json!({ "dispatched": n, "offline": offline });

    assert_eq!(push(&gateway, &json!({ "keys": ["tcp", "nobody"] }), "to the key"), dispatched(1, 1));
    tcp.expect_push(1000, "to the key");
    ws.expect_quiet();
    assert_eq!(push(&gateway, &json!({ "members": [8] }), "to the member"), dispatched(1, 0));
    ws.expect_push(1000, "to the member");
    tcp.expect_quiet();
    assert_eq!(push(&gateway, &json!({ "room": "live://1" }), "to the room"), dispatched(2, 0));
    assert_eq!(push(&gateway, &json!({ "room": "live://2" }), "to nobody")["dispatched"], 0);
    assert_eq!(push(&gateway, &json!({ "all": true }), "to all"), dispatched(2, 0));
    for client in [&mut tcp, &mut ws] {
        // Nothing is promised about the order of a room and a broadcast.
        let mut heard = [client.hear(), client.hear()];
        heard.sort_by_key(|heard| format!("{heard:?}").len());
        let push = |text: &str| Heard::Packet { operation: 1000, sequence: 0, body: text.into() };
        assert_eq!(heard, [push("to all"), push("to the room")]);
        client.expect_quiet();
    }
    let stats = gateway.settled();
    assert_eq!(gateway.counter("/sent"), 6, "{stats}");
    drop((tcp, ws));
    gateway.stop();
}

#[test]
fn operations_are_filtered_by_what_a_client_accepts_but_not_in_rooms() {
    let gateway = Gateway::open();
    let [mut tcp, mut ws] = pair(&gateway);
    let push = |target: &serde_json::Value, text: &str| {
        gateway.push(&json!({ "target": target, "operation": 2000, "payload": { "text": text } }))
    };
    push(&json!({ "all": true }), "not accepted");
    push(&json!({ "room": "live://1" }), "in the room");
    tcp.expect_push(2000, "in the room");
    ws.expect_push(2000, "in the room");
    assert_eq!(tcp.ask(operation::SUBSCRIBE, b"2000,2001"), b"2000,2001");
    push(&json!({ "all": true }), "accepted");
    tcp.expect_push(2000, "accepted");
    ws.expect_quiet();
    assert_eq!(tcp.ask(operation::UNSUBSCRIBE, b"2000"), b"2000");
    push(&json!({ "keys": ["tcp"] }), "no longer");
    tcp.expect_quiet();
}

#[test]
fn a_connection_may_be_in_several_rooms_and_leaves_each_by_itself() {
    let gateway = Gateway::open();
    let [mut tcp, mut ws] = pair(&gateway);
    for client in [&mut tcp, &mut ws] {
        for room in ["chat://a", "chat://b"] {
            let reply = JoinReply::parse(&client.ask(operation::JOIN, room.as_bytes())).expect("a join reply");
            assert_eq!(reply.status, JoinStatus::Joined, "{room}");
        }
    }
    for room in ["live://1", "chat://a", "chat://b"] {
        assert_eq!(push(&gateway, &json!({ "room": room }), room)["dispatched"], 2);
        tcp.expect_push(1000, room);
        ws.expect_push(1000, room);
    }
    let leave = |client: &mut Client, room: &str| LeaveStatus::parse(&client.ask(operation::LEAVE, room.as_bytes()));
    assert_eq!(leave(&mut tcp, "chat://a"), Some(LeaveStatus::Left));
    assert_eq!(leave(&mut tcp, "chat://a"), Some(LeaveStatus::NotMember));
    push(&gateway, &json!({ "room": "chat://a" }), "after the leave");
    ws.expect_push(1000, "after the leave");
    tcp.expect_quiet();
    assert_eq!(tcp.ask(operation::CHANGE_ROOM, b"live://2"), b"live://2");
    push(&gateway, &json!({ "room": "live://1" }), "the old room");
    ws.expect_push(1000, "the old room");
    for room in ["live://2", "chat://b"] {
        push(&gateway, &json!({ "room": room }), room);
        tcp.expect_push(1000, room);
    }
    tcp.expect_quiet();
}

#[test]
fn messages_of_a_room_arrive_in_order_and_once() {
    const MESSAGES: usize = 500;
    let gateway = Gateway::open();
    let mut clients = pair(&gateway);
    let pushes: Vec<_> = (0..MESSAGES)
        .map(|n| json!({ "target": { "room": "live://1" }, "operation": 1000, "payload": { "json": n } }))
        .collect();
    gateway.push(&json!(pushes));
    for client in &mut clients {
        for n in 0..MESSAGES {
            client.expect_push(1000, &n.to_string());
        }
        client.expect_quiet();
    }
    gateway.settled();
    assert_eq!(gateway.counter("/sent"), 2 * MESSAGES as u64);
}

#[test]
fn an_independent_websocket_client_logs_in_and_receives() {
    let gateway = Gateway::open();
    let stream = crate::support::connect(gateway.ws());
    let (mut socket, response) = tungstenite::client(format!("ws://{}/sub", gateway.ws()), stream).expect("an upgrade");
    assert_eq!(response.status(), 101);
    let send = |socket: &mut tungstenite::WebSocket<_>, packet: Vec<u8>| {
        socket.send(tungstenite::Message::binary(packet)).expect("a message out");
    };
    send(&mut socket, halley_protocol::client::packet(operation::AUTH, 5, br#"{"mid":3,"accepts":[1000]}"#));
    let reply = socket.read().expect("a reply").into_data();
    assert_eq!(reply, halley_protocol::client::packet(operation::AUTH_REPLY, 5, b""));
    push(&gateway, &json!({ "members": [3] }), r#"{"test":1}"#);
    let pushed = socket.read().expect("a push").into_data();
    // The example of docs/protocol.md, without its frame.
    let outer = [0, 0, 0, 0x2a, 0, 0x10, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0];
    let inner = [0, 0, 0, 0x1a, 0, 0x10, 0, 1, 0, 0, 3, 0xe8, 0, 0, 0, 0];
    assert_eq!(pushed, [&outer[..], &inner, br#"{"test":1}"#].concat());
    socket.close(None).expect("a close out");
    assert!(matches!(socket.read(), Ok(tungstenite::Message::Close(_))), "the close is answered");
    gateway.until_counter("/connections", 0);
}

#[test]
fn a_listener_on_ipv6_serves() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6 loopback");
        return;
    }
    let gateway = Gateway::start(
        "connections_max = 16\nshards = 1\n[api]\nbind = \"[::1]:0\"\nauth = \"none\"\n\
         [[listener]]\nbind = \"[::1]:0\"\nlogin = \"open\"\n[[listener]]\nbind = \":0\"\nlogin = \"open\"\n",
    );
    let [alone, dual] = [0, 1].map(|at| gateway.listeners[at].port());
    for (address, key) in [
        (SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, alone)), "six"),
        (SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, dual)), "dual six"),
        (SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, dual)), "dual four"),
    ] {
        let mut client = Client::login(address, Transport::Tcp, &format!(r#"{{"key":"{key}","accepts":[1]}}"#));
        let pushed = gateway.push(&json!({ "target": { "keys": [key] }, "operation": 1, "payload": { "text": key } }));
        assert_eq!(pushed[0]["dispatched"], 1);
        client.expect_push(1, key);
        let peer = gateway.get(&format!("/v1/connections/{}", key.replace(' ', "%20"))).json();
        let peer = peer["connections"][0]["peer"].as_str().expect("a peer").to_owned();
        assert_eq!(peer, client.stream.local_addr().expect("an address").to_string());
    }
}
