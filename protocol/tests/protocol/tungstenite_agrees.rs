//! Frames and handshakes compared with tungstenite, an independent implementation, both ways.

use crate::support::{Outcome, Seen, Sent, conversation, damage, damaged, decode, twice_the_cases, wire};
use halley_protocol::websocket::encode::{CONTROL_BYTES_MAX, close_frame, control_frame};
use halley_protocol::websocket::frame::FrameLimits;
use halley_protocol::websocket::handshake::{self, RESPONSE_BYTES, Rules};
use halley_protocol::websocket::{Opcode, client};
use halley_protocol::{Packet, push, reply};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// A connection in memory: reads come from `input`, writes go to `output`.
#[derive(Debug, Default)]
struct Memory {
    input: io::Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Memory {
    fn reading(input: &[u8]) -> Self {
        let input = io::Cursor::new(input.to_vec());
        Self { input, ..Self::default() }
    }
}

impl Read for Memory {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.input.read(out)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            bytes => Ok(bytes),
        }
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn socket(input: &[u8], role: Role) -> WebSocket<Memory> {
    WebSocket::from_raw_socket(Memory::reading(input), role, None)
}

/// What tungstenite as a server makes of `stream`, and whether it found a mistake.
fn theirs(stream: &[u8], limits: FrameLimits) -> (Vec<Seen>, bool) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits.message_bytes_max as usize))
        .max_frame_size(Some(limits.message_bytes_max as usize));
    let mut socket = WebSocket::from_raw_socket(Memory::reading(stream), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        match socket.read() {
            Ok(message) => seen.push(match message {
                Message::Text(text) => Seen::Text(text.as_bytes().to_vec()),
                Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
                Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
                Message::Pong(_) => Seen::Pong,
                Message::Close(close) => Seen::Close(close.map(|close| close.code.into())),
                Message::Frame(_) => unreachable!("never read"),
            }),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (seen, false),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => return (seen, false),
            Err(_) => return (seen, true),
        }
    }
}

/// tungstenite does not know 1014, a registered code, and reads it as 1002.
fn in_their_eyes(mut seen: Vec<Seen>) -> Vec<Seen> {
    for event in &mut seen {
        if *event == Seen::Close(Some(1014)) {
            *event = Seen::Close(Some(1002));
        }
    }
    seen
}

/// The client's frames by tungstenite's encoder, masked with its own random keys.
fn their_wire(frames: &[Sent]) -> Vec<u8> {
    let mut socket = socket(&[], Role::Client);
    for sent in frames {
        let opcode = match sent.opcode {
            Opcode::Continuation => OpCode::Data(Data::Continue),
            Opcode::Text => OpCode::Data(Data::Text),
            Opcode::Binary => OpCode::Data(Data::Binary),
            Opcode::Close => OpCode::Control(Control::Close),
            Opcode::Ping => OpCode::Control(Control::Ping),
            Opcode::Pong => OpCode::Control(Control::Pong),
        };
        let header = FrameHeader { is_final: sent.fin, opcode, ..FrameHeader::default() };
        let frame = Frame::from_payload(header, sent.payload.clone().into());
        socket.send(Message::Frame(frame)).expect("memory takes it");
    }
    socket.get_ref().output.clone()
}

