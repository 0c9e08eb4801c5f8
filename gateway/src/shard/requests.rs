//! What a client says: goim's operations, and Halley's for those whose login asked for them.

use std::ops::Range;
use std::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use halley_protocol::operation;
use halley_protocol::packet::{BODY_BYTES_MAX, Packet};
use halley_ring::{Ring, Slot};

use crate::order::Ask;
use crate::reason::{CloseReason, Reject};

use super::Shard;
use super::accepts;
use super::chunks::ChunkIndex;
use super::close::append_packet;
use super::conn::{Phase, flag};
use super::timers;

/// Packets of one connection that a turn serves: one connection cannot hold its shard up.
pub(super) const PER_TURN_MAX: usize = 128;

/// Bytes that the replies of one connection in one turn can take.
pub(super) const REPLY_BYTES_MAX: usize = 4 * 16 * 1024;

/// The longest list of operations that fits a packet: single digits between commas.
const OPERATIONS_MAX: usize = BODY_BYTES_MAX / 2 + 1;

/// A packet whose body lies in the connection's chunk.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) version: i16,
    pub(super) operation: i32,
    pub(super) sequence: i32,
    pub(super) body: Range<usize>,
}

impl Request {
    pub(super) fn new(packet: &Packet<'_>, body: Range<usize>) -> Self {
        Self { version: packet.version, operation: packet.operation, sequence: packet.sequence, body }
    }
}

impl Ask {
    /// A buffer that nobody uses.
    pub(super) fn empty() -> Self {
        Self {
            listener: 0,
            ticket: 0,
            peer: (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
            version: 0,
            operation: 0,
            sequence: 0,
            body_bytes: 0,
            body: [0; BODY_BYTES_MAX],
        }
    }
}

impl<R: Ring> Shard<R> {
    /// Serves one packet. Before the login everything but the login is ignored, as goim v2 does.
    pub(super) fn serve(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) -> Result<(), CloseReason> {
        self.stats().packets.add(1);
        match self.table[slot].phase {
            Phase::Login | Phase::Open if self.table[slot].has(flag::V1) => return self.serve_v1(slot, chunk, request),
            Phase::Login if request.operation == operation::AUTH => self.ask_control(slot, chunk, request),
            Phase::Open => self.serve_open(slot, chunk, request),
            _ => {}
        }
        Ok(())
    }

    fn serve_open(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) {
        let marked = self.table[slot].has(flag::MARKED);
        match request.operation {
            operation::HEARTBEAT => {
                self.heard_heartbeat(slot);
                self.reply_online(slot, request, operation::HEARTBEAT_REPLY);
            }
            // goim runs into the branch of its own heartbeat reply.
            operation::HEARTBEAT_REPLY => self.reply_online(slot, request, operation::HEARTBEAT_REPLY),
            // goim writes its body raw, which is empty, on TCP; as a packet on WebSocket.
            operation::RAW if !self.class(slot).is_websocket() => {}
            operation::CHANGE_ROOM => self.ask_control(slot, chunk, request),
            operation::SUBSCRIBE if self.table[slot].has(flag::LIMITED) => self.ask_control(slot, chunk, request),
            operation::SUBSCRIBE => self.subscribe(slot, chunk, request, true),
            operation::UNSUBSCRIBE => self.subscribe(slot, chunk, request, false),
            operation::JOIN | operation::LEAVE | operation::REFRESH if marked => self.ask_control(slot, chunk, request),
            other if self.passes_on(other) => self.pass_on(slot, chunk, request),
            other => self.reply_to(slot, request, other, &[]),
        }
    }

    /// The deadline begins anew.
    pub(super) fn heard_heartbeat(&mut self, slot: Slot) {
        let heartbeat = timers::ticks(self.listener(slot).heartbeat_ms_max);
        self.table[slot].deadline = self.tick + heartbeat;
    }

    /// Hands the packet to control. `receive` decodes no packet without a buffer in reserve.
    pub(super) fn ask_control(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request) {
        let mut ask = self.asks.pop().expect("a buffer in reserve");
        let (bytes, _) = self.chunks.parts(chunk);
        let body = &bytes[request.body.clone()];
        ask.body[..body.len()].copy_from_slice(body);
        ask.body_bytes = u16::try_from(body.len()).expect("a body is at most 4096 bytes");
        ask.version = request.version;
        ask.operation = request.operation;
        ask.sequence = request.sequence;
        ask.listener = self.table[slot].listener;
        ask.ticket = self.table[slot].ticket;
        ask.peer = self.table.peer(slot);
        self.ask(slot, ask);
    }

    /// Adds a reply with this operation and the request's version and sequence to `reply`.
    pub(super) fn reply_to(&mut self, slot: Slot, request: &Request, operation: i32, body: &[u8]) {
        let packet = Packet { version: request.version, operation, sequence: request.sequence, body };
        self.write_packet(slot, &packet);
    }

    fn reply_online(&mut self, slot: Slot, request: &Request, operation: i32) {
        self.keep_online(slot);
        let online = self.table[slot].online;
        self.reply_to(slot, request, operation, &online.to_be_bytes());
    }

    /// Looks the count of the login room up; without a room the last one stays.
    pub(super) fn keep_online(&mut self, slot: Slot) {
        if !self.table[slot].has(flag::LOGIN_ROOM) {
            return;
        }
        let Some(room) = self.rooms.of(&self.table, slot).next() else { return };
        let everywhere = self.link.room_online[room.index.0 as usize].load(Ordering::Relaxed);
        self.table[slot].online = if everywhere > 0 { everywhere } else { self.rooms.members(room.index) };
    }

    /// Adds operations to what the connection accepts, or takes them away; echoed whatever becomes of it.
    fn subscribe(&mut self, slot: Slot, chunk: ChunkIndex, request: &Request, add: bool) {
        let (bytes, _) = self.chunks.parts(chunk);
        let body = &bytes[request.body.clone()];
        let mut named = ArrayVec::<i32, OPERATIONS_MAX>::new();
        let good = operation::parse_operations(body, |operation| named.push(operation));
        let packet =
            Packet { version: request.version, operation: request.operation + 1, sequence: request.sequence, body };
        append_packet(&mut self.reply, self.table[slot].has(flag::WEBSOCKET), &packet);
        if good && !named.is_empty() {
            self.change_accepts(slot, &mut named, add);
        }
    }

    /// Adds operations that control has allowed.
    pub(super) fn accept(&mut self, slot: Slot, list: &[u8]) {
        let mut named = ArrayVec::<i32, OPERATIONS_MAX>::new();
        if operation::parse_operations(list, |operation| named.push(operation)) && !named.is_empty() {
            self.change_accepts(slot, &mut named, true);
        }
    }

    fn change_accepts(&mut self, slot: Slot, named: &mut ArrayVec<i32, OPERATIONS_MAX>, add: bool) {
        let before = self.table[slot].accepts;
        let old = self.accept_sets.operations(before);
        if add {
            if named.try_extend_from_slice(old).is_err() {
                self.reject(Reject::TooManyAccepts);
                return;
            }
        } else {
            let kept: ArrayVec<i32, { crate::limits::ACCEPTS_MAX }> =
                old.iter().copied().filter(|operation| !named.contains(operation)).collect();
            named.clear();
            named.extend(kept);
        }
        match self.accept_sets.take(named) {
            Ok(set) => {
                self.table[slot].accepts = set;
                self.accept_sets.give(before);
            }
            Err(accepts::TooMany) => self.reject(Reject::TooManyAccepts),
        }
    }
}
