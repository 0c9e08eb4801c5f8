//! The watch: finds partitions and where to begin them, measures the lag, says how it stands, and keeps the position file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Ear;
use super::position::Positions;
use super::{Consumer, Shared};
use crate::config::Start;
use crate::source::stats::{AS_CONFIGURED, FROM_BEGINNING, Partition, State};

/// Between two looks at the positions.
const TICK: Duration = Duration::from_millis(100);

/// Ticks between two questions to the brokers.
const ASK_TICKS: u32 = 5;

/// Longest wait for a broker's answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What the thread knows.
pub(super) struct Watch {
    shared: Arc<Shared>,
    consumer: Arc<Consumer>,
    ear: Ear,
    source: Thread,
    /// From the position file.
    found: Option<Positions>,
    /// Partitions of the first answer: they begin where the configuration says, later ones at their beginning.
    first: Option<i32>,
    /// Partitions that are read.
    started: BTreeSet<i32>,
    /// Partitions of a topic that was there and went: what comes back under its name may be another.
    went: BTreeSet<i32>,
    /// When a partition's position was seen to change last.
    moved: BTreeMap<i32, (i64, Instant)>,
    /// Positions whose jobs the shards may not have sent yet.
    pending: Option<Pending>,
}

/// Positions, and how far each shard must come until they are true of what clients were sent.
struct Pending {
    positions: BTreeMap<i32, i64>,
    /// For each shard: pushes taken, then turns since.
    shards: Vec<(u64, Option<u64>)>,
}

/// What the broker has of a partition that is being read, and where that stands.
#[derive(Debug)]
struct Look {
    low: i64,
    high: i64,
    /// Before the broker was asked.
    before: i64,
    /// When it had answered.
    position: i64,
}

impl Look {
    fn taken(at: &Partition, ask: impl FnOnce() -> KafkaResult<(i64, i64)>) -> KafkaResult<Self> {
        let before = at.position.load(Ordering::Acquire);
        let (low, high) = ask()?;
        Ok(Self { low, high, before, position: at.position.load(Ordering::Acquire) })
    }

    /// The broker has less than was read. What was read while it answered may well lie behind its answer.
    fn is_cut_off(&self) -> bool {
        self.before > self.high
    }
}

impl Watch {
    pub(super) fn new(
        shared: Arc<Shared>,
        consumer: Arc<Consumer>,
        ear: Ear,
        source: Thread,
        found: Option<Positions>,
    ) -> Self {
        Self {
            shared,
            consumer,
            ear,
            source,
            found,
            first: None,
            started: BTreeSet::new(),
            went: BTreeSet::new(),
            moved: BTreeMap::new(),
            pending: None,
        }
    }

    /// Until the gateway stops.
    pub(super) fn run(mut self) {
        let mut tick = 0u32;
        while !self.shared.stopped() {
            if tick.is_multiple_of(ASK_TICKS) {
                self.ask();
            }
            self.keep_positions();
            tick = tick.wrapping_add(1);
            thread::sleep(TICK);
        }
    }

    /// One round of questions.
    fn ask(&mut self) {
        let (state, detail) = match self.partitions() {
            Ok(Some(partitions)) => {
                let standing = self.look_at(&partitions);
                self.shared.begun.fetch_or(!self.started.is_empty(), Ordering::AcqRel);
                standing
            }
            Ok(None) => {
                self.first.get_or_insert(0);
                self.shared.begun.store(true, Ordering::Release);
                self.went.extend(&self.started);
                (State::TopicMissing, format!("the brokers know no topic {}: create it", self.shared.settings.topic))
            }
            Err(error) => self.ear.explain(&error),
        };
        self.tell(state, &detail);
    }

