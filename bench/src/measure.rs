//! One pass over a fleet that is connected: warm-up, measured window, drain, and what it cost.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::clients::{Counts, Gathered};
use crate::clock;
use crate::cost::{NetCounters, Spent, Usage};
use crate::doubt::{Generator, Watchdog, nothing_arrived};
use crate::fault::{Ends, Fault};
use crate::fleet::Fleet;
use crate::floor::FloorChild;
use crate::interrupt::Interrupt;
use crate::push::{Pushed, Pusher};
use crate::sampler::{self, Usages};
use crate::schedule::Schedule;
use crate::series::Columns;
use crate::stats::{Growth, Stats, StatsSource};

/// From the order to begin until the first message is due.
const LEAD: Duration = Duration::from_millis(200);

/// Who lets messages out.
pub enum Source<'a> {
    /// This process, through an API or a topic.
    Process(&'a Pusher),
    /// The bare server itself.
    Floor(&'a mut FloorChild),
}

/// What to do in a pass.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Messages per second into each room.
    pub rate: f64,
    /// Rooms.
    pub rooms: u32,
    /// The measured window.
    pub duration: Duration,
    /// Messages before it that are not counted.
    pub warmup: Duration,
    /// How long to wait for what is on its way.
    pub grace: Duration,
}

impl Pass {
    /// Deliveries that a pass to so many clients makes if nothing is lost.
    pub fn deliveries(&self, clients: u32) -> u64 {
        let schedule = Schedule::new(0, self.rate, self.rooms, self.duration, Duration::ZERO);
        u64::from(schedule.count / self.rooms) * u64::from(clients)
    }
}

/// What to watch in a pass.
pub struct Watched<'a> {
    /// The clients.
    pub fleet: &'a Fleet,
    /// How many bytes a second those read that are slow, if there are any.
    pub slow: Option<u32>,
    /// Whether they come and go.
    pub moving: bool,
    /// The server's process.
    pub server_pid: Option<u32>,
    /// The server's own counters.
    pub stats: Option<&'a StatsSource>,
    /// The kernel's counters before the clients connected.
    pub net_before: &'a NetCounters,
    /// The user.
    pub interrupt: &'a Interrupt,
    /// Shows deliveries while they are made.
    pub bar: ProgressBar,
}

/// What a pass has shown. Deliveries are message × connection; slow clients are counted apart.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Whether the numbers mean anything.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// The user has ended it early.
    #[serde(skip)]
    pub was_interrupted: bool,
    /// Connected clients that were not slow.
    pub connections: u64,
    /// Messages let out.
    pub messages: u64,
    /// Of these, refused by the server with 503; not counted as offered.
    pub refused: u64,
    /// Of these, without an answer; counted as offered.
    pub unanswered: u64,
    /// Deliveries owed.
    pub offered: u64,
    /// What came of them.
    #[serde(flatten)]
    pub counts: Counts,
    /// Length of the measured window, until the last delivery if that is later.
    pub seconds: f64,
    /// From when a message was due until a client had it.
    pub latency_ms: Latency,
    /// The same as a curve: (share of the deliveries, milliseconds within which they came).
    pub latency_curve: Vec<(f64, f64)>,
    /// How the pass went, second by second.
    pub over_time: OverTime,
    /// Mean latency of the clients, in milliseconds: best served, median, worst served.
    pub fairness_ms: Option<[f64; 3]>,
    /// The slow clients.
    pub slow: Option<Slow>,
    /// The first malformed frames.
    pub malformed_frames: Vec<Fault>,
    /// When and how the server died, if it did.
    pub death: Option<Death>,
    /// From when a message was due until the API answered.
    pub push_answer_ms: Option<Latency>,
    /// What the server spent.
    pub server: Option<Server>,
    /// How its own counters grew.
    pub stats: Option<Growth>,
    /// What the generator knows about itself.
    pub generator: Generator,
    /// When connections ended.
    #[serde(skip)]
    pub ends: Ends,
    /// Latencies in microseconds.
    #[serde(skip)]
    pub latency_us: Option<Histogram<u64>>,
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the names are the percentiles")]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// A pass, second by second; longer passes have longer steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OverTime {
    /// Deliveries by the second in which they arrived, slow clients left out, and their latencies.
    pub deliveries: Option<Columns>,
    /// Messages by the second in which they were due, and how late they left the generator.
    pub lateness: Option<Columns>,
    /// What server and generator spent.
    pub usage: Usages,
}

