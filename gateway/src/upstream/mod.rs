//! Upstream: messages of clients on their way to a place of the platform, and the answers on their way back.
//!
//! ```text
//! shard ── Message ──▶ waiting ──▶ thread ── who says it, in which rooms ──▶ place (Kafka, HTTP)
//!   ▲                                                                         │ has it, or not
//!   └──────────────────── Answer ◀── answers ◀───────────────────────────────┘
//! ```
//!
//! A shard owns the buffers of its messages and never waits for one: a message without a buffer is refused. Every message
//! that was taken is answered exactly once, and acknowledged only when the place has it.

mod clerk;
mod http;
mod link;
mod place;
mod rules;
mod thread;

use arrayvec::ArrayVec;
use halley_protocol::packet::BODY_BYTES_MAX;

use crate::ids::{ConnWord, RoomRef};
use crate::limits;

#[cfg(test)]
pub(crate) use clerk::Clerk;
pub use http::{Http, endpoint_rules};
pub use link::UpstreamLink;
#[cfg(test)]
pub use place::Kept;
pub use place::{Envelope, Place};
pub use rules::{Bucket, Rules};
pub use thread::{Shared, start};

/// Why a message was not passed on. Its name is what the client is told, and a label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refused {
    /// The body is longer than `upstream.message_bytes_max`, or than the place takes.
    TooLarge,
    /// The connection has said more than `upstream.messages_per_second_max`.
    Rate,
    /// As many messages of the connection as may be are without their answers.
    InFlight,
    /// As many messages of the shard as may be are without their answers, or the place's queue is full.
    QueueFull,
    /// The place could not be reached, or the connection to it broke.
    PlaceAway,
    /// The place answered that it does not take it.
    PlaceRefused,
    /// The place did not answer in time. It may have the message.
    TimeOut,
    /// The connection had lost its key to another before it was known who said it.
    Replaced,
    /// The gateway has told the connection to go.
    Draining,
}

impl Refused {
    /// Every reason, in order of its number.
    pub const ALL: [Self; 9] = [
        Self::TooLarge,
        Self::Rate,
        Self::InFlight,
        Self::QueueFull,
        Self::PlaceAway,
        Self::PlaceRefused,
        Self::TimeOut,
        Self::Replaced,
        Self::Draining,
    ];

    /// The label in metrics, and the name in the reply.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Rate => "rate",
            Self::InFlight => "in-flight",
            Self::QueueFull => "queue-full",
            Self::PlaceAway => "place-away",
            Self::PlaceRefused => "place-refused",
            Self::TimeOut => "time-out",
            Self::Replaced => "replaced",
            Self::Draining => "draining",
        }
    }

    /// The body of the reply.
    pub const fn body(self) -> &'static str {
        match self {
            Self::TooLarge => r#"{"refused":"too-large"}"#,
            Self::Rate => r#"{"refused":"rate"}"#,
            Self::InFlight => r#"{"refused":"in-flight"}"#,
            Self::QueueFull => r#"{"refused":"queue-full"}"#,
            Self::PlaceAway => r#"{"refused":"place-away"}"#,
            Self::PlaceRefused => r#"{"refused":"place-refused"}"#,
            Self::TimeOut => r#"{"refused":"time-out"}"#,
            Self::Replaced => r#"{"refused":"replaced"}"#,
            Self::Draining => r#"{"refused":"draining"}"#,
        }
    }

    /// The reason's number: its place in [`Refused::ALL`].
    pub fn at(self) -> usize {
        self as usize
    }
}

/// What became of a message.
pub type Outcome = Result<(), Refused>;

/// Who waits for an answer, and what its reply must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who said it.
    pub conn: ConnWord,
    /// When the shard took it, microseconds of [`halley_ring::now_us`].
    pub taken_us: u64,
    /// The packet's operation.
    pub operation: i32,
    /// The packet's sequence, echoed.
    pub sequence: i32,
    /// The packet's version, echoed.
    pub version: i16,
}

/// What a shard is told of a message that it passed on; each message gets one.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Whose.
    pub receipt: Receipt,
    /// What became of it.
    pub outcome: Outcome,
}

const _: () = assert!(size_of::<Answer>() <= 64, "an answer is at most one cache line");

/// A message of a client as its shard knows it: in a buffer of the shard's pool.
#[derive(Debug)]
pub struct Message {
    /// Who waits for the answer.
    pub receipt: Receipt,
    /// Control's word for the connection.
    pub ticket: u64,
    /// The rooms it is in, the login room first if it has one.
    pub rooms: ArrayVec<RoomRef, { limits::ROOMS_PER_CONNECTION_MAX }>,
    body_bytes: u16,
    body: [u8; BODY_BYTES_MAX],
}

impl Message {
    /// A buffer that nobody uses.
    pub fn empty() -> Self {
        let conn = ConnWord::new(crate::ids::ShardIndex(0), halley_ring::Slot(0), 0);
        Self {
            receipt: Receipt { conn, taken_us: 0, operation: 0, sequence: 0, version: 0 },
            ticket: 0,
            rooms: ArrayVec::new(),
            body_bytes: 0,
            body: [0; BODY_BYTES_MAX],
        }
    }

    /// What the client said.
    pub fn body(&self) -> &[u8] {
        &self.body[..usize::from(self.body_bytes)]
    }

    /// Keeps what the client said, at most [`BODY_BYTES_MAX`] bytes.
    pub fn set_body(&mut self, body: &[u8]) {
        self.body[..body.len()].copy_from_slice(body);
        self.body_bytes = u16::try_from(body.len()).expect("a body is at most 4096 bytes");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_place_in_the_list_and_its_name_in_the_reply() {
        for (at, refused) in Refused::ALL.into_iter().enumerate() {
            assert_eq!(refused.at(), at);
            assert_eq!(refused.body(), format!("{{\"refused\":\"{}\"}}", refused.name()));
        }
    }
}
