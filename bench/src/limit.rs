//! The load that a server bears: raised step by step until a bound breaks, then narrowed down.

use std::io::IsTerminal as _;

use clap::Args;
use serde::Serialize;

use crate::cli::{LoadArgs, number};
use crate::interrupt::Interrupt;
use crate::machine;
use crate::measure::{Latency, Measured, Pass};
use crate::report::Table;
use crate::stand::{Failure, Stand, pass};
use crate::stats::Growth;

/// A rate of which this part is too much for a server bears no search below it.
const START_PART_MIN: f64 = 1.0 / 64.0;

/// Flags of a search.
#[derive(Clone, Debug, Args, Serialize)]
pub struct LimitArgs {
    /// Raise the rate in steps, beginning with --rate, until a bound breaks; report the last good
    /// step. Each step is a whole run with --warmup and --duration.
    #[arg(long)]
    pub find_limit: bool,
    /// By how much the next step is higher.
    #[arg(long, default_value_t = 25.0, value_parser = percent, requires = "find_limit")]
    pub step_percent: f64,
    /// How close the last good step and the first bad one must come in the end.
    #[arg(long, default_value_t = 5.0, value_parser = percent, requires = "find_limit")]
    pub finer_percent: f64,
    /// How often a step is tried whose bounds break; it is good if one try is, and all are
    /// reported.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=10), requires = "find_limit")]
    pub step_tries: u32,
    /// Bound of a step: the server's CPU, in percent of its cores; needs --server-pid.
    #[arg(
        long = "max-server-cpu-percent",
        value_name = "PERCENT",
        default_value_t = 75.0,
        value_parser = percent,
        requires = "find_limit"
    )]
    pub server_cpu_percent_max: f64,
    /// The server's cores; as many as it may run on by default.
    #[arg(long, value_parser = cores, requires = "find_limit", requires = "server_pid")]
    pub server_cores: Option<f64>,
}

fn percent(text: &str) -> Result<f64, String> {
    number(text, 0.5, 1000.0)
}

fn cores(text: &str) -> Result<f64, String> {
    number(text, 0.01, 4096.0)
}

/// What a step must keep.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bounds {
    /// 99th percentile of the latency.
    pub p99_ms_max: f64,
    /// Deliveries lost.
    pub loss_max: u64,
    /// The server's CPU in percent of its cores; none: nobody looks.
    pub server_cpu_percent_max: Option<f64>,
    /// Its cores.
    pub server_cores: Option<f64>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All bounds were kept.
    Good,
    /// The server broke one.
    Broken,
    /// The generator was the bottleneck, so that it says nothing about the server.
    Generator,
    /// The user has ended it.
    Interrupted,
}

/// One try of one rate.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Messages per second into each room.
    pub rate: f64,
    /// What became of it.
    pub verdict: Verdict,
    /// Why.
    pub reasons: Vec<String>,
    /// Deliveries owed.
    pub offered: u64,
    /// Deliveries that were lost.
    pub lost: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Deliveries made, over the window with its drain.
    pub deliveries_per_second: f64,
    /// The same for each of the server's cores.
    pub deliveries_per_second_per_core: Option<f64>,
    /// From when a message was due until a client had it.
    pub latency_ms: Latency,
    /// The server's CPU in percent of its cores.
    pub server_cpu_percent: Option<f64>,
    /// How long a core of the server had to wait for others of this machine, or for another thread of
    /// the server, in percent.
    pub server_wait_percent: Option<f64>,
    /// The server's CPU for each delivery.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The busiest thread of the generator.
    pub generator_busy_percent: f64,
}

/// What a search has found.
#[derive(Clone, Debug, Serialize)]
pub struct Limit {
    /// What every step had to keep.
    pub bounds: Bounds,
    /// Every try, in order.
    pub steps: Vec<Step>,
    /// The good step with the highest rate.
    pub best: Option<Step>,
    /// The generator ended the search, not the server: it may bear more.
    pub at_least: bool,
    /// Why the search ended, in a sentence.
    pub ended: String,
}

/// Between which rates the limit lies.
#[derive(Clone, Copy, Debug)]
struct Climb {
    start: f64,
    step: f64,
    finer: f64,
    good: Option<f64>,
    bad: Option<f64>,
}

impl Climb {
    /// The rate to try next; none if the limit is known.
    fn next(&self) -> Option<f64> {
        match (self.good, self.bad) {
            (None, None) => Some(self.start),
            (Some(good), None) => Some(good * (1.0 + self.step)),
            (Some(good), Some(bad)) => (bad > good * (1.0 + self.finer)).then_some(f64::midpoint(good, bad)),
            (None, Some(bad)) => (bad > self.start * START_PART_MIN).then_some(bad / 2.0),
        }
    }

    fn tried(&mut self, rate: f64, is_good: bool) {
        *(if is_good { &mut self.good } else { &mut self.bad }) = Some(rate);
    }
}

