//! goim v1 as its clients and pushers know it: rules in our words, each tried against the live server with bytes that no
//! part of the server has made.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::goim::{Rule, expect_bytes, packet, rule, run_all, upgraded};
use crate::support::{Client, Gateway, OPEN, PATIENCE, Transport, connect};

/// Every rule, in the order of the page.
pub(crate) const RULES: &[Rule] = &[
    rule("packets", "The header is that of goim v2; login and heartbeat are answered byte for byte.", bytes),
    rule(
        "packets",
        "A packet above 1040 bytes, or one whose headerLen is not 16, ends the connection without a word; one of 1040 is served.",
        lengths,
    ),
    rule("login", "The first packet is op 7; any other ends the connection.", first_packet),
    rule(
        "login",
        "The body is a token: a decimal number is that user, in room 1; anything else is let in as nobody, in no room.",
        tokens,
    ),
    rule("login", "One user may be connected several times, and a push to the user comes to each.", several),
    rule("login", "Who has not logged in after five seconds is disconnected.", login_deadline),
    rule(
        "heartbeat",
        "Op 2 is answered with op 3, without a count: with no body on TCP, and with the request's body on WebSocket.",
        heartbeat,
    ),
    rule("heartbeat", "Op 2 alone moves the deadline; other packets do not.", deadline),
    rule(
        "operations",
        "Op 4 is answered with op 5 and its own body, op 254 with op 255 and `{\"test\":\"come on\"}`; any other ends the connection.",
        operations,
    ),
    rule(
        "pushes",
        "A push has ver 0, op 5, seq 0 and the body as it was, whatever its operation; none is filtered.",
        pushes,
    ),
    rule("pushes", "On TCP pushes are plain packets, one behind the other.", tcp_pushes),
    rule(
        "pushes",
        "On WebSocket a push is one unmasked binary message without an outer header; of a room it may hold several packets.",
        websocket_pushes,
    ),
    rule(
        "rooms",
        "Room n is the room named `n`; clients of goim v2 in it get what is pushed, and keep their own words.",
        shared_room,
    ),
    rule("websocket", "The path is `/sub`, and the answer that of goim v2.", upgrade),
    rule(
        "http",
        "`POST /1/push`, `/1/pushs`, `/1/push/room`, `/1/push/all` answer `{\"ret\":1}`; the message is the body, or the JSON of `m` as written.",
        push_calls,
    ),
    rule(
        "http",
        "What cannot be read is `{\"ret\":65535}` with status 200; a wrong method is 405, `Method Not Allowed`.",
        http_errors,
    ),
    rule(
        "http",
        "`GET /1/count` tells members by room and connections by server; `GET /monitor/ping` is `ok`.",
        counts,
    ),
];

/// Runs every rule at once against one server; what went wrong.
pub(crate) fn run() -> Vec<String> {
    let listener = |keys: &str| format!("[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n{keys}\n");
    let v1 = "dialect = \"goim-v1\"\n";
    let configuration = [
        OPEN.into(),
        "[api_v1]\nbind = \"127.0.0.1:0\"\nauth = \"none\"\n".into(),
        listener("transport = \"tcp\""),
        listener("transport = \"ws\""),
        listener(v1),
        listener(&format!("transport = \"ws\"\n{v1}")),
        listener(&format!("heartbeat_ms_max = 3000\n{v1}")),
    ];
    run_all(&Gateway::start(&configuration.concat()), RULES)
}

const BOTH: [Transport; 2] = [Transport::Tcp, Transport::WebSocket];

/// A client that says and hears bytes.
struct Raw {
    stream: TcpStream,
    websocket: bool,
}

