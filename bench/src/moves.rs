//! Clients that come, leave and come back: when each does, and what it was owed while it was there.

mod book;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

pub(crate) use book::Book;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clients::latency_histogram;
use crate::clock;
use crate::schedule::Schedule;

/// Attempts that a thread begins before it looks at what has happened.
pub(crate) const BEGUN_PER_TURN_MAX: usize = 256;

/// What clients do from now on. Until they are told, each connects once and stays.
#[derive(Clone, Debug)]
pub struct Movement {
    /// Why they move.
    pub kind: Kind,
    /// When it began, on [`clock`].
    pub since_ns: u64,
    /// An attempt without an answer to its login is given up after this.
    pub attempt: Duration,
    /// Makes a run repeatable; threads add their number.
    pub seed: u64,
}

/// Why clients move.
#[derive(Clone, Debug)]
pub enum Kind {
    /// New clients come at a rate, stay for a while and leave.
    Churn(Churn),
    /// Who loses the connection comes back.
    Return(Return),
}

/// A coming and going.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Clients that come to a thread per second.
    pub rate: f64,
    /// Mean of their stays, from the answered login.
    pub stay: Duration,
    /// Whether stays are spread exponentially about that mean; else all are alike.
    pub exponential: bool,
    /// A client that should leave waits so long for messages that were due while it was there.
    pub grace: Duration,
}

/// A coming back.
#[derive(Clone, Debug)]
pub struct Return {
    /// Everybody closes the connection now; else the server is expected to.
    pub leave: bool,
    /// The first attempt comes after a random part of this.
    pub spread: Duration,
    /// Before the second attempt.
    pub first: Duration,
    /// Each further wait is so many times the one before.
    pub factor: f64,
    /// The longest wait.
    pub longest: Duration,
}

impl Return {
    /// How long a client waits after so many failed attempts; half of a wait between attempts is random.
    fn wait(&self, failed: u8, random: &mut fastrand::Rng) -> Duration {
        let Some(again) = failed.checked_sub(1) else { return self.spread.mul_f64(random.f64()) };
        let grown = self.first.as_secs_f64() * self.factor.powi(i32::from(again));
        let wait = grown.min(self.longest.as_secs_f64());
        Duration::from_secs_f64(wait * (1.0 - random.f64() / 2.0))
    }
}

/// Where an attempt to log in failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the connection stood.
    Connecting,
    /// Before the WebSocket handshake was answered.
    Upgrading,
    /// Before the login was answered.
    LoggingIn,
    /// Anywhere, by taking too long.
    TimedOut,
}

/// Attempts that failed, by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// No connection: refused, reset, unreachable.
    pub connecting: u64,
    /// The WebSocket handshake was refused or broken off.
    pub upgrading: u64,
    /// The connection was closed before the login was answered.
    pub logging_in: u64,
    /// No answer in time.
    pub timed_out: u64,
}

impl Failed {
    fn count(&mut self, phase: Phase) {
        *match phase {
            Phase::Connecting => &mut self.connecting,
            Phase::Upgrading => &mut self.upgrading,
            Phase::LoggingIn => &mut self.logging_in,
            Phase::TimedOut => &mut self.timed_out,
        } += 1;
    }

    /// All of them.
    pub fn sum(&self) -> u64 {
        self.connecting + self.upgrading + self.logging_in + self.timed_out
    }
}

/// What became of logins and stays.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Answered logins.
    pub logins: u64,
    /// Attempts that failed.
    pub failed: Failed,
    /// Clients that left after their stay.
    pub left: u64,
    /// Connections that ended after their login without being asked to.
    pub cut_off: u64,
    /// Clients that should have come and found no free place in the generator.
    pub turned_away: u64,
    /// Clients that are back after a [`Return`], each counted once.
    pub back: u64,
    /// From the beginning of an attempt until its login was answered, in microseconds.
    pub login_us: Histogram<u64>,
    /// From the beginning of a [`Return`] until a client was back, in microseconds.
    pub back_us: Histogram<u64>,
    /// From the beginning of a [`Return`] until the last login was answered, also of a client that
    /// had been back and was cut off again, in microseconds.
    pub last_back_us: u64,
    /// Why the first attempt failed, in a sentence.
    pub failure: Option<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            logins: 0,
            failed: Failed::default(),
            left: 0,
            cut_off: 0,
            turned_away: 0,
            back: 0,
            login_us: latency_histogram(),
            back_us: latency_histogram(),
            last_back_us: 0,
            failure: None,
        }
    }
}

