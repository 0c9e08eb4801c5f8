//! What threads tell each other: `Order` (to a shard) and `Report` (from a shard), nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::ids::{ConnWord, RoomRef};
use crate::limits;
use crate::payload::Payload;
use crate::reason::CloseReason;
use crate::shard::Reloadable;

/// An instruction to one shard. Orders of one queue are carried out in the order they were put.
#[derive(Debug)]
pub enum Order {
    /// What a login is allowed, sent before the directory names the connection: from here on pushes
    /// to it queue up behind the reply. An [`Order::Answer`] with [`Verdict::Admit`] follows.
    Grant {
        /// The connection that asked.
        conn: ConnWord,
        /// What it may do.
        grant: Box<Grant>,
    },
    /// The answer to a [`Report::Ask`]; brings the ask buffer back, also when the connection is gone. After
    /// [`Verdict::Later`] the connection waits on, for an [`Order::Decided`].
    Answer {
        /// The connection that asked.
        conn: ConnWord,
        /// The buffer of the question.
        ask: Box<Ask>,
        /// The decision.
        verdict: Verdict,
    },
    /// The answer to a question that could not be decided at once.
    Decided {
        /// The connection that asked.
        conn: ConnWord,
        /// What it asked.
        asked: Box<Asked>,
        /// The decision; not [`Verdict::Later`].
        verdict: Verdict,
    },
    /// A push to everybody of this shard in a room.
    Room {
        /// The room as this shard numbers it.
        room: RoomRef,
        /// The message.
        payload: Payload,
    },
    /// A push to these connections, as far as they accept the operation.
    Direct {
        /// All on this shard.
        conns: Box<[ConnWord]>,
        /// The message.
        payload: Payload,
    },
    /// A push to every logged-in connection of this shard that accepts the operation.
    All {
        /// The message.
        payload: Payload,
    },
    /// End a connection.
    Close {
        /// Which.
        conn: ConnWord,
        /// Why; told to the peer where the protocol can.
        reason: CloseReason,
    },
    /// Report what is known of a connection ([`Report::Inspected`]).
    Inspect {
        /// Which.
        conn: ConnWord,
        /// Given back in the report.
        token: u64,
    },
    /// Go on by other settings.
    Reload {
        /// All of them; the shards share one copy.
        settings: Arc<Reloadable>,
    },
    /// Take no more connections until told to go on.
    HoldAccepts {
        /// Whether to stop, or to go on.
        hold: bool,
    },
    /// Stop accepting, close everything as [`CloseReason::Drain`] at the pace of the plan, empty the outboxes, report
    /// [`Report::Drained`] and end. Pushes go on to those who are still there.
    Drain {
        /// The pace.
        plan: DrainPlan,
    },
    /// TLS connections of a listener begin with this from now on; those that are there keep what they began with.
    Certificates {
        /// Index of the listener in the configuration.
        listener: u8,
        /// The certificates, and what else a handshake goes by.
        config: Arc<rustls::ServerConfig>,
    },
}

/// The pace of a drain, in milliseconds from its order on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Connections are told to go evenly over this time.
    pub evict_ms: u32,
    /// They come back evenly over this time: at least `evict_ms`. Who can be told a delay is told the difference.
    pub window_ms: u32,
    /// What is left is closed by force.
    pub deadline_ms: u32,
}

impl DrainPlan {
    /// The plan for so many connections. So few that anybody bears them at once are not spread over the whole window: a
    /// thousand a second come back at least. Evictions leave a quarter of the time for last bytes.
    pub fn new(connections: u64, window_ms: u32, deadline_ms: u32) -> Self {
        const RETURNS_PER_SECOND_MIN: u64 = 1000;
        let needed = u32::try_from(connections * 1000 / RETURNS_PER_SECOND_MIN).unwrap_or(u32::MAX);
        let window_ms = window_ms.min(needed);
        Self { evict_ms: window_ms.min(deadline_ms - deadline_ms / 4), window_ms, deadline_ms }
    }

