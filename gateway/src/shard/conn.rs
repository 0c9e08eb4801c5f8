//! The connection table: one hot cache line per connection, the rest apart, and the free slots.

use std::net::{IpAddr, SocketAddr};

use bytemuck::Zeroable;
use halley_ring::Slot;

use crate::ids::Generation;
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

use super::accepts::SetIndex;

/// Where a connection is in its life. What may be in flight is said with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(u8)]
pub(super) enum Phase {
    /// On the free list; nothing is in flight.
    #[default]
    Free = 0,
    /// Given to an accept that is in flight.
    Accepting,
    /// Waiting for the HTTP head: a poll for reading.
    Handshake,
    /// Waiting for the login: a poll for reading, or the question to control.
    Login,
    /// Logged in: polls for reading and writing, a question to control.
    Open,
    /// Its end is decided; last bytes leave, input is discarded: as in `Open`.
    Lingering,
    /// Close and cancels are in flight, and perhaps a question; ends when all of them are done.
    Closing,
}

/// Bits of [`Conn::flags`].
pub(super) mod flag {
    /// In flight: a poll for reading.
    pub(in crate::shard) const POLL_READ: u32 = 1;
    /// In flight: a poll for writing.
    pub(in crate::shard) const POLL_WRITE: u32 = 1 << 1;
    /// In flight: the close.
    pub(in crate::shard) const CLOSE: u32 = 1 << 2;
    /// In flight: a question to control.
    pub(in crate::shard) const ASK: u32 = 1 << 3;
    /// In flight: messages passed on that have no answer yet.
    pub(in crate::shard) const UPSTREAM: u32 = 1 << 30;
    /// Everything that must end before the slot is free.
    pub(in crate::shard) const IN_FLIGHT: u32 = POLL_READ | POLL_WRITE | CLOSE | ASK | UPSTREAM;
    /// On the list of connections to read.
    pub(in crate::shard) const READY: u32 = 1 << 4;
    /// On the list of connections to write.
    pub(in crate::shard) const WRITABLE: u32 = 1 << 5;
    /// Pushes queue up behind the reply to the login.
    pub(in crate::shard) const HELD: u32 = 1 << 6;
    /// Control knows of the connection and must be told when it is gone.
    pub(in crate::shard) const KNOWN: u32 = 1 << 7;
    /// The login carried Halley's mark.
    pub(in crate::shard) const MARKED: u32 = 1 << 8;
    /// The peer has been told why: its end of file is waited for.
    pub(in crate::shard) const TOLD: u32 = 1 << 9;
    /// Not read until its outbox is empty.
    pub(in crate::shard) const PAUSED: u32 = 1 << 10;
    /// Speaks WebSocket.
    pub(in crate::shard) const WEBSOCKET: u32 = 1 << 11;
    /// The input is not decoded any more.
    pub(in crate::shard) const DEAF: u32 = 1 << 12;
    /// Has a login room: the first of its links.
    pub(in crate::shard) const LOGIN_ROOM: u32 = 1 << 13;
    /// On the list of those waiting for an ask buffer.
    pub(in crate::shard) const WAITS_ASK: u32 = 1 << 14;
    /// Its last words wait among the replies.
    pub(in crate::shard) const UNSAID: u32 = 1 << 16;
    /// The peer will send no more.
    pub(in crate::shard) const ENDED: u32 = 1 << 15;
    /// Gets back what it says, and nothing else.
    pub(in crate::shard) const ECHO: u32 = 1 << 17;
    /// Was read after its deadline for a login.
    pub(in crate::shard) const LAST_READ: u32 = 1 << 18;
    /// Speaks goim v1.
    pub(in crate::shard) const V1: u32 = 1 << 19;
    /// The header of its proxy has not been read.
    pub(in crate::shard) const PROXIED: u32 = 1 << 21;
    /// Counts in its network.
    pub(in crate::shard) const COUNTED: u32 = 1 << 20;
    /// Its token does not allow every operation.
    pub(in crate::shard) const LIMITED: u32 = 1 << 24;
    /// Speaks TLS.
    pub(in crate::shard) const TLS: u32 = 1 << 25;
    /// On the list of those whose TLS handshake waits for its turn.
    pub(in crate::shard) const WAITS_TURN: u32 = 1 << 26;
    /// Its TLS handshake may go on when it is read next.
    pub(in crate::shard) const HAS_TURN: u32 = 1 << 27;
    /// Has agreed to compression.
    pub(in crate::shard) const DEFLATE: u32 = 1 << 28;
}

