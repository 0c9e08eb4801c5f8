//! Messages of clients into a topic: what a record is, and that nothing acknowledged is ever missing.

use clap::Parser as _;
use rdkafka::message::{Message as _, OwnedMessage};
use xtask::kafka::Broker;

use crate::support::talk::{Talked, check, talk, text};
use crate::support::{Client, Gateway, Heard, Transport, until};
use crate::world::{folder, gateway, headers, jars, metric, records, topic};

const SEND: i32 = 4;
const REPLY: i32 = 5;

/// Key and sequence of each record.
fn said(records: &[OwnedMessage]) -> Vec<(String, i32)> {
    let said = |record: &OwnedMessage| {
        let key = String::from_utf8(record.key().expect("a key").to_vec()).expect("text");
        let sequence = headers(record).into_iter().find(|(name, _)| name == "halley-sequence").expect("a sequence").1;
        let sequence = sequence.parse().expect("a number");
        assert_eq!(record.payload().expect("a value"), text(&key, sequence).as_bytes());
        (key, sequence)
    };
    records.iter().map(said).collect()
}

fn passing(broker: &Broker, upstream: &str, lines: &str) -> Gateway {
    let jobs = topic(broker, 1);
    gateway(
        broker,
        &jobs,
        &format!(
            "[nodes]\nname = \"node\"\n[upstream]\nkafka_topic = \"{upstream}\"\nmessages_per_second_max = 0\n{lines}"
        ),
    )
}

fn joined(talkers: Vec<std::thread::JoinHandle<Talked>>) -> Vec<Talked> {
    talkers.into_iter().map(|talker| talker.join().expect("a client that lives")).collect()
}

