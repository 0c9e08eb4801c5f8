//! What slow clients do to the others: the same broadcast without them and with them.

use clap::Args;
use serde::Serialize;

use crate::cli::{LoadArgs, SlowFlags, number};
use crate::interrupt::Interrupt;
use crate::measure::Measured;
use crate::plan::Rooms;
use crate::report::Table;
use crate::stand::{Failure, Stand, pass};

/// Flags of `slow`.
#[derive(Clone, Debug, Args, Serialize)]
#[command(
    mut_arg("connections", |flag| flag.default_value("2000")),
    mut_arg("rate", |flag| flag.default_value("50")),
    mut_arg("payload_bytes", |flag| flag.default_value("500")),
    mut_arg("duration", |flag| flag.default_value("20")),
    mut_arg("slow_percent", |flag| flag.default_value("1")),
)]
pub struct SlowArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub load: LoadArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs, reason = "its flags say it")]
    pub slow: SlowFlags,
    /// Bound: the others' 99th percentile with slow clients, as a multiple of that without.
    #[arg(long = "max-p99-ratio", value_name = "RATIO", value_parser = ratio)]
    pub p99_ratio_max: Option<f64>,
}

fn ratio(text: &str) -> Result<f64, String> {
    number(text, 0.01, 1e6)
}

/// What the slow clients changed.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// The others' latencies with slow clients over those without: median.
    pub p50_ratio: f64,
    /// 99th percentile.
    pub p99_ratio: f64,
    /// What the server says that it dropped, if it has counters.
    pub dropped: Option<u64>,
    /// Whether that is what the clients missed; none if it cannot be said.
    pub dropped_is_missed: Option<bool>,
    /// The server's resident set at its highest without slow clients, and with them.
    pub server_rss_bytes_peak: [Option<u64>; 2],
    /// The whole run without them.
    pub without: Measured,
}

/// Runs `slow`; what was measured is of the run with slow clients.
///
/// # Errors
/// If there is no result.
pub fn slow(arguments: &SlowArgs, interrupt: &Interrupt) -> Result<(Measured, Effect), Failure> {
    let (load, slow) = (&arguments.load, &arguments.slow);
    let mut stand = Stand::new(load, Rooms::one(&load.clients.room), interrupt)?;
    let without = stand.pass(&pass(&load.run, 1))?;
    stand.leave();
    stand.slow(slow);
    let measured = if without.was_interrupted {
        // Nobody can log in any more: what there is stands for the run.
        let mut measured = without.clone();
        measured.invalidate("interrupted before any client was slow".to_owned());
        measured
    } else {
        let mut measured = stand.pass(&pass(&load.run, 1))?;
        for reason in &without.invalid_reasons {
            measured.invalidate(format!("without slow clients: {reason}"));
        }
        if measured.slow.is_none() {
            measured.invalidate("no client was slow: raise --connections or --slow-percent".to_owned());
        }
        measured
    };
    let effect = Effect::new(without, &measured);
    Ok((measured, effect))
}

impl Effect {
    fn new(without: Measured, with: &Measured) -> Self {
        let ratio = |with: f64, without: f64| with / without.max(0.001);
        let missed = with.counts.lost + with.slow.as_ref().map_or(0, |slow| slow.missed);
        let dropped = with.stats.as_ref().map(|stats| stats.dropped.values().sum());
        // Neither lost connections nor a run cut short leave counts that can be compared.
        let whole = with.counts.closed + with.counts.slow_closed == 0 && with.unanswered == 0 && with.death.is_none();
        Self {
            p50_ratio: ratio(with.latency_ms.p50, without.latency_ms.p50),
            p99_ratio: ratio(with.latency_ms.p99, without.latency_ms.p99),
            dropped,
            dropped_is_missed: dropped.filter(|_| whole).map(|dropped| dropped == missed),
            server_rss_bytes_peak: [peak(&without), peak(with)],
            without,
        }
    }

    /// Bounds that were missed.
    pub fn bounds_missed(&self, p99_ratio_max: Option<f64>) -> Vec<String> {
        let mut missed = Vec::new();
        if p99_ratio_max.is_some_and(|max| self.p99_ratio > max) {
            missed.push(format!("p99 of the others was {:.2} times that without slow clients", self.p99_ratio));
        }
        if let (Some(false), Some(dropped)) = (self.dropped_is_missed, self.dropped) {
            missed.push(format!("the server says that it dropped {dropped}, which is not what clients missed"));
        }
        missed
    }

    /// Adds what the slow clients changed to a table for the terminal.
    pub(crate) fn rows(&self, table: &mut Table) {
        let before = &self.without.latency_ms;
        table.row(
            "without slow clients ms",
            format!("p50 {:.2}  p99 {:.2}  max {:.2}", before.p50, before.p99, before.max),
        );
        table.row("with / without", format!("p50 {:.2}  p99 {:.2}", self.p50_ratio, self.p99_ratio));
        if let Some(dropped) = self.dropped {
            let agrees = match self.dropped_is_missed {
                Some(true) => "what the clients missed",
                Some(false) => "NOT what the clients missed",
                None => "cannot be compared, since connections ended or the run was cut short",
            };
            table.row("server dropped", format!("{dropped}: {agrees}"));
        }
        if let [Some(without), Some(with)] = self.server_rss_bytes_peak {
            table.row("server memory, peak", format!("{} MiB without, {} MiB with", without >> 20, with >> 20));
        }
    }
}

/// The highest resident set seen.
fn peak(measured: &Measured) -> Option<u64> {
    let readings = measured.over_time.usage.server_rss_bytes.iter().flatten().copied();
    readings.chain(measured.server.as_ref().map(|server| server.spent.rss_bytes)).max()
}