impl Seen {
    /// Takes what another thread has seen into the sum.
    pub fn add(&mut self, other: &Self) {
        self.logins += other.logins;
        self.failed.connecting += other.failed.connecting;
        self.failed.upgrading += other.failed.upgrading;
        self.failed.logging_in += other.failed.logging_in;
        self.failed.timed_out += other.failed.timed_out;
        self.left += other.left;
        self.cut_off += other.cut_off;
        self.turned_away += other.turned_away;
        self.back += other.back;
        for (sum, part) in [(&mut self.login_us, &other.login_us), (&mut self.back_us, &other.back_us)] {
            #[allow(clippy::expect_used, reason = "all are made with the same bounds")]
            sum.add(part).expect("same bounds");
        }
        self.last_back_us = self.last_back_us.max(other.last_back_us);
        if self.failure.is_none() {
            self.failure.clone_from(&other.failure);
        }
    }

    /// Counts an attempt that failed.
    pub(crate) fn fail(&mut self, phase: Phase, sentence: impl FnOnce() -> String) {
        self.failed.count(phase);
        self.failure.get_or_insert_with(sentence);
    }
}

/// What a client whose time has come should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Connect.
    Come(u32),
    /// End its stay.
    Leave(u32),
    /// Give up an attempt, unless its login is answered.
    GiveUp(u32),
}

/// The moving clients of a thread.
pub(crate) struct Moves {
    movement: Movement,
    random: fastrand::Rng,
    /// Who comes back, or leaves: when, which client, in which of its visits.
    timers: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// Attempts under way, oldest first: until when, which client, in which of its visits.
    attempts: VecDeque<(u64, u32, u32)>,
    visitors: Vec<Visitor>,
    /// Clients of a churn that are not there.
    free: Vec<u32>,
    /// Clients of a churn that have come, or have found no place.
    came: u64,
    pub(crate) book: Option<Book>,
}

/// What is remembered of a client.
#[derive(Clone, Copy, Default)]
struct Visitor {
    /// Attempts so far; tells a timer of an earlier one.
    visit: u32,
    /// Attempts that failed since the connection was lost.
    failed: u8,
    back: bool,
    /// Milliseconds that the server has asked it to stay away.
    away_ms: Option<u32>,
}

impl Moves {
    /// The clients `0..count` of a thread.
    pub(crate) fn new(movement: Movement, thread: u32, count: u32) -> Self {
        let free = if matches!(movement.kind, Kind::Churn(_)) { (0..count).rev().collect() } else { Vec::new() };
        Self {
            random: fastrand::Rng::with_seed(movement.seed.wrapping_add(u64::from(thread))),
            movement,
            timers: BinaryHeap::new(),
            attempts: VecDeque::new(),
            visitors: vec![Visitor::default(); count as usize],
            free,
            came: 0,
            book: None,
        }
    }

    /// Whether everybody should close the connection now.
    pub(crate) fn all_leave(&self) -> bool {
        matches!(&self.movement.kind, Kind::Return(back) if back.leave)
    }

    /// Begins to count what is owed.
    pub(crate) fn measure(&mut self, schedule: Schedule) {
        let churn = matches!(self.movement.kind, Kind::Churn(_));
        self.book = churn.then(|| Book::new(schedule, self.visitors.len()));
    }

    /// The next task that is due, if there is one.
    pub(crate) fn next(&mut self, now_ns: u64, seen: &mut Seen) -> Option<Task> {
        while let Some(&(deadline_ns, client, visit)) = self.attempts.front() {
            if deadline_ns > now_ns {
                break;
            }
            self.attempts.pop_front();
            if self.visitors[client as usize].visit == visit {
                return Some(Task::GiveUp(client));
            }
        }
        while let Some(&Reverse((due_ns, client, visit))) = self.timers.peek() {
            if due_ns > now_ns {
                break;
            }
            self.timers.pop();
            if self.visitors[client as usize].visit == visit {
                return Some(if self.free_places() { Task::Leave(client) } else { Task::Come(client) });
            }
        }
        self.arrival(now_ns, seen)
    }

    /// Whether clients have no identity beyond their visit.
    fn free_places(&self) -> bool {
        matches!(self.movement.kind, Kind::Churn(_))
    }

