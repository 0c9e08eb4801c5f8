//! What `/metrics` says of Kafka.

use std::fmt;
use std::sync::atomic::Ordering;

use halley_protocol::job::JobReject;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Histogram, counter, family};
use crate::source::stats::{KafkaStats, State};
use crate::stats::SPREAD_BUCKETS;

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, stats: &KafkaStats) -> fmt::Result {
    let mut metric = encoder.encode_descriptor("kafka_state", "1 for the state it is in", None, MetricType::Gauge)?;
    for state in State::ALL {
        let value = i64::from(state == stats.state());
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
    let mut late = Histogram { counts: [0; SPREAD_BUCKETS], sum: 0 };
    late.add(&stats.dispatch_ms);
    let name = ("kafka_dispatch", "From a record's timestamp to its dispatch");
    late.encode(encoder, name, Some(&Unit::Seconds), 1e-3)
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
