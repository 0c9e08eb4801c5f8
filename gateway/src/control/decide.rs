//! Control's decisions: from a shard's `Report` to `Order`s, without I/O, clock or threads.

mod hooks;
mod login;
mod outgoing;
mod revocations;
mod rooms;
mod standing;
mod stays;
mod tokens;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use halley_protocol::login::LoginReject;
use halley_protocol::operation;

use crate::directory::{Directory, DirectoryWriter, Key};
use crate::identity::TokenReject;
use crate::ids::{ConnWord, RoomRef, ShardIndex};
use crate::link::ShardLink;
use crate::order::{Ask, DrainPlan, Inspection, Order, Report, Verdict};
use crate::reason::CloseReason;
use crate::shard::Reloadable;

pub use hooks::{About, Allowed, HookAnswer, HookPolicy, Question};
pub use outgoing::OutgoingQueues;
pub use revocations::{Revoked, TooManyRevocations};
pub use stays::Stay;
pub use tokens::Tokens;

use hooks::Waiting;
use revocations::Revocations;
use standing::Standings;
use stays::Stays;

/// Where decisions put their orders.
pub trait OrderSink {
    /// Puts an order behind all earlier ones for this shard. Must not lose it.
    fn put(&mut self, shard: ShardIndex, order: Order);
}

/// Who may log in on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRule {
    /// Nobody.
    Refuse,
    /// Everybody, as goim does: member, key and room are taken as claimed.
    Open,
    /// Everybody, as goim v1 does: a number is that member, in room 1; anything else is nobody, in no room.
    OpenV1,
    /// Who has a token, as far as it goes.
    Jwt,
    /// Whom the platform lets in, as whom it says.
    Hook,
}

/// What happens when a key has its maximum of connections and one more logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPolicy {
    /// The oldest goes.
    Replace,
    /// The new one is refused.
    Refuse,
    /// The new one is refused; said of keys meant to be shared, whose maximum is above one.
    Share,
}

/// What logins are judged by.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The rule of each listener of the configuration, in order.
    pub listeners: Vec<LoginRule>,
    /// Connections of one key, at least 1. The configuration keeps it below
    /// [`Policy::KEY_CONNECTIONS_MAX`], because a key's connections are walked one by one.
    pub key_connections_max: usize,
    /// What happens beyond that.
    pub key_policy: KeyPolicy,
    /// What is asked of the platform.
    pub hooks: HookPolicy,
    /// Members of one room; 0: any number.
    pub room_members_max: u32,
}

impl Policy {
    /// The most that `key_connections_max` may be.
    pub const KEY_CONNECTIONS_MAX: usize = 1024;
}

/// Why an ask was turned down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The listener lets nobody in.
    LoginsClosed,
    /// The login is not JSON.
    LoginSyntax,
    /// The login is not an object of the right fields.
    LoginWrongType,
    /// The connection has logged in before.
    LoginTwice,
    /// The key has more bytes than it may have.
    KeyTooLong,
    /// The key has as many connections as it may have.
    KeyInUse,
    /// More accepted operations than one connection may have.
    AcceptsTooMany,
    /// The room's name is too long, or is not UTF-8, or is missing where there must be one.
    RoomNameBad,
    /// The shard has as many rooms as it can number.
    RoomsTooMany,
    /// The room has as many members as it may have.
    RoomFull,
    /// Not an operation that control decides on.
    OperationUnknown,
    /// The token is no grant.
    Token(TokenReject),
    /// The login says another member than its token.
    MemberNotGranted,
    /// The login says a key that its token does not allow, or none where it must.
    KeyNotGranted,
    /// The token does not allow the room.
    RoomNotGranted,
    /// The token does not allow an operation.
    OperationNotGranted,
    /// The platform says no.
    HookRefused,
    /// As many wait for the platform as may.
    HookBusy,
    /// The platform cannot be asked.
    HookDown,
    /// The platform's answer is none.
    HookNonsense,
    /// Nobody is asked about any more.
    Draining,
}

