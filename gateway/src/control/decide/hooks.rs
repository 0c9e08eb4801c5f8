//! Logins and joins that the platform decides: what it is asked, who waits for its answer, and what follows from that.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use halley_protocol::login::Login;
use halley_protocol::operation;

use super::stays::Stay;
use super::tokens::Given;
use super::{Control, Decision, Event, OrderSink, Refusal, turned_down};
use crate::identity::{Claims, Date, Expected, Rules};
use crate::ids::ConnWord;
use crate::order::{Ask, Asked, Order, Verdict};
use crate::reason::CloseReason;
use crate::sabotage::{Bug, planted};

/// What is asked of the platform, and what follows if it is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookPolicy {
    /// Every room that is entered is asked for.
    pub join: bool,
    /// It is told who is gone: [`Event::Gone`] says what it needs.
    pub gone: bool,
    /// Who cannot be asked about is let in as by [`super::LoginRule::Open`]; else refused.
    pub allow_when_down: bool,
    /// Questions that wait for an answer; who asks beyond is refused.
    pub pending_max: usize,
}

impl Default for HookPolicy {
    fn default() -> Self {
        Self { join: false, gone: false, allow_when_down: false, pending_max: 4096 }
    }
}

/// A question to the platform.
#[derive(Clone, Debug)]
pub struct Question {
    /// What about.
    pub about: About,
    /// Index of the listener in the configuration.
    pub listener: u8,
    /// The client's address.
    pub peer: SocketAddr,
}

/// What a question is about.
#[derive(Clone, Debug)]
pub enum About {
    /// Whether this login stands.
    Login(Login),
    /// Whether this connection may enter a room.
    Join {
        /// Its member; 0: none.
        member: i64,
        /// Its key; empty: the gateway will make one.
        key: String,
        /// The room.
        room: String,
    },
}

/// The platform's answer.
#[derive(Clone, Debug)]
pub enum HookAnswer {
    /// Yes; of a login, with what is left as the client said it or changed.
    Allowed(Box<Allowed>),
    /// No.
    Refused,
    /// It could not be asked.
    Down,
    /// It said something that is no answer.
    Nonsense,
}

/// What a login is allowed. `None` leaves what the client said.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub struct Allowed {
    /// The member.
    pub mid: Option<i64>,
    /// The key; empty: the gateway makes one.
    pub key: Option<String>,
    /// The login room; empty: none.
    pub room_id: Option<String>,
    /// Operations that are accepted.
    pub accepts: Option<Vec<i32>>,
    /// Patterns of the rooms that may be entered later. `None`: those that the join hook allows; without one, none.
    pub rooms: Option<Vec<String>>,
    /// The only operations that may ever be accepted. `None`: all.
    pub operations: Option<Vec<i32>>,
    /// When the connection ends, in seconds since 1970. `None`: not by time.
    pub exp: Option<Date>,
}

/// What goes on when the answer is there.
pub(super) enum Step {
    /// The login hook was asked.
    Login(Login),
    /// The join hook was asked about the room of a login that stands otherwise.
    Room(Login, Option<Given>),
    /// The join hook was asked about a room.
    Join(String),
}

/// Who waits.
struct Pending {
    conn: ConnWord,
    peer: SocketAddr,
    operation: i32,
    asked: Asked,
    step: Step,
}

/// Those who wait for an answer, in the order they asked.
#[derive(Default)]
pub(super) struct Waiting {
    pending: BTreeMap<u64, Pending>,
    last: u64,
    /// Nobody waits any more: the gateway ends.
    over: bool,
}

impl Control {
    /// Questions without an answer.
    pub fn pending(&self) -> usize {
        self.waiting.pending.len()
    }

    /// Connections that somebody will be told of.
    pub fn stays(&self) -> usize {
        self.stays.count()
    }

    /// What would be told of a connection, if it were gone.
    pub fn stay(&self, conn: ConnWord) -> Option<&Stay> {
        self.stays.get(conn)
    }