/// What clients that stopped reading had when they read again.
#[derive(Clone, Debug, Serialize)]
pub struct Slow {
    /// How many.
    pub connections: usize,
    /// Their deliveries.
    pub delivered: u64,
    /// Of these, before they read as others do again.
    pub delivered_while_slow: u64,
    /// What they missed, together.
    pub missed: u64,
    /// What each of them missed.
    pub missed_each: Vec<u32>,
}

/// The end of a server in the middle of a pass.
#[derive(Clone, Debug, Serialize)]
pub struct Death {
    /// Seconds from the first message.
    pub seconds: f64,
    /// Connections that had ended by then.
    pub connections_ended: u64,
    /// What was seen of it.
    pub why: String,
}

/// What the server spent in the measured window and its drain, all threads.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    /// Microseconds on a CPU for each delivery.
    pub cpu_us_per_delivery: f64,
    /// All of it.
    #[serde(flatten)]
    pub spent: Spent,
}

impl Latency {
    /// Percentiles of a histogram in microseconds.
    #[allow(clippy::cast_precision_loss, reason = "latencies")]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// Where a curve of latencies is read: tenths up to 90 %, then ever finer while there are values.
#[allow(clippy::cast_precision_loss, reason = "latencies")]
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let tenths = (0..9).map(|tenth| f64::from(tenth) / 10.0);
    let finer = (8..57).map(|eighth| 1.0 - 10_f64.powf(-f64::from(eighth) / 8.0));
    let last = 1.0 - 1.0 / histogram.len().max(1) as f64;
    let shares = tenths.chain(finer.take_while(|share| *share < last)).chain([1.0]);
    let rounded = |share: f64| (share * 1e8).round() / 1e8;
    let point = |share: f64| (rounded(share), histogram.value_at_quantile(share) as f64 / 1000.0);
    if histogram.is_empty() { Vec::new() } else { shares.map(point).collect() }
}

impl fmt::Display for Latency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max } = self;
        write!(out, "p50 {p50:.2}  p90 {p90:.2}  p99 {p99:.2}  p99.9 {p999:.2}  max {max:.2}")
    }
}

impl Source<'_> {
    fn run(&mut self, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        match self {
            Self::Process(push) => push.run(schedule, interrupt),
            Self::Floor(child) => child.run(schedule),
        }
    }

    /// Whether being late is the generator's fault.
    fn is_generator(&self) -> bool {
        matches!(self, Self::Process(_))
    }
}

/// What the costs were before the measured window.
struct Before {
    generator: Usage,
    server: Option<Usage>,
    stats: Option<Stats>,
}

/// Runs a pass.
///
/// # Errors
/// A sentence, if the server or its counters cannot be watched, or the warm-up fails.
pub fn measure(source: &mut Source<'_>, pass: &Pass, watched: &Watched<'_>) -> Result<Measured, String> {
    let fleet = watched.fleet;
    let run = new_run();
    if !pass.warmup.is_zero() {
        let schedule = Schedule::new(run, pass.rate, pass.rooms, pass.warmup, LEAD);
        fleet.measure(schedule);
        let pushed = source.run(&schedule, watched.interrupt);
        if let Some(failure) = pushed.failure {
            return Err(format!("in the warm-up {failure}"));
        }
        fleet.drain(fleet.owed(&pushed.offered), Duration::from_secs(2));
    }
    if fleet.is_deserted() {
        let first = fleet.failure().unwrap_or_default();
        return Err(format!("no client was left when the measured messages should begin: {first}"));
    }
    if watched.slow.is_some() {
        fleet.slow_down(watched.slow);
    }
    let schedule = Schedule::new(run.wrapping_add(1), pass.rate, pass.rooms, pass.duration, LEAD);
    fleet.measure(schedule);
    let before = watched.before()?;
    let watchdog = Watchdog::default();
    let stop = Interrupt::default();
    let mut failed_ns = None;
    let (pushed, pause_ms_max, usage, last_ns) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watchdog.watch());
        scope.spawn(|| watched.show_until_stopped(&watchdog, &stop));
        let sampling = scope.spawn(|| sampler::watch(watched.server_pid, || watchdog.is_stopped()));
        let pushed = source.run(&schedule, &stop);
        if pushed.failure.is_some() {
            failed_ns = Some(clock::now_ns());
            std::thread::sleep(Duration::from_millis(100)); // connections of the same server end now too
        }
        // Waiting for what is lost is no part of the window: it would thin every share of time.
        let last_ns = if watched.moving {
            fleet.drain_owed(&pushed.offered, pass.grace);
            clock::now_ns()
        } else {
            fleet.drain(fleet.owed(&pushed.offered), pass.grace)
        };
        watchdog.stop();
        (pushed, watching.join().unwrap_or(f64::INFINITY), sampling.join().unwrap_or_default(), last_ns)
    });
    let mut measured = watched.after(&before, &schedule, &pushed, pass, last_ns)?;
    if source.is_generator() {
        measured.generator.lateness_ms = (Latency::of(&pushed.lateness_us).p99, Latency::of(&pushed.lateness_us).max);
        measured.push_answer_ms = Some(Latency::of(&pushed.answer_us));
    }
    measured.over_time.usage = usage;
    measured.generator.pause_ms_max = pause_ms_max;
    measured.death = measured.death(&schedule, &pushed, failed_ns);
    measured.judge(&schedule, &pushed, watched.interrupt);
    Ok(measured)
}

