//! What `/metrics` says of Kafka.

use std::fmt;
use std::sync::atomic::Ordering;

use halley_protocol::job::JobReject;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Histogram, counter, family, gauge};
use crate::source::nodes::NodesStats;
use crate::source::stats::{KafkaStats, State};
use crate::stats::SPREAD_BUCKETS;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, stats: &KafkaStats) -> fmt::Result {
    let mut metric = encoder.encode_descriptor("kafka_state", "1 for the state it is in", None, MetricType::Gauge)?;
    for state in State::ALL {
        let value = i64::from(state == stats.standing.state());
        ConstGauge::new(value).encode(metric.encode_family(&[("state", state.name())])?)?;
    }
    lags(encoder, stats)?;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let rejected = stats.rejected();
    let jobs = [("dispatched", stats.dispatched.get()), ("expired", stats.expired.get()), ("rejected", rejected)];
    family(encoder, "kafka_jobs", "Records by what became of them", "result", &jobs)?;
    let rejects = JobReject::ALL.map(|reject| (reject.name(), stats.rejects[reject.at()].get()));
    family(encoder, "kafka_rejects", "Records that are no jobs", "reason", &rejects)?;
    counter(encoder, "kafka_repeats", "Records read a second time and left out", stats.repeats.get())?;
    counter(encoder, "kafka_duplicates", "Jobs whose id was dispatched before", stats.duplicates.get())?;
    counter(encoder, "kafka_pauses", "Times a partition waited for a shard's full queue", stats.pauses.get())?;
    counter(encoder, "kafka_missed", "Records that were gone before they were read", load(&stats.missed))?;
    let produced = [("acknowledged", load(&stats.produced)), ("failed", load(&stats.produce_failed))];
    family(encoder, "kafka_produced", "Jobs of the API by what Kafka said", "result", &produced)?;
    let letters = [("acknowledged", load(&stats.dead_letters)), ("failed", load(&stats.dead_letters_failed))];
    family(encoder, "kafka_dead_letters", "Rejected records by what the dead-letter topic said", "result", &letters)?;
    nodes(encoder, &stats.nodes)?;
    let mut late = Histogram { counts: [0; SPREAD_BUCKETS], sum: 0 };
    late.add(&stats.dispatch_ms);
    let name = ("kafka_dispatch", "From a record's timestamp to its dispatch");
    late.encode(encoder, name, Some(&Unit::Seconds), 1e-3)
}

fn nodes(encoder: &mut DescriptorEncoder<'_>, stats: &NodesStats) -> fmt::Result {
    let list = stats.list();
    let count = |wanted: bool| list.iter().filter(|node| node.lives == wanted).count();
    let mut metric = encoder.encode_descriptor("kafka_nodes", "Other nodes known", None, MetricType::Gauge)?;
    for (state, lives) in [("up", true), ("gone", false)] {
        let value = i64::try_from(count(lives)).unwrap_or(i64::MAX);
        ConstGauge::new(value).encode(metric.encode_family(&[("state", state)])?)?;
    }
    let left_out = list.iter().map(|node| node.left_out).sum::<u64>() + stats.left_out.get();
    gauge(encoder, "kafka_node_rooms_left_out", "Rooms of nodes that other nodes do not count", left_out)?;
    let rejects = JobReject::ALL.map(|reject| (reject.name(), stats.rejects[reject.at()].get()));
    family(encoder, "kafka_node_rejects", "Records of the nodes' topic that are no node's", "reason", &rejects)?;
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let told = [("acknowledged", load(&stats.told)), ("failed", load(&stats.tell_failed))];
    family(encoder, "kafka_node_records", "Records of this node by what Kafka said", "result", &told)
}

fn lags(encoder: &mut DescriptorEncoder<'_>, stats: &KafkaStats) -> fmt::Result {
    let partitions = stats.partitions();
    let help = "Records that the broker has and that were not dispatched";
    let mut lag = encoder.encode_descriptor("kafka_lag_records", help, None, MetricType::Gauge)?;
    for partition in &partitions {
        let records = i64::try_from(partition.lag()).unwrap_or(i64::MAX);
        ConstGauge::new(records).encode(lag.encode_family(&[("partition", partition.number)])?)?;
    }
    let help = "How late records are dispatched; 0 without a lag";
    let mut lag = encoder.encode_descriptor("kafka_lag", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for partition in &partitions {
        ConstGauge::new(partition.lag_seconds()).encode(lag.encode_family(&[("partition", partition.number)])?)?;
    }
    Ok(())
}
