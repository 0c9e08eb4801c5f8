//! The watch: finds partitions and where to begin them, measures the lag, says how it stands, and keeps the position file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::Ear;
use super::position::Positions;
use super::{Consumer, Shared};
use crate::config::Start;
use crate::source::stats::{Partition, State};

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
    /// The topic was there and went: what comes back under its name may be another.
    went: bool,
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
        Self { shared, consumer, ear, source, found, first: None, started: BTreeSet::new(), went: false, pending: None }
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
            Ok(Some(partitions)) => match self.look_at(partitions) {
                Ok(()) => {
                    self.ear.forget();
                    (State::Consuming, String::new())
                }
                Err(error) => self.ear.explain(&error),
            },
            Ok(None) => {
                self.first.get_or_insert(0);
                self.went = true;
                (State::TopicMissing, format!("the brokers know no topic {}: create it", self.shared.settings.topic))
            }
            Err(error) => self.ear.explain(&error),
        };
        self.tell(state, &detail);
    }

    /// How many partitions the topic has; `None` if there is no such topic.
    fn partitions(&self) -> KafkaResult<Option<i32>> {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
        let metadata = self.consumer.fetch_metadata(Some(&self.shared.settings.topic), ANSWER)?;
        let Some(topic) = metadata.topics().first() else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => Ok(Some(i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)).filter(|n| *n > 0)),
            Some(UnknownTopic | UnknownTopicOrPartition) => Ok(None),
            Some(code) => Err(KafkaError::MetadataFetch(code)),
        }
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

    /// Starts partitions that are new, mends those whose position is gone, and measures all.
    fn look_at(&mut self, partitions: i32) -> KafkaResult<()> {
        let first = *self.first.get_or_insert(partitions);
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for number in 0..partitions {
            let ask = || self.consumer.fetch_watermarks(&self.shared.settings.topic, number, ANSWER);
            let high = if self.started.contains(&number) {
                let look = Look::taken(&self.shared.stats.partition(number), ask)?;
                starts.extend(self.mended(number, &look).map(|offset| (number, offset)));
                look.high
            } else {
                let (low, high) = ask()?;
                starts.push((number, self.beginning(number, first, low, high)?));
                high
            };
            ends.push((number, high));
        }
        // All of them were answered for: what is half known must not get into the position file.
        self.went = false;
        self.started.extend(starts.iter().map(|(number, _)| *number));
        for (number, high) in ends {
            self.shared.stats.partition(number).end.store(high, Ordering::Relaxed);
        }
        if !starts.is_empty() {
            for (number, offset) in &starts {
                self.shared.stats.partition(*number).position.store(*offset, Ordering::Release);
            }
            self.shared.starts.lock().unwrap_or_else(PoisonError::into_inner).extend(starts);
            self.source.unpark();
        }
        Ok(())
    }

    /// Where a partition that is not read yet begins.
    fn beginning(&self, number: i32, first: i32, low: i64, high: i64) -> KafkaResult<i64> {
        if let Some(found) = &self.found {
            // The file was written when there was no such partition: all of it is new.
            let Some(position) = found.next.get(&number) else { return Ok(low) };
            return Ok(self.within(number, *position, low, high));
        }
        if number >= first {
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
    fn mended(&self, number: i32, look: &Look) -> Option<i64> {
        let Look { position, low, high, .. } = *look;
        if self.went {
            // Shorter than it was: another topic of this name.
            return Some(if look.is_cut_off() { low } else { position.max(low) });
        }
        (look.is_cut_off() || position < low).then(|| self.within(number, position, low, high))
    }

    /// A position as near to the wished one as there is; what is passed over is counted and told.
    fn within(&self, number: i32, position: i64, low: i64, high: i64) -> i64 {
        if (low..=high).contains(&position) {
            return position;
        }
        let offset = position.clamp(low, high);
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
            "the position is gone"
        );
        offset
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
