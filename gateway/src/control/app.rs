//! What HTTP handlers see of the gateway. What only control may do, they ask for with a [`Command`].

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use futures_channel::{mpsc, oneshot};

use super::api::{PushIds, Tokens};
use super::decide::Revoked;
use super::hooks::HookStats;
use super::listen::Bound;
use crate::compression::Compression;
use crate::config::{Config, Reload};
use crate::directory::Directory;
use crate::dispatch::{Dispatch, Rates};
use crate::ids::ConnWord;
use crate::link::ShardLink;
use crate::order::Inspection;
use crate::source::kafka::Kafka;
use crate::stats::Spread;
use crate::tls::InForce;

/// Shared by all handlers.
pub struct App {
    /// The configuration in force; a reload replaces it.
    pub live: Live,
    /// The addresses that were bound.
    pub bound: Bound,
    /// The way of pushes.
    pub dispatch: Dispatch,
    /// What compresses them, if a listener does.
    pub compression: Option<Arc<Compression>>,
    /// The rates of what comes from Kafka; those of the API's own pushes are its dispatch's.
    pub arriving: Arc<Rates>,
    /// Who is where.
    pub directory: Arc<Directory>,
    /// Every shard's queues and counters.
    pub links: Arc<[Arc<ShardLink>]>,
    /// What control counts.
    pub tallies: Arc<Tallies>,
    /// The ids of the last pushes.
    pub push_ids: Arc<PushIds>,
    /// Where pushes go instead, if it is configured; set before the API serves.
    pub kafka: OnceLock<Kafka>,
    /// The TLS of listeners and API; set before they serve.
    pub tls: InForce,
    /// A drain has begun: `/readyz` says no.
    pub draining: AtomicBool,
    /// The way to control.
    pub commands: mpsc::UnboundedSender<Command>,
    /// The way to who decides about the life of the process.
    pub wishes: Wishes,
}

impl App {
    /// The configuration in force now.
    pub fn config(&self) -> Arc<Config> {
        self.live.get().0
    }

    /// Who may call now.
    pub fn tokens(&self) -> Arc<Tokens> {
        self.live.get().1
    }
}

/// The configuration in force, and what is made of it.
#[derive(Debug)]
pub struct Live(RwLock<(Arc<Config>, Arc<Tokens>)>);

impl Live {
    /// This one, until it is replaced.
    pub fn new(config: Config) -> Self {
        Self(RwLock::new(Self::made_of(config)))
    }

    fn made_of(config: Config) -> (Arc<Config>, Arc<Tokens>) {
        let tokens = Tokens::new(&config.settings.api);
        (Arc::new(config), Arc::new(tokens))
    }

    fn get(&self) -> (Arc<Config>, Arc<Tokens>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it: whoever asks from now on gets the new one.
    pub(super) fn replace(&self, config: Config) {
        let made = Self::made_of(config);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = made;
    }
}

/// What somebody outside wants of the whole process.
#[derive(Debug)]
pub enum Wish {
    /// SIGTERM or SIGINT: drain; a second one ends the process at once.
    Stop,
    /// `POST /v1/drain`: drain.
    Drain,
    /// SIGHUP, or `POST /v1/reload`, which is answered.
    Reload(Option<oneshot::Sender<ReloadResult>>),
}

/// What a reload changed, or one sentence why it changed nothing.
pub type ReloadResult = Result<Reload, String>;

/// The way from signals and handlers to the one who fulfils their wishes.
#[derive(Debug)]
pub struct Wishes {
    wish: mpsc::UnboundedSender<Wish>,
    wished: Mutex<Option<mpsc::UnboundedReceiver<Wish>>>,
}

impl Default for Wishes {
    fn default() -> Self {
        let (wish, wished) = mpsc::unbounded();
        Self { wish, wished: Mutex::new(Some(wished)) }
    }
}

impl Wishes {
    /// Leaves a wish; `false` when nobody fulfils any more.
    pub fn put(&self, wish: Wish) -> bool {
        self.wish.unbounded_send(wish).is_ok()
    }

    /// The wishes, for the one who fulfils them.
    pub fn listen(&self) -> mpsc::UnboundedReceiver<Wish> {
        let wished = self.wished.lock().unwrap_or_else(PoisonError::into_inner).take();
        wished.expect("one fulfils wishes")
    }
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
    /// End the connections concerned, and refuse their tokens; answered with how many they were, or `None` if as many
    /// are revoked as can be remembered.
    Revoke {
        /// Whose.
        what: Revoked,
        /// Until when, in seconds since 1970.
        until_s: u64,
        /// The answer.
        answer: oneshot::Sender<Option<usize>>,
    },
    /// Ask a connection's shard about it; answered with `None` if it is gone.
    Inspect {
        /// The connection.
        conn: ConnWord,
        /// The answer.
        answer: oneshot::Sender<Option<Box<Inspection>>>,
    },
    /// Let new TLS connections of a listener begin with this.
    Certificates {
        /// Index of the listener in the configuration.
        listener: u8,
        /// What they begin with.
        config: Arc<rustls::ServerConfig>,
    },
}

/// Counters that control writes.
#[derive(Debug)]
pub struct Tallies {
    /// Logins by result: `admitted`, or why not.
    logins: Mutex<BTreeMap<&'static str, u64>>,
    /// Calls of the API by the status of their answers.
    answers: Mutex<BTreeMap<u16, u64>>,
    /// How long calls took, microseconds.
    pub call_us: Spread,
    /// Of the platform's endpoints.
    pub hooks: Arc<HookStats>,
}

impl Default for Tallies {
    fn default() -> Self {
        Self {
            logins: Mutex::new(BTreeMap::from([("admitted", 0)])),
            answers: Mutex::new(BTreeMap::from([(200, 0), (503, 0)])),
            call_us: Spread::default(),
            hooks: Arc::default(),
        }
    }
}

impl Tallies {
    /// Counts a call that was answered with this status.
    pub fn count_answer(&self, status: u16, took_us: u64) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        self.call_us.record(took_us);
    }

    /// Calls by status.
    pub fn answers(&self) -> BTreeMap<u16, u64> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a login that ended in this way.
    pub fn count_login(&self, result: &'static str) {
        *self.logins.lock().unwrap_or_else(PoisonError::into_inner).entry(result).or_default() += 1;
    }

    /// Logins by result.
    pub fn logins(&self) -> BTreeMap<&'static str, u64> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
