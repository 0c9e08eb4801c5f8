//! Kafka: a thread that reads every partition of the topic and dispatches, one that watches, and a producer for the API.
//!
//! ```text
//! librdkafka ─ one queue per partition ─▶ consume ─ dispatch ─▶ shards
//!      ▲                                   ▲   │ positions
//!      └── metadata, watermarks ── watch ──┘◀──┘
//!                                    └─▶ position file
//! ```
//!
//! With `kafka.nodes_topic` another thread tells the other nodes of this one, and hears of them.
//!
//! Every node reads everything by manual assignment. A shard's full queue stops the partition whose job is for it: its
//! queue is left unread and fills, and the library stops fetching.

mod client;
mod consume;
mod credentials;
mod due;
mod mend;
mod native;
mod nodes;
mod position;
mod produce;
mod pusher;
mod seldom;
mod upstream;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_channel::oneshot;
use halley_protocol::job::Job;
use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::cpus::leave;
use super::nodes::NodeCommand;
use super::stats::KafkaStats;
use crate::config::{self, Start};
use crate::directory::Directory;
use crate::dispatch::Dispatch;
use crate::link::ShardLink;

pub use nodes::Me;
pub use produce::ProduceError;
pub use pusher::Pusher;
pub use upstream::Upstream;

use client::Ear;
use consume::Consume;
use credentials::{Credentials, Renewed};
use nodes::{Neighbours, NodesThread};
use position::{PositionFile, Positions};
use produce::{Deliveries, Outcome, Producer, Told, in_time};
use watch::Watch;

/// How long the end of the process waits for what is being produced.
const FLUSH: Duration = Duration::from_secs(1);

/// What a job is answered that comes before reading has begun.
const NOT_BEGUN: ProduceError =
    ProduceError::Refused("this node does not know yet where it begins to read, since no broker has told it");

type Consumer = BaseConsumer<Ear>;

/// Checks what can be known without a broker. The error is the key and a sentence.
pub fn check(settings: &config::Kafka) -> Result<(), (&'static str, String)> {
    client::check(settings).map_err(|problem| ("kafka.client", problem))?;
    if settings.position_file.is_empty() {
        return Ok(());
    }
    PositionFile::check(Path::new(&settings.position_file), &settings.topic)
        .map_err(|problem| ("kafka.position_file", problem))
}

/// What the two threads and the handle share.
struct Shared {
    settings: config::Kafka,
    stats: Arc<KafkaStats>,
    links: Arc<[Arc<ShardLink>]>,
    /// No more jobs are to be dispatched.
    stop: AtomicBool,
    /// It is known where reading begins: what is written from now on is read.
    begun: AtomicBool,
    /// From the watch to the consumer: read this partition from this offset.
    starts: Mutex<Vec<(i32, i64)>>,
    /// From the consumer to the watch: why nothing comes from a partition.
    problems: Mutex<BTreeMap<i32, KafkaError>>,
    file: Option<Mutex<PositionFile>>,
    renewed: Renewed,
    /// `kafka.job_age_ms_max` now.
    job_age_ms_max: AtomicU32,
}

