//! Stories of echo connections: what comes back, what is held meanwhile, and what is left of them.

use halley_protocol::websocket::{Opcode, client as websocket};
use halley_ring::sim::ClientId;

use super::session::login;
use super::world::{Setup, World};
use crate::alloc::allocations;
use crate::dispatch::Target;
use crate::reason::CloseReason;
use crate::shard::Transport::WebSocket;
use crate::shard::runs::Runs;
use crate::shard::{Dialect, ListenerSettings};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A client of the echo path, which both dialects' listeners have here.
struct Echo {
    id: ClientId,
    stream: Vec<u8>,
}

fn setup() -> Setup {
    Setup::new().listeners(|listener: &mut ListenerSettings| listener.paths.push(("/echo".into(), Dialect::Echo)))
}

impl Echo {
    fn connect(world: &mut World) -> Self {
        let mut client = Self { id: world.net.connect(1), stream: Vec::new() };
        world.net.send(client.id, websocket::request("gateway", "/echo", KEY).as_bytes());
        world.settle();
        client.read(world);
        let response = websocket::response(&client.stream, KEY).expect("an upgrade").expect("a whole one");
        client.stream.drain(..response);
        client
    }

    fn frame(&self, world: &World, fin: bool, opcode: Opcode, payload: &[u8]) {
        let mut bytes = Vec::new();
        websocket::frame(&mut bytes, fin, opcode, [0x12, 0x34, 0x56, 0x78], payload);
        world.net.send(self.id, &bytes);
    }

    fn read(&mut self, world: &World) {
        self.stream.extend(world.net.recv(self.id, usize::MAX));
    }

    /// The frames that have arrived whole; none may be a fragment.
    fn take(&mut self, world: &World) -> Vec<(Opcode, Vec<u8>)> {
        self.read(world);
        let (mut frames, mut at) = (Vec::new(), 0);
        while let Some(frame) = websocket::decode(&self.stream[at..]).expect("sound") {
            assert!(frame.fin, "whole messages");
            frames.push((frame.opcode, self.stream[at..][frame.payload.clone()].to_vec()));
            at += frame.payload.end;
        }
        self.stream.drain(..at);
        frames
    }
}

fn text(bytes: usize) -> Vec<u8> {
    "aß€𝄞".bytes().cycle().take(bytes).collect()
}

#[test]
fn messages_come_back_as_they_were_in_their_order() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    client_window(&world, &client, usize::MAX);
    let mut sent = Vec::new();
    for bytes in [0, 10, 120, 130, 8190, 8200, 16_380, 16_390, 70_000, 20] {
        for opcode in [Opcode::Text, Opcode::Binary] {
            client.frame(&world, true, opcode, &text(bytes));
            sent.push((opcode, text(bytes)));
        }
    }
    world.settle();
    assert_eq!(client.take(&world), sent);
    assert_eq!((world.shards[0].chunks.kept(), world.stats(0).pinned_bytes.get()), (0, 0));
    client.frame(&world, true, Opcode::Close, &1000u16.to_be_bytes());
    world.settle();
    assert_eq!(client.take(&world), [(Opcode::Close, 1000u16.to_be_bytes().to_vec())]);
    world.assert_empty();
}

#[test]
fn a_ping_within_a_long_message_is_answered_before_its_end() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    client_window(&world, &client, usize::MAX);
    client.frame(&world, false, Opcode::Text, &text(20_000));
    client.frame(&world, true, Opcode::Ping, b"now");
    world.settle();
    assert_eq!(client.take(&world), [(Opcode::Pong, b"now".to_vec())]);
    client.frame(&world, true, Opcode::Continuation, &text(10));
    world.settle();
    assert_eq!(client.take(&world), [(Opcode::Text, text(20_010))]);
}

#[test]
fn who_does_not_take_its_echo_is_not_read_and_loses_nothing() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    client_window(&world, &client, 0);
    let sent: Vec<_> = (0..200).map(|n| (Opcode::Binary, vec![n; 6000])).collect();
    for (opcode, payload) in &sent {
        client.frame(&world, true, *opcode, payload);
    }
    world.settle();
    assert!(world.stats(0).pinned_bytes.get() < 4 * 8448, "{}", world.stats(0).pinned_bytes.get());
    client_window(&world, &client, usize::MAX);
    world.settle();
    assert_eq!(client.take(&world), sent);
}

#[test]
fn bytes_held_for_echoes_are_bounded_and_apart_from_those_of_others() {
    let mut world = setup().build();
    world.shards[0].runs = Runs::new(64, 1 << 20, [1 << 20, 40_000]);
    let mut clients: Vec<_> = (0..3).map(|_| Echo::connect(&mut world)).collect();
    for client in &clients {
        client.frame(&world, false, Opcode::Binary, &vec![7; 17_000]);
        world.settle();
    }
    let told = [vec![], vec![], vec![(Opcode::Close, [&1013u16.to_be_bytes()[..], b"outbox-pool"].concat())]];
    for (client, told) in clients.iter_mut().zip(told) {
        assert_eq!(client.take(&world), told);
    }
    assert_eq!(world.closes(CloseReason::OutboxPool), 1);
    for client in &clients {
        world.net.reset(client.id);
    }
    world.settle();
    world.assert_empty();
}

#[test]
fn a_message_that_never_ends_leaves_nothing_behind() {
    for whole in [false, true] {
        let mut world = setup().build();
        let client = Echo::connect(&mut world);
        client_window(&world, &client, 0);
        client.frame(&world, whole, Opcode::Binary, &vec![7; 30_000]);
        world.settle();
        assert!(world.stats(0).pinned_bytes.get() >= 24_576);
        world.net.reset(client.id);
        world.settle();
        assert_eq!(world.closes(CloseReason::PeerReset), 1);
        world.assert_empty();
    }
}

#[test]
fn bad_text_is_told_1007_as_soon_as_it_is_there() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    client.frame(&world, false, Opcode::Text, &text(9000));
    client.frame(&world, false, Opcode::Continuation, &[0xff]);
    world.settle();
    assert_eq!(client.take(&world), [(Opcode::Close, [&1007u16.to_be_bytes()[..], b"frame-not-utf8"].concat())]);
    world.net.close(client.id);
    world.settle();
    world.assert_empty();
}

#[test]
fn an_echo_connection_gets_no_pushes_and_goes_when_it_is_silent() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    let mut other = world.enter(WebSocket, &login("key", ""));
    world.dispatch(&Target::All, 1000, "to all").expect("places");
    world.advance(300_000);
    assert_eq!((client.take(&world), other.texts()), (vec![], vec!["to all".to_owned()]));
    client.frame(&world, true, Opcode::Text, b"still here");
    world.advance(300_000);
    assert_eq!(client.take(&world), [(Opcode::Text, b"still here".to_vec())]);
    world.advance(300_000);
    assert_eq!(world.closes(CloseReason::HeartbeatMissed), 2, "the other has been silent all the time");
    drop((client, other));
}

#[test]
fn echoes_allocate_nothing() {
    let mut world = setup().build();
    let mut client = Echo::connect(&mut world);
    client_window(&world, &client, usize::MAX);
    let mut allocated = 0;
    for round in 0..6 {
        for bytes in [10, 9000, 100_000, 8190] {
            client.frame(&world, true, Opcode::Text, &text(bytes));
        }
        let before = allocations();
        world.settle();
        if round >= 3 {
            allocated += allocations() - before;
        }
        assert_eq!(client.take(&world).len(), 4);
    }
    assert_eq!(allocated, 0);
}

fn client_window(world: &World, client: &Echo, bytes: usize) {
    world.net.set_window(client.id, bytes);
}
