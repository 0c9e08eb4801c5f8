//! Several gateways on one Kafka act as one: everybody is reached once, counted once, and missed when they are gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::kafka::Broker;

use crate::support::{Client, Gateway, Heard, until};
use crate::world::{
    Wire, Writer, broker, client, folder, gateway, jars, room_job, source, topic, unready, until_state,
};

/// Within so many milliseconds and a beat, a tenth of them, a node that died is missed: so `docs/kafka.md` states it.
const NODE_MS_MAX: u64 = 2000;
const MISSED_MS: u64 = NODE_MS_MAX + NODE_MS_MAX / 10;

/// For whoever else is at work on this machine, and for the calls that ask.
const ALLOWED_MS: u64 = 1500;

fn lines(nodes: &str) -> String {
    format!("nodes_topic = \"{nodes}\"\nnode_ms_max = {NODE_MS_MAX}\n")
}

fn nodes(gateway: &Gateway) -> Vec<Value> {
    gateway.get("/v1/nodes").json()["nodes"].as_array().expect("nodes").clone()
}

fn until_others(gateway: &Gateway, up: usize) {
    until(&format!("{up} other nodes: {:?}", nodes(gateway)), || {
        nodes(gateway).iter().filter(|node| node["this"] == false && node["state"] == "up").count() == up
    });
}

/// Size of a room as each call tells it.
fn sizes(gateway: &Gateway) -> [Value; 4] {
    let data = |uri: &str| gateway.get(uri).json()["data"].clone();
    [
        gateway.get("/v1/rooms/live%3A%2F%2F1").json()["members"].clone(),
        data("/goim/online/room?type=live&rooms=1")["1"].clone(),
        data("/goim/online/top?type=live&limit=1")[0]["count"].clone(),
        data("/goim/online/total")["conn_count"].clone(),
    ]
}

fn until_sizes(gateway: &Gateway, size: u64) {
    until(&format!("{size} everywhere: {:?}", sizes(gateway)), || sizes(gateway).iter().all(|seen| *seen == size));
}

/// The room's size as a heartbeat tells it.
fn heartbeat(client: &mut Client) -> u32 {
    let body = client.ask(halley_protocol::operation::HEARTBEAT, b"");
    u32::from_be_bytes(*body.first_chunk().expect("a count"))
}