/// How a connection reads what it gets: what picks the bytes of a run, and where they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Tcp,
    WebSocket,
    /// WebSocket, with messages deflated where that makes them smaller.
    Deflate,
    TcpV1,
    WebSocketV1,
}

impl Class {
    pub(super) fn is_websocket(self) -> bool {
        matches!(self, Self::WebSocket | Self::Deflate | Self::WebSocketV1)
    }

    pub(super) fn is_v1(self) -> bool {
        matches!(self, Self::TcpV1 | Self::WebSocketV1)
    }
}

/// What every turn may touch of a connection. Indices are one more than the place they name; 0 is none.
#[derive(Debug, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Conn {
    pub(super) generation: Generation,
    /// The last batch that held a send to this connection.
    pub(super) batch: u32,
    /// Its outbox while it is blocked.
    pub(super) outbox: u32,
    /// Its chunk while a packet is unfinished.
    pub(super) chunk: u32,
    /// Its first room.
    pub(super) link: u32,
    pub(super) timer_next: u32,
    pub(super) timer_prev: u32,
    /// Where the timer wheel holds it, in ticks.
    pub(super) timer_at: u32,
    /// Login, heartbeat or linger deadline, in ticks.
    pub(super) deadline: u32,
    /// The last room count told, kept after the room is left.
    pub(super) online: u32,
    pub(super) ticket: u64,
    pub(super) flags: u32,
    pub(super) accepts: SetIndex,
    pub(super) phase: Phase,
    pub(super) listener: u8,
    pub(super) rooms: u8,
    /// The close reason's number, once there is one.
    pub(super) reason: u8,
}

const _: () = assert!(size_of::<Conn>() == 64, "one cache line per connection");

impl Conn {
    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags & flags != 0
    }

    pub(super) fn set(&mut self, flags: u32) {
        self.flags |= flags;
    }

    pub(super) fn clear(&mut self, flags: u32) {
        self.flags &= !flags;
    }

    /// How it reads what it gets.
    pub(super) fn class(&self) -> Class {
        const SPEECH: u32 = flag::WEBSOCKET | flag::V1 | flag::DEFLATE;
        const DEFLATE: u32 = flag::WEBSOCKET | flag::DEFLATE;
        let spoken = if planted(Bug::V1ReadsV2) { self.flags & !flag::V1 } else { self.flags };
        match spoken & SPEECH {
            0 => Class::Tcp,
            flag::WEBSOCKET => Class::WebSocket,
            DEFLATE => Class::Deflate,
            flag::V1 => Class::TcpV1,
            _ => Class::WebSocketV1,
        }
    }

    /// Whether sends must queue up.
    pub(super) fn is_blocked(&self) -> bool {
        self.outbox != 0 || self.has(flag::HELD)
    }

    /// Whether pushes reach it.
    pub(super) fn takes_pushes(&self) -> bool {
        self.phase == Phase::Open || (self.phase == Phase::Login && self.has(flag::HELD))
    }

    pub(super) fn close_reason(&self) -> CloseReason {
        CloseReason::ALL[usize::from(self.reason)]
    }
}

/// What is looked at when a connection comes, asks and goes.
#[derive(Clone, Copy, Debug, Zeroable)]
pub(super) struct Cold {
    /// The address if it is IPv4; others are in a table of their own, which such connections do not touch.
    v4: [u8; 4],
    port: u16,
    is_v6: bool,
    /// Tick of its accept.
    pub(super) accepted_at: u32,
}

const _: () = assert!(size_of::<Cold>() == 12, "as the memory budget says");

/// All connections of a shard. Address space at start, memory when a slot is first used.
pub(super) struct Table {
    pub(super) hot: Box<[Conn]>,
    cold: Box<[Cold]>,
    v6: Box<[[u8; 16]]>,
    /// Free slots that have been used before, as a list through `timer_next`.
    free: u32,
    free_count: u32,
    /// Slots from here on were never used.
    fresh: u32,
}

