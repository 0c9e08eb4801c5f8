//! The nodes' topic: a thread that reads what the others tell, and tells them of this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use futures_channel::oneshot;
use halley_protocol::node::{self, Beat, Key, V1};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfig as _, FromClientConfigAndContext as _};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::client::{self, Ear};
use super::produce::{Outcome, ProduceError, Producer, Waits};
use super::wait::wait;
use super::{Consumer, Shared};
use crate::control::bell;
use crate::directory::Directory;
use crate::link::ControlBell;
use crate::source::nodes::{Heard, NodeCommand, Nodes, NodesStats, Telling};
use crate::source::stats::{ProducerState, State};

/// Commands of other nodes that wait for control.
const COMMANDS_WAITING_MAX: usize = 1024;

/// Commands of one node that the topic keeps at a time; further ones take the places of the oldest.
const COMMAND_NUMBERS: u64 = 64;

/// Records between two looks at the time.
const RECORDS_PER_TURN_MAX: usize = 1024;

/// Longest wait for a record.
const POLL: Duration = Duration::from_millis(20);

/// Longest wait for an answer of the brokers.
const ANSWER: Duration = Duration::from_secs(1);

/// Time between two attempts, and between two lines of the log about rejected records.
const REPEAT: Duration = Duration::from_secs(1);

/// Looking at the rooms takes at most this part of the time.
const LOOK_SHARE: u32 = 20;

/// Who this node is.
pub struct Me {
    /// What its id begins with.
    pub name: String,
    /// Itself as goim's discovery would show it: JSON.
    pub instance: String,
}

/// What the rest of the process needs of the thread.
pub(super) struct Neighbours {
    pub(super) id: String,
    topic: String,
    /// The thread is to end, and to say that this node has gone.
    leave: AtomicBool,
    commands: ArrayQueue<NodeCommand>,
    bell: ControlBell,
    numbers: AtomicU64,
}

impl Neighbours {
    pub(super) fn new(topic: &str, name: &str) -> std::io::Result<Self> {
        // A start is a node: what an earlier one said must not count for this one.
        let id = format!("{name}-{:08x}", uuid::Uuid::new_v4().as_fields().0);
        Ok(Self {
            id,
            topic: topic.into(),
            leave: AtomicBool::new(false),
            commands: ArrayQueue::new(COMMANDS_WAITING_MAX),
            bell: bell::new_bell()?,
            numbers: AtomicU64::new(0),
        })
    }

    pub(super) fn leave(&self) {
        self.leave.store(true, Ordering::Release);
    }

    fn leaves(&self) -> bool {
        self.leave.load(Ordering::Acquire)
    }

    /// Hands commands to `obey` until it takes them. Must be called within control's runtime.
    pub(super) fn spawn(self: &Arc<Self>, obey: impl Fn(&NodeCommand) -> bool + 'static) -> std::io::Result<()> {
        let (neighbours, waiter) = (Arc::clone(self), bell::Waiter::new(&self.bell)?);
        monoio::spawn(async move {
            while waiter.rung(&neighbours.bell).await.is_ok() {
                while let Some(command) = neighbours.commands.pop() {
                    while !obey(&command) {
                        monoio::time::sleep(POLL).await;
                    }
                }
            }
        });
        Ok(())
    }

    /// Produces a command for all other nodes; for nodes that start until `until_ms` too.
    pub(super) fn broadcast(
        &self,
        producer: &Producer,
        command: &NodeCommand,
        until_ms: i64,
    ) -> Result<oneshot::Receiver<Outcome>, ProduceError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        // One that is kept must keep its place.
        let number = if until_ms == 0 { number % COMMAND_NUMBERS } else { number.saturating_add(COMMAND_NUMBERS) };
        let body = serde_json::to_string(command).expect("plain data");
        let value = node::write(&V1::Command(node::Command { until_ms, body })).ok_or(ProduceError::TooLarge)?;
        producer.tell_and_wait(&self.topic, &Key::Command(&self.id, number).write(), &value)
    }
}

/// The thread.
pub(super) struct NodesThread {
    shared: Arc<Shared>,
    neighbours: Arc<Neighbours>,
    producer: Arc<Producer>,
    consumer: Consumer,
    ear: Ear,
    directory: Arc<Directory>,
    stats: Arc<NodesStats>,
    nodes: Nodes,
    telling: Telling,
    instance: String,
    beat: Duration,
    next_beat: Instant,
    next_look: Instant,
    next_try: Instant,
    reading: bool,
    /// Failures so far: after each all is told again.
    failed: u64,
    told_reject: Option<Instant>,
    /// Of the credentials that it has.
    renewed: u64,
}

