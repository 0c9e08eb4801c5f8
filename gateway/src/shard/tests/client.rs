//! A goim client on the simulated network: says packets, and decodes what it gets.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use halley_protocol::client as packets;
use halley_protocol::halley::Kick;
use halley_protocol::login::Login;
use halley_protocol::packet::{self, Packet};
use halley_protocol::push;
use halley_protocol::websocket::deflate::{Deflater, TAIL};
use halley_protocol::websocket::{Opcode, client as websocket};
use halley_protocol::{operation, packet::HEADER_BYTES};
use halley_ring::sim::{ClientId, SimNet};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::shard::{Dialect, Transport};

/// A handshake's key, as in RFC 6455 1.3.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Reply { operation: i32, sequence: i32, body: Vec<u8> },
    Push { operation: i32, body: Vec<u8> },
    Kick { code: i32, text: String },
    Pong(Vec<u8>),
    Close(Option<u16>),
    Http(String),
}

pub(super) struct Client {
    net: SimNet,
    pub(super) id: ClientId,
    pub(super) transport: Transport,
    pub(super) dialect: Dialect,
    /// Bytes that are not yet a whole frame or packet.
    stream: Vec<u8>,
    upgraded: bool,
    /// It has asked for compression, which its listener agrees to.
    pub(super) deflates: bool,
    /// Compressed messages that it got.
    pub(super) deflated: u64,
    sequence: i32,
    got: Vec<Got>,
    /// Bytes that were read.
    pub(super) bytes: u64,
    /// What it says leaves it only in drops ([`Self::drip`]).
    pub(super) drips: bool,
    tls: Option<RefCell<ClientConnection>>,
    /// How TLS has failed.
    pub(super) tls_error: Option<rustls::Error>,
    unsaid: RefCell<VecDeque<u8>>,
    said_bytes: Cell<u64>,
    /// It has ended its sending side.
    ended: Cell<bool>,
}

impl Client {
    /// Connects; a WebSocket client asks for its upgrade at once.
    pub(super) fn connect(net: &SimNet, listener: usize, transport: Transport) -> Self {
        let client = Self::connect_silent(net, listener, transport);
        client.upgrade();
        client
    }

    /// Asks for the upgrade, if it speaks WebSocket.
    pub(super) fn upgrade(&self) {
        if self.transport == Transport::WebSocket {
            self.say(self.request().as_bytes());
        }
    }

    /// What it says to be upgraded.
    pub(super) fn request(&self) -> String {
        let request = if self.deflates { websocket::deflate_request } else { websocket::request };
        request("gateway", "/sub", KEY)
    }

    /// The same client, which asks for compression and will get it.
    pub(super) fn deflating(self) -> Self {
        Self { deflates: true, ..self }
    }

    /// Connects and says nothing.
    pub(super) fn connect_silent(net: &SimNet, listener: usize, transport: Transport) -> Self {
        Self {
            net: net.clone(),
            id: net.connect(listener),
            transport,
            dialect: Dialect::GoimV2,
            stream: Vec::new(),
            upgraded: transport == Transport::Tcp,
            deflates: false,
            deflated: 0,
            sequence: 0,
            got: Vec::new(),
            bytes: 0,
            drips: false,
            tls: None,
            tls_error: None,
            unsaid: RefCell::default(),
            said_bytes: Cell::default(),
            ended: Cell::new(false),
        }
    }