impl Refusal {
    /// Every refusal, without those of tokens ([`TokenReject::ALL`]).
    pub const ALL: [Self; 20] = [
        Self::LoginsClosed,
        Self::LoginSyntax,
        Self::LoginWrongType,
        Self::LoginTwice,
        Self::KeyTooLong,
        Self::KeyInUse,
        Self::AcceptsTooMany,
        Self::RoomNameBad,
        Self::RoomsTooMany,
        Self::RoomFull,
        Self::OperationUnknown,
        Self::MemberNotGranted,
        Self::KeyNotGranted,
        Self::RoomNotGranted,
        Self::OperationNotGranted,
        Self::HookRefused,
        Self::HookBusy,
        Self::HookDown,
        Self::HookNonsense,
        Self::Draining,
    ];

    /// The label in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoginsClosed => "logins-closed",
            Self::LoginSyntax => "login-syntax",
            Self::LoginWrongType => "login-wrong-type",
            Self::LoginTwice => "login-twice",
            Self::KeyTooLong => "key-too-long",
            Self::KeyInUse => "key-in-use",
            Self::AcceptsTooMany => "accepts-too-many",
            Self::RoomNameBad => "room-name-bad",
            Self::RoomsTooMany => "rooms-too-many",
            Self::RoomFull => "room-full",
            Self::OperationUnknown => "operation-unknown",
            Self::Token(reject) => reject.name(),
            Self::MemberNotGranted => "member-not-granted",
            Self::KeyNotGranted => "key-not-granted",
            Self::RoomNotGranted => "room-not-granted",
            Self::OperationNotGranted => "operation-not-granted",
            Self::HookRefused => "hook-refused",
            Self::HookBusy => "hook-busy",
            Self::HookDown => "hook-down",
            Self::HookNonsense => "hook-nonsense",
            Self::Draining => "draining",
        }
    }

    /// What the connection is closed for, where the refusal closes it.
    fn close_reason(self) -> CloseReason {
        match self {
            Self::RoomNameBad => CloseReason::RoomNameBad,
            Self::RoomFull => CloseReason::RoomFull,
            Self::OperationUnknown => CloseReason::PacketMalformed,
            Self::HookBusy | Self::HookDown | Self::HookNonsense => CloseReason::HookFailed,
            Self::Draining => CloseReason::Drain,
            Self::LoginsClosed
            | Self::LoginSyntax
            | Self::LoginWrongType
            | Self::LoginTwice
            | Self::KeyTooLong
            | Self::KeyInUse
            | Self::AcceptsTooMany
            | Self::RoomsTooMany
            | Self::Token(_)
            | Self::MemberNotGranted
            | Self::KeyNotGranted
            | Self::RoomNotGranted
            | Self::OperationNotGranted
            | Self::HookRefused => CloseReason::LoginRefused,
        }
    }
}

impl From<TokenReject> for Refusal {
    fn from(reject: TokenReject) -> Self {
        Self::Token(reject)
    }
}

impl From<LoginReject> for Refusal {
    fn from(reject: LoginReject) -> Self {
        match reject {
            LoginReject::Syntax => Self::LoginSyntax,
            LoginReject::WrongType => Self::LoginWrongType,
        }
    }
}

