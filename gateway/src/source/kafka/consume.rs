//! The source's thread: takes records of every partition in turn and dispatches them; what finds a full queue waits, in order.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use halley_protocol::job::plain::Headers;
use halley_protocol::job::{self, Format, JobReject, JobTarget, Record};
use rdkafka::consumer::Consumer as _;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Ear;
use super::due::Due;
use super::produce::Producer;
use super::seldom::Seldom;
use super::{Consumer, Shared, native};
use crate::dispatch::{Dispatch, DispatchError, Target};
use crate::limits;
use crate::payload::Note;
use crate::remembered::Remembered;
use crate::source::JOB_LIMITS;
use crate::source::stats::Partition;

/// Records of one partition before the next has its turn.
const RECORDS_PER_TURN_MAX: usize = 256;

/// How long a job waits before a full queue is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// Longest sleep without work; a record wakes the thread.
const SLEEP: Duration = Duration::from_millis(100);

/// Time between two attempts to read a partition.
pub(super) const REPEAT: Duration = Duration::from_secs(1);

/// The state of the thread.
pub(super) struct Consume {
    shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    desk: Desk,
    queues: BTreeMap<i32, Queue>,
    due: Due,
    /// The topic, as librdkafka takes it.
    topic: CString,
    /// Partitions that are to be read anew, and from where.
    again: Vec<(i32, i64)>,
    /// Of the credentials that it has.
    renewed: u64,
}

/// One partition's records.
struct Queue {
    records: PartitionQueue<Ear>,
    at: Arc<Partition>,
    /// The job that found a full queue; nothing is read past it.
    held: Option<Held>,
    /// Why no more records come, and since when.
    broken: Option<(KafkaError, Instant)>,
    /// The watch may have been told so.
    told: bool,
    /// When its last job was written.
    said_ms: u64,
}

/// A job out of its record.
struct Held {
    target: Target,
    operation: i32,
    payload: Vec<u8>,
    offset: i64,
    timestamp_ms: Option<i64>,
    /// Of the message, with its partition.
    id: Option<String>,
}

/// What became of a turn of a partition.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing waits.
    Idle,
    /// More may wait.
    Busy,
    /// A job waits for a place.
    Blocked,
}

