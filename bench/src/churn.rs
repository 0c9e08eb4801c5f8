//! Clients come, log in, stay and leave at a rate, while messages are pushed to their room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::duration;
use crate::clock;
use crate::fleet::Fleet;
use crate::interrupt::Interrupt;
use crate::measure::{Latency, Measured, Pass};
use crate::moves::{Churn, Failed, Kind, Movement, Seen};
use crate::plan::Plan;
use crate::report::{Origin, Table};
use crate::scene::{Scene, SceneArgs};
use crate::stand::{Failure, progress};

/// Flags of `churn`.
#[derive(Clone, Debug, Args, Serialize)]
#[command(mut_arg("patience", |flag| flag.hide(true)), mut_arg("connect_rate", |flag| flag.hide(true)))]
pub struct ChurnArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub scene: SceneArgs,
    /// Clients that come per second, and as many leave.
    #[arg(long, default_value_t = 500.0, value_parser = crate::cli::rate)]
    pub churn_rate: f64,
    /// Seconds that a client stays after its login, in the mean.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cli::seconds)]
    pub stay: f64,
    /// How stays are spread about that mean.
    #[arg(long, value_enum, default_value_t = Distribution::Exponential)]
    pub stay_distribution: Distribution,
    /// Clients at a time, at most; twice what rate and stay come to by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: Option<u32>,
    /// Seconds of coming and going before messages count; as long as a stay by default.
    #[arg(long, value_parser = crate::cli::seconds)]
    pub warmup: Option<f64>,
    /// Messages per second.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cli::rate)]
    pub rate: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 20.0, value_parser = crate::cli::seconds)]
    pub duration: f64,
    /// Seconds after which an attempt to log in is given up and counts as failed.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cli::seconds)]
    pub attempt: f64,
    /// Seed of the random stays.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Bound: deliveries that may be lost.
    #[arg(long = "max-loss", value_name = "DELIVERIES")]
    pub loss_max: Option<u64>,
    /// Bound: logins that may fail or be cut off before their stay is over.
    #[arg(long = "max-failed", value_name = "ATTEMPTS")]
    pub failed_max: Option<u64>,
    /// Bound: 99th percentile of connecting and logging in, in milliseconds.
    #[arg(long = "max-login-p99-ms", value_name = "MS", value_parser = crate::cli::bound)]
    pub login_p99_ms_max: Option<f64>,
}

/// How long clients stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// All equally long.
    Fixed,
    /// As if each left at any moment with the same probability.
    Exponential,
}

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How to repeat it.
    #[serde(flatten)]
    pub origin: Origin,
    /// Bounds that were missed.
    pub bounds_missed: Vec<String>,
    /// Messages and deliveries. `offered` is what was due while a client was there: strictly after
    /// the answer to its login was read, strictly before it left.
    #[serde(flatten)]
    pub measured: Measured,
    /// Who came and went in the same time.
    pub churn: Visits,
}

/// Coming and going in the measured time.
#[derive(Debug, Serialize)]
pub struct Visits {
    /// Clients that were there at its beginning, and at its end.
    pub present: [u64; 2],
    /// Logins answered.
    pub logins: u64,
    /// The same per second.
    pub logins_per_second: f64,
    /// Attempts that failed.
    pub failed: Failed,
    /// Why the first of them failed.
    pub failure: Option<String>,
    /// Clients that left when their stay was over.
    pub left: u64,
    /// Clients that lost the connection before.
    pub cut_off: u64,
    /// Clients that could not come because all places were taken.
    pub turned_away: u64,
    /// From the beginning of connecting until the login was answered.
    pub login_ms: Latency,
}

/// Runs `churn`.
///
/// # Errors
/// If there is no result.
pub fn churn(arguments: &ChurnArgs, interrupt: &Interrupt) -> Result<Report, Failure> {
    let places = arguments.places();
    let mut scene = Scene::new(&arguments.scene, places)?;
    scene.plan.connect_rate = 0.0; // nobody comes but by the churn
    let fleet = Fleet::start(&Arc::new(Plan::clone(&scene.plan)), 0..places, scene.threads);
    fleet.set_moving(&arguments.movement(scene.threads.min(places)));
    fill(&fleet, arguments, interrupt)?;
    let present = fleet.totals().ready;
    let pass = Pass {
        rate: arguments.rate,
        rooms: 1,
        duration: duration(arguments.duration),
        warmup: Duration::ZERO,
        grace: scene.push.grace(),
    };
    let measured = scene.pass(&fleet, &pass, true, interrupt)?;
    let seen = fleet.look();
    let present = [present, fleet.totals().ready];
    fleet.stop();
    Ok(Report::new(arguments, measured, present, seen))
}

