//! SIGKILL for the broker and for the gateway, under load.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use xtask::kafka::Broker;

use crate::support::{Client, Gateway, Heard};
use crate::world::{
    Writer, broker, client, folder, gateway, jars, room_job, source, topic, unready, until_dispatched, until_state,
};

/// Hears this many pushes, which must be these numbers in order.
fn expect_numbers(client: &mut Client, numbers: std::ops::Range<u32>) {
    for n in numbers {
        client.expect_push(1000, &n.to_string());
    }
}

#[test]
fn a_broker_killed_under_load_costs_no_acknowledged_job_and_no_order() {
    const JOBS: u32 = 6000;
    let Some(jars) = jars() else { return };
    let folder = folder("killed");
    let start = || Broker::start(jars, &folder, "").and_then(Broker::guarded).expect("a broker");
    let broker = start();
    let topic = topic(&broker, 4);
    let gateway = gateway(&broker, &topic, "");
    let rooms = ["a", "b", "c"];
    let clients = rooms.map(|room| client(&gateway, room, room));
    let writer = Writer::new(&broker, &topic);
    let readers = clients.map(|mut client| {
        thread::spawn(move || {
            expect_numbers(&mut client, 0..JOBS);
            client.expect_quiet();
        })
    });
    let mut broker = Some(broker);
    for n in 0..JOBS {
        for room in rooms {
            writer.put(&room_job(room, &n.to_string()));
        }
        if n.is_multiple_of(10) {
            thread::sleep(Duration::from_millis(5));
        }
        if n == JOBS / 3 {
            assert!(writer.acknowledged() > 0, "killed while jobs are on their way");
            broker.take().expect("running").kill().expect("killed");
            broker = Some(start());
        }
    }
    writer.flush();
    assert_eq!(writer.acknowledged(), JOBS as usize * rooms.len());
    for reader in readers {
        reader.join().expect("every job once, in order");
    }
    let source = source(&gateway);
    assert_eq!(source["dispatched"], JOBS * 3, "{source}");
    assert_eq!(source["repeats"], 0, "{source}");
    gateway.settled();
}

/// The gateway starts while the broker stands still, so that its client is there before the first job is.
fn restarted(broker: &Broker, topic: &str, lines: &str) -> (Gateway, Client) {
    broker.signal("STOP").expect("stopped");
    let gateway = unready(&broker.address(), topic, lines);
    let client = client(&gateway, "k", "r");
    broker.signal("CONT").expect("goes on");
    until_state(&gateway, "consuming");
    (gateway, client)
}

fn lines(folder: &Path) -> String {
    format!("position_file = \"{}\"\n", folder.join("positions.json").display())
}

/// What the position file says of partition 0.
fn position(folder: &Path) -> Option<i64> {
    let text = fs::read_to_string(folder.join("positions.json")).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["next"]["0"].as_i64()
}

#[test]
fn a_gateway_killed_under_load_goes_on_from_its_position_file_and_skips_no_job() {
    const JOBS: u32 = 8000;
    let Some(jars) = jars() else { return };
    let broker = Broker::start(jars, &folder("stopped"), "").and_then(Broker::guarded).expect("a broker");
    let topic = topic(&broker, 1);
    let home = tempfile::tempdir().expect("a folder");
    let lines = lines(home.path());
    let first = gateway(&broker, &topic, &lines);
    let mut client = client(&first, "k", "r");
    let address = broker.address();
    let writer = Writer::new(&broker, &topic);
    let load = thread::spawn(move || {
        for n in 0..JOBS {
            writer.put(&room_job("r", &n.to_string()));
            thread::sleep(Duration::from_micros(500));
        }
        writer.flush();
    });
    // Some are heard, a position is kept, then the process is gone in the middle of it.
    let kept = || position(home.path()).is_some_and(|next| next > 0);
    let mut heard = 0;
    while heard < 1500 || !kept() {
        expect_numbers(&mut client, heard..heard + 1);
        heard += 1;
    }
    drop(first);
    while let Some(Heard::Packet { body, .. }) = client.hear_within(Duration::from_secs(5)) {
        assert_eq!(body, heard.to_string().into_bytes());
        heard += 1;
    }
    assert!(heard < JOBS, "killed under load");
    load.join().expect("every job is acknowledged");
    assert_eq!(address, broker.address());

    let (second, mut client) = restarted(&broker, &topic, &lines);
    let Heard::Packet { body, .. } = client.hear() else { panic!("a push") };
    let next: u32 = String::from_utf8(body).expect("a number").parse().expect("a number");
    assert!(
        (1..=heard).contains(&next),
        "went on at {next}, {heard} were heard: none is skipped, and not all repeated"
    );
    expect_numbers(&mut client, next + 1..JOBS);

    // Ended in order there is nothing to repeat either.
    until_dispatched(&second, u64::from(JOBS - next));
    second.stop();
    let (third, mut client) = restarted(&broker, &topic, &lines);
    Writer::new(&broker, &topic).put(&room_job("r", "after"));
    client.expect_push(1000, "after");
    assert_eq!(source(&third)["dispatched"], 1);
}

#[test]
fn a_position_that_the_topic_no_longer_has_is_told_and_the_partition_goes_on() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let home = tempfile::tempdir().expect("a folder");
    let positions = format!(r#"{{"topic":"{topic}","next":{{"0":99}}}}"#);
    fs::write(home.path().join("positions.json"), positions).expect("writable");
    let gateway = gateway(broker, &topic, &lines(home.path()));
    let mut client = client(&gateway, "k", "r");
    Writer::new(broker, &topic).put(&room_job("r", "on"));
    client.expect_push(1000, "on");
    assert!(gateway.log().contains("the position is gone"));
}
