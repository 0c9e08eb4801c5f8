//! One client of the simulation, and the model of what it may get and what it must get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use halley_protocol::login::Login;
use halley_protocol::operation;

use crate::shard::Transport;
use crate::shard::tests::client::{Client, Got};

/// Whom a push was for, as far as order is promised within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    Room(String),
    Direct,
    All,
}

/// A push that was dispatched. Its number is its place in the list of all, and its body.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Room(String),
    Key(String),
    Member(i64),
    All,
}

#[derive(Clone, Debug)]
pub(super) struct Pushed {
    pub(super) target: Target,
    pub(super) operation: i32,
}

/// A request that changes what is heard; of these one is out at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Login,
    Move(String),
    Join(String),
    Leave(String),
    Accept(i32),
    Refuse(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Connected, or on the way.
    New,
    /// Its login has been answered.
    In,
    /// It has ended, or will: nothing is owed to it any more.
    Ending,
}

pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) login: Login,
    pub(super) stage: Stage,
    pub(super) change: Option<(i32, Change)>,
    /// Requests that will be answered, in this order: sequence and operation of the reply.
    replies: VecDeque<(i32, i32)>,
    login_room: Option<String>,
    joined: BTreeSet<String>,
    accepts: BTreeSet<i32>,
    /// The last push of each stream.
    last: BTreeMap<Stream, usize>,
    /// Pushes that must come, unless they are dropped and counted.
    pub(super) owed: BTreeMap<usize, Stream>,
    pub(super) received: u64,
    /// Does not read all that comes.
    pub(super) slow: bool,
    /// Was slow at some time, or is on a listener with small outboxes: may miss pushes.
    pub(super) may_miss: bool,
    closed: bool,
}

impl Actor {
    pub(super) fn new(client: Client, login: Login, may_miss: bool) -> Self {
        Self {
            client,
            login,
            stage: Stage::New,
            change: None,
            replies: VecDeque::new(),
            login_room: None,
            joined: BTreeSet::new(),
            accepts: BTreeSet::new(),
            last: BTreeMap::new(),
            owed: BTreeMap::new(),
            received: 0,
            slow: false,
            may_miss,
            closed: false,
        }
    }

    /// Says a request and notes the reply it will have.
    pub(super) fn say(&mut self, operation: i32, body: &[u8]) -> i32 {
        let sequence = self.client.send(operation, body);
        let reply = match operation {
            operation::HEARTBEAT => operation::HEARTBEAT_REPLY,
            operation::RAW if self.client.transport == Transport::Tcp => return sequence,
            operation::AUTH | operation::CHANGE_ROOM | operation::SUBSCRIBE | operation::UNSUBSCRIBE => operation + 1,
            operation::JOIN | operation::LEAVE => operation - 1,
            other => other,
        };
        self.replies.push_back((sequence, reply));
        sequence
    }

    /// Says a change; what it may take away is no longer owed.
    pub(super) fn ask(&mut self, change: Change) {
        let sequence = match &change {
            Change::Login => {
                let login = self.login.to_json();
                self.say(operation::AUTH, login.as_bytes())
            }
            Change::Move(room) => self.say(operation::CHANGE_ROOM, room.as_bytes()),
            Change::Join(room) => self.say(operation::JOIN, room.as_bytes()),
            Change::Leave(room) => self.say(operation::LEAVE, room.as_bytes()),
            Change::Accept(operation) => self.say(operation::SUBSCRIBE, operation.to_string().as_bytes()),
            Change::Refuse(operation) => self.say(operation::UNSUBSCRIBE, operation.to_string().as_bytes()),
        };
        self.change = Some((sequence, change));
        let still: Vec<_> = self.owed.iter().filter(|(_, stream)| self.is_sure(stream)).map(|(n, _)| *n).collect();
        self.owed.retain(|number, _| still.contains(number));
    }

