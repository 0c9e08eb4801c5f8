//! Halley's own counters (`GET /v1/stats`): their growth over a run, and its conservation law.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::http::Url;

/// Where the counters are read.
#[derive(Clone, Debug)]
pub struct StatsSource {
    /// Base of the API, or the whole address of the call.
    pub url: Url,
    /// Bearer token.
    pub token: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Snapshot {
    shards: Vec<Shard>,
}

/// One shard's counters; what a server does not have counts as zero.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Shard {
    offered: u64,
    sent: u64,
    dropped: BTreeMap<String, u64>,
    queued: u64,
    enters: u64,
    completions: u64,
    allocations: u64,
    turns: u64,
    sends: u64,
    turn_us: Spread,
    run_messages: Spread,
}

/// Values by powers of two: bucket `i` counts those from `2^(i-1)` to `2^i - 1`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spread {
    buckets: Vec<u64>,
    sum: u64,
}

/// A spread in three numbers.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    /// Values.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// No more than 1 % lie above this, known to a power of two.
    pub p99_at_most: u64,
}

/// The counters at one moment.
#[derive(Clone, Debug)]
pub struct Stats(Snapshot);

/// Their growth over a run, all shards together.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Growth {
    /// Deliveries owed.
    pub offered: u64,
    /// Deliveries of which the kernel took every byte.
    pub sent: u64,
    /// Deliveries dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Change of the deliveries waiting.
    pub queued: i64,
    /// Calls of `io_uring_enter` for each delivery sent.
    pub enters_per_delivery: f64,
    /// Completions for each delivery sent.
    pub completions_per_delivery: f64,
    /// Allocations for each delivery sent.
    pub allocations_per_delivery: f64,
    /// Turns of the shards' loops.
    pub turns: u64,
    /// Sends for each call of `io_uring_enter`.
    pub sends_per_enter: f64,
    /// Sends for each delivery sent; below 1 where several messages went in one.
    pub sends_per_delivery: f64,
    /// Microseconds of a turn, if the server says so.
    pub turn_us: Option<Summary>,
    /// Messages joined into one run, if the server says so.
    pub run_messages: Option<Summary>,
    /// Whether offered = sent + dropped + queued in every shard.
    pub law_holds: bool,
    /// Whether `sent` is what the clients counted; none if that cannot be said.
    pub sent_is_delivered: Option<bool>,
}

impl StatsSource {
    /// Reads the counters.
    ///
    /// # Errors
    /// A sentence.
    pub fn read(&self) -> Result<Stats, String> {
        let call = "/v1/stats";
        let path = if self.url.path.ends_with(call) { "" } else { call };
        let answer = self.url.get(path, self.token.as_deref())?;
        if answer.status != 200 {
            return Err(format!("{}{path} answered {}", self.url.path, answer.status));
        }
        let parsed = serde_json::from_slice(&answer.body);
        parsed.map(Stats).map_err(|error| format!("{}{path}: {error}", self.url.path))
    }
}

impl Stats {
    /// Growth since an earlier moment; `delivered` is what the clients counted meanwhile, if no
    /// connection was lost.
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn since(&self, earlier: &Self, delivered: Option<u64>) -> Growth {
        let mut growth = Growth { law_holds: true, ..Growth::default() };
        let (mut enters, mut completions, mut allocations, mut sends) = (0, 0, 0, 0);
        let (mut turn_us, mut run_messages) = (Spread::default(), Spread::default());
        for (index, now) in self.0.shards.iter().enumerate() {
            let empty = Shard::default();
            let before = earlier.0.shards.get(index).unwrap_or(&empty);
            let (offered, sent) = (now.offered.saturating_sub(before.offered), now.sent.saturating_sub(before.sent));
            let queued = now.queued.cast_signed() - before.queued.cast_signed();
            let mut dropped = 0;
            for (reason, count) in &now.dropped {
                let grown = count.saturating_sub(*before.dropped.get(reason).unwrap_or(&0));
                dropped += grown;
                if grown > 0 {
                    *growth.dropped.entry(reason.clone()).or_default() += grown;
                }
            }
            growth.law_holds &= offered.cast_signed() == (sent + dropped).cast_signed() + queued;
            growth.offered += offered;
            growth.sent += sent;
            growth.queued += queued;
            enters += now.enters.saturating_sub(before.enters);
            completions += now.completions.saturating_sub(before.completions);
            allocations += now.allocations.saturating_sub(before.allocations);
            sends += now.sends.saturating_sub(before.sends);
            growth.turns += now.turns.saturating_sub(before.turns);
            turn_us.add(&now.turn_us, &before.turn_us);
            run_messages.add(&now.run_messages, &before.run_messages);
        }
        let per_delivery = |count: u64| count as f64 / growth.sent.max(1) as f64;
        growth.enters_per_delivery = per_delivery(enters);
        growth.completions_per_delivery = per_delivery(completions);
        growth.allocations_per_delivery = per_delivery(allocations);
        growth.sends_per_delivery = per_delivery(sends);
        growth.sends_per_enter = sends as f64 / enters.max(1) as f64;
        growth.turn_us = turn_us.summary();
        growth.run_messages = run_messages.summary();
        growth.sent_is_delivered = delivered.map(|delivered| delivered == growth.sent);
        growth
    }
}

