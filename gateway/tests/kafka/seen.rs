//! What an operator sees of Kafka: deliveries and their age, how far behind a partition is, and records that were gone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use xtask::kafka::Broker;

use crate::harness::{self, config, run};
use crate::pressure::{number, numbered, reading, start};
use crate::support::{Client, Transport, until};
use crate::world::{
    Wire, Writer, broker, client, gateway, metric, position_file, remove_before, room_job, sample, topic,
    until_dispatched,
};

const DELIVERIES: &str = "halley_kafka_delivery_seconds_count";

#[test]
fn deliveries_of_records_are_counted_each_with_the_age_of_its_record() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let login = r#"{"key":"ws","room_id":"r","accepts":[1000]}"#;
    let mut clients = [
        client(&gateway, "first", "r"),
        client(&gateway, "second", "r"),
        Client::login(gateway.ws(), Transport::WebSocket, login),
    ];
    let writer = Writer::new(broker, &topic);
    let to_keys = |keys: &'static str| Wire {
        headers: vec![("halley-keys", keys)],
        value: Some(b"to keys".to_vec()),
        ..Wire::default()
    };
    (0..50).for_each(|n| writer.put(&room_job("r", &n.to_string())));
    writer.put(&to_keys("first,ws,nobody"));
    writer.put(&room_job("a room without members", "x"));
    writer.flush();
    until_dispatched(&gateway, 52);
    // Each of three heard the room's, two the other one.
    until("all are counted", || metric(&gateway, DELIVERIES) == 50 * 3 + 2);
    let seconds = || sample::<f64>(&gateway.get("/metrics").body, "halley_kafka_delivery_seconds_sum");
    let young = seconds();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let half_a_minute_ago = i64::try_from(now).expect("before the end of time") - 30_000;
    writer.put(&Wire { timestamp: Some(half_a_minute_ago), ..room_job("r", "old") });
    writer.flush();
    until("these too", || metric(&gateway, DELIVERIES) == 51 * 3 + 2);
    let old = seconds() - young;
    assert!((90.0..180.0).contains(&old), "three deliveries of half a minute each, and {young} s of the others: {old}");
    // A call's push is a record like any other.
    gateway.push(&json!({"target": {"room": "r"}, "operation": 1000, "payload": {"text": "of the API"}}));
    until("the call's", || metric(&gateway, DELIVERIES) == 52 * 3 + 2);
    assert_eq!(metric(&gateway, "halley_kafka_dispatch_seconds_count"), 54);
    for client in &mut clients {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|last| last != "of the API") {
            let crate::support::Heard::Packet { body, .. } = client.hear() else { panic!("a push") };
            texts.push(String::from_utf8(body).expect("text"));
        }
        texts.retain(|text| text != "to keys");
        let expected = (0..50).map(|n| n.to_string()).chain(["old".into(), "of the API".into()]);
        assert_eq!(texts, expected.collect::<Vec<_>>());
    }
}

/// Lag of the one partition in records and in seconds, as the gateway's metrics say it.
async fn lag(gateway: &harness::Gateway) -> (u64, f64) {
    let metrics = gateway.get("/metrics").await;
    let seen = |unit: &str| format!("halley_kafka_lag_{unit}{{partition=\"0\"}}");
    (sample(metrics.text(), &seen("records")), sample(metrics.text(), &seen("seconds")))
}

