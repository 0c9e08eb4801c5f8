//! A producer that outlives its client: what librdkafka calls fatal ends a client for good, and another takes its place.
//!
//! ```text
//! works ── fatal: every send fails at once ──▶ a second since the last one ──▶ a new client ── the old one: answers, ends
//!   ▲                                                                              │
//!   └──────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is sent anew: what the old client could not send has failed, and its callers were told so.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};

use super::credentials::Credentials;
use crate::config;
use crate::source::stats::{ProducerState, ProducerStats};

/// Shortest time between two clients.
const APART: Duration = Duration::from_secs(1);

/// How long what a failed client has sent may still be acknowledged.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A new client that has not failed for so long works.
const CALM: Duration = Duration::from_secs(5);

/// Between two looks at what a failed client has not answered yet.
const LOOK: Duration = Duration::from_millis(10);

/// Tells that a client may have failed.
#[derive(Clone, Debug)]
pub(super) struct Alarm(SyncSender<()>);

impl Alarm {
    /// From a client's context, with every error that it hears of: none of them says whether it is fatal.
    pub(super) fn ring(&self) {
        // One that waits is as good, and whoever is not there any more makes no more clients.
        let _ = self.0.try_send(());
    }
}

/// What every client of a producer is made with, and is told of.
pub(super) trait Office: ProducerContext + Clone + 'static {
    /// Name in the log and in metrics.
    const NAME: &'static str;

    /// How librdkafka is set up.
    fn config(&self, settings: &config::Kafka) -> ClientConfig;

    /// How it stands.
    fn standing(&self) -> &ProducerStats;

    /// A record was acknowledged, or was not.
    fn learn(&self, topic: &str, error: Option<&KafkaError>) {
        let Some(error) = error else {
            if self.standing().set(ProducerState::Ready, "") {
                tracing::info!(event = "kafka", producer = Self::NAME, topic, "takes records again");
            }
            return;
        };
        if error.rdkafka_error_code().is_some_and(is_denied) {
            let problem = error.to_string();
            if self.standing().set(ProducerState::Refused, &problem) {
                tracing::warn!(event = "kafka", producer = Self::NAME, topic, problem, "records are refused");
            }
        }
    }
}

/// Rights are missing.
pub(super) fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)
}

/// A producer's client, made anew when it has failed.
pub(super) struct Mended<O: Office>(Arc<Inner<O>>);

struct Inner<O: Office> {
    client: RwLock<Arc<ThreadedProducer<O>>>,
    office: O,
    /// What a new client is made with: the credentials in force. Held while one is made, so that none misses a renewal.
    settings: Mutex<config::Kafka>,
    /// Why the last client failed that did.
    failure: Mutex<Option<RDKafkaErrorCode>>,
}

impl<O: Office> Mended<O> {
    /// A client that has not connected yet, and a thread that waits for its failure: both run where the caller may run.
    pub(super) fn new(settings: &config::Kafka, office: impl FnOnce(Alarm) -> O) -> KafkaResult<Self> {
        let (sender, alarms) = sync_channel(1);
        let office = office(Alarm(sender));
        let client = ThreadedProducer::from_config_and_context(&office.config(settings), office.clone())?;
        let inner = Arc::new(Inner {
            client: RwLock::new(Arc::new(client)),
            office,
            settings: Mutex::new(settings.clone()),
            failure: Mutex::default(),
        });
        let theirs = Arc::downgrade(&inner);
        let thread = thread::Builder::new().name("kafka-mend".into()).spawn(move || watch_over(&theirs, &alarms));
        thread.map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self(inner))
    }

    /// The client now: to be used at once, and not to be kept.
    pub(super) fn client(&self) -> Arc<ThreadedProducer<O>> {
        self.0.client()
    }

    /// What clients are made with.
    pub(super) fn office(&self) -> &O {
        &self.0.office
    }

    /// The client and every one after it authenticate with these from now on.
    pub(super) fn renew(&self, credentials: &Credentials) {
        let mut settings = self.0.settings();
        credentials.put(&mut settings);
        credentials.set(self.client().client());
    }

    /// Why it fails, or failed last.
    pub(super) fn failure(&self) -> Option<RDKafkaErrorCode> {
        let last = || *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        self.client().client().fatal_error().map(|(code, _)| code).or_else(last)
    }
}