    /// Asks the platform. The buffer of the client's question goes back at once; the answer is an order of its own.
    pub(super) fn ask_hook(&mut self, conn: ConnWord, ask: &Ask, step: Step) -> Result<Decision, Refusal> {
        if self.waiting.over {
            return Err(Refusal::Draining);
        }
        if self.waiting.pending.len() >= self.policy.hooks.pending_max {
            return Err(Refusal::HookBusy);
        }
        let about = match &step {
            Step::Login(login) => About::Login(login.clone()),
            Step::Room(login, _) => {
                About::Join { member: login.mid, key: login.key.clone(), room: login.room_id.clone() }
            }
            Step::Join(room) => {
                // Who is not there any more is about to be told so.
                let (member, key) = self.directory().connection(ask.ticket, conn).ok_or(Refusal::HookRefused)?;
                About::Join { member, key: key.to_string(), room: room.clone() }
            }
        };
        self.waiting.last += 1;
        let token = self.waiting.last;
        let pending = Pending { conn, peer: ask.peer, operation: ask.operation, asked: ask.into(), step };
        self.waiting.pending.insert(token, pending);
        let question = Question { about, listener: ask.listener, peer: ask.peer };
        Ok((Verdict::Later, Some(Event::Asks { token, question: Box::new(question) })))
    }

    /// The platform's answer to [`Event::Asks`]; nothing if nobody waits for it any more.
    pub fn hook_answered(&mut self, token: u64, answer: HookAnswer, orders: &mut impl OrderSink) -> Option<Event> {
        let Pending { conn, peer, operation, asked, step } = self.waiting.pending.remove(&token)?;
        let decided = match answer {
            HookAnswer::Refused if planted(Bug::HookIgnored) => self.go_on(conn, peer, operation, step, None, orders),
            HookAnswer::Refused => Err(Refusal::HookRefused),
            HookAnswer::Nonsense => Err(Refusal::HookNonsense),
            HookAnswer::Down if !self.policy.hooks.allow_when_down => Err(Refusal::HookDown),
            HookAnswer::Down => self.go_on(conn, peer, operation, step, None, orders),
            HookAnswer::Allowed(allowed) => self.go_on(conn, peer, operation, step, Some(*allowed), orders),
        };
        let (verdict, event) = decided.unwrap_or_else(|refusal| {
            (turned_down(operation, refusal), Some(Event::Refused { conn, peer, operation, refusal }))
        });
        orders.put(conn.shard(), Order::Decided { conn, asked: Box::new(asked), verdict });
        event
    }

    fn go_on(
        &mut self,
        conn: ConnWord,
        peer: SocketAddr,
        operation: i32,
        step: Step,
        allowed: Option<Allowed>,
        orders: &mut impl OrderSink,
    ) -> Result<Decision, Refusal> {
        match step {
            Step::Login(mut login) => {
                let given = match allowed {
                    Some(allowed) => Some(self.give(allowed, &mut login)?),
                    None => None,
                };
                self.admit(conn, peer, login, given, orders)
            }
            Step::Room(login, given) => self.admit(conn, peer, login, given, orders),
            Step::Join(room) => {
                // A token may have been renewed meanwhile.
                self.check_room(conn, &room)?;
                self.enter(conn, operation, &room)
            }
        }
    }

    /// What the answer makes of a login, and what it gives for later.
    fn give(&self, allowed: Allowed, login: &mut Login) -> Result<Given, Refusal> {
        let Allowed { mid, key, room_id, accepts, rooms, operations, exp } = allowed;
        login.mid = mid.unwrap_or(login.mid);
        login.key = key.unwrap_or(std::mem::take(&mut login.key));
        login.room_id = room_id.unwrap_or(std::mem::take(&mut login.room_id));
        login.accepts = accepts.unwrap_or(std::mem::take(&mut login.accepts));
        let any_room = || if self.policy.hooks.join { vec!["*".to_owned()] } else { Vec::new() };
        let rooms = rooms.unwrap_or_else(any_room);
        let exp = Some(exp.unwrap_or(Date(u64::MAX)));
        let claims = Claims { exp, rooms, operations, ..Claims::default() };
        let ends_s = claims.check(&Expected::default(), self.now_s).map_err(|_| Refusal::HookNonsense)?;
        let rules = Rules::new(&claims);
        login.accepts.retain(|operation| rules.allow_operation(*operation));
        Ok(Given { rules, token_id: None, ends_s })
    }

    /// Nobody waits any longer, and nobody begins to: all are told that the gateway drains.
    pub(super) fn stop_asking(&mut self, orders: &mut impl OrderSink) {
        self.waiting.over = true;
        for Pending { conn, asked, .. } in std::mem::take(&mut self.waiting.pending).into_values() {
            let verdict = Verdict::Refuse(CloseReason::Drain);
            orders.put(conn.shard(), Order::Decided { conn, asked: Box::new(asked), verdict });
        }
    }
}

impl From<&Ask> for Asked {
    fn from(ask: &Ask) -> Self {
        // Nothing of a login is said again.
        let body = if ask.operation == operation::AUTH { &[] } else { ask.body() };
        Self { version: ask.version, sequence: ask.sequence, body: body.into() }
    }
}
