//! `/metrics`: OpenMetrics text over the shards' own counters, summed over shards. `/v1/stats` has them one by one.

mod kafka;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::app::App;
use crate::reason::{CloseReason, DropReason, Handshake, Reject};
use crate::stats::{Balance, Counter, SPREAD_BUCKETS, ShardStats, Spread};

/// A counter or gauge of a shard: name, help, where it is. Counters get the suffix `_total`.
type Field = (&'static str, &'static str, fn(&ShardStats) -> &Counter);

const COUNTERS: &[Field] = &[
    ("accepted", "Connections accepted", |s| &s.accepted),
    ("enters", "Calls of io_uring_enter", |s| &s.enters),
    ("completions", "Completions read from the rings", |s| &s.completions),
    ("allocations", "Heap allocations of shards since they began to serve", |s| &s.allocations),
    ("turns", "Turns of the shards' loops", |s| &s.turns),
    ("sends", "Sends submitted", |s| &s.sends),
    ("sent_bytes", "Bytes the kernel took", |s| &s.sent_bytes),
    ("packets", "Packets received", |s| &s.packets),
    ("accept_pauses", "Times a full table stopped accepting", |s| &s.accept_pauses),
    ("accept_rate_pauses", "Times accepts_per_second_max stopped accepting", |s| &s.accept_rate_pauses),
    ("accept_memory_pauses", "Times memory_bytes_max stopped accepting", |s| &s.accept_memory_pauses),
];

const GAUGES: &[Field] = &[
    ("connections", "Connections open, logged in or not", |s| &s.connections),
    ("blocked", "Connections that take nothing at the moment", |s| &s.blocked),
    ("pinned_bytes", "Bytes of runs held for blocked connections", |s| &s.pinned_bytes),
];

/// The text of a scrape.
pub(super) fn render(app: &Arc<App>) -> String {
    let mut registry = Registry::with_prefix("halley");
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
        let app = &self.0;
        let balance = self.balance();
        counter(&mut encoder, "offered", "Deliveries (message × connection) that a pass reached", balance.offered)?;
        counter(&mut encoder, "sent", "Deliveries of which the kernel took every byte", balance.sent)?;
        gauge(&mut encoder, "queued", "Deliveries waiting in outboxes", balance.queued)?;
        for (name, help, of) in COUNTERS {
            counter(&mut encoder, name, help, self.sum(of))?;
        }
        for (name, help, of) in GAUGES {
            gauge(&mut encoder, name, help, self.sum(of))?;
        }
        gauge(&mut encoder, "online", "Connections logged in", app.directory.connections())?;
        gauge(&mut encoder, "rooms", "Rooms with members", app.directory.rooms())?;
        gauge(
            &mut encoder,
            "connections_max",
            "Connections there is room for",
            app.config().plan.connections_max.into(),
        )?;
        let dropped: Vec<_> = DropReason::ALL.map(DropReason::name).into_iter().zip(balance.dropped).collect();
        family(&mut encoder, "dropped", "Deliveries that did not happen", "reason", &dropped)?;
        let closes = self.by(&CloseReason::ALL, |s, reason| &s.closes[reason.at()], CloseReason::name);
        family(&mut encoder, "closes", "Connections ended", "reason", &closes)?;
        let handshakes = self.by(&Handshake::ALL, |s, end| &s.tls_handshakes[end.at()], Handshake::name);
        family(&mut encoder, "tls_handshakes", "TLS handshakes of clients that ended", "result", &handshakes)?;
        let rejects = self.by(&Reject::ALL, |s, reject| &s.rejects[reject.at()], Reject::name);
        family(&mut encoder, "rejects", "Refusals that closed nothing", "reason", &rejects)?;
        let logins: Vec<_> = app.tallies.logins().into_iter().collect();
        family(&mut encoder, "logins", "Logins by how they ended", "result", &logins)?;
        let ids = &app.push_ids;
        counter(&mut encoder, "push_repeats", "Pushes answered as the first one of their id", ids.repeats())?;
        counter(&mut encoder, "push_ids_forgotten", "Ids of pushes forgotten before their time", ids.forgotten())?;
        let turns = self.spread(|s| &s.turn_us);
        turns.encode(
            &mut encoder,
            ("turn", "Duration of a shard's turn without its sleep"),
            Some(&Unit::Seconds),
            1e-6,
        )?;
        let runs = self.spread(|s| &s.run_messages);
        runs.encode(&mut encoder, ("run_messages", "Messages joined into one run"), None, 1.0)?;
        app.kafka.get().map_or(Ok(()), |source| kafka::encode(&mut encoder, source.stats()))
    }
}

impl Source {
    fn shards(&self) -> impl Iterator<Item = &ShardStats> {
        self.0.links.iter().map(|link| &link.stats)
    }

    /// The terms of the law, summed over shards: each shard's hold together, and so do the sums.
    fn balance(&self) -> Balance {
        self.shards().map(ShardStats::balance).fold(Balance::default(), |sum, one| Balance {
            offered: sum.offered + one.offered,
            sent: sum.sent + one.sent,
            queued: sum.queued + one.queued,
            dropped: std::array::from_fn(|at| sum.dropped[at] + one.dropped[at]),
        })
    }

    fn sum(&self, of: impl Fn(&ShardStats) -> &Counter) -> u64 {
        self.shards().map(|stats| of(stats).get()).sum()
    }

    fn by<T: Copy>(
        &self,
        all: &[T],
        of: impl Fn(&ShardStats, T) -> &Counter,
        name: impl Fn(T) -> &'static str,
    ) -> Vec<(&'static str, u64)> {
        all.iter().map(|item| (name(*item), self.sum(|stats| of(stats, *item)))).collect()
    }

    fn spread(&self, of: impl Fn(&ShardStats) -> &Spread) -> Histogram {
        let mut histogram = Histogram { counts: [0; SPREAD_BUCKETS], sum: 0 };
        self.shards().for_each(|stats| histogram.add(of(stats)));
        histogram
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: &[(&'static str, u64)],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (value, count) in values {
        ConstCounter::new(*count).encode(metric.encode_family(&[(label, *value)])?)?;
    }
    Ok(())
}

/// The spreads of all shards together.
struct Histogram {
    counts: [u64; SPREAD_BUCKETS],
    sum: u64,
}

impl Histogram {
    fn add(&mut self, spread: &Spread) {
        self.sum += spread.sum();
        self.counts.iter_mut().zip(spread.counts()).for_each(|(sum, count)| *sum += count);
    }

    /// `scale` turns a recorded value into the metric's unit.
    #[allow(clippy::cast_precision_loss, reason = "metrics are f64")]
    fn encode(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        unit: Option<&Unit>,
        scale: f64,
    ) -> fmt::Result {
        // The last bucket of a spread has no upper bound.
        let bound = |at: usize| if at == SPREAD_BUCKETS - 1 { f64::MAX } else { ((1u64 << at) - 1) as f64 * scale };
        let buckets: Vec<_> = self.counts.iter().enumerate().map(|(at, count)| (bound(at), *count)).collect();
        let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
        let count = self.counts.iter().sum();
        metric.encode_histogram::<[(&str, &str); 0]>(self.sum as f64 * scale, count, &buckets, None)
    }
}