/// What the outside wants to know of a report: for logs, metrics, and those who wait.
#[derive(Debug)]
pub enum Event {
    /// A login stands.
    Admitted {
        /// Which connection.
        conn: ConnWord,
        /// Its address.
        peer: SocketAddr,
        /// Its member; none if not above 0.
        member: i64,
        /// Its key, made by the gateway if the login had none.
        key: Key,
        /// Connections of the key that had to go.
        replaced: usize,
    },
    /// The platform is to be asked; [`Control::hook_answered`] takes its answer.
    Asks {
        /// Given back with the answer.
        token: u64,
        /// What is asked.
        question: Box<Question>,
    },
    /// A packet was turned down.
    Refused {
        /// Whose.
        conn: ConnWord,
        /// Its address.
        peer: SocketAddr,
        /// The packet's operation; a login's is [`operation::AUTH`].
        operation: i32,
        /// Why.
        refusal: Refusal,
    },
    /// A connection is gone that had logged in or had asked to.
    Gone {
        /// Which.
        conn: ConnWord,
        /// Its address.
        peer: SocketAddr,
        /// Why.
        reason: CloseReason,
        /// What it was, if somebody wants to be told and it had logged in.
        stay: Option<Box<Stay>>,
    },
    /// The answer to [`Control::inspect`].
    Inspected {
        /// As given there.
        token: u64,
        /// `None`: the connection is gone.
        found: Option<Box<Inspection>>,
    },
    /// The shard has no connections left and its thread ends.
    Drained {
        /// Which.
        shard: ShardIndex,
    },
}

/// Decides on reports, and owns the directory's writer.
pub struct Control {
    writer: DirectoryWriter,
    policy: Policy,
    /// Fresh random bytes for a generated key.
    random: Box<dyn FnMut() -> [u8; 16] + Send>,
    /// The number in the last key made for a client of goim v1.
    v1_sequence: u32,
    tokens: Tokens,
    standings: Standings,
    revocations: Revocations,
    waiting: Waiting,
    stays: Stays,
    /// Seconds since 1970.
    now_s: u64,
}

impl Control {
    /// Control over this directory. `random` makes the bytes of generated keys; whoever can guess them can push to
    /// these connections, so outside the simulator they must come from the system.
    pub fn new(writer: DirectoryWriter, policy: Policy, random: impl FnMut() -> [u8; 16] + Send + 'static) -> Self {
        assert!(
            (1..=Policy::KEY_CONNECTIONS_MAX).contains(&policy.key_connections_max),
            "checked by the configuration"
        );
        Self {
            writer,
            policy,
            random: Box::new(random),
            v1_sequence: 0,
            tokens: Tokens::none(),
            standings: Standings::default(),
            revocations: Revocations::default(),
            waiting: Waiting::default(),
            stays: Stays::default(),
            now_s: 0,
        }
    }

    /// The directory, for readers.
    pub fn directory(&self) -> &Arc<Directory> {
        self.writer.directory()
    }

    /// Decides on one report of `shard`. Reports of one shard must come in their order.
    pub fn handle(&mut self, shard: ShardIndex, report: Report, orders: &mut impl OrderSink) -> Option<Event> {
        match report {
            Report::Ask { conn, ask } => self.answer(conn, ask, orders),
            Report::Gone { conn, ticket, reason, peer } => {
                if ticket != 0 {
                    self.writer.remove(ticket, conn);
                    self.standings.remove(conn);
                    self.writer.address_went(peer.ip());
                }
                let stay = self.stays.end(conn).map(Box::new);
                Some(Event::Gone { conn, peer, reason, stay })
            }
            Report::Room { room, size, joins } => {
                self.writer.room_reported(shard, room, size, joins);
                None
            }
            Report::Inspected { token, found } => Some(Event::Inspected { token, found }),
            Report::Drained => Some(Event::Drained { shard }),
        }
    }

