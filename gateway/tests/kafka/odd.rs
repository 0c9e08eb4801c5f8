//! What producers and brokers may do that no usual one does: nothing of it ends the gateway or stops a partition.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use xtask::kafka::Broker;

use crate::support::until;
use crate::world::{
    Wire, Writer, broker, client, folder, gateway, jars, remove_topic, room_job, source, topic, unready,
    until_dispatched, until_state,
};

#[test]
#[allow(unsafe_code, reason = "a name that is no text, which rdkafka takes as text only")]
fn a_header_whose_name_is_no_text_is_no_header_of_ours() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let mut client = client(&gateway, "k", "r");
    // SAFETY: it is handed on as bytes to C, and looked at by nobody else.
    let name = unsafe { str::from_utf8_unchecked(vec![0xff, 0xfe, b'x'].leak()) };
    let writer = Writer::new(broker, &topic);
    let with = |headers: &[(&'static str, &'static str)]| Wire { headers: headers.to_vec(), ..Wire::default() };
    writer.put(&Wire { value: Some(b"one".to_vec()), ..with(&[(name, "x"), ("halley-room", "r"), (name, "")]) });
    client.expect_push(1000, "one");
    writer.put(&Wire { headers: vec![(name, "x")], ..room_job("r", "two") });
    client.expect_push(1000, "two");
}

#[test]
fn a_partition_without_a_leader_keeps_no_other_from_being_read() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("jobs", 3, 1).expect("a topic");
    mock.partition_leader("jobs", 1, None).expect("no leader");
    let positions = tempfile::tempdir().expect("a folder");
    let file = positions.path().join("positions.json");
    let lines = format!("position_file = {file:?}\n");
    let gateway = unready(&mock.bootstrap_servers(), "jobs", &lines);
    until_state(&gateway, "degraded");
    let detail = source(&gateway)["detail"].to_string();
    assert!(detail.contains("1 of 3 partitions") && detail.contains("partition 1"), "{detail}");
    let mut client = client(&gateway, "k", "r");
    let writer = Writer::to(&mock.bootstrap_servers(), "jobs");
    for partition in [0, 2] {
        writer.put(&Wire { partition: Some(partition), ..room_job("r", &partition.to_string()) });
        client.expect_push(1000, &partition.to_string());
    }
    let at = |text: &str| std::fs::read_to_string(&file).is_ok_and(|file| file.contains(text));
    until("the positions are kept", || at(r#""0":1"#) && at(r#""1":-1"#) && at(r#""2":1"#));
    mock.partition_leader("jobs", 1, Some(1)).expect("a leader");
    until_state(&gateway, "consuming");
    until("it is read", || at(r#""1":0"#));
    writer.put(&Wire { partition: Some(1), ..room_job("r", "1") });
    client.expect_push(1000, "1");
}

#[test]
fn what_a_call_was_told_is_written_is_read_however_early_it_came() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("jobs", 1, 1).expect("a topic");
    mock.broker_round_trip_time(1, Duration::from_millis(150)).expect("a slow broker");
    let gateway = unready(&mock.bootstrap_servers(), "jobs", "");
    let mut client = client(&gateway, "k", "r");
    let push = r#"{"target": {"room": "r"}, "operation": 1000, "payload": {"text": "early"}}"#;
    let (mut written, mut refused) = (0, 0);
    until("a call is taken", || {
        let answer = gateway.call("POST", "/v1/push", "Content-Type: application/json\r\n", push);
        written += u64::from(answer.status == 200);
        refused += u64::from(answer.status == 503 && answer.body.contains("does not know yet where it begins"));
        written > 3
    });
    assert!(refused > 0, "it took a while until the brokers had answered");
    (0..written).for_each(|_| client.expect_push(1000, "early"));
    assert_eq!(source(&gateway)["dispatched"], written);
}

#[test]
fn who_may_not_read_is_told_so_and_reads_when_it_may() {
    let mock = MockCluster::new(1).expect("a cluster");
    mock.create_topic("jobs", 1, 1).expect("a topic");
    mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 1000]);
    let gateway = unready(&mock.bootstrap_servers(), "jobs", "");
    until_state(&gateway, "refused");
    let mut client = client(&gateway, "k", "r");
    Writer::to(&mock.bootstrap_servers(), "jobs").put(&room_job("r", "first"));
    mock.clear_request_errors(RDKafkaApiKey::Fetch);
    client.expect_push(1000, "first");
    until_state(&gateway, "consuming");
}