    /// The same client in another dialect.
    pub(super) fn speaking(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Connects over TLS and says nothing but what its handshake says first.
    pub(super) fn connect_tls(net: &SimNet, listener: usize, transport: Transport, config: Arc<ClientConfig>) -> Self {
        let mut client = Self::connect_silent(net, listener, transport);
        client.begin_tls(config);
        client
    }

    /// Begins a handshake.
    pub(super) fn begin_tls(&mut self, config: Arc<ClientConfig>) {
        let mut tls = ClientConnection::new(config, ServerName::try_from("gateway").expect("a name")).expect("right");
        tls.set_buffer_limit(None);
        self.tls = Some(RefCell::new(tls));
        self.say_tls();
    }

    /// What has arrived of the stream under frames and packets.
    pub(super) fn read_stream(&mut self) -> Vec<u8> {
        let arrived = self.net.recv(self.id, usize::MAX);
        self.open(arrived)
    }

    /// What TLS has to say goes out.
    fn say_tls(&self) {
        let Some(tls) = &self.tls else { return };
        let mut records = Vec::new();
        while tls.borrow().wants_write() {
            tls.borrow_mut().write_tls(&mut records).expect("a list takes all");
        }
        if !records.is_empty() && !self.ended.get() {
            self.say_raw(&records);
        }
    }

    /// Whether there are records under its packets.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Its TLS, to do something uncommon with.
    pub(super) fn with_tls<R>(&self, act: impl FnOnce(&mut ClientConnection) -> R) -> R {
        let done = act(&mut self.tls.as_ref().expect("it speaks TLS").borrow_mut());
        self.say_tls();
        done
    }

    pub(super) fn say(&self, bytes: &[u8]) {
        match &self.tls {
            Some(tls) => {
                tls.borrow_mut().writer().write_all(bytes).expect("no limit");
                self.say_tls();
            }
            None => self.say_raw(bytes),
        }
    }

    /// Bytes that it has said.
    pub(super) fn said_bytes(&self) -> u64 {
        self.said_bytes.get()
    }

    /// Says bytes as they are, whatever lies under the packets.
    pub(super) fn say_raw(&self, bytes: &[u8]) {
        self.said_bytes.set(self.said_bytes.get() + bytes.len() as u64);
        if self.drips || !self.unsaid.borrow().is_empty() {
            self.unsaid.borrow_mut().extend(bytes);
        } else {
            self.net.send(self.id, bytes);
        }
    }

    /// Lets go of so many bytes that it wanted to say.
    pub(super) fn drip(&self, most: usize) {
        let mut unsaid = self.unsaid.borrow_mut();
        let bytes = unsaid.len().min(most);
        let drop: Vec<u8> = unsaid.drain(..bytes).collect();
        self.net.send(self.id, &drop);
    }

    /// Whether it is in the middle of what it wants to say.
    pub(super) fn is_speaking(&self) -> bool {
        !self.unsaid.borrow().is_empty()
    }

    /// A frame as only a WebSocket client sends it.
    pub(super) fn frame(&self, fin: bool, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        websocket::frame(&mut bytes, fin, opcode, MASK, payload);
        self.say(&bytes);
    }

    /// The bytes of a packet as this client's transport carries it.
    pub(super) fn packet_bytes(&mut self, operation: i32, body: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        let packet = Packet { version: packets::VERSION, operation, sequence: self.sequence, body };
        let mut bytes = Vec::new();
        match self.transport {
            Transport::Tcp => packets::append(&mut bytes, &packet),
            // Whoever may compress need not.
            Transport::WebSocket if self.deflates && self.sequence % 3 != 0 => {
                self.deflate(&mut bytes, Opcode::Binary, &[&packet.header(), body].concat());
            }
            Transport::WebSocket => websocket::packet(&mut bytes, MASK, &packet),
        }
        bytes
    }

    /// A compressed message, now and then in fragments.
    pub(super) fn deflate(&self, out: &mut Vec<u8>, opcode: Opcode, message: &[u8]) {
        let payload = deflated(message);
        let cut = if self.sequence % 2 == 0 { payload.len() } else { payload.len() / 2 };
        websocket::deflated_frame(out, cut == payload.len(), opcode, MASK, &payload[..cut]);
        if cut < payload.len() {
            websocket::frame(out, true, Opcode::Continuation, MASK, &payload[cut..]);
        }
    }

    /// A frame that says of itself that its message is compressed.
    pub(super) fn deflated_frame(&self, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        websocket::deflated_frame(&mut bytes, true, opcode, MASK, payload);
        self.say(&bytes);
    }

    /// Says a packet; its sequence.
    pub(super) fn send(&mut self, operation: i32, body: &[u8]) -> i32 {
        let bytes = self.packet_bytes(operation, body);
        self.say(&bytes);
        self.sequence
    }

    pub(super) fn login(&mut self, login: &Login) {
        self.send(operation::AUTH, login.to_json().as_bytes());
    }

    pub(super) fn set_window(&self, bytes: usize) {
        self.net.set_window(self.id, bytes);
    }

    pub(super) fn reset(&self) {
        self.net.reset(self.id);
    }

    /// Ends its sending side; of those that speak TLS every other one says so before.
    pub(super) fn half_close(&self) {
        if self.speaks_tls() && self.id.0.is_multiple_of(2) {
            self.with_tls(|tls| tls.send_close_notify());
        }
        self.ended.set(true);
        self.net.close(self.id);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.net.server_closed(self.id)
    }

    /// Everything that has arrived since the last call.
    pub(super) fn take(&mut self) -> Vec<Got> {
        self.read(usize::MAX);
        std::mem::take(&mut self.got)
    }

    /// Reads at most so many bytes and decodes what is whole.
    pub(super) fn read(&mut self, max: usize) {
        let arrived = self.net.recv(self.id, max);
        self.bytes += arrived.len() as u64;
        let arrived = self.open(arrived);
        self.stream.extend(arrived);
        let stream = std::mem::take(&mut self.stream);
        let mut at = 0;
        while let Some(bytes) = self.decode(&stream[at..]) {
            at += bytes;
        }
        self.stream = stream[at..].to_vec();
    }

    /// The data of the records that have arrived; without TLS what has arrived.
    fn open(&mut self, arrived: Vec<u8>) -> Vec<u8> {
        let Some(tls) = &self.tls else { return arrived };
        if self.tls_error.is_some() {
            return Vec::new();
        }
        let (mut rest, mut data) = (&arrived[..], Vec::new());
        while !rest.is_empty() {
            let mut tls = tls.borrow_mut();
            if tls.read_tls(&mut rest).expect("a slice can be read") == 0 {
                // Behind a close there is nothing.
                assert!(rest.is_empty(), "{} bytes behind the close", rest.len());
            }
            if let Err(error) = tls.process_new_packets() {
                self.tls_error = Some(error);
                break;
            }
            // Without data, or at the end, there is nothing more to read now.
            let _ = tls.reader().read_to_end(&mut data);
        }
        self.say_tls();
        data
    }

    /// Whether what has arrived ends within a frame or packet.
    pub(super) fn is_torn(&self) -> bool {
        !self.stream.is_empty()
    }

    /// The bodies of the pushes among what has arrived; anything else is a surprise.
    pub(super) fn texts(&mut self) -> Vec<String> {
        let text = |got| match got {
            Got::Push { body, .. } => String::from_utf8(body).expect("text"),
            other => panic!("not a push: {other:?}"),
        };
        self.take().into_iter().map(text).collect()
    }

    fn decode(&mut self, stream: &[u8]) -> Option<usize> {
        match self.transport {
            Transport::Tcp => self.decode_packet(stream),
            Transport::WebSocket if !self.upgraded => self.decode_http(stream),
            Transport::WebSocket => self.decode_frame(stream),
        }
    }

    fn decode_packet(&mut self, stream: &[u8]) -> Option<usize> {
        let packet = packet::decode_within(stream, 1 << 24).expect("whole packets in a row")?;
        let bytes = packet.bytes();
        if packet.sequence == 0 && packet.operation != operation::KICK {
            self.push(&packet);
        } else {
            self.reply(&packet);
        }
        Some(bytes)
    }

    fn decode_http(&mut self, stream: &[u8]) -> Option<usize> {
        let response = if self.deflates { websocket::deflate_response } else { websocket::response };
        if let Ok(bytes) = response(stream, KEY) {
            self.upgraded = bytes.is_some();
            return bytes;
        }
        let text = String::from_utf8(stream.to_vec()).expect("HTTP is text");
        if !text.contains("\r\n\r\n") {
            return None;
        }
        let status = text.split(' ').nth(1)?.to_owned();
        self.got.push(Got::Http(status));
        Some(stream.len())
    }

    fn decode_frame(&mut self, stream: &[u8]) -> Option<usize> {
        let decode = if self.deflates { websocket::decode_deflated } else { websocket::decode };
        let frame = decode(stream).expect("whole frames in a row")?;
        assert!(frame.fin, "no fragments");
        let mut payload = &stream[frame.payload.clone()];
        let inflated;
        if frame.deflated {
            self.deflated += 1;
            inflated = inflate(payload);
            payload = &inflated;
        }
        match frame.opcode {
            Opcode::Binary => self.message(payload),
            Opcode::Pong => self.got.push(Got::Pong(payload.to_vec())),
            Opcode::Close => {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.got.push(Got::Close(code));
            }
            other => panic!("the server sends no {other:?}"),
        }
        Some(frame.payload.end)
    }

    fn message(&mut self, payload: &[u8]) {
        if self.dialect == Dialect::GoimV1 {
            return self.message_v1(payload);
        }
        let outer = packet::decode_within(payload, 1 << 24).expect("a packet").expect("a whole one");
        assert_eq!(outer.bytes(), payload.len(), "one packet in a message");
        if outer.operation != operation::RAW || outer.sequence != 0 {
            return self.reply(&outer);
        }
        let mut end = 0;
        for range in push::packets(outer.body) {
            end = range.end;
            let inner = packet::decode_within(&outer.body[range], 1 << 24).expect("sound").expect("whole");
            self.push(&inner);
        }
        assert_eq!(end, outer.body.len(), "whole packets in a row");
    }

    /// goim v1: packets in a row, and nothing around them.
    fn message_v1(&mut self, payload: &[u8]) {
        let mut rest = payload;
        while !rest.is_empty() {
            let bytes = self.decode_packet(rest).expect("whole packets in a row");
            rest = &rest[bytes..];
        }
    }

    fn push(&mut self, packet: &Packet<'_>) {
        if self.dialect == Dialect::GoimV1 {
            assert_eq!((packet.version, packet.operation), (0, 5), "as goim v1's pushes are");
        } else {
            assert_eq!(packet.version, 1, "as goim's pushes are");
        }
        assert_eq!(packet.sequence, 0, "a push");
        self.got.push(Got::Push { operation: packet.operation, body: packet.body.to_vec() });
    }

    fn reply(&mut self, packet: &Packet<'_>) {
        let got = if packet.operation == operation::KICK && packet.sequence == 0 {
            let kick = Kick::parse(packet.body).expect("a kick");
            Got::Kick { code: kick.code, text: kick.text.to_owned() }
        } else {
            assert_eq!(packet.version, packets::VERSION, "echoed");
            Got::Reply { operation: packet.operation, sequence: packet.sequence, body: packet.body.to_vec() }
        };
        self.got.push(got);
    }
}

/// The payload of a compressed message.
pub(super) fn deflated(message: &[u8]) -> Vec<u8> {
    let mut deflater = Deflater::new(6);
    let piece = deflater.piece(message, message.len() + 100).expect("room");
    piece[..piece.len() - TAIL.len()].to_vec()
}

/// What a compressed message of the server holds; read by another implementation than the gateway's.
fn inflate(payload: &[u8]) -> Vec<u8> {
    let input = [payload, &TAIL].concat();
    let mut out = Vec::with_capacity(1 << 20);
    let mut state = flate2::Decompress::new(false);
    let status = state.decompress_vec(&input, &mut out, flate2::FlushDecompress::Sync).expect("deflate");
    assert_eq!((status, state.total_in()), (flate2::Status::Ok, input.len() as u64), "all of it");
    out
}

/// Bytes of a push on the wire of a transport, alone in its run.
pub(super) fn push_bytes(transport: Transport, body_bytes: usize) -> usize {
    let (bytes, start) = push::encode(1000, &vec![0; body_bytes]);
    match transport {
        Transport::Tcp => HEADER_BYTES + body_bytes,
        Transport::WebSocket => bytes.len() - usize::from(start),
    }
}
