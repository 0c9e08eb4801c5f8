//! What happens in a simulation: clients come, ask, listen, slow down, misbehave and go; somebody pushes.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::actor::{Actor, Change, Pushed, Stage, Target};
use super::{GENEROUS, Story, weather};
use crate::dispatch;
use crate::limits::ROOM_NAME_BYTES_MAX;
use crate::reason::CloseReason;
use crate::shard::Transport;
use crate::shard::tests::client::Client;

/// Clients at a time.
const ACTORS_MAX: usize = 28;

const ROOMS: [&str; 6] = ["", "a", "b", "c", "d", "e"];
const OPERATIONS: [i32; 3] = [1000, 1001, 1002];

impl Story {
    /// One event, whatever it is.
    pub(super) fn event(&mut self) {
        match self.dice.below(20) {
            0 | 1 => self.connect(),
            2..=6 => self.change(),
            7 | 8 => self.chat(),
            9..=14 => {
                for _ in 0..self.dice.pick(&[1, 1, 1, 5, 30]) {
                    self.push();
                }
            }
            15 | 16 => self.slow_down_or_up(),
            17 => self.time(),
            18 => self.trouble_control(),
            _ if self.calm => self.chat(),
            _ => self.harm(),
        }
    }

    fn connect(&mut self) {
        if self.actors.len() >= ACTORS_MAX {
            return;
        }
        let listener = self.dice.below(4);
        let transport = if listener.is_multiple_of(2) { Transport::Tcp } else { Transport::WebSocket };
        // Keys are taken over only where connections may end.
        self.keys += usize::from(self.calm || self.dice.once_in(2));
        let login = Login {
            key: format!("key-{}", self.keys),
            mid: i64::try_from(1 + self.dice.below(5)).expect("small"),
            room_id: self.dice.pick(&ROOMS).into(),
            accepts: OPERATIONS.into_iter().filter(|_| self.dice.once_in(2)).collect(),
            halley: self.dice.once_in(2),
            ..Login::default()
        };
        let client = Client::connect(&self.world.net, listener, transport);
        client.set_window(usize::MAX);
        self.actors.push(Actor::new(client, login, listener >= GENEROUS));
    }

    fn pick(&mut self) -> Option<usize> {
        (!self.actors.is_empty()).then(|| self.dice.below(self.actors.len()))
    }

    /// Somebody logs in, or changes what it hears.
    fn change(&mut self) {
        let Some(at) = self.pick() else { return };
        let (room, operation) = (self.dice.pick(&ROOMS).to_owned(), self.dice.pick(&OPERATIONS));
        let choice = self.dice.below(5);
        let actor = &mut self.actors[at];
        if actor.change.is_some() || actor.stage == Stage::Ending {
            return;
        }
        let marked = actor.login.halley && !room.is_empty();
        let change = match choice {
            _ if actor.stage == Stage::New => Change::Login,
            0 if marked => Change::Join(room),
            1 if marked => Change::Leave(room),
            2 => Change::Accept(operation),
            3 => Change::Refuse(operation),
            _ => Change::Move(room),
        };
        let key = actor.login.key.clone();
        if change == Change::Login {
            // Who has the key now may have to go from here on.
            for other in self.actors.iter_mut().filter(|other| other.login.key == key && other.stage == Stage::In) {
                other.end();
            }
        }
        self.actors[at].ask(change);
    }

    /// Requests without consequence, in whole or in single bytes.
    fn chat(&mut self) {
        let Some(at) = self.pick() else { return };
        let operation = self.dice.pick(&[operation::HEARTBEAT, operation::RAW, 4, 1000]);
        let ping = self.dice.once_in(4);
        let actor = &mut self.actors[at];
        if ping && actor.client.transport == Transport::WebSocket {
            return actor.client.frame(true, Opcode::Ping, b"ping");
        }
        if actor.stage == Stage::In {
            actor.say(operation, b"whatever");
        }
    }