#[test]
fn a_batch_that_is_damaged_on_the_disk_is_told_and_passed() {
    let Some(jars) = jars() else { return };
    let folder = folder("damaged");
    let start = || Broker::start(jars, &folder, "").and_then(Broker::guarded).expect("a broker");
    let broker = start();
    broker.create_topic("jobs", 1).expect("a topic");
    let writer = Writer::new(&broker, "jobs");
    for text in ["first", "damaged", "second", "last"] {
        writer.put(&room_job("r", text));
        writer.flush();
    }
    drop(writer);
    broker.stop().expect("stopped");
    let log = folder.join("data/jobs-0/00000000000000000000.log");
    damage(&log, 1);
    damage(&log, 3);
    let broker = start();
    let gateway = unready(&broker.address(), "jobs", "start = \"earliest\"\n");
    until_dispatched(&gateway, 2);
    let mut client = client(&gateway, "k", "r");
    let writer = Writer::new(&broker, "jobs");
    writer.put(&room_job("r", "after all"));
    client.expect_push(1000, "after all");
    assert_eq!(source(&gateway)["missed"], 2);
    let log = gateway.log();
    let told = |line: &str| line.contains(r#""partition":0,"offset":1"#) && line.contains("a partition is read anew");
    assert!(log.lines().any(told), "{log}");
}

/// Turns some bits of the batch with this number around.
fn damage(log: &Path, number: u32) {
    let file = OpenOptions::new().read(true).write(true).open(log).expect("the partition's log");
    let mut at = 0;
    let length = |at: u64| {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at + 8).expect("a batch");
        u64::from(u32::from_be_bytes(bytes))
    };
    for _ in 0..number {
        at += 12 + length(at);
    }
    let place = at + 12 + length(at) - 4;
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, place).expect("its end");
    file.write_all_at(&bytes.map(|byte| !byte), place).expect("written");
}

#[test]
fn a_topic_made_anew_while_nobody_looked_is_read_from_where_it_is_new() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let positions = tempfile::tempdir().expect("a folder");
    let lines = format!("position_file = {:?}\n", positions.path().join("positions.json"));
    let first = gateway(broker, &topic, &lines);
    let writer = Writer::new(broker, &topic);
    for n in 0..5 {
        writer.put(&room_job("r", &n.to_string()));
    }
    writer.flush();
    until_dispatched(&first, 5);
    drop(writer);
    first.stop();
    remove_topic(broker, &topic);
    broker.create_topic(&topic, 1).expect("a topic");
    let writer = Writer::new(broker, &topic);
    writer.put(&room_job("r", "new"));
    writer.put(&room_job("r", "and new"));
    writer.flush();
    let second = gateway(broker, &topic, &lines);
    until_dispatched(&second, 2);
    assert!(second.log().contains("the position is gone"), "{}", second.log());
}

#[test]
fn the_marks_of_transactions_are_no_lag_and_what_was_taken_back_is_no_job() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let mut client = client(&gateway, "k", "r");
    let patience = Duration::from_secs(30);
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", broker.address())
        .set("transactional.id", &topic)
        .create()
        .expect("a producer");
    producer.init_transactions(patience).expect("a producer of transactions");
    for (text, commits) in [("kept", true), ("taken back", false), ("kept too", true)] {
        producer.begin_transaction().expect("begun");
        let job = room_job("r", text);
        let record = BaseRecord::<[u8], [u8]>::to(&topic).payload(job.value.as_deref().expect("a value")).key(b"k");
        producer.send(record).map_err(|(error, _)| error).expect("sent");
        producer.flush(patience).expect("written");
        if commits {
            producer.commit_transaction(patience).expect("committed");
            client.expect_push(1000, text);
        } else {
            producer.abort_transaction(patience).expect("aborted");
        }
    }
    let partition = || gateway.get("/v1/stats").json()["kafka"][0].clone();
    until("there is no lag", || {
        partition()["end"] == 6 && partition()["lag"] == 0 && partition()["lag_seconds"] == 0.0
    });
    client.expect_quiet();
}
