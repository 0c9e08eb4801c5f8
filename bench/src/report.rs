//! What a run leaves behind: JSON with everything needed to repeat it, an `HdrHistogram` log, and a
//! table for the one who waits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;

use crate::cli::{GeneratorArgs, RunArgs};
use crate::clock;
use crate::floor::Floor;
use crate::json;
use crate::limit::Limit;
use crate::machine::Machine;
use crate::measure::Measured;
use crate::page::{self, Run};
use crate::slow::Effect;

/// What is needed to repeat a run.
#[derive(Debug, Serialize)]
pub struct Origin {
    /// This program and its version.
    pub tool: String,
    /// The commit it was built from, or `unknown`.
    pub commit: &'static str,
    /// Which scenario.
    pub scenario: &'static str,
    /// The command line, without a token.
    pub command: Vec<String>,
    /// When it ended, seconds since 1970.
    pub ended_unix_s: u64,
    /// The same for people, in UTC.
    pub ended: String,
    /// Where.
    pub machine: Machine,
    /// Every flag with its value.
    pub settings: serde_json::Value,
}

impl Origin {
    /// Of a run with these flags that has just ended.
    pub fn new(scenario: &'static str, arguments: &impl Serialize) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let ended_unix_s = now.map_or(0, |now| now.as_secs());
        Self {
            tool: format!("halley-bench {}", env!("CARGO_PKG_VERSION")),
            commit: env!("HALLEY_BENCH_COMMIT"),
            scenario,
            command: command_line(),
            ended_unix_s,
            ended: clock::utc(ended_unix_s),
            machine: Machine::here(),
            settings: serde_json::to_value(arguments).unwrap_or_default(),
        }
    }
}

/// A finished run with a schedule.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// How to repeat it.
    #[serde(flatten)]
    pub origin: Origin,
    /// Bounds that were missed.
    pub bounds_missed: Vec<String>,
    /// What was measured.
    #[serde(flatten)]
    pub measured: &'a Measured,
    /// The physical limit.
    pub floor: Option<&'a Floor>,
    /// The server's CPU per delivery over the better floor's.
    pub floor_ratio: Option<f64>,
    /// What the search for the limit found; what was measured is of its best step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<&'a Limit>,
    /// What slow clients changed; what was measured is of the run with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<&'a Effect>,
}

impl<'a> Report<'a> {
    /// Puts a report together.
    pub fn new(
        scenario: &'static str,
        arguments: &impl Serialize,
        measured: &'a Measured,
        floor: Option<&'a Floor>,
    ) -> Self {
        let server_us = measured.server.as_ref().map(|server| server.cpu_us_per_delivery);
        let best_us = floor.and_then(Floor::best_us);
        let floor_ratio = server_us.zip(best_us).map(|(server, floor)| server / floor);
        Self {
            origin: Origin::new(scenario, arguments),
            bounds_missed: Vec::new(),
            measured,
            floor,
            floor_ratio: floor_ratio.filter(|_| scenario != "floor"),
            limit: None,
            effect: None,
        }
    }

    /// Compares with the bounds the user gave.
    pub fn check_bounds(&mut self, run: &RunArgs, floor_ratio_max: Option<f64>) {
        let (lost, p99) = (self.measured.counts.lost, self.measured.latency_ms.p99);
        if run.loss_max.is_some_and(|max| lost > max) {
            self.bounds_missed.push(format!("{lost} deliveries were lost"));
        }
        if run.p99_ms_max.is_some_and(|max| p99 > max) {
            self.bounds_missed.push(format!("p99 was {p99:.1} ms"));
        }
        if self.limit.is_some_and(|limit| limit.best.is_none()) {
            self.bounds_missed.push("no step kept the bounds".to_owned());
        }
        let misrouted = self.measured.counts.misrouted;
        if misrouted > 0 {
            self.bounds_missed.push(format!("{misrouted} messages reached clients of another room"));
        }
        if let (Some(max), Some(ratio)) = (floor_ratio_max, self.floor_ratio)
            && ratio > max
        {
            self.bounds_missed.push(format!("a delivery cost {ratio:.2} times the floor"));
        }
        if let Some(stats) = &self.measured.stats {
            if !stats.law_holds {
                self.bounds_missed.push("offered is not sent + dropped + queued".to_owned());
            }
            if stats.sent_is_delivered == Some(false) {
                self.bounds_missed.push("the server's sent is not what clients received".to_owned());
            }
        }
    }

