//! The way into Kafka: jobs of the API, and records for the dead-letter topic.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use futures_channel::oneshot;
use halley_protocol::job::{ID_HEADER, Job, JobTarget, envelope};
use hyper::rt::Timer as _;
use monoio_compat::hyper::MonoioTimer;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};

use super::credentials::Credentials;
use super::mend::{Alarm, Mended, Office, is_denied};
use super::native::is_unwritten;
use super::seldom::Seldom;
use crate::config;
use crate::control::bell;
use crate::link::ControlBell;
use crate::source::stats::{KafkaStats, ProducerStats};

/// Where a record came to lie, or why it is not sure to lie anywhere.
pub(super) type Outcome = Result<(i32, i64), ProduceError>;

/// Why a job was not produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceError {
    /// The record is larger than the brokers take.
    TooLarge,
    /// No acknowledgement within `kafka.produce_ms_max`, or no place to wait for one.
    Away,
    /// It is not written and will not be, for this reason.
    Refused(&'static str),
}

/// What every send to a client that has failed is answered with.
const FAILED: ProduceError = ProduceError::Refused("this node's producer has failed, and another takes its place");

/// What happened to a record, on its way from the library's thread to control, whose runtime alone wakes its tasks.
pub(super) struct Deliveries {
    done: SegQueue<(oneshot::Sender<Outcome>, Outcome)>,
    bell: ControlBell,
}

impl Deliveries {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { done: SegQueue::new(), bell: bell::new_bell()? })
    }

    fn put(&self, answer: oneshot::Sender<Outcome>, outcome: Outcome) {
        self.done.push((answer, outcome));
        if let Err(error) = bell::ring(&self.bell) {
            tracing::error!(%error, "control cannot be told of an acknowledgement");
        }
    }

    /// Hands outcomes to the calls that wait for them. Must be called within control's runtime.
    pub(super) fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let (deliveries, waiter) = (Arc::clone(self), bell::Waiter::new(&self.bell)?);
        monoio::spawn(async move {
            while waiter.rung(&deliveries.bell).await.is_ok() {
                while let Some((answer, outcome)) = deliveries.done.pop() {
                    // A call that has gone wants no answer.
                    let _ = answer.send(outcome);
                }
            }
        });
        Ok(())
    }
}

/// Who waits for an acknowledgement.
pub(super) enum Waits {
    Call(oneshot::Sender<Outcome>),
    /// Nobody but the count.
    Count,
    /// It is for the other nodes; a call may wait for it.
    Nodes(Option<oneshot::Sender<Outcome>>),
    DeadLetter,
}

/// Hears what became of records, on the library's thread.
#[derive(Clone)]
pub(super) struct Clerk {
    deliveries: Arc<Deliveries>,
    stats: Arc<KafkaStats>,
    alarm: Alarm,
    lost: Arc<Seldom>,
}

impl Clerk {
    /// A record that is no job is not kept.
    fn lose(&self, topic: &str, error: &KafkaError) {
        self.stats.dead_letters_failed.fetch_add(1, Ordering::Relaxed);
        if let Some(records) = self.lost.count(Instant::now()) {
            tracing::warn!(event = "kafka-dead-letter", topic, records, problem = %error, "dead letters are lost");
        }
    }

    /// A record for the other nodes was acknowledged, or was not.
    fn told(&self, error: Option<(&KafkaError, Option<RDKafkaErrorCode>)>) {
        let nodes = &self.stats.nodes;
        if error.is_none() { &nodes.told } else { &nodes.tell_failed }.fetch_add(1, Ordering::Relaxed);
        match error {
            None => nodes.set_refusal(None),
            Some((error, code)) if code.is_some_and(is_denied) => nodes.set_refusal(Some(error.to_string())),
            Some(_) => {}
        }
    }
}

impl Office for Clerk {
    const NAME: &'static str = "jobs";

    fn config(&self, settings: &config::Kafka) -> ClientConfig {
        super::client::producer(settings)
    }

    fn standing(&self) -> &ProducerStats {
        &self.stats.producer
    }
}

impl ClientContext for Clerk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    // The watch over the consumer tells of brokers that are away.
    fn error(&self, _: KafkaError, _: &str) {
        self.alarm.ring();
    }
}