impl Spread {
    /// Adds the growth of another one.
    fn add(&mut self, now: &Self, before: &Self) {
        self.buckets.resize(self.buckets.len().max(now.buckets.len()), 0);
        for (index, (bucket, count)) in self.buckets.iter_mut().zip(&now.buckets).enumerate() {
            *bucket += count.saturating_sub(before.buckets.get(index).copied().unwrap_or(0));
        }
        self.sum += now.sum.saturating_sub(before.sum);
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    fn summary(&self) -> Option<Summary> {
        let count: u64 = self.buckets.iter().sum();
        let mut above = count;
        let within = |bucket: &u64| {
            above -= bucket;
            above * 100 <= count
        };
        let last = self.buckets.iter().position(within)?;
        let p99_at_most = (1_u64 << last.min(63)) - 1;
        (count > 0).then(|| Summary { count, mean: self.sum as f64 / count as f64, p99_at_most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(json: &str) -> Stats {
        Stats(serde_json::from_str(json).unwrap())
    }

    const BEFORE: &str = r#"{"shards":[{"offered":10,"sent":10,"dropped":{},"queued":0,"enters":5},
        {"offered":0,"sent":0,"queued":0}],"kafka":[]}"#;

    #[test]
    fn the_law_is_checked_shard_by_shard_and_not_in_total() {
        let after = r#"{"shards":[{"offered":30,"sent":25,"dropped":{"slow":3},"queued":2,"enters":8},
            {"offered":4,"sent":4,"queued":0}]}"#;
        let growth = stats(after).since(&stats(BEFORE), Some(19));
        assert!(growth.law_holds);
        assert_eq!((growth.offered, growth.sent, growth.queued), (24, 19, 2));
        assert_eq!(growth.dropped["slow"], 3);
        assert_eq!(growth.sent_is_delivered, Some(true));

        let errors_that_cancel_out = r#"{"shards":[{"offered":30,"sent":26,"dropped":{"slow":3},"queued":2},
            {"offered":4,"sent":3,"queued":0}]}"#;
        let growth = stats(errors_that_cancel_out).since(&stats(BEFORE), Some(18));
        assert!(!growth.law_holds);
        assert_eq!(growth.sent_is_delivered, Some(false));
    }

    #[test]
    fn runs_are_summed_over_the_shards_from_what_they_were_before() {
        let before = r#"{"shards":[{"run_messages":{"buckets":[0,7,0,0],"sum":7},"sends":7,"enters":1},{}]}"#;
        let after = r#"{"shards":[{"run_messages":{"buckets":[0,106,0,0],"sum":106},"sends":107,"enters":11},
            {"run_messages":{"buckets":[0,0,0,1],"sum":7}}]}"#;
        let growth = stats(after).since(&stats(before), None);
        let runs = growth.run_messages.unwrap();
        assert_eq!((runs.count, runs.p99_at_most), (100, 1));
        assert!((runs.mean - 1.06).abs() < 1e-9 && (growth.sends_per_enter - 10.0).abs() < 1e-9);
        assert!(growth.turn_us.is_none(), "a server that does not say has no zeros");
    }
}
