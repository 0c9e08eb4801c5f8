//! The table of all families. `docs/metrics.md` is written from it.

use super::{Family, Group, Kind, Read, Samples, Scrape, kafka, upstream};
use crate::control::hooks::{Outcome, Subject};
use crate::reason::{CloseReason, DropReason, Handshake, Reject};
use crate::stats::{Fill, Pool};
use std::sync::atomic::Ordering;

/// Every family, in the order of the exposition.
pub const GROUPS: &[Group] = &[
    Group { title: "Deliveries", families: DELIVERIES },
    Group { title: "Connections", families: CONNECTIONS },
    Group { title: "Shards", families: SHARDS },
    Group { title: "Memory and queues", families: MEMORY },
    Group { title: "The API and the process", families: PROCESS },
    Group { title: "Hooks", families: HOOKS },
    Group { title: "Kafka", families: kafka::FAMILIES },
    Group { title: "Upstream", families: upstream::FAMILIES },
];

const fn counter(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Counter, labels: &[], help, read }
}

const fn gauge(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Gauge, labels: &[], help, read }
}

const fn histogram(name: &'static str, help: &'static str, read: Read) -> Family {
    Family { name, kind: Kind::Histogram, labels: &[], help, read }
}

impl Family {
    const fn by(mut self, labels: &'static [&'static str]) -> Self {
        self.labels = labels;
        self
    }
}

/// The law: `offered = sent + dropped + queued`, read as it stood between two turns.
const DELIVERIES: &[Family] = &[
    counter(
        "halley_offered",
        "Deliveries (message × connection) that a pass reached",
        Read::One(|scrape| scrape.balance.offered.into()),
    ),
    counter(
        "halley_sent",
        "Deliveries of which the kernel took every byte",
        Read::One(|scrape| scrape.balance.sent.into()),
    ),
    counter(
        "halley_dropped",
        "Deliveries that did not happen",
        Read::Many(|scrape, samples| {
            for reason in DropReason::ALL {
                samples.put([&reason.name()], scrape.balance.dropped[reason.at()]);
            }
        }),
    )
    .by(&["reason"]),
    gauge("halley_queued", "Deliveries waiting in outboxes", Read::One(|scrape| scrape.balance.queued.into())),
    histogram(
        "halley_delivery_seconds",
        "From the dispatch of a delivery to the end of the batch of sends that handed its last byte to the kernel",
        Read::Shards(|stats| &stats.delivery_us, 1e-6),
    ),
    histogram("halley_run_messages", "Messages joined into one run", Read::Shards(|stats| &stats.run_messages, 1.0)),
    counter("halley_sends", "Sends submitted; one may carry many deliveries", Read::Sum(|stats| &stats.sends)),
    counter("halley_sent_bytes", "Bytes the kernel took", Read::Sum(|stats| &stats.sent_bytes)),
    counter(
        "halley_deflated",
        "Pushes that were compressed, each once for all who get it: they became smaller, or were kept as they were",
        Read::Many(|scrape, samples| {
            let deflated = scrape.app.compression.as_ref().map(|it| it.counts()).unwrap_or_default();
            samples.put([&"smaller"], deflated.smaller);
            samples.put([&"kept"], deflated.kept);
        }),
    )
    .by(&["result"]),
    counter(
        "halley_deflate_in_bytes",
        "Bytes of pushes that were compressed",
        Read::One(|scrape| scrape.app.compression.as_ref().map_or(0, |it| it.counts().in_bytes).into()),
    ),
    counter(
        "halley_deflate_out_bytes",
        "Bytes of those that became smaller, as they are sent",
        Read::One(|scrape| scrape.app.compression.as_ref().map_or(0, |it| it.counts().out_bytes).into()),
    ),
];

