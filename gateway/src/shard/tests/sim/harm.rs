//! What ends connections: clients that leave, break or break the rules, and an operator.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::websocket::Opcode;

use super::actor::{Actor, Change, Pushed, Stage, Target};
use super::story::Story;
use crate::control::decide::Revoked;
use crate::limits::ROOM_NAME_BYTES_MAX;
use crate::reason::CloseReason;
use crate::shard::Transport;
use crate::shard::tests::client::{Client, deflated};

impl Story {
    // long: a list of harms, one after another
    /// Somebody ends, or is ended.
    pub(super) fn harm(&mut self) -> String {
        let Some(at) = self.pick() else { return "nobody is there".into() };
        let harm = self.dice.below(24);
        match harm {
            0 => return self.knock_at_the_wrong_door(),
            1 => return self.kick(at),
            21 => return self.break_and_make_a_room(at),
            _ => {}
        }
        let actor = &mut self.actors[at];
        // Who has begun to say something else is not understood.
        let clean = !actor.partial && !actor.client.is_speaking() && actor.stage != Stage::Ending;
        let (stage, quiet) = (actor.stage, actor.is_quiet());
        let websocket = actor.client.transport == Transport::WebSocket;
        let sealed = actor.client.speaks_tls();
        let name = actor.name();
        match harm {
            2..=4 => {
                actor.client.reset();
                actor.end();
                actor.must_end = true;
                return format!("{name} breaks");
            }
            5..=7 => {
                actor.client.half_close();
                actor.end_as(CloseReason::PeerClosed);
                actor.must_end = true;
                return format!("{name} ends its side");
            }
            8 => {
                // No end of file and no reset: gone all the same.
                actor.slow = true;
                actor.client.set_window(0);
                actor.end();
                return format!("{name} vanishes");
            }
            _ if !clean => return format!("{name} could do harm, and does not"),
            _ => {}
        }
        let reason = match harm {
            9 | 10 => return self.leave_in_the_middle(at),
            11 | 15..=17 if actor.client.deflates => return self.deflate_badly(at),
            11 if !websocket => {
                actor.client.say(&[0xff; 40]);
                CloseReason::PacketMalformed
            }
            11 | 12 if websocket => {
                actor.client.say(&[0xff; 40]);
                CloseReason::FrameMalformed
            }
            12 | 13 if stage == Stage::In => {
                actor.client.send(operation::SUBSCRIBE, &[b'1'; 4097]);
                CloseReason::PacketTooBig
            }
            14 if websocket => {
                actor.client.frame(true, Opcode::Close, &[0x03, 0xe8]);
                CloseReason::PeerClosed
            }
            15 if websocket => {
                actor.client.frame(true, Opcode::Text, b"no packet");
                CloseReason::FrameWrongType
            }
            16 if websocket => {
                actor.client.frame(true, Opcode::Text, &[0xff; 20]);
                CloseReason::FrameNotUtf8
            }
            17 if websocket => {
                actor.client.frame(false, Opcode::Binary, &[0; 8193]);
                CloseReason::FrameTooBig
            }
            18..=20 if actor.is_v1() => {
                // Neither is a login, nor anything that goim v1 does otherwise.
                actor.client.send(operation::CHANGE_ROOM, b"room");
                CloseReason::OperationUnknown
            }
            18 if stage == Stage::In => {
                actor.client.send(operation::CHANGE_ROOM, &[b'x'; ROOM_NAME_BYTES_MAX + 1]);
                CloseReason::RoomNameBad
            }
            19 if stage == Stage::New && quiet => {
                actor.client.send(operation::AUTH, b"no JSON");
                CloseReason::LoginRefused
            }
            20 if stage == Stage::New && quiet => {
                let login = Login { room_id: "x".repeat(ROOM_NAME_BYTES_MAX + 1), ..Login::default() };
                actor.client.login(&login);
                // Without a token nobody looks further.
                if actor.grant.is_some() && !actor.hooks { CloseReason::LoginRefused } else { CloseReason::RoomNameBad }
            }
            22 if sealed => {
                actor.client.say_raw(&[0xff; 40]);
                CloseReason::TlsRecord
            }
            23 if sealed => {
                // A record that nobody has sealed.
                actor.client.say_raw(&[&[23, 3, 3, 0, 40][..], &[0; 40]].concat());
                CloseReason::TlsRecord
            }
            _ => return format!("{name} thinks of harm"),
        };
        // Malformed input before the upgrade is a refused handshake.
        actor.expects.push(CloseReason::HandshakeRefused);
        actor.end_as(reason);
        actor.partial = true;
        format!("{name} does what leads to {}", reason.name())
    }

