//! One client of the simulation, and the model of what it may get and what it must get.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use halley_protocol::halley::{JoinReply, JoinStatus, LeaveStatus, RefreshReply, RefreshStatus};
use halley_protocol::login::Login;
use halley_protocol::{operation, v1};

use super::platform;
pub(super) use super::pushed::{Pushed, Stream, Target};
use crate::identity::testing;
use crate::reason::CloseReason;
use crate::shard::tests::client::{Client, Got};
use crate::shard::{Dialect, Transport};

/// How long the end of a connection takes at a rest: its linger, and the tick that ends it.
const END_MS_MAX: u64 = 250;

/// A request that changes what is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Login,
    Move(String),
    Join(String),
    Leave(String),
    Accept(i32),
    Refuse(i32),
    Refresh(Renewal),
}

/// A new token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) token: String,
    pub(super) ends_s: u64,
    /// Of the same member.
    pub(super) good: bool,
}

/// What its token allows: see [`Actor::may_join`] and [`Actor::may_accept`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) id: String,
    pub(super) ends_s: u64,
}

/// What the body of a reply must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Exactly(Vec<u8>),
    /// A count of members; only at rest it is known which.
    Online(Option<u64>),
    Join,
    Leave,
    Refresh(RefreshStatus),
}

/// A request that will be answered.
#[derive(Clone, Debug)]
struct Asked {
    sequence: i32,
    reply: i32,
    body: Body,
    change: Option<Change>,
    /// A login or a heartbeat.
    renews: bool,
    said_ms: u64,
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

#[allow(clippy::struct_excessive_bools, reason = "what may be said of a client is independent of the rest")]
pub(super) struct Actor {
    pub(super) client: Client,
    pub(super) listener: usize,
    pub(super) login: Login,
    /// Of its token, if its listener asks for one.
    pub(super) grant: Option<Granted>,
    /// The platform refuses its login.
    pub(super) refused: bool,
    /// The platform is asked about its rooms.
    pub(super) hooks: bool,
    pub(super) stage: Stage,
    /// In the order of their replies.
    asked: VecDeque<Asked>,
    pub(super) login_room: Option<String>,
    pub(super) joined: BTreeSet<String>,
    pub(super) accepts: BTreeSet<i32>,
    /// The last push of each stream.
    last: BTreeMap<Stream, usize>,
    /// Pushes that must come, unless they are dropped and counted.
    pub(super) owed: BTreeMap<usize, Stream>,
    pub(super) received: u64,
    /// Does not read all that comes.
    pub(super) slow: bool,
    /// Was slow at some time, or is on a listener with small outboxes: may miss pushes.
    pub(super) may_miss: bool,
    /// Nothing may follow a close frame.
    closed: bool,
    /// Has said a part of something, and will not say the rest.
    pub(super) partial: bool,
    /// Somebody else logs in with its key at the same time: one of them stays, whoever it is.
    pub(super) contested: bool,
    /// Reasons that it may be told.
    pub(super) expects: Vec<CloseReason>,
    /// Has done what ends a connection at once.
    pub(super) must_end: bool,
    pub(super) connected_ms: u64,
    /// The first rest at which it was accepted.
    pub(super) accepted_ms: Option<u64>,
    /// When the last login or heartbeat that was answered was said, and when its answer came.
    pub(super) heartbeat_ms: (u64, u64),
    /// When the last heartbeat of a quiet spell was said.
    pub(super) beat_ms: u64,
}

impl Actor {
    pub(super) fn new(client: Client, listener: usize, login: Login, may_miss: bool, now_ms: u64) -> Self {
        Self {
            client,
            listener,
            login,
            grant: None,
            refused: false,
            hooks: false,
            stage: Stage::New,
            asked: VecDeque::new(),
            login_room: None,
            joined: BTreeSet::new(),
            accepts: BTreeSet::new(),
            last: BTreeMap::new(),
            owed: BTreeMap::new(),
            received: 0,
            slow: false,
            may_miss,
            closed: false,
            partial: false,
            contested: false,
            expects: Vec::new(),
            must_end: false,
            connected_ms: now_ms,
            accepted_ms: None,
            heartbeat_ms: (now_ms, now_ms),
            beat_ms: now_ms,
        }
    }

    pub(super) fn name(&self) -> String {
        let transport = match self.client.transport {
            Transport::Tcp => "TCP",
            Transport::WebSocket if self.client.deflates => "deflating WebSocket",
            Transport::WebSocket => "WebSocket",
        };
        format!("client {} ({transport}, {:?}, {})", self.client.id.0, self.client.dialect, self.login.key)
    }