const CONNECTIONS: &[Family] = &[
    gauge("halley_connections", "Connections open, logged in or not", Read::Sum(|stats| &stats.connections)),
    gauge(
        "halley_connections_max",
        "Connections there is room for",
        Read::One(|scrape| u64::from(scrape.app.config().plan.connections_max).into()),
    ),
    gauge("halley_online", "Connections logged in", Read::One(|scrape| scrape.app.directory.connections().into())),
    gauge("halley_rooms", "Rooms with members", Read::One(|scrape| scrape.app.directory.rooms().into())),
    gauge("halley_blocked", "Connections that take nothing at the moment", Read::Sum(|stats| &stats.blocked)),
    counter("halley_accepted", "Connections accepted", Read::Sum(|stats| &stats.accepted)),
    counter(
        "halley_accept_pauses",
        "Times a full table stopped a shard from accepting",
        Read::Sum(|stats| &stats.accept_pauses),
    ),
    counter(
        "halley_accept_rate_pauses",
        "Times accepts_per_second_max stopped a shard from accepting",
        Read::Sum(|stats| &stats.accept_rate_pauses),
    ),
    counter(
        "halley_accept_memory_pauses",
        "Times memory_bytes_max stopped a shard from accepting",
        Read::Sum(|stats| &stats.accept_memory_pauses),
    ),
    counter(
        "halley_network_uncounted",
        "Connections that found no place to be counted in their network, and were let in",
        Read::Sum(|stats| &stats.network_uncounted),
    ),
    counter(
        "halley_logins",
        "Logins by how they ended: admitted, or the refusal; each is there from its first time on",
        Read::Many(|scrape, samples| {
            scrape.app.tallies.logins().iter().for_each(|(result, count)| samples.put([result], *count));
        }),
    )
    .by(&["result"]),
    counter(
        "halley_closes",
        "Connections ended",
        Read::Many(|scrape, samples| {
            for reason in CloseReason::ALL {
                samples.put([&reason.name()], scrape.sum(|stats| &stats.closes[reason.at()]));
            }
        }),
    )
    .by(&["reason"]),
    counter(
        "halley_tls_handshakes",
        "TLS handshakes of clients that ended",
        Read::Many(|scrape, samples| {
            for end in Handshake::ALL {
                samples.put([&end.name()], scrape.sum(|stats| &stats.tls_handshakes[end.at()]));
            }
        }),
    )
    .by(&["result"]),
    counter(
        "halley_rejects",
        "Refusals that closed nothing",
        Read::Many(|scrape, samples| {
            for reject in Reject::ALL {
                samples.put([&reject.name()], scrape.sum(|stats| &stats.rejects[reject.at()]));
            }
        }),
    )
    .by(&["reason"]),
    counter("halley_packets", "Packets received", Read::Sum(|stats| &stats.packets)),
    gauge("halley_deflating", "Connections that have agreed to compression", Read::Sum(|stats| &stats.deflating)),
    counter("halley_inflated", "Compressed messages received", Read::Sum(|stats| &stats.inflated)),
    counter("halley_inflate_in_bytes", "Bytes of these", Read::Sum(|stats| &stats.inflate_in_bytes)),
    counter("halley_inflate_out_bytes", "Bytes that the sound ones hold", Read::Sum(|stats| &stats.inflate_out_bytes)),
];

const SHARDS: &[Family] = &[
    counter(
        "halley_shard_busy_seconds",
        "Time in which a shard did not sleep: its rate is the shard's load, 0 to 1",
        Read::Many(|scrape, samples| by_shard(scrape, samples, |stats| stats.busy_us.get(), 1e-6)),
    )
    .by(&["shard"]),
    gauge(
        "halley_shard_connections",
        "Connections of a shard",
        Read::Many(|scrape, samples| by_shard(scrape, samples, |stats| stats.connections.get(), 1.0)),
    )
    .by(&["shard"]),
    histogram(
        "halley_turn_seconds",
        "Duration of a shard's turn without its sleep",
        Read::Shards(|stats| &stats.turn_us, 1e-6),
    ),
    counter("halley_turns", "Turns of the shards' loops", Read::Sum(|stats| &stats.turns)),
    counter("halley_enters", "Calls of io_uring_enter", Read::Sum(|stats| &stats.enters)),
    counter("halley_completions", "Completions read from the rings", Read::Sum(|stats| &stats.completions)),
    counter(
        "halley_allocations",
        "Heap allocations of shards since they began to serve",
        Read::Sum(|stats| &stats.allocations),
    ),
];

const QUEUES: [&str; 3] = ["orders", "pushes", "reports"];

const MEMORY: &[Family] = &[
    gauge(
        "halley_queue_length",
        "Entries that wait between a shard and the rest: orders of control, pushes, reports",
        Read::Many(|scrape, samples| {
            for (shard, link) in scrape.app.links.iter().enumerate() {
                for (queue, (length, _)) in QUEUES.iter().zip(link.queues()) {
                    samples.put([queue, &shard], length as u64);
                }
            }
        }),
    )
    .by(&["queue", "shard"]),
    gauge(
        "halley_queue_max",
        "Places of each such queue, of one shard",
        Read::Many(|scrape, samples| {
            let Some(link) = scrape.app.links.first() else { return };
            for (queue, (_, places)) in QUEUES.iter().zip(link.queues()) {
                samples.put([queue], places as u64);
            }
        }),
    )
    .by(&["queue"]),
    gauge(
        "halley_pool_used",
        "What is taken of that which shards have a fixed number of, all shards together",
        Read::Many(|scrape, samples| by_pool(scrape, samples, |fills| fills.map(|fill| fill.used.get()).sum())),
    )
    .by(&["pool"]),
    gauge(
        "halley_pool_max",
        "How much there is of it, all shards together",
        Read::Many(|scrape, samples| by_pool(scrape, samples, |fills| fills.map(|fill| fill.max.get()).sum())),
    )
    .by(&["pool"]),
    gauge(
        "halley_pool_fullest_ratio",
        "The part that is taken of it in the shard that has least left, 0 to 1",
        Read::Many(|scrape, samples| {
            for pool in Pool::ALL {
                let fullest = scrape.shards().map(|stats| stats.pools[pool.at()].ratio()).fold(0.0, f64::max);
                samples.put([&pool.name()], fullest);
            }
        }),
    )
    .by(&["pool"]),
    gauge(
        "halley_pinned_bytes",
        "Bytes of runs held for blocked connections, echoes included",
        Read::Sum(|stats| &stats.pinned_bytes),
    ),
];

