//! `GET /v1/stats`: every shard's counters as they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use halley_protocol::job::JobReject;
use serde_json::{Map, Value, json};

use super::Shared;
use crate::reason::{CloseReason, DropReason, Handshake, Reject};
use crate::source::nodes::NodesStats;
use crate::source::stats::{KafkaStats, Partition, ProducerStats};
use crate::stats::{Counter, Pool, ShardStats, Spread};

pub(super) async fn stats(State(app): State<Shared>) -> Json<Value> {
    Json(json!({
        "shards": app.links.iter().map(|link| shard(&link.stats)).collect::<Vec<_>>(),
        "kafka": app.kafka.get().map_or_else(Vec::new, |kafka| partitions(kafka.stats())),
        "kafka_source": app.kafka.get().map(|kafka| source(kafka.stats())),
        "logins": app.tallies.logins(),
        "push_ids": { "repeats": app.push_ids.repeats(), "forgotten": app.push_ids.forgotten() },
        "online": app.directory.connections(),
        "addresses": app.directory.addresses(),
        "rooms": app.directory.rooms(),
        "connections_max": app.config().plan.connections_max,
        "draining": app.draining.load(Ordering::Relaxed),
    }))
}

fn shard(stats: &ShardStats) -> Value {
    let balance = stats.balance();
    json!({
        "offered": balance.offered,
        "sent": balance.sent,
        "dropped": named(balance.dropped, DropReason::ALL.map(DropReason::name)),
        "queued": balance.queued,
        "connections": stats.connections.get(),
        "accepted": stats.accepted.get(),
        "logins": stats.logins.get(),
        "closes": named(values(&stats.closes), CloseReason::ALL.map(CloseReason::name)),
        "rejects": named(values(&stats.rejects), Reject::ALL.map(Reject::name)),
        "tls_handshakes": named(values(&stats.tls_handshakes), Handshake::ALL.map(Handshake::name)),
        "enters": stats.enters.get(),
        "completions": stats.completions.get(),
        "allocations": stats.allocations.get(),
        "turns": stats.turns.get(),
        "sends": stats.sends.get(),
        "sent_bytes": stats.sent_bytes.get(),
        "packets": stats.packets.get(),
        "accept_pauses": stats.accept_pauses.get(),
        "accept_rate_pauses": stats.accept_rate_pauses.get(),
        "accept_memory_pauses": stats.accept_memory_pauses.get(),
        "network_uncounted": stats.network_uncounted.get(),
        "rooms": stats.rooms.get(),
        "blocked": stats.blocked.get(),
        "pinned_bytes": stats.pinned_bytes.get(),
        "busy_us": stats.busy_us.get(),
        "pools": pools(stats),
        "turn_us": spread(&stats.turn_us),
        "run_messages": spread(&stats.run_messages),
        "delivery_us": spread(&stats.delivery_us),
        "record_delivery_us": spread(&stats.record_delivery_us),
    })
}

fn partitions(stats: &KafkaStats) -> Vec<Value> {
    let partition = |partition: Arc<Partition>| {
        json!({
            "partition": partition.number,
            "position": partition.position.load(Ordering::Relaxed),
            "end": partition.end.load(Ordering::Relaxed),
            "lag": partition.lag(),
            "lag_seconds": partition.lag_seconds(),
            "blocked": partition.blocked.load(Ordering::Relaxed),
        })
    };
    stats.partitions().into_iter().map(partition).collect()
}

fn source(stats: &KafkaStats) -> Value {
    json!({
        "state": stats.standing.state().name(),
        "detail": stats.standing.detail(),
        "dispatched": stats.dispatched.get(),
        "expired": stats.expired.get(),
        "limited": stats.limited.get(),
        "rejects": named(values(&stats.rejects), JobReject::ALL.map(JobReject::name)),
        "repeats": stats.repeats.get(),
        "duplicates": stats.duplicates.get(),
        "pauses": stats.pauses.get(),
        "missed": stats.missed.load(Ordering::Relaxed),
        "produced": stats.produced.load(Ordering::Relaxed),
        "produce_failed": stats.produce_failed.load(Ordering::Relaxed),
        "dead_letters": stats.dead_letters.load(Ordering::Relaxed),
        "dead_letters_failed": stats.dead_letters_failed.load(Ordering::Relaxed),
        "dispatch_ms": spread(&stats.dispatch_ms),
        "producer": producer(&stats.producer),
        "upstream": stats.upstream.get().map(|stats| producer(stats)),
        "nodes": nodes(&stats.nodes),
    })
}

fn producer(stats: &ProducerStats) -> Value {
    json!({
        "state": stats.state().name(),
        "detail": stats.detail(),
        "made_anew": stats.made_anew.load(Ordering::Relaxed),
    })
}

fn nodes(stats: &NodesStats) -> Value {
    json!({
        "state": stats.standing.state().name(),
        "detail": stats.standing.detail(),
        "read": stats.read.get(),
        "rejects": named(values(&stats.rejects), JobReject::ALL.map(JobReject::name)),
        "told": stats.told.load(Ordering::Relaxed),
        "tell_failed": stats.tell_failed.load(Ordering::Relaxed),
    })
}

fn pools(stats: &ShardStats) -> Value {
    let fill = |pool: Pool| {
        let fill = &stats.pools[pool.at()];
        (pool.name().to_owned(), json!({ "used": fill.used.get(), "max": fill.max.get() }))
    };
    Value::Object(Pool::ALL.map(fill).into_iter().collect())
}

fn values<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
    std::array::from_fn(|at| counters[at].get())
}

fn named<const N: usize>(values: [u64; N], names: [&'static str; N]) -> Value {
    Value::Object(names.into_iter().zip(values).map(|(name, value)| (name.into(), value.into())).collect::<Map<_, _>>())
}

fn spread(spread: &Spread) -> Value {
    json!({ "buckets": spread.counts(), "sum": spread.sum() })
}