impl ProducerContext for Clerk {
    type DeliveryOpaque = Box<Waits>;

    fn delivery(&self, result: &DeliveryResult<'_>, waits: Self::DeliveryOpaque) {
        let (outcome, topic, error) = match result {
            Ok(message) => (Ok((message.partition(), message.offset())), message.topic(), None),
            Err((error, message)) => (Err(why(error, is_unwritten(message))), message.topic(), Some(error)),
        };
        match (&*waits, error) {
            // By what it is told in time.
            (Waits::Call(_), _) => self.learn(topic, error),
            (Waits::Count, _) => {
                drop(Told { stats: Arc::clone(&self.stats), is_acknowledged: error.is_none() });
                self.learn(topic, error);
            }
            (Waits::Nodes(_), _) => self.told(error.map(|error| (error, error.rdkafka_error_code()))),
            (Waits::DeadLetter, None) => {
                self.stats.dead_letters.fetch_add(1, Ordering::Relaxed);
            }
            (Waits::DeadLetter, Some(error)) => self.lose(topic, error),
        }
        if let Waits::Call(answer) | Waits::Nodes(Some(answer)) = *waits {
            self.deliveries.put(answer, outcome);
        }
    }
}

fn why(error: &KafkaError, is_unwritten: bool) -> ProduceError {
    use RDKafkaErrorCode::{InvalidMessageSize, MessageSizeTooLarge};
    match error.rdkafka_error_code() {
        Some(MessageSizeTooLarge | InvalidMessageSize) => ProduceError::TooLarge,
        Some(code) if is_unwritten => refusal(code).unwrap_or(ProduceError::Away),
        _ => ProduceError::Away,
    }
}

/// What a broker, or the library, refuses for good; `None`: the next attempt may well work.
fn refusal(code: RDKafkaErrorCode) -> Option<ProduceError> {
    use RDKafkaErrorCode as Code;
    Some(ProduceError::Refused(match code {
        Code::TopicAuthorizationFailed => "topic authorization failed: this node may not write to the topic",
        Code::ClusterAuthorizationFailed => "cluster authorization failed: this node may not write to any topic",
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => "there is no such topic",
        Code::InvalidTopic => "the topic's name is none",
        Code::InvalidRecord | Code::PolicyViolation => "the topic takes no such record",
        Code::Fatal | Code::PurgeQueue => return Some(FAILED),
        _ => return None,
    }))
}

/// What the caller of a job is told, counted when that is over: a call that has gone was told nothing.
pub(super) struct Told {
    pub(super) stats: Arc<KafkaStats>,
    pub(super) is_acknowledged: bool,
}

impl Drop for Told {
    fn drop(&mut self) {
        let Self { stats, is_acknowledged } = self;
        if *is_acknowledged { &stats.produced } else { &stats.produce_failed }.fetch_add(1, Ordering::Relaxed);
    }
}

/// The outcome, once it is known or its time is over: the library itself looks at the time once a second. Must be
/// awaited within control's runtime.
pub(super) fn in_time(
    mut outcome: oneshot::Receiver<Outcome>,
    time: Duration,
) -> impl Future<Output = Outcome> + Send + use<> {
    let deadline = Instant::now() + time;
    async move {
        let mut late = MonoioTimer.sleep_until(deadline);
        poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut outcome).poll(cx) {
                return Poll::Ready(done.unwrap_or(Err(ProduceError::Away)));
            }
            late.as_mut().poll(cx).map(|()| Err(ProduceError::Away))
        })
        .await
    }
}

/// Produces in the order of the calls; never blocks.
pub(super) struct Producer {
    mended: Mended<Clerk>,
    topic: String,
    dead_letter_topic: String,
}

impl Producer {
    pub(super) fn new(
        settings: &config::Kafka,
        deliveries: Arc<Deliveries>,
        stats: Arc<KafkaStats>,
    ) -> KafkaResult<Self> {
        let mended = Mended::new(settings, |alarm| Clerk { deliveries, stats, alarm, lost: Arc::default() })?;
        Ok(Self { mended, topic: settings.topic.clone(), dead_letter_topic: settings.dead_letter_topic.clone() })
    }

