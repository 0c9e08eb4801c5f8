//! What a thread's clients do when they come, leave and come back.

use std::io;

use halley_ring::client::{Actions, Client};

use super::{Crew, State};
use crate::clock;
use crate::moves::{BEGUN_PER_TURN_MAX, Movement, Moves, Phase, Seen, Task};
use crate::schedule::Schedule;
use crate::tally::Tally;

impl Crew {
    /// Microseconds of this thread's life.
    #[allow(clippy::cast_possible_truncation, reason = "only differences are used, and they are short")]
    pub(super) fn now_us(&self) -> u32 {
        ((clock::now_ns() - self.started_ns) / 1000) as u32
    }

    pub(super) fn set_moving(&mut self, actions: &mut Actions, movement: Movement) -> io::Result<()> {
        let count = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let moves = self.moves.insert(Moves::new(movement, self.first, count));
        let leave = moves.all_leave();
        self.seen = Seen::default();
        for index in (0..count).filter(|_| leave) {
            if self.sessions[index as usize].state == State::Ready {
                actions.close(Client(index))?;
                self.vacate(Client(index));
            }
        }
        Ok(())
    }

    /// Counts what is owed from now on, also to those who are there.
    pub(super) fn measure_moves(&mut self, schedule: Schedule) {
        let Some(moves) = &mut self.moves else { return };
        moves.measure(schedule);
        self.seen = Seen::default();
        let Some(book) = &mut moves.book else { return };
        let now_ns = clock::now_ns();
        for (index, session) in (0..).zip(&mut self.sessions) {
            if session.state == State::Ready {
                book.enter(index, now_ns);
                session.tally = Tally::starting_at(book.from(index));
            }
        }
    }

    /// Does what is due.
    pub(super) fn move_on(&mut self, actions: &mut Actions) -> io::Result<()> {
        let now_ns = clock::now_ns();
        for _ in 0..BEGUN_PER_TURN_MAX {
            let Some(task) = self.moves.as_mut().and_then(|moves| moves.next(now_ns, &mut self.seen)) else { break };
            match task {
                Task::Come(index) => self.come(actions, Client(index), now_ns)?,
                Task::Leave(index) => self.leave(actions, Client(index), now_ns)?,
                Task::GiveUp(index) => self.give_up(actions, Client(index))?,
            }
        }
        Ok(())
    }

    fn come(&mut self, actions: &mut Actions, client: Client, now_ns: u64) -> io::Result<()> {
        if let Some(moves) = &mut self.moves {
            moves.begun(client.0, now_ns);
        }
        let stream = self.plan.stream(self.first + client.0);
        let session = self.session(client);
        session.stream = stream;
        session.kept = false;
        self.kept.remove(&client.0);
        self.connect(actions, client)
    }

    fn leave(&mut self, actions: &mut Actions, client: Client, now_ns: u64) -> io::Result<()> {
        let session = &self.sessions[client.0 as usize];
        let (state, received) = (session.state, session.tally.received());
        let Some(moves) = &mut self.moves else { return Ok(()) };
        if state != State::Ready || !moves.leave(client.0, received, now_ns) {
            return Ok(());
        }
        self.depart(actions, client)
    }

    /// A client that should have left, and waited for what it is owed, leaves when it has that.
    pub(super) fn leave_if_complete(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        let session = &self.sessions[client.0 as usize];
        let book = self.moves.as_ref().and_then(|moves| moves.book.as_ref());
        let done = book.is_some_and(|book| book.is_complete(client.0, session.tally.received()));
        if done && session.state == State::Ready { self.depart(actions, client) } else { Ok(()) }
    }

    fn depart(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        self.seen.left += 1;
        actions.close(client)?;
        self.vacate(client);
        Ok(())
    }

    fn give_up(&mut self, actions: &mut Actions, client: Client) -> io::Result<()> {
        if !matches!(self.session(client).state, State::Connecting | State::Upgrading | State::LoggingIn) {
            return Ok(());
        }
        actions.close(client)?;
        self.fail_attempt(client, Phase::TimedOut, "no answer in time");
        Ok(())
    }

    /// As `lost`, of a client that may come again.
    pub(super) fn lost_moving(&mut self, client: Client, why: &str) {
        match self.session(client).state {
            State::Ready => {
                self.seen.cut_off += 1;
                self.vacate(client);
            }
            State::Connecting => self.fail_attempt(client, Phase::Connecting, why),
            State::Upgrading => self.fail_attempt(client, Phase::Upgrading, why),
            State::LoggingIn => self.fail_attempt(client, Phase::LoggingIn, why),
            State::Waiting | State::Gone => {}
        }
    }

    fn fail_attempt(&mut self, client: Client, phase: Phase, why: &str) {
        let number = self.first + client.0;
        let target = self.plan.target(number);
        self.seen.fail(phase, || format!("client {number} did not get into {target}: {why}"));
        self.vacate(client);
    }

    /// The connection of a client that was there, or wanted to be, is no more.
    fn vacate(&mut self, client: Client) {
        let before = std::mem::replace(&mut self.session(client).state, State::Waiting);
        let attempt = before != State::Ready;
        if attempt {
            self.pending -= 1;
        } else {
            self.ready -= 1;
        }
        self.kept.remove(&client.0);
        self.gaps.forget(client.0);
        if let Some(moves) = &mut self.moves {
            moves.gone(client.0, attempt, clock::now_ns());
        }
    }
}