#[test]
fn a_room_over_two_nodes_gets_every_message_once_and_loses_only_who_died() {
    const JOBS: u32 = 2000;
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 4);
    let nodes_topic = format!("{jobs}-nodes");
    let mut gateways = [(); 2].map(|()| Some(gateway(broker, &jobs, &lines(&nodes_topic))));
    let both = || gateways.iter().flatten();
    let mut clients: Vec<Client> = both()
        .enumerate()
        .flat_map(|(at, gateway)| (0..3).map(move |n| client(gateway, &format!("{at}-{n}"), "live://1")))
        .collect();
    for gateway in both() {
        until_others(gateway, 1);
        until_sizes(gateway, 6);
    }
    until("a heartbeat says so too", || heartbeat(&mut clients[0]) == 6 && heartbeat(&mut clients[5]) == 6);
    let writer = Writer::new(broker, &jobs);
    for n in 0..JOBS {
        writer.put(&room_job("live://1", &n.to_string()));
    }
    for client in &mut clients {
        for n in 0..JOBS {
            client.expect_push(1000, &n.to_string());
        }
        client.expect_quiet();
    }

    // SIGKILL for the second one, while messages come.
    let survivors: Vec<Client> = clients.drain(..3).collect();
    let readers = survivors.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            for n in 0..JOBS {
                client.expect_push(1000, &n.to_string());
            }
            client.expect_quiet();
            client
        })
    });
    let readers: Vec<_> = readers.collect();
    let mut died = None;
    for n in 0..JOBS {
        writer.put(&room_job("live://1", &n.to_string()));
        if n.is_multiple_of(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if n == JOBS / 2 {
            drop(gateways[1].take());
            died = Some(Instant::now());
        }
    }
    let left = gateways[0].as_ref().expect("it lives");
    until_sizes(left, 3);
    let since = died.expect("killed").elapsed();
    assert!(since < Duration::from_millis(MISSED_MS + ALLOWED_MS), "{since:?}");
    let mut survivors: Vec<Client> = readers.into_iter().map(|reader| reader.join().expect("undisturbed")).collect();
    until("a heartbeat says so too", || heartbeat(&mut survivors[0]) == 3);
    let seen = nodes(left);
    assert_eq!((seen[0]["state"].as_str(), seen[1]["state"].as_str()), (Some("up"), Some("gone")), "{seen:?}");
    let metrics = left.get("/metrics").body;
    for line in ["halley_kafka_nodes{state=\"up\"} 0", "halley_kafka_nodes{state=\"gone\"} 1"] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

/// Rooms as goim v1's API counts them.
fn counts_of_v1(gateways: &[&Gateway]) -> Vec<Value> {
    let count = |gateway: &&Gateway| gateway.call_v1("GET", "/1/count?type=room", "").json()["data"].clone();
    gateways.iter().map(count).collect()
}

#[test]
fn a_node_that_stops_in_order_is_missed_at_once_and_one_that_comes_is_counted() {
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 1);
    let api_v1 = "[api_v1]\nbind = \"127.0.0.1:0\"\nauth = \"none\"\n";
    let lines = format!("nodes_topic = \"{jobs}-nodes\"\nnode_ms_max = 600000\n{api_v1}");
    let first = gateway(broker, &jobs, &lines);
    let _in_first = client(&first, "a", "live://1");
    let second = gateway(broker, &jobs, &lines);
    let _in_second = client(&second, "b", "live://1");
    until_sizes(&first, 2);
    until_sizes(&second, 2);
    let ids: BTreeSet<String> = nodes(&first).iter().map(|node| node["node"].to_string()).collect();
    assert_eq!(ids, nodes(&second).iter().map(|node| node["node"].to_string()).collect(), "they call each other alike");
    let instances = first.get("/goim/nodes/instances").json();
    assert_eq!(instances["data"].as_array().map(Vec::len), Some(2), "{instances}");
    assert_eq!(instances["data"][1]["metadata"]["conn_count"], "1", "{instances}");
    let v1 = || counts_of_v1(&[&first, &second]);
    let in_rooms_of_v1 = [client(&first, "c", "7"), client(&second, "d", "7"), client(&second, "e", "8")];
    let expected = json!([{"RoomId": 7, "Count": 2}, {"RoomId": 8, "Count": 1}]);
    until("goim v1's count is of both", || v1().iter().all(|count| *count == expected));
    drop(in_rooms_of_v1);
    until("they have left both", || v1().iter().all(|count| *count == json!([])));
    second.stop();
    // Long before it would count as dead.
    until_sizes(&first, 1);
    until_others(&first, 0);
    assert_eq!(nodes(&first).len(), 1);
}

#[test]
fn a_kick_reaches_every_node() {
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 1);
    let gateways = [(); 2].map(|()| gateway(broker, &jobs, &lines(&format!("{jobs}-nodes"))));
    for gateway in &gateways {
        until_others(gateway, 1);
    }
    let mut there = client(&gateways[1], "k", "r");
    let answer = gateways[0].call("DELETE", "/v1/connections/k?reason=test", "", "");
    assert_eq!((answer.status, answer.json()), (200, json!({"key": "k", "closed": 0, "told": 1})));
    assert!(matches!(there.hear(), Heard::End), "ended");
    until("its node says so", || gateways[1].log().contains("another node was called"));
}

