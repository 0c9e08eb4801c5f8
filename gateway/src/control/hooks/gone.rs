//! Connections that are gone, told to the platform in order and many at a time.
//!
//! Each has a number, one more than the one before it since the start: an endpoint sees by a gap that some are missing, and by
//! a repeated number that it was told twice.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use serde::Serialize;

use super::stats::{HookStats, Outcome, Subject};
use crate::control::decide::Stay;
use crate::endpoint::Endpoint;
use crate::reason::CloseReason;

/// Bytes of a call; a longer one begins no further entry.
const CALL_BYTES_MAX: usize = 1 << 20;

/// How long after a call that failed the next one is made; twice as long after each further one.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest such pause.
const PAUSE_LONGEST: Duration = Duration::from_secs(30);

/// How much is told of those who are gone at most, and how often it is tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoneLimits {
    /// Connections of a call.
    pub(super) batch: usize,
    /// Connections that wait to be told of.
    pub(super) queue: u64,
    /// Calls for the same connections.
    pub(super) tries: u32,
}

/// The way of those who are gone; all of it belongs to the control thread.
pub(super) struct Gone {
    queue: UnboundedSender<Bytes>,
    queue_max: u64,
    last: u64,
    stats: Arc<HookStats>,
}

/// One that is gone.
#[derive(Serialize)]
struct Entry<'a> {
    number: u64,
    #[serde(skip_serializing_if = "super::wire::is_none")]
    mid: i64,
    key: String,
    rooms: Vec<&'a str>,
    reason: &'static str,
    seconds: u64,
    peer: SocketAddr,
}

impl Gone {
    /// Tells this endpoint. Must be called within the runtime.
    pub(super) fn new(endpoint: Endpoint, run: Rc<str>, limits: GoneLimits, stats: Arc<HookStats>) -> Self {
        let (queue, queued) = unbounded();
        monoio::spawn(tell_all(endpoint, run, queued, limits, Arc::clone(&stats)));
        Self { queue, queue_max: limits.queue, last: 0, stats }
    }

    /// One more, unless as many wait as may.
    pub(super) fn put(&mut self, stay: &Stay, peer: SocketAddr, reason: CloseReason, now_s: u64) {
        self.last += 1;
        if self.stats.gone_queued.get() >= self.queue_max {
            self.stats.gone_dropped.add(1);
            return;
        }
        let entry = Entry {
            number: self.last,
            mid: stay.member.max(0),
            key: stay.key.to_string(),
            rooms: stay.rooms.iter().map(|room| &**room).collect(),
            reason: reason.name(),
            seconds: now_s.saturating_sub(stay.since_s),
            peer,
        };
        let entry = serde_json::to_vec(&entry).expect("texts and numbers");
        self.stats.gone_queued.add(1);
        // Its reader lives as long as control.
        let _ = self.queue.unbounded_send(entry.into());
    }
}

async fn tell_all(
    endpoint: Endpoint,
    run: Rc<str>,
    mut queued: UnboundedReceiver<Bytes>,
    limits: GoneLimits,
    stats: Arc<HookStats>,
) {
    while let Ok(first) = queued.recv().await {
        let mut body = format!("{{\"run\":\"{run}\",\"gone\":[").into_bytes();
        body.extend_from_slice(&first);
        let mut told = 1;
        while told < limits.batch && body.len() < CALL_BYTES_MAX {
            let Ok(next) = queued.try_recv() else { break };
            body.push(b',');
            body.extend_from_slice(&next);
            told += 1;
        }
        body.extend_from_slice(b"]}");
        let told = told as u64;
        if tell(&endpoint, body.into(), limits.tries, &stats).await {
            stats.gone_told.add(told);
        } else {
            stats.gone_lost.add(told);
            tracing::error!(event = "gone-lost", connections = told, "the platform does not know that they are gone");
        }
        stats.gone_queued.sub(told);
    }
}

/// Calls until the endpoint has it; `false` when it was tried often enough.
async fn tell(endpoint: &Endpoint, body: Bytes, tries_max: u32, stats: &HookStats) -> bool {
    let mut pause = PAUSE;
    for tried in 1..=tries_max {
        let since = std::time::Instant::now();
        stats.begin(Subject::Gone);
        let result = endpoint.call(body.clone()).await;
        let outcome = result.as_ref().map_or_else(|error| Outcome::of(error.failure), |_| Outcome::Taken);
        stats.end(Subject::Gone, outcome, since.elapsed());
        let Err(error) = result else { return true };
        let (hook, url) = (Subject::Gone.name(), endpoint.url());
        tracing::warn!(event = "hook-failed", hook, outcome = outcome.name(), %url, problem = %error, tried);
        if tried < tries_max {
            monoio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_LONGEST);
        }
    }
    false
}