impl NodesThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        neighbours: Arc<Neighbours>,
        producer: Arc<Producer>,
        directory: Arc<Directory>,
        instance: String,
    ) -> KafkaResult<Self> {
        let (ear, now) = (Ear::default(), Instant::now());
        let consumer = Consumer::from_config_and_context(&client::consumer(&shared.settings), ear.clone())?;
        let stats = Arc::clone(&shared.stats.nodes);
        let patience = Duration::from_millis(shared.settings.node_ms_max.into());
        let beat = (patience / 10).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let own = neighbours.id.clone();
        Ok(Self {
            nodes: Nodes::new(own.clone(), patience, beat, Arc::clone(&directory), Arc::clone(&stats), now),
            telling: Telling::new(own, shared.settings.node_rooms_max as usize),
            shared,
            neighbours,
            producer,
            consumer,
            ear,
            directory,
            stats,
            instance,
            beat,
            next_beat: now,
            next_look: now,
            next_try: now,
            reading: false,
            failed: 0,
            told_reject: None,
            renewed: 0,
        })
    }

    pub(super) fn run(mut self) {
        while !self.neighbours.leaves() {
            let now = Instant::now();
            if let Some(credentials) = self.shared.renewed.since(&mut self.renewed) {
                credentials.set(self.consumer.client());
            }
            if self.reading {
                self.read();
            } else if now >= self.next_try {
                self.begin();
                self.next_try = Instant::now() + REPEAT;
            } else {
                sleep(POLL);
            }
            // Reading took time, and told the nodes so: theirs must not go back.
            let now = Instant::now();
            if now >= self.next_beat {
                self.next_beat = now + self.beat;
                self.on_beat(now);
            }
        }
        for (key, value) in self.telling.end() {
            let _ = self.tell(&key, value.as_deref());
        }
    }

    /// Begins to read the topic, which is made if it is not there.
    fn begin(&mut self) {
        let topic = self.neighbours.topic.clone();
        let (state, detail) = match self.topic_is_there(&topic) {
            Ok(true) => match self.assign(&topic) {
                Ok(()) => (State::Consuming, String::new()),
                Err(error) => self.ear.explain(&error),
            },
            Ok(false) => match self.make_topic(&topic) {
                // The next attempt finds it.
                Ok(None) => return,
                Ok(Some(why)) => (
                    State::TopicMissing,
                    format!(
                        "the brokers know no topic {topic} and do not let this node make it ({why}): create it with one partition and cleanup.policy=compact"
                    ),
                ),
                Err(error) => self.ear.explain(&error),
            },
            Err(error) => self.ear.explain(&error),
        };
        self.set_state(state, &detail);
    }

    fn topic_is_there(&self, topic: &str) -> KafkaResult<bool> {
        use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
        let metadata = self.consumer.fetch_metadata(Some(topic), ANSWER)?;
        match metadata.topics().first().map(|topic| topic.error().map(RDKafkaErrorCode::from)) {
            Some(None) => Ok(true),
            None | Some(Some(UnknownTopic | UnknownTopicOrPartition)) => Ok(false),
            Some(Some(code)) => Err(KafkaError::MetadataFetch(code)),
        }
    }

    fn assign(&mut self, topic: &str) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        self.consumer.assign(&list)?;
        self.reading = true;
        if self.nodes.began() {
            // It may be another topic of this name.
            self.telling.tell_again();
        }
        if self.is_compacted(topic) == Some(false) {
            tracing::warn!(
                event = "nodes",
                topic,
                "is not compacted: it grows, and loses what nodes said: set cleanup.policy=compact"
            );
        }
        Ok(())
    }

    fn admin(&self) -> KafkaResult<AdminClient<rdkafka::client::DefaultClientContext>> {
        AdminClient::from_config(&client::admin(&self.shared.settings_now()))
    }

    /// Small segments, so that what is out of date is soon gone, and a node that starts has little to read. What the
    /// brokers have against it, if they have.
    fn make_topic(&self, topic: &str) -> KafkaResult<Option<RDKafkaErrorCode>> {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
            .set("cleanup.policy", "compact")
            .set("segment.bytes", "16777216")
            .set("segment.ms", "600000")
            .set("min.cleanable.dirty.ratio", "0.1")
            .set("delete.retention.ms", "600000");
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let answers = wait(self.admin()?.create_topics([&new], &options))?;
        match answers.into_iter().find_map(Result::err) {
            None => {
                tracing::info!(event = "nodes", topic, "made");
                Ok(None)
            }
            Some((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(None),
            Some((_, code)) => Ok(Some(code)),
        }
    }

    /// `None`: the brokers do not say.
    fn is_compacted(&self, topic: &str) -> Option<bool> {
        let admin = self.admin().ok()?;
        let options = AdminOptions::new().request_timeout(Some(ANSWER));
        let answers = wait(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options)).ok()?;
        let config = answers.into_iter().next()?.ok()?;
        Some(config.get("cleanup.policy")?.value.as_ref()?.contains("compact"))
    }

    fn set_state(&self, state: State, detail: &str) {
        if !self.stats.standing.set(state, detail) {
            return;
        }
        let (topic, node) = (&self.neighbours.topic, &self.neighbours.id);
        if state == State::Consuming {
            tracing::info!(event = "nodes", state = state.name(), topic, node);
        } else {
            tracing::warn!(event = "nodes", state = state.name(), topic, node, detail, "trying again");
        }
    }

    /// Some records, or a short wait for one.
    fn read(&mut self) {
        if !self.nodes.takes_more() {
            return sleep(POLL);
        }
        let mut commands = Vec::new();
        for taken in 0..RECORDS_PER_TURN_MAX {
            let patience = if taken == 0 { POLL } else { Duration::ZERO };
            match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    self.stats.read.add(1);
                    let heard = self.nodes.hear(
                        message.key().unwrap_or_default(),
                        message.payload(),
                        Instant::now(),
                        super::consume::now_ms(),
                    );
                    match heard {
                        Heard::Nothing => {}
                        Heard::Do(command) => commands.push(command),
                        Heard::TellAgain => self.telling.tell_again(),
                        Heard::Reject(reject) => {
                            self.stats.rejects[reject.at()].add(1);
                            tell_reject(&mut self.told_reject, &message, reject.name());
                        }
                    }
                }
                Some(Err(error)) if is_of_the_topic(&error) => {
                    // Deleted, or made anew: from its beginning.
                    let _ = self.consumer.unassign();
                    self.reading = false;
                    break;
                }
                // Others pass.
                Some(Err(_)) => {}
            }
        }
        for command in commands {
            self.hand_over(command);
        }
    }

    /// Control takes it sooner or later.
    fn hand_over(&self, mut command: NodeCommand) {
        while let Err(back) = self.neighbours.commands.push(command) {
            if self.neighbours.leaves() {
                return;
            }
            command = back;
            sleep(POLL);
        }
        if let Err(error) = bell::ring(&self.neighbours.bell) {
            tracing::error!(%error, "control cannot be told of a command");
        }
    }

    /// Says that this node lives and what has changed; looks who else does.
    fn on_beat(&mut self, now: Instant) {
        self.nodes.tick(now);
        if !self.reading {
            return;
        }
        let failed = self.stats.tell_failed.load(Ordering::Relaxed);
        if failed != self.failed {
            self.failed = failed;
            self.telling.tell_again();
        }
        let beat = V1::Beat(Beat {
            sequence: self.telling.number(),
            connections: self.directory.connections(),
            addresses: self.directory.addresses(),
            rooms: self.directory.rooms(),
            left_out: self.telling.left_out(),
            lag: self.shared.stats.partitions().iter().map(|partition| partition.lag()).sum(),
            draining: self.shared.stopped(),
            instance: self.instance.clone(),
        });
        let _ = self.tell(&Key::Beat(&self.neighbours.id).write(), node::write(&beat).as_deref());
        if !self.nodes.hears(now) {
            if self.nodes.began() || self.failed > 0 {
                let heard = || self.ear.last().map_or("no record comes back".into(), |(_, detail)| detail);
                match self.refusal() {
                    Some(refusal) => self.set_state(State::Refused, &refusal),
                    None => self.set_state(State::BrokerAway, &heard()),
                }
            }
            return;
        }
        self.set_state(State::Consuming, "");
        for key in self.nodes.litter(now, super::consume::now_ms()) {
            let _ = self.tell(&key, None);
        }
        if now >= self.next_look {
            let begun = Instant::now();
            for (key, value) in self.telling.rooms(&self.directory) {
                // What fails is counted, and told again.
                let _ = self.tell(&key, value.as_deref());
            }
            self.stats.left_out.set(self.telling.left_out());
            self.next_look = begun + LOOK_SHARE * begun.elapsed();
        }
    }

    /// Why the brokers do not take what this node tells, if they say so: of the last record, or of any.
    fn refusal(&self) -> Option<String> {
        let producer = &self.shared.stats.producer;
        let of_any = || (producer.state() == ProducerState::Refused).then(|| producer.detail());
        self.stats.refusal().or_else(of_any)
    }

    fn tell(&self, key: &str, value: Option<&[u8]>) -> Result<(), ProduceError> {
        self.producer.tell(&self.neighbours.topic, key, value, Waits::Nodes(None))
    }
}

fn is_of_the_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, UnknownPartition, UnknownTopic, UnknownTopicOrPartition};
    matches!(
        error.rdkafka_error_code(),
        Some(AutoOffsetReset | UnknownPartition | UnknownTopic | UnknownTopicOrPartition)
    )
}

fn tell_reject(told: &mut Option<Instant>, message: &BorrowedMessage<'_>, reason: &str) {
    let now = Instant::now();
    if told.is_some_and(|told| now.duration_since(told) < REPEAT) {
        return;
    }
    *told = Some(now);
    tracing::warn!(
        event = "nodes-reject",
        reason,
        topic = message.topic(),
        partition = message.partition(),
        offset = message.offset(),
        "a record is no node's and was skipped"
    );
}