    /// Nothing is owed any more.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ending;
        self.owed.clear();
    }

    /// Whether a push of this stream that is dispatched now must come.
    fn is_sure(&self, stream: &Stream) -> bool {
        match (stream, &self.change) {
            (Stream::Room(room), Some((_, Change::Move(to)))) => {
                to == room || self.joined.contains(room) && self.login_room.as_ref() != Some(room)
            }
            (Stream::Room(room), Some((_, Change::Leave(left)))) if left == room => false,
            (Stream::Direct | Stream::All, Some((_, Change::Refuse(_)))) => false,
            _ => true,
        }
    }

    /// Whether the push, dispatched now, must come.
    pub(super) fn is_owed(&self, pushed: &Pushed) -> bool {
        let reached = match &pushed.target {
            Target::Room(room) => self.is_member(room),
            Target::Key(key) => *key == self.login.key && self.accepts.contains(&pushed.operation),
            Target::Member(member) => *member == self.login.mid && self.accepts.contains(&pushed.operation),
            Target::All => self.accepts.contains(&pushed.operation),
        };
        self.stage == Stage::In && reached && self.is_sure(&pushed.stream())
    }

    fn is_member(&self, room: &str) -> bool {
        self.login_room.as_deref() == Some(room) || self.joined.contains(room)
    }

    /// Whether the push may come.
    fn may_get(&self, pushed: &Pushed) -> bool {
        let change = self.change.as_ref().map(|(_, change)| change);
        let accepts = || self.accepts.contains(&pushed.operation) || change == Some(&Change::Accept(pushed.operation));
        match &pushed.target {
            Target::Room(room) => {
                let joining = [Change::Move(room.clone()), Change::Join(room.clone())];
                self.is_member(room) || change.is_some_and(|change| joining.contains(change))
            }
            Target::Key(key) => *key == self.login.key && accepts(),
            Target::Member(member) => *member == self.login.mid && accepts(),
            Target::All => accepts(),
        }
    }

    /// Takes what has arrived, and checks it against the model.
    pub(super) fn take(&mut self, pushes: &[Pushed]) -> Vec<Got> {
        let got = self.client.take();
        for got in &got {
            assert!(!self.closed, "nothing follows a close frame: {got:?}");
            match got {
                Got::Push { operation, body } => self.pushed(*operation, body, pushes),
                Got::Reply { operation, sequence, .. } => self.replied(*operation, *sequence),
                Got::Close(_) => {
                    self.closed = true;
                    self.end();
                }
                Got::Kick { .. } | Got::Http(_) => self.end(),
                Got::Pong(payload) => assert_eq!(payload, b"ping"),
            }
        }
        if self.client.is_closed() {
            self.end();
        }
        got
    }

    fn pushed(&mut self, operation: i32, body: &[u8], all: &[Pushed]) {
        let text = std::str::from_utf8(body).expect("text");
        let number: usize = text.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        let pushed = &all[number];
        assert_eq!(operation, pushed.operation);
        // Ahead of the reply to its login nothing may come, so the stage is known.
        assert!(self.stage != Stage::New, "{pushed:?} before the reply to the login");
        assert!(self.may_get(pushed), "{number} {pushed:?} is not for {:?}, {:?}", self.login, self.change);
        let before = self.last.insert(pushed.stream(), number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}: {pushed:?}");
        self.owed.remove(&number);
        self.received += 1;
    }

    fn replied(&mut self, operation: i32, sequence: i32) {
        let expected = self.replies.pop_front();
        assert_eq!(expected, Some((sequence, operation)), "replies come in the order of their requests");
        if self.change.as_ref().is_none_or(|(of, _)| *of != sequence) {
            return;
        }
        match self.change.take().expect("looked at above").1 {
            Change::Login => {
                self.stage = if self.stage == Stage::New { Stage::In } else { self.stage };
                self.login_room = Some(self.login.room_id.clone()).filter(|room| !room.is_empty());
                self.accepts.extend(&self.login.accepts);
            }
            Change::Move(room) => self.moved(room),
            Change::Join(room) => drop(self.joined.insert(room)),
            Change::Leave(room) => {
                self.joined.remove(&room);
                self.login_room.take_if(|login_room| *login_room == room);
            }
            Change::Accept(operation) => drop(self.accepts.insert(operation)),
            Change::Refuse(operation) => drop(self.accepts.remove(&operation)),
        }
    }

    fn moved(&mut self, room: String) {
        if let Some(before) = self.login_room.take() {
            self.joined.remove(&before);
        }
        self.login_room = Some(room).filter(|room| !room.is_empty());
    }

    /// At rest: everything asked is answered, and nothing has arrived in part.
    pub(super) fn assert_at_rest(&self) {
        assert!(!self.client.is_torn(), "a part of a frame");
        assert!(self.stage != Stage::In || self.replies.is_empty(), "unanswered: {:?}", self.replies);
    }
}

impl Pushed {
    pub(super) fn stream(&self) -> Stream {
        match &self.target {
            Target::Room(room) => Stream::Room(room.clone()),
            Target::Key(_) | Target::Member(_) => Stream::Direct,
            Target::All => Stream::All,
        }
    }
}
