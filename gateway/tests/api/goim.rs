//! goim's API: its parameters, its envelope, its codes.

use gateway::order::Order;
use hyper::StatusCode;
use serde_json::json;

use crate::harness::{Gateway, OPEN, config, run, run_with_room_for};

const OK: &str = r#"{"code":0,"message":""}"#;

/// The answer to a push, and the body and operation that shard 0 got.
async fn pushed(gateway: &Gateway, uri: &str) -> (i32, Vec<u8>) {
    let answer = gateway.post(uri, "hello").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, OK), "{uri}");
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    match gateway.order(0).await {
        Order::Direct { payload, .. } | Order::Room { payload, .. } | Order::All { payload } => {
            (payload.operation, payload.inner().to_vec())
        }
        other => panic!("{uri}: {other:?}"),
    }
}

#[test]
fn each_target_reaches_the_shard_with_its_operation_and_body() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"mid":7,"key":"k","room_id":"live://1000","accepts":[1000]}"#).await;
        for uri in [
            "/goim/push/keys?operation=1000&keys=k",
            "/goim/push/keys?operation=1000&keys=&keys=away&keys=k",
            "/goim/push/mids?operation=1000&mids=6&mids=7",
            "/goim/push/room?operation=1000&type=live&room=1000",
            "/goim/push/all?operation=1000",
            "/goim/push/all?operation=1000&speed=32",
        ] {
            let (operation, inner) = pushed(gateway, uri).await;
            assert_eq!(operation, 1000, "{uri}");
            assert!(inner.ends_with(b"hello"), "{uri}");
        }
        let (operation, _) = pushed(gateway, "/goim/push/keys?keys=k").await;
        assert_eq!(operation, 0, "an operation left out is 0 where goim allows it");
    });
}

#[test]
fn a_push_to_nobody_is_done() {
    run(config(OPEN), async |gateway| {
        for uri in [
            "/goim/push/keys?operation=1000&keys=away",
            "/goim/push/mids?operation=1000&mids=1",
            "/goim/push/mids?operation=1000",
            "/goim/push/room?operation=1000&type=live&room=empty",
            "/goim/push/all?operation=1000",
        ] {
            let answer = gateway.post(uri, "x").await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, OK), "{uri}");
        }
        assert!(gateway.is_quiet());
    });
}

#[test]
fn a_query_that_goim_cannot_bind_is_400_with_its_code() {
    run(config(OPEN), async |gateway| {
        for (uri, part) in [
            ("/goim/push/keys?operation=abc&keys=k", "abc"),
            ("/goim/push/keys?operation=2147483648&keys=k", "2147483648"),
            ("/goim/push/mids?operation=1000&mids=1,2", "1,2"),
            ("/goim/push/room?type=live&room=1", "operation"),
            ("/goim/push/room?operation=0&type=live&room=1", "operation"),
            ("/goim/push/room?operation=1&room=1", "type"),
            ("/goim/push/room?operation=1&type=live", "room"),
            ("/goim/push/all", "operation"),
            ("/goim/push/all?operation=1&speed=x", "x"),
        ] {
            let answer = gateway.post(uri, "x").await;
            assert_eq!((answer.status, answer.json()["code"].clone()), (StatusCode::BAD_REQUEST, json!(-400)), "{uri}");
            assert!(answer.text().contains(part), "{uri}: {}", answer.text());
        }
        for uri in [
            "/goim/online/top?limit=1",
            "/goim/online/top?type=live",
            "/goim/online/top?type=live&limit=-1",
            "/goim/online/room?rooms=1",
            "/goim/online/room?type=live",
        ] {
            let answer = gateway.get(uri).await;
            assert_eq!((answer.status, answer.json()["code"].clone()), (StatusCode::BAD_REQUEST, json!(-400)), "{uri}");
        }
    });
}

#[test]
fn a_call_without_keys_is_refused_with_status_200_as_by_goim() {
    run(config(OPEN), async |gateway| {
        let answer = gateway.post("/goim/push/keys?operation=1000", "x").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, r#"{"code":-400,"message":""}"#));
    });
}

