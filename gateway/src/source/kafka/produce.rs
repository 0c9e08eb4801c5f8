//! The way into Kafka: jobs of the API, and records for the dead-letter topic.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;
use futures_channel::oneshot;
use halley_protocol::job::{ID_HEADER, Job, JobTarget, envelope};
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::credentials::Credentials;
use crate::config;
use crate::control::bell;
use crate::link::ControlBell;
use crate::source::stats::KafkaStats;

/// Where a record came to lie, or why it is not sure to lie anywhere.
pub(super) type Outcome = Result<(i32, i64), ProduceError>;

/// Why a job was not produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceError {
    /// The record is larger than the brokers take.
    TooLarge,
    /// No acknowledgement within `kafka.produce_ms_max`, or no place to wait for one.
    Away,
}

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

pub(super) struct Clerk {
    deliveries: Arc<Deliveries>,
    stats: Arc<KafkaStats>,
}

impl ClientContext for Clerk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    // The watch over the consumer tells of brokers that are away.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Clerk {
    type DeliveryOpaque = Box<Waits>;

    fn delivery(&self, result: &DeliveryResult<'_>, waits: Self::DeliveryOpaque) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(why(error)),
        };
        let (good, bad) = match *waits {
            Waits::Call(_) | Waits::Count => (&self.stats.produced, &self.stats.produce_failed),
            Waits::Nodes(_) => (&self.stats.nodes.told, &self.stats.nodes.tell_failed),
            Waits::DeadLetter => (&self.stats.dead_letters, &self.stats.dead_letters_failed),
        };
        if outcome.is_ok() { good } else { bad }.fetch_add(1, Ordering::Relaxed);
        if let Waits::Call(answer) | Waits::Nodes(Some(answer)) = *waits {
            self.deliveries.put(answer, outcome);
        }
    }
}

fn why(error: &KafkaError) -> ProduceError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => ProduceError::TooLarge,
        _ => ProduceError::Away,
    }
}

/// Produces in the order of the calls; never blocks.
pub(super) struct Producer {
    client: ThreadedProducer<Clerk>,
    topic: String,
    dead_letter_topic: String,
    stats: Arc<KafkaStats>,
}

impl Producer {
    pub(super) fn new(
        settings: &config::Kafka,
        deliveries: Arc<Deliveries>,
        stats: Arc<KafkaStats>,
    ) -> KafkaResult<Self> {
        let clerk = Clerk { deliveries, stats: Arc::clone(&stats) };
        let client = ThreadedProducer::from_config_and_context(&super::client::producer(settings), clerk)?;
        let (topic, dead_letter_topic) = (settings.topic.clone(), settings.dead_letter_topic.clone());
        Ok(Self { client, topic, dead_letter_topic, stats })
    }

    /// Authenticates with these from now on.
    pub(super) fn renew(&self, credentials: &Credentials) {
        credentials.set(self.client.client());
    }

    /// Puts a job into the producer's queue. The outcome comes through the receiver.
    pub(super) fn send(&self, job: &Job<'_>, id: Option<&str>) -> Result<oneshot::Receiver<Outcome>, ProduceError> {
        let (answer, outcome) = oneshot::channel();
        self.send_for(job, id, Waits::Call(answer)).map(|()| outcome)
    }

    fn send_for(&self, job: &Job<'_>, id: Option<&str>, waits: Waits) -> Result<(), ProduceError> {
        let value = envelope::write(job).ok_or(ProduceError::TooLarge)?;
        let key = key(job);
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(waits));
        if id.is_some() {
            record = record.headers(OwnedHeaders::new().insert(Header { key: ID_HEADER, value: id }));
        }
        self.client.send(record.key(&key).payload(&value)).map_err(|(error, _)| why(&error))
    }

    /// Produces a record for the other nodes, or without a value the end of one.
    pub(super) fn tell(&self, topic: &str, key: &str, value: Option<&[u8]>, waits: Waits) -> Result<(), ProduceError> {
        let mut record = BaseRecord::<str, [u8], _>::with_opaque_to(topic, Box::new(waits)).key(key).partition(0);
        record.payload = value;
        self.client.send(record).map_err(|(error, _)| {
            self.stats.nodes.tell_failed.fetch_add(1, Ordering::Relaxed);
            why(&error)
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
        if self.client.send(record).is_err() {
            self.stats.dead_letters_failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for what is under way.
    pub(super) fn flush(&self, time: Duration) {
        let _ = self.client.flush(time);
    }
}

/// A producer for programs without a gateway, such as `halley push`.
pub struct Pusher {
    producer: Producer,
    settings: config::Kafka,
}

impl Pusher {
    /// A producer that has not connected yet; `brokers` are separated by commas.
    pub fn new(brokers: &str, topic: &str) -> Result<Self, String> {
        let brokers = brokers.split(',').map(Into::into).collect();
        let mut settings = config::Kafka { brokers, topic: topic.into(), ..config::Kafka::default() };
        // Many at a time are meant to go together.
        settings.client.insert("linger.ms".into(), 1.into());
        let deliveries = Deliveries::new().map_err(|error| error.to_string())?;
        let producer = Producer::new(&settings, Arc::new(deliveries), Arc::default());
        Ok(Self { producer: producer.map_err(|error| error.to_string())?, settings })
    }

    /// Puts a job into the producer's queue, and waits for a place in it.
    pub fn push(&self, job: &Job<'_>) -> Result<(), String> {
        let since = Instant::now();
        loop {
            match self.producer.send_for(job, None, Waits::Count) {
                Ok(()) => return Ok(()),
                Err(ProduceError::TooLarge) => return Err("the push is larger than the brokers take".into()),
                Err(ProduceError::Away) if since.elapsed() > self.patience() => return Err(self.away()),
                Err(ProduceError::Away) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Waits until all is acknowledged or given up; how many jobs were acknowledged, if all were.
    pub fn finish(&self) -> Result<u64, String> {
        self.producer.flush(2 * self.patience());
        let stats = &self.producer.stats;
        let failed = stats.produce_failed.load(Ordering::Relaxed);
        let produced = stats.produced.load(Ordering::Relaxed);
        if failed > 0 || self.producer.client.in_flight_count() > 0 {
            return Err(format!("{}; {produced} jobs are acknowledged, {failed} are not", self.away()));
        }
        Ok(produced)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.settings.produce_ms_max.into())
    }

    fn away(&self) -> String {
        format!("{}/{} does not acknowledge", self.settings.brokers.join(","), self.settings.topic)
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
