//! From a connection to a client whose login was answered, and what it says afterwards.

use std::io;
use std::sync::Arc;

use halley_protocol::{Packet, client, operation, websocket};
use halley_ring::client::{Actions, Client};

use super::{Crew, State};
use crate::clock;
use crate::tally::Tally;
use crate::target::Transport;

impl Crew {
    pub(super) fn connect(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        let number = self.first + client.0;
        let began_us = self.now_us();
        let session = self.session(client);
        session.began_us = began_us;
        session.state = State::Connecting;
        self.pending += 1;
        actions.connect(client, self.plan.target(number).address, self.plan.source(number))
    }

    pub(super) fn connected(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        if self.plan.login.is_none() && self.plan.raw.is_none() {
            self.become_ready(client);
            return Ok(());
        }
        let plan = Arc::clone(&self.plan);
        let number = self.first + client.0;
        let target = plan.target(number);
        if target.transport == Transport::Tcp {
            return self.log_in(actions, client);
        }
        self.session(client).state = State::Upgrading;
        // The key need not be secret: it only shows that the server speaks WebSocket.
        let key = "aGFsbGV5LWJlbmNoLWtleQ==";
        let path = plan.path(number);
        let request = websocket::client::request(&target.host, &path, key);
        self.secured.send(actions, client, request.as_bytes())
    }

    /// Takes a piece of the answer to the WebSocket request.
    pub(super) fn upgraded(&mut self, actions: &mut Actions, client: Client, bytes: &[u8]) -> io::Result<()> {
        const ANSWER_BYTES_MAX: usize = 8192;
        let mut answer = self.kept.remove(&client.0).unwrap_or_default();
        answer.extend_from_slice(bytes);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
            if answer.len() > ANSWER_BYTES_MAX {
                return self.break_off(actions, client, "an endless answer to the handshake");
            }
            self.kept.insert(client.0, answer);
            return Ok(());
        };
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or("").to_owned();
            return self.break_off(actions, client, &format!("the handshake was answered {line}"));
        }
        self.log_in(actions, client)?;
        if answer.len() > end + 4 {
            self.received(actions, client, &answer[end + 4..])?;
        }
        Ok(())
    }

    pub(super) fn log_in(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        self.session(client).state = State::LoggingIn;
        let plan = Arc::clone(&self.plan);
        if let Some(raw) = &plan.raw {
            self.outgoing.clear();
            raw.open(&mut self.outgoing, &plan.rooms, self.first + client.0);
            if !raw.waits {
                self.become_ready(client);
            }
            return if self.outgoing.is_empty() { Ok(()) } else { self.secured.send(actions, client, &self.outgoing) };
        }
        let Some(login) = self.plan.credentials(self.first + client.0, "") else { return Ok(()) };
        self.say(actions, client, operation::AUTH, login.as_bytes())
    }

    pub(super) fn become_ready(&mut self, client: Client) {
        let took_us = self.now_us().wrapping_sub(self.session(client).began_us);
        self.session(client).state = State::Ready;
        self.pending -= 1;
        self.ready += 1;
        self.seen.logins += 1;
        self.seen.login_us.saturating_record(u64::from(took_us));
        if let Some(moves) = &mut self.moves {
            moves.ready(client.0, clock::now_ns(), &mut self.seen);
            if let Some(from) = moves.book.as_ref().map(|book| book.from(client.0)) {
                self.session(client).tally = Tally::starting_at(from);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        if self.session(client).state != State::Ready {
            return Ok(());
        }
        self.say(actions, client, operation::HEARTBEAT, &[])
    }

    /// Sends one packet in the client's transport.
    pub(super) fn say(&mut self, actions: &mut Actions, client: Client, operation: i32, body: &[u8]) -> io::Result<()> {
        let packet = Packet { version: client::VERSION, operation, sequence: 1, body };
        self.outgoing.clear();
        match self.plan.target(self.first + client.0).transport {
            Transport::Tcp => client::append(&mut self.outgoing, &packet),
            Transport::Ws => {
                let mask = (self.first + client.0).to_be_bytes();
                websocket::client::packet(&mut self.outgoing, mask, &packet);
            }
        }
        self.secured.send(actions, client, &self.outgoing)
    }
}
