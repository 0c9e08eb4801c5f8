//! goim v2 as its clients and pushers know it: rules in our words, each tried against the live server.
// long: a list, and a short function for each of its rules

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use halley_protocol::websocket::client as websocket;
use serde_json::{Value, json};

use crate::runner::KEY;
use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, PATIENCE, Transport, connect};

/// One rule and how it is tried.
pub(crate) struct Rule {
    /// What it is about.
    pub(crate) part: &'static str,
    pub(crate) words: &'static str,
    check: fn(&Gateway),
}

pub(crate) const fn rule(part: &'static str, words: &'static str, check: fn(&Gateway)) -> Rule {
    Rule { part, words, check }
}

/// Every rule, in the order of the page.
pub(crate) const RULES: &[Rule] = &[
    rule(
        "packets",
        "A header is 16 bytes, big endian: packLen, headerLen 16, ver, op, seq; the login and heartbeat of goim's documents are answered byte for byte.",
        bytes,
    ),
    rule(
        "packets",
        "A packet above 4112 bytes, or one whose headerLen is not 16, ends the connection; one of 4112 is served.",
        lengths,
    ),
    rule("packets", "An error is told by the end of the connection alone: no packet precedes it on TCP.", silent_end),
    rule("login", "Op 7 is answered with op 8: ver and seq as sent, no body.", login_reply),
    rule(
        "login",
        "Every field of the login may be missing, unknown ones are ignored, names match in any case.",
        login_fields,
    ),
    rule(
        "login",
        "A login that is no JSON, is empty, or has a field of a wrong type ends the connection without a reply.",
        bad_logins,
    ),
    rule("login", "Without a key every connection gets one of its own.", made_up_keys),
    rule("login", "Before the login every other operation is ignored.", before_login),
    rule("login", "Who has not logged in after five seconds is disconnected.", login_deadline),
    rule(
        "heartbeat",
        "Op 2 is answered with op 3: ver and seq as sent, and four bytes with the number of members of the room.",
        heartbeat,
    ),
    rule("heartbeat", "A room that was left keeps its last count; without a room ever the count is 0.", kept_count),
    rule("heartbeat", "Op 2 alone moves the deadline; other packets do not.", deadline),
    rule(
        "rooms",
        "Op 12 moves to the named room, or out of any with an empty body; op 13 echoes the body.",
        change_room,
    ),
    rule("rooms", "A room's name is taken literally, `type://room` by custom.", literal_rooms),
    rule("accepts", "Op 14 adds and op 16 removes operations; op 15 and 17 echo the body.", subscribe),
    rule("accepts", "One bad number, a blank among them, makes a list void; it is echoed all the same.", bad_lists),
    rule(
        "accepts",
        "Pushes to keys, members and all come only to who accepts their operation; pushes to rooms to all members.",
        accepts,
    ),
    rule("operations", "Any other operation is answered with itself: ver and seq as sent, no body.", unknown),
    rule(
        "operations",
        "Op 3 from a client is answered like a heartbeat; op 9 with nothing on TCP, and with itself on WebSocket.",
        corners,
    ),
    rule(
        "pushes",
        "On TCP a push is a plain packet: ver 1, its operation, seq 0; several follow each other, never inside op 9.",
        tcp_pushes,
    ),
    rule(
        "pushes",
        "On WebSocket a push is one unmasked binary message: an outer header with op 9, ver 1, seq 0, and then its packets.",
        websocket_pushes,
    ),
    rule(
        "websocket",
        "The path is `/sub`; the answer is 101 with exactly Upgrade, Connection and Sec-WebSocket-Accept.",
        upgrade,
    ),
    rule("websocket", "A message holds one packet; bytes behind it are ignored.", trailing),
    rule(
        "http",
        "`POST /goim/push/keys`, `/mids`, `/room`, `/all` answer `{\"code\":0,\"message\":\"\"}` and take the body as the message, any bytes.",
        push_calls,
    ),
    rule("http", "Lists are repeated parameters; a comma is no separator.", repeated),
    rule(
        "http",
        "A parameter that is missing or no number is HTTP 400 with code -400; no keys at all is HTTP 200 with code -400; members that nobody is are code 0.",
        http_errors,
    ),
    rule(
        "http",
        "`GET /goim/online/top`, `/room`, `/total` tell members by room, by named room, and connections and addresses.",
        online,
    ),
    rule(
        "http",
        "`GET /goim/nodes/weighted` tells domain, ports, heartbeat, nodes and backoff; `/instances` the instances.",
        nodes,
    ),
    rule("http", "An unknown path is 404.", not_found),
];

