//! Messages of clients into a topic: a producer of their own, so that nothing of theirs stands before a push.

use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext};

use super::client;
use super::credentials::Credentials;
use super::mend::{Alarm, Mended, Office};
use crate::config;
use crate::link::ShardLink;
use crate::source::stats::{ProducerState, ProducerStats};
use crate::upstream::{Answer, Envelope, Outcome, Receipt, Refused};

/// Produces messages in the order in which they are put; all of one key go to one partition.
pub struct Upstream {
    mended: Mended<Clerk>,
    topic: String,
}

impl Upstream {
    /// A producer that has not connected yet.
    pub fn new(
        kafka: &config::Kafka,
        upstream: &config::Upstream,
        links: Arc<[Arc<ShardLink>]>,
    ) -> Result<Self, String> {
        let settings = Arc::new(upstream.clone());
        let mended = Mended::new(kafka, |alarm| Clerk { links, settings, stats: Arc::default(), alarm });
        let mended = mended.map_err(|error| format!("upstream.kafka_topic: {error}"))?;
        Ok(Self { mended, topic: upstream.kafka_topic.clone() })
    }

    /// It authenticates with these from now on.
    pub(super) fn renew(&self, credentials: &Credentials) {
        self.mended.renew(credentials);
    }

    pub(super) fn stats(&self) -> Arc<ProducerStats> {
        Arc::clone(&self.mended.office().stats)
    }

    /// Puts a message into the producer's queue; never waits. `Ok`: its answer will come to its shard.
    pub fn put(&self, envelope: &Envelope<'_>) -> Outcome {
        let record = BaseRecord::with_opaque_to(&self.topic, Box::new(envelope.receipt));
        let record = record.key(envelope.key).payload(envelope.body).headers(headers(envelope));
        self.mended.client().send(record).map_err(|(error, _)| self.mended.office().why(&error))
    }
}

fn headers(envelope: &Envelope<'_>) -> OwnedHeaders {
    let Envelope { receipt, member, key, rooms, time_ms, node, .. } = *envelope;
    let header = |headers: OwnedHeaders, key: &str, value: &str| headers.insert(Header { key, value: Some(value) });
    let mut headers = OwnedHeaders::new_with_capacity(6 + rooms.len());
    for (name, value) in [("halley-member", &*member.to_string()), ("halley-key", key)] {
        headers = header(headers, name, value);
    }
    for room in rooms {
        headers = header(headers, "halley-room", room);
    }
    let (operation, sequence) = (receipt.operation.to_string(), receipt.sequence.to_string());
    let rest = [
        ("halley-operation", &*operation),
        ("halley-sequence", &*sequence),
        ("halley-time-ms", &*time_ms.to_string()),
        ("halley-node", node),
    ];
    rest.into_iter().fold(headers, |headers, (name, value)| header(headers, name, value))
}

/// Hands the outcomes to the shards, from the library's thread.
#[derive(Clone)]
struct Clerk {
    links: Arc<[Arc<ShardLink>]>,
    settings: Arc<config::Upstream>,
    stats: Arc<ProducerStats>,
    alarm: Alarm,
}

impl Office for Clerk {
    const NAME: &'static str = "upstream";

    fn config(&self, settings: &config::Kafka) -> ClientConfig {
        client::upstream(settings, &self.settings)
    }

    fn standing(&self) -> &ProducerStats {
        &self.stats
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
    type DeliveryOpaque = Box<Receipt>;

    fn delivery(&self, result: &DeliveryResult<'_>, receipt: Self::DeliveryOpaque) {
        let (outcome, topic, error) = match result {
            Ok(message) => (Ok(()), message.topic(), None),
            Err((error, message)) => (Err(self.why(error)), message.topic(), Some(error)),
        };
        self.learn(topic, error);
        self.links[receipt.conn.shard().at()].put_answer(Answer { receipt: *receipt, outcome });
    }
}

impl Clerk {
    fn why(&self, error: &KafkaError) -> Refused {
        use RDKafkaErrorCode as Code;
        let refused = match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => Refused::TooLarge,
            Some(Code::QueueFull) => Refused::QueueFull,
            Some(Code::MessageTimedOut | Code::RequestTimedOut) => Refused::TimeOut,
            Some(
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::InvalidTopic
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::PolicyViolation
                | Code::InvalidRecord,
            ) => Refused::PlaceRefused,
            Some(Code::Fatal | Code::PurgeQueue) if self.stats.state() == ProducerState::Refused => {
                Refused::PlaceRefused
            }
            _ => Refused::PlaceAway,
        };
        tracing::warn!(event = "upstream-refused", reason = refused.name(), problem = %error);
        refused
    }
}
