//! Echo connections on the hostile kernel: every message comes back as it was and in its order, or its client has ended.

use std::collections::VecDeque;
use std::fmt::Write;
use std::hash::Hasher;

use halley_protocol::websocket::{Opcode, client as websocket};
use halley_ring::sim::{ClientId, SimNet, Weather};

use super::dice::{Dice, Trace};
use super::plan::{LINGER_MS_MAX, weather};
use crate::shard::Transport::WebSocket;
use crate::shard::tests::client::KEY;
use crate::shard::tests::world::{Setup, World};
use crate::shard::{Dialect, ListenerSettings};

const CLIENTS: usize = 10;
const STEPS: usize = 250;

/// The second listener does not wait for ever.
const TIGHT: usize = 1;
const HEARTBEAT_MS_MAX: u32 = 2000;

/// A client, and what it must get back.
#[allow(clippy::struct_excessive_bools, reason = "what may be said of a client is independent of the rest")]
struct Echo {
    id: ClientId,
    net: SimNet,
    stream: Vec<u8>,
    upgraded: bool,
    /// What it has yet to say, if it speaks slowly.
    unsaid: VecDeque<u8>,
    slow: bool,
    /// The message that it is in the middle of.
    begun: Option<(Opcode, Vec<u8>)>,
    expected: VecDeque<(Opcode, Vec<u8>)>,
    /// Has done, or left undone, what may end it.
    may_end: bool,
    /// Nothing is understood any more, and nothing must be answered.
    ended: bool,
    closed: bool,
}

impl Echo {
    fn connect(net: &SimNet, listener: usize) -> Self {
        let mut client = Self {
            id: net.connect(listener),
            net: net.clone(),
            stream: Vec::new(),
            upgraded: false,
            unsaid: VecDeque::new(),
            slow: false,
            begun: None,
            expected: VecDeque::new(),
            may_end: false,
            ended: false,
            closed: false,
        };
        client.say(websocket::request("gateway", "/echo", KEY).as_bytes());
        client
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unsaid.extend(bytes);
    }

    fn frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        websocket::frame(&mut bytes, fin, opcode, [1, 2, 3, 250], payload);
        self.say(&bytes);
    }

    /// A whole message, a part of one, or a ping in between.
    fn speak(&mut self, dice: &mut Dice) {
        let opcode = dice.pick(&[Opcode::Text, Opcode::Binary]);
        let bytes = dice.pick(&[0, 10, 120, 130, 4000, 8190, 8200, 20_000, 70_000]);
        // Whole repetitions are sound text, wherever the frames cut them.
        let payload: Vec<u8> = "aß€𝄞".bytes().cycle().take(bytes).collect();
        match (dice.below(4), self.begun.take()) {
            (0, begun) => {
                self.frame(true, Opcode::Ping, b"ping");
                self.expected.push_back((Opcode::Pong, b"ping".to_vec()));
                self.begun = begun;
            }
            (1, None) => {
                self.frame(false, opcode, &payload);
                self.begun = Some((opcode, payload));
            }
            (_, None) => {
                self.frame(true, opcode, &payload);
                self.expected.push_back((opcode, payload));
            }
            (choice, Some((opcode, mut whole))) => {
                let last = choice > 1;
                self.frame(last, Opcode::Continuation, &payload);
                whole.extend(payload);
                if last {
                    self.expected.push_back((opcode, whole));
                } else {
                    self.begun = Some((opcode, whole));
                }
            }
        }
    }

    /// Something after which the connection ends, and what it is told.
    fn harm(&mut self, dice: &mut Dice) {
        self.may_end = true;
        let told = match dice.below(5) {
            0 => {
                self.net.reset(self.id);
                None
            }
            1 => {
                self.net.close(self.id);
                None
            }
            2 => {
                self.frame(true, Opcode::Close, &1000_u16.to_be_bytes());
                Some(1000)
            }
            3 if self.begun.is_none() => {
                self.frame(true, Opcode::Text, &[0xff; 20]);
                Some(1007)
            }
            _ => {
                self.say(&[0xff; 14]);
                Some(1002)
            }
        };
        self.ended = true;
        match told {
            Some(code) => self.expected.push_back((Opcode::Close, u16::to_be_bytes(code).to_vec())),
            None => self.expected.clear(),
        }
    }

    fn let_go(&mut self, bytes: usize) {
        let bytes = self.unsaid.len().min(bytes);
        let said: Vec<u8> = self.unsaid.drain(..bytes).collect();
        self.net.send(self.id, &said);
    }

    /// Reads what has arrived: it is what was said, from the oldest on.
    fn read(&mut self, most: usize, trace: &mut Trace) {
        self.stream.extend(self.net.recv(self.id, most));
        let mut at = 0;
        if !self.upgraded
            && let Some(bytes) = websocket::response(&self.stream, KEY).expect("an upgrade")
        {
            (at, self.upgraded) = (bytes, true);
        }
        while self.upgraded
            && let Some(frame) = websocket::decode(&self.stream[at..]).expect("whole frames in a row")
        {
            let payload = &self.stream[at..][frame.payload.clone()];
            assert!(!self.closed, "{:?} behind a close frame", frame.opcode);
            assert!(frame.fin, "whole messages");
            writeln!(trace, "{} {:?} {}", self.id.0, frame.opcode, payload.len()).expect("a trace takes all");
            self.got(frame.opcode, payload.to_vec());
            at += frame.payload.end;
        }
        self.stream.drain(..at);
    }

    fn got(&mut self, opcode: Opcode, mut payload: Vec<u8>) {
        self.closed = opcode == Opcode::Close;
        if self.closed {
            // Behind the code it is said in words.
            payload.truncate(2);
        }
        let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
        let early = self.closed && self.may_end && matches!(code, Some(1013 | 4003 | 4006));
        let silent = self.ended && self.expected.is_empty();
        if !(early || silent) {
            let expected = self.expected.pop_front();
            let fits = expected.as_ref() == Some(&(opcode, payload));
            let expected = expected.map(|(opcode, payload)| (opcode, payload.len()));
            assert!(fits, "client {} gets {opcode:?} {code:?}, not {expected:?}", self.id.0);
        }
    }
}

