//! A broker, a producer that knows nothing of Halley, and gateways that read from the one what the other writes.

use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Header, Headers as _, Message as _, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;
use xtask::kafka::{Broker, Jars, lacks};

use crate::support::{Client, Gateway, LISTENERS, OPEN, Transport, until};

/// What a broker is made of, or `None`, said once, where this machine has no Java. In CI that is a failure.
pub(crate) fn jars() -> Option<&'static Jars> {
    static JARS: OnceLock<Option<Jars>> = OnceLock::new();
    let jars = JARS.get_or_init(|| {
        if let Some(why) = lacks() {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            eprintln!("skipped: {why}");
            return None;
        }
        Some(Jars::fetch().expect("Kafka from Maven Central"))
    });
    jars.as_ref()
}

/// An empty folder for a broker of this name.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kafka").join(name);
    if let Some(left) = Broker::running(&folder) {
        left.kill().expect("what an earlier run left ends");
    }
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// The broker of all tests that do not harm theirs.
pub(crate) fn broker() -> Option<&'static Broker> {
    static BROKER: OnceLock<Option<Broker>> = OnceLock::new();
    let start = || Some(Broker::start(jars()?, &folder("shared"), "").and_then(Broker::guarded).expect("a broker"));
    BROKER.get_or_init(start).as_ref()
}

/// A topic of its own for each caller.
pub(crate) fn topic(broker: &Broker, partitions: u32) -> String {
    let name = new_name();
    broker.create_topic(&name, partitions).expect("a topic");
    name
}

/// The same, of one partition and with records of up to 4 MiB.
pub(crate) fn topic_of_large_records(broker: &Broker) -> String {
    let name = new_name();
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "4194304");
    let done = wait(admin(broker).create_topics([&new], &AdminOptions::new())).expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    // Made already: waits until the broker knows it.
    broker.create_topic(&name, 1).expect("a topic");
    name
}

fn new_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("jobs-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A gateway that reads this topic, with further lines of `[kafka]`; its clients may be as late as they like.
pub(crate) fn gateway(broker: &Broker, topic: &str, lines: &str) -> Gateway {
    let gateway = unready(&broker.address(), topic, lines);
    until_state(&gateway, "consuming");
    gateway
}

/// The same without waiting for the broker.
pub(crate) fn unready(address: &str, topic: &str, lines: &str) -> Gateway {
    Gateway::start(&configuration(address, topic, lines))
}

/// What such a gateway is configured with.
pub(crate) fn configuration(address: &str, topic: &str, lines: &str) -> String {
    let open = "login = \"open\"\noutbox_bytes_max = 33554432\n";
    let listeners = LISTENERS.replace("login = \"open\"\n", open);
    format!(
        "{OPEN}[shard]\nroom_pending_bytes_max = 67108864\n{listeners}[kafka]\nbrokers = [\"{address}\"]\ntopic = \"{topic}\"\n{lines}"
    )
}

/// The line of a configuration that keeps positions in this folder, as `positions.json`.
pub(crate) fn position_file(folder: &Path) -> String {
    format!("position_file = \"{}\"\n", folder.join("positions.json").display())
}

pub(crate) fn source(gateway: &Gateway) -> Value {
    gateway.get("/v1/stats").json()["kafka_source"].clone()
}

pub(crate) fn until_state(gateway: &Gateway, state: &str) {
    until(&format!("{state}: {}", source(gateway)), || {
        let seen = gateway.get("/v1/stats").json();
        // Consuming, and every partition has its position.
        seen["kafka_source"]["state"] == state && (state != "consuming" || seen["kafka"][0].is_object())
    });
}

/// The value of a metric's sample.
pub(crate) fn metric(gateway: &Gateway, name: &str) -> u64 {
    sample(&gateway.get("/metrics").body, name)
}

/// The same in the text of all metrics.
pub(crate) fn sample<T: FromStr>(metrics: &str, name: &str) -> T {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name}: {metrics}"))
}

/// Waits until so many jobs were dispatched.
pub(crate) fn until_dispatched(gateway: &Gateway, jobs: u64) {
    until(&format!("{jobs} jobs dispatched: {}", source(gateway)), || source(gateway)["dispatched"] == jobs);
}

/// A client on TCP in this room that takes pushes of operations 5 and 1000.
pub(crate) fn client(gateway: &Gateway, key: &str, room: &str) -> Client {
    let login = format!(r#"{{"mid":7,"key":"{key}","room_id":"{room}","accepts":[5,1000]}}"#);
    Client::login(gateway.tcp(), Transport::Tcp, &login)
}

/// A record as any program writes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
}