impl Consume {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Arc<Consumer>,
        producer: Arc<Producer>,
        dispatch: Dispatch,
    ) -> Self {
        let format = shared.settings.format.into();
        let ids = Remembered::new(limits::PUSH_IDS_MAX, limits::PUSH_ID_MS_MAX);
        let begun = Instant::now();
        let desk = Desk {
            shared: Arc::clone(&shared),
            producer,
            dispatch,
            format,
            ids,
            begun,
            rejected: Seldom::default(),
            broken: Seldom::default(),
        };
        // A topic with a NUL byte has no records.
        let topic = CString::new(shared.settings.topic.as_str()).unwrap_or_default();
        let (queues, due) = (BTreeMap::new(), Due::default());
        Self { shared, consumer, desk, queues, due, topic, again: Vec::new(), renewed: 0 }
    }

    /// Until the gateway stops.
    pub(super) fn run(mut self) {
        while !self.shared.stopped() {
            self.mend();
            self.start_partitions();
            if let Some(credentials) = self.shared.renewed.since(&mut self.renewed) {
                credentials.set(self.consumer.client());
            }
            // Errors come here, and go to the ear; records come through the partitions' own queues.
            while self.consumer.poll(Duration::ZERO).is_some() {}
            let (desk, mut busy, mut blocked) = (&mut self.desk, false, false);
            for (partition, queue) in &mut self.queues {
                let turn = queue.turn(desk, || native::end_as_read(self.consumer.client(), &self.topic, *partition));
                busy |= turn == Turn::Busy;
                blocked |= turn == Turn::Blocked;
            }
            if !busy {
                thread::park_timeout(if blocked { RETRY } else { SLEEP });
            }
        }
    }

    /// Reads partitions anew from which nothing comes any more: at once past a record that nobody can read, else once in
    /// a while.
    fn mend(&mut self) {
        let now = Instant::now();
        for (partition, queue) in &mut self.queues {
            let Some((error, since)) = &queue.broken else { continue };
            let skips = is_unreadable(error);
            if !skips && now.duration_since(*since) < REPEAT {
                continue;
            }
            let at = queue.at.position.load(Ordering::Relaxed);
            let next = at + i64::from(skips);
            self.desk.pass(*partition, at..next, error);
            queue.broken = None;
            self.again.push((*partition, next));
        }
    }

    /// Carries out what the watch decided, and what is read anew.
    fn start_partitions(&mut self) {
        let mut new = std::mem::take(&mut self.again);
        new.append(&mut self.shared.starts.lock().unwrap_or_else(PoisonError::into_inner));
        let mut due = std::mem::take(&mut self.due);
        let failed = due.start(new, Instant::now(), |partition, offset| self.start(partition, offset));
        self.due = due;
        for (partition, offset, error) in failed {
            tracing::error!(event = "kafka", partition, offset, %error, "a partition cannot be read: trying again");
        }
    }

    fn start(&mut self, partition: i32, offset: i64) -> KafkaResult<()> {
        let topic = &self.shared.settings.topic;
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        if self.queues.contains_key(&partition) {
            self.consumer.incremental_unassign(&list)?;
            self.queues.remove(&partition);
        }
        // Before the assignment: no record may take the way through the consumer's own queue.
        let records = self.consumer.split_partition_queue(topic, partition);
        let mut records = records.ok_or(KafkaError::Global(RDKafkaErrorCode::UnknownPartition))?;
        let this: Thread = thread::current();
        records.set_nonempty_callback(move || this.unpark());
        list.set_partition_offset(topic, partition, Offset::Offset(offset))?;
        self.consumer.incremental_assign(&list)?;
        let at = self.shared.stats.partition(partition);
        at.position.store(offset, Ordering::Release);
        at.read_to.store(0, Ordering::Relaxed);
        // Until it has given a job, what is written from now on is new.
        let _ = at.written_ms.compare_exchange(0, now_ms(), Ordering::Relaxed, Ordering::Relaxed);
        tracing::info!(event = "kafka", topic, partition, offset, "reading");
        self.queues.insert(partition, Queue { records, at, held: None, broken: None, told: true, said_ms: 0 });
        Ok(())
    }
}

impl Queue {
    /// Dispatches some records, until there are none or one finds a full queue.
    /// `end` tells where the partition ended when its end was reached.
    fn turn(&mut self, desk: &mut Desk, end: impl Fn() -> Option<i64>) -> Turn {
        if let Some(held) = self.held.take()
            && !self.offer(desk, held)
        {
            return Turn::Blocked;
        }
        for _ in 0..RECORDS_PER_TURN_MAX {
            let message = match self.records.poll(Duration::ZERO) {
                None => return Turn::Idle,
                Some(Ok(message)) => message,
                // Behind the last record there may be marks of transactions, which nobody gets.
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at.read_to.store(end().unwrap_or(0), Ordering::Relaxed);
                    comes(&mut self.told, &self.at, desk);
                    continue;
                }
                Some(Err(error)) => {
                    if !is_unreadable(&error) {
                        self.told = true;
                        desk.shared.problems().insert(self.at.number, error.clone());
                    }
                    self.broken.get_or_insert((error, Instant::now()));
                    continue;
                }
            };
            let (offset, position) = (message.offset(), self.at.position.load(Ordering::Relaxed));
            comes(&mut self.told, &self.at, desk);
            if let Some((error, _)) = self.broken.take()
                && is_unreadable(&error)
            {
                desk.pass(message.partition(), position..offset, &error);
            }
            if offset < position {
                desk.shared.stats.repeats.add(1);
                continue;
            }
            match desk.read(&message) {
                Some(held) => {
                    drop(message);
                    if !self.offer(desk, held) {
                        desk.shared.stats.pauses.add(1);
                        return Turn::Blocked;
                    }
                }
                None => self.done(offset),
            }
        }
        Turn::Busy
    }

    /// False: it finds no place and is held.
    fn offer(&mut self, desk: &mut Desk, job: Held) -> bool {
        let dispatched = desk.dispatch(&job, &self.at, &mut self.said_ms);
        self.at.blocked.store(!dispatched, Ordering::Relaxed);
        if dispatched {
            self.done(job.offset);
        } else {
            self.held = Some(job);
        }
        dispatched
    }

    fn done(&self, offset: i64) {
        self.at.position.store(offset + 1, Ordering::Release);
    }
}

