//! RFC 6455 as a server must keep it: sentences, and bytes that show each. Of extensions there are none to show.
// long: a list

use halley_protocol::websocket::{Opcode, client as websocket};

use crate::runner::{Case, Expected, Heard, KEY, Requirement, Start};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// What ends a case that leaves the connection open: its answer shows that nothing else came before.
const LAST: &[u8] = b"last";

/// A masked frame with its first byte as given.
fn raw(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    websocket::frame(&mut out, true, Opcode::Binary, mask, payload);
    out[0] = first;
    out
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    raw(first, MASK, payload)
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A masked frame header with the length written in this way, and so many bytes behind it.
fn with_length(first: u8, length: &[u8], payload: usize) -> Vec<u8> {
    [&[first, 0x80 | length[0]], &length[1..], &[0; 4], &vec![0; payload][..]].concat()
}

/// The connection stays: these come back, and the answer to a ping behind them.
fn answered(name: &str, frames: &[Vec<u8>], heard: Vec<Heard>) -> Case {
    let bytes = [frames.concat(), frame(0x89, LAST)].concat();
    let last = Heard::Pong(LAST.to_vec());
    let expected = heard.into_iter().chain([last]).map(Expected::Heard).collect();
    Case { name: name.into(), start: Start::Upgraded, bytes, expected }
}

/// The connection is failed with this code.
fn failed(name: &str, frames: &[Vec<u8>], code: u16) -> Case {
    Case { name: name.into(), start: Start::Upgraded, bytes: frames.concat(), expected: vec![Expected::Failed(code)] }
}

/// These come back, and then the connection is failed.
fn answered_then_failed(name: &str, frames: &[Vec<u8>], heard: Vec<Heard>, code: u16) -> Case {
    let expected = heard.into_iter().map(Expected::Heard).chain([Expected::Failed(code)]).collect();
    Case { name: name.into(), start: Start::Upgraded, bytes: frames.concat(), expected }
}

/// The close handshake is answered with the same code, and the connection ended.
fn closed(name: &str, frames: &[Vec<u8>], before: Vec<Heard>, code: Option<u16>) -> Case {
    let expected = before.into_iter().chain([Heard::Close(code)]).map(Expected::Heard).collect();
    Case { name: name.into(), start: Start::Upgraded, bytes: frames.concat(), expected }
}

fn t(text: &str) -> Heard {
    Heard::Text(text.as_bytes().to_vec())
}

fn b(payload: &[u8]) -> Heard {
    Heard::Binary(payload.to_vec())
}

fn pong(payload: &[u8]) -> Heard {
    Heard::Pong(payload.to_vec())
}

/// As long as a message of ours may be; too long to be among those that are tried at once.
pub(crate) fn longest_message() -> Case {
    let bytes = gateway::limits::ECHO_MESSAGE_BYTES_MAX as usize;
    let payload: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    answered("the longest message", &[frame(0x82, &payload)], vec![Heard::Binary(payload)])
}

/// The list, for a server whose echo is at this path.
pub(crate) fn requirements(path: &str) -> Vec<Requirement> {
    let lists = [handshakes(path), framing(), fragments(), controls(), closing(), strings()];
    lists.into_iter().flatten().map(|(section, sentence, cases)| Requirement { section, sentence, cases }).collect()
}

type Rows = Vec<(&'static str, &'static str, Vec<Case>)>;

// long: a list
#[allow(clippy::too_many_lines, reason = "a list")]
fn handshakes(path: &str) -> Rows {
    let good = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    let case = |name: &str, from: &str, to: &str, expected| {
        assert!(good.contains(from), "{from}");
        let bytes = good.replace(from, to).into_bytes();
        Case { name: name.into(), start: Start::Connected, bytes, expected: vec![expected] }
    };
    let taken = |name: &str, from: &str, to: &str| case(name, from, to, Expected::Heard(Heard::Upgraded));
    let refused = |name: &str, from: &str, to: &str, status| case(name, from, to, Expected::Refused(status));
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let more = |header: &str| format!("\r\n{header}\r\n\r\n");
    vec![
        (
            "4.2.1",
            "An HTTP/1.1 or higher GET request, including a \"Request-URI\"",
            vec![
                refused("another method than GET", "GET", "POST", 405),
                refused("HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 505),
                taken("a query behind the path", &format!("{path} "), &format!("{path}?a=b&c ")),
                taken("an absolute URI", &format!("GET {path}"), &format!("GET http://localhost{path}")),
            ],
        ),
        (
            "4.2.1",
            "A |Host| header field containing the server's authority.",
            vec![
                refused("no Host", "Host: localhost\r\n", "", 400),
                refused("two of them", "Host: localhost\r\n", "Host: a\r\nHost: b\r\n", 400),
            ],
        ),
        (
            "4.2.1",
            "An |Upgrade| header field containing the value \"websocket\", treated as an ASCII case-insensitive value.",
            vec![
                taken("in capitals", "Upgrade: websocket", "Upgrade: WEBSOCKET"),
                taken("in a list", "Upgrade: websocket", "Upgrade: h2c, websocket"),
                refused("no Upgrade", "Upgrade: websocket\r\n", "", 426),
                refused("another protocol", "Upgrade: websocket", "Upgrade: websockets", 426),
            ],
        ),
        (
            "4.2.1",
            "A |Connection| header field that includes the token \"Upgrade\", treated as an ASCII case-insensitive value.",
            vec![
                taken("in small letters", "Connection: Upgrade", "Connection: upgrade"),
                taken("in a list", "Connection: Upgrade", "Connection: keep-alive, Upgrade"),
                refused("no Connection", "Connection: Upgrade\r\n", "", 426),
                refused("another token", "Connection: Upgrade", "Connection: keep-alive", 426),
            ],
        ),
        (
            "4.2.1",
            "A |Sec-WebSocket-Key| header field with a base64-encoded value that, when decoded, is 16 bytes in length.",
            vec![
                refused("no key", &key, "", 400),
                refused("15 bytes", KEY, "AAAAAAAAAAAAAAAAAAAA", 400),
                refused("17 bytes", KEY, "AAAAAAAAAAAAAAAAAAAAAAA=", 400),
                refused("no base64", KEY, "dGhlIHNhbXBsZSBub25j*Q==", 400),
            ],
        ),
        (
            "11.3.1",
            "The |Sec-WebSocket-Key| header field MUST NOT appear more than once in an HTTP request.",
            vec![refused("two keys", &key, &format!("{key}{key}"), 400)],
        ),
        (
            "4.2.1",
            "A |Sec-WebSocket-Version| header field, with a value of 13.",
            vec![refused("no version", "Sec-WebSocket-Version: 13\r\n", "", 426)],
        ),
        (
            "4.2.2",
            "If this version does not match a version understood by the server, the server MUST [...] send an appropriate HTTP error code (such as 426 Upgrade Required) and a |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of understanding.",
            vec![
                refused("version 8", "Version: 13", "Version: 8", 426),
                refused("version 14", "Version: 13", "Version: 14", 426),
                refused("a list", "Version: 13", "Version: 13, 8", 426),
            ],
        ),
        (
            "4.2.2",
            "If the requested service is not available, the server MUST send an appropriate HTTP error code (such as 404 Not Found) and abort the WebSocket handshake.",
            vec![refused("another path", &format!("{path} "), "/no-such-path ", 404)],
        ),
        (
            "4.2.2",
            "A |Sec-WebSocket-Accept| header field. The value of this header field is constructed by concatenating /key/ [...] with the string \"258EAFA5-E914-47DA-95CA-C5AB0DC85B11\", taking the SHA-1 hash of this concatenated value to obtain a 20-byte value and base64-encoding this 20-byte hash.",
            vec![taken("the answer to a good handshake", "GET", "GET")],
        ),
        (
            "4.2.2",
            "If the server does not support extensions, it does not send [...] a |Sec-WebSocket-Extensions| header field; of subprotocols that it does not speak it names none.",
            vec![
                taken(
                    "an extension is offered",
                    "\r\n\r\n",
                    &more("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
                ),
                taken("subprotocols are offered", "\r\n\r\n", &more("Sec-WebSocket-Protocol: chat, superchat")),
            ],
        ),
        (
            "4.2.1",
            "Optionally, other header fields [...] Unknown header fields MUST be ignored.",
            vec![
                taken("cookies and others", "\r\n\r\n", &more("Cookie: a=b\r\nX-Unknown: \u{e4}\r\nEmpty:")),
                taken("names in small letters", "Sec-WebSocket-Version", "sec-websocket-version"),
                taken(
                    "no blanks, and more of them",
                    "Upgrade: websocket\r\nConnection: ",
                    "Upgrade:websocket\r\nConnection:   ",
                ),
            ],
        ),
        (
            "4.2.1",
            "If the server [...] finds that the client did not send a handshake that matches the description below [...], the server MUST stop processing the client's handshake and return an HTTP response with an appropriate error code (such as 400 Bad Request).",
            vec![
                refused("no HTTP at all", "GET", "\u{1}\u{2}", 400),
                refused("a name with a blank", "Host:", "Ho st:", 400),
                refused("a longer head than is read", "\r\n\r\n", &more(&format!("X-Long: {}", "a".repeat(9000))), 431),
            ],
        ),
    ]
}

// long: a list
fn framing() -> Rows {
    let lengths = [0, 1, 124, 125, 126, 127, 128, 65_535, 65_536];
    let echoed = |bytes: usize| {
        let payload: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).expect("small")).collect();
        answered(&format!("{bytes} bytes"), &[frame(0x82, &payload)], vec![Heard::Binary(payload)])
    };
    let reserved = |bits: u8| failed(&format!("bits {bits:#04x}"), &[frame(0x81 | bits, b"x")], 1002);
    let opcode = |opcode: u8| failed(&format!("opcode {opcode:#x}"), &[frame(0x80 | opcode, b"")], 1002);
    let masked = |mask: [u8; 4]| {
        answered(&format!("mask {mask:02x?}"), &[raw(0x81, mask, b"Hello, mask")], vec![t("Hello, mask")])
    };
    vec![
        (
            "5.1",
            "The server MUST close the connection upon receiving a frame that is not masked.",
            vec![
                failed("text", &[b"\x81\x05Hello".to_vec()], 1002),
                failed("an empty one", &[vec![0x82, 0]], 1002),
                failed("a ping", &[vec![0x89, 0]], 1002),
                failed("a close", &[vec![0x88, 2, 3, 232]], 1002),
                answered_then_failed("behind a masked one", &[text("a"), b"\x81\x01b".to_vec()], vec![t("a")], 1002),
            ],
        ),
        (
            "5.1",
            "A server MUST NOT mask any frames that it sends to the client. (Every case looks for it.)",
            vec![answered("an echo and a pong", &[text("Hello")], vec![t("Hello")])],
        ),
        (
            "5.2",
            "RSV1, RSV2, RSV3: MUST be 0 unless an extension is negotiated [...]. If a nonzero value is received [...], the receiving endpoint MUST _Fail the WebSocket Connection_.",
            [0x10, 0x20, 0x40, 0x70].map(reserved).into(),
        ),
        (
            "5.2",
            "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_.",
            [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(opcode).into(),
        ),
        ("5.2", "Payload length: 7 bits, 7+16 bits, or 7+64 bits", lengths.map(echoed).into()),
        (
            "5.2",
            "Note that in all cases, the minimal number of bytes MUST be used to encode the length.",
            vec![
                failed("125 in 16 bits", &[with_length(0x82, &[126, 0, 125], 125)], 1002),
                failed("0 in 16 bits", &[with_length(0x82, &[126, 0, 0], 0)], 1002),
                failed("65,535 in 64 bits", &[with_length(0x82, &[127, 0, 0, 0, 0, 0, 0, 255, 255], 100)], 1002),
            ],
        ),
        (
            "5.2",
            "If 127, the following 8 bytes interpreted as a 64-bit unsigned integer (the most significant bit MUST be 0) are the payload length.",
            vec![failed("the top bit", &[with_length(0x82, &[127, 0x80, 0, 0, 0, 0, 0, 0, 1], 1)], 1002)],
        ),
        (
            "5.3",
            "Octet i of the transformed data [...] is the XOR of octet i of the original data [...] with octet at index i modulo 4 of the masking key.",
            [[0; 4], [255; 4], [1, 2, 4, 8], [0, 0, 0, 1]].map(masked).into(),
        ),
        (
            "10.4",
            "Implementations that have [...] limitations regarding the frame size or total message size [...] MUST protect themselves against exceeding those limits.",
            vec![
                failed("16 MiB and a byte", &[with_length(0x82, &[127, 0, 0, 0, 0, 1, 0, 0, 1], 100)], 1009),
                failed(
                    "all that 63 bits can say",
                    &[with_length(0x82, &[127, 0x7f, 255, 255, 255, 255, 255, 255, 255], 0)],
                    1009,
                ),
                failed(
                    "together with the fragments before",
                    &[frame(0x02, &[1; 100]), with_length(0x80, &[127, 0, 0, 0, 0, 0, 0xff, 0xff, 0x9d], 1)],
                    1009,
                ),
            ],
        ),
    ]
}

// long: a list
fn fragments() -> Rows {
    let hello = || [frame(0x01, b"Hel"), frame(0x80, b"lo")];
    vec![
        (
            "5.4",
            "An unfragmented message consists of a single frame with the FIN bit set and an opcode other than 0.",
            vec![
                answered("text", &[text("Hello")], vec![t("Hello")]),
                answered("binary", &[frame(0x82, &[0, 255])], vec![b(&[0, 255])]),
                answered("empty text", &[text("")], vec![t("")]),
                answered("two in a row", &[text("a"), frame(0x82, b"b")], vec![t("a"), b(b"b")]),
            ],
        ),
        (
            "5.4",
            "A fragmented message consists of a single frame with the FIN bit clear and an opcode other than 0, followed by zero or more frames with the FIN bit clear and the opcode set to 0, and terminated by a single frame with the FIN bit set and an opcode of 0.",
            vec![
                answered("two fragments", &hello(), vec![t("Hello")]),
                answered(
                    "each byte for itself",
                    &[frame(2, b"a"), frame(0, b"b"), frame(0, b"c"), frame(0x80, b"d")],
                    vec![b(b"abcd")],
                ),
                answered("empty ones", &[frame(1, b""), frame(0, b""), frame(0, b"x"), frame(0x80, b"")], vec![t("x")]),
                answered("nothing but empty ones", &[frame(1, b""), frame(0x80, b"")], vec![t("")]),
                answered(
                    "long ones",
                    &[frame(2, &[1; 9000]), frame(0x80, &[2; 200])],
                    vec![b(&[vec![1; 9000], vec![2; 200]].concat())],
                ),
                answered(
                    "masks of their own",
                    &[raw(1, [1, 2, 3, 4], b"Hel"), raw(0x80, [9, 8, 7, 6], b"lo")],
                    vec![t("Hello")],
                ),
            ],
        ),
        (
            "5.4",
            "All fragments of a message are of the same type, as set by the first fragment's opcode.",
            vec![answered("binary", &[frame(2, &[0xff]), frame(0x80, &[0xfe])], vec![b(&[0xff, 0xfe])])],
        ),
        (
            "5.4",
            "Control frames MAY be injected in the middle of a fragmented message.",
            vec![
                answered(
                    "a ping is answered before the message",
                    &[frame(1, b"Hel"), frame(0x89, b"now"), frame(0x80, b"lo")],
                    vec![pong(b"now"), t("Hello")],
                ),
                answered("a pong", &[frame(1, b"Hel"), frame(0x8a, b"well"), frame(0x80, b"lo")], vec![t("Hello")]),
                closed("a close", &[frame(1, b"Hel"), frame(0x88, &[3, 232])], vec![], Some(1000)),
            ],
        ),
        (
            "5.4",
            "Control frames themselves MUST NOT be fragmented.",
            vec![
                failed("a ping", &[frame(0x09, b"x"), frame(0x80, b"y")], 1002),
                failed("a pong", &[frame(0x0a, b"")], 1002),
                failed("a close", &[frame(0x08, &[3, 232])], 1002),
            ],
        ),
        (
            "5.4",
            "The fragments of one message MUST NOT be interleaved between the fragments of another message.",
            vec![
                failed("text in text", &[frame(1, b"a"), frame(0x81, b"b")], 1002),
                failed("binary in text", &[frame(1, b"a"), frame(0x02, b"b")], 1002),
                failed("a continuation of nothing", &[frame(0x80, b"a")], 1002),
                answered_then_failed(
                    "a continuation of a whole message",
                    &[text("a"), frame(0, b"b")],
                    vec![t("a")],
                    1002,
                ),
                answered_then_failed(
                    "a continuation behind the last one",
                    &[hello().concat(), frame(0x80, b"!")],
                    vec![t("Hello")],
                    1002,
                ),
            ],
        ),
    ]
}

fn controls() -> Rows {
    let pings: Vec<Vec<u8>> = (0..20).map(|n| frame(0x89, &[n])).collect();
    vec![
        (
            "5.5",
            "All control frames MUST have a payload length of 125 bytes or less.",
            vec![
                answered("125 bytes", &[frame(0x89, &[7; 125])], vec![pong(&[7; 125])]),
                failed("a ping of 126", &[frame(0x89, &[7; 126])], 1002),
                failed("a pong of 126", &[frame(0x8a, &[7; 126])], 1002),
                failed("a close of 126", &[frame(0x88, &[&[3, 232][..], &[b'x'; 124]].concat())], 1002),
            ],
        ),
        (
            "5.5.2",
            "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response, unless it already received a Close frame.",
            vec![
                answered("an empty one", &[frame(0x89, b"")], vec![pong(b"")]),
                answered("twenty", &pings, (0..20).map(|n| pong(&[n])).collect()),
                closed(
                    "behind a close there is none",
                    &[frame(0x88, &[3, 232]), frame(0x89, b"late")],
                    vec![],
                    Some(1000),
                ),
            ],
        ),
        (
            "5.5.3",
            "A Pong frame sent in response to a Ping frame must have identical \"Application data\" as found in the message body of the Ping frame being replied to.",
            vec![
                answered("text", &[frame(0x89, b"Hello")], vec![pong(b"Hello")]),
                answered("bytes that are no text", &[frame(0x89, &[0xff, 0, 0xfe])], vec![pong(&[0xff, 0, 0xfe])]),
            ],
        ),
        (
            "5.5.3",
            "A Pong frame MAY be sent unsolicited. [...] A response to an unsolicited Pong frame is not expected.",
            vec![
                answered("empty", &[frame(0x8a, b"")], vec![]),
                answered("with data", &[frame(0x8a, b"beat"), text("a"), frame(0x8a, b"beat")], vec![t("a")]),
            ],
        ),
    ]
}

fn closing() -> Rows {
    let code = |code: u16| code.to_be_bytes().to_vec();
    let good = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let bad = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535];
    let accepted = |it: u16| closed(&format!("code {it}"), &[frame(0x88, &code(it))], vec![], Some(it));
    let refused = |it: u16| failed(&format!("code {it}"), &[frame(0x88, &code(it))], 1002);
    vec![
        (
            "5.5.1",
            "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST send a Close frame in response.",
            vec![
                closed("with a code", &[frame(0x88, &code(1000))], vec![], Some(1000)),
                closed("without a code", &[frame(0x88, b"")], vec![], None),
                closed(
                    "behind a message that is echoed first",
                    &[text("a"), frame(0x88, &code(1001))],
                    vec![t("a")],
                    Some(1001),
                ),
            ],
        ),
        (
            "5.5.1",
            "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer (in network byte order) representing a status code.",
            vec![failed("one byte", &[frame(0x88, &[3])], 1002)],
        ),
        (
            "5.5.1",
            "Following the 2-byte integer, the body MAY contain UTF-8-encoded data with value /reason/.",
            vec![
                closed(
                    "a reason",
                    &[frame(0x88, &[code(1000), "gr\u{fc}\u{df}e".into()].concat())],
                    vec![],
                    Some(1000),
                ),
                closed("the longest", &[frame(0x88, &[code(1000), vec![b'r'; 123]].concat())], vec![], Some(1000)),
                failed("one that is not UTF-8", &[frame(0x88, &[code(1000), vec![0xff]].concat())], 1007),
            ],
        ),
        (
            "5.5.1",
            "The application MUST NOT send any more data frames after sending a Close frame. (What comes nevertheless is not answered.)",
            vec![
                closed("text behind it", &[frame(0x88, &code(1000)), text("late")], vec![], Some(1000)),
                closed("a second close", &[frame(0x88, &code(1000)), frame(0x88, &code(1001))], vec![], Some(1000)),
            ],
        ),
        (
            "7.1.1",
            "The server MUST close the TCP connection first. (Every case with a close waits for the end.)",
            vec![closed("after the closing handshake", &[frame(0x88, &code(1000))], vec![], Some(1000))],
        ),
        (
            "7.4.1",
            "Codes that an endpoint may send in a Close frame: 1000 to 1003 and 1007 to 1011; 3000 to 4999 (7.4.2) for libraries and applications.",
            good.map(accepted).into(),
        ),
        (
            "7.4.1",
            "1004, 1005, 1006 and 1015 are reserved values and MUST NOT be set as a status code in a Close control frame; 0 to 999 are not used (7.4.2), nor are those not yet defined.",
            bad.map(refused).into(),
        ),
    ]
}

// long: a list
fn strings() -> Rows {
    let valid = |name: &str, bytes: &str| answered(name, &[text(bytes)], vec![t(bytes)]);
    let invalid = |bytes: &[u8]| failed(&format!("{bytes:02x?}"), &[frame(0x81, bytes)], 1007);
    vec![
        (
            "5.6",
            "The \"Payload data\" is text data encoded as UTF-8.",
            vec![
                valid("letters of one to four bytes", "a\u{df}\u{20ac}\u{1d11e}"),
                valid(
                    "the first and last of each length",
                    "\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}",
                ),
                valid("beside the surrogates", "\u{d7ff}\u{e000}"),
                valid("a byte order mark and no characters", "\u{feff}\u{fffe}\u{1ffff}"),
            ],
        ),
        (
            "5.6",
            "Note that a particular text frame might include a partial UTF-8 sequence; however, the whole message MUST contain valid UTF-8.",
            vec![
                answered(
                    "a character in two frames",
                    &[frame(1, b"\xe2\x82"), frame(0x80, b"\xac")],
                    vec![t("\u{20ac}")],
                ),
                answered(
                    "a character in four frames",
                    &[frame(1, b"\xf0"), frame(0, b"\x9d"), frame(0, b"\x84"), frame(0x80, b"\x9e")],
                    vec![t("\u{1d11e}")],
                ),
                answered(
                    "with a ping between",
                    &[frame(1, b"\xc3"), frame(0x89, b"p"), frame(0x80, b"\x9f")],
                    vec![pong(b"p"), t("\u{df}")],
                ),
                failed("half a character at the end", &[frame(1, b"a"), frame(0x80, b"\xe2\x82")], 1007),
                failed("half a character and another", &[frame(1, b"\xe2\x82"), frame(0x80, b"a")], 1007),
            ],
        ),
        (
            "8.1",
            "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_.",
            [
                &b"\x80"[..],
                b"\xbf",
                b"\xc0\xaf",
                b"\xc1\xbf",
                b"\xe0\x80\xaf",
                b"\xe0\x9f\xbf",
                b"\xf0\x80\x80\xaf",
                b"\xf0\x8f\xbf\xbf",
                b"\xed\xa0\x80",
                b"\xed\xbf\xbf",
                b"\xf4\x90\x80\x80",
                b"\xf5\x80\x80\x80",
                b"\xf8\x88\x80\x80\x80",
                b"\xfe",
                b"\xff",
                b"a\xc3",
                b"a\xe2\x82",
                b"a\xf0\x9d\x84",
                b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80edited",
            ]
            .map(invalid)
            .into_iter()
            .chain([
                failed(
                    "in the second fragment, before the last",
                    &[frame(1, b"good"), frame(0, b"\xff"), frame(0x80, b"good")],
                    1007,
                ),
                answered("binary is not looked at", &[frame(0x82, b"\xff\xc0")], vec![b(b"\xff\xc0")]),
            ])
            .collect(),
        ),
    ]
}