    /// Exactly one answer, whatever is asked; it is the last order that the ask leads to, unless the platform is asked.
    fn answer(&mut self, conn: ConnWord, ask: Box<Ask>, orders: &mut impl OrderSink) -> Option<Event> {
        let (verdict, event) = match ask.operation {
            operation::AUTH => self.login(conn, &ask, orders).unwrap_or_else(|refusal| refused(conn, &ask, refusal)),
            operation::CHANGE_ROOM => {
                self.change_room(conn, &ask).unwrap_or_else(|refusal| refused(conn, &ask, refusal))
            }
            operation::JOIN => self.join(conn, &ask).unwrap_or_else(|refusal| refused(conn, &ask, refusal)),
            operation::LEAVE => (self.leave(conn, ask.body()), None),
            operation::SUBSCRIBE => match self.subscribe(conn, ask.body()) {
                Ok(verdict) => (verdict, None),
                Err(refusal) => (Verdict::AcceptRefused, Some(event_of(conn, &ask, refusal))),
            },
            operation::REFRESH => match self.refresh(conn, &ask) {
                Ok(verdict) => (verdict, None),
                Err(refusal) => {
                    let verdict = Verdict::RefreshRefused { seconds: self.seconds_left(conn) };
                    (verdict, Some(event_of(conn, &ask, refusal)))
                }
            },
            _ => refused(conn, &ask, Refusal::OperationUnknown),
        };
        orders.put(conn.shard(), Order::Answer { conn, ask, verdict });
        event
    }

    /// Writes changed room counts to where the shards read them; about once a second.
    pub fn publish_online(&mut self, links: &[Arc<ShardLink>]) {
        self.writer.publish_online(links);
    }

    /// Ends every connection of a key and returns how many. They leave the directory as they are reported gone.
    pub fn kick(&self, key: &str, reason: CloseReason, orders: &mut impl OrderSink) -> usize {
        let conns = self.directory().key_connections(key);
        for conn in &conns {
            orders.put(conn.shard(), Order::Close { conn: *conn, reason });
        }
        conns.len()
    }

    /// Asks a connection's shard about it; [`Event::Inspected`] brings the answer, unless the shard ends before.
    pub fn inspect(&self, conn: ConnWord, token: u64, orders: &mut impl OrderSink) {
        orders.put(conn.shard(), Order::Inspect { conn, token });
    }

    /// Judges logins by another policy from now on, and gives the shards their settings.
    pub fn reload(&mut self, policy: Policy, settings: &Arc<Reloadable>, orders: &mut impl OrderSink) {
        assert!((1..=Policy::KEY_CONNECTIONS_MAX).contains(&policy.key_connections_max), "checked");
        self.policy = policy;
        for (shard, _) in self.directory().connections_by_shard() {
            orders.put(shard, Order::Reload { settings: Arc::clone(settings) });
        }
    }

    /// Tells every shard to end; each says [`Event::Drained`].
    pub fn drain(&mut self, plan: DrainPlan, orders: &mut impl OrderSink) {
        self.stop_asking(orders);
        for (shard, _) in self.directory().connections_by_shard() {
            orders.put(shard, Order::Drain { plan });
        }
    }

    /// Tells every shard what new TLS connections of a listener begin with.
    pub fn replace_certificates(&self, listener: u8, config: &Arc<rustls::ServerConfig>, orders: &mut impl OrderSink) {
        for (shard, _) in self.directory().connections_by_shard() {
            orders.put(shard, Order::Certificates { listener, config: Arc::clone(config) });
        }
    }

    /// The room's name as a shard numbers it, or `None` if that number means another room by now.
    pub fn room_of(&self, shard: ShardIndex, room: RoomRef) -> Option<Arc<str>> {
        self.directory().room_name(shard, room)
    }
}

/// A verdict, and what there is to tell of it.
type Decision = (Verdict, Option<Event>);

fn refused(conn: ConnWord, ask: &Ask, refusal: Refusal) -> Decision {
    (turned_down(ask.operation, refusal), Some(event_of(conn, ask, refusal)))
}

/// A refused join is told so; whatever else is refused ends its connection.
fn turned_down(operation: i32, refusal: Refusal) -> Verdict {
    if operation == operation::JOIN { Verdict::JoinRefused } else { Verdict::Refuse(refusal.close_reason()) }
}

fn event_of(conn: ConnWord, ask: &Ask, refusal: Refusal) -> Event {
    Event::Refused { conn, peer: ask.peer, operation: ask.operation, refusal }
}