/// Until nobody produces any more.
fn watch_over<O: Office>(inner: &Weak<Inner<O>>, alarms: &Receiver<()>) {
    let _abort = crate::control::shards::AbortOnPanic;
    let (mut made, mut problem) = (Instant::now(), None);
    loop {
        let alarm = match &problem {
            None => alarms.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => alarms.recv_timeout(CALM),
        };
        let Some(inner) = inner.upgrade() else { return };
        match alarm {
            Ok(()) => {
                let Some(why) = inner.fails() else { continue };
                problem = Some(why);
                sleep(APART.saturating_sub(made.elapsed()));
                let old = inner.replace();
                made = Instant::now();
                retire(old);
            }
            Err(RecvTimeoutError::Timeout) => inner.works_again(&problem.take().unwrap_or_default()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl<O: Office> Inner<O> {
    fn client(&self) -> Arc<ThreadedProducer<O>> {
        Arc::clone(&self.client.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, config::Kafka> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says why the client fails; `None` if it does not.
    fn fails(&self) -> Option<String> {
        let (code, problem) = self.client().client().fatal_error()?;
        let known = self.failure.lock().unwrap_or_else(PoisonError::into_inner).replace(code);
        let (state, name) = if is_denied(code) {
            (ProducerState::Refused, code.to_string())
        } else {
            (ProducerState::Failed, format!("{code:?}"))
        };
        let problem = format!("{name}: {problem}");
        if self.office.standing().set(state, &problem) || known != Some(code) {
            let (producer, state) = (O::NAME, state.name());
            tracing::error!(event = "kafka", producer, state, problem, "a producer ends; another takes its place");
        }
        Some(problem)
    }

    /// Puts a new client into the place of the one that is given back.
    fn replace(&self) -> Arc<ThreadedProducer<O>> {
        loop {
            let settings = self.settings();
            match ThreadedProducer::from_config_and_context(&self.office.config(&settings), self.office.clone()) {
                Ok(new) => {
                    let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
                    let old = std::mem::replace(&mut *client, Arc::new(new));
                    drop(client);
                    self.office.standing().made_anew.fetch_add(1, Ordering::Relaxed);
                    return old;
                }
                Err(error) => {
                    tracing::error!(event = "kafka", producer = O::NAME, %error, "no new producer: trying again");
                }
            }
            drop(settings);
            sleep(APART);
        }
    }

    /// No failure came after the last one, and if nothing else was learnt since: what waits will be sent.
    fn works_again(&self, problem: &str) {
        let stats = self.office.standing();
        if stats.detail() == problem && stats.set(ProducerState::Ready, "") {
            tracing::info!(event = "kafka", producer = O::NAME, "the new producer works");
        }
    }
}

/// Ends a failed client once all of its records have their outcome.
fn retire<O: Office>(old: Arc<ThreadedProducer<O>>) {
    let since = Instant::now();
    let mut purged = false;
    // Whoever still holds it must not be the one who ends it: that takes long.
    while Arc::strong_count(&old) > 1 || old.in_flight_count() > 0 {
        if !purged && since.elapsed() > LAST_WORDS {
            old.purge(PurgeConfig::default().queue().inflight());
            purged = true;
        }
        sleep(LOOK);
    }
    drop(old);
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientContext;
    use rdkafka::config::RDKafkaLogLevel;
    use rdkafka::message::DeliveryResult;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseRecord, DefaultProducerContext};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    /// Remembers what became of records, and with which name clients were made.
    #[derive(Clone)]
    struct Desk {
        alarm: Alarm,
        stats: Arc<ProducerStats>,
        outcomes: Arc<Mutex<Vec<(u32, bool)>>>,
        names: Arc<Mutex<Vec<String>>>,
    }

    impl ClientContext for Desk {
        fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
        fn error(&self, _: KafkaError, _: &str) {
            self.alarm.ring();
        }
    }

    impl ProducerContext for Desk {
        type DeliveryOpaque = Box<u32>;
        fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u32>) {
            self.outcomes.lock().expect("a test that lives").push((*number, result.is_ok()));
            self.learn("t", result.as_ref().err().map(|(error, _)| error));
        }
    }

    impl Office for Desk {
        const NAME: &'static str = "test";
        fn config(&self, settings: &config::Kafka) -> ClientConfig {
            let mut names = self.names.lock().expect("a test that lives");
            names.push(Credentials::of(settings).map_or(String::new(), |them| format!("{them:?}")));
            super::super::client::producer(settings)
        }
        fn standing(&self) -> &ProducerStats {
            &self.stats
        }
    }

    fn world() -> (Cluster, Mended<Desk>) {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let mended = producer(&cluster);
        (cluster, mended)
    }

    fn producer(cluster: &Cluster) -> Mended<Desk> {
        let settings = config::Kafka { brokers: vec![cluster.bootstrap_servers()], ..config::Kafka::default() };
        let desk = |alarm| Desk { alarm, stats: Arc::default(), outcomes: Arc::default(), names: Arc::default() };
        Mended::new(&settings, desk).expect("a producer")
    }

    fn send(mended: &Mended<Desk>, number: u32) -> bool {
        mended.client().send(BaseRecord::<str, str, _>::with_opaque_to("t", Box::new(number)).payload("x")).is_ok()
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let since = Instant::now();
        while !done() {
            assert!(since.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
            sleep(LOOK);
        }
    }

    fn outcomes(mended: &Mended<Desk>) -> Vec<(u32, bool)> {
        mended.office().outcomes.lock().expect("a test that lives").clone()
    }

    #[test]
    fn a_client_that_has_failed_gives_way_to_one_with_the_credentials_in_force() {
        let (cluster, mended) = world();
        let stats = Arc::clone(&mended.office().stats);
        assert!(send(&mended, 1));
        until("written", || outcomes(&mended) == [(1, true)]);
        cluster
            .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER]);
        let old = mended.client();
        assert!(send(&mended, 2));
        until("failed", || stats.state() == ProducerState::Failed);
        assert!(stats.detail().starts_with("OutOfOrderSequenceNumber: "), "{}", stats.detail());
        let mut settings = config::Kafka::default();
        for name in ["sasl.username", "sasl.password"] {
            settings.client.insert(name.into(), "new".into());
        }
        let credentials = Credentials::of(&settings).expect("both");
        // No broker of this test asks for them.
        mended.renew(&credentials);
        until("another", || stats.made_anew.load(Ordering::Relaxed) == 1);
        assert!(old.client().fatal_error().is_some() && mended.client().client().fatal_error().is_none());
        assert_eq!(mended.failure(), Some(RDKafkaErrorCode::OutOfOrderSequenceNumber));
        drop(old);
        assert!(send(&mended, 3));
        until("each has its outcome, once", || outcomes(&mended).len() == 3);
        let mut found = outcomes(&mended);
        found.sort_unstable();
        assert_eq!(found, [(1, true), (2, false), (3, true)]);
        until("all is well", || stats.state() == ProducerState::Ready && stats.detail().is_empty());
        let names = mended.office().names.lock().expect("a test that lives").clone();
        assert_eq!(names, [String::new(), format!("{credentials:?}")]);
    }

    #[test]
    fn while_it_fails_again_and_again_there_is_a_new_client_a_second_and_what_is_sent_fails() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
        cluster.request_errors(RDKafkaApiKey::InitProducerId, &[denied; 3]);
        let begun = Instant::now();
        let mended = producer(&cluster);
        let stats = Arc::clone(&mended.office().stats);
        // It waits for the right to write, and fails with it.
        assert!(send(&mended, 1));
        until("refused", || stats.state() == ProducerState::Refused);
        until("failed", || outcomes(&mended) == [(1, false)]);
        until("three of them have failed", || stats.made_anew.load(Ordering::Relaxed) == 3);
        assert!(begun.elapsed() >= 3 * APART, "{:?}", begun.elapsed());
        assert!(send(&mended, 2));
        until("written", || outcomes(&mended) == [(1, false), (2, true)]);
        assert_eq!(stats.state(), ProducerState::Ready);
        assert_eq!(stats.made_anew.load(Ordering::Relaxed), 3, "this one stays");
    }

    #[test]
    fn a_new_client_that_nobody_uses_is_taken_to_work_after_a_while() {
        let (_cluster, mended) = world();
        let stats = Arc::clone(&mended.office().stats);
        stats.set(ProducerState::Failed, "problem");
        mended.0.works_again("another problem");
        assert_eq!(stats.state(), ProducerState::Failed, "something else was learnt since");
        mended.0.works_again("problem");
        assert_eq!((stats.state(), stats.detail()), (ProducerState::Ready, String::new()));
    }
}