    fn arrival(&mut self, now_ns: u64, seen: &mut Seen) -> Option<Task> {
        let Kind::Churn(churn) = &self.movement.kind else { return None };
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.movement.since_ns));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
        let due = (elapsed.as_secs_f64() * churn.rate) as u64;
        while self.came < due {
            self.came += 1;
            if let Some(client) = self.free.pop() {
                return Some(Task::Come(client));
            }
            seen.turned_away += 1;
        }
        None
    }

    /// An attempt begins.
    pub(crate) fn begun(&mut self, client: u32, now_ns: u64) {
        let visitor = &mut self.visitors[client as usize];
        visitor.visit = visitor.visit.wrapping_add(1);
        let deadline_ns = now_ns + clock::nanoseconds(self.movement.attempt);
        self.attempts.push_back((deadline_ns, client, visitor.visit));
    }

    /// A login was answered.
    pub(crate) fn ready(&mut self, client: u32, now_ns: u64, seen: &mut Seen) {
        let visitor = &mut self.visitors[client as usize];
        visitor.failed = 0;
        match &self.movement.kind {
            Kind::Churn(churn) => {
                let mean = churn.stay.as_secs_f64();
                let stay = if churn.exponential { -mean * (1.0 - self.random.f64()).ln() } else { mean };
                let leave_ns = now_ns + clock::nanoseconds(Duration::from_secs_f64(stay));
                self.timers.push(Reverse((leave_ns, client, visitor.visit)));
            }
            Kind::Return(_) => {
                let back_us = now_ns.saturating_sub(self.movement.since_ns) / 1000;
                seen.last_back_us = seen.last_back_us.max(back_us);
                if !visitor.back {
                    visitor.back = true;
                    seen.back += 1;
                    seen.back_us.saturating_record(back_us);
                }
            }
        }
        if let Some(book) = &mut self.book {
            book.enter(client, now_ns);
        }
    }

    /// A stay ends: whether the client may go at once. Else it waits for what it is owed, until a
    /// second call.
    pub(crate) fn leave(&mut self, client: u32, received: u32, now_ns: u64) -> bool {
        let Kind::Churn(churn) = &self.movement.kind else { return true };
        let Some(book) = &mut self.book else { return true };
        if !book.is_open(client) {
            return true; // has waited long enough
        }
        book.leave(client, now_ns);
        if book.is_complete(client, received) {
            return true;
        }
        let visit = self.visitors[client as usize].visit;
        self.timers.push(Reverse((now_ns + clock::nanoseconds(churn.grace), client, visit)));
        false
    }

    /// The server asks the client to come back after so long; its next wait is that.
    pub(crate) fn stay_away(&mut self, client: u32, ms: u32) {
        self.visitors[client as usize].away_ms = Some(ms);
    }

    /// A connection is no more, or did not come to be: `before_login` if that was an attempt.
    pub(crate) fn gone(&mut self, client: u32, before_login: bool, now_ns: u64) {
        if let Some(book) = &mut self.book {
            book.vacate(client, now_ns);
        }
        let visitor = &mut self.visitors[client as usize];
        visitor.visit = visitor.visit.wrapping_add(1); // its timers mean nothing any more
        match &self.movement.kind {
            Kind::Churn(_) => self.free.push(client),
            Kind::Return(back) => {
                visitor.failed = visitor.failed.saturating_add(u8::from(before_login));
                let wait = match visitor.away_ms.take() {
                    Some(ms) => Duration::from_millis(ms.into()),
                    None => back.wait(visitor.failed, &mut self.random),
                };
                self.timers.push(Reverse((now_ns + clock::nanoseconds(wait), client, visitor.visit)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn movement(kind: Kind) -> Movement {
        Movement { kind, since_ns: 0, attempt: Duration::from_secs(10), seed: 7 }
    }

    fn churn(rate: f64, exponential: bool) -> Movement {
        let (stay, grace) = (Duration::from_secs(2), Duration::from_secs(1));
        movement(Kind::Churn(Churn { rate, stay, exponential, grace }))
    }

    fn back() -> Return {
        let [spread, first, longest] = [0, 100, 1000].map(Duration::from_millis);
        Return { leave: true, spread, first, factor: 2.0, longest }
    }

    /// Ten messages, one a second, the first at second 10.
    fn schedule() -> Schedule {
        Schedule { run: 1, start_ns: 10 * SECOND, interval_ns: SECOND, count: 10, rooms: 1 }
    }

    #[test]
    fn who_is_asked_to_stay_away_does_so_once() {
        let mut moves = Moves::new(movement(Kind::Return(back())), 0, 1);
        let mut seen = Seen::default();
        moves.stay_away(0, 3000);
        moves.gone(0, false, 0);
        assert_eq!(moves.next(3 * SECOND - 1, &mut seen), None);
        assert_eq!(moves.next(3 * SECOND, &mut seen), Some(Task::Come(0)));
        moves.begun(0, 3 * SECOND);
        moves.gone(0, true, 3 * SECOND);
        assert_eq!(moves.next(3 * SECOND + SECOND / 10, &mut seen), Some(Task::Come(0)), "then it waits as it likes");
    }

    #[test]
    fn clients_of_a_churn_come_at_their_rate_stay_and_leave() {
        let mut moves = Moves::new(churn(10.0, false), 0, 100);
        let mut seen = Seen::default();
        let tasks = |moves: &mut Moves, now_ns, seen: &mut Seen| {
            std::iter::from_fn(|| moves.next(now_ns, seen)).collect::<Vec<_>>()
        };
        let come = tasks(&mut moves, SECOND, &mut seen);
        assert_eq!(come, (0..10).map(Task::Come).collect::<Vec<_>>());
        for client in 0..10 {
            moves.begun(client, SECOND);
            moves.ready(client, SECOND, &mut seen);
        }
        let later = tasks(&mut moves, 3 * SECOND, &mut seen);
        assert_eq!(later.iter().filter(|task| matches!(task, Task::Leave(_))).count(), 10);
        assert_eq!(later.iter().filter(|task| matches!(task, Task::Come(_))).count(), 20);
    }

    #[test]
    fn who_finds_no_place_is_counted_and_a_place_is_free_after_its_client_left() {
        let mut moves = Moves::new(churn(10.0, true), 0, 1);
        let mut seen = Seen::default();
        assert_eq!(moves.next(SECOND / 2, &mut seen), Some(Task::Come(0)));
        assert_eq!((moves.next(SECOND / 2, &mut seen), seen.turned_away), (None, 4));
        moves.gone(0, true, SECOND / 2);
        assert_eq!(moves.next(SECOND, &mut seen), Some(Task::Come(0)));
    }

    #[test]
    fn who_leaves_waits_for_what_it_is_owed_but_not_for_ever() {
        let mut moves = Moves::new(churn(0.0, false), 0, 1);
        let mut seen = Seen::default();
        moves.measure(schedule());
        moves.begun(0, 9 * SECOND);
        moves.ready(0, 9 * SECOND, &mut seen);
        assert_eq!(moves.next(11 * SECOND + 1, &mut seen), Some(Task::Leave(0)));
        assert!(!moves.leave(0, 1, 11 * SECOND + 1), "one of two has come");
        assert_eq!(moves.next(11 * SECOND + 2, &mut seen), None);
        assert_eq!(moves.next(13 * SECOND, &mut seen), Some(Task::Leave(0)));
        assert!(moves.leave(0, 1, 13 * SECOND));
    }

    #[test]
    fn waits_before_an_attempt_grow_up_to_the_longest() {
        let mut random = fastrand::Rng::with_seed(1);
        let back = back();
        assert_eq!(back.wait(0, &mut random), Duration::ZERO);
        for (failed, full_ms) in [(1, 100), (2, 200), (4, 800), (5, 1000), (255, 1000)] {
            let wait = back.wait(failed, &mut random);
            let full = Duration::from_millis(full_ms);
            assert!(wait <= full && wait >= full / 2, "{failed}: {wait:?}");
        }
    }

    #[test]
    fn who_does_not_get_in_comes_back_and_is_back_once() {
        let mut moves = Moves::new(movement(Kind::Return(back())), 0, 2);
        let mut seen = Seen::default();
        moves.gone(1, false, 0);
        assert_eq!(moves.next(0, &mut seen), Some(Task::Come(1)));
        moves.begun(1, 0);
        assert_eq!(moves.next(10 * SECOND, &mut seen), Some(Task::GiveUp(1)));
        moves.gone(1, true, 10 * SECOND);
        assert_eq!(moves.next(10 * SECOND, &mut seen), None, "not at once");
        assert_eq!(moves.next(11 * SECOND, &mut seen), Some(Task::Come(1)));
        moves.begun(1, 11 * SECOND);
        moves.ready(1, 11 * SECOND, &mut seen);
        moves.ready(1, 12 * SECOND, &mut seen);
        assert_eq!((seen.back, seen.back_us.len()), (1, 1));
    }
}
