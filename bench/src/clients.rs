//! One thread of clients: a reactor, and what each of its connections is doing.

mod entering;
mod hearing;
mod moving;
mod slowly;
mod tls;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use halley_ring::client::{Actions, Client, Event, Reactor, Sizes};
use hdrhistogram::Histogram;

pub use slowly::{SLOW_BYTES_PER_SECOND_MAX, SLOW_BYTES_PER_SECOND_MIN};

use crate::clock;
use crate::decode::Stream;
use crate::fault::{Ends, Fault};
use crate::moves::{Movement, Moves, Seen};
use crate::offered::Offered;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::secure::Secured;
use crate::series::Latencies;
use crate::tally::{Gaps, Tally};

/// Latencies up to two minutes in microseconds, three digits.
pub fn latency_histogram() -> Histogram<u64> {
    #[allow(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds are valid")
}

/// What a thread is told.
#[derive(Debug)]
pub enum Order {
    /// The slow clients read so many bytes a second, 0: none; or (none) as others do.
    SlowDown(Option<u32>),
    /// From now on messages of this pass count, and only they.
    Measure(Schedule),
    /// Answer what the clients have received of it.
    Collect(Arc<Offered>, Sender<Gathered>),
    /// From now on clients come, leave and come back.
    Move(Movement),
    /// Answer what became of logins.
    Look(Sender<Seen>),
    /// End.
    Stop,
}

/// Counters that a thread shows while it works.
#[derive(Debug, Default)]
pub struct Progress {
    /// Clients with an answered login.
    pub ready: AtomicU64,
    /// Clients that could not connect, were refused, or lost their connection.
    pub gone: AtomicU64,
    /// Messages of the pass received by clients that are not slow, each once.
    pub delivered: AtomicU64,
    /// The same by slow clients.
    pub slow_delivered: AtomicU64,
    /// The first thing that went wrong, in a sentence.
    pub failure: Mutex<Option<String>>,
}

impl Progress {
    fn fail(&self, sentence: impl FnOnce() -> String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(sentence);
    }
}

/// What the clients of a thread received in a pass.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// Threads of clients that have ended and cannot answer.
    pub silent_threads: usize,
    /// Deliveries owed, if clients come and go; else it is clients × messages.
    pub owed: Option<u64>,
    /// Exact counts over clients that are not slow.
    pub counts: Counts,
    /// Latencies of first arrivals, slow clients left out.
    pub latencies: Latencies,
    /// Mean latency in microseconds of each client that is not slow and received anything.
    pub means_us: Vec<u64>,
    /// (received, missed) of each slow client.
    pub slow: Vec<(u32, u32)>,
    /// The first malformed frames.
    pub faults: Vec<Fault>,
    /// When connections ended.
    pub ends: Ends,
}

/// Counts of a pass, in deliveries (message × connection), and what befell connections.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// First arrivals.
    pub delivered: u64,
    /// Offered and not arrived.
    pub lost: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Arrived although the server had refused the push.
    pub refused_but_delivered: u64,
    /// Messages of a room that the client is not in.
    pub misrouted: u64,
    /// Messages of another pass, or without a mark.
    pub stray: u64,
    /// Owed to nobody: due before the client's login was answered, or after it should have left.
    #[serde(skip_serializing_if = "is_zero")]
    pub unowed: u64,
    /// Connections that broke the protocol.
    pub malformed: u64,
    /// Connections that ended during the pass, slow ones left out.
    pub closed: u64,
    /// Slow clients whose connection ended during the pass.
    pub slow_closed: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands out what it has")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Connecting,
    Upgrading,
    LoggingIn,
    Ready,
    Gone,
}

/// One client.
struct Session {
    stream: Stream,
    tally: Tally,
    /// When its attempt to log in began, in microseconds of the thread's life; wraps after an hour.
    began_us: u32,
    state: State,
    slow: bool,
    /// Bytes of a cut element lie in `Crew::kept`.
    kept: bool,
}

const _: () = assert!(size_of::<Session>() <= 40, "an idle client must stay cheap");

/// The clients of a thread and their records.
struct Crew {
    plan: Arc<Plan>,
    /// Number of this thread's first client.
    first: u32,
    sessions: Vec<Session>,
    kept: HashMap<u32, Vec<u8>>,
    spare: Vec<u8>,
    secured: Secured,
    /// Data of records.
    opened: Vec<u8>,
    outgoing: Vec<u8>,
    pass: Option<Schedule>,
    gaps: Gaps,
    counts: Counts,
    slow_delivered: u64,
    latencies: Latencies,
    ready: u32,
    gone: u32,
    pending: u32,
    seen: Seen,
    moves: Option<Moves>,
    pace: Option<slowly::Pace>,
    started_ns: u64,
    faults: Vec<Fault>,
    ends: Ends,
    progress: Arc<Progress>,
}