impl Shared {
    /// The settings, with the credentials in force.
    fn settings_now(&self) -> config::Kafka {
        let mut settings = self.settings.clone();
        if let Some(credentials) = self.renewed.now() {
            credentials.put(&mut settings);
        }
        settings
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<i32, KafkaError>> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next offset of each partition.
    fn positions(&self) -> BTreeMap<i32, i64> {
        let partitions = self.stats.partitions();
        partitions.iter().map(|p| (p.number, p.position.load(Ordering::Acquire))).collect()
    }

    fn write_positions(&self, positions: BTreeMap<i32, i64>) {
        let Some(file) = &self.file else { return };
        if let Err(error) = file.lock().unwrap_or_else(PoisonError::into_inner).write(positions) {
            tracing::error!(%error, file = self.settings.position_file, "positions cannot be written");
        }
    }
}

/// Kafka as the rest of the gateway sees it.
pub struct Kafka {
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    consumer: Mutex<Option<JoinHandle<()>>>,
    nodes: OnceLock<Joined>,
    /// The producer of clients' messages, where there is one.
    upstream: OnceLock<Arc<Upstream>>,
}

/// The other nodes, and the thread that hears of them.
struct Joined {
    neighbours: Arc<Neighbours>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Why Kafka does not start: a sentence for an operator. A broker that is away is no reason.
pub type StartResult = Result<Kafka, String>;

impl Kafka {
    /// Starts reading. Must be called within control's runtime. `cpus` are those of the shards, which are left alone
    /// if there are others.
    pub fn start(
        settings: &config::Kafka,
        dispatch: Dispatch,
        links: Arc<[Arc<ShardLink>]>,
        cpus: Vec<usize>,
    ) -> StartResult {
        let (file, found) = match settings.position_file.as_str() {
            "" => (None, None),
            path => {
                let (file, found) = PositionFile::open(Path::new(path), &settings.topic)
                    .map_err(|problem| format!("kafka.position_file: {problem}"))?;
                (Some(Mutex::new(file)), found)
            }
        };
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            stats: Arc::default(),
            links,
            stop: AtomicBool::new(false),
            // Only the end of a topic moves on while it is asked for.
            begun: AtomicBool::new(found.is_some() || settings.start != Start::Latest),
            starts: Mutex::default(),
            problems: Mutex::default(),
            file,
            renewed: Renewed::new(settings),
            job_age_ms_max: AtomicU32::new(settings.job_age_ms_max),
        });
        let system = |error: io::Error| format!("kafka: {error}");
        let deliveries = Arc::new(Deliveries::new().map_err(system)?);
        deliveries.spawn().map_err(system)?;
        let (report, started) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("kafka".into()).spawn(move || {
            // The library's threads inherit where this one may run.
            leave(&cpus);
            match make(&theirs, deliveries) {
                Ok((consumer, ear, producer)) => {
                    drop(report.send(Ok(Arc::clone(&producer))));
                    run(&theirs, consumer, ear, producer, dispatch, found);
                }
                Err(problem) => drop(report.send(Err(problem))),
            }
        });
        let thread = thread.map_err(system)?;
        let producer = started.recv().unwrap_or_else(|_| Err("kafka: its thread ended".into()))?;
        Ok(Self {
            shared,
            producer,
            consumer: Mutex::new(Some(thread)),
            nodes: OnceLock::new(),
            upstream: OnceLock::new(),
        })
    }