#[test]
fn a_record_is_what_the_client_said_and_what_the_gateway_knows_of_it() {
    let Some(broker) = crate::world::broker() else { return };
    let upstream = topic(broker, 2);
    let gateway = passing(broker, &upstream, "operations = [4, \"1000-1999\"]\n");
    let login = r#"{"mid":7,"key":"device","room_id":"live://1","halley":1}"#;
    let mut client = Client::login(gateway.ws(), Transport::WebSocket, login);
    client.ask(halley_protocol::operation::JOIN, b"second");
    client.send(SEND, 77, &[0, 0xff, b'x']);
    client.expect(REPLY, 77, b"");
    client.send(1500, -3, b"");
    client.expect(1500, -3, b"");
    let records = records(broker, &upstream, 2);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0].partition(), records[1].partition(), "all of a key");
    for (record, operation, sequence, body) in
        [(&records[0], "4", "77", &[0, 0xff, b'x'][..]), (&records[1], "1500", "-3", b"")]
    {
        assert_eq!((record.key(), record.payload().unwrap_or_default()), (Some(&b"device"[..]), body));
        let mut found = headers(record);
        let at = found.iter().position(|(name, _)| name == "halley-time-ms").expect("a time");
        let (_, time) = found.remove(at);
        assert!(time.parse::<u64>().expect("milliseconds") > 1_700_000_000_000);
        let expected = [
            ("halley-member", "7"),
            ("halley-key", "device"),
            ("halley-room", "live://1"),
            ("halley-room", "second"),
            ("halley-operation", operation),
            ("halley-sequence", sequence),
            ("halley-node", "node"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    let metrics = gateway.get("/metrics").body;
    assert!(metrics.contains("halley_upstream_acknowledged_total 2\n"), "{metrics}");
    assert!(metrics.contains("halley_upstream_refused_total{reason=\"rate\"} 0\n"));
}

#[test]
fn a_broker_killed_under_load_costs_no_acknowledged_message_and_no_order() {
    const CLIENTS: i32 = 20;
    const MESSAGES: i32 = 400;
    let Some(jars) = jars() else { return };
    let folder = folder("upstream-killed");
    let start = || Broker::start(jars, &folder, "").and_then(Broker::guarded).expect("a broker");
    let broker = start();
    let upstream = topic(&broker, 4);
    let gateway = passing(&broker, &upstream, "answer_ms_max = 60000\n");
    let talkers = (0..CLIENTS).map(|n| talk(gateway.tcp(), format!("key-{n}"), 0..MESSAGES, 4)).collect();
    let acknowledged = || metric(&gateway, "halley_upstream_acknowledged_total");
    until("under load", || acknowledged() > 1000);
    broker.kill().expect("killed");
    let broker = start();
    let talked = joined(talkers);
    let found = said(&records(&broker, &upstream, 4));
    check(&talked, &found);
    let all = u64::from(CLIENTS.unsigned_abs() * MESSAGES.unsigned_abs());
    assert_eq!((acknowledged(), found.len() as u64), (all, all), "none refused, none twice");
}

#[test]
fn a_broker_that_stands_still_is_told_as_time_out_and_what_was_acknowledged_is_there() {
    let Some(jars) = jars() else { return };
    let broker = Broker::start(jars, &folder("upstream-still"), "").and_then(Broker::guarded).expect("a broker");
    let upstream = topic(&broker, 1);
    let gateway =
        passing(&broker, &upstream, "answer_ms_max = 1000\nin_flight_max = 64\nconnection_in_flight_max = 64\n");
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k"}"#);
    client.send(SEND, 1, text("k", 1).as_bytes());
    client.expect(REPLY, 1, b"");
    broker.signal("STOP").expect("stopped");
    // As many as one of two shards may have, and one more.
    (2..35).for_each(|sequence| client.send(SEND, sequence, text("k", sequence).as_bytes()));
    client.expect(REPLY, 34, br#"{"refused":"queue-full"}"#);
    // Others are served meanwhile.
    Client::login(gateway.ws(), Transport::WebSocket, "{}").expect_quiet();
    for sequence in 2..34 {
        client.expect(REPLY, sequence, br#"{"refused":"time-out"}"#);
    }
    broker.signal("CONT").expect("goes on");
    let mut sequence = 100;
    until("acknowledged again", || {
        sequence += 1;
        client.send(SEND, sequence, text("k", sequence).as_bytes());
        let Heard::Packet { sequence: answered, body, .. } = client.hear() else { panic!("an answer") };
        assert_eq!(answered, sequence);
        body.is_empty()
    });
    let found: Vec<_> = said(&records(&broker, &upstream, 1)).into_iter().map(|(_, sequence)| sequence).collect();
    assert!(found.contains(&1) && found.contains(&sequence) && found.is_sorted(), "{found:?}");
    assert_eq!(metric(&gateway, "halley_upstream_refused_total{reason=\"queue-full\"}"), 1);
}

#[test]
fn a_gateway_killed_under_load_has_acknowledged_nothing_that_is_not_there() {
    let Some(broker) = crate::world::broker() else { return };
    let upstream = topic(broker, 2);
    let gateway = passing(broker, &upstream, "");
    let talkers: Vec<_> = (0..10).map(|n| talk(gateway.tcp(), format!("key-{n}"), 0..100_000, 8)).collect();
    until("under load", || metric(&gateway, "halley_upstream_acknowledged_total") > 500);
    drop(gateway);
    let talked = joined(talkers);
    let (acknowledged, open) = talked.iter().fold((0, 0), |sum, it| (sum.0 + it.acknowledged.len(), sum.1 + it.open));
    assert!(acknowledged >= 500 && open > 0, "{acknowledged} acknowledged, {open} open");
    check(&talked, &said(&records(broker, &upstream, 2)));
}

#[test]
fn the_bench_finds_in_the_topic_what_its_clients_were_told_is_there() {
    let Some(broker) = crate::world::broker() else { return };
    let upstream = topic(broker, 2);
    let gateway = passing(broker, &upstream, "");
    let words = format!(
        "halley-bench upstream --target=tcp://{} --connections=30 --messages=20 --kafka={}/{upstream}",
        gateway.tcp(),
        broker.address()
    );
    let cli = bench::cli::Cli::parse_from(words.split_whitespace());
    let bench::cli::Command::Upstream(arguments) = cli.command else { panic!("upstream") };
    let report = bench::upstream::upstream(&arguments, &bench::interrupt::Interrupt::default()).expect("a run");
    assert!(report.valid && report.bounds_missed.is_empty(), "{report:?}");
    assert_eq!((report.acknowledged, report.place.found, report.place.duplicates), (600, 600, 0));
    assert!(report.latency_ms.p50 > 0.01, "{:?}", report.latency_ms);
}
