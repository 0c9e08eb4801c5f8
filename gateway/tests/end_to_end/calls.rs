//! The HTTP API of a running gateway.

use halley_protocol::halley::Kick;
use halley_protocol::operation;
use serde_json::json;

use crate::support::{Client, Gateway, Heard, LISTENERS, OPEN, Transport};

const OK: &str = r#"{"code":0,"message":""}"#;

#[test]
fn the_curl_lines_of_goim_work_unchanged() {
    let gateway = Gateway::open();
    let login = r#"{"mid":123,"key":"device","room_id":"live://1000","platform":"web","accepts":[1000,1001,1002]}"#;
    let mut client = Client::login(gateway.ws(), Transport::WebSocket, login);
    for (uri, message) in [
        ("/goim/push/keys?operation=1000&keys=device", "key message"),
        ("/goim/push/mids?operation=1000&mids=123", "mid message"),
        ("/goim/push/room?operation=1000&type=live&room=1000", "room message"),
        ("/goim/push/all?operation=1000", "broadcast message"),
    ] {
        let answer = gateway.curl(uri, message);
        assert_eq!((answer.status, &*answer.body), (200, OK), "{uri}");
        client.expect_push(1000, message);
    }
    let online = gateway.get("/goim/online/room?type=live&rooms=1000&rooms=2").json();
    assert_eq!(online["data"], json!({ "1000": 1, "2": 0 }));
    let top = gateway.get("/goim/online/top?type=live&limit=10").json();
    assert_eq!(top["data"], json!([{ "room_id": "1000", "count": 1 }]));
    let total = gateway.get("/goim/online/total").json();
    assert_eq!(total["data"], json!({ "conn_count": 1, "ip_count": 1 }));
    assert_eq!(gateway.curl("/goim/push/room?operation=1000", "no room").status, 400);
}