    /// Whether it speaks goim v1. Its key, which the gateway makes, is not known here.
    pub(super) fn is_v1(&self) -> bool {
        self.client.dialect == Dialect::GoimV1
    }

    /// What it says to log in.
    fn credentials(&self) -> String {
        match self.login.mid {
            _ if !self.is_v1() => self.login.to_json(),
            0 => "nobody's number".into(),
            user => user.to_string(),
        }
    }

    /// When it connected, was accepted, and said and was answered its last heartbeat; what it has asked.
    pub(super) fn times(&self) -> String {
        let Self { connected_ms, accepted_ms, heartbeat_ms, asked, stage, .. } = self;
        format!("{stage:?} {connected_ms} {accepted_ms:?} {heartbeat_ms:?} {asked:?}")
    }

    /// Says a request and notes the reply it will have.
    pub(super) fn say(&mut self, operation: i32, body: &[u8], now_ms: u64) {
        self.request(operation, body, None, now_ms);
    }

    fn request(&mut self, operation: i32, body: &[u8], change: Option<Change>, said_ms: u64) {
        let sequence = self.client.send(operation, body);
        let marked = self.login.halley;
        let nothing = Body::Exactly(Vec::new());
        let echo = Body::Exactly(body.to_vec());
        let websocket = self.client.transport == Transport::WebSocket;
        let (reply, body) = match operation {
            operation::AUTH => (operation::AUTH_REPLY, nothing),
            operation::HEARTBEAT if self.is_v1() && websocket => (operation::HEARTBEAT_REPLY, echo),
            operation::HEARTBEAT if self.is_v1() => (operation::HEARTBEAT_REPLY, nothing),
            v1::SEND if self.is_v1() => (v1::PUSH, echo),
            v1::TEST if self.is_v1() => (v1::TEST_REPLY, Body::Exactly(v1::TEST_BODY.to_vec())),
            operation::HEARTBEAT | operation::HEARTBEAT_REPLY => (operation::HEARTBEAT_REPLY, Body::Online(None)),
            operation::RAW if !websocket => return,
            operation::CHANGE_ROOM | operation::SUBSCRIBE | operation::UNSUBSCRIBE => (operation + 1, echo),
            operation::JOIN if marked && !self.may_join(std::str::from_utf8(body).expect("a name")) => {
                let refused = JoinReply { status: JoinStatus::Refused, members: 0 };
                (operation::JOIN_REPLY, Body::Exactly(refused.to_bytes().to_vec()))
            }
            operation::JOIN if marked => (operation::JOIN_REPLY, Body::Join),
            operation::REFRESH => {
                let good = matches!(&change, Some(Change::Refresh(renewal)) if renewal.good);
                let status = if good { RefreshStatus::Refreshed } else { RefreshStatus::Refused };
                (operation::REFRESH_REPLY, Body::Refresh(status))
            }
            operation::LEAVE if marked => (operation::LEAVE_REPLY, Body::Leave),
            other => (other, nothing),
        };
        // The heartbeat's reply as a request is answered like one, and is none.
        let renews = matches!(operation, operation::AUTH | operation::HEARTBEAT);
        self.asked.push_back(Asked { sequence, reply, body, change, renews, said_ms });
    }

    /// Says a change; what it may take away is no longer owed.
    pub(super) fn ask(&mut self, change: Change, now_ms: u64) {
        let (operation, body) = match &change {
            Change::Login => (operation::AUTH, self.credentials()),
            Change::Move(room) => (operation::CHANGE_ROOM, room.clone()),
            Change::Join(room) => (operation::JOIN, room.clone()),
            Change::Leave(room) => (operation::LEAVE, room.clone()),
            Change::Accept(operation) => (operation::SUBSCRIBE, operation.to_string()),
            Change::Refuse(operation) => (operation::UNSUBSCRIBE, operation.to_string()),
            Change::Refresh(renewal) => (operation::REFRESH, renewal.token.clone()),
        };
        self.request(operation, body.as_bytes(), Some(change), now_ms);
        let still: Vec<_> = self.owed.iter().filter(|(_, stream)| self.is_sure(stream)).map(|(n, _)| *n).collect();
        self.owed.retain(|number, _| still.contains(number));
    }

    /// Whether its token, if it has one, lets it into this room, and so does the platform, if it is asked.
    pub(super) fn may_join(&self, room: &str) -> bool {
        if self.hooks && room == platform::BARRED {
            return false;
        }
        self.grant.is_none() || ["a", "room-", "many-", "new-"].iter().any(|begin| room.starts_with(begin))
    }

