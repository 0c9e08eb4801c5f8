//! What `/metrics` says of messages that are passed on; all of it is left out without `[upstream]`.

use super::{Family, Kind, Read, Scrape, Value};
use crate::stats::{Counter, UpstreamStats};
use crate::upstream::Refused;

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "halley_upstream_received",
        kind: Kind::Counter,
        labels: &[],
        help: "Messages of clients for the place",
        read: Read::Many(|scrape, samples| sum(scrape, |stats| &stats.received).for_each(|n| samples.put([], n))),
    },
    Family {
        name: "halley_upstream_acknowledged",
        kind: Kind::Counter,
        labels: &[],
        help: "Messages that the place has, and whose clients were told so",
        read: Read::Many(|scrape, samples| sum(scrape, |stats| &stats.acknowledged).for_each(|n| samples.put([], n))),
    },
    Family {
        name: "halley_upstream_refused",
        kind: Kind::Counter,
        labels: &["reason"],
        help: "Messages that were not passed on, and whose clients were told so",
        read: Read::Many(|scrape, samples| {
            for refused in Refused::ALL {
                sum(scrape, |stats| &stats.refused[refused.at()]).for_each(|n| samples.put([&refused.name()], n));
            }
        }),
    },
    Family {
        name: "halley_upstream_in_flight",
        kind: Kind::Gauge,
        labels: &[],
        help: "Messages without their answers",
        read: Read::Many(|scrape, samples| sum(scrape, |stats| &stats.in_flight).for_each(|n| samples.put([], n))),
    },
    Family {
        name: "halley_upstream_seconds",
        kind: Kind::Histogram,
        labels: &[],
        help: "From a message of a client to its acknowledgement",
        read: Read::Spreads(
            |app| {
                let links = if app.config().settings.upstream.is_some() { &app.links[..] } else { &[] };
                links.iter().map(|link| &link.stats.upstream.answer_us).collect()
            },
            1e-6,
        ),
    },
];

/// The sum over all shards, if anything is passed on.
fn sum(scrape: &Scrape<'_>, of: impl Fn(&UpstreamStats) -> &Counter) -> impl Iterator<Item = Value> {
    let passes_on = scrape.app.config().settings.upstream.is_some();
    passes_on.then(|| scrape.sum(|stats| of(&stats.upstream)).into()).into_iter()
}