/// Searches; answers also what was measured in the best step, or in the last if none was good.
///
/// # Errors
/// If not even the first step could be made.
pub fn find(
    arguments: &LimitArgs,
    load: &LoadArgs,
    rooms: u32,
    stand: &mut Stand<'_>,
    interrupt: &Interrupt,
) -> Result<(Measured, Limit), Failure> {
    let bounds = Bounds::new(arguments, load).map_err(Failure::Surroundings)?;
    let (step, finer) = (arguments.step_percent / 100.0, arguments.finer_percent / 100.0);
    let mut climb = Climb { start: load.run.rate, step, finer, good: None, bad: None };
    let mut limit = Limit { bounds, steps: Vec::new(), best: None, at_least: false, ended: String::new() };
    let mut measured: Option<Measured> = None;
    let mut gave_up = false;
    eprintln!("{}", Step::head());
    while let Some(rate) = climb.next() {
        let pass = Pass { rate, ..pass(&load.run, rooms) };
        let (step, found) = match attempt(arguments, &pass, &bounds, stand, &mut limit) {
            Ok(tried) => tried,
            Err(failure) if measured.is_none() => return Err(failure),
            Err(Failure::Surroundings(sentence) | Failure::Run(sentence)) => {
                limit.ended = format!("at {rate:.2} messages/s into each room {sentence}");
                gave_up = climb.bad.is_none();
                break;
            }
        };
        let is_good = step.verdict == Verdict::Good;
        if is_good || limit.best.is_none() {
            measured = Some(found);
        }
        if interrupt.is_set() {
            limit.ended = String::from("interrupted before the limit was found");
            break;
        }
        limit.at_least = if is_good { limit.at_least } else { step.verdict == Verdict::Generator };
        climb.tried(rate, is_good);
        if is_good {
            limit.best = Some(step);
        } else {
            limit.ended = step.reasons.join("; ");
        }
    }
    let mut measured = measured.ok_or(Failure::Run("no step was made".to_owned()))?;
    if interrupt.is_set() || gave_up {
        measured.invalidate(limit.ended.clone());
    }
    Ok((measured, limit))
}

/// Tries one rate until it is good or has had its tries.
fn attempt(
    arguments: &LimitArgs,
    pass: &Pass,
    bounds: &Bounds,
    stand: &mut Stand<'_>,
    limit: &mut Limit,
) -> Result<(Step, Measured), Failure> {
    let mut tries = 0;
    let mut broken = None;
    loop {
        let measured = stand.pass(pass)?;
        let step = Step::new(pass.rate, &measured, bounds);
        eprintln!("{}", step.line());
        limit.steps.push(step.clone());
        tries += 1;
        let over = matches!(step.verdict, Verdict::Good | Verdict::Interrupted);
        if !over && step.verdict == Verdict::Broken {
            broken = Some((step.clone(), measured.clone()));
        }
        if over {
            return Ok((step, measured));
        }
        if tries == arguments.step_tries {
            // A bound that broke while the generator was in order is the server's, whatever the other tries were.
            return Ok(broken.unwrap_or((step, measured)));
        }
    }
}

impl Bounds {
    fn new(arguments: &LimitArgs, load: &LoadArgs) -> Result<Self, String> {
        let pid = load.server.server_pid;
        let cores = match (arguments.server_cores, pid) {
            (Some(cores), _) => Some(cores),
            (None, Some(pid)) => Some(f64::from(machine::cpus_of(pid)?)),
            (None, None) => None,
        };
        Ok(Self {
            p99_ms_max: load.run.p99_ms_max.unwrap_or(10.0),
            loss_max: load.run.loss_max.unwrap_or(0),
            server_cpu_percent_max: pid.map(|_| arguments.server_cpu_percent_max),
            server_cores: cores,
        })
    }
}

impl Step {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    fn new(rate: f64, measured: &Measured, bounds: &Bounds) -> Self {
        let slow_delivered = measured.slow.as_ref().map_or(0, |slow| slow.delivered);
        let delivered = (measured.counts.delivered + slow_delivered) as f64;
        let deliveries_per_second = delivered / measured.seconds;
        let server = measured.server.as_ref();
        let percent = |seconds: f64| Some(seconds / measured.seconds / bounds.server_cores? * 100.0);
        let mut step = Self {
            rate,
            verdict: Verdict::Good,
            reasons: Vec::new(),
            offered: measured.offered,
            lost: measured.counts.lost,
            refused: measured.refused,
            deliveries_per_second,
            deliveries_per_second_per_core: bounds.server_cores.map(|cores| deliveries_per_second / cores),
            latency_ms: measured.latency_ms,
            server_cpu_percent: server.and_then(|server| percent(server.spent.cpu_seconds)),
            server_wait_percent: server.and_then(|server| percent(server.spent.wait_seconds())),
            server_cpu_us_per_delivery: server.map(|server| server.cpu_us_per_delivery),
            generator_busy_percent: measured.generator.busy_percent(measured.seconds),
        };
        step.judge(measured, bounds);
        step
    }

