//! SIGKILL for the broker and for the gateway, under load.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gateway::source::JOB_LIMITS;
use halley_protocol::job::{self, Format, JobTarget, Record};
use rdkafka::message::{Message as _, OwnedMessage};
use serde_json::{Value, json};
use xtask::kafka::Broker;

use crate::support::{Client, Gateway, Heard, until};
use crate::world::{
    Writer, broker, client, folder, gateway, jars, position_file, records, room_job, source, topic, unready,
    until_dispatched, until_state,
};

/// Hears this many pushes, which must be these numbers in order.
fn expect_numbers(client: &mut Client, numbers: std::ops::Range<u32>) {
    for n in numbers {
        client.expect_push(1000, &n.to_string());
    }
}

/// Rooms that a program produces jobs for, and rooms that callers of the API push to.
const PRODUCED: [&str; 3] = ["a", "b", "c"];
const CALLED: [&str; 2] = ["d", "e"];

/// What goes on while the broker dies and comes back, until it is told to stop.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    produced: AtomicU32,
    taken: AtomicU32,
    told: AtomicU32,
}

/// One caller's pushes: numbers with the places that the answers named, and numbers that were answered with 503.
#[derive(Default)]
struct Called {
    taken: BTreeMap<u32, (i32, i64)>,
    told: BTreeSet<u32>,
}

impl Called {
    /// Checks it against what the room's client heard and what the topic has; how many were heard.
    fn check(&self, room: &str, heard: Vec<u32>, places: &Places) -> u64 {
        let Self { taken, told } = self;
        assert!(heard.is_sorted_by(|a, b| a < b), "in order, and none twice: {heard:?}");
        let heard: BTreeSet<u32> = heard.into_iter().collect();
        let lost: Vec<_> = taken.keys().filter(|n| !heard.contains(n)).collect();
        assert!(lost.is_empty(), "answered with 200 and not delivered: {lost:?}");
        // Whoever is told 503 may find it delivered all the same.
        assert!(heard.iter().all(|n| taken.contains_key(n) || told.contains(n)));
        for (n, place) in taken {
            assert_eq!(places.get(place), Some(&(room.to_owned(), n.to_string())), "where the answer says");
        }
        assert!(taken.values().is_sorted_by(|a, b| a < b), "one partition, in order");
        heard.len() as u64
    }
}