fn world(seed: u64, dice: &mut Dice) -> (World, bool) {
    let mut setup = Setup::new();
    setup.seed = seed;
    setup.listeners = vec![ListenerSettings::new(WebSocket), ListenerSettings::new(WebSocket)];
    let mut setup = setup.listeners(|listener| {
        listener.paths = vec![("/echo".into(), Dialect::Echo)];
        listener.linger_ms_max = LINGER_MS_MAX;
    });
    let never = u32::MAX / 2;
    for (at, listener) in setup.listeners.iter_mut().enumerate() {
        let waits = [(never, never), (HEARTBEAT_MS_MAX, 600)][at];
        (listener.heartbeat_ms_max, listener.stall_ms_max) = waits;
    }
    let short = dice.once_in(4);
    if short {
        setup.shard.outbox_entries_max = 24;
        setup.shard.partials_max = 4;
    }
    (setup.build(), short)
}

/// The story of a seed; its trace.
pub(super) fn play(seed: u64) -> u64 {
    let dice = &mut Dice::new(seed, u64::MAX - 7);
    let (mut world, short) = world(seed, dice);
    let kind = dice.once_in(3);
    let mut trace = Trace::new();
    let mut clients: Vec<Echo> = (0..CLIENTS).map(|at| Echo::connect(&world.net, at % 2)).collect();
    clients.iter_mut().for_each(|client| client.may_end = short);
    for step in 0..STEPS {
        if step % 50 == 0 {
            let weather = weather(dice, kind);
            clients.iter_mut().for_each(|client| client.may_end |= weather.broken > 0);
            world.net.set_weather(weather);
        }
        let at = dice.below(CLIENTS);
        let client = &mut clients[at];
        match dice.below(16) {
            0 => client.slow = !client.slow,
            1 => client.net.set_window(client.id, dice.pick(&[0, 100, 20_000, usize::MAX])),
            2 => {
                world.now_ms += dice.pick(&[10, 100, 300]);
                // Who is not heard of, or does not take anything, may be gone by now.
                clients.iter_mut().skip(TIGHT).step_by(2).for_each(|client| client.may_end = true);
            }
            3 if !kind && dice.once_in(3) && !client.ended => client.harm(dice),
            _ if client.ended => {}
            _ => client.speak(dice),
        }
        for client in &mut clients {
            let (says, takes) = if client.slow { (dice.below(40), dice.below(200)) } else { (usize::MAX, usize::MAX) };
            client.let_go(says);
            client.read(takes, &mut trace);
        }
        for _ in 0..dice.below(3) {
            world.round();
        }
    }
    end(&mut world, &mut clients, &mut trace);
    trace.write_u64(world.stats(0).sent_bytes.get());
    trace.finish()
}

/// Everything that is on its way arrives; who may stay has stayed, and then all go.
fn end(world: &mut World, clients: &mut [Echo], trace: &mut Trace) {
    world.net.set_weather(Weather::default());
    for client in clients.iter_mut() {
        client.net.set_window(client.id, usize::MAX);
        client.let_go(usize::MAX);
    }
    world.settle();
    for client in clients.iter_mut() {
        client.read(usize::MAX, trace);
        let gone = client.net.server_closed(client.id);
        assert!(client.may_end || !(gone || client.closed), "client {} is gone", client.id.0);
        if !(gone || client.closed) {
            assert!(client.expected.is_empty() && client.stream.is_empty(), "{} still wait", client.expected.len());
        }
    }
    world.advance(u64::from(HEARTBEAT_MS_MAX) + 400);
    for (at, client) in clients.iter_mut().enumerate() {
        client.read(usize::MAX, trace);
        let gone = client.net.server_closed(client.id);
        assert!(gone || (at % 2 != TIGHT && !client.ended), "client {} is still there", client.id.0);
        assert!(!gone || client.may_end || at % 2 == TIGHT, "client {} is gone", client.id.0);
        client.may_end = true;
        client.net.close(client.id);
    }
    world.settle();
    world.advance(400);
    world.assert_empty();
}
