//! The API where Kafka is configured: a push is Kafka's before its caller is answered.

use serde_json::json;
use xtask::kafka::Broker;

use crate::world::{client, folder, gateway, jars, source, topic};

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
    for text in ["one", "two", "three", "/goim/push/room?operation=1000&type=live&room=1"] {
        client.expect_push(1000, text);
    }
    for uri in [
        "/goim/push/keys?operation=1000&keys=k",
        "/goim/push/mids?operation=1000&mids=7",
        "/goim/push/all?operation=1000",
    ] {
        client.expect_push(1000, uri);
    }
    assert_eq!(gateway.curl("/goim/push/keys?operation=1000&keys=", "x").status, 200, "nobody is no mistake to goim");

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
    crate::support::until("acknowledged again", || {
        gateway.call("POST", "/v1/push", json, &push("five").to_string()).status == 200
    });
    let mut last = String::new();
    while last != "five" {
        let crate::support::Heard::Packet { body, .. } = client.hear() else { panic!("a push") };
        last = String::from_utf8(body).expect("text");
        assert!(last == "four" || last == "five", "{last}");
    }
    assert_eq!(source(&gateway)["rejects"]["bad-name"], 0);
}