    /// Slots of `used` that are told after so many milliseconds.
    pub fn due(&self, used: u32, elapsed_ms: u64) -> u32 {
        if elapsed_ms >= u64::from(self.evict_ms) {
            return used;
        }
        let due = u64::from(used) * elapsed_ms / u64::from(self.evict_ms);
        u32::try_from(due).expect("a part of them")
    }

    /// How long the client of a slot is told to stay away: what the evictions fall short of the window.
    pub fn away_ms(&self, slot: u32, used: u32) -> u32 {
        let away = u64::from(self.window_ms - self.evict_ms) * u64::from(slot) / u64::from(used.max(1));
        u32::try_from(away).expect("a part of the window")
    }
}

impl Order {
    /// Whether the order counts against the credits of dispatch (control's own orders do not).
    pub fn is_push(&self) -> bool {
        matches!(self, Self::Room { .. } | Self::Direct { .. } | Self::All { .. })
    }

    /// What a push weighs in the queue; 0 for control's own orders.
    pub fn weight(&self) -> usize {
        match self {
            Self::Direct { conns, payload } => push_weight(payload.weight(), conns.len()),
            Self::Room { payload, .. } | Self::All { payload } => push_weight(payload.weight(), 0),
            _ => 0,
        }
    }
}

/// What a push of so many payload bytes to so many named connections weighs.
pub fn push_weight(payload_bytes: usize, named: usize) -> usize {
    payload_bytes + limits::PUSH_TARGET_WEIGHT * named
}

/// What a login is allowed.
#[derive(Debug)]
pub struct Grant {
    /// Control's own word for the connection, given back in [`Report::Gone`] and in later asks.
    pub ticket: u64,
    /// The login room, already marked in the directory.
    pub room: Option<RoomRef>,
    /// Accepted operations, any order, repeats allowed. Held in place: one allocation per login, and of a
    /// size of its own, so that freed ones do not leave holes among the directory's records.
    pub accepts: ArrayVec<i32, { limits::ACCEPTS_MAX }>,
    /// The login carried Halley's mark: negative operations are understood.
    pub marked: bool,
    /// Not every operation may be accepted: subscriptions are control's to decide.
    pub limited: bool,
    /// Packets that it may say in a second; 0: those of its listener.
    pub rate: u32,
}

/// Control's decision on an [`Ask`].
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// The platform is asked: the decision follows.
    Later,
    /// The login stands: reply with op 8.
    Admit,
    /// End the connection for this reason.
    Refuse(CloseReason),
    /// Op 12: the login room is now this one, or none. Echoed.
    Move(Option<RoomRef>),
    /// Join a further room, and reply with the status and this member count (the room's size as the
    /// directory knows it, the joining one included).
    Join {
        /// The room, already marked in the directory.
        room: RoomRef,
        /// Members, for the reply.
        members: u32,
    },
    /// Op 12 or Halley's join, into a room with as many members as it may have: as before for who is one of them,
    /// refused for others.
    RoomFull {
        /// The room, if it has members in this shard.
        room: Option<RoomRef>,
        /// As in [`Verdict::Join`].
        members: u32,
        /// Op 12.
        moves: bool,
    },
    /// Halley's join refused without closing: the name is not one, or there is no place for another room.
    JoinRefused,
    /// Leave the room. `None`: no such room here, reply "not a member".
    Leave(Option<RoomRef>),
    /// Op 14 of a limited connection, whose grant allows what it names. Echoed.
    Accept,
    /// Op 14 of a limited connection, whose grant does not. Echoed, counted, and without effect.
    AcceptRefused,
    /// The connection's grant is that of its new token.
    Refreshed {
        /// Until it ends.
        seconds: u32,
        /// As in a [`Grant`].
        limited: bool,
        /// As in a [`Grant`].
        rate: u32,
    },
    /// The new token is not good for the connection, whose grant stays as it is.
    RefreshRefused {
        /// Until that ends; 0 without one.
        seconds: u32,
    },
}