/// Runs the clients `first..first + count` until told to stop.
///
/// # Errors
/// If the ring cannot be made or breaks.
pub fn run(
    plan: &Arc<Plan>,
    first: u32,
    count: u32,
    progress: &Arc<Progress>,
    orders: &Receiver<Order>,
) -> io::Result<()> {
    let sizes = Sizes { clients_max: count, buffers: plan.buffers, buffer_bytes: 2048, gather: plan.gather };
    let mut reactor = Reactor::new(sizes)?;
    let mut crew = Crew::new(plan, first, count, progress);
    let started = Instant::now();
    let mut ready_since = None;
    let (mut connecting, mut beats) = (0, 0);
    let heartbeat = plan.login.as_ref().map_or(Duration::ZERO, |login| login.heartbeat);
    let beat_rate = if heartbeat.is_zero() { 0.0 } else { f64::from(count) / heartbeat.as_secs_f64() };
    loop {
        loop {
            match orders.try_recv() {
                Ok(order) => {
                    if crew.obey(reactor.actions(), order)? {
                        return Ok(());
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(()), // the run has failed
            }
        }
        let allowed = paced(started.elapsed(), crew.plan.connect_rate).min(u64::from(count));
        while u64::from(connecting) < allowed && crew.pending < crew.plan.pending_max {
            crew.connect(reactor.actions(), Client(connecting))?;
            connecting += 1;
        }
        crew.move_on(reactor.actions())?;
        if crew.ready + crew.gone == count || crew.moves.is_some() {
            let since = *ready_since.get_or_insert_with(Instant::now);
            while beats < paced(since.elapsed(), beat_rate) {
                #[allow(clippy::cast_possible_truncation, reason = "below count")]
                crew.heartbeat(reactor.actions(), Client((beats % u64::from(count)) as u32))?;
                beats += 1;
            }
        }
        let sleep = Duration::from_millis(if connecting < count || crew.moves.is_some() { 1 } else { 20 });
        let sleep = crew.read_slowly(reactor.actions(), sleep)?;
        let mut broken = Ok(());
        reactor.turn(sleep, |actions, client, event| {
            if let Err(error) = crew.handle(actions, client, event) {
                broken = Err(error);
            }
        })?;
        broken?;
        crew.show();
    }
}

/// How many of something may have begun after a time, at a rate per second.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and small")]
fn paced(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate) as u64
}

impl Crew {
    fn new(plan: &Arc<Plan>, first: u32, count: u32, progress: &Arc<Progress>) -> Self {
        let session = |index| Session {
            stream: plan.stream(first + index),
            tally: Tally::default(),
            began_us: 0,
            state: State::Waiting,
            slow: plan.is_slow(first + index),
            kept: false,
        };
        Self {
            plan: Arc::clone(plan),
            first,
            sessions: (0..count).map(session).collect(),
            kept: HashMap::new(),
            spare: Vec::new(),
            secured: Secured::default(),
            opened: Vec::new(),
            outgoing: Vec::new(),
            pass: None,
            gaps: Gaps::default(),
            counts: Counts::default(),
            slow_delivered: 0,
            latencies: Latencies::new(0),
            ready: 0,
            gone: 0,
            pending: 0,
            seen: Seen::default(),
            moves: None,
            pace: None,
            started_ns: clock::now_ns(),
            faults: Vec::new(),
            ends: Ends::default(),
            progress: Arc::clone(progress),
        }
    }

    fn session(&mut self, client: Client) -> &mut Session {
        &mut self.sessions[client.0 as usize]
    }

    /// Carries out an order; true if it was the last.
    fn obey(&mut self, actions: &mut Actions, order: Order) -> io::Result<bool> {
        match order {
            Order::SlowDown(bytes_per_second) => self.slow_down(actions, bytes_per_second)?,
            Order::Measure(schedule) => {
                self.pass = Some(schedule);
                self.gaps = Gaps::default();
                self.counts = Counts::default();
                self.faults.clear();
                self.ends = Ends::default();
                self.slow_delivered = 0;
                self.latencies = Latencies::new(schedule.start_ns);
                for session in &mut self.sessions {
                    session.tally = Tally::default();
                }
                self.measure_moves(schedule);
                self.show();
            }
            Order::Collect(offered, answer) => {
                let _ = answer.send(self.gather(&offered)); // who asked may have given up
            }
            Order::Move(movement) => self.set_moving(actions, movement)?,
            Order::Look(answer) => {
                let _ = answer.send(self.seen.clone());
            }
            Order::Stop => return Ok(true),
        }
        Ok(false)
    }

    fn handle(&mut self, actions: &mut Actions, client: Client, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Connected if self.is_secure(client) => self.begin_tls(actions, client),
            Event::Connected => self.connected(actions, client),
            Event::Received(bytes) if self.is_secure(client) => self.opened(actions, client, bytes),
            Event::Received(bytes) => self.heard(actions, client, bytes),
            Event::Closed => {
                self.lost(client, "the server closed the connection");
                Ok(())
            }
            Event::Failed(errno) => {
                let error = io::Error::from_raw_os_error(errno);
                self.lost(client, &error.to_string());
                Ok(())
            }
        }
    }

    /// The server has closed a WebSocket, and may have said when to come back.
    fn sent_away(&mut self, actions: &mut Actions, client: Client, code: u16, retry_ms: Option<u32>) -> io::Result<()> {
        if let (Some(moves), Some(ms)) = (&mut self.moves, retry_ms) {
            moves.stay_away(client.0, ms);
        }
        self.break_off(actions, client, &format!("the server closed it with code {code}"))
    }

    /// Closes a connection from our side.
    fn break_off(&mut self, actions: &mut Actions, client: Client, why: &str) -> io::Result<()> {
        self.lost(client, why);
        actions.close(client)
    }

    /// Records that a connection is no more.
    fn lost(&mut self, client: Client, why: &str) {
        if self.moves.is_some() {
            return self.lost_moving(client, why);
        }
        let number = self.first + client.0;
        let slow = self.session(client).slow;
        let before = std::mem::replace(&mut self.session(client).state, State::Gone);
        let when = match before {
            State::Gone => return,
            State::Ready => {
                self.ready -= 1;
                self.ends.add(clock::now_ns());
                let counter = if slow { &mut self.counts.slow_closed } else { &mut self.counts.closed };
                *counter += 1;
                "after its login"
            }
            State::LoggingIn => "before its login was answered (is the login refused?)",
            State::Upgrading => "before its WebSocket handshake was answered",
            State::Waiting | State::Connecting => "while connecting",
        };
        if before != State::Ready {
            self.pending -= 1;
        }
        self.gone += 1;
        self.kept.remove(&client.0);
        let target = self.plan.target(number);
        self.progress.fail(|| format!("client {number} lost {target} {when}: {why}"));
    }

    /// Publishes the counters.
    fn show(&self) {
        let progress = &self.progress;
        progress.ready.store(u64::from(self.ready), Ordering::Relaxed);
        progress.gone.store(u64::from(self.gone), Ordering::Relaxed);
        progress.delivered.store(self.counts.delivered, Ordering::Relaxed);
        progress.slow_delivered.store(self.slow_delivered, Ordering::Relaxed);
    }

    fn gather(&self, offered: &Offered) -> Gathered {
        let mut counts = self.counts;
        let mut means_us = Vec::new();
        let mut slow = Vec::new();
        for (index, session) in (0..).zip(&self.sessions) {
            let Session { tally, .. } = session;
            let room = self.plan.rooms.of_client(self.first + index);
            let refused = offered.refused_in(room);
            let missing = tally.missing(&self.gaps, index, offered.messages_in(room), refused);
            counts.refused_but_delivered += u64::from(tally.refused_but_received(&self.gaps, index, refused));
            if session.slow {
                slow.push((tally.received(), missing));
                continue;
            }
            counts.lost += u64::from(missing);
            if self.moves.is_some() {
                continue; // a place is not a client
            }
            means_us.extend(tally.latency_us_mean());
        }
        let mut owed = None;
        if let Some(book) = self.moves.as_ref().and_then(|moves| moves.book.as_ref()) {
            let (due, lost, despite) = book.settle(offered);
            owed = Some(due);
            counts.lost = lost;
            counts.refused_but_delivered = despite;
        }
        Gathered {
            silent_threads: 0,
            owed,
            counts,
            latencies: self.latencies.clone(),
            means_us,
            slow,
            faults: self.faults.clone(),
            ends: self.ends,
        }
    }
}