/// Something comes from a partition of which the watch may have been told otherwise.
fn comes(told: &mut bool, at: &Partition, desk: &Desk) {
    if std::mem::take(told) {
        desk.shared.problems().remove(&at.number);
    }
}

/// From records to dispatch.
struct Desk {
    shared: Arc<Shared>,
    producer: Arc<Producer>,
    dispatch: Dispatch,
    format: Format,
    /// Ids of the last jobs that were dispatched.
    ids: Remembered<()>,
    begun: Instant,
    /// Lines of the log about records that are no jobs, and about partitions that are read anew.
    rejected: Seldom,
    broken: Seldom,
}

impl Desk {
    /// The job in a record; `None` if there is none, which has been counted, logged and buried.
    fn read(&mut self, message: &BorrowedMessage<'_>) -> Option<Held> {
        let mut headers = Headers::default();
        let mut id = None;
        for (name, value) in native::headers(message) {
            headers.add(name, value);
            if name == job::ID_HEADER {
                id = value.filter(|id| id.len() <= job::ID_BYTES_MAX).and_then(|id| str::from_utf8(id).ok());
            }
        }
        let value = message.payload();
        let record = Record { key: message.key(), value: value.unwrap_or_default(), headers };
        // A tombstone is no empty payload.
        let read = if value.is_none() { Err(JobReject::Empty) } else { job::read(&record, self.format, &JOB_LIMITS) };
        match read {
            Ok(job) => Some(Held {
                target: target(job.target),
                operation: job.operation,
                payload: job.payload.into_owned(),
                offset: message.offset(),
                timestamp_ms: message.timestamp().to_millis(),
                id: id.map(|id| format!("{}/{id}", message.partition())),
            }),
            Err(reject) => {
                self.reject(message, reject);
                None
            }
        }
    }

    /// Tells of a partition whose reading ended or went on behind records that cannot be read.
    fn pass(&mut self, partition: i32, offsets: Range<i64>, error: &KafkaError) {
        let missed = u64::try_from(offsets.end - offsets.start).unwrap_or(0);
        self.shared.stats.missed.fetch_add(missed, Ordering::Relaxed);
        if self.broken.count(Instant::now()).is_none() {
            return;
        }
        let (topic, offset) = (&self.shared.settings.topic, offsets.start);
        tracing::error!(event = "kafka", topic, partition, offset, missed, %error, "a partition is read anew");
    }

    fn reject(&mut self, message: &BorrowedMessage<'_>, reject: JobReject) {
        self.shared.stats.rejects[reject.at()].add(1);
        self.producer.bury(message, reject.name());
        let Some(records) = self.rejected.count(Instant::now()) else { return };
        tracing::warn!(
            event = "kafka-reject",
            reason = reject.name(),
            topic = message.topic(),
            partition = message.partition(),
            offset = message.offset(),
            records,
            "a record is no job and was skipped",
        );
    }