#[test]
fn a_push_carries_text_json_or_bytes_alone_or_in_arrays() {
    let gateway = Gateway::open();
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k","accepts":[1]}"#);
    let one = |payload, id: &str| json!({ "target": { "keys": ["k"] }, "operation": 1, "payload": payload, "id": id });
    let text = one(json!({ "text": "grüße" }), "mine");
    for _ in 0..2 {
        assert_eq!(gateway.push(&text), json!([{ "dispatched": 1, "offline": 0, "id": "mine" }]), "and pushed once");
    }
    gateway.push(&json!([one(json!({ "json": { "a": [1, 2] } }), "a"), one(json!({ "base64": "AP8=" }), "b")]));
    client.expect_push(1, "grüße");
    client.expect_push(1, r#"{"a":[1,2]}"#);
    client.expect(1, 0, &[0, 255]);
    let wrong = gateway.call("POST", "/v1/push", "Content-Type: application/json\r\n", r#"{"target":{"all":true}}"#);
    assert_eq!(wrong.status, 400, "{}", wrong.body);
    client.expect_quiet();
}

#[test]
fn a_connection_is_shown_by_its_key_and_ended_by_it() {
    let gateway = Gateway::open();
    let login = |key: &str| format!(r#"{{"mid":5,"key":"{key}","room_id":"live://1","accepts":[1,2],"halley":1}}"#);
    let mut ws = Client::login(gateway.ws(), Transport::WebSocket, &login("ws"));
    let mut tcp = Client::login(gateway.tcp(), Transport::Tcp, &login("tcp"));
    let shown = gateway.get("/v1/connections/ws").json()["connections"][0].clone();
    assert_eq!(shown["rooms"], json!(["live://1"]));
    assert_eq!(shown["accepts"], json!([1, 2]));
    assert_eq!(shown["peer"], ws.stream.local_addr().expect("an address").to_string());
    assert_eq!((&shown["listener"], &shown["transport"]), (&json!(1), &json!("ws")));
    let keys = json!([{ "key": "tcp", "connections": 1 }, { "key": "ws", "connections": 1 }]);
    assert_eq!(gateway.get("/v1/members/5").json(), json!({ "member": 5, "keys": keys, "more": false }));
    assert_eq!(gateway.get("/v1/members/6").status, 404);
    assert_eq!(gateway.get("/v1/members/everybody").status, 400);
    assert_eq!(gateway.get("/v1/rooms").json()["rooms"], json!([{ "room": "live://1", "members": 2 }]));

    for (key, client) in [("ws", &mut ws), ("tcp", &mut tcp)] {
        let kicked = gateway.call("DELETE", &format!("/v1/connections/{key}?reason=test"), "", "");
        assert_eq!((kicked.status, kicked.json()), (200, json!({ "key": key, "closed": 1 })));
        let Heard::Packet { operation: operation::KICK, body, .. } = client.hear() else { panic!("no kick for {key}") };
        assert_eq!(Kick::parse(&body), Some(Kick { code: 4005, text: "kicked" }));
    }
    assert_eq!(ws.close_code(), 4005);
    assert_eq!(tcp.hear(), Heard::End);
    gateway.until_counter("/closes/kicked", 2);
    assert_eq!(gateway.get("/v1/connections/ws").status, 404);
    assert_eq!(gateway.call("DELETE", "/v1/connections/ws", "", "").status, 404);
}

#[test]
fn calls_need_a_token_and_probes_do_not() {
    let gateway = Gateway::start(&format!(
        "connections_max = 16\n[api]\nbind = \"127.0.0.1:0\"\ntokens = [\"an-older-token-of-theirs\", \"a-token-of-theirs\"]\n{LISTENERS}"
    ));
    let with = |authorization: &str| {
        gateway.call("GET", "/v1/stats", &format!("Authorization: {authorization}\r\n"), "").status
    };
    assert_eq!(gateway.get("/v1/stats").status, 401);
    assert_eq!(with("Bearer a-token-of-theirz"), 401);
    assert_eq!(with("Basic a-token-of-theirs"), 401);
    assert_eq!(with("Bearer a-token-of-theirs"), 200);
    assert_eq!(with("bearer an-older-token-of-theirs"), 200);
    assert_eq!(gateway.curl("/goim/push/all?operation=1", "x").status, 401);
    assert_eq!(gateway.get("/metrics").status, 401);
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.get("/").status, 404, "the page is served with --dev only");
}

#[test]
fn calls_of_scope_admin_are_in_the_log_with_token_target_and_result() {
    let hash = gateway::config::TokenHash::of(b"a-token-that-reads");
    let gateway = Gateway::start(&format!(
        "connections_max = 16\n[api]\nbind = \"127.0.0.1:0\"\ntokens = [\"a-token-of-theirs\", \
         {{ name = \"reader\", hash = \"{hash}\", scopes = [\"read\"] }}]\n{LISTENERS}"
    ));
    let call = |method: &str, uri: &str, token: &str| {
        gateway.call(method, uri, &format!("Authorization: Bearer {token}\r\n"), "").status
    };
    let _client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"a b"}"#);
    assert_eq!(call("GET", "/v1/connections/a%20b", "a-token-that-reads"), 200);
    assert_eq!(call("DELETE", "/v1/connections/a%20b?reason=test", "a-token-that-reads"), 403);
    assert_eq!(call("DELETE", "/v1/connections/a%20b", "nobodys"), 401);
    assert_eq!(call("DELETE", "/v1/connections/a%20b?reason=test", "a-token-of-theirs"), 200);
    assert_eq!(call("DELETE", "/v1/connections/nobody", "a-token-of-theirs"), 404);
    let event = |token: &str, target: &str, status: u16, result: &str| {
        json!({
            "event": "audit", "token": token, "call": "DELETE /v1/connections/{key}",
            "subject": target, "status": status, "result": result,
        })
    };
    let expected = [
        event("reader", "/v1/connections/a%20b?reason=test", 403, ""),
        event("token-1", "a b", 200, "closed 1: test"),
        event("token-1", "nobody", 404, "closed 0"),
    ];
    let told = || -> Vec<serde_json::Value> {
        let lines = gateway.log();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let fields = events.filter(|event| event["event"] == "audit");
        fields.collect()
    };
    crate::support::until("three events", || told().len() >= expected.len());
    for (told, expected) in told().iter().zip(&expected) {
        for (name, value) in expected.as_object().expect("fields") {
            assert_eq!(&told[name], value, "{told}");
        }
    }
    assert_eq!(told().len(), expected.len(), "no call that reads or pushes, and none of nobody");
}

#[test]
fn metrics_say_what_stats_say() {
    let gateway = Gateway::open();
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, r#"{"key":"k","accepts":[1]}"#);
    gateway.curl("/goim/push/all?operation=1", "x");
    client.expect_push(1, "x");
    gateway.settled();
    let metrics = gateway.get("/metrics").body;
    let sum = |name: &str| -> f64 {
        let lines = metrics.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    for (name, expected) in [
        ("halley_connections", 1.0),
        ("halley_offered_total", 1.0),
        ("halley_sent_total", 1.0),
        ("halley_dropped_total", 0.0),
        ("halley_queued", 0.0),
        ("halley_logins_total", 1.0),
    ] {
        assert!(metrics.contains(name), "{name} is there: {metrics}");
        assert!((sum(name) - expected).abs() < 0.5, "{name}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"), "OpenMetrics ends so");
}

#[test]
fn goim_v1s_calls_are_at_an_address_of_their_own_where_it_is_configured() {
    assert_eq!(Gateway::open().api_v1, None);
    let api_v1 = "[api_v1]\nbind = \"127.0.0.1:0\"\nauth = \"none\"\n";
    let gateway = Gateway::start(&format!("{OPEN}{api_v1}{LISTENERS}"));
    assert_eq!(gateway.call_v1("POST", "/1/push/all", "x").body, r#"{"ret":1}"#);
    assert_eq!(gateway.curl("/1/push/all", "x").status, 404);
    gateway.stop();
}