/// Runs every rule at once against one server; what went wrong.
pub(crate) fn run() -> Vec<String> {
    // A third listener with a short deadline for heartbeats.
    let third =
        "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"tcp\"\nlogin = \"open\"\nheartbeat_ms_max = 3000\n";
    run_all(&Gateway::start(&format!("{OPEN}{LISTENERS}{third}")), RULES)
}

/// Runs rules at once; what went wrong.
pub(crate) fn run_all(gateway: &Gateway, rules: &[Rule]) -> Vec<String> {
    std::thread::scope(|scope| {
        let running: Vec<_> = rules.iter().map(|rule| (rule, scope.spawn(|| (rule.check)(gateway)))).collect();
        let ended = running.into_iter().filter_map(|(rule, thread)| thread.join().err().map(|_| rule));
        ended.map(|rule| format!("{}: {}", rule.part, rule.words)).collect()
    })
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

fn address(gateway: &Gateway, transport: Transport) -> SocketAddr {
    if transport == Transport::Tcp { gateway.tcp() } else { gateway.ws() }
}

fn login(gateway: &Gateway, transport: Transport, login: &Value) -> Client {
    Client::login(address(gateway, transport), transport, &login.to_string())
}

/// A packet with every field as given.
pub(crate) fn packet(version: i16, operation: i32, sequence: i32, body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(16 + body.len()).expect("small");
    [
        &length.to_be_bytes()[..],
        &16_i16.to_be_bytes(),
        &version.to_be_bytes(),
        &operation.to_be_bytes(),
        &sequence.to_be_bytes(),
        body,
    ]
    .concat()
}

/// The bytes that come next, as many as these.
pub(crate) fn expect_bytes(stream: &mut TcpStream, expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).expect("bytes");
    assert_eq!(got, expected);
}

fn raw(gateway: &Gateway, login: &Value) -> TcpStream {
    let mut stream = connect(gateway.tcp());
    stream.write_all(&packet(1, 7, 1, login.to_string().as_bytes())).expect("taken");
    expect_bytes(&mut stream, &packet(1, 8, 1, b""));
    stream
}

/// A WebSocket at this address, whose answer has been read.
pub(crate) fn upgraded(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(websocket::request("localhost", "/sub", KEY).as_bytes()).expect("taken");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&head), expected);
    stream
}