    /// True: it is done with, one way or the other. False: a shard's queue is full and nobody got it.
    fn dispatch(&mut self, job: &Held, at: &Partition, said_ms: &mut u64) -> bool {
        let stats = &self.shared.stats;
        let late_ms = job.timestamp_ms.map_or(0, |timestamp| late_ms(now_ms(), timestamp));
        let age_max = i64::from(self.shared.job_age_ms_max.load(Ordering::Relaxed));
        at.late_ms.store(late_ms, Ordering::Relaxed);
        if age_max > 0 && late_ms > age_max {
            stats.expired.add(1);
            return true;
        }
        let now_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        if job.id.as_deref().is_some_and(|id| self.ids.get(id, now_ms).is_some()) {
            stats.duplicates.add(1);
            return true;
        }
        *said_ms = said_at(*said_ms, self::now_ms(), job.timestamp_ms);
        at.written_ms.store(i64::try_from(*said_ms).unwrap_or(i64::MAX), Ordering::Relaxed);
        let written_us = said_ms.saturating_mul(1000);
        let age_ms = u64::try_from(late_ms).unwrap_or(0);
        let note = Note::new(halley_ring::now_us(), Some(age_ms));
        match self.dispatch.push_said_at(written_us, &job.target, job.operation, &job.payload, note) {
            Ok(_) => {
                if let Some(id) = &job.id {
                    self.ids.put(id, (), now_ms);
                }
                stats.dispatched.add(1);
                stats.dispatch_ms.record(age_ms);
                true
            }
            Err(DispatchError::Full) => false,
            Err(DispatchError::RoomTooFast) => count(&stats.limited),
            // Read under the same limits: cannot be.
            Err(DispatchError::PayloadTooBig) => count(&stats.rejects[JobReject::TooLarge.at()]),
            Err(DispatchError::TooManyTargets) => count(&stats.rejects[JobReject::TooManyTargets.at()]),
        }
    }
}

/// Whether the library cannot make records of what the broker has: it would ask for the same again and again.
fn is_unreadable(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BadCompression, BadMessage, InvalidMessage, MessageSizeTooLarge, NotImplemented};
    let code = error.rdkafka_error_code();
    matches!(code, Some(BadCompression | BadMessage | InvalidMessage | MessageSizeTooLarge | NotImplemented))
}

/// When a job was written, milliseconds since 1970: never before the last one of its partition, and never ahead of now.
/// Jobs that are read late, in a rush, are as far apart as when they were written.
fn said_at(last_ms: u64, now: i64, timestamp_ms: Option<i64>) -> u64 {
    let written = timestamp_ms.map_or(now, |timestamp| timestamp.min(now));
    u64::try_from(written).unwrap_or(0).max(last_ms)
}

fn count(counter: &crate::stats::Counter) -> bool {
    counter.add(1);
    true
}

fn target(target: JobTarget) -> Target {
    match target {
        JobTarget::Keys(keys) => Target::Keys(keys),
        JobTarget::Members(members) => Target::Members(members),
        JobTarget::Room(room) => Target::Room(room),
        JobTarget::All => Target::All,
    }
}

/// How long ago it was. Producers choose timestamps: any number is one.
fn late_ms(now: i64, timestamp: i64) -> i64 {
    now.saturating_sub(timestamp)
}

pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_read_in_a_rush_are_as_far_apart_as_they_were_written() {
        assert_eq!(said_at(0, 100_000, Some(95_000)), 95_000);
        assert_eq!(said_at(95_000, 100_000, Some(96_000)), 96_000);
        assert_eq!(said_at(96_000, 100_000, Some(95_500)), 96_000, "it does not go back");
        assert_eq!(said_at(96_000, 100_000, Some(109_000)), 100_000, "nobody writes in the future");
        assert_eq!(said_at(96_000, 100_000, None), 100_000);
        assert_eq!(said_at(0, 100_000, Some(i64::MIN)), 0);
    }

    #[test]
    fn any_timestamp_has_an_age() {
        assert_eq!(late_ms(1000, 400), 600);
        assert_eq!(late_ms(1000, 1500), -500);
        assert_eq!((late_ms(1000, i64::MIN), late_ms(-2, i64::MAX)), (i64::MAX, i64::MIN));
    }
}