const PROCESS: &[Family] = &[
    counter(
        "halley_api_answers",
        "Calls of the API by the status of their answers; each is there from its first time on, 200 and 503 always",
        Read::Many(|scrape, samples| {
            scrape.app.tallies.answers().iter().for_each(|(status, count)| samples.put([status], *count));
        }),
    )
    .by(&["code"]),
    histogram(
        "halley_api_call_seconds",
        "From the head of a call of the API to its answer",
        Read::Spreads(|app| vec![&app.tallies.call_us], 1e-6),
    ),
    counter(
        "halley_pushes_too_fast",
        "Pushes of the API refused because their room gets more than it may; those of Kafka are in `halley_kafka_jobs_total`",
        Read::One(|scrape| scrape.app.dispatch.rates().refused().into()),
    ),
    counter(
        "halley_push_repeats",
        "Pushes answered as the first one of their id",
        Read::One(|scrape| scrape.app.push_ids.repeats().into()),
    ),
    counter(
        "halley_push_ids_forgotten",
        "Ids of pushes forgotten before their time",
        Read::One(|scrape| scrape.app.push_ids.forgotten().into()),
    ),
    gauge(
        "halley_draining",
        "1 from the beginning of a drain",
        Read::One(|scrape| u64::from(scrape.app.draining.load(Ordering::Relaxed)).into()),
    ),
    gauge(
        "halley_build_info",
        "1, with the version that runs",
        Read::Many(|_, samples| samples.put([&env!("CARGO_PKG_VERSION")], 1)),
    )
    .by(&["version"]),
    counter(
        "process_cpu_seconds",
        "CPU time of the process, user and system",
        Read::One(|scrape| scrape.process.cpu_seconds.into()),
    ),
    gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is resident",
        Read::One(|scrape| scrape.process.resident_bytes.into()),
    ),
    gauge(
        "process_virtual_memory_bytes",
        "Address space of the process; most of it is never touched",
        Read::One(|scrape| scrape.process.virtual_bytes.into()),
    ),
    gauge(
        "process_start_time_seconds",
        "When the process started, since 1970",
        Read::One(|scrape| scrape.process.start_seconds.into()),
    ),
    gauge("process_threads", "Threads of the process", Read::One(|scrape| scrape.process.threads.into())),
];

const HOOKS: &[Family] = &[
    counter(
        "halley_hook_calls",
        "Calls of the platform's endpoints that ended",
        Read::Many(|scrape, samples| {
            for (subject, outcome) in Subject::ALL.iter().flat_map(|of| Outcome::ALL.iter().map(move |to| (of, to))) {
                let calls = scrape.app.tallies.hooks.calls(*subject, *outcome);
                samples.put([&subject.name(), &outcome.name()], calls);
            }
        }),
    )
    .by(&["hook", "result"]),
    gauge("halley_hook_in_flight", "Calls under way", Read::Many(|scrape, samples| by_hook(scrape, samples, u64::min)))
        .by(&["hook"]),
    gauge(
        "halley_hook_waiting",
        "Calls that wait for a place",
        Read::Many(|scrape, samples| by_hook(scrape, samples, u64::saturating_sub)),
    )
    .by(&["hook"]),
    counter(
        "halley_hook_gone",
        "Connections that are gone, by what became of telling it: told, dropped (as many waited as may), lost (every try failed)",
        Read::Many(|scrape, samples| {
            let hooks = &scrape.app.tallies.hooks;
            let counts = [("told", &hooks.gone_told), ("dropped", &hooks.gone_dropped), ("lost", &hooks.gone_lost)];
            for (result, count) in counts {
                samples.put([&result], count.get());
            }
        }),
    )
    .by(&["result"]),
    gauge(
        "halley_hook_gone_queued",
        "Connections that are gone and wait to be told of",
        Read::One(|scrape| scrape.app.tallies.hooks.gone_queued.get().into()),
    ),
    histogram(
        "halley_hook_call_seconds",
        "From a question to the platform's answer, the wait for a place included",
        Read::Spreads(|app| vec![&app.tallies.hooks.call_us], 1e-6),
    ),
];

/// Nobody waits while there is a place.
fn by_hook(scrape: &Scrape<'_>, samples: &mut Samples, of: impl Fn(u64, u64) -> u64) {
    let calls_max = scrape.app.config().settings.hooks.calls_max;
    for subject in Subject::ALL {
        samples.put([&subject.name()], of(scrape.app.tallies.hooks.pending(subject), calls_max.into()));
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics are f64")]
fn by_shard(scrape: &Scrape<'_>, samples: &mut Samples, read: impl Fn(&crate::stats::ShardStats) -> u64, scale: f64) {
    for (shard, stats) in scrape.shards().enumerate() {
        samples.put([&shard], read(stats) as f64 * scale);
    }
}

fn by_pool(scrape: &Scrape<'_>, samples: &mut Samples, sum: impl Fn(&mut dyn Iterator<Item = &Fill>) -> u64) {
    for pool in Pool::ALL {
        samples.put([&pool.name()], sum(&mut scrape.shards().map(|stats| &stats.pools[pool.at()])));
    }
}