/// A number that earlier passes, also of other processes, are unlikely to have.
#[allow(clippy::cast_possible_truncation, reason = "any bits will do")]
fn new_run() -> u32 {
    (clock::now_ns() >> 8) as u32 ^ std::process::id().rotate_left(16)
}

impl Watched<'_> {
    fn before(&self) -> Result<Before, String> {
        Ok(Before {
            stats: self.stats.map(StatsSource::read).transpose()?,
            generator: usage(std::process::id())?,
            server: self.server_pid.map(usage).transpose()?,
        })
    }

    /// Shows deliveries, and ends the pass if the user wants that or no connection is left.
    fn show_until_stopped(&self, watchdog: &Watchdog, stop: &Interrupt) {
        while !watchdog.is_stopped() {
            self.bar.set_position(self.fleet.totals().delivered);
            if self.interrupt.is_set() || self.fleet.is_deserted() {
                stop.set();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.bar.finish_and_clear();
    }

    fn after(
        &self,
        before: &Before,
        schedule: &Schedule,
        pushed: &Pushed,
        pass: &Pass,
        last_ns: u64,
    ) -> Result<Measured, String> {
        let spent = usage(std::process::id())?.since(&before.generator);
        // A server that died has no usage any more; its death is a reason of its own.
        let server = self.server_pid.and_then(|pid| usage(pid).ok());
        let delivered_while_slow = self.fleet.totals().slow_delivered;
        if self.slow.is_some() {
            self.fleet.slow_down(None);
            self.fleet.drain_slow(pass.grace);
        }
        let gathered = self.fleet.gather(pushed.offered.clone());
        let kernel_drops = NetCounters::read().since(self.net_before);
        let mut measured = Measured::new(gathered, pushed, self.fleet);
        if let Some(slow) = &mut measured.slow {
            slow.delivered_while_slow = delivered_while_slow;
        }
        measured.seconds = seconds_between(schedule.start_ns, last_ns.max(schedule.end_ns()));
        measured.generator = Generator { spent, kernel_drops, ..Generator::default() };
        measured.generator.add_threads(&pushed.threads);
        let counts = measured.counts;
        let delivered = counts.delivered + measured.slow.as_ref().map_or(0, |slow| slow.delivered);
        if let (Some(now), Some(before)) = (server, &before.server) {
            let spent = now.since(before);
            // What slow clients get when they read again comes after the usage was read.
            let paid = counts.delivered + delivered_while_slow;
            #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
            let cpu_us_per_delivery = spent.cpu_seconds * 1e6 / paid.max(1) as f64;
            measured.server = Some(Server { cpu_us_per_delivery, spent });
        }
        if let (Some(source), Some(before)) = (self.stats, &before.stats) {
            let closed = counts.closed + counts.slow_closed;
            let comparable = (closed == 0 && !self.moving).then_some(delivered + counts.duplicates);
            match source.read() {
                Ok(now) => measured.stats = Some(now.since(before, comparable)),
                Err(error) => measured.invalid_reasons.push(error),
            }
        }
        Ok(measured)
    }
}

fn usage(pid: u32) -> Result<Usage, String> {
    Usage::of(pid).map_err(|error| format!("process {pid} cannot be watched: {error}"))
}

#[allow(clippy::cast_precision_loss, reason = "times of a run")]
fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

impl Measured {
    fn new(gathered: Gathered, pushed: &Pushed, fleet: &Fleet) -> Self {
        let connections = u64::from(fleet.clients() - fleet.slow_clients());
        let missed_each: Vec<u32> = gathered.slow.iter().map(|(_, missed)| *missed).collect();
        let slow = (!missed_each.is_empty()).then(|| Slow {
            connections: missed_each.len(),
            delivered_while_slow: 0,
            delivered: gathered.slow.iter().map(|(received, _)| u64::from(*received)).sum(),
            missed: missed_each.iter().map(|missed| u64::from(*missed)).sum(),
            missed_each,
        });
        let offered = gathered.owed.unwrap_or_else(|| fleet.owed(&pushed.offered));
        let mut counts = gathered.counts;
        let mut invalid_reasons = Vec::new();
        if gathered.silent_threads > 0 {
            // Its clients received something, but nobody knows what.
            counts.lost = offered.saturating_sub(counts.delivered);
            let why = fleet.failure().unwrap_or_default();
            invalid_reasons.push(format!("{} threads of clients ended: {why}", gathered.silent_threads));
        }
        Self {
            valid: true,
            invalid_reasons,
            was_interrupted: false,
            connections,
            messages: pushed.offered.messages(),
            refused: pushed.offered.refused(),
            unanswered: pushed.unanswered,
            offered,
            counts,
            seconds: 0.0,
            latency_ms: Latency::of(&gathered.latencies.all_us),
            latency_curve: curve(&gathered.latencies.all_us),
            over_time: OverTime {
                deliveries: gathered.latencies.over_time.columns(),
                lateness: pushed.late_over_time.columns(),
                usage: Usages::default(),
            },
            fairness_ms: fairness(gathered.means_us),
            slow,
            malformed_frames: gathered.faults,
            death: None,
            ends: gathered.ends,
            push_answer_ms: None,
            server: None,
            stats: None,
            generator: Generator::default(),
            latency_us: Some(gathered.latencies.all_us),
        }
    }

    /// The server's death: the push API failed, or the last connection ended.
    fn death(&self, schedule: &Schedule, pushed: &Pushed, failed_ns: Option<u64>) -> Option<Death> {
        let ended = self.counts.closed + self.counts.slow_closed;
        let all = ended > 0 && ended >= self.connections + self.slow.as_ref().map_or(0, |slow| slow.connections as u64);
        let all_ended = all.then(|| format!("all {ended} connections ended"));
        let at_ns = if all { self.ends.last_ns } else { failed_ns? };
        let why: Vec<String> = all_ended.into_iter().chain(pushed.failure.clone()).collect();
        let seconds = seconds_between(schedule.start_ns, at_ns);
        Some(Death { seconds, connections_ended: ended, why: why.join(", ") })
    }

    /// Marks it as meaningless.
    pub fn invalidate(&mut self, reason: String) {
        self.valid = false;
        if !self.invalid_reasons.contains(&reason) {
            self.invalid_reasons.push(reason);
        }
    }

    fn judge(&mut self, schedule: &Schedule, pushed: &Pushed, interrupt: &Interrupt) {
        let reasons = &mut self.invalid_reasons;
        let messages = self.messages;
        self.was_interrupted = interrupt.is_set();
        if messages == 0 {
            reasons.push("no message was let out".to_owned());
        }
        if let Some(Death { seconds, why, .. }) = &self.death {
            reasons.push(format!("the server died {seconds:.1} s into the run: {why}"));
        } else if interrupt.is_set() {
            let planned = schedule.count;
            reasons.push(format!("interrupted after {messages} of {planned} messages"));
        } else if messages > 0 && messages < u64::from(schedule.count) {
            reasons.push(format!("only {messages} of {} messages were let out", schedule.count));
        }
        if messages > 0 && self.refused == messages {
            reasons.push("the server refused every message with 503".to_owned());
        } else if self.offered > 0 && self.counts.delivered == 0 && self.death.is_none() {
            reasons.push(nothing_arrived(self.counts.stray));
        }
        if pushed.unanswered > 0 {
            reasons.push(format!("{} messages pushed were not answered", pushed.unanswered));
        }
        reasons.extend(self.generator.doubts(self.seconds));
        self.valid = reasons.is_empty();
    }
}

#[allow(clippy::cast_precision_loss, reason = "latencies")]
fn fairness(mut means_us: Vec<u64>) -> Option<[f64; 3]> {
    means_us.sort_unstable();
    let at = |place: usize| means_us.get(place).map(|us| *us as f64 / 1000.0);
    let last = means_us.len().checked_sub(1)?;
    Some([at(0)?, at(last / 2)?, at(last)?])
}

impl Measured {
    /// Takes over the doubts about the passes of a floor.
    pub fn doubt_floor(&mut self, floor: &crate::floor::Floor) {
        for pass in &floor.passes {
            for reason in &pass.invalid_reasons {
                let reason = format!("floor ({:?}): {reason}", pass.kind);
                self.invalid_reasons.push(reason);
            }
        }
        self.valid = self.invalid_reasons.is_empty();
    }
}