async fn until_so(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let since = std::time::Instant::now();
    while !so().await {
        assert!(since.elapsed() < crate::support::PATIENCE, "not in time: {what}");
        monoio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Records that are written while shard 0 takes nothing, and how many of them it then has.
async fn held_back(gateway: &harness::Gateway, broker: &Broker, topic: &str, records: u32) -> u32 {
    let kafka = start(gateway);
    gateway.log_in(0, 1, r#"{"key":"a","accepts":[1]}"#).await;
    until_so("it reads", async || !kafka.stats().partitions().is_empty()).await;
    assert_eq!(lag(gateway).await, (0, 0.0), "nothing is there yet");
    let writer = Writer::new(broker, topic);
    (0..records).for_each(|n| writer.put(&numbered("a", n)));
    writer.flush();
    until_so("it is held back", async || kafka.stats().pauses.get() > 0 && lag(gateway).await.0 > 0).await;
    let position = kafka.stats().partition(0).position.load(std::sync::atomic::Ordering::Relaxed);
    let taken = u32::try_from(position).expect("an offset");
    until_so("all is seen", async || lag(gateway).await.0 == u64::from(records - taken)).await;
    taken
}

#[test]
fn lag_in_records_and_seconds_goes_up_while_a_shard_takes_nothing_and_then_down_to_nothing() {
    const RECORDS: u32 = 5000;
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    run(config(&reading(&broker.address(), &topic)), async |gateway| {
        let taken = held_back(gateway, broker, &topic, RECORDS).await;
        assert!(taken < RECORDS, "{taken} are in the shard's queue");
        let (_, before) = lag(gateway).await;
        until_so("a second more", async || lag(gateway).await.1 >= before + 1.0).await;
        for n in 0..RECORDS {
            assert_eq!(number(gateway.order(0).await), n);
        }
        until_so("no lag", async || lag(gateway).await == (0, 0.0)).await;
        let metrics = gateway.get("/metrics").await;
        assert_eq!(sample::<u64>(metrics.text(), "halley_kafka_pauses_total").min(1), 1);
        assert_eq!(sample::<u64>(metrics.text(), "halley_kafka_jobs_total{result=\"dispatched\"}"), u64::from(RECORDS));
        assert_eq!(sample::<u64>(metrics.text(), "halley_kafka_missed_total"), 0);
        gateway.app.kafka.get().expect("started").stop();
    });
}

#[test]
fn records_that_are_removed_before_a_partition_that_waits_goes_on_are_counted_as_missed() {
    const RECORDS: u32 = 5000;
    const REMOVED: u32 = 4000;
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    run(config(&reading(&broker.address(), &topic)), async |gateway| {
        let taken = held_back(gateway, broker, &topic, RECORDS).await;
        remove_before(broker, &topic, REMOVED.into());
        let missed = async || sample::<u64>(gateway.get("/metrics").await.text(), "halley_kafka_missed_total");
        until_so("it is noticed", async || missed().await > 0).await;
        assert_eq!(missed().await, u64::from(REMOVED - taken));
        for n in (0..taken).chain(REMOVED..RECORDS) {
            assert_eq!(number(gateway.order(0).await), n, "what was taken, and what is there");
        }
        until_so("no lag", async || lag(gateway).await == (0, 0.0)).await;
        assert!(gateway.is_quiet());
        assert_eq!(missed().await, u64::from(REMOVED - taken), "counted once");
        gateway.app.kafka.get().expect("started").stop();
    });
}

#[test]
fn records_that_retention_removed_while_the_gateway_was_away_are_counted_as_missed() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let home = tempfile::tempdir().expect("a folder");
    let writer = Writer::new(broker, &topic);
    (0..100).for_each(|n| writer.put(&room_job("r", &n.to_string())));
    writer.flush();
    let positions = format!(r#"{{"topic":"{topic}","next":{{"0":10}}}}"#);
    std::fs::write(home.path().join("positions.json"), positions).expect("writable");
    remove_before(broker, &topic, 60);
    let gateway = gateway(broker, &topic, &position_file(home.path()));
    until_dispatched(&gateway, 40);
    assert_eq!(metric(&gateway, "halley_kafka_missed_total"), 50);
    let log = gateway.log();
    let told = log.lines().find(|line| line.contains("the position is gone")).expect("a line of the log");
    assert!(["\"position\":10", "\"low\":60", "\"missed\":50"].iter().all(|part| told.contains(part)), "{told}");
    let mut client = client(&gateway, "k", "r");
    writer.put(&room_job("r", "on"));
    client.expect_push(1000, "on");
    until("its position is kept", || {
        let text = std::fs::read_to_string(home.path().join("positions.json")).expect("the file");
        text.contains(r#""0":101"#)
    });
}