    /// The topic's partitions, each with why it cannot be read now; `None` if there is no such topic.
    fn partitions(&self) -> KafkaResult<Option<Vec<KafkaResult<()>>>> {
        use RDKafkaErrorCode::{LeaderNotAvailable, UnknownTopic, UnknownTopicOrPartition};
        let metadata = self.consumer.fetch_metadata(Some(&self.shared.settings.topic), ANSWER)?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(UnknownTopic | UnknownTopicOrPartition) => return Ok(None),
            Some(code) => return Err(KafkaError::MetadataFetch(code)),
        }
        let count = topic.partitions().iter().map(|partition| partition.id() + 1).max().unwrap_or(0);
        let mut all: Vec<_> = (0..count).map(|_| Err(KafkaError::MetadataFetch(LeaderNotAvailable))).collect();
        for partition in topic.partitions() {
            if partition.leader() >= 0
                && let Some(place) = usize::try_from(partition.id()).ok().and_then(|id| all.get_mut(id))
            {
                *place = Ok(());
            }
        }
        Ok(Some(all).filter(|all| !all.is_empty()))
    }

    /// Says each state once.
    fn tell(&self, state: State, detail: &str) {
        if !self.shared.stats.standing.set(state, detail) {
            return;
        }
        let (topic, brokers) = (&self.shared.settings.topic, self.shared.settings.brokers.join(","));
        if state == State::Consuming {
            tracing::info!(event = "kafka", state = state.name(), topic, brokers);
        } else {
            tracing::warn!(event = "kafka", state = state.name(), topic, brokers, detail, "trying again");
        }
    }

    /// Starts partitions that are new, mends those whose position is gone, and measures all. One of which the brokers
    /// say nothing keeps no other from being read.
    fn look_at(&mut self, partitions: &[KafkaResult<()>]) -> (State, String) {
        let first = *self.first.get_or_insert(i32::try_from(partitions.len()).unwrap_or(i32::MAX));
        let (mut starts, mut silent, mut problem) = (Vec::new(), 0, None);
        for (number, known) in (0..).zip(partitions) {
            match known.clone().and_then(|()| self.look_at_one(number, first)) {
                Ok(start) => {
                    self.went.remove(&number);
                    starts.extend(start.map(|offset| (number, offset)));
                    // The brokers tell how it stands, and give nothing, as to one who may not read.
                    if let Some(error) = self.shared.problems().get(&number) {
                        silent += 1;
                        problem.get_or_insert((number, error.clone()));
                    }
                }
                Err(error) => {
                    if !self.started.contains(&number) {
                        self.note(number, first);
                    }
                    silent += 1;
                    problem.get_or_insert((number, error));
                }
            }
        }
        if !starts.is_empty() {
            for (number, offset) in &starts {
                self.started.insert(*number);
                self.shared.stats.partition(*number).position.store(*offset, Ordering::Release);
            }
            self.shared.starts.lock().unwrap_or_else(PoisonError::into_inner).extend(starts);
            self.source.unpark();
        }
        let Some((number, error)) = problem else {
            self.ear.forget();
            return (State::Consuming, String::new());
        };
        if silent == partitions.len() {
            return self.ear.explain(&error);
        }
        (State::Degraded, format!("{silent} of {} partitions: {error} (partition {number})", partitions.len()))
    }

    /// Where a partition is to be read from, if that is news.
    fn look_at_one(&mut self, number: i32, first: i32) -> KafkaResult<Option<i64>> {
        let at = self.shared.stats.partition(number);
        let ask = || self.consumer.fetch_watermarks(&self.shared.settings.topic, number, ANSWER);
        if !self.started.contains(&number) {
            let (low, high) = ask()?;
            let start = self.beginning(number, first, low, high)?;
            at.end.store(high, Ordering::Relaxed);
            return Ok(Some(start));
        }
        let look = Look::taken(&at, ask)?;
        let start = self.mended(number, &look)?;
        at.end.store(look.high, Ordering::Relaxed);
        let (seen, since) = self.moved.entry(number).or_insert((look.position, Instant::now()));
        if *seen != look.position || at.lag() == 0 {
            (*seen, *since) = (look.position, Instant::now());
        }
        at.stuck_ms.store(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX), Ordering::Relaxed);
        Ok(start)
    }

    /// Remembers, for the position file too, how a partition begins once the brokers tell of it.
    fn note(&self, number: i32, first: i32) {
        let begins = match &self.found {
            Some(found) => found.next.get(&number).copied().unwrap_or(FROM_BEGINNING),
            None if number < first => AS_CONFIGURED,
            None => FROM_BEGINNING,
        };
        self.shared.stats.partition(number).position.store(begins, Ordering::Release);
    }

    /// Where a partition that is not read yet begins.
    fn beginning(&self, number: i32, first: i32, low: i64, high: i64) -> KafkaResult<i64> {
        if let Some(found) = &self.found {
            // The file was written when there was no such partition: all of it is new.
            match found.next.get(&number).copied().unwrap_or(FROM_BEGINNING) {
                AS_CONFIGURED => {}
                FROM_BEGINNING => return Ok(low),
                position => return self.within(number, position, found.written_ms, low, high),
            }
        } else if number >= first {
            return Ok(low);
        }
        Ok(match self.shared.settings.start {
            Start::Latest => high,
            Start::Earliest => low,
            Start::Offset(offset) => offset.clamp(low, high),
            Start::Time(ms) => self.at_time(number, ms, high)?,
        })
    }

    fn at_time(&self, number: i32, ms: i64, high: i64) -> KafkaResult<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.shared.settings.topic, number, Offset::Offset(ms))?;
        let found = self.consumer.offsets_for_times(list, ANSWER)?;
        // No record of that time or later: the end.
        let offset = found.elements().first().and_then(|element| element.offset().to_raw()).filter(|n| *n >= 0);
        Ok(offset.unwrap_or(high))
    }

    /// Where a partition goes on whose position the broker does not have, or that came back.
    fn mended(&self, number: i32, look: &Look) -> KafkaResult<Option<i64>> {
        let Look { position, low, high, .. } = *look;
        let written = self.shared.stats.partition(number).written_ms.load(Ordering::Relaxed);
        if look.is_cut_off() || position < low {
            return self.within(number, position, written, low, high).map(Some);
        }
        if !self.went.contains(&number) {
            return Ok(None);
        }
        // All that it has was written after what was read: another topic of this name.
        let is_new = written > 0 && self.at_time(number, written, high)? == low;
        Ok(Some(if is_new { low } else { position }))
    }

    /// A position as near to the wished one as there is; what is passed over is counted and told. Behind the end, which
    /// is that of a topic made anew, or of one that lost its last records, it is at what was written after `written_ms`.
    fn within(&self, number: i32, position: i64, written_ms: i64, low: i64, high: i64) -> KafkaResult<i64> {
        if (low..=high).contains(&position) {
            return Ok(position);
        }
        let offset = if position < low { low } else { self.at_time(number, written_ms, high)? };
        let missed = u64::try_from(low.saturating_sub(position)).unwrap_or(0);
        self.shared.stats.missed.fetch_add(missed, Ordering::Relaxed);
        let topic = &self.shared.settings.topic;
        tracing::error!(
            event = "kafka",
            topic,
            partition = number,
            position,
            low,
            high,
            missed,
            offset,
            "the position is gone"
        );
        Ok(offset)
    }

    /// Writes positions once every shard has taken, and had a turn to send, what was dispatched up to them: what a
    /// crash then loses is read again.
    fn keep_positions(&mut self) {
        if self.shared.file.is_none() || self.started.is_empty() {
            return;
        }
        let links = &self.shared.links;
        if let Some(pending) = &mut self.pending {
            let mut settled = true;
            for (link, (taken, turns)) in links.iter().zip(&mut pending.shards) {
                if turns.is_none() && link.pushes_taken() >= *taken {
                    *turns = Some(link.stats.turns.get() + 2);
                }
                settled &= turns.is_some_and(|turns| link.stats.turns.get() >= turns);
            }
            if !settled {
                return;
            }
            self.shared.write_positions(std::mem::take(&mut pending.positions));
        }
        let positions = self.shared.positions();
        let shards = links.iter().map(|link| (link.pushes_put(), None)).collect();
        self.pending = Some(Pending { positions, shards });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stats::KafkaStats;

    #[test]
    fn a_position_that_moves_on_while_the_broker_answers_is_not_gone() {
        let at = KafkaStats::default().partition(0);
        let look = |before: i64, after: i64, high: i64| {
            at.position.store(before, Ordering::Relaxed);
            let ask = || {
                at.position.store(after, Ordering::Relaxed);
                Ok((0, high))
            };
            Look::taken(&at, ask).expect("an answer")
        };
        assert!(!look(30, 50, 40).is_cut_off(), "jobs were produced and dispatched after the broker looked");
        assert_eq!(look(30, 50, 40).position, 50, "where reading goes on if it must be started anew");
        assert!(!look(40, 40, 40).is_cut_off(), "all was read");
        assert!(look(41, 41, 40).is_cut_off(), "the topic is shorter than it was");
    }
}