#[test]
fn a_full_queue_is_503_and_nobody_gets_the_push() {
    run_with_room_for(1, async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"a","accepts":[1]}"#).await;
        gateway.log_in(1, 1, r#"{"key":"b","accepts":[1]}"#).await;
        assert_eq!(gateway.post("/goim/push/keys?operation=1&keys=a", "first").await.status, StatusCode::OK);

        let answer = gateway.post("/goim/push/all?operation=1", "second").await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (StatusCode::SERVICE_UNAVAILABLE, json!(-500)));
        assert_eq!(answer.header("retry-after"), "1");
        assert!(gateway.app.links[1].next_order().is_none(), "the shard with room was not given it either");

        gateway.order(0).await;
        assert_eq!(gateway.post("/goim/push/all?operation=1", "third").await.status, StatusCode::OK);
    });
}

#[test]
fn a_message_above_its_limit_is_413_and_names_it() {
    run(config(&format!("{OPEN}\n[shard]\n").replace("auth", "body_bytes_max = 2000000\nauth")), async |gateway| {
        let answer = gateway.post("/goim/push/all?operation=1", vec![b'x'; (1 << 20) + 1]).await;
        assert_eq!((answer.status, answer.json()["code"].clone()), (StatusCode::PAYLOAD_TOO_LARGE, json!(-400)));
        assert!(answer.text().contains("1048576"));
    });
}

#[test]
fn online_counts_rooms_connections_and_addresses() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"room_id":"live://1000"}"#).await;
        gateway.log_in(0, 2, r#"{"room_id":"live://1000"}"#).await;
        gateway.log_in(1, 1, r#"{"room_id":"live://2000"}"#).await;
        gateway.log_in(1, 2, r#"{"room_id":"other://1"}"#).await;

        let data = |answer: &str| format!(r#"{{"code":0,"message":"","data":{answer}}}"#);
        let total = gateway.get("/goim/online/total").await;
        assert_eq!(total.text(), data(r#"{"conn_count":4,"ip_count":2}"#));
        let rooms = gateway.get("/goim/online/room?type=live&rooms=1000&rooms=3000").await;
        assert_eq!(rooms.text(), data(r#"{"1000":2,"3000":0}"#));
        let top = gateway.get("/goim/online/top?type=live&limit=10").await;
        assert_eq!(top.text(), data(r#"[{"room_id":"1000","count":2},{"room_id":"2000","count":1}]"#));
        assert_eq!(gateway.get("/goim/online/top?type=none&limit=1").await.text(), data("[]"));
    });
}

#[test]
fn nodes_tell_clients_what_the_configuration_says() {
    let nodes = "[nodes]\ndomain = \"gw.example\"\nhost_domain = \".example\"\naddresses = [\"198.51.100.7\"]\nwss_port = 443\nregion = \"sh\"";
    let websocket = "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\nlogin = \"open\"\n";
    run(config(&format!("{OPEN}{websocket}{nodes}")), async |gateway| {
        let weighted = gateway.get("/goim/nodes/weighted").await.json();
        assert_eq!(
            weighted["data"],
            json!({
                "domain": "gw.example", "tcp_port": 3101, "ws_port": 3102, "wss_port": 443, "heartbeat": 240,
                "nodes": ["198.51.100.7"],
                "backoff": { "max_delay": 300, "base_delay": 3, "factor": 1.8, "jitter": 0.3 },
                "heartbeat_max": 2,
            })
        );
        let web = gateway.get("/goim/nodes/weighted?platform=web").await.json();
        assert!(web["data"]["nodes"][0].as_str().is_some_and(|name| name.ends_with(".example")), "{web}");

        gateway.log_in(0, 1, "{}").await;
        let instances = gateway.get("/goim/nodes/instances").await.json();
        let instance = &instances["data"][0];
        assert_eq!((&instance["appid"], &instance["region"]), (&json!("goim.comet"), &json!("sh")));
        assert_eq!(
            instance["metadata"],
            json!({ "addrs": "198.51.100.7", "conn_count": "1", "ip_count": "1", "offline": "false", "weight": "10" })
        );
    });
}

#[test]
fn zero_fields_of_nodes_are_left_out() {
    run(config(OPEN), async |gateway| {
        let weighted = gateway.get("/goim/nodes/weighted").await.json();
        assert!(weighted["data"].get("wss_port").is_none(), "{weighted}");
        assert_eq!(weighted["data"]["nodes"], json!([weighted["data"]["domain"]]));
    });
}
