//! What `/metrics` says of Kafka; all of it is left out without `[kafka]`.

use std::sync::atomic::{AtomicU64, Ordering};

use halley_protocol::job::JobReject;

use super::{Family, Kind, Read, Samples, Scrape, Value};
use crate::source::stats::{KafkaStats, ProducerState, ProducerStats, State};

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "halley_kafka_state",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "1 for the state it is in",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                for state in State::ALL {
                    samples.put([&state.name()], u64::from(state == stats.standing.state()));
                }
            });
        }),
    },
    Family {
        name: "halley_kafka_lag_records",
        kind: Kind::Gauge,
        labels: &["partition"],
        help: "Records that the broker has and that were not dispatched",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                stats.partitions().iter().for_each(|partition| samples.put([&partition.number], partition.lag()));
            });
        }),
    },
    Family {
        name: "halley_kafka_lag_seconds",
        kind: Kind::Gauge,
        labels: &["partition"],
        help: "How late records are dispatched, or for how long none was; 0 without a lag",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                stats
                    .partitions()
                    .iter()
                    .for_each(|partition| samples.put([&partition.number], partition.lag_seconds()));
            });
        }),
    },
    Family {
        name: "halley_kafka_jobs",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Records by what became of them: dispatched, expired, limited, rejected",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                samples.put([&"dispatched"], stats.dispatched.get());
                samples.put([&"expired"], stats.expired.get());
                samples.put([&"limited"], stats.limited.get());
                samples.put([&"rejected"], stats.rejected());
            });
        }),
    },
    Family {
        name: "halley_kafka_rejects",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Records that are no jobs",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                for reject in JobReject::ALL {
                    samples.put([&reject.name()], stats.rejects[reject.at()].get());
                }
            });
        }),
    },
    Family {
        name: "halley_kafka_repeats",
        kind: Kind::Counter,
        labels: &[],
        help: "Records read a second time and left out",
        read: Read::Many(|scrape, samples| one(scrape, samples, |stats| stats.repeats.get().into())),
    },
    Family {
        name: "halley_kafka_duplicates",
        kind: Kind::Counter,
        labels: &[],
        help: "Jobs whose id was dispatched before",
        read: Read::Many(|scrape, samples| one(scrape, samples, |stats| stats.duplicates.get().into())),
    },
    Family {
        name: "halley_kafka_pauses",
        kind: Kind::Counter,
        labels: &[],
        help: "Times a partition waited for a shard's full queue",
        read: Read::Many(|scrape, samples| one(scrape, samples, |stats| stats.pauses.get().into())),
    },
    Family {
        name: "halley_kafka_missed",
        kind: Kind::Counter,
        labels: &[],
        help: "Records that were gone before they were read, or could not be",
        read: Read::Many(|scrape, samples| one(scrape, samples, |stats| load(&stats.missed).into())),
    },
    Family {
        name: "halley_kafka_produced",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Jobs of the API by what their callers were told: acknowledged, failed",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| acknowledged(samples, &stats.produced, &stats.produce_failed));
        }),
    },
    Family {
        name: "halley_kafka_producer_state",
        kind: Kind::Gauge,
        labels: &["producer", "state"],
        help: "1 for the state that a producer is in: that of the API's jobs, of dead letters and of what is for other nodes \
               (jobs), or that of clients' messages (upstream)",
        read: Read::Many(|scrape, samples| {
            each_producer(scrape, |name, producer| {
                for state in ProducerState::ALL {
                    samples.put([&name, &state.name()], u64::from(state == producer.state()));
                }
            });
        }),
    },
    Family {
        name: "halley_kafka_producers_made_anew",
        kind: Kind::Counter,
        labels: &["producer"],
        help: "Times that a producer could not go on and another took its place",
        read: Read::Many(|scrape, samples| {
            each_producer(scrape, |name, producer| samples.put([&name], load(&producer.made_anew)));
        }),
    },
    Family {
        name: "halley_kafka_dead_letters",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Rejected records by what the dead-letter topic said: acknowledged, failed",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| acknowledged(samples, &stats.dead_letters, &stats.dead_letters_failed));
        }),
    },
    Family {
        name: "halley_kafka_nodes",
        kind: Kind::Gauge,
        labels: &["state"],
        help: "Other nodes known: up, gone",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                let list = stats.nodes.list();
                for (state, lives) in [("up", true), ("gone", false)] {
                    samples.put([&state], list.iter().filter(|node| node.lives == lives).count() as u64);
                }
            });
        }),
    },
    Family {
        name: "halley_kafka_node_rooms_left_out",
        kind: Kind::Gauge,
        labels: &[],
        help: "Rooms of nodes that other nodes do not count",
        read: Read::Many(|scrape, samples| {
            one(scrape, samples, |stats| {
                let others = stats.nodes.list().iter().map(|node| node.left_out).sum::<u64>();
                (others + stats.nodes.left_out.get()).into()
            });
        }),
    },
    Family {
        name: "halley_kafka_node_rejects",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Records of the nodes' topic that are no node's",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| {
                for reject in JobReject::ALL {
                    samples.put([&reject.name()], stats.nodes.rejects[reject.at()].get());
                }
            });
        }),
    },
    Family {
        name: "halley_kafka_node_records",
        kind: Kind::Counter,
        labels: &["result"],
        help: "Records of this node by what Kafka said: acknowledged, failed",
        read: Read::Many(|scrape, samples| {
            with(scrape, |stats| acknowledged(samples, &stats.nodes.told, &stats.nodes.tell_failed));
        }),
    },
    Family {
        name: "halley_kafka_dispatch_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "From a record's timestamp to its dispatch",
        read: Read::Spreads(
            |app| app.kafka.get().map(|source| &source.stats().dispatch_ms).into_iter().collect(),
            1e-3,
        ),
    },
    Family {
        name: "halley_kafka_delivery_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "From a record's timestamp to the end of the batch of sends that handed the last byte of a delivery to the \
               kernel; a record is at most 65.5 s old at its dispatch in this count",
        read: Read::Spreads(
            |app| {
                let links = app.kafka.get().map_or(&[][..], |_| &app.links[..]);
                links.iter().map(|link| &link.stats.record_delivery_us).collect()
            },
            1e-6,
        ),
    },
];

fn with(scrape: &Scrape<'_>, read: impl FnOnce(&KafkaStats)) {
    if let Some(source) = scrape.app.kafka.get() {
        read(source.stats());
    }
}

fn each_producer(scrape: &Scrape<'_>, mut read: impl FnMut(&'static str, &ProducerStats)) {
    with(scrape, |stats| {
        read("jobs", &stats.producer);
        if let Some(upstream) = stats.upstream.get() {
            read("upstream", upstream);
        }
    });
}

fn one(scrape: &Scrape<'_>, samples: &mut Samples, read: impl FnOnce(&KafkaStats) -> Value) {
    with(scrape, |stats| samples.put([], read(stats)));
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn acknowledged(samples: &mut Samples, yes: &AtomicU64, no: &AtomicU64) {
    samples.put([&"acknowledged"], load(yes));
    samples.put([&"failed"], load(no));
}