impl Table {
    pub(super) fn new(slots: u32) -> Self {
        Self {
            hot: bytemuck::zeroed_slice_box(slots as usize),
            cold: bytemuck::zeroed_slice_box(slots as usize),
            v6: bytemuck::zeroed_slice_box(slots as usize),
            free: 0,
            free_count: 0,
            fresh: 0,
        }
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.hot.len()).unwrap_or(u32::MAX)
    }

    /// Slots that an accept could take now.
    pub(super) fn free_slots(&self) -> u32 {
        self.free_count + self.slots() - self.fresh
    }

    /// Slots that have ever been used: the others need not be looked at.
    pub(super) fn used(&self) -> u32 {
        self.fresh
    }

    /// Takes a free slot for an accept, the one freed last first: its memory is warm.
    pub(super) fn take(&mut self) -> Option<Slot> {
        let slot = if self.free != 0 {
            let slot = Slot(self.free - 1);
            self.free = self.hot[slot.at()].timer_next;
            self.free_count -= 1;
            slot
        } else if self.fresh < self.slots() {
            self.fresh += 1;
            Slot(self.fresh - 1)
        } else {
            return None;
        };
        let conn = &mut self.hot[slot.at()];
        assert_eq!(conn.phase, Phase::Free, "the free list holds free slots");
        conn.timer_next = 0;
        conn.phase = Phase::Accepting;
        Some(slot)
    }

    /// Frees a slot; the next connection in it has another generation.
    pub(super) fn give(&mut self, slot: Slot) {
        let generation = self.hot[slot.at()].generation.wrapping_add(1);
        self.hot[slot.at()] = Conn { generation, timer_next: self.free, ..Conn::zeroed() };
        self.free = slot.0 + 1;
        self.free_count += 1;
    }

    /// Begins a connection in a slot that an accept filled.
    pub(super) fn begin(&mut self, slot: Slot, peer: SocketAddr, tick: u32) {
        self.cold[slot.at()].accepted_at = tick;
        self.set_peer(slot, peer);
    }

    /// The peer has another address, as its proxy says.
    pub(super) fn set_peer(&mut self, slot: Slot, peer: SocketAddr) {
        let (v4, is_v6) = match peer.ip() {
            IpAddr::V4(address) => (address.octets(), false),
            IpAddr::V6(address) => {
                self.v6[slot.at()] = address.octets();
                ([0; 4], true)
            }
        };
        let Cold { accepted_at, .. } = self.cold[slot.at()];
        self.cold[slot.at()] = Cold { v4, port: peer.port(), is_v6, accepted_at };
    }

    pub(super) fn cold(&self, slot: Slot) -> &Cold {
        &self.cold[slot.at()]
    }

    /// The peer's address.
    pub(super) fn peer(&self, slot: Slot) -> SocketAddr {
        let Cold { v4, port, is_v6, .. } = self.cold[slot.at()];
        if is_v6 { (self.v6[slot.at()], port).into() } else { (v4, port).into() }
    }
}

impl std::ops::Index<Slot> for Table {
    type Output = Conn;
    fn index(&self, slot: Slot) -> &Conn {
        &self.hot[slot.at()]
    }
}

impl std::ops::IndexMut<Slot> for Table {
    fn index_mut(&mut self, slot: Slot) -> &mut Conn {
        &mut self.hot[slot.at()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_given_once_until_it_is_freed() {
        let mut table = Table::new(3);
        let slots: Vec<_> = std::iter::from_fn(|| table.take()).collect();
        assert_eq!(slots, [Slot(0), Slot(1), Slot(2)]);
        assert_eq!(table.free_slots(), 0);
        table.give(Slot(1));
        assert_eq!((table.free_slots(), table[Slot(1)].generation), (1, 1));
        assert_eq!(table.take(), Some(Slot(1)));
        assert_eq!(table.take(), None);
    }

    #[test]
    fn an_address_is_kept_as_it_was() {
        for peer in ["127.0.0.1:80", "[2001:db8::1]:65535"] {
            let peer: SocketAddr = peer.parse().expect("an address");
            let mut table = Table::new(1);
            table.begin(Slot(0), peer, 0);
            assert_eq!(table.peer(Slot(0)), peer);
        }
    }
}
