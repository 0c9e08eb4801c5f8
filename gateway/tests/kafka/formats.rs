//! Jobs of every format, written by an independent producer, reach goim's clients on both transports.

use halley_protocol::job::{Job, JobTarget, envelope};

use crate::support::{Client, Transport};
use crate::world::{Wire, Writer, broker, client, gateway, room_job, source, topic, until_dispatched};

fn value(bytes: &[u8]) -> Wire {
    Wire { value: Some(bytes.into()), ..Wire::default() }
}

#[test]
fn jobs_of_goim_v2_and_v1_and_of_halley_reach_clients_of_both_transports() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "");
    let mut clients =
        [(gateway.tcp(), Transport::Tcp), (gateway.ws(), Transport::WebSocket)].map(|(address, transport)| {
            let key = format!("{transport:?}");
            // In goim v2's room by its login, and in goim v1's room 1 by Halley's join.
            let login = format!(r#"{{"mid":7,"key":"{key}","room_id":"live://1000","accepts":[5,1000],"halley":1}}"#);
            let mut client = Client::login(address, transport, &login);
            client.ask(halley_protocol::operation::JOIN, b"1");
            client
        });
    let writer = Writer::new(broker, &topic);
    let envelope =
        envelope::write(&Job { target: JobTarget::Members(vec![7]), operation: 1000, payload: b"envelope"[..].into() });
    let records = [
        room_job("live://1000", "v2 room"),
        value(b"\x10\xe8\x07\x22\x07comet-9\x32\x03Tcp\x32\x09WebSocket\x3a\x07v2 keys"),
        value(b"\x08\x02\x10\xe8\x07\x18\x64\x3a\x06v2 all"),
        value(br#"{"op":"broadcast_room","roomid":1,"msg":"djEgcm9vbQ=="}"#),
        value(br#"{"op":"multiple","server":1,"subkeys":["Tcp","WebSocket"],"msg":"djEga2V5cw=="}"#),
        value(br#"{"op":"broadcast","msg":"djEgYWxs"}"#),
        value(&envelope.expect("small")),
        Wire { headers: vec![("halley-room", "live://1000"), ("halley-operation", "1000")], ..value(b"{plain}") },
    ];
    let heard = [
        (1000, "v2 room"),
        (1000, "v2 keys"),
        (1000, "v2 all"),
        (5, "v1 room"),
        (5, "v1 keys"),
        (5, "v1 all"),
        (1000, "envelope"),
        (1000, "{plain}"),
    ];
    // One at a time: between a room and direct pushes nothing is promised.
    for (record, (operation, text)) in records.iter().zip(heard) {
        writer.put(record);
        for client in &mut clients {
            client.expect_push(operation, text);
        }
    }
    let source = source(&gateway);
    assert_eq!(source["dispatched"], 8, "{source}");
    assert_eq!(source["repeats"], 0, "{source}");
    let metrics = gateway.get("/metrics").body;
    for line in [
        "halley_kafka_jobs_total{result=\"dispatched\"} 8",
        "halley_kafka_rejects_total{reason=\"json\"} 0",
        "halley_kafka_state{state=\"consuming\"} 1",
        "halley_kafka_lag_records{partition=\"0\"}",
        "halley_kafka_lag_seconds{partition=\"0\"}",
        "halley_kafka_dispatch_seconds_count 8",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    gateway.stop();
}

#[test]
fn goim_v1s_jobs_and_calls_reach_its_clients_and_those_of_v2_in_the_same_room() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let listener = |transport| {
        format!(
            "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"{transport}\"\nlogin = \"open\"\ndialect = \"goim-v1\"\n"
        )
    };
    let api_v1 = "[api_v1]\nbind = \"127.0.0.1:0\"\nauth = \"none\"\n";
    let gateway = gateway(broker, &topic, &[api_v1, &listener("tcp"), &listener("ws")].concat());
    let transports = [Transport::Tcp, Transport::WebSocket];
    let v2 = r#"{"room_id":"1"}"#;
    let mut clients = [(0, v2), (1, v2), (2, "7"), (3, "8")]
        .map(|(at, login): (usize, _)| Client::login(gateway.listeners[at], transports[at % 2], login));
    let call = |uri: &str, body: &str| {
        let answer = gateway.call_v1("POST", uri, body);
        assert_eq!((answer.status, &*answer.body), (200, r#"{"ret":1}"#), "{uri}");
    };
    let writer = Writer::new(broker, &topic);
    writer.put(&value(br#"{"op":"broadcast_room","roomid":1,"msg":"djEgcm9vbQ=="}"#));
    for client in &mut clients {
        client.expect_push(5, "v1 room");
    }
    call("/1/push/room?rid=1", "v1 call");
    for client in &mut clients {
        client.expect_push(5, "v1 call");
    }
    writer.put(&room_job("1", "v2 room"));
    for (at, client) in clients.iter_mut().enumerate() {
        client.expect_push(if at < 2 { 1000 } else { 5 }, "v2 room");
    }
    call("/1/pushs", r#"{"m":"users","u":[7,8,9]}"#);
    call("/1/push/all", "all");
    for client in &mut clients[2..] {
        client.expect_push(5, "\"users\"");
        client.expect_push(5, "all");
    }
    // Counted just after it has been dispatched.
    until_dispatched(&gateway, 5);
    assert_eq!(source(&gateway)["produced"], 3);
    gateway.stop();
}

#[test]
fn a_job_older_than_its_maximum_is_counted_and_not_dispatched() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "job_age_ms_max = 60000\n");
    let mut client = client(&gateway, "k", "r");
    let writer = Writer::new(broker, &topic);
    // A timestamp of 1970 and one second.
    writer.put(&Wire { timestamp: Some(1000), ..room_job("r", "old") });
    writer.put(&room_job("r", "new"));
    client.expect_push(1000, "new");
    until_dispatched(&gateway, 1);
    assert_eq!(source(&gateway)["expired"], 1);
}

#[test]
fn a_start_is_the_end_the_beginning_an_offset_or_a_time() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let writer = Writer::new(broker, &topic);
    for second in 0..10 {
        writer.put(&Wire { timestamp: Some(1_000_000 + 1000 * second), ..room_job("r", "x") });
    }
    writer.flush();
    for (start, expected) in
        [("latest", 0), ("earliest", 10), ("offset:7", 3), ("time:1004500", 5), ("time:9999999", 0)]
    {
        let gateway = gateway(broker, &topic, &format!("start = \"{start}\"\n"));
        until_dispatched(&gateway, expected);
        let stats = gateway.get("/v1/stats").json();
        assert_eq!(stats["kafka"][0]["position"], 10, "{start}: {stats}");
    }
}

#[test]
fn an_id_in_a_header_is_dispatched_once() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 2);
    let gateway = gateway(broker, &topic, "");
    let mut client = client(&gateway, "k", "r");
    let writer = Writer::new(broker, &topic);
    let id: &'static str = "i".repeat(256).leak();
    let longer: &'static str = "i".repeat(257).leak();
    let put = |partition: i32, id: &'static str, text: &str| {
        let wire = room_job("r", text);
        writer.put(&Wire { headers: vec![("halley-id", id)], partition: Some(partition), ..wire });
    };
    put(0, id, "first");
    put(0, id, "the same again");
    put(0, "other", "another");
    put(0, longer, "no id");
    put(0, longer, "no id either");
    writer.flush();
    for text in ["first", "another", "no id", "no id either"] {
        client.expect_push(1000, text);
    }
    put(1, id, "in another partition");
    writer.flush();
    client.expect_push(1000, "in another partition");
    until_dispatched(&gateway, 5);
    assert_eq!(source(&gateway)["duplicates"], 1);

    // What the API produces carries its id, for every node that reads it.
    let push =
        serde_json::json!({"target": {"room": "r"}, "operation": 1000, "payload": {"text": "of the API"}, "id": "a"});
    let first = gateway.push(&push);
    assert_eq!(gateway.push(&push), first, "the first answer again");
    client.expect_push(1000, "of the API");
    let partition = first[0]["partition"].as_i64().and_then(|n| i32::try_from(n).ok()).expect("a partition");
    // As another node would produce it that was asked again.
    put(partition, "/a", "of another node");
    put(partition, "last", "last");
    writer.flush();
    client.expect_push(1000, "last");
    until_dispatched(&gateway, 7);
    assert_eq!(source(&gateway)["duplicates"], 2);
}