    /// Whether its token, if it has one, lets it accept this operation.
    pub(super) fn may_accept(&self, operation: i32) -> bool {
        self.grant.is_none() || operation < 1002
    }

    /// Whether the time of its token has come.
    pub(super) fn is_due(&self, now_s: u64) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.ends_s <= now_s)
    }

    /// Asks how many are in its room; at rest that is known.
    pub(super) fn count(&mut self, members: u64, now_ms: u64) {
        self.say(operation::HEARTBEAT, b"", now_ms);
        self.asked.back_mut().expect("just asked").body = Body::Online(Some(members));
    }

    /// Nothing is owed any more.
    pub(super) fn end(&mut self) {
        self.stage = Stage::Ending;
        self.owed.clear();
    }

    /// Nothing is owed any more, and it may be told why.
    pub(super) fn end_as(&mut self, reason: CloseReason) {
        self.end();
        self.expects.push(reason);
    }

    /// Whether nothing is asked that has not been answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.asked.is_empty() && !self.client.is_speaking()
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.asked.iter().filter_map(|asked| asked.change.as_ref())
    }

    /// Whether its login is on its way.
    pub(super) fn is_logging_in(&self) -> bool {
        self.changes().any(|change| *change == Change::Login)
    }

    /// Whether a push of this stream that is dispatched now, and concerns it now, must come.
    fn is_sure(&self, stream: &Stream) -> bool {
        match stream {
            Stream::Room(room) => {
                let mut moves = self.changes().filter_map(|change| match change {
                    Change::Move(to) => Some(to),
                    _ => None,
                });
                let stays = match (moves.next(), moves.next()) {
                    (None, _) => true,
                    (Some(to), None) => {
                        to == room || self.joined.contains(room) && self.login_room.as_ref() != Some(room)
                    }
                    (Some(_), Some(_)) => false,
                };
                stays && !self.changes().any(|change| matches!(change, Change::Leave(left) if left == room))
            }
            Stream::Direct | Stream::All => !self.changes().any(|change| matches!(change, Change::Refuse(_))),
        }
    }

    /// Whether the push names it, by key or member.
    fn is_named(&self, target: &Target) -> bool {
        match target {
            Target::Keys(keys) => !self.is_v1() && keys.contains(&self.login.key),
            Target::Members(members) => self.login.mid > 0 && members.contains(&self.login.mid),
            Target::All => true,
            Target::Room(_) => false,
        }
    }

    /// Whether the push, dispatched now, must come.
    pub(super) fn is_owed(&self, pushed: &Pushed) -> bool {
        let reached = match &pushed.target {
            Target::Room(room) => self.is_member(room),
            named => self.is_named(named) && (self.is_v1() || self.accepts.contains(&pushed.operation)),
        };
        self.stage == Stage::In && reached && self.is_sure(&pushed.stream())
    }

    fn is_member(&self, room: &str) -> bool {
        self.login_room.as_deref() == Some(room) || self.joined.contains(room)
    }

    /// Whether the push may come.
    fn may_get(&self, pushed: &Pushed) -> bool {
        let asks = |change: &Change| self.changes().any(|asked| asked == change);
        match &pushed.target {
            Target::Room(room) => {
                self.is_member(room) || asks(&Change::Move(room.clone())) || asks(&Change::Join(room.clone()))
            }
            named => {
                let accepts = self.accepts.contains(&pushed.operation) || asks(&Change::Accept(pushed.operation));
                self.is_named(named) && (self.is_v1() || accepts)
            }
        }
    }

    /// Takes what has arrived, and checks it against the model.
    pub(super) fn take(&mut self, pushes: &[Pushed], now_ms: u64) -> Vec<Got> {
        let got = self.client.take();
        let failed = self.client.tls_error.as_ref().filter(|_| self.stage != Stage::Ending);
        assert!(failed.is_none(), "{failed:?} at {}", self.name());
        for got in &got {
            assert!(!self.closed, "nothing follows a close frame: {got:?}");
            match got {
                Got::Push { operation, body } => self.pushed(*operation, body, pushes),
                Got::Reply { operation, sequence, body } => self.replied(*operation, *sequence, body, now_ms),
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
        let told = if self.is_v1() { v1::PUSH } else { pushed.operation };
        assert_eq!((operation, text), (told, &*pushed.body(number)), "as it was pushed");
        // Ahead of the reply to its login nothing may come, so the stage is known.
        assert!(self.stage != Stage::New, "{pushed:?} before the reply to the login");
        let may = self.may_get(pushed);
        assert!(may, "push {number} {pushed:?} is not for {}: {:?} {:?}", self.name(), self.login_room, self.joined);
        let before = self.last.insert(pushed.stream(), number);
        assert!(before.is_none_or(|before| before < number), "{before:?} before {number}: {pushed:?}");
        self.owed.remove(&number);
        self.received += 1;
    }

    fn replied(&mut self, operation: i32, sequence: i32, body: &[u8], now_ms: u64) {
        let mut asked = self.asked.pop_front().expect("a reply to a request");
        assert_eq!((asked.sequence, asked.reply), (sequence, operation), "replies come in the order of requests");
        let granted = match asked.body {
            Body::Exactly(expected) => {
                assert_eq!(body, expected, "the body of the reply {operation}");
                true
            }
            Body::Online(expected) => {
                let members = u64::from(u32::from_be_bytes(body.try_into().expect("a count of members")));
                assert!(expected.is_none_or(|expected| expected == members), "{members} members, not {expected:?}");
                true
            }
            Body::Join => {
                let reply = JoinReply::parse(body).expect("a join reply");
                assert!(reply.status != JoinStatus::Refused, "the name is good");
                assert_eq!(reply.status == JoinStatus::Joined, reply.members > 0, "the joiner is a member");
                asked.change.take_if(|_| reply.status == JoinStatus::RoomFull);
                reply.status == JoinStatus::Joined
            }
            Body::Refresh(expected) => {
                let reply = RefreshReply::parse(body).expect("a refresh reply");
                // Who reads slowly is read late: perhaps when the token has ended.
                let ended = |renewal: &Renewal| renewal.ends_s <= testing::EPOCH_S + now_ms / 1000;
                let late = matches!(&asked.change, Some(Change::Refresh(renewal)) if ended(renewal));
                assert!(reply.status == expected || late, "{:?} of a new token", reply.status);
                assert!(reply.seconds >= 0);
                reply.status == RefreshStatus::Refreshed
            }
            Body::Leave => LeaveStatus::parse(body).expect("a leave reply") == LeaveStatus::Left,
        };
        if asked.renews {
            self.heartbeat_ms = (asked.said_ms, now_ms);
        }
        if let Some(change) = asked.change {
            self.changed(change, granted);
        }
    }

    /// A change has been answered.
    fn changed(&mut self, change: Change, granted: bool) {
        match change {
            Change::Login => {
                assert!(!self.refused, "{} is let in", self.name());
                let stays = self.stage == Stage::New && !self.contested;
                self.stage = if stays { Stage::In } else { Stage::Ending };
                self.login_room = Some(self.login.room_id.clone()).filter(|room| !room.is_empty());
                self.accepts.extend(&self.login.accepts);
            }
            Change::Move(room) => self.moved(room),
            Change::Join(room) if !self.may_join(&room) => {}
            Change::Join(room) if granted => drop(self.joined.insert(room)),
            Change::Join(room) => {
                let rooms = self.joined.len() + usize::from(self.login_room.is_some());
                assert!(rooms >= crate::limits::ROOMS_PER_CONNECTION_MAX, "{room} refused with {rooms} rooms");
            }
            Change::Leave(room) => {
                assert_eq!(granted, self.is_member(&room), "who leaves {room} was in it");
                self.joined.remove(&room);
                self.login_room.take_if(|login_room| *login_room == room);
            }
            Change::Accept(operation) if !self.may_accept(operation) => {}
            Change::Refresh(renewal) => {
                if let Some(grant) = self.grant.as_mut().filter(|_| granted) {
                    grant.ends_s = renewal.ends_s;
                }
            }
            Change::Accept(operation) => drop(self.accepts.insert(operation)),
            Change::Refuse(operation) => drop(self.accepts.remove(&operation)),
        }
    }

    fn moved(&mut self, room: String) {
        if let Some(before) = self.login_room.take() {
            self.joined.remove(&before);
        }
        let rooms = self.joined.len();
        let fits = rooms < crate::limits::ROOMS_PER_CONNECTION_MAX || self.joined.contains(&room);
        self.login_room = Some(room).filter(|room| !room.is_empty() && fits);
    }

    /// At rest: everything asked is answered, nothing has arrived in part, and who had to go is gone.
    pub(super) fn assert_at_rest(&self, now_ms: u64) {
        assert!(!self.client.is_torn(), "a part of a frame at {}", self.name());
        assert!(self.stage != Stage::In || self.asked.is_empty(), "unanswered at {}: {:?}", self.name(), self.asked);
        let had_time = self.accepted_ms.is_some_and(|since| since + END_MS_MAX < now_ms);
        let gone = !(self.must_end && had_time) || self.client.is_closed();
        assert!(gone, "{} is still there: {:?}", self.name(), self.expects);
    }
}
