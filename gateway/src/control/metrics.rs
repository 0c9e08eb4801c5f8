//! `/metrics`: OpenMetrics text. What is exported is one table of families, from which `docs/metrics.md` is written too.
//!
//! A scrape reads counters that shards publish anyway: nothing is asked of them, and nothing is locked that they take.

mod document;
mod families;
mod kafka;
mod process;
mod upstream;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use self::process::Process;
use super::app::App;
use crate::stats::{Balance, Counter, SPREAD_BUCKETS, ShardStats, Spread};

pub use document::document;
pub use families::GROUPS;

/// What a family is, as Prometheus has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples are named with `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Values by powers of two: `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// Families that belong together, and when they are exported.
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// The table.
    pub families: &'static [Family],
}

/// One family of metrics.
pub struct Family {
    /// Its name with its unit, without `_total`.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
    read: Read,
}

/// Where the values come from.
enum Read {
    /// The sum over all shards.
    Sum(fn(&ShardStats) -> &Counter),
    /// One value.
    One(fn(&Scrape<'_>) -> Value),
    /// A value for each combination of labels; a family without any is left out.
    Many(fn(&Scrape<'_>, &mut Samples)),
    /// A histogram of all shards together; the factor turns what they record into the unit.
    Shards(fn(&ShardStats) -> &Spread, f64),
    /// A histogram of all these together; left out if there are none.
    Spreads(fn(&App) -> Vec<&Spread>, f64),
}

impl Family {
    /// Units that a name may end in.
    const UNITS: [(&'static str, Unit); 2] = [("seconds", Unit::Seconds), ("bytes", Unit::Bytes)];

    /// The name of its samples; of a histogram without their suffixes.
    pub fn sample(&self) -> String {
        if self.kind == Kind::Counter { format!("{}_total", self.name) } else { self.name.to_owned() }
    }

    /// What comes before the unit, and the unit.
    fn parts(&self) -> (&'static str, Option<&'static Unit>) {
        let found = Self::UNITS.iter().find_map(|(word, unit)| {
            let stem = self.name.strip_suffix(word)?.strip_suffix('_')?;
            Some((stem, unit))
        });
        found.map_or((self.name, None), |(stem, unit)| (stem, Some(unit)))
    }
}

/// A value, exact where it is a count.
#[derive(Clone, Copy, Debug)]
enum Value {
    Count(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Value {
    fn from(real: f64) -> Self {
        Self::Real(real)
    }
}

/// The values of one family, each with its labels.
#[derive(Default)]
struct Samples(Vec<(Vec<String>, Value)>);

impl Samples {
    fn put<const N: usize>(&mut self, labels: [&dyn fmt::Display; N], value: impl Into<Value>) {
        self.0.push((labels.iter().map(ToString::to_string).collect(), value.into()));
    }
}

/// What is read once for all families of a scrape.
struct Scrape<'a> {
    app: &'a App,
    balance: Balance,
    process: Process,
}

impl Scrape<'_> {
    fn shards(&self) -> impl Iterator<Item = &ShardStats> {
        self.app.links.iter().map(|link| &link.stats)
    }

    fn sum(&self, of: impl Fn(&ShardStats) -> &Counter) -> u64 {
        self.shards().map(|stats| of(stats).get()).sum()
    }
}

/// The text of a scrape.
pub(super) fn render(app: &Arc<App>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Source(Arc::clone(app))));
    let mut out = String::new();
    text::encode(&mut out, &registry).expect("writing to a string does not fail");
    out
}

struct Source(Arc<App>);

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}

impl Collector for Source {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let app = &*self.0;
        let scrape = Scrape { app, balance: balance(app), process: Process::read() };
        for family in GROUPS.iter().flat_map(|group| group.families) {
            encode(&mut encoder, family, &scrape)?;
        }
        Ok(())
    }
}

/// The terms of the law, summed over shards: each shard's hold together, and so do the sums.
fn balance(app: &App) -> Balance {
    app.links.iter().map(|link| link.stats.balance()).fold(Balance::default(), |sum, one| Balance {
        offered: sum.offered + one.offered,
        sent: sum.sent + one.sent,
        queued: sum.queued + one.queued,
        dropped: std::array::from_fn(|at| sum.dropped[at] + one.dropped[at]),
    })
}

fn encode(encoder: &mut DescriptorEncoder<'_>, family: &Family, scrape: &Scrape<'_>) -> fmt::Result {
    let mut samples = Samples::default();
    let mut histogram = None;
    match &family.read {
        Read::Sum(of) => samples.put([], scrape.sum(of)),
        Read::One(of) => samples.put([], of(scrape)),
        Read::Many(of) => of(scrape, &mut samples),
        Read::Shards(of, scale) => histogram = Some(Histogram::of(scrape.shards().map(of), *scale)),
        Read::Spreads(of, scale) => {
            let spreads = of(scrape.app);
            histogram = (!spreads.is_empty()).then(|| Histogram::of(spreads.into_iter(), *scale));
        }
    }
    if histogram.is_none() && samples.0.is_empty() {
        return Ok(());
    }
    let (stem, unit) = family.parts();
    let mut metric = encoder.encode_descriptor(stem, family.help, unit, family.kind.metric_type())?;
    if let Some(histogram) = histogram {
        return histogram.encode(metric);
    }
    for (values, value) in samples.0 {
        debug_assert_eq!(values.len(), family.labels.len(), "{}", family.name);
        let labels: Vec<_> = family.labels.iter().copied().zip(values).collect();
        if labels.is_empty() {
            return value.encode(family.kind, metric);
        }
        value.encode(family.kind, metric.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Value {
    fn encode(self, kind: Kind, metric: MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (Kind::Counter, Self::Count(count)) => ConstCounter::new(count).encode(metric),
            (Kind::Counter, Self::Real(real)) => ConstCounter::new(real).encode(metric),
            (_, Self::Count(count)) => ConstGauge::new(count).encode(metric),
            (_, Self::Real(real)) => ConstGauge::new(real).encode(metric),
        }
    }
}

impl Kind {
    /// Its name in the exposition.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
        }
    }
}

/// Spreads added up.
struct Histogram {
    counts: [u64; SPREAD_BUCKETS],
    sum: u64,
    /// Turns a recorded value into the metric's unit.
    scale: f64,
}

impl Histogram {
    fn of<'a>(spreads: impl Iterator<Item = &'a Spread>, scale: f64) -> Self {
        spreads.fold(Self { counts: [0; SPREAD_BUCKETS], sum: 0, scale }, |mut all, spread| {
            all.sum = all.sum.wrapping_add(spread.sum());
            all.counts.iter_mut().zip(spread.counts()).for_each(|(sum, count)| *sum += count);
            all
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics are f64")]
    fn encode(&self, mut metric: MetricEncoder<'_>) -> fmt::Result {
        // The last bucket of a spread has no upper bound.
        let bound = |at: usize| match at {
            last if last == SPREAD_BUCKETS - 1 => f64::MAX,
            at => ((1u64 << at) - 1) as f64 * self.scale,
        };
        let buckets: Vec<_> = self.counts.iter().enumerate().map(|(at, count)| (bound(at), *count)).collect();
        let count = self.counts.iter().sum();
        metric.encode_histogram::<[(&str, &str); 0]>(self.sum as f64 * self.scale, count, &buckets, None)
    }
}