#[test]
fn a_revocation_reaches_every_node_and_those_that_start_before_it_ends() {
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 1);
    let start = || gateway(broker, &jobs, &lines(&format!("{jobs}-nodes")));
    let gateways = [start(), start()];
    for gateway in &gateways {
        until_others(gateway, 1);
    }
    let mut there = client(&gateways[1], "k", "r");
    let json = "Content-Type: application/json\r\n";
    let answer = gateways[0].call("POST", "/v1/revocations", json, r#"{"key":"k","until":4000000000}"#);
    assert_eq!((answer.status, answer.json()), (200, json!({"closed": 0, "told": 1, "until": 4_000_000_000_u64})));
    assert!(matches!(there.hear(), Heard::End), "ended");
    let later = start();
    until("one that started later knows of it", || later.log().contains("\"event\":\"revoke\""));
}

#[test]
fn bad_records_in_the_nodes_topic_hurt_nobody() {
    let Some(broker) = broker() else { return };
    let jobs = topic(broker, 1);
    let nodes_topic = topic(broker, 1);
    let first = gateway(broker, &jobs, &lines(&nodes_topic));
    let writer = Writer::new(broker, &nodes_topic);
    let put = |key: &[u8], value: Option<&[u8]>| {
        writer.put(&Wire { key: Some(key.into()), value: value.map(Into::into), ..Wire::default() });
    };
    for n in 0..1000u32 {
        put(format!("beat/{n}").as_bytes(), Some(b"junk"));
        put(&n.to_le_bytes(), Some(b"\xffHN0\x01\0\0\0\0\0\0\0\0\0\0\0"));
        put(b"rooms/nobody/1", None);
    }
    writer.flush();
    until("all are counted", || {
        let rejects = source(&first)["nodes"]["rejects"].clone();
        rejects["envelope-length"].as_u64().unwrap_or(0) + rejects["bad-name"].as_u64().unwrap_or(0) >= 2000
    });
    let second = gateway(broker, &jobs, &lines(&nodes_topic));
    until_others(&first, 1);
    until_others(&second, 1);
    assert!(first.log().contains("is not compacted"), "said of a topic that the test made");
    assert!(first.log().lines().filter(|line| line.contains("nodes-reject")).count() < 100);
}

#[test]
fn nodes_find_each_other_again_when_the_broker_comes_back() {
    let Some(jars) = jars() else { return };
    let folder = folder("nodes");
    let start = || Broker::start(jars, &folder, "").and_then(Broker::guarded).expect("a broker");
    let broker = start();
    let jobs = topic(&broker, 1);
    let lines = lines("nodes");
    let first = gateway(&broker, &jobs, &lines);
    let _in_first = client(&first, "a", "live://1");
    let second = gateway(&broker, &jobs, &lines);
    let _in_second = client(&second, "b", "live://1");
    until_sizes(&first, 2);
    broker.kill().expect("killed");
    until("it is told", || source(&first)["nodes"]["state"] == "broker-away");
    std::thread::sleep(Duration::from_millis(2 * NODE_MS_MAX));
    assert_eq!(sizes(&first)[0], 2, "nobody is declared gone while nothing is heard of anybody");
    let _third = client(&second, "c", "live://1");
    let broker = start();
    until_sizes(&first, 3);
    until_state(&second, "consuming");
    drop(broker);
}

#[test]
fn a_topic_that_the_brokers_do_not_let_be_made_is_asked_for_and_used_when_it_is_there() {
    let Some(jars) = jars() else { return };
    // More copies than there are brokers: it says no to whoever leaves their number to it.
    let start = Broker::start(jars, &folder("no-topics"), "default.replication.factor=3");
    let broker = start.and_then(Broker::guarded).expect("a broker");
    let gateway = unready(&broker.address(), &topic(&broker, 1), &lines("nodes"));
    until("it is told", || source(&gateway)["nodes"]["state"] == "topic-missing");
    let detail = source(&gateway)["nodes"]["detail"].to_string();
    assert!(detail.contains("create it with one partition and cleanup.policy=compact"), "{detail}");
    until_state(&gateway, "consuming");
    broker.create_topic("nodes", 1).expect("a topic");
    until("it is used", || source(&gateway)["nodes"]["state"] == "consuming");
}