    /// Authenticates with these from now on.
    pub(super) fn renew(&self, credentials: &Credentials) {
        self.mended.renew(credentials);
    }

    pub(super) fn stats(&self) -> &KafkaStats {
        &self.mended.office().stats
    }

    /// With why the producer has failed, if that is what it says.
    pub(super) fn explain(&self, error: ProduceError) -> ProduceError {
        let denied = || self.mended.failure().filter(|code| is_denied(*code)).and_then(refusal);
        if error == FAILED { denied().unwrap_or(FAILED) } else { error }
    }

    /// Puts a job into the producer's queue. The outcome comes through the receiver.
    pub(super) fn send(&self, job: &Job<'_>, id: Option<&str>) -> Result<oneshot::Receiver<Outcome>, ProduceError> {
        let (answer, outcome) = oneshot::channel();
        self.send_for(job, id, Waits::Call(answer)).map(|()| outcome)
    }

    pub(super) fn send_for(&self, job: &Job<'_>, id: Option<&str>, waits: Waits) -> Result<(), ProduceError> {
        let value = envelope::write(job).ok_or(ProduceError::TooLarge)?;
        let key = key(job);
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(waits));
        if id.is_some() {
            record = record.headers(OwnedHeaders::new().insert(Header { key: ID_HEADER, value: id }));
        }
        let sent = self.mended.client().send(record.key(&key).payload(&value));
        sent.map_err(|(error, _)| self.explain(why(&error, true)))
    }

    /// Produces a record for the other nodes, or without a value the end of one.
    pub(super) fn tell(&self, topic: &str, key: &str, value: Option<&[u8]>, waits: Waits) -> Result<(), ProduceError> {
        let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(topic, Box::new(waits)).key(key).partition(0);
        record.payload = value;
        self.mended.client().send(record).map_err(|(error, _)| {
            let code = error.rdkafka_error_code();
            // Of a client that has failed: why it has.
            let code = if code == Some(RDKafkaErrorCode::Fatal) { self.mended.failure() } else { code };
            let why = self.explain(why(&error, true));
            let error = code.map_or(error, KafkaError::MessageProduction);
            self.mended.office().told(Some((&error, code)));
            why
        })
    }

    /// The same with somebody who waits for its outcome.
    pub(super) fn tell_and_wait(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
    ) -> Result<oneshot::Receiver<Outcome>, ProduceError> {
        let (answer, outcome) = oneshot::channel();
        self.tell(topic, key, Some(value), Waits::Nodes(Some(answer))).map(|()| outcome)
    }

    /// Produces a record that is no job to the dead-letter topic, if there is one: as it is, and why it is there.
    pub(super) fn bury(&self, message: &BorrowedMessage<'_>, reason: &str) {
        if self.dead_letter_topic.is_empty() {
            return;
        }
        let mut headers = message.headers().map(rdkafka::message::BorrowedHeaders::detach).unwrap_or_default();
        let place = [message.topic(), &message.partition().to_string(), &message.offset().to_string()].join("/");
        for (key, value) in [("halley-reject", reason), ("halley-from", &place)] {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::with_opaque_to(&self.dead_letter_topic, Box::new(Waits::DeadLetter));
        record = record.headers(headers);
        record.key = message.key();
        record.payload = message.payload();
        if let Err((error, _)) = self.mended.client().send(record) {
            self.mended.office().lose(&self.dead_letter_topic, &error);
        }
    }

    /// Waits for what is under way.
    pub(super) fn flush(&self, time: Duration) {
        let _ = self.mended.client().flush(time);
    }

    /// Records without an outcome.
    pub(super) fn in_flight(&self) -> i32 {
        self.mended.client().in_flight_count()
    }
}

/// goim's keys: what belongs together goes to one partition, and stays in order.
fn key(job: &Job<'_>) -> String {
    match &job.target {
        JobTarget::Room(room) => room.clone(),
        JobTarget::Keys(keys) => keys.first().cloned().unwrap_or_default(),
        JobTarget::Members(members) => members.first().map(ToString::to_string).unwrap_or_default(),
        JobTarget::All => job.operation.to_string(),
    }
}
