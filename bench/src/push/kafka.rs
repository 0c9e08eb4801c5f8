//! Lets messages out into a Kafka topic, each when it is due, whatever the brokers answer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use halley_protocol::job::goim::v2;
use halley_protocol::job::{Job, JobTarget, envelope};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::Pushed;
use super::lane::sleep_until_due;
use super::to::{JobFormat, Messages};
use crate::clock;
use crate::cost::ThreadSpent;
use crate::interrupt::Interrupt;
use crate::machine;
use crate::schedule::{Mark, Schedule};
use crate::series::Intervals;

/// Longest wait for the brokers before a run.
const ANSWER: Duration = Duration::from_secs(5);

/// Records into a topic by one producer, idempotent and with every acknowledgement. A room has one partition, so that its
/// order is kept; records do not wait for the acknowledgements of those before them.
#[derive(Clone, Debug)]
pub struct KafkaPush {
    config: ClientConfig,
    topic: String,
    format: JobFormat,
    messages: Messages,
    /// How long to wait for the last acknowledgements.
    pub grace: Duration,
}

/// What the library's thread hears of records.
struct Acknowledged {
    schedule: Schedule,
    heard: Mutex<Heard>,
}

struct Heard {
    pushed: Pushed,
    messages: u64,
}

impl ClientContext for Acknowledged {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Acknowledged {
    /// The message's number.
    type DeliveryOpaque = Box<u32>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Box<u32>) {
        let now_ns = clock::now_ns();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.messages += 1;
        match result {
            Ok(_) => {
                let took_us = now_ns.saturating_sub(self.schedule.due_ns(*sequence)) / 1000;
                heard.pushed.answer_us.saturating_record(took_us);
            }
            // It may be there all the same: no answer.
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) => {
                heard.messages -= 1;
            }
            Err(_) => {
                let (room, place) = self.schedule.place(*sequence);
                heard.pushed.offered.refuse(room, place);
            }
        }
    }
}

impl KafkaPush {
    /// A topic that the brokers know.
    ///
    /// # Errors
    /// A sentence.
    pub fn new(
        brokers: &str,
        topic: &str,
        format: JobFormat,
        messages: Messages,
        grace: Duration,
    ) -> Result<Self, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("acks", "all").set("enable.idempotence", "true");
        config.set("linger.ms", "0").set("partitioner", "fnv1a_random").set("allow.auto.create.topics", "false");
        config.set("queue.buffering.max.messages", "1000000").set("message.timeout.ms", "10000");
        let push = Self { config, topic: topic.to_owned(), format, messages, grace };
        let schedule = Schedule::new(0, 1.0, 1, Duration::ZERO, Duration::ZERO);
        let client = push.producer(&schedule).map_err(|error| error.to_string())?;
        let away = |why: String| format!("kafka://{brokers}/{topic} cannot be reached: {why}");
        let metadata = client.client().fetch_metadata(Some(topic), ANSWER).map_err(|error| away(error.to_string()))?;
        match metadata.topics().first().map(|topic| topic.error().map(RDKafkaErrorCode::from)) {
            Some(None) => Ok(push),
            Some(Some(code)) => Err(away(code.to_string())),
            None => Err(away("no such topic".to_owned())),
        }
    }

    fn producer(&self, schedule: &Schedule) -> Result<ThreadedProducer<Acknowledged>, KafkaError> {
        let heard = Heard { pushed: Pushed::nothing(schedule.rooms), messages: 0 };
        self.config.create_with_context(Acknowledged { schedule: *schedule, heard: Mutex::new(heard) })
    }

    /// Runs one pass.
    pub fn run(&self, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        let producer = match self.producer(schedule) {
            Ok(producer) => producer,
            Err(error) => return Pushed { failure: Some(error.to_string()), ..Pushed::nothing(schedule.rooms) },
        };
        let written = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                machine::hurry();
                let mut pushed = self.write(&producer, schedule, interrupt);
                pushed.threads.push(ThreadSpent::here("push-kafka".to_owned()));
                pushed
            });
            thread.join()
        });
        let Ok(written) = written else {
            return Pushed { failure: Some("the pusher failed".to_owned()), ..Pushed::nothing(schedule.rooms) };
        };
        // What is not acknowledged by then is counted as unanswered.
        let _ = producer.flush(self.grace);
        let nothing = Heard { pushed: Pushed::nothing(schedule.rooms), messages: 0 };
        let mut heard = producer.context().heard.lock().unwrap_or_else(PoisonError::into_inner);
        let Heard { mut pushed, messages } = std::mem::replace(&mut *heard, nothing);
        pushed.unanswered = written.offered.messages().saturating_sub(messages);
        pushed.add(written);
        pushed
    }

    /// Puts each message into the producer's queue when it is due.
    fn write(&self, producer: &ThreadedProducer<Acknowledged>, schedule: &Schedule, interrupt: &Interrupt) -> Pushed {
        let late_over_time = Intervals::new(schedule.start_ns);
        let mut pushed = Pushed { late_over_time, ..Pushed::nothing(schedule.rooms) };
        let names: Vec<String> = (0..schedule.rooms).map(|room| self.messages.rooms.name(room)).collect();
        for sequence in 0..schedule.count {
            let due_ns = schedule.due_ns(sequence);
            if !sleep_until_due(due_ns, || interrupt.is_set()) {
                break;
            }
            let (room, place) = schedule.place(sequence);
            let late_us = clock::now_ns().saturating_sub(due_ns) / 1000;
            pushed.lateness_us.saturating_record(late_us);
            pushed.late_over_time.record_n(due_ns, late_us, 1);
            let mark = Mark { run: schedule.run, sequence, due_ns };
            let payload = self.messages.payload.render(&mark, &self.messages.rooms, room);
            let name = &names[room as usize];
            if let Err(error) = self.send(producer, name, &payload, sequence) {
                pushed.failure = Some(format!("Kafka takes no more: {error}"));
                break;
            }
            pushed.offered.let_out(room, place);
        }
        pushed
    }

    /// Waits for a place in the producer's queue.
    fn send(
        &self,
        producer: &ThreadedProducer<Acknowledged>,
        room: &str,
        payload: &[u8],
        sequence: u32,
    ) -> Result<(), KafkaError> {
        let job = || Job {
            target: JobTarget::Room(room.to_owned()),
            operation: self.messages.operation,
            payload: payload.into(),
        };
        let value = match self.format {
            JobFormat::GoimV2 => v2::write_room(room, self.messages.operation, payload),
            JobFormat::Halley => envelope::write(&job()).unwrap_or_default(),
            JobFormat::Plain => payload.to_vec(),
        };
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(sequence)).key(room).payload(&value);
        if self.format == JobFormat::Plain {
            let operation = self.messages.operation.to_string();
            let headers = OwnedHeaders::new().insert(Header { key: "halley-room", value: Some(room) });
            record = record.headers(headers.insert(Header { key: "halley-operation", value: Some(&operation) }));
        }
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => record = back,
                Err((error, _)) => return Err(error),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
