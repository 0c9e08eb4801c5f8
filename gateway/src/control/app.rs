//! What HTTP handlers see of the gateway. What only control may do, they ask for with a [`Command`].

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures_channel::{mpsc, oneshot};

use super::api::{PushIds, Tokens};
use super::listen::Bound;
use crate::config::Config;
use crate::directory::Directory;
use crate::dispatch::Dispatch;
use crate::ids::ConnWord;
use crate::link::ShardLink;
use crate::order::Inspection;
use crate::source::kafka::Kafka;

/// Shared by all handlers.
pub struct App {
    /// The configuration in force.
    pub config: Config,
    /// The addresses that were bound.
    pub bound: Bound,
    /// The way of pushes.
    pub dispatch: Dispatch,
    /// Who is where.
    pub directory: Arc<Directory>,
    /// Every shard's queues and counters.
    pub links: Arc<[Arc<ShardLink>]>,
    /// What control counts.
    pub tallies: Arc<Tallies>,
    /// Who may call.
    pub tokens: Tokens,
    /// The ids of the last pushes.
    pub push_ids: Arc<PushIds>,
    /// Where pushes go instead, if it is configured; set before the API serves.
    pub kafka: OnceLock<Kafka>,
    /// A drain has begun: `/readyz` says no.
    pub draining: AtomicBool,
    /// The way to control.
    pub commands: mpsc::UnboundedSender<Command>,
}

/// Something that control alone does, asked for by a handler. An answer that does not come in time is
/// dropped with its sender.
#[derive(Debug)]
pub enum Command {
    /// End every connection of a key; answered with how many there were.
    Kick {
        /// The key.
        key: String,
        /// The answer.
        answer: oneshot::Sender<usize>,
    },
    /// Ask a connection's shard about it; answered with `None` if it is gone.
    Inspect {
        /// The connection.
        conn: ConnWord,
        /// The answer.
        answer: oneshot::Sender<Option<Box<Inspection>>>,
    },
}

/// Counters that control writes.
#[derive(Debug)]
pub struct Tallies {
    /// Logins by result: `admitted`, or why not.
    logins: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self { logins: Mutex::new(BTreeMap::from([("admitted", 0)])) }
    }
}

impl Tallies {
    /// Counts a login that ended in this way.
    pub fn count_login(&self, result: &'static str) {
        *self.logins.lock().unwrap_or_else(PoisonError::into_inner).entry(result).or_default() += 1;
    }

    /// Logins by result.
    pub fn logins(&self) -> BTreeMap<&'static str, u64> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