    /// Writes the latencies, in milliseconds, as one interval of an `HdrHistogram` log.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_hlog(&self, path: &Path) -> io::Result<()> {
        let Some(latency_us) = &self.measured.latency_us else { return Ok(()) };
        let mut file = BufWriter::new(File::create(path)?);
        let mut serializer = V2DeflateSerializer::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.add_comment("latencies in microseconds").with_max_value_divisor(1000.0);
        let failed = |error: &dyn std::fmt::Debug| io::Error::other(format!("{error:?}"));
        let mut log = builder.begin_log_with(&mut file, &mut serializer).map_err(|error| failed(&error))?;
        let length = Duration::from_secs_f64(self.measured.seconds);
        log.write_histogram(latency_us, Duration::ZERO, length, Tag::new(self.origin.scenario))
            .map_err(|error| failed(&error))
    }

    /// The table for the terminal.
    pub fn table(&self) -> String {
        let mut table = Table::default();
        let measured = self.measured;
        for reason in &measured.invalid_reasons {
            table.row("INVALID", reason);
        }
        for missed in &self.bounds_missed {
            table.row("bound missed", missed);
        }
        let counts = &measured.counts;
        table.row("connections", measured.connections);
        let refused = measured.refused;
        table.row("messages", format!("{} ({refused} refused with 503)", measured.messages));
        table.row("offered", measured.offered);
        table.row("delivered", counts.delivered);
        table.row("lost", counts.lost);
        let (duplicates, reordered) = (counts.duplicates, counts.reordered);
        table.row("duplicates, reordered", format!("{duplicates}, {reordered}"));
        let odd = counts.stray + counts.malformed + counts.closed + counts.refused_but_delivered;
        if odd > 0 {
            table.row("stray, malformed, closed", format!("{}, {}, {}", counts.stray, counts.malformed, counts.closed));
        }
        for fault in &measured.malformed_frames {
            let (client, target, why, hex) = (fault.client, &fault.target, fault.why, &fault.hex);
            table.row("malformed", format!("client {client} of {target}: {why}: {hex}"));
        }
        table.row("latency ms", measured.latency_ms);
        if let Some([best, median, worst]) = measured.fairness_ms {
            table.row("mean per client ms", format!("best {best:.2}  median {median:.2}  worst {worst:.2}"));
        }
        self.slow_row(&mut table);
        self.cost_rows(&mut table);
        if let Some(effect) = self.effect {
            effect.rows(&mut table);
        }
        if let Some(limit) = self.limit {
            limit.rows(&mut table);
        }
        table.0
    }

    fn slow_row(&self, table: &mut Table) {
        let Some(slow) = &self.measured.slow else { return };
        let missing_nothing = slow.missed_each.iter().filter(|missed| **missed == 0).count();
        let (connections, missed) = (slow.connections, slow.missed);
        let closed = self.measured.counts.slow_closed;
        table.row(
            "slow clients",
            format!(
                "{connections}: missed {missed}, {missing_nothing} missed nothing, {closed} closed; \
                 {} deliveries while slow, {} in all",
                slow.delivered_while_slow, slow.delivered
            ),
        );
    }

    fn cost_rows(&self, table: &mut Table) {
        if let Some(floor) = self.floor {
            let us = |cost: Option<f64>| cost.map_or("-".to_owned(), |us| format!("{us:.3}"));
            let (ring, send) = (us(floor.ring_us), us(floor.send_us));
            table.row("floor us per delivery", format!("ring {ring}, send(2) {send}"));
        }
        if let Some(ratio) = self.floor_ratio {
            table.row("server / better floor", format!("{ratio:.3}"));
        }
        table.costs(self.measured);
    }
}

/// Writes the files that the flags ask for.
///
/// # Errors
/// A sentence, if one cannot be written.
pub fn write_files(report: &impl Serialize, generator: &GeneratorArgs) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("{} cannot be written: {error}", path.display());
    if let Some(path) = &generator.json {
        json::write(report, path).map_err(|error| failed(path, error))?;
    }
    if let Some(path) = &generator.html {
        let value = serde_json::to_value(report).map_err(|error| failed(path, error.into()))?;
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let title = value["scenario"].as_str().unwrap_or_default().to_owned();
        let page = page::page(&title, &[Run::new(&name, value)], &[]);
        std::fs::write(path, page).map_err(|error| failed(path, error))?;
    }
    Ok(())
}

/// Names and values, one pair a line.
#[derive(Default)]
pub(crate) struct Table(pub(crate) String);

impl Table {
    pub(crate) fn line(&mut self, line: &str) {
        let _ = writeln!(self.0, "{line}"); // a String takes everything
    }

    /// Whether the run means anything, first of all.
    pub(crate) fn verdict(&mut self, invalid_reasons: &[String], bounds_missed: &[String]) {
        for reason in invalid_reasons {
            self.row("INVALID", reason);
        }
        for missed in bounds_missed {
            self.row("bound missed", missed);
        }
    }

    /// What deliveries cost the server, what it counted itself, and how the generator fared.
    pub(crate) fn costs(&mut self, measured: &Measured) {
        if let Some(server) = &measured.server {
            let (each, spent) = (server.cpu_us_per_delivery, &server.spent);
            let rss_mib = spent.rss_bytes >> 20;
            let waited = spent.wait_seconds();
            self.row(
                "server CPU",
                format!(
                    "{each:.3} us per delivery, {:.2} s (waited {waited:.2} s for a CPU), {rss_mib} MiB",
                    spent.cpu_seconds
                ),
            );
        }
        if let Some(stats) = &measured.stats {
            let dropped: u64 = stats.dropped.values().sum();
            let law = if stats.law_holds { "holds" } else { "BROKEN" };
            let (offered, sent, queued) = (stats.offered, stats.sent, stats.queued);
            self.row(
                "server counted",
                format!("offered {offered} sent {sent} dropped {dropped} queued {queued}; law {law}"),
            );
            self.row(
                "per delivery",
                format!(
                    "{:.4} enters, {:.4} completions, {:.4} allocations",
                    stats.enters_per_delivery, stats.completions_per_delivery, stats.allocations_per_delivery
                ),
            );
        }
        let busy = measured.generator.busy_percent(measured.seconds);
        let (p99, max) = measured.generator.lateness_ms;
        self.row("generator", format!("busiest thread {busy:.0} %, late p99 {p99:.2} ms, max {max:.2} ms"));
    }

    pub(crate) fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name:<24}{value}"); // a String takes everything
    }
}

/// The command line, with the token blotted out.
fn command_line() -> Vec<String> {
    let mut secret = false;
    let blot = |word: String| {
        let was_secret = std::mem::replace(&mut secret, word == "--token");
        if was_secret || word.starts_with("--token=") { "--token=***".to_owned() } else { word }
    };
    std::env::args().map(blot).filter(|word| word != "--token").collect()
}