    /// Compressed messages that are none, too long, or where none may be.
    fn deflate_badly(&mut self, at: usize) -> String {
        let kind = self.dice.below(5);
        let actor = &mut self.actors[at];
        let client = &actor.client;
        let reason = match kind {
            0 => {
                client.deflated_frame(Opcode::Binary, &[0xff; 20]);
                CloseReason::FrameNotDeflate
            }
            1 => {
                client.deflated_frame(Opcode::Binary, &deflated(&[0; 8193]));
                CloseReason::FrameTooBig
            }
            2 => {
                client.deflated_frame(Opcode::Text, &deflated(&[0xff; 20]));
                CloseReason::FrameNotUtf8
            }
            3 => {
                client.deflated_frame(Opcode::Text, &deflated(b"no packet"));
                CloseReason::FrameWrongType
            }
            _ => {
                client.deflated_frame(Opcode::Ping, b"ping");
                CloseReason::FrameMalformed
            }
        };
        actor.expects.push(CloseReason::HandshakeRefused);
        actor.end_as(reason);
        actor.partial = true;
        format!("{} compresses what leads to {}", actor.name(), reason.name())
    }

    /// While control rests somebody breaks, a room is made, and a push goes to the room that may be gone by then.
    fn break_and_make_a_room(&mut self, at: usize) -> String {
        let now_ms = self.world.now_ms;
        let room = self.actors[at].login_room.clone().unwrap_or_else(|| "a".into());
        let lonely = |other: &Actor| other.login_room.as_ref() == Some(&room);
        for actor in self.actors.iter_mut().filter(|actor| lonely(actor)).take(2) {
            actor.client.reset();
            actor.end();
            actor.must_end = true;
        }
        self.control_rests = 4;
        self.round();
        self.round();
        let new = format!("new-{}", self.pushes.len());
        let stays =
            |actor: &&mut Actor| actor.stage == Stage::In && actor.is_quiet() && !actor.partial && !actor.is_v1();
        for actor in self.actors.iter_mut().filter(stays).take(4) {
            actor.ask(Change::Move(new.clone()), now_ms);
        }
        self.round();
        self.round();
        let taken = self.dispatch(&Pushed { target: Target::Room(room.clone()), operation: 1000, padding: 0 });
        format!("members of {room} break while {new} is made; a push to {room}: {taken:?}")
    }

    /// Part of a packet, and then nothing, or the end.
    fn leave_in_the_middle(&mut self, at: usize) -> String {
        let actor = &mut self.actors[at];
        let bytes = actor.client.packet_bytes(operation::CHANGE_ROOM, b"room");
        let part = 1 + self.dice.below(bytes.len() - 1);
        actor.client.say(&bytes[..part]);
        actor.partial = true;
        actor.end();
        if self.dice.once_in(2) {
            actor.client.half_close();
            actor.expects.push(CloseReason::PeerClosed);
            actor.must_end = true;
        }
        format!("{} stops in the middle of a packet", actor.name())
    }

    /// An operator revokes somebody's token.
    fn revoke(&mut self, id: String) -> String {
        let of = |actor: &&mut Actor| actor.grant.as_ref().is_some_and(|grant| grant.id == id);
        for actor in self.actors.iter_mut().filter(of) {
            actor.end_as(CloseReason::GrantRevoked);
            actor.expects.push(CloseReason::LoginRefused);
        }
        let until_s = self.world.now_s() + 1000;
        let what = Revoked::Token(id);
        let closed = self.world.control.revoke(&what, until_s, &mut self.world.outgoing).expect("a place");
        format!("an operator revokes {what:?}: {closed}")
    }

    fn kick(&mut self, at: usize) -> String {
        if self.actors[at].is_v1() {
            return format!("{} has no key that an operator knows", self.actors[at].name());
        }
        if let Some(grant) = &self.actors[at].grant
            && !self.hooks
            && self.dice.once_in(2)
        {
            let id = grant.id.clone();
            return self.revoke(id);
        }
        let key = self.actors[at].login.key.clone();
        for other in self.actors.iter_mut().filter(|other| other.login.key == key) {
            other.end_as(CloseReason::Kicked);
        }
        let kicked = self.world.control.kick(&key, CloseReason::Kicked, &mut self.world.outgoing);
        assert_eq!(kicked, self.shadow.of_key(&key).len(), "connections of {key}");
        format!("an operator kicks {key}: {kicked}")
    }

    fn knock_at_the_wrong_door(&mut self) -> String {
        let listener = 1 + 2 * self.dice.below(2);
        let client = Client::connect_silent(&self.world.net, listener, Transport::WebSocket);
        let good = self.dice.once_in(2);
        let path = if good { "/sub" } else { "/elsewhere" };
        let head = halley_protocol::websocket::client::request("gateway", path, super::super::client::KEY);
        client.say(head.as_bytes());
        let mut actor = Actor::new(client, listener, Login::default(), true, self.world.now_ms);
        actor.end_as(CloseReason::HandshakeRefused);
        self.actors.push(actor);
        format!("somebody asks listener {listener} for {path} without an origin")
    }
}
