//! The API where Kafka is configured: a push is Kafka's before its caller is answered.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xtask::kafka::Broker;

use crate::support::{Client, Heard, until};
use crate::world::{Wire, Writer, broker, client, folder, gateway, jars, room_job, source, topic, until_dispatched};

/// The text of the next push.
fn heard(client: &mut Client) -> String {
    let Heard::Packet { operation: 1000, body, .. } = client.hear() else { panic!("a push") };
    String::from_utf8(body).expect("text")
}

#[test]
fn a_call_is_answered_with_partition_and_offset_or_with_503_and_never_in_between() {
    let Some(jars) = jars() else { return };
    let broker = Broker::start(jars, &folder("api"), "").and_then(Broker::guarded).expect("a broker");
    let topic = topic(&broker, 1);
    let gateway = gateway(&broker, &topic, "produce_ms_max = 1500\n");
    let mut client = client(&gateway, "k", "live://1");
    let push = |text: &str| json!({"target": {"room": "live://1"}, "operation": 1000, "payload": {"text": text}});
    assert_eq!(gateway.push(&push("one")), json!([{"partition": 0, "offset": 0}]));
    let results = gateway.push(&json!([push("two"), push("three")]));
    assert_eq!(results, json!([{"partition": 0, "offset": 1}, {"partition": 0, "offset": 2}]));
    for uri in [
        "/goim/push/room?operation=1000&type=live&room=1",
        "/goim/push/keys?operation=1000&keys=k",
        "/goim/push/mids?operation=1000&mids=7",
        "/goim/push/all?operation=1000",
    ] {
        let answer = gateway.curl(uri, uri);
        assert_eq!((answer.status, answer.json()["code"].as_i64()), (200, Some(0)), "{uri}: {}", answer.body);
    }
    let to_room = ["one", "two", "three", "/goim/push/room?operation=1000&type=live&room=1"];
    let direct = [
        "/goim/push/all?operation=1000",
        "/goim/push/keys?operation=1000&keys=k",
        "/goim/push/mids?operation=1000&mids=7",
    ];
    let texts: Vec<String> = (0..to_room.len() + direct.len()).map(|_| heard(&mut client)).collect();
    // Between a room and direct pushes nothing is promised.
    let (mut others, room): (Vec<_>, Vec<_>) = texts.iter().map(String::as_str).partition(|text| direct.contains(text));
    others.sort_unstable();
    assert_eq!((room, others), (to_room.to_vec(), direct.to_vec()), "{texts:?}");
    assert_eq!(gateway.curl("/goim/push/keys?operation=1000&keys=", "x").status, 200, "nobody is no mistake to goim");

    let nameless = json!({"target": {"keys": ["k", ""]}, "operation": 1000, "payload": {"text": "x"}});
    let answer = gateway.call("POST", "/v1/push", "Content-Type: application/json\r\n", &nameless.to_string());
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("bad-request")), "{}", answer.body);

    broker.signal("STOP").expect("stopped");
    let since = std::time::Instant::now();
    let json = "Content-Type: application/json\r\n";
    let answer = gateway.call("POST", "/v1/push", json, &push("four").to_string());
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("unacknowledged")));
    // The time stated, and as much again for whoever else is at work here.
    assert!((1400..3000).contains(&since.elapsed().as_millis()), "it was given its time: {:?}", since.elapsed());
    // Control answers others meanwhile.
    assert_eq!(gateway.get("/healthz").status, 200);
    broker.signal("CONT").expect("goes on");
    // It may come or not: its caller was told so. What is pushed afterwards comes after it.
    until("acknowledged again", || gateway.call("POST", "/v1/push", json, &push("five").to_string()).status == 200);
    let mut last = String::new();
    while last != "five" {
        last = heard(&mut client);
        assert!(last == "four" || last == "five", "{last}");
    }
    assert_eq!(source(&gateway)["rejects"]["bad-name"], 0);
}

#[test]
fn a_room_gets_what_it_may_by_the_time_when_it_was_written() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 1);
    let gateway = gateway(broker, &topic, "[limits]\nroom_pushes_per_second_max = 2\n");
    let (mut fast, mut slow) = (client(&gateway, "fast", "fast"), client(&gateway, "slow", "slow"));
    let writer = Writer::new(broker, &topic);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let begin_ms = i64::try_from(now.as_millis()).expect("before the end of time") - 60_000;
    let put = |room: &str, n: i64, at_ms: i64| {
        writer.put(&Wire { timestamp: Some(begin_ms + at_ms), ..room_job(room, &n.to_string()) });
    };
    (0..6).for_each(|n| put("fast", n, 0));
    // As fast as they may be, and all of them are read at once.
    (0..6).for_each(|n| put("slow", n, n * 500));
    writer.flush();
    until_dispatched(&gateway, 8);
    assert_eq!(source(&gateway)["limited"], 4);
    (0..2).for_each(|n| fast.expect_push(1000, &n.to_string()));
    (0..6).for_each(|n| slow.expect_push(1000, &n.to_string()));

    let push = json!({ "target": { "room": "of the API" }, "operation": 1000, "payload": { "text": "x" } });
    let results = gateway.push(&Value::from(vec![push; 4]));
    let refused = |at: usize| results[at]["error"]["code"] == "too-fast";
    assert_eq!([0, 1, 2, 3].map(refused), [false, false, true, true], "{results}");
    until("what was taken is read", || source(&gateway)["dispatched"].as_u64() >= Some(10));
    [fast, slow].iter_mut().for_each(Client::expect_quiet);
}