impl Load {
    /// Numbered jobs for every room, whether there is a broker or not.
    fn produce(&self, writer: &Writer) {
        let mut next = 0;
        while !self.stop.load(Ordering::Acquire) {
            for room in PRODUCED {
                writer.put(&room_job(room, &next.to_string()));
            }
            next = self.produced.fetch_add(1, Ordering::AcqRel) + 1;
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Numbered pushes, one call at a time.
    fn call(&self, gateway: &Gateway, room: &str) -> Called {
        let mut called = Called::default();
        for n in 0.. {
            if self.stop.load(Ordering::Acquire) {
                break;
            }
            let push = push(room, &n.to_string()).to_string();
            let answer = gateway.call("POST", "/v1/push", "Content-Type: application/json\r\n", &push);
            let result = answer.json();
            match answer.status {
                200 => {
                    let number = |key: &str| result["results"][0][key].as_i64().expect("a number");
                    let partition = i32::try_from(number("partition")).expect("few");
                    called.taken.insert(n, (partition, number("offset")));
                    self.taken.fetch_add(1, Ordering::AcqRel);
                }
                503 => {
                    assert_eq!(result["error"]["code"], "unacknowledged", "{result}");
                    called.told.insert(n);
                    self.told.fetch_add(1, Ordering::AcqRel);
                }
                other => panic!("{other}: {result}"),
            }
            thread::sleep(Duration::from_millis(5));
        }
        called
    }
}

fn push(room: &str, text: &str) -> Value {
    json!({"target": {"room": room}, "operation": 1000, "payload": {"text": text}})
}

/// Ends the load, also when a test fails.
struct Ends<'a>(&'a Load);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// The numbers of a room's jobs as its client hears them, up to "end".
fn hear_all(mut client: Client) -> JoinHandle<Vec<u32>> {
    thread::spawn(move || {
        let mut numbers = Vec::new();
        loop {
            // As long as a broker may take to come back.
            let heard = client.hear_within(Duration::from_mins(1));
            let Some(Heard::Packet { operation: 1000, body, .. }) = heard else { panic!("{heard:?}") };
            if body == b"end" {
                client.expect_quiet();
                return numbers;
            }
            numbers.push(String::from_utf8(body).expect("text").parse().expect("a number"));
        }
    })
}

/// Room and number of each record that the topic has, by its place.
type Places = BTreeMap<(i32, i64), (String, String)>;

fn places(broker: &Broker, topic: &str) -> Places {
    let read = |record: &OwnedMessage| {
        let value = record.payload().expect("a value");
        let job = job::read(&Record { value, ..Record::default() }, Format::Auto, &JOB_LIMITS).expect("a job");
        let JobTarget::Room(room) = job.target else { panic!("{:?}", job.target) };
        let text = String::from_utf8(job.payload.into_owned()).expect("text");
        ((record.partition(), record.offset()), (room, text))
    };
    records(broker, topic, 4).iter().map(read).collect()
}

#[test]
fn a_broker_killed_under_load_costs_no_acknowledged_job_and_no_order() {
    let Some(jars) = jars() else { return };
    let folder = folder("killed");
    let start = || Broker::start(jars, &folder, "").and_then(Broker::guarded).expect("a broker");
    let broker = start();
    let topic = topic(&broker, 4);
    let gateway = gateway(&broker, &topic, "produce_ms_max = 1000\n");
    let [produced, called] = [&PRODUCED[..], &CALLED]
        .map(|rooms| rooms.iter().map(|room| hear_all(client(&gateway, room, room))).collect::<Vec<_>>());
    let (writer, load) = (Writer::new(&broker, &topic), Load::default());
    let (broker, calls) = thread::scope(|scope| {
        let ends = Ends(&load);
        scope.spawn(|| load.produce(&writer));
        let calls = CALLED.map(|room| scope.spawn(|| load.call(&gateway, room)));
        let goes_on = || {
            let (acknowledged, taken) = (writer.acknowledged(), load.taken.load(Ordering::Acquire));
            until("jobs of both kinds are acknowledged", || {
                writer.acknowledged() > acknowledged + 500 && load.taken.load(Ordering::Acquire) > taken + 20
            });
        };
        goes_on();
        broker.kill().expect("killed");
        let before = load.produced.load(Ordering::Acquire);
        until("every caller is told", || load.told.load(Ordering::Acquire) >= 4);
        let broker = start();
        let meanwhile = load.produced.load(Ordering::Acquire) - before;
        assert!(meanwhile > 100, "{meanwhile} jobs for each room while there was no broker");
        goes_on();
        drop(ends);
        (broker, calls.map(|call| call.join().expect("a caller that lives")))
    });
    writer.flush();
    let jobs = load.produced.load(Ordering::Acquire);
    assert_eq!(writer.acknowledged(), jobs as usize * PRODUCED.len());
    for room in PRODUCED {
        writer.put(&room_job(room, "end"));
    }
    writer.flush();
    // By the way that the room's other jobs took, which leads to another partition.
    for room in CALLED {
        gateway.push(&push(room, "end"));
    }

    let mut all = u64::from(jobs) * PRODUCED.len() as u64 + (PRODUCED.len() + CALLED.len()) as u64;
    for heard in produced {
        let numbers = heard.join().expect("a client that lives");
        let duplicates = numbers.len() - numbers.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(duplicates, 0);
        assert!(numbers.iter().copied().eq(0..jobs), "every job, in order: {numbers:?}");
    }
    let places = places(&broker, &topic);
    for ((room, heard), called) in CALLED.iter().zip(called).zip(&calls) {
        all += called.check(room, heard.join().expect("a client that lives"), &places);
    }
    until_dispatched(&gateway, all);
    assert_eq!(places.len() as u64, all, "the topic has nothing twice either");
    let source = source(&gateway);
    assert_eq!((&source["repeats"], &source["duplicates"]), (&0.into(), &0.into()), "{source}");
    let of = |count: &AtomicU32| u64::from(count.load(Ordering::Acquire));
    assert_eq!(
        source["produced"].as_u64().zip(source["produce_failed"].as_u64()),
        Some((of(&load.taken) + CALLED.len() as u64, of(&load.told)))
    );
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
    let lines = position_file(home.path());
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
    let gateway = gateway(broker, &topic, &position_file(home.path()));
    let mut client = client(&gateway, "k", "r");
    Writer::new(broker, &topic).put(&room_job("r", "on"));
    client.expect_push(1000, "on");
    assert!(gateway.log().contains("the position is gone"));
}