/// Lets clients come until there are as many as there will be.
fn fill(fleet: &Fleet, arguments: &ChurnArgs, interrupt: &Interrupt) -> Result<(), Failure> {
    let warmup = duration(arguments.warmup.unwrap_or(arguments.stay));
    let bar = progress(arguments.population(), "there");
    let started = Instant::now();
    while started.elapsed() < warmup && !interrupt.is_set() {
        bar.set_position(fleet.totals().ready);
        std::thread::sleep(Duration::from_millis(10));
    }
    bar.finish_and_clear();
    match fleet.failure() {
        Some(failure) => Err(Failure::Run(failure)),
        None => Ok(()),
    }
}

impl ChurnArgs {
    /// Clients that will be there in the mean.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and refused if too many")]
    fn population(&self) -> u64 {
        (self.churn_rate * self.stay).ceil() as u64
    }

    fn places(&self) -> u32 {
        self.connections.unwrap_or_else(|| u32::try_from(self.population() * 2 + 64).unwrap_or(u32::MAX))
    }

    fn movement(&self, threads: u32) -> Movement {
        let churn = Churn {
            rate: self.churn_rate / f64::from(threads),
            stay: duration(self.stay),
            exponential: self.stay_distribution == Distribution::Exponential,
            grace: duration(self.scene.grace),
        };
        let attempt = duration(self.attempt);
        Movement { kind: Kind::Churn(churn), since_ns: clock::now_ns(), attempt, seed: self.seed }
    }
}

impl Report {
    fn new(arguments: &ChurnArgs, mut measured: Measured, present: [u64; 2], seen: Seen) -> Self {
        if seen.turned_away > 0 {
            let sentence = format!("{} clients found no place: raise --connections", seen.turned_away);
            measured.invalid_reasons.push(sentence);
        }
        if seen.logins == 0 {
            measured.invalid_reasons.push("nobody logged in".to_owned());
        }
        measured.valid = measured.invalid_reasons.is_empty();
        #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
        let logins_per_second = seen.logins as f64 / measured.seconds.max(1e-9);
        let churn = Visits {
            present,
            logins: seen.logins,
            logins_per_second,
            failed: seen.failed,
            login_ms: Latency::of(&seen.login_us),
            failure: seen.failure,
            left: seen.left,
            cut_off: seen.cut_off,
            turned_away: seen.turned_away,
        };
        let mut report = Self { origin: Origin::new("churn", arguments), bounds_missed: Vec::new(), measured, churn };
        report.check_bounds(arguments);
        report
    }

    fn check_bounds(&mut self, arguments: &ChurnArgs) {
        // Who is cut off has logged in for nothing.
        let (lost, failed) = (self.measured.counts.lost, self.churn.failed.sum() + self.churn.cut_off);
        let p99 = self.churn.login_ms.p99;
        let missed = &mut self.bounds_missed;
        if arguments.loss_max.is_some_and(|max| lost > max) {
            missed.push(format!("{lost} deliveries were lost"));
        }
        if arguments.failed_max.is_some_and(|max| failed > max) {
            missed.push(format!("{failed} logins failed or were cut off"));
        }
        if arguments.login_p99_ms_max.is_some_and(|max| p99 > max) {
            missed.push(format!("p99 of logging in was {p99:.1} ms"));
        }
        if self.measured.stats.as_ref().is_some_and(|stats| !stats.law_holds) {
            missed.push("offered is not sent + dropped + queued".to_owned());
        }
    }

    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        table.verdict(&self.measured.invalid_reasons, &self.bounds_missed);
        let Visits { present: [before, after], logins, failed, left, cut_off, login_ms, .. } = &self.churn;
        table.row("clients there", format!("{before} at first, {after} at last"));
        let rate = self.churn.logins_per_second;
        table.row("logins", format!("{logins} ({rate:.0}/s), {} failed", failed.sum()));
        if let Some(failure) = &self.churn.failure {
            table.row("  the first", failure);
        }
        table.row("left, cut off", format!("{left}, {cut_off}"));
        table.row("login ms", login_ms);
        let counts = &self.measured.counts;
        table.row("messages", format!("{} ({} refused with 503)", self.measured.messages, self.measured.refused));
        table.row("owed while there", self.measured.offered);
        table.row("delivered, lost", format!("{}, {}", counts.delivered, counts.lost));
        let (duplicates, reordered, unowed) = (counts.duplicates, counts.reordered, counts.unowed);
        table.row("duplicates, reordered", format!("{duplicates}, {reordered}"));
        table.row("before or after a stay", format!("{unowed}, owed to nobody"));
        if counts.stray + counts.malformed + counts.refused_but_delivered > 0 {
            table.row("stray, malformed", format!("{}, {}", counts.stray, counts.malformed));
        }
        table.row("latency ms", self.measured.latency_ms);
        table.costs(&self.measured);
        table.0
    }
}
