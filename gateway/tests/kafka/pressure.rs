//! Shards that take nothing for a while: the consumer waits, holds little, and loses nothing.

use std::sync::Arc;
use std::time::Duration;

use gateway::dispatch::Dispatch;
use gateway::order::Order;
use gateway::source::kafka::Kafka;

use crate::harness::{Gateway, OPEN, config, run};
use crate::world::{Wire, Writer, broker, topic};

/// Records of a kilobyte, more together than may come to be held.
const RECORDS: u32 = 90_000;

/// What may come to be held: 16 MiB weight in the shard's queue, and for the one partition what is fetched ahead.
const HELD_BYTES_MAX: u64 = 56 << 20;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A job for this key with a number and a kilobyte of payload.
pub(crate) fn numbered(key: &str, n: u32) -> Wire {
    let value = [
        format!("\u{10}\u{1}\u{32}\u{1}{key}").into_bytes(),
        b"\x3a\xe8\x07".to_vec(),
        n.to_be_bytes().into(),
        vec![b'x'; 996],
    ];
    Wire { value: Some(value.concat()), ..Wire::default() }
}

/// The number of such a job.
pub(crate) fn number(order: Order) -> u32 {
    let Order::Direct { payload, .. } = order else { panic!("{order:?}") };
    u32::from_be_bytes(*payload.inner()[16..].first_chunk().expect("a number"))
}

/// A configuration that reads this topic from its beginning.
pub(crate) fn reading(address: &str, topic: &str) -> String {
    format!("{OPEN}[kafka]\nbrokers = [\"{address}\"]\ntopic = \"{topic}\"\nstart = \"earliest\"\n")
}

/// Lets this gateway read, as the program does at its start.
pub(crate) fn start(gateway: &Gateway) -> &Kafka {
    let app = &gateway.app;
    let dispatch = Dispatch::new(Arc::clone(&app.directory), Arc::clone(&app.links));
    let config = app.config();
    let settings = config.settings.kafka.as_ref().expect("configured");
    let kafka = Kafka::start(settings, dispatch, Arc::clone(&app.links), Vec::new()).expect("a consumer");
    assert!(app.kafka.set(kafka).is_ok(), "started once");
    app.kafka.get().expect("just set")
}

#[test]
fn a_shard_that_takes_nothing_stops_its_partition_and_no_job_is_lost_or_overtaken() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 2);
    let writer = Writer::new(broker, &topic);
    let put = |partition, key: &str, n| writer.put(&Wire { partition: Some(partition), ..numbered(key, n) });
    for n in 0..RECORDS {
        put(0, "a", n);
        if n.is_multiple_of(1000) {
            writer.flush();
        }
    }
    for n in 0..100 {
        put(1, "b", n);
    }
    writer.flush();
    run(config(&reading(&broker.address(), &topic)), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"a","accepts":[1]}"#).await;
        gateway.log_in(1, 1, r#"{"key":"b","accepts":[1]}"#).await;
        let before = resident();
        let kafka = start(gateway);
        let stats = kafka.stats();
        // Shard 1 goes on while shard 0 takes nothing.
        for n in 0..100u32 {
            assert_eq!(number(gateway.order(1).await), n);
        }
        let mut position = 0;
        loop {
            monoio::time::sleep(Duration::from_millis(300)).await;
            let now = stats.partition(0).position.load(std::sync::atomic::Ordering::Relaxed);
            if now == position && now > 0 {
                break;
            }
            position = now;
        }
        let held = resident().saturating_sub(before);
        assert!(held < HELD_BYTES_MAX, "{held} bytes held");
        assert!(stats.pauses.get() >= 1 && position < i64::from(RECORDS), "stopped at {position}");
        assert!(stats.partition(0).lag() > 0);
        for n in 0..RECORDS {
            assert_eq!(number(gateway.order(0).await), n, "in order, none missing, none twice");
        }
        assert_eq!((stats.dispatched.get(), stats.repeats.get()), (u64::from(RECORDS) + 100, 0));
        assert!(gateway.is_quiet());
        kafka.stop();
    });
}