    fn judge(&mut self, measured: &Measured, bounds: &Bounds) {
        let doubts = measured.generator.doubts(measured.seconds);
        let others = measured.invalid_reasons.iter().filter(|reason| !doubts.contains(reason));
        let mut broken: Vec<String> = others.cloned().collect();
        let counts = &measured.counts;
        let mut check = |missed: bool, sentence: String| broken.extend(missed.then_some(sentence));
        check(counts.lost > bounds.loss_max, format!("{} deliveries were lost", counts.lost));
        check(self.refused > 0, format!("{} messages were refused", self.refused));
        check(counts.closed > 0, format!("{} connections ended", counts.closed));
        let contradicted = |stats: &Growth| !stats.law_holds || stats.sent_is_delivered == Some(false);
        check(measured.stats.as_ref().is_some_and(contradicted), "the server's counters contradict it".to_owned());
        check(counts.misrouted > 0, format!("{} messages reached clients of another room", counts.misrouted));
        let unordered = counts.duplicates + counts.reordered;
        check(unordered > 0, format!("{unordered} deliveries were repeated or out of order"));
        let p99 = self.latency_ms.p99;
        check(p99 > bounds.p99_ms_max, format!("p99 was {p99:.2} ms"));
        if let (Some(max), Some(percent)) = (bounds.server_cpu_percent_max, self.server_cpu_percent) {
            check(percent > max, format!("the server used {percent:.0} % of its cores"));
        }
        self.verdict = match (measured.was_interrupted, doubts.is_empty(), broken.is_empty()) {
            (true, ..) => Verdict::Interrupted,
            (false, false, _) => Verdict::Generator,
            (false, true, false) => Verdict::Broken,
            (false, true, true) => Verdict::Good,
        };
        self.reasons = doubts.into_iter().chain(broken).collect();
    }

    fn head() -> String {
        format!(
            "{:>10} {:>12} {:>8} {:>8} {:>8} {:>8} {:>6} {:>6} {:>7}  verdict",
            "rate/room", "deliveries/s", "p50 ms", "p99", "p99.9", "max", "CPU %", "wait %", "us each"
        )
    }

    fn line(&self) -> String {
        let or_dash = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        let verdict = match self.verdict {
            Verdict::Good => "good".to_owned(),
            Verdict::Broken => format!("broken: {}", self.reasons.join("; ")),
            Verdict::Generator => format!("the generator's: {}", self.reasons.join("; ")),
            Verdict::Interrupted => "interrupted".to_owned(),
        };
        let latency = &self.latency_ms;
        format!(
            "{:>10.2} {:>12.0} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>6} {:>6} {:>7}  {verdict}",
            self.rate,
            self.deliveries_per_second,
            latency.p50,
            latency.p99,
            latency.p999,
            latency.max,
            or_dash(self.server_cpu_percent, 0),
            or_dash(self.server_wait_percent, 0),
            or_dash(self.server_cpu_us_per_delivery, 2),
        )
    }
}

impl Limit {
    /// Adds what was found to a table for the terminal.
    pub(crate) fn rows(&self, table: &mut Table) {
        // On a terminal they have just gone by.
        if !std::io::stdout().is_terminal() {
            table.line(&Step::head());
            for step in &self.steps {
                table.line(&step.line());
            }
        }
        if let Some(best) = &self.best {
            let (at_least, per_second) = (if self.at_least { "at least " } else { "" }, best.deliveries_per_second);
            let each = best.deliveries_per_second_per_core.map_or(String::new(), |each| format!(", {each:.0} a core"));
            table.row("limit", format!("{at_least}{per_second:.0} deliveries/s{each}"));
        } else {
            table.row("limit", "none: no step kept the bounds");
        }
        table.row("because", &self.ended);
        if self.bounds.server_cpu_percent_max.is_none() {
            table.row("not looked at", "the server's CPU: give --server-pid");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rates tried against a server that bears loads up to a limit, and the last good one.
    fn climb(start: f64, limit: f64) -> (Vec<f64>, Option<f64>) {
        let mut climb = Climb { start, step: 0.5, finer: 0.1, good: None, bad: None };
        let mut tried = Vec::new();
        while let Some(rate) = climb.next() {
            assert!(tried.len() < 100, "it never ends: {tried:?}");
            tried.push(rate);
            climb.tried(rate, rate <= limit);
        }
        (tried, climb.good)
    }

    #[test]
    fn a_search_climbs_in_steps_and_then_halves_what_is_left() {
        let (tried, good) = climb(1.0, 2.5);
        assert_eq!(tried[..4], [1.0, 1.5, 2.25, 3.375]);
        let good = good.unwrap();
        assert!(good <= 2.5 && good * 1.1 > 2.5, "{good} of {tried:?}");
    }

    #[test]
    fn a_start_above_the_limit_is_halved_and_a_server_that_bears_nothing_ends_it() {
        let (tried, good) = climb(16.0, 3.0);
        assert_eq!(tried[..4], [16.0, 8.0, 4.0, 2.0]);
        assert!(good.unwrap() > 2.7);
        let (tried, good) = climb(16.0, 0.0);
        assert_eq!((tried.len(), good), (7, None));
    }
}
