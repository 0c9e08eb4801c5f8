//! How librdkafka is set up: Halley's defaults, what the operator adds, and what must not be changed.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::source::stats::State;
use crate::{config, limits};

/// What Halley's promises rest on, with the key that says it instead.
const OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("queued.max.messages.kbytes", "kafka.fetched_bytes_max"),
    ("message.timeout.ms", "kafka.produce_ms_max"),
    ("delivery.timeout.ms", "kafka.produce_ms_max"),
    ("auto.offset.reset", "kafka.start"),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("enable.partition.eof", ""),
    ("enable.idempotence", ""),
    ("enable.gapless.guarantee", ""),
    ("transactional.id", ""),
    ("acks", ""),
    ("request.required.acks", ""),
];

/// What one producer holds of records without an outcome. No record is larger.
const QUEUED_BYTES_MAX: usize = 16 << 20;

/// Every push fits, with the most and the longest of targets.
const _: () =
    assert!(limits::PAYLOAD_BYTES_MAX + limits::PUSH_TARGETS_MAX * (limits::KEY_BYTES_MAX + 16) < QUEUED_BYTES_MAX);

/// How long an error explains a state.
const FRESH: Duration = Duration::from_secs(15);

/// Checks the properties of `[kafka.client]` without connecting; the error is a sentence.
pub(super) fn check(settings: &config::Kafka) -> Result<(), String> {
    for (name, key) in OURS {
        if settings.client.contains_key(*name) {
            let instead = if key.is_empty() { "cannot be changed".into() } else { format!("is set by {key}") };
            return Err(format!("{name} is Halley's and {instead}: remove it"));
        }
    }
    for config in [consumer(settings), producer(settings)] {
        config.create_native_config().map_err(|error| sentence(&error))?;
    }
    Ok(())
}

fn sentence(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, problem, name, _) => format!("{name}: {problem}"),
        other => other.to_string(),
    }
}

fn base() -> ClientConfig {
    let mut config = ClientConfig::new();
    // A broker that comes back is found within half a second.
    config.set("client.id", "halley").set("reconnect.backoff.max.ms", "500").set("log.connection.close", "false");
    config.set_log_level(RDKafkaLogLevel::Info);
    config
}

/// What the operator says goes over the defaults, what is Halley's over that.
fn finish(mut config: ClientConfig, settings: &config::Kafka, ours: &[(&str, &str)]) -> ClientConfig {
    for (name, value) in settings.properties().unwrap_or_default() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", settings.brokers.join(","));
    for (name, value) in ours {
        config.set(*name, *value);
    }
    config
}

/// Reads by manual assignment: no group, no commits, no jump when an offset is gone.
pub(super) fn consumer(settings: &config::Kafka) -> ClientConfig {
    let mut config = base();
    let fetched = settings.fetched_bytes_max.to_string();
    // librdkafka delivers nothing without a group, though none is joined. A small backoff: with little fetched
    // ahead the default of a second would be most of the time.
    config.set("group.id", "halley").set("fetch.queue.backoff.ms", "5").set("fetch.error.backoff.ms", "100");
    // One question to a broker is open at a time. While a full partition is left out of it, it waits for the others:
    // this is how long the partition may wait for the next one.
    config.set("fetch.wait.max.ms", "20");
    // What was damaged on a broker's disk is no job.
    config.set("check.crcs", "true");
    config.set("fetch.message.max.bytes", &fetched).set("socket.timeout.ms", "10000");
    let kbytes = (settings.fetched_bytes_max / 1024).max(1).to_string();
    let ours = [
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("enable.partition.eof", "true"),
        ("queued.max.messages.kbytes", kbytes.as_str()),
    ];
    finish(config, settings, &ours)
}

/// Writes with every acknowledgement and without repeats, and at once.
pub(super) fn producer(settings: &config::Kafka) -> ClientConfig {
    let mut config = base();
    // A room keeps its partition whoever produces: this is how goim's own producer picks it.
    config.set("linger.ms", "0").set("partitioner", "fnv1a_random");
    // What is too large is the brokers' to say.
    let (kbytes, bytes) = ((QUEUED_BYTES_MAX >> 10).to_string(), QUEUED_BYTES_MAX.to_string());
    config.set("queue.buffering.max.kbytes", kbytes).set("message.max.bytes", bytes);
    let timeout = settings.produce_ms_max.to_string();
    let ours = [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", timeout.as_str())];
    finish(config, settings, &ours)
}

/// The same for messages of clients, with room for all that may be in flight.
pub(super) fn upstream(kafka: &config::Kafka, upstream: &config::Upstream) -> ClientConfig {
    let settings = config::Kafka { produce_ms_max: upstream.answer_ms_max, ..kafka.clone() };
    let mut config = producer(&settings);
    // A message with its headers, about.
    let kbytes = (u64::from(upstream.in_flight_max) * 5).clamp(16_384, 1 << 20);
    config.set("queue.buffering.max.kbytes", kbytes.to_string());
    config.set("queue.buffering.max.messages", upstream.in_flight_max.max(1).to_string());
    config
}

/// Asks for topics and makes them.
pub(super) fn admin(settings: &config::Kafka) -> ClientConfig {
    finish(base(), settings, &[])
}

/// Hears what the library says, and keeps the last error for whoever explains a state.
#[derive(Clone, Debug, Default)]
pub(super) struct Ear {
    last: Arc<Mutex<Option<(Instant, bool, String)>>>,
}

impl Ear {
    /// Whether the brokers refused the credentials a moment ago, and what was said last.
    pub(super) fn last(&self) -> Option<(bool, String)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(when, ..)| when.elapsed() < FRESH).map(|(_, refused, text)| (*refused, text.clone()))
    }

    /// The state that an error stands for, and what was said.
    pub(super) fn explain(&self, error: &KafkaError) -> (State, String) {
        use RDKafkaErrorCode::{ClusterAuthorizationFailed, TopicAuthorizationFailed};
        let denied = matches!(error.rdkafka_error_code(), Some(TopicAuthorizationFailed | ClusterAuthorizationFailed));
        let (refused, said) = self.last().unwrap_or((false, error.to_string()));
        if denied {
            (State::Refused, error.to_string())
        } else if refused {
            (State::Refused, said)
        } else {
            (State::BrokerAway, said)
        }
    }

    /// The brokers answer.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Ear {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // States and their reasons are told by the watch, once each.
        tracing::debug!(target: "librdkafka", ?level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, Authentication, PartitionEOF, SaslAuthenticationFailed};
        let code = error.rdkafka_error_code();
        // All was read: nothing that explains a state.
        if code == Some(PartitionEOF) {
            return;
        }
        let refused = matches!(code, Some(Authentication | SaslAuthenticationFailed));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // It says no more than what came before it.
        if code == Some(AllBrokersDown) && last.is_some() {
            return;
        }
        *last = Some((Instant::now(), refused, reason.to_owned()));
    }
}

impl ConsumerContext for Ear {}