impl Raw {
    fn connect(gateway: &Gateway, transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self { stream: connect(gateway.listeners[2]), websocket: false },
            Transport::WebSocket => Self { stream: upgraded(gateway.listeners[3]), websocket: true },
        }
    }

    /// Logs in and hears that it is in.
    fn login(gateway: &Gateway, transport: Transport, token: &str) -> Self {
        let mut raw = Self::connect(gateway, transport);
        raw.say(&packet(1, 7, 1, token.as_bytes()));
        raw.expect(&packet(1, 8, 1, b""));
        raw
    }

    /// Says a packet, on WebSocket in a frame whose mask changes nothing.
    fn say(&mut self, packet: &[u8]) {
        let mut bytes = Vec::new();
        if self.websocket {
            bytes.push(0x82);
            match u8::try_from(packet.len()) {
                Ok(short) if short < 126 => bytes.push(0x80 | short),
                _ => {
                    bytes.push(0xfe);
                    bytes.extend(u16::try_from(packet.len()).expect("short").to_be_bytes());
                }
            }
            bytes.extend([0; 4]);
        }
        bytes.extend(packet);
        self.stream.write_all(&bytes).expect("taken");
    }

    /// The next thing is this packet, on WebSocket in a frame of its own.
    fn expect(&mut self, packet: &[u8]) {
        if self.websocket {
            assert_eq!(self.frame(), packet);
        } else {
            expect_bytes(&mut self.stream, packet);
        }
    }

    /// The payload of the next frame, which is binary, whole and not masked.
    fn frame(&mut self) -> Vec<u8> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).expect("a frame");
        assert_eq!(head[0], 0x82, "binary and whole");
        let bytes = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).expect("a length");
                usize::from(u16::from_be_bytes(length))
            }
            short => {
                assert!(short < 126, "not masked, and no longer than a test says");
                usize::from(short)
            }
        };
        let mut payload = vec![0; bytes];
        self.stream.read_exact(&mut payload).expect("a payload");
        payload
    }

    /// The next packet, or on WebSocket the next message.
    fn next(&mut self) -> Vec<u8> {
        if self.websocket {
            return self.frame();
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a packet");
        let mut rest = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length") - 4];
        self.stream.read_exact(&mut rest).expect("the packet's rest");
        [&length[..], &rest].concat()
    }

    /// Pushes with these bodies come. Whoever has a number is in room 1, to which other rules push as well.
    fn expect_pushes(&mut self, expected: &[&str]) {
        let mut heard = Vec::new();
        while heard.len() < expected.len() {
            heard.extend(bodies(&self.next()).into_iter().filter(|body| expected.contains(&&**body)));
        }
        assert_eq!(heard, expected);
    }

    /// The connection ends; on TCP without another byte, on WebSocket with a close frame.
    fn ends(mut self) {
        if self.websocket {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a close frame");
            assert_eq!(byte, [0x88]);
        } else {
            let mut rest = Vec::new();
            self.stream.read_to_end(&mut rest).expect("an end");
            assert_eq!(rest, b"");
        }
    }
}

fn call(gateway: &Gateway, method: &str, uri: &str, body: &str) -> (u16, String) {
    let answer = gateway.call_v1(method, uri, body);
    (answer.status, answer.body)
}