/// goim v2's job for a room, byte by byte, in the room's partition.
pub(crate) fn room_job(room: &str, text: &str) -> Wire {
    let field = |tag: u8, bytes: &str| {
        let mut out = vec![tag];
        let mut length = bytes.len();
        while length > 127 {
            out.push(u8::try_from(length & 127).expect("seven bits") | 128);
            length >>= 7;
        }
        out.push(u8::try_from(length).expect("seven bits"));
        out.extend(bytes.bytes());
        out
    };
    let value = [b"\x08\x01\x10\xe8\x07".to_vec(), field(0x2a, room), field(0x3a, text)].concat();
    Wire { key: Some(room.into()), value: Some(value), ..Wire::default() }
}

/// Remembers what was acknowledged, in order.
#[derive(Default)]
pub(crate) struct Acks(Mutex<Vec<Option<(i32, i64)>>>);

impl rdkafka::ClientContext for Acks {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: rdkafka::error::KafkaError, _: &str) {}
}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let place = result.as_ref().ok().map(|message| (message.partition(), message.offset()));
        self.0.lock().expect("a test that lives").push(place);
    }
}

/// Writes records with every acknowledgement, as goim's logic does.
pub(crate) struct Writer {
    producer: ThreadedProducer<Acks>,
    topic: String,
}

impl Writer {
    pub(crate) fn new(broker: &Broker, topic: &str) -> Self {
        Self::to(&broker.address(), topic)
    }

    pub(crate) fn to(brokers: &str, topic: &str) -> Self {
        Self::with(brokers, topic, &[])
    }

    /// The same with further properties.
    pub(crate) fn with(brokers: &str, topic: &str, properties: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("reconnect.backoff.max.ms", "200")
            .set("linger.ms", "0");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(Acks::default()).expect("a producer");
        Self { producer, topic: topic.into() }
    }

    pub(crate) fn put(&self, wire: &Wire) {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &wire.headers {
            headers = headers.insert(Header { key, value: Some(*value) });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = wire.key.as_deref();
        record.payload = wire.value.as_deref();
        record.partition = wire.partition;
        record.timestamp = wire.timestamp;
        self.producer.send(record).map_err(|(error, _)| error).expect("room in the producer");
    }

    /// Waits until every record is acknowledged.
    pub(crate) fn flush(&self) {
        self.producer.flush(Duration::from_mins(1)).expect("the broker acknowledges");
        let acks = self.producer.context().0.lock().expect("a test that lives");
        assert!(acks.iter().all(Option::is_some), "a record was refused");
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.producer.context().0.lock().expect("a test that lives").iter().flatten().count()
    }
}

impl Drop for Writer {
    /// A producer that is dropped forgets what it has not sent.
    fn drop(&mut self) {
        let _ = self.producer.flush(Duration::from_secs(10));
    }
}

/// Everything in a topic, oldest first within a partition.
pub(crate) fn records(broker: &Broker, topic: &str, partitions: i32) -> Vec<OwnedMessage> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address()).set("group.id", "test").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    (0..partitions).for_each(|n| list.add_partition_offset(topic, n, Offset::Beginning).expect("an offset"));
    consumer.assign(&list).expect("assigned");
    let (mut found, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(Duration::from_secs(20)).expect("records, or their end") {
            Ok(message) => found.push(message.detach()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    found
}

pub(crate) fn headers(record: &OwnedMessage) -> Vec<(String, String)> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
    let headers = record.headers().expect("headers").iter();
    headers.map(|header| (header.key.to_owned(), text(header.value))).collect()
}

/// Gives a topic this many partitions.
pub(crate) fn grow(broker: &Broker, topic: &str, partitions: usize) {
    let new = NewPartitions::new(topic, partitions);
    let done = wait(admin(broker).create_partitions([&new], &AdminOptions::new())).expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// Deletes a topic, and waits until it is gone.
pub(crate) fn remove_topic(broker: &Broker, topic: &str) {
    let admin = admin(broker);
    let done = wait(admin.delete_topics(&[topic], &AdminOptions::new())).expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    until("the topic is gone", || {
        let metadata = admin.inner().fetch_metadata(None, Duration::from_secs(10)).expect("an answer");
        metadata.topics().iter().all(|known| known.name() != topic)
    });
}

/// Sets a topic's own configuration.
pub(crate) fn configure(broker: &Broker, topic: &str, name: &str, value: &str) {
    let new = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
    let done = wait(admin(broker).alter_configs([&new], &AdminOptions::new())).expect("an answer");
    assert!(done.iter().all(Result::is_ok), "{done:?}");
}

/// Removes the records of a topic's first partition that lie before this offset, as retention does.
pub(crate) fn remove_before(broker: &Broker, topic: &str, offset: i64) {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
    let done = wait(admin(broker).delete_records(&list, &AdminOptions::new())).expect("an answer");
    assert!(done.elements().iter().all(|partition| partition.error().is_ok()), "{done:?}");
}

fn admin(broker: &Broker) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address()).create().expect("an admin")
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park();
    }
}
