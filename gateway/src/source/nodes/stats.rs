//! What is seen of the other nodes.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use halley_protocol::job::JobReject;

use crate::source::stats::Standing;
use crate::stats::Counter;

/// Another node, as it was last heard of.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// Its id.
    pub id: Arc<str>,
    /// It counts.
    pub lives: bool,
    /// When its last beat came.
    pub heard: Instant,
    /// What it said of itself: connections.
    pub connections: u64,
    /// Their distinct addresses.
    pub addresses: u64,
    /// Its rooms.
    pub rooms: u64,
    /// Rooms of these that do not count here.
    pub left_out: u64,
    /// Jobs that wait for it.
    pub lag: u64,
    /// It is being stopped.
    pub draining: bool,
    /// Itself as goim's discovery would show it, JSON.
    pub instance: Arc<str>,
}

/// Counters, and the list of nodes. [`Counter`]s are written by the nodes' thread alone.
#[derive(Debug)]
pub struct NodesStats {
    /// How it stands with the nodes' topic.
    pub standing: Standing,
    /// Records that were read.
    pub read: Counter,
    /// Records that are not a node's, by reason.
    pub rejects: [Counter; JobReject::ALL.len()],
    /// Records that Kafka acknowledged.
    pub told: AtomicU64,
    /// Records that it did not.
    pub tell_failed: AtomicU64,
    /// What the brokers have against the last record, if it was refused.
    refusal: Mutex<Option<String>>,
    /// This node's rooms that the others are not told of.
    pub left_out: Counter,
    nodes: RwLock<Arc<[NodeView]>>,
}

impl Default for NodesStats {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            read: Counter::default(),
            rejects: Default::default(),
            told: AtomicU64::new(0),
            tell_failed: AtomicU64::new(0),
            refusal: Mutex::default(),
            left_out: Counter::default(),
            nodes: RwLock::new([].into()),
        }
    }
}

impl NodesStats {
    /// The other nodes, those that are gone included, by id.
    pub fn list(&self) -> Arc<[NodeView]> {
        Arc::clone(&self.nodes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the brokers refuse this node's records, if they do.
    pub fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers why they refused the last one, or that they did not.
    pub fn set_refusal(&self, refusal: Option<String>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }

    /// Other nodes that live.
    pub fn living(&self) -> usize {
        self.list().iter().filter(|node| node.lives).count()
    }

    pub(super) fn publish(&self, nodes: Arc<[NodeView]>) {
        *self.nodes.write().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}