fn push(gateway: &Gateway, uri: &str, body: &str) {
    assert_eq!(call(gateway, "POST", uri, body), (200, r#"{"ret":1}"#.into()), "{uri}");
}

fn bytes(gateway: &Gateway) {
    for (transport, frame) in BOTH.into_iter().zip([&b""[..], b"\x82\x10"]) {
        let mut client = Raw::connect(gateway, transport);
        client.say(b"\x00\x00\x00\x16\x00\x10\x00\x01\x00\x00\x00\x07\x00\x00\x00\x01nobody");
        let reply = b"\x00\x00\x00\x10\x00\x10\x00\x01\x00\x00\x00\x08\x00\x00\x00\x01";
        expect_bytes(&mut client.stream, &[frame, reply].concat());
        client.say(b"\x00\x00\x00\x10\x00\x10\x00\x01\x00\x00\x00\x02\x00\x00\x00\x01");
        let reply = b"\x00\x00\x00\x10\x00\x10\x00\x01\x00\x00\x00\x03\x00\x00\x00\x01";
        expect_bytes(&mut client.stream, &[frame, reply].concat());
    }
}

fn lengths(gateway: &Gateway) {
    for transport in BOTH {
        let mut served = Raw::login(gateway, transport, "nobody");
        served.say(&packet(1, 4, 2, &[b'x'; 1024]));
        served.expect(&packet(1, 5, 2, &[b'x'; 1024]));
        served.say(&packet(1, 4, 3, &[b'x'; 1025]));
        served.ends();
        let mut crooked = Raw::login(gateway, transport, "nobody");
        let mut bad = packet(1, 4, 2, b"");
        bad[5] = 17;
        crooked.say(&bad);
        crooked.ends();
    }
}

fn first_packet(gateway: &Gateway) {
    for transport in BOTH {
        for operation in [0, 2, 4, 8, 12, 254, 1000] {
            let mut client = Raw::connect(gateway, transport);
            client.say(&packet(1, operation, 1, b"1"));
            client.ends();
        }
    }
}

fn tokens(gateway: &Gateway) {
    for transport in BOTH {
        let mut user = Raw::login(gateway, transport, "4001");
        let mut nobodies = ["", "x", "4001 ", "{\"mid\":4001}"].map(|token| Raw::login(gateway, transport, token));
        push(gateway, "/1/push?uid=4001", "to the user");
        user.expect_pushes(&["to the user"]);
        for nobody in &mut nobodies {
            nobody.say(&packet(1, 4, 9, b"quiet"));
            nobody.expect(&packet(1, 5, 9, b"quiet"));
        }
    }
}

fn several(gateway: &Gateway) {
    let mut clients = [0, 1, 0, 1].map(|at: usize| Raw::login(gateway, BOTH[at], "4002"));
    push(gateway, "/1/push?uid=4002", "to each");
    for client in &mut clients {
        client.expect_pushes(&["to each"]);
    }
}

fn login_deadline(gateway: &Gateway) {
    let since = Instant::now();
    Raw::connect(gateway, Transport::Tcp).ends();
    assert!(since.elapsed() >= Duration::from_millis(4500), "{:?}", since.elapsed());
}

fn heartbeat(gateway: &Gateway) {
    for (transport, echoed) in BOTH.into_iter().zip([&b""[..], b"beat"]) {
        let mut client = Raw::login(gateway, transport, "nobody");
        client.say(&packet(-3, 2, i32::MIN, b"beat"));
        client.expect(&packet(-3, 3, i32::MIN, echoed));
    }
}

fn deadline(gateway: &Gateway) {
    let join = || {
        let mut raw = Raw { stream: connect(gateway.listeners[4]), websocket: false };
        raw.say(&packet(1, 7, 1, b"nobody"));
        raw.expect(&packet(1, 8, 1, b""));
        raw
    };
    let (mut beating, mut talking) = (join(), join());
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        let _ = beating.stream.write_all(&packet(1, 2, 1, b""));
        let _ = talking.stream.write_all(&packet(1, 4, 1, b""));
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut heard = Vec::new();
    // Over what it goes on to say, the end may come as a reset.
    let _ = talking.stream.read_to_end(&mut heard);
    assert!(heard.chunks(16).all(|reply| reply == packet(1, 5, 1, b"")), "replies and the end");
    beating.say(&packet(1, 254, 2, b""));
    let mut told = Vec::new();
    while !told.ends_with(b"{\"test\":\"come on\"}") {
        let mut byte = [0];
        beating.stream.read_exact(&mut byte).expect("who beats stays");
        told.push(byte[0]);
    }
}

fn operations(gateway: &Gateway) {
    for transport in BOTH {
        for unknown in [0, 1, 3, 5, 6, 7, 8, 9, 12, 14, 16, 255, 1000, -1] {
            let mut client = Raw::login(gateway, transport, "nobody");
            client.say(&packet(2, 4, 3, b"echo"));
            client.expect(&packet(2, 5, 3, b"echo"));
            client.say(&packet(1, 254, 4, b"anything"));
            client.expect(&packet(1, 255, 4, br#"{"test":"come on"}"#));
            client.say(&packet(1, unknown, 5, b""));
            client.ends();
        }
    }
}

fn pushes(gateway: &Gateway) {
    for (transport, user) in BOTH.into_iter().zip([4003, 4004]) {
        let mut client = Raw::login(gateway, transport, &user.to_string());
        push(gateway, &format!("/1/push?uid={user}"), "{\"test\":1}");
        client.expect_pushes(&["{\"test\":1}"]);
        gateway.push(&json!({ "target": { "members": [user] }, "operation": 1000, "payload": { "text": "v2's" } }));
        client.expect_pushes(&["v2's"]);
        gateway.curl(&format!("/goim/push/mids?operation=77&mids={user}"), "v2's too");
        client.expect_pushes(&["v2's too"]);
    }
}

/// A client in room 1, to which these have been pushed. Other rules push there as well.
fn in_room_1(gateway: &Gateway, transport: Transport, texts: &[String]) -> Raw {
    let client = Raw::login(gateway, transport, "4100");
    let pushes: Vec<Value> = texts
        .iter()
        .map(|text| json!({ "target": { "room": "1" }, "operation": 9, "payload": { "text": text } }))
        .collect();
    gateway.push(&Value::Array(pushes));
    client
}

/// Bodies of the packets in a row, each of which is a push.
fn bodies(mut packets: &[u8]) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some((length, _)) = packets.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).expect("a length");
        let (one, rest) = packets.split_at(length);
        let body = &one[16..];
        assert_eq!(one, packet(0, 5, 0, body), "a push of goim v1");
        bodies.push(String::from_utf8(body.to_vec()).expect("text"));
        packets = rest;
    }
    bodies
}

fn texts(kind: &str, round: usize) -> Vec<String> {
    (0..50).map(|number| format!("{kind} {round} {number}")).collect()
}

fn tcp_pushes(gateway: &Gateway) {
    let texts = texts("tcp", 0);
    let mut client = in_room_1(gateway, Transport::Tcp, &texts);
    let mut heard = Vec::new();
    while heard.len() < texts.len() {
        heard.extend(bodies(&client.next()).into_iter().filter(|body| body.starts_with("tcp")));
    }
    assert_eq!(heard, texts, "in their order");
}

fn websocket_pushes(gateway: &Gateway) {
    // How many go together is the server's choice; in some round there are several in a message.
    let since = Instant::now();
    for round in 0.. {
        let texts = texts("ws", round);
        let mut client = in_room_1(gateway, Transport::WebSocket, &texts);
        let (mut heard, mut longest) = (Vec::new(), 0);
        while heard.len() < texts.len() {
            let message = bodies(&client.frame());
            longest = longest.max(message.len());
            heard.extend(message.into_iter().filter(|body| body.starts_with("ws")));
        }
        assert_eq!(heard, texts, "in their order");
        if longest > 1 {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "never two packets in a message");
    }
}

fn shared_room(gateway: &Gateway) {
    let address = |transport| if transport == Transport::Tcp { gateway.tcp() } else { gateway.ws() };
    let join = |transport| Client::login(address(transport), transport, r#"{"room_id":"1"}"#);
    let mut v2 = BOTH.map(join);
    let mut v1 = BOTH.map(|transport| Raw::login(gateway, transport, "4005"));
    let text = |body: &str| body.starts_with("shared");
    gateway.push(&json!({ "target": { "room": "1" }, "operation": 1000, "payload": { "text": "shared 1" } }));
    push(gateway, "/1/push/room?rid=1", "shared 2");
    for client in &mut v2 {
        let mut heard = Vec::new();
        while heard.len() < 2 {
            let crate::support::Heard::Packet { operation, body, .. } = client.hear() else { panic!("no end") };
            let body = String::from_utf8(body).expect("text");
            heard.extend(text(&body).then_some((operation, body)));
        }
        assert_eq!(heard, [(1000, "shared 1".to_owned()), (5, "shared 2".to_owned())]);
    }
    for client in &mut v1 {
        let mut heard = Vec::new();
        while heard.len() < 2 {
            heard.extend(bodies(&client.next()).into_iter().filter(|body| text(body)));
        }
        assert_eq!(heard, ["shared 1", "shared 2"]);
    }
}

fn upgrade(gateway: &Gateway) {
    upgraded(gateway.listeners[3]);
    let mut elsewhere = connect(gateway.listeners[3]);
    elsewhere.write_all(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n").expect("taken");
    let mut answer = String::new();
    elsewhere.read_to_string(&mut answer).expect("an answer and the end");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

fn push_calls(gateway: &Gateway) {
    let mut client = Raw::login(gateway, Transport::Tcp, "4006");
    push(gateway, "/1/push?uid=4006", "{\"test\":1}");
    push(gateway, "/1/pushs", r#"{"u":[4006,4007],"m":{"test": 2}}"#);
    client.expect_pushes(&["{\"test\":1}", "{\"test\": 2}"]);
    push(gateway, "/1/push/room?rid=2", "nobody is there");
    push(gateway, "/1/push/room?rid=2&ensure=true", "nobody is there");
    push(gateway, "/1/push?uid=4999", "nobody");
}

fn http_errors(gateway: &Gateway) {
    for (uri, body) in [("/1/push?uid=x", ""), ("/1/push", ""), ("/1/pushs", "x"), ("/1/push/room?rid=", "")] {
        assert_eq!(call(gateway, "POST", uri, body), (200, r#"{"ret":65535}"#.into()), "{uri}");
    }
    assert_eq!(call(gateway, "POST", "/1/server/del?server=1", ""), (200, r#"{"ret":1}"#.into()));
    assert_eq!(call(gateway, "POST", "/1/server/del?server=x", ""), (200, String::new()));
    for (method, uri) in [("GET", "/1/push?uid=1"), ("PUT", "/1/push/all"), ("POST", "/1/count")] {
        assert_eq!(call(gateway, method, uri, ""), (405, "Method Not Allowed\n".into()), "{uri}");
    }
}

fn counts(gateway: &Gateway) {
    let _client = Raw::login(gateway, Transport::Tcp, "4008");
    let count = |kind: &str| -> Value {
        let (status, body) = call(gateway, "GET", &format!("/1/count?type={kind}"), "");
        assert_eq!(status, 200);
        serde_json::from_str(&body).expect("JSON")
    };
    let rooms = count("room");
    let room = rooms["data"].as_array().and_then(|rooms| rooms.iter().find(|room| room["RoomId"] == 1));
    assert!(room.is_some_and(|room| room["Count"].as_u64() >= Some(1)) && rooms["ret"] == 1, "{rooms}");
    let servers = count("server");
    assert!(servers["data"][0]["Server"].is_i64() && servers["data"][0]["Count"].as_u64() >= Some(1), "{servers}");
    assert_eq!(count("else"), json!({ "ret": 1 }));
    assert_eq!(call(gateway, "GET", "/monitor/ping", ""), (200, "ok".into()));
}
