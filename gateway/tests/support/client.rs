//! A small blocking goim client over TCP or WebSocket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use halley_protocol::packet::{Packet, decode_within};
use halley_protocol::websocket::{Opcode, client as websocket};
use halley_protocol::{client as packets, operation};

use super::PATIENCE;

/// How packets are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A reply or a push.
    Packet {
        operation: i32,
        sequence: i32,
        body: Vec<u8>,
    },
    /// A WebSocket close frame.
    Close {
        code: u16,
    },
    Pong(Vec<u8>),
    /// The server has ended the connection.
    End,
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [1, 2, 3, 4];
const PACKET_BYTES_MAX: usize = 2 << 20;

/// A client; its connection ends when it is dropped.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    transport: Transport,
    bytes: Vec<u8>,
    heard: VecDeque<Heard>,
}

/// A connection whose reads do not wait for ever.
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the listener listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What is answered to these bytes, until the other side ends the connection or says no more for a while.
pub(crate) fn exchange(address: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(bytes.as_bytes()).expect("the listener takes bytes");
    stream.shutdown(std::net::Shutdown::Write).expect("connected");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Whether the other side has ended this connection; bytes before the end are read and forgotten.
pub(crate) fn ended(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

impl Client {
    /// Connected, and upgraded if it is a WebSocket.
    pub(crate) fn connect(address: SocketAddr, transport: Transport) -> Self {
        Self::over(connect(address), transport)
    }

    /// The same over a connection made by the caller. Waits for the upgrade's answer.
    pub(crate) fn over(stream: TcpStream, transport: Transport) -> Self {
        let mut client = Self { stream, transport, bytes: Vec::new(), heard: VecDeque::new() };
        if transport == Transport::WebSocket {
            client.write(websocket::request("localhost", "/sub", KEY).as_bytes());
            let since = Instant::now();
            loop {
                if let Some(bytes) = websocket::response(&client.bytes, KEY).expect("an upgrade") {
                    client.bytes.drain(..bytes);
                    break;
                }
                assert!(since.elapsed() < PATIENCE, "no answer to the upgrade");
                assert!(client.read(PATIENCE), "the end instead of an upgrade");
            }
        }
        client
    }

    /// Logged in with this JSON; the reply has been read.
    pub(crate) fn login(address: SocketAddr, transport: Transport, login: &str) -> Self {
        let mut client = Self::connect(address, transport);
        client.send(operation::AUTH, 1, login.as_bytes());
        client.expect(operation::AUTH_REPLY, 1, b"");
        client
    }

    /// Sends one packet, in one binary message if this is a WebSocket.
    pub(crate) fn send(&mut self, operation: i32, sequence: i32, body: &[u8]) {
        self.flood(1, operation, sequence, body);
    }

    /// Sends so many packets in one write: the gateway may close behind any of them.
    pub(crate) fn flood(&mut self, times: usize, operation: i32, sequence: i32, body: &[u8]) {
        let mut out = Vec::new();
        match self.transport {
            Transport::Tcp => out = packets::packet(operation, sequence, body),
            Transport::WebSocket => {
                websocket::packet(&mut out, MASK, &Packet { version: 1, operation, sequence, body });
            }
        }
        self.write(&out.repeat(times));
    }

    /// Sends a WebSocket frame of any kind.
    pub(crate) fn frame(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut out = Vec::new();
        websocket::frame(&mut out, true, opcode, MASK, payload);
        self.write(&out);
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the gateway takes bytes");
    }

    /// Sends a request and reads its reply, which has the next operation code.
    pub(crate) fn ask(&mut self, operation: i32, body: &[u8]) -> Vec<u8> {
        let reply = if operation < 0 { operation - 1 } else { operation + 1 };
        self.send(operation, 7, body);
        loop {
            match self.hear() {
                Heard::Packet { operation, sequence: 7, body } if operation == reply => return body,
                Heard::Packet { sequence: 0, .. } => {}
                other => panic!("instead of the reply to {operation}: {other:?}"),
            }
        }
    }

    /// The next thing heard must be this packet.
    pub(crate) fn expect(&mut self, operation: i32, sequence: i32, body: &[u8]) {
        assert_eq!(self.hear(), Heard::Packet { operation, sequence, body: body.to_vec() });
    }

    /// The next thing heard must be this push.
    pub(crate) fn expect_push(&mut self, operation: i32, text: &str) {
        self.expect(operation, 0, text.as_bytes());
    }

    /// Nothing may come but the replies to two heartbeats. Two, because a turn sends its replies before the pushes to
    /// rooms: what was dispatched before this call comes before the second reply.
    pub(crate) fn expect_quiet(&mut self) {
        for _ in 0..2 {
            self.send(operation::HEARTBEAT, 99, b"");
            let heard = self.hear();
            let is_reply = matches!(heard, Heard::Packet { operation: operation::HEARTBEAT_REPLY, sequence: 99, .. });
            assert!(is_reply, "{heard:?}");
        }
    }

    /// The code of the close frame that must come next.
    pub(crate) fn close_code(&mut self) -> u16 {
        match self.hear() {
            Heard::Close { code } => code,
            other => panic!("instead of a close: {other:?}"),
        }
    }

    /// The next thing heard.
    pub(crate) fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE).expect("something to hear")
    }

    /// The next thing heard, if it comes in time.
    pub(crate) fn hear_within(&mut self, time: Duration) -> Option<Heard> {
        let since = Instant::now();
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Some(heard);
            }
            if self.decode() {
                continue;
            }
            let left = time.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
            if !self.read(left) {
                return Some(Heard::End);
            }
        }
    }

    /// Reads once; false at the end of the stream.
    fn read(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).expect("a timeout");
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.bytes.extend_from_slice(&bytes[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => true,
            Err(error) => panic!("{error}"),
        }
    }

    /// Moves whole packets and frames out of the bytes; whether there was one.
    fn decode(&mut self) -> bool {
        let bytes = std::mem::take(&mut self.bytes);
        let used = match self.transport {
            Transport::Tcp => self.packet(&bytes),
            Transport::WebSocket => websocket::decode(&bytes).expect("a sound frame").map(|frame| {
                assert!(frame.fin, "Halley sends no fragments");
                self.message(frame.opcode, &bytes[frame.payload.clone()]);
                frame.payload.end
            }),
        };
        self.bytes = bytes[used.unwrap_or(0)..].to_vec();
        used.is_some()
    }

    fn message(&mut self, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Binary => {
                let used = self.packet(payload);
                assert_eq!(used, Some(payload.len()), "a message is a packet");
                let Some(Heard::Packet { operation: operation::RAW, .. }) = self.heard.back() else { return };
                let Some(Heard::Packet { body, .. }) = self.heard.pop_back() else { return };
                let mut at = 0;
                while at < body.len() {
                    at += self.packet(&body[at..]).expect("whole packets in a raw packet");
                }
            }
            Opcode::Close => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                self.heard.push_back(Heard::Close { code });
            }
            Opcode::Pong => self.heard.push_back(Heard::Pong(payload.to_vec())),
            other => panic!("the server sends no {other:?}"),
        }
    }

    fn packet(&mut self, bytes: &[u8]) -> Option<usize> {
        let packet = decode_within(bytes, PACKET_BYTES_MAX).expect("a sound packet")?;
        let Packet { operation, sequence, body, .. } = packet;
        self.heard.push_back(Heard::Packet { operation, sequence, body: body.to_vec() });
        Some(packet.bytes())
    }
}
