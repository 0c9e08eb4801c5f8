//! What the brokers refuse: whoever calls is told so, nothing is lost in silence, and it mends itself with its cause.
//!
//! Errors that no real broker can be made to give at will come from librdkafka's own mock of a cluster.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};

use crate::support::{Gateway, until};
use crate::world::{Wire, Writer, broker, client, configure, gateway, room_job, source, topic, unready, until_state};

const TOPIC_DENIED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
const CLUSTER_DENIED: RDKafkaRespErr = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;

fn mocked(topics: &[&str]) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).expect("a cluster");
    for topic in topics {
        cluster.create_topic(topic, 1, 1).expect("a topic");
    }
    cluster
}

/// The status of a push, and its error.
fn push(gateway: &Gateway, text: &str) -> (u16, Value) {
    let push = json!({ "target": { "room": "r" }, "operation": 1000, "payload": { "text": text } });
    let answer = gateway.call("POST", "/v1/push", "Content-Type: application/json\r\n", &push.to_string());
    (answer.status, answer.json()["error"].clone())
}

/// Why a push was refused, and is surely not written.
fn refused((status, error): (u16, Value)) -> String {
    assert_eq!((status, &error["code"]), (503, &json!("refused")), "{error}");
    error["message"].as_str().expect("a sentence").to_owned()
}

#[test]
fn a_right_to_write_that_comes_later_is_used_when_it_comes() {
    let cluster = mocked(&["jobs"]);
    cluster.request_errors(RDKafkaApiKey::InitProducerId, &[CLUSTER_DENIED; 1000]);
    let gateway = unready(&cluster.bootstrap_servers(), "jobs", "");
    until_state(&gateway, "consuming");
    until("told", || source(&gateway)["producer"]["state"] == "refused");
    for text in ["one", "two"] {
        let said = refused(push(&gateway, text));
        assert!(said.contains("not written") && said.contains("authorization failed"), "{said}");
    }
    let metrics = gateway.get("/metrics").body;
    assert!(metrics.contains("halley_kafka_producer_state{producer=\"jobs\",state=\"refused\"} 1\n"), "{metrics}");
    until("another is tried", || source(&gateway)["producer"]["made_anew"].as_u64() > Some(1));
    let log = gateway.log();
    let told = log.lines().filter(|line| line.contains("a producer ends; another takes its place"));
    assert_eq!(told.count(), 1, "once, however often it is tried: {log}");

    let mut client = client(&gateway, "k", "r");
    cluster.clear_request_errors(RDKafkaApiKey::InitProducerId);
    until("written", || push(&gateway, "three").0 == 200);
    client.expect_push(1000, "three");
    let producer = source(&gateway)["producer"].clone();
    assert_eq!((&producer["state"], &producer["detail"]), (&json!("ready"), &json!("")));
}

#[test]
fn a_producer_that_the_brokers_do_not_know_any_more_gives_way_to_another() {
    let cluster = mocked(&["jobs"]);
    let gateway = unready(&cluster.bootstrap_servers(), "jobs", "");
    until_state(&gateway, "consuming");
    let mut client = client(&gateway, "k", "r");
    assert_eq!(push(&gateway, "one").0, 200);
    let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[lost]);
    let (status, error) = push(&gateway, "two");
    // The broker may have it.
    assert_eq!((status, &error["code"]), (503, &json!("unacknowledged")), "{error}");
    until("written", || push(&gateway, "three").0 == 200);
    assert_eq!(source(&gateway)["producer"]["made_anew"], 1);
    assert!(gateway.log().contains("OutOfOrderSequenceNumber"), "{}", gateway.log());
    client.expect_push(1000, "one");
    client.expect_push(1000, "three");
}

#[test]
fn a_refused_topic_is_told_as_that_and_not_as_a_slow_broker() {
    let cluster = mocked(&["jobs", "nodes"]);
    let gateway = unready(&cluster.bootstrap_servers(), "jobs", "nodes_topic = \"nodes\"\nnode_ms_max = 1000\n");
    until_state(&gateway, "consuming");
    let nodes = || source(&gateway)["nodes"].clone();
    until("the nodes' topic is read", || nodes()["state"] == "consuming");
    // For what is said to other nodes too, ten times a second.
    cluster.request_errors(RDKafkaApiKey::Produce, &[TOPIC_DENIED; 1000]);
    let said = refused(push(&gateway, "one"));
    assert!(said.contains("topic authorization failed") && !said.contains("produce_ms_max"), "{said}");
    let producer = source(&gateway)["producer"].clone();
    assert_eq!((&producer["state"], &producer["made_anew"]), (&json!("refused"), &json!(0)));
    until("nodes: refused", || nodes()["state"] == "refused");
    assert!(nodes()["detail"].as_str().is_some_and(|detail| detail.contains("authorization")), "{}", nodes());
    cluster.clear_request_errors(RDKafkaApiKey::Produce);
    until("written", || push(&gateway, "two").0 == 200);
    until("nodes: consuming", || nodes()["state"] == "consuming");
    assert_eq!(source(&gateway)["producer"]["state"], "ready");
}

