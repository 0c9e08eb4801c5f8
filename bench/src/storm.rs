//! Everybody reconnects at once, because all clients lost the network or the server was restarted.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::cli::duration;
use crate::clock;
use crate::cost::{NetCounters, Spent, Usage};
use crate::curve::Curve;
use crate::doubt::{Generator, Watchdog};
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::measure::{Latency, Measured, Pass};
use crate::moves::{Failed, Kind, Movement, Return, Seen};
use crate::report::{Origin, Table};
use crate::scene::{Entry, Scene, SceneArgs};
use crate::stand::{Failure, progress};

/// After a restart clients must have been at rest for so long: who has not noticed yet is not back.
const REST: Duration = Duration::from_millis(500);

/// Flags of `storm`.
#[derive(Clone, Debug, Args, Serialize)]
pub struct StormArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub scene: SceneArgs,
    /// Clients.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// Restarts the server, by `sh -c`: clients come back when they have lost it. Without it they
    /// close their connections themselves, all in the same moment.
    #[arg(long, value_name = "COMMAND")]
    pub restart_cmd: Option<String>,
    /// Seconds over which the first attempts are spread at random; 0: all at once.
    #[arg(long, default_value_t = 0.0, value_parser = crate::cli::seconds)]
    pub spread: f64,
    /// Seconds that a client waits before its second attempt.
    #[arg(long, default_value_t = 0.2, value_parser = crate::cli::seconds)]
    pub backoff: f64,
    /// Each further wait is so many times the one before; half of each is random.
    #[arg(long, default_value_t = 2.0, value_parser = crate::cli::factor)]
    pub backoff_factor: f64,
    /// Seconds of the longest wait.
    #[arg(long, default_value_t = 5.0, value_parser = crate::cli::seconds)]
    pub backoff_longest: f64,
    /// Seconds after which an attempt is given up and counts as failed.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cli::seconds)]
    pub attempt: f64,
    /// Seconds until everybody must be back.
    #[arg(long, default_value_t = 120.0, value_parser = crate::cli::seconds)]
    pub back: f64,
    /// Seconds between the last login and the storm.
    #[arg(long, default_value_t = 2.0, value_parser = crate::cli::seconds)]
    pub settle: f64,
    /// Seed of the random waits.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Bound: seconds until everybody is back.
    #[arg(long = "max-seconds", value_name = "SECONDS", value_parser = crate::cli::bound)]
    pub seconds_max: Option<f64>,
    /// Bound: attempts that may fail.
    #[arg(long = "max-failed", value_name = "ATTEMPTS")]
    pub failed_max: Option<u64>,
}

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How to repeat it.
    #[serde(flatten)]
    pub origin: Origin,
    /// Whether the numbers mean anything.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Bounds that were missed.
    pub bounds_missed: Vec<String>,
    /// What to bear in mind.
    pub notes: Vec<String>,
    /// Clients.
    pub connections: u32,
    /// How they came in at first.
    pub entry: Entry,
    /// How they came back.
    pub storm: Storm,
    /// The restart in between.
    pub restart: Option<Restart>,
    /// The server's CPU in the storm, if it is the same process.
    pub server: Option<Server>,
    /// What the generator knows about itself in the storm.
    pub generator: Generator,
    /// Deliveries owed of one message to the room after the storm; none: it was not sent.
    pub offered: Option<u64>,
    /// Of these, made.
    pub delivered: Option<u64>,
    /// Of these, not made: clients that were logged in again but not in their room.
    pub lost: Option<u64>,
    /// From when that message was due until a client had it.
    pub latency_ms: Option<Latency>,
}

/// How clients came back.
#[derive(Debug, Serialize)]
pub struct Storm {
    /// Seconds until the last one was back in its room.
    pub seconds: f64,
    /// Seconds until the first one was.
    pub first_seconds: f64,
    /// Clients that were back.
    pub back: u64,
    /// Clients that were not when the time was up.
    pub not_back: u64,
    /// Clients back per second, in the mean.
    pub per_second: f64,
    /// The least and the most of it, over tenths of the time.
    pub per_second_range: Option<(f64, f64)>,
    /// Attempts made.
    pub attempts: u64,
    /// Attempts that failed and were made again.
    pub failed: Failed,
    /// Why the first of them failed.
    pub failure: Option<String>,
    /// Connections that ended in the storm, without being asked to: by a restart, each of them.
    pub cut_off: u64,
    /// From the beginning of the storm until a client was back.
    pub back_ms: Latency,
    /// From the beginning of an attempt that succeeded until its login was answered.
    pub login_ms: Latency,
    /// Seconds, and how many were back.
    pub over_time: Curve,
}