fn push(gateway: &Gateway, uri: &str, body: &str) {
    let answer = gateway.curl(uri, body);
    assert_eq!((answer.status, &*answer.body), (200, r#"{"code":0,"message":""}"#), "{uri}");
}

fn ends(client: &mut Client) {
    assert_eq!(client.hear(), Heard::End);
}

fn bytes(gateway: &Gateway) {
    let mut stream = connect(gateway.tcp());
    let json = r#"{"mid":123, "room_id":"live://1000", "platform":"web", "accepts":[1000,1001,1002]}"#;
    let head = [0, 0, 0, 0x62, 0, 0x10, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1];
    stream.write_all(&[&head, json.as_bytes()].concat()).expect("taken");
    expect_bytes(&mut stream, &[0, 0, 0, 0x10, 0, 0x10, 0, 1, 0, 0, 0, 8, 0, 0, 0, 1]);
    stream.write_all(&[0, 0, 0, 0x10, 0, 0x10, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1]).expect("taken");
    expect_bytes(&mut stream, &[0, 0, 0, 0x14, 0, 0x10, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1]);
    stream.write_all(&packet(1, 0x0c, 2, b"live://2000")).expect("taken");
    expect_bytes(&mut stream, b"\x00\x00\x00\x1b\x00\x10\x00\x01\x00\x00\x00\x0d\x00\x00\x00\x02live://2000");
    stream.write_all(&packet(1, 0x0e, 3, b"1000,1001")).expect("taken");
    expect_bytes(&mut stream, b"\x00\x00\x00\x19\x00\x10\x00\x01\x00\x00\x00\x0f\x00\x00\x00\x031000,1001");
}

fn lengths(gateway: &Gateway) {
    let mut served = raw(gateway, &json!({}));
    served.write_all(&packet(1, 12, 2, &[b'r'; 16])).expect("taken");
    expect_bytes(&mut served, &packet(1, 13, 2, &[b'r'; 16]));
    served.write_all(&packet(1, 14, 3, &[b'1'; 4096])).expect("taken");
    expect_bytes(&mut served, &packet(1, 15, 3, &[b'1'; 4096]));
    for (at, value) in [(0..4, 4113_i32.to_be_bytes().to_vec()), (4..6, vec![0, 15]), (4..6, vec![0, 17])] {
        let mut client = login(gateway, Transport::Tcp, &json!({}));
        let mut bad = packet(1, 2, 2, b"");
        bad[at].copy_from_slice(&value);
        client.write(&bad);
        ends(&mut client);
    }
}

fn silent_end(gateway: &Gateway) {
    let mut stream = raw(gateway, &json!({}));
    stream.write_all(&[0xff; 16]).expect("taken");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
    assert_eq!(rest, b"");
}

fn login_reply(gateway: &Gateway) {
    let mut stream = connect(gateway.tcp());
    stream.write_all(&packet(-3, 7, i32::MIN, b"{}")).expect("taken");
    expect_bytes(&mut stream, &packet(-3, 8, i32::MIN, b""));
}

fn login_fields(gateway: &Gateway) {
    for json in [
        "{}",
        r#"{"mid":5}"#,
        r#"{"unknown":[{}],"platform":"x"}"#,
        r#"{"MID":6,"Room_ID":"fields://1","ACCEPTS":[77]}"#,
    ] {
        let mut client = Client::login(gateway.tcp(), Transport::Tcp, json);
        if json.contains("MID") {
            push(gateway, "/goim/push/mids?operation=77&mids=6", "any case");
            client.expect_push(77, "any case");
        }
    }
}

fn bad_logins(gateway: &Gateway) {
    for json in ["", "null and void", "[]", "{", r#"{"mid":"123"}"#, r#"{"accepts":"1"}"#, r#"{"key":1}"#] {
        let mut client = Client::connect(gateway.tcp(), Transport::Tcp);
        client.send(7, 1, json.as_bytes());
        assert_eq!(client.hear(), Heard::End, "{json}");
    }
}

fn made_up_keys(gateway: &Gateway) {
    let mut clients = [0; 3].map(|_| login(gateway, Transport::Tcp, &json!({ "mid": 900, "key": "", "accepts": [5] })));
    push(gateway, "/goim/push/mids?operation=5&mids=900", "to each");
    for client in &mut clients {
        client.expect_push(5, "to each");
    }
}

fn before_login(gateway: &Gateway) {
    for transport in BOTH {
        let mut client = Client::connect(address(gateway, transport), transport);
        for operation in [0, 2, 4, 9, 12, 14, 16, 1000, -1] {
            client.send(operation, 9, b"early");
        }
        client.send(7, 10, b"{}");
        client.expect(8, 10, b"");
    }
}

fn login_deadline(gateway: &Gateway) {
    let since = Instant::now();
    let mut client = Client::connect(gateway.tcp(), Transport::Tcp);
    client.send(2, 1, b"");
    ends(&mut client);
    assert!(since.elapsed() >= Duration::from_millis(4500), "{:?}", since.elapsed());
}

fn heartbeat(gateway: &Gateway) {
    for (at, transport) in BOTH.into_iter().enumerate() {
        let room = json!({ "room_id": format!("beat://{at}") });
        let mut client = login(gateway, transport, &room);
        let _other = login(gateway, Transport::Tcp, &room);
        until_count(&mut client, 2);
    }
    let mut stream = raw(gateway, &json!({}));
    stream.write_all(&packet(9, 2, -7, b"discarded")).expect("taken");
    expect_bytes(&mut stream, &packet(9, 3, -7, &[0; 4]));
}

/// Heartbeats until the reply tells this count: counts of all shards are brought together once a second.
fn until_count(client: &mut Client, count: u32) {
    let since = Instant::now();
    while client.ask(2, b"") != count.to_be_bytes() {
        assert!(since.elapsed() < PATIENCE, "never {count}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kept_count(gateway: &Gateway) {
    let mut client = login(gateway, Transport::Tcp, &json!({}));
    assert_eq!(client.ask(2, b""), [0; 4]);
    client.ask(12, b"kept://1");
    until_count(&mut client, 1);
    client.ask(12, b"");
    assert_eq!(client.ask(2, b""), [0, 0, 0, 1]);
}

fn deadline(gateway: &Gateway) {
    let join = || Client::login(gateway.listeners[2], Transport::Tcp, "{}");
    let (mut beating, mut talking) = (join(), join());
    let (since, mut beat, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while since.elapsed() < Duration::from_secs(5) {
        let _ = beating.stream.write_all(&packet(1, 2, 1, b""));
        let _ = talking.stream.write_all(&packet(1, 1000, 1, b""));
        std::thread::sleep(Duration::from_millis(300));
        longest = longest.max(beat.elapsed());
        beat = Instant::now();
    }
    while let Heard::Packet { operation, .. } = talking.hear() {
        assert_eq!(operation, 1000);
    }
    // This process may have been held up for longer than the deadline itself.
    if longest < Duration::from_secs(2) {
        beating.send(1001, 2, b"");
        while beating.hear() != (Heard::Packet { operation: 1001, sequence: 2, body: Vec::new() }) {}
    }
}

fn change_room(gateway: &Gateway) {
    for (at, transport) in BOTH.into_iter().enumerate() {
        let mut client = login(gateway, transport, &json!({ "room_id": format!("from://{at}") }));
        let to = format!("to://{at}");
        assert_eq!(client.ask(12, to.as_bytes()), to.as_bytes());
        push(gateway, &format!("/goim/push/room?operation=1&type=from&room={at}"), "missed");
        push(gateway, &format!("/goim/push/room?operation=1&type=to&room={at}"), "got");
        client.expect_push(1, "got");
        assert_eq!(client.ask(12, b""), b"");
        push(gateway, &format!("/goim/push/room?operation=1&type=to&room={at}"), "missed");
        client.expect_quiet();
    }
}

fn literal_rooms(gateway: &Gateway) {
    let mut exact = login(gateway, Transport::Tcp, &json!({ "room_id": "a b://%41/?#" }));
    let mut other = login(gateway, Transport::Tcp, &json!({ "room_id": "A B://A/?#" }));
    push(gateway, "/goim/push/room?operation=1&type=a%20b&room=%2541/%3f%23", "literally");
    exact.expect_push(1, "literally");
    other.expect_quiet();
}

fn subscribe(gateway: &Gateway) {
    for (at, transport) in BOTH.into_iter().enumerate() {
        let mut client = login(gateway, transport, &json!({ "key": format!("subscribe-{at}") }));
        let uri = |operation| format!("/goim/push/keys?operation={operation}&keys=subscribe-{at}");
        push(gateway, &uri(1000), "too early");
        client.expect_quiet();
        assert_eq!(client.ask(14, b"1000,-5"), b"1000,-5");
        push(gateway, &uri(1000), "one");
        push(gateway, &uri(-5), "two");
        client.expect_push(1000, "one");
        client.expect_push(-5, "two");
        assert_eq!(client.ask(16, b"1000"), b"1000");
        push(gateway, &uri(1000), "too late");
        client.expect_quiet();
        assert_eq!(client.ask(14, b""), b"");
    }
}

fn bad_lists(gateway: &Gateway) {
    let mut client = login(gateway, Transport::Tcp, &json!({ "key": "lists" }));
    for list in ["1000, 1001", "1000,x", "1000,,1001", "1000,2147483648"] {
        assert_eq!(client.ask(14, list.as_bytes()), list.as_bytes());
    }
    push(gateway, "/goim/push/keys?operation=1000&keys=lists", "void");
    client.expect_quiet();
}

fn accepts(gateway: &Gateway) {
    let mut client = login(
        gateway,
        Transport::WebSocket,
        &json!({ "mid": 42, "key": "accepts", "room_id": "accepts://1", "accepts": [2000] }),
    );
    for target in ["keys?keys=accepts&operation", "mids?mids=42&operation", "all?operation"] {
        push(gateway, &format!("/goim/push/{target}=2001"), "unwanted");
        push(gateway, &format!("/goim/push/{target}=2000"), "wanted");
        client.expect_push(2000, "wanted");
    }
    push(gateway, "/goim/push/room?type=accepts&room=1&operation=2001", "to the room");
    client.expect_push(2001, "to the room");
}

fn unknown(gateway: &Gateway) {
    for transport in BOTH {
        let mut client = login(gateway, transport, &json!({}));
        for operation in [0, 1, 4, 5, 6, 7, 8, 10, 11, 13, 15, 17, 18, 999, 1000, i32::MAX, -1, i32::MIN] {
            client.send(operation, operation, b"body");
            client.expect(operation, operation, b"");
        }
    }
    let mut stream = raw(gateway, &json!({}));
    stream.write_all(&packet(77, 18, 5, b"body")).expect("taken");
    expect_bytes(&mut stream, &packet(77, 18, 5, b""));
}

fn corners(gateway: &Gateway) {
    let mut stream = raw(gateway, &json!({}));
    stream.write_all(&packet(1, 3, 5, b"x")).expect("taken");
    expect_bytes(&mut stream, &packet(1, 3, 5, &[0; 4]));
    stream.write_all(&[packet(1, 9, 6, b"x"), packet(1, 2, 7, b"")].concat()).expect("taken");
    expect_bytes(&mut stream, &packet(1, 3, 7, &[0; 4]));
    let mut stream = upgraded(gateway.ws());
    let say = |stream: &mut TcpStream, packet: &[u8]| {
        let mut out = Vec::new();
        websocket::frame(&mut out, true, halley_protocol::websocket::Opcode::Binary, [1, 2, 3, 4], packet);
        stream.write_all(&out).expect("taken");
    };
    say(&mut stream, &packet(1, 7, 1, b"{}"));
    expect_bytes(&mut stream, &[&[0x82, 16][..], &packet(1, 8, 1, b"")].concat());
    say(&mut stream, &packet(1, 9, 6, b"x"));
    expect_bytes(&mut stream, &[&[0x82, 16][..], &packet(1, 9, 6, b"")].concat());
}

fn tcp_pushes(gateway: &Gateway) {
    let mut stream = raw(gateway, &json!({ "key": "plain", "room_id": "plain://1", "accepts": [1000] }));
    push(gateway, "/goim/push/keys?operation=1000&keys=plain", r#"{"test":1}"#);
    expect_bytes(&mut stream, b"\x00\x00\x00\x1a\x00\x10\x00\x01\x00\x00\x03\xe8\x00\x00\x00\x00{\"test\":1}");
    for n in 0..20 {
        push(gateway, "/goim/push/room?operation=1001&type=plain&room=1", &n.to_string());
    }
    for n in 0..20 {
        expect_bytes(&mut stream, &packet(1, 1001, 0, n.to_string().as_bytes()));
    }
}

fn websocket_pushes(gateway: &Gateway) {
    let mut stream = upgraded(gateway.ws());
    let mut out = Vec::new();
    let login = packet(1, 7, 1, br#"{"key":"framed","accepts":[1000]}"#);
    websocket::frame(&mut out, true, halley_protocol::websocket::Opcode::Binary, [1, 2, 3, 4], &login);
    stream.write_all(&out).expect("taken");
    expect_bytes(&mut stream, &[&[0x82, 16][..], &packet(1, 8, 1, b"")].concat());
    push(gateway, "/goim/push/keys?operation=1000&keys=framed", r#"{"test":1}"#);
    let inner = packet(1, 1000, 0, br#"{"test":1}"#);
    expect_bytes(&mut stream, &[&[0x82, 0x2a][..], &packet(1, 9, 0, &inner)].concat());
}

fn upgrade(gateway: &Gateway) {
    drop(upgraded(gateway.ws()));
}

fn trailing(gateway: &Gateway) {
    let mut client = login(gateway, Transport::WebSocket, &json!({}));
    let two = [packet(1, 18, 5, b""), packet(1, 19, 6, b"")].concat();
    client.frame(halley_protocol::websocket::Opcode::Binary, &two);
    client.expect(18, 5, b"");
    client.expect_quiet();
}

fn push_calls(gateway: &Gateway) {
    let mut client = login(
        gateway,
        Transport::Tcp,
        &json!({ "mid": 71, "key": "calls", "room_id": "calls://1", "accepts": [3000] }),
    );
    for target in ["keys?keys=calls", "mids?mids=71", "room?type=calls&room=1", "all?speed=7"] {
        push(gateway, &format!("/goim/push/{target}&operation=3000"), "<&\u{0}\u{e9}\n");
        client.expect_push(3000, "<&\u{0}\u{e9}\n");
    }
}

fn repeated(gateway: &Gateway) {
    let mut clients = ["twice-a", "twice-b"]
        .map(|key| login(gateway, Transport::Tcp, &json!({ "key": key, "mid": key.len(), "accepts": [0] })));
    push(gateway, "/goim/push/keys?keys=twice-a&keys=twice-b", "both");
    for client in &mut clients {
        client.expect_push(0, "both");
    }
    push(gateway, "/goim/push/keys?keys=twice-a,twice-b", "neither");
    assert_eq!(gateway.curl("/goim/push/mids?mids=1,2", "x").status, 400);
    clients.iter_mut().for_each(Client::expect_quiet);
}

fn http_errors(gateway: &Gateway) {
    for uri in [
        "/goim/push/room?operation=1&type=a",
        "/goim/push/room?operation=0&type=a&room=b",
        "/goim/push/room?type=a&room=b",
        "/goim/push/all",
        "/goim/push/all?operation=x",
        "/goim/push/keys?operation=2147483648&keys=a",
    ] {
        let answer = gateway.curl(uri, "x");
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(-400)), "{uri}");
    }
    let answer = gateway.curl("/goim/push/keys?operation=1", "x");
    assert_eq!((answer.status, &answer.json()["code"]), (200, &json!(-400)));
    push(gateway, "/goim/push/mids?operation=1&mids=123456789", "nobody");
    push(gateway, "/goim/push/keys?operation=1&keys=nobody-has-it", "nobody");
}

fn online(gateway: &Gateway) {
    let _clients = [0; 2].map(|_| login(gateway, Transport::Tcp, &json!({ "room_id": "online://7" })));
    let since = Instant::now();
    loop {
        let room = gateway.get("/goim/online/room?type=online&rooms=7&rooms=8").json();
        let top = gateway.get("/goim/online/top?type=online&limit=5").json();
        let right = room["data"] == json!({ "7": 2, "8": 0 }) && top["data"] == json!([{ "room_id": "7", "count": 2 }]);
        if right {
            break;
        }
        assert!(since.elapsed() < PATIENCE, "{room} {top}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let total = gateway.get("/goim/online/total").json();
    assert!(total["code"] == 0 && total["data"]["conn_count"].as_u64() >= Some(2), "{total}");
    assert_eq!(total["data"]["ip_count"], 1, "{total}");
}

fn nodes(gateway: &Gateway) {
    let weighted = gateway.get("/goim/nodes/weighted?platform=web").json();
    let data = &weighted["data"];
    assert_eq!(weighted["code"], 0);
    assert_eq!(data["tcp_port"], gateway.tcp().port());
    assert_eq!(data["ws_port"], gateway.ws().port());
    assert_eq!((&data["heartbeat"], &data["heartbeat_max"]), (&json!(240), &json!(2)));
    assert!(data["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "{weighted}");
    assert_eq!(data["backoff"], json!({ "max_delay": 300, "base_delay": 3, "factor": 1.8, "jitter": 0.3 }));
    let instances = gateway.get("/goim/nodes/instances").json();
    assert_eq!(instances["code"], 0);
    assert_eq!(instances["data"][0]["appid"], "goim.comet", "{instances}");
}

fn not_found(gateway: &Gateway) {
    assert_eq!(gateway.curl("/goim/push/nobody", "x").status, 404);
    assert_eq!(gateway.get("/goim").status, 404);
}