#[test]
fn a_call_is_answered_in_its_time_though_the_library_looks_once_a_second() {
    let cluster = mocked(&["jobs"]);
    let gateway = unready(&cluster.bootstrap_servers(), "jobs", "produce_ms_max = 100\n");
    until_state(&gateway, "consuming");
    until("written", || push(&gateway, "first").0 == 200);
    cluster.broker_round_trip_time(1, Duration::from_mins(1)).expect("slow");
    let begun = Instant::now();
    for _ in 0..10 {
        let (status, error) = push(&gateway, "x");
        assert_eq!((status, &error["code"]), (503, &json!("unacknowledged")), "{error}");
    }
    // Ten times a tenth of a second, and much for whoever else is at work here; not ten times a second.
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}

#[test]
fn messages_of_clients_are_passed_on_again_by_a_new_producer() {
    let cluster = mocked(&["jobs", "said"]);
    let upstream = "[upstream]\nkafka_topic = \"said\"\nmessages_per_second_max = 0\n";
    let gateway = unready(&cluster.bootstrap_servers(), "jobs", upstream);
    until_state(&gateway, "consuming");
    let mut client = client(&gateway, "k", "r");
    client.send(4, 1, b"one");
    client.expect(5, 1, b"");
    let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[lost]);
    client.send(4, 2, b"two");
    client.expect(5, 2, br#"{"refused":"place-away"}"#);
    until("another", || source(&gateway)["upstream"]["made_anew"] == 1);
    client.send(4, 3, b"three");
    client.expect(5, 3, b"");
    assert_eq!(source(&gateway)["producer"]["made_anew"], 0, "the API's own goes on");
}

#[test]
fn what_is_too_large_is_what_the_brokers_say() {
    let Some(broker) = broker() else { return };
    let (jobs, letters) = (topic(broker, 1), topic(broker, 1));
    configure(broker, &jobs, "max.message.bytes", "2000000");
    configure(broker, &letters, "max.message.bytes", "2000000");
    let gateway = gateway(broker, &jobs, &format!("dead_letter_topic = \"{letters}\"\n"));
    let mut client = client(&gateway, "k", "r");
    // More than the client library takes by itself, less than the API.
    let large = "x".repeat(1_040_000);
    until("the broker goes by its topic's configuration", || push(&gateway, &large).0 == 200);
    client.expect_push(1000, &large);

    let writer = Writer::with(&broker.address(), &jobs, &[("message.max.bytes", "8000000")]);
    let field = |bytes: &str| room_job("r", bytes).value;
    writer.put(&Wire { value: field(&"x".repeat(1_500_000)), ..Wire::default() });
    writer.flush();
    until("buried", || source(&gateway)["dead_letters"] == 1);
    assert_eq!(source(&gateway)["rejects"]["too-large"], 1);

    configure(broker, &jobs, "max.message.bytes", "1000000");
    until("and by the new one", || {
        let (status, error) = push(&gateway, &large);
        assert!(status == 200 || (status, &error["code"]) == (413, &json!("too-large")), "{status} {error}");
        status == 413
    });
}

#[test]
fn dead_letters_that_are_lost_are_counted_and_told() {
    const POISON: u64 = 200;
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 1);
    let gateway = gateway(broker, &jobs, "dead_letter_topic = \"no-such-topic\"\nproduce_ms_max = 1000\n");
    let writer = Writer::new(broker, &jobs);
    let poison = [vec![0xfe], vec![b'z'; 200_000]].concat();
    for n in 0..POISON {
        writer.put(&Wire { value: Some(poison.clone()), ..Wire::default() });
        if n.is_multiple_of(50) {
            writer.flush();
        }
    }
    writer.flush();
    until("each is accounted for", || source(&gateway)["dead_letters_failed"] == POISON);
    assert_eq!(source(&gateway)["rejects"]["unknown-format"], POISON);
    let log = gateway.log();
    let told: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("\"kafka-dead-letter\""))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!((1..20).contains(&told.len()), "about once a second: {}", told.len());
    assert!(told[0]["problem"].is_string() && told[0]["records"].as_u64() >= Some(1), "{}", told[0]);
}