/// The command that restarted the server.
#[derive(Debug, Serialize)]
pub struct Restart {
    /// Seconds until it had ended; none: it had not.
    pub seconds: Option<f64>,
    /// Its exit status.
    pub status: Option<i32>,
}

/// What the storm cost the server.
#[derive(Debug, Serialize)]
pub struct Server {
    /// Microseconds on a CPU for each client that came back.
    pub cpu_us_per_login: f64,
    /// All of it.
    #[serde(flatten)]
    pub spent: Spent,
}

/// A storm while it lasts.
struct Watch<'a> {
    arguments: &'a StormArgs,
    fleet: &'a Fleet,
    started: Instant,
    restart: Option<(Child, Restart)>,
    over_time: Curve,
    reasons: Vec<String>,
}

/// Runs `storm`.
///
/// # Errors
/// If there is no result.
pub fn storm(arguments: &StormArgs, interrupt: &Interrupt) -> Result<Report, Failure> {
    let scene = Scene::new(&arguments.scene, arguments.connections)?;
    let (fleet, entry) = scene.enter(arguments.connections, &arguments.scene.generator, interrupt);
    if let Some(failure) = entry.failure {
        return Err(Failure::Run(format!("before the storm: {failure}")));
    }
    std::thread::sleep(duration(arguments.settle));
    let mut report = blow(arguments, &fleet, entry, interrupt)?;
    if report.storm.not_back == 0 && !interrupt.is_set() {
        let pass = Pass {
            rate: 1.0,
            rooms: 1,
            duration: Duration::from_secs(1),
            warmup: Duration::ZERO,
            grace: scene.push.grace(),
        };
        match scene.pass(&fleet, &pass, false, interrupt) {
            Ok(measured) => report.add_check(&measured),
            Err(Failure::Run(sentence) | Failure::Surroundings(sentence)) => report.invalid_reasons.push(sentence),
        }
    }
    fleet.stop();
    report.check_bounds(arguments);
    Ok(report)
}

fn blow(arguments: &StormArgs, fleet: &Fleet, entry: Entry, interrupt: &Interrupt) -> Result<Report, Failure> {
    let pid = arguments.scene.server.server_pid.filter(|_| arguments.restart_cmd.is_none());
    let unwatched = |error| Failure::Run(format!("a process cannot be watched: {error}"));
    let server = pid.map(Usage::of).transpose().map_err(unwatched)?;
    let generator = Usage::of(std::process::id()).map_err(unwatched)?;
    let net = NetCounters::read();
    let mut watch = Watch {
        arguments,
        fleet,
        started: Instant::now(),
        restart: None,
        over_time: Curve::default(),
        reasons: Vec::new(),
    };
    let watchdog = Watchdog::default();
    let (seconds, pause_ms_max) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watchdog.watch());
        fleet.set_moving(&arguments.movement());
        let begun = watch.begin().and_then(|()| watch.until_back(interrupt));
        watchdog.stop();
        begun.map(|seconds| (seconds, watching.join().unwrap_or(f64::INFINITY)))
    })
    .map_err(Failure::Run)?;
    let spent = Usage::of(std::process::id()).map_err(unwatched)?.since(&generator);
    let kernel_drops = NetCounters::read().since(&net);
    let generator = Generator { pause_ms_max, spent, kernel_drops, ..Generator::default() };
    let server = pid.and_then(|pid| Usage::of(pid).ok()).zip(server).map(|(after, before)| after.since(&before));
    Ok(watch.report(entry, seconds, server, generator))
}

impl StormArgs {
    fn movement(&self) -> Movement {
        let back = Return {
            leave: self.restart_cmd.is_none(),
            spread: duration(self.spread),
            first: duration(self.backoff),
            factor: self.backoff_factor,
            longest: duration(self.backoff_longest),
        };
        let attempt = duration(self.attempt);
        Movement { kind: Kind::Return(back), since_ns: clock::now_ns(), attempt, seed: self.seed }
    }
}