/// A packet that control decides on: a login, a change of room, a join, a leave, and what is said of tokens. The buffers belong
/// to a pool of the shard, go to control in a [`Report::Ask`] and come back in an [`Order::Answer`].
#[derive(Debug)]
pub struct Ask {
    /// Index of the listener in the configuration.
    pub listener: u8,
    /// Control's word for the connection; 0 before its login.
    pub ticket: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The packet's version, echoed.
    pub version: i16,
    /// The packet's operation: 7, 12, or one of Halley's.
    pub operation: i32,
    /// The packet's sequence, echoed.
    pub sequence: i32,
    /// Bytes used of `body`.
    pub body_bytes: u16,
    /// The packet's body.
    pub body: [u8; halley_protocol::packet::BODY_BYTES_MAX],
}

impl Ask {
    /// The packet's body.
    pub fn body(&self) -> &[u8] {
        &self.body[..usize::from(self.body_bytes)]
    }

    /// What its answer says again.
    pub fn echoed(&self) -> Echoed<'_> {
        Echoed { version: self.version, sequence: self.sequence, body: self.body() }
    }
}

/// What is kept of an [`Ask`] that could not be decided at once.
#[derive(Debug)]
pub struct Asked {
    /// The packet's version.
    pub version: i16,
    /// The packet's sequence.
    pub sequence: i32,
    /// The packet's body, where the answer says it again.
    pub body: Box<[u8]>,
}

impl Asked {
    /// What its answer says again.
    pub fn echoed(&self) -> Echoed<'_> {
        Echoed { version: self.version, sequence: self.sequence, body: &self.body }
    }
}

/// What an answer says again of its question.
#[derive(Clone, Copy, Debug)]
pub struct Echoed<'a> {
    /// The packet's version.
    pub version: i16,
    /// The packet's sequence.
    pub sequence: i32,
    /// The packet's body.
    pub body: &'a [u8],
}

/// News from one shard.
#[derive(Debug)]
pub enum Report {
    /// A packet to decide on. Exactly one [`Order::Answer`] must follow, also if the login is refused.
    Ask {
        /// Who asks. One question of a connection is open at a time.
        conn: ConnWord,
        /// The question.
        ask: Box<Ask>,
    },
    /// A connection that had logged in (or had asked to) is gone. Comes once, after its last answer.
    Gone {
        /// Which.
        conn: ConnWord,
        /// Control's word from its grant; 0 if it got none.
        ticket: u64,
        /// Why.
        reason: CloseReason,
        /// Its address.
        peer: SocketAddr,
    },
    /// A room changed since the last such report.
    Room {
        /// The room as this shard numbers it.
        room: RoomRef,
        /// Members now.
        size: u32,
        /// Joins and moves into it carried out under this generation (also those that came too late for their connection).
        joins: u32,
    },
    /// The answer to [`Order::Inspect`].
    Inspected {
        /// From the order.
        token: u64,
        /// `None`: the connection is gone.
        found: Option<Box<Inspection>>,
    },
    /// The shard has no connections left and its thread ends.
    Drained,
}

/// One connection as its shard sees it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The peer's address.
    pub peer: SocketAddr,
    /// Index of the listener in the configuration.
    pub listener: u8,
    /// Milliseconds since it was accepted.
    pub age_ms: u64,
    /// Rooms it is in, the login room first if it has one.
    pub rooms: Vec<RoomRef>,
    /// Bytes waiting in its outbox.
    pub queued_bytes: u32,
    /// Messages waiting in its outbox.
    pub queued_messages: u32,
    /// The operations it accepts.
    pub accepts: Vec<i32>,
}

const _: () = assert!(size_of::<Order>() <= 64, "an order is one cache line");
const _: () = assert!(size_of::<Report>() <= 64, "a report is one cache line");