    /// Joins the other nodes over `kafka.nodes_topic`; nothing without one. What they ask for comes to `obey`, again and
    /// again until it says true. Must be called once, within control's runtime.
    pub fn join_nodes(
        &self,
        me: Me,
        directory: Arc<Directory>,
        cpus: Vec<usize>,
        obey: impl Fn(&NodeCommand) -> bool + 'static,
    ) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        if shared.settings.nodes_topic.is_empty() {
            return Ok(());
        }
        let system = |error: io::Error| format!("kafka.nodes_topic: {error}");
        let neighbours = Arc::new(Neighbours::new(&shared.settings.nodes_topic, &me.name).map_err(system)?);
        neighbours.spawn(obey).map_err(system)?;
        let (theirs, producer) = (Arc::clone(&neighbours), Arc::clone(&self.producer));
        let thread = thread::Builder::new().name("kafka-nodes".into()).spawn(move || {
            let _abort = crate::control::shards::AbortOnPanic;
            leave(&cpus);
            match NodesThread::new(shared, theirs, producer, directory, me.instance) {
                Ok(thread) => thread.run(),
                Err(error) => tracing::error!(%error, "kafka: nothing is known of other nodes"),
            }
        });
        let thread = Mutex::new(Some(thread.map_err(system)?));
        assert!(self.nodes.set(Joined { neighbours, thread }).is_ok(), "called once");
        Ok(())
    }

    /// This node's id among the others; `None` without `kafka.nodes_topic`.
    pub fn node_id(&self) -> Option<&str> {
        self.nodes.get().map(|joined| joined.neighbours.id.as_str())
    }

    /// Tells every other node to do something: those that run, and those that start before `until_ms` (milliseconds
    /// since 1970; 0: none). Done when Kafka has it, within `kafka.produce_ms_max`; at once without
    /// `kafka.nodes_topic`. This node does it itself.
    pub fn broadcast(
        &self,
        command: &NodeCommand,
        until_ms: i64,
    ) -> impl Future<Output = Result<(), ProduceError>> + Send + use<> {
        let sent = self.nodes.get().map(|joined| joined.neighbours.broadcast(&self.producer, command, until_ms));
        let answered = sent.map(|sent| self.answered(sent));
        async move {
            match answered {
                None => Ok(()),
                Some(answered) => answered.await.map(drop),
            }
        }
    }

    /// Goes on by what of these settings needs no restart: credentials, for the next authentication, and how old a job
    /// may be.
    pub fn reload(&self, settings: &config::Kafka) {
        self.shared.job_age_ms_max.store(settings.job_age_ms_max, Ordering::Relaxed);
        if let Some(credentials) = Credentials::of(settings)
            && self.shared.renewed.renew(&credentials).is_some()
        {
            // The threads that read look for themselves.
            self.producer.renew(&credentials);
            if let Some(upstream) = self.upstream.get() {
                upstream.renew(&credentials);
            }
        }
    }

    /// A producer that goes on by the same reloads. Called once.
    pub fn adopt(&self, upstream: Arc<Upstream>) {
        let stats = self.shared.stats.upstream.set(upstream.stats());
        assert!(stats.is_ok() && self.upstream.set(upstream).is_ok(), "called once");
    }

    /// Counters and where it stands.
    pub fn stats(&self) -> &KafkaStats {
        &self.shared.stats
    }

    /// Produces a job. Answers with partition and offset once Kafka has it, within `kafka.produce_ms_max`. What calls
    /// made in this order is in this order in its partition. Of jobs with one `id` nodes dispatch the first only, as far as
    /// they remember it.
    pub fn produce(
        &self,
        job: &Job<'_>,
        id: Option<&str>,
    ) -> impl Future<Output = Result<(i32, i64), ProduceError>> + Send + use<> {
        // Before that it might lie before the place where this node begins to read.
        let begun = self.shared.begun.load(Ordering::Acquire);
        let sent = if begun { self.producer.send(job, id) } else { Err(NOT_BEGUN) };
        let told = Told { stats: Arc::clone(&self.shared.stats), is_acknowledged: false };
        let answered = self.answered(sent);
        async move {
            // All of it, or it would end with this function.
            let mut told = told;
            let outcome = answered.await;
            told.is_acknowledged = outcome.is_ok();
            outcome
        }
    }

    /// What a call is answered, in its time.
    fn answered(
        &self,
        sent: Result<oneshot::Receiver<Outcome>, ProduceError>,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let producer = Arc::clone(&self.producer);
        let time = Duration::from_millis(self.shared.settings.produce_ms_max.into());
        let outcome = sent.map(|outcome| in_time(outcome, time));
        async move { outcome?.await.map_err(|error| producer.explain(error)) }
    }

    /// Stops dispatching, and returns when the last dispatch is done.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let thread = self.consumer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            // A panic of the source's thread has ended the process.
            let _ = thread.join();
        }
    }

    /// Writes the last positions, once the shards have drained, tells the other nodes, and ends what is being produced.
    pub fn finish(&self) {
        self.shared.write_positions(self.shared.positions());
        if let Some(file) = &self.shared.file {
            file.lock().unwrap_or_else(PoisonError::into_inner).close();
        }
        if let Some(Joined { neighbours, thread }) = self.nodes.get() {
            neighbours.leave();
            let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            // A panic of its own has ended the process.
            let _ = thread.map(JoinHandle::join);
        }
        self.producer.flush(FLUSH);
    }
}

type Made = (Arc<Consumer>, Ear, Arc<Producer>);

fn make(shared: &Arc<Shared>, deliveries: Arc<Deliveries>) -> Result<Made, String> {
    let problem = |error: KafkaError| format!("kafka: {error}");
    let ear = Ear::default();
    let config = client::consumer(&shared.settings);
    let consumer = Consumer::from_config_and_context(&config, ear.clone()).map_err(problem)?;
    let producer = Producer::new(&shared.settings, deliveries, Arc::clone(&shared.stats)).map_err(problem)?;
    Ok((Arc::new(consumer), ear, Arc::new(producer)))
}

fn run(
    shared: &Arc<Shared>,
    consumer: Arc<Consumer>,
    ear: Ear,
    producer: Arc<Producer>,
    dispatch: Dispatch,
    found: Option<Positions>,
) {
    let _abort = crate::control::shards::AbortOnPanic;
    let watch = Watch::new(Arc::clone(shared), Arc::clone(&consumer), ear, thread::current(), found);
    let watching = thread::Builder::new().name("kafka-watch".into()).spawn(move || watch.run());
    if let Err(error) = watching {
        tracing::error!(%error, "kafka: no thread for the watch; nothing is read");
        return;
    }
    Consume::new(Arc::clone(shared), consumer, producer, dispatch).run();
}