impl Watch<'_> {
    fn begin(&mut self) -> Result<(), String> {
        let Some(command) = &self.arguments.restart_cmd else { return Ok(()) };
        // From a thread of its own, for the server should not come back on the CPUs of the generator.
        let child = std::thread::scope(|scope| {
            let start = || {
                machine::unpin();
                Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
            };
            scope.spawn(start).join().map_err(|_| "a thread failed".to_owned())
        })?;
        let child = child.map_err(|error| format!("sh cannot be started for --restart-cmd: {error}"))?;
        self.restart = Some((child, Restart { seconds: None, status: None }));
        Ok(())
    }

    /// Waits until everybody is back, or there is no more time: how long that was.
    fn until_back(&mut self, interrupt: &Interrupt) -> Result<f64, String> {
        let clients = u64::from(self.fleet.clients());
        let bar = progress(clients, "back");
        let mut changed = (0, Instant::now());
        loop {
            let seen = self.fleet.look();
            let seconds = self.started.elapsed().as_secs_f64();
            bar.set_position(seen.back);
            self.over_time.take(seconds, seen.back);
            let now = (seen.back + seen.cut_off + seen.failed.sum(), self.fleet.totals().ready);
            if changed.0 != now.0 {
                changed = (now.0, Instant::now());
            }
            let restarted = self.look_at_restart();
            // A server that hands its connections over to the next one cuts nobody off.
            let rested = self.restart.is_some() && restarted && changed.1.elapsed() >= REST;
            if now.1 == clients && (seen.back == clients || rested) {
                return Ok(seconds);
            }
            if let Some(failure) = self.fleet.failure() {
                return Err(failure);
            }
            if interrupt.is_set() {
                self.reasons.push(format!("interrupted after {seconds:.1} s of the storm"));
                return Ok(seconds);
            }
            if seconds > self.arguments.back {
                return Ok(seconds);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the restart has ended, or there is none.
    fn look_at_restart(&mut self) -> bool {
        let Some((child, restart)) = &mut self.restart else { return true };
        if restart.seconds.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            restart.seconds = Some(self.started.elapsed().as_secs_f64());
            restart.status = status.code();
            if !status.success() {
                self.reasons.push(format!("--restart-cmd failed: {status}"));
            }
        }
        restart.seconds.is_some()
    }

    fn report(mut self, entry: Entry, seconds: f64, server: Option<Spent>, generator: Generator) -> Report {
        let seen = self.fleet.look();
        let restart = self.restart.take().map(|(mut child, restart)| {
            if restart.seconds.is_none() {
                self.reasons.push("--restart-cmd had not ended: let it start the server in the background".to_owned());
                let _ = child.kill(); // it may have ended just now
                let _ = child.wait();
            }
            restart
        });
        let (mut reasons, mut notes) = (self.reasons, Vec::new());
        // Drops are what a storm is about, and a generator at its limit has only been kind.
        let own = Generator { kernel_drops: NetCounters::default(), ..generator.clone() };
        for doubt in own.doubts(seconds) {
            if doubt.contains("busy") {
                notes.push(format!("{doubt}: the server may be faster"));
            } else {
                reasons.push(doubt);
            }
        }
        for (counter, grown) in generator.kernel_drops.iter() {
            notes.push(format!("in the storm the kernel's {counter} grew by {grown}: attempts waited for a retry"));
        }
        if self.arguments.restart_cmd.is_some() && seen.cut_off == 0 {
            notes.push("nobody lost the connection in the restart".to_owned());
        }
        let clients = u64::from(self.fleet.clients());
        let storm = Storm::new(clients, seconds, seen, self.over_time);
        #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
        let each = |spent: &Spent| spent.cpu_seconds * 1e6 / storm.back.max(1) as f64;
        Report {
            origin: Origin::new("storm", self.arguments),
            valid: reasons.is_empty(),
            invalid_reasons: reasons,
            bounds_missed: Vec::new(),
            notes,
            connections: self.fleet.clients(),
            entry,
            restart,
            server: server.map(|spent| Server { cpu_us_per_login: each(&spent), spent }),
            generator,
            storm,
            offered: None,
            delivered: None,
            lost: None,
            latency_ms: None,
        }
    }
}

impl Storm {
    #[allow(clippy::cast_precision_loss, reason = "counts and times of a run")]
    fn new(clients: u64, seconds: f64, seen: Seen, over_time: Curve) -> Self {
        let untouched = if seen.cut_off == 0 && seen.logins == 0 { clients } else { 0 };
        let not_back = clients.saturating_sub(seen.back + untouched);
        let at = |us: u64| us as f64 / 1e6;
        let seconds = if not_back == 0 && seen.back > 0 { at(seen.last_back_us) } else { seconds };
        Self {
            seconds,
            first_seconds: at(seen.back_us.min()),
            back: seen.back,
            not_back,
            per_second: seen.back as f64 / seconds.max(1e-9),
            per_second_range: over_time.rates(),
            attempts: seen.logins + seen.failed.sum(),
            failed: seen.failed,
            failure: seen.failure,
            cut_off: seen.cut_off,
            back_ms: Latency::of(&seen.back_us),
            login_ms: Latency::of(&seen.login_us),
            over_time,
        }
    }
}

impl Report {
    /// Takes in what one message to the room has shown.
    fn add_check(&mut self, measured: &Measured) {
        self.offered = Some(measured.offered);
        self.delivered = Some(measured.counts.delivered);
        self.lost = Some(measured.counts.lost);
        self.latency_ms = Some(measured.latency_ms);
        // The generator may be at its limit: that is a note of the storm.
        let doubts = measured.generator.doubts(measured.seconds);
        let reasons = measured.invalid_reasons.iter().filter(|reason| !doubts.contains(reason));
        self.invalid_reasons.extend(reasons.cloned());
        let clients = u64::from(self.connections);
        if measured.offered != clients {
            let offered = measured.offered;
            self.invalid_reasons.push(format!("the message to the room was offered to {offered} of {clients} clients"));
        }
        if measured.stats.as_ref().is_some_and(|stats| !stats.law_holds) {
            self.bounds_missed.push("the server's own counters contradict themselves".to_owned());
        }
    }

    fn check_bounds(&mut self, arguments: &StormArgs) {
        self.valid = self.invalid_reasons.is_empty();
        let Storm { not_back, seconds, failed, .. } = &self.storm;
        let missed = &mut self.bounds_missed;
        if *not_back > 0 {
            missed.push(format!("{not_back} clients were not back after {seconds:.1} s"));
        }
        if let Some(lost @ 1..) = self.lost {
            missed.push(format!("{lost} clients did not get a message to their room after the storm"));
        }
        if arguments.seconds_max.is_some_and(|max| *seconds > max) {
            missed.push(format!("the last client was back after {seconds:.2} s"));
        }
        if arguments.failed_max.is_some_and(|max| failed.sum() > max) {
            missed.push(format!("{} attempts failed", failed.sum()));
        }
    }

    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        table.verdict(&self.invalid_reasons, &self.bounds_missed);
        for note in &self.notes {
            table.row("note", note);
        }
        table.row("came in", self.entry.line());
        let Storm { seconds, first_seconds, back, per_second, attempts, failed, .. } = &self.storm;
        if let Some(restart) = &self.restart {
            let took = restart.seconds.map_or("not ended".to_owned(), |seconds| format!("{seconds:.2} s"));
            table.row("restart", format!("{took}; {} connections cut off", self.storm.cut_off));
        }
        let range = self.storm.per_second_range;
        let range = range.map_or(String::new(), |(least, most)| format!(" ({least:.0} to {most:.0})"));
        table.row("all back after", format!("{seconds:.2} s, the first after {first_seconds:.2} s"));
        table.row("back", format!("{back} of {}, {per_second:.0}/s{range}", self.connections));
        table.row("attempts", format!("{attempts}, {} failed and were made again", failed.sum()));
        if let Some(failure) = &self.storm.failure {
            table.row("  the first", failure);
        }
        table.row("back ms", self.storm.back_ms);
        table.row("login ms", self.storm.login_ms);
        if let (Some(offered), Some(delivered), Some(lost)) = (self.offered, self.delivered, self.lost) {
            table.row("a message after it", format!("{delivered} of {offered} delivered, {lost} lost"));
        }
        if let Some(server) = &self.server {
            let rss_mib = server.spent.rss_bytes >> 20;
            table.row("server CPU", format!("{:.1} us a login, {rss_mib} MiB", server.cpu_us_per_login));
        }
        table.0
    }
}
