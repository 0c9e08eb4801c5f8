//! `GET /v1/stats`: every shard's counters as they are.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::Shared;
use crate::reason::{CloseReason, DropReason, Reject};
use crate::stats::{Counter, ShardStats, Spread};

pub(super) async fn stats(State(app): State<Shared>) -> Json<Value> {
    Json(json!({
        "shards": app.links.iter().map(|link| shard(&link.stats)).collect::<Vec<_>>(),
        "kafka": [],
        "logins": app.tallies.logins(),
        "online": app.directory.connections(),
        "addresses": app.directory.addresses(),
        "rooms": app.directory.rooms(),
        "connections_max": app.config.plan.connections_max,
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
        "enters": stats.enters.get(),
        "completions": stats.completions.get(),
        "allocations": stats.allocations.get(),
        "turns": stats.turns.get(),
        "sends": stats.sends.get(),
        "sent_bytes": stats.sent_bytes.get(),
        "packets": stats.packets.get(),
        "accept_pauses": stats.accept_pauses.get(),
        "rooms": stats.rooms.get(),
        "blocked": stats.blocked.get(),
        "pinned_bytes": stats.pinned_bytes.get(),
        "turn_us": spread(&stats.turn_us),
        "run_messages": spread(&stats.run_messages),
    })
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