    fn push(&mut self) {
        let Some(of) = self.pick() else { return };
        let target = match self.dice.below(8) {
            0 => Target::Key(self.actors[of].login.key.clone()),
            1 => Target::Member(self.actors[of].login.mid),
            2 => Target::All,
            _ => Target::Room(self.dice.pick(&ROOMS[1..]).into()),
        };
        let pushed = Pushed { target, operation: self.dice.pick(&OPERATIONS) };
        let number = self.pushes.len();
        let padding = self.dice.pick(&[0, 0, 20, 200, 2000]);
        let body = format!("{number} {}", "x".repeat(padding));
        let to = match pushed.target.clone() {
            Target::Room(room) => dispatch::Target::Room(room),
            Target::Key(key) => dispatch::Target::Keys(vec![key]),
            Target::Member(member) => dispatch::Target::Members(vec![member]),
            Target::All => dispatch::Target::All,
        };
        if self.world.dispatch(&to, pushed.operation, &body).is_ok() {
            for actor in self.actors.iter_mut().filter(|actor| actor.is_owed(&pushed)) {
                actor.owed.insert(number, pushed.stream());
            }
            self.pushes.push(pushed);
        }
    }

    fn slow_down_or_up(&mut self) {
        let Some(at) = self.pick() else { return };
        let window = self.dice.below(400);
        let actor = &mut self.actors[at];
        actor.slow = !actor.slow;
        // A generous outbox holds all that can come between two rests: whoever has one misses nothing.
        actor.client.set_window(if actor.slow { window } else { usize::MAX });
    }

    fn time(&mut self) {
        let jump = if self.calm { 150 } else { self.dice.pick(&[50, 100, 100, 700, 2500]) };
        self.world.now_ms += jump;
        self.weather = weather(&mut self.dice, self.calm);
        self.world.net.set_weather(self.weather);
        self.world.control.publish_online(&self.world.links);
    }

    fn trouble_control(&mut self) {
        self.control_rests = self.dice.below(12);
        if let Some(at) = self.pick()
            && let Some(conn) = self.world.directory.key_connections(&self.actors[at].login.key).first()
        {
            self.world.control.inspect(*conn, 1, &mut self.world.outgoing);
        }
    }

    /// Somebody ends, or is ended.
    fn harm(&mut self) {
        let Some(at) = self.pick() else { return };
        let harm = self.dice.below(16);
        let actor = &mut self.actors[at];
        let (stage, key) = (actor.stage, actor.login.key.clone());
        let asks = actor.change.is_some();
        let websocket = actor.client.transport == Transport::WebSocket;
        actor.end();
        let client = &mut actor.client;
        match harm {
            0 | 1 => client.reset(),
            2 | 3 => client.half_close(),
            4 => client.say(&[0xff; 40]),
            5 | 6 => client.say(&[0x82]),
            7 => _ = client.send(operation::SUBSCRIBE, &[b'1'; 4097]),
            8 if websocket => client.frame(true, Opcode::Close, &[0x03, 0xe8]),
            9 if websocket => client.frame(true, Opcode::Text, b"no packet"),
            10 if websocket => client.frame(true, Opcode::Text, &[0xff; 20]),
            11 if websocket => client.frame(false, Opcode::Binary, &[0; 8193]),
            12 if stage == Stage::In => _ = client.send(operation::CHANGE_ROOM, &[b'x'; ROOM_NAME_BYTES_MAX + 1]),
            12 | 13 if stage == Stage::New && !asks => _ = client.send(operation::AUTH, b"no JSON"),
            14 => self.knock_at_the_wrong_door(),
            _ => self.kick(&key),
        }
    }

    fn kick(&mut self, key: &str) {
        for other in self.actors.iter_mut().filter(|other| other.login.key == key) {
            other.end();
        }
        self.world.control.kick(key, CloseReason::Kicked, &mut self.world.outgoing);
    }

    fn knock_at_the_wrong_door(&mut self) {
        let client = Client::connect_silent(&self.world.net, 1, Transport::WebSocket);
        client.say(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut actor = Actor::new(client, Login::default(), true);
        actor.end();
        self.actors.push(actor);
    }
}
