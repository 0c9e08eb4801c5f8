//! What is seen of Kafka: its state, counters, and where each partition stands.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use halley_protocol::job::JobReject;

use super::nodes::NodesStats;
use crate::stats::{Counter, Spread};

/// How it stands with the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No answer yet, since the start.
    Connecting,
    /// Its partitions are read.
    Consuming,
    /// Some of its partitions are read; of others the brokers say nothing, as when they have no leader.
    Degraded,
    /// No broker answers.
    BrokerAway,
    /// The brokers refuse the credentials, or the right to read the topic.
    Refused,
    /// The brokers know no such topic.
    TopicMissing,
}

impl State {
    /// Every state, in the order of their discriminants.
    pub const ALL: [Self; 6] =
        [Self::Connecting, Self::Consuming, Self::Degraded, Self::BrokerAway, Self::Refused, Self::TopicMissing];

    /// Name in the log, in `/v1/stats` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Consuming => "consuming",
            Self::Degraded => "degraded",
            Self::BrokerAway => "broker-away",
            Self::Refused => "refused",
            Self::TopicMissing => "topic-missing",
        }
    }
}

/// A state, and why.
#[derive(Debug, Default)]
pub struct Standing {
    state: AtomicU8,
    detail: Mutex<String>,
}

impl Standing {
    /// How it stands.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Why, in the words of the client library; empty while it consumes.
    pub fn detail(&self) -> String {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers how it stands; true if that is news.
    pub fn set(&self, state: State, detail: &str) -> bool {
        detail.clone_into(&mut self.detail.lock().unwrap_or_else(PoisonError::into_inner));
        self.state.swap(state as u8, Ordering::Relaxed) != state as u8
    }
}

/// How it stands with what is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    /// Nothing is known against it.
    Ready,
    /// The brokers do not let this node write.
    Refused,
    /// The client library gave up, and another of its clients takes over.
    Failed,
}

impl ProducerState {
    /// Every state, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Refused, Self::Failed];

    /// Name in the log, in `/v1/stats` and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// A producer: its state, why, and how often it was made anew. Written by the library's thread and the one that mends.
#[derive(Debug, Default)]
pub struct ProducerStats {
    state: AtomicU8,
    detail: Mutex<String>,
    /// Clients that took the place of one that had failed.
    pub made_anew: AtomicU64,
}

impl ProducerStats {
    /// How it stands.
    pub fn state(&self) -> ProducerState {
        ProducerState::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    /// Why; empty while it is ready.
    pub fn detail(&self) -> String {
        self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers how it stands; true if that is news.
    pub fn set(&self, state: ProducerState, detail: &str) -> bool {
        // With every acknowledgement.
        if state == ProducerState::Ready && self.state() == state {
            return false;
        }
        let mut known = self.detail.lock().unwrap_or_else(PoisonError::into_inner);
        detail.clone_into(&mut known);
        self.state.swap(state as u8, Ordering::Relaxed) != state as u8
    }
}

/// Counters of the source and of the producer. Those that are [`Counter`]s are written by the source's thread alone.
#[derive(Debug, Default)]
pub struct KafkaStats {
    /// How it stands with the topic of jobs.
    pub standing: Standing,
    /// The other nodes; nothing without `kafka.nodes_topic`.
    pub nodes: Arc<NodesStats>,
    /// Jobs handed to the shards concerned, or to none because nobody is there.
    pub dispatched: Counter,
    /// Jobs older than `kafka.job_age_ms_max`.
    pub expired: Counter,
    /// Jobs for a room that gets more than it may.
    pub limited: Counter,
    /// Records that are no jobs, by reason.
    pub rejects: [Counter; JobReject::ALL.len()],
    /// Records read a second time, and left out.
    pub repeats: Counter,
    /// Jobs whose id had been dispatched before, and left out.
    pub duplicates: Counter,
    /// Times that a partition waited for a shard's full queue.
    pub pauses: Counter,
    /// Records that were deleted from the topic before they were read, or that cannot be read.
    pub missed: AtomicU64,
    /// Milliseconds from a record's timestamp to its dispatch.
    pub dispatch_ms: Spread,
    /// The producer of the API's jobs, of dead letters and of what is for other nodes.
    pub producer: Arc<ProducerStats>,
    /// That of clients' messages, where there is one.
    pub upstream: OnceLock<Arc<ProducerStats>>,
    /// Jobs of the API whose callers were told that Kafka has them.
    pub produced: AtomicU64,
    /// Jobs of the API whose callers were not.
    pub produce_failed: AtomicU64,
    /// Records that the dead-letter topic has.
    pub dead_letters: AtomicU64,
    /// Records that it did not get.
    pub dead_letters_failed: AtomicU64,
    partitions: RwLock<Vec<Arc<Partition>>>,
}

/// A position that is not known yet: reading begins where `kafka.start` says.
pub const AS_CONFIGURED: i64 = -1;

/// A position that is not known yet: reading begins at the partition's first record.
pub const FROM_BEGINNING: i64 = -2;

/// Where one partition stands.
#[derive(Debug, Default)]
pub struct Partition {
    /// Its number.
    pub number: i32,
    /// The offset after the last record that was dispatched or rejected. Before reading has begun, [`AS_CONFIGURED`] or
    /// [`FROM_BEGINNING`].
    pub position: AtomicI64,
    /// The offset after the last record that the broker has, as last asked.
    pub end: AtomicI64,
    /// Where the broker had nothing more to read when it was last asked, marks of transactions included.
    pub read_to: AtomicI64,
    /// When the last job was written, milliseconds since 1970; 0: there was none.
    pub written_ms: AtomicI64,
    /// How late the last record was at its dispatch, milliseconds.
    pub late_ms: AtomicI64,
    /// For how long there have been records of which none was read, milliseconds.
    pub stuck_ms: AtomicI64,
    /// It waits for a shard's full queue.
    pub blocked: AtomicBool,
}

impl Partition {
    /// Records that the broker has and that were not dispatched.
    pub fn lag(&self) -> u64 {
        let read = self.position.load(Ordering::Relaxed).max(self.read_to.load(Ordering::Relaxed));
        u64::try_from(self.end.load(Ordering::Relaxed) - read).unwrap_or(0)
    }

    /// How late its records are dispatched, or for how long none was; 0 without a lag.
    #[allow(clippy::cast_precision_loss, reason = "a metric")]
    pub fn lag_seconds(&self) -> f64 {
        let ms = self.late_ms.load(Ordering::Relaxed).max(self.stuck_ms.load(Ordering::Relaxed));
        if self.lag() == 0 { 0.0 } else { ms.max(0) as f64 / 1000.0 }
    }
}

impl KafkaStats {
    /// The partitions that are read, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The entry of a partition, made if it is new.
    pub fn partition(&self, number: i32) -> Arc<Partition> {
        let mut partitions = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        match partitions.binary_search_by_key(&number, |partition| partition.number) {
            Ok(at) => Arc::clone(&partitions[at]),
            Err(at) => {
                partitions.insert(at, Arc::new(Partition { number, ..Partition::default() }));
                Arc::clone(&partitions[at])
            }
        }
    }

    /// Records that are no jobs.
    pub fn rejected(&self) -> u64 {
        self.rejects.iter().map(Counter::get).sum()
    }
}