proptest! {
    #![proptest_config(twice_the_cases())]

    #[test]
    fn we_read_what_their_client_writes((frames, seen) in conversation()) {
        let outcome = decode(&their_wire(&frames), &[], FrameLimits::default());
        prop_assert_eq!(outcome, Outcome { seen, reject: None });
    }

    #[test]
    fn their_server_reads_what_our_client_writes((frames, seen) in conversation()) {
        prop_assert_eq!(theirs(&wire(&frames), FrameLimits::default()), (in_their_eyes(seen), false));
    }

    /// We may be stricter, and earlier by what a header announces; never laxer, and never different before.
    #[test]
    fn a_damaged_conversation_is_never_taken_where_theirs_refuses(
        (frames, _) in conversation(), damage in damage(), message_bytes_max in 125..400_u32,
    ) {
        let limits = FrameLimits { message_bytes_max, fragments_max: 1024, deflate: false };
        let stream = damaged(wire(&frames), &damage);
        let mut ours = decode(&stream, &[], limits);
        ours.seen = in_their_eyes(ours.seen);
        let (seen, refused) = theirs(&stream, limits);
        match ours.reject {
            None => {
                prop_assert!(!refused, "taken, but tungstenite refuses");
                prop_assert_eq!(ours.seen, seen);
            }
            Some(_) => prop_assert!(seen.starts_with(&ours.seen)),
        }
    }

    #[test]
    fn their_client_reads_our_pushes_and_replies(
        operation in any::<i32>(), sequence in any::<i32>(), body in prop::collection::vec(any::<u8>(), 0..4096),
    ) {
        let (pushed, start) = push::encode(operation, &body);
        let mut replied = [0; reply::REPLY_BYTES_MAX];
        let packet = Packet { version: 1, operation, sequence, body: &body };
        let bytes = reply::write_websocket(&packet, &mut replied);
        let wire = [&pushed[usize::from(start)..], &replied[..bytes]].concat();
        let mut socket = socket(&wire, Role::Client);
        let expected = Message::binary(pushed[push::HEADROOM..].to_vec());
        prop_assert_eq!(socket.read().unwrap(), expected);
        let expected = Message::binary(halley_protocol::client::packet(operation, sequence, &body));
        prop_assert_eq!(socket.read().unwrap(), expected);
    }

    #[test]
    fn our_client_reads_what_their_server_writes(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70_000), 1..4),
    ) {
        let mut socket = socket(&[], Role::Server);
        for payload in &payloads {
            socket.send(Message::binary(payload.clone())).unwrap();
        }
        let stream = &socket.get_ref().output;
        let mut start = 0;
        for payload in &payloads {
            let frame = client::decode(&stream[start..]).unwrap().expect("a whole frame");
            prop_assert_eq!((frame.fin, frame.opcode), (true, Opcode::Binary));
            prop_assert_eq!(&stream[start..][frame.payload.clone()], payload);
            start += frame.payload.end;
        }
        prop_assert_eq!(start, stream.len());
    }

    #[test]
    fn accept_keys_are_theirs(key in any::<[u8; 16]>()) {
        use base64::Engine as _;
        let key = base64::engine::general_purpose::STANDARD.encode(key);
        let theirs = tungstenite::handshake::derive_accept_key(key.as_bytes());
        prop_assert_eq!(&handshake::accept(key.as_bytes())[..], theirs.as_bytes());
    }
}

#[test]
fn their_client_reads_our_close_and_pong() {
    let mut out = [0; CONTROL_BYTES_MAX];
    let mut stream = Vec::new();
    let bytes = control_frame(Opcode::Pong, b"here", &mut out);
    stream.extend_from_slice(&out[..bytes]);
    let bytes = close_frame(Some(4005), "kicked", &mut out);
    stream.extend_from_slice(&out[..bytes]);
    let mut socket = socket(&stream, Role::Client);
    assert_eq!(socket.read().unwrap(), Message::Pong(b"here"[..].into()));
    let close = CloseFrame { code: CloseCode::Library(4005), reason: "kicked".into() };
    assert_eq!(socket.read().unwrap(), Message::Close(Some(close)));
}

#[test]
fn their_client_shakes_hands_with_us() {
    let started = tungstenite::client("ws://localhost:3102/sub", Memory::default());
    let Err(HandshakeError::Interrupted(mut middle)) = started else {
        panic!("it waits for our response");
    };
    let sent = middle.get_ref().get_ref().output.clone();
    let rules = Rules { path: "/sub", origins: &[], deflate: false };
    let upgrade = handshake::parse(&sent, &rules).unwrap().expect("a whole request");
    assert_eq!(upgrade.head_bytes, sent.len());
    let mut out = [0; RESPONSE_BYTES];
    let bytes = handshake::response(&upgrade.accept, &mut out);
    middle.get_mut().get_mut().input = io::Cursor::new(out[..bytes].to_vec());
    middle.handshake().expect("it accepts our response");
}

#[test]
fn their_server_shakes_hands_with_our_client() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = client::request("localhost", "/sub", key);
    let socket = tungstenite::accept(Memory::reading(request.as_bytes())).expect("it accepts our request");
    let response = &socket.get_ref().output;
    assert!(response.starts_with(b"HTTP/1.1 101 "));
}
