//! `POST /v1/push`.

use axum::body::Body;
use gateway::order::Order;
use hyper::{Request, StatusCode};
use serde_json::json;

use crate::harness::{Answer, Gateway, OPEN, config, run, run_with_room_for};

async fn refused(gateway: &Gateway, body: &str) -> Answer {
    let answer = gateway.push(body).await;
    assert!(answer.status.is_client_error(), "{body}: {}", answer.text());
    answer
}

#[test]
fn each_target_says_how_many_it_reached_and_missed() {
    run(config(OPEN), async |gateway| {
        let conn = gateway.log_in(0, 1, r#"{"mid":7,"key":"k","room_id":"r","accepts":[5]}"#).await;
        for (target, offline) in [
            (r#"{"room":"r"}"#, 0),
            (r#"{"keys":["k","away"]}"#, 1),
            (r#"{"members":[7,8,9]}"#, 2),
            (r#"{"all":true}"#, 0),
        ] {
            let body = format!(r#"{{"target":{target},"operation":5,"payload":{{"text":"hi"}}}}"#);
            let answer = gateway.push(&body).await;
            let expected = json!({ "results": [{ "dispatched": 1, "offline": offline }] });
            assert_eq!((answer.status, answer.json()), (StatusCode::OK, expected), "{target}");
            match gateway.order(0).await {
                Order::Direct { conns, payload } => {
                    assert_eq!(&*conns, [conn]);
                    assert_eq!(payload.operation, 5);
                }
                Order::Room { payload, .. } | Order::All { payload } => assert_eq!(payload.operation, 5),
                other => panic!("{other:?}"),
            }
        }
        let nobody = gateway.push(r#"{"target":{"room":"none"},"operation":5,"payload":{"text":""}}"#).await;
        assert_eq!(nobody.json(), json!({ "results": [{ "dispatched": 0, "offline": 1 }] }));
    });
}

#[test]
fn a_payload_arrives_byte_for_byte() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        for (payload, bytes) in [
            (r#"{"text":"gr\u00fc\u00df"}"#, "grüß".as_bytes()),
            (r#"{"json": {"b": 1.0,  "a":[null]} }"#, br#"{"b": 1.0,  "a":[null]}"#),
            (r#"{"base64":"AP+A"}"#, &[0x00, 0xff, 0x80]),
            (r#"{"text":""}"#, b""),
        ] {
            gateway.push(&format!(r#"{{"target":{{"keys":["k"]}},"operation":1,"payload":{payload}}}"#)).await;
            let Order::Direct { payload: sent, .. } = gateway.order(0).await else { panic!("a direct push") };
            assert_eq!(&sent.inner()[16..], bytes, "{payload}");
        }
    });
}

#[test]
fn an_array_is_dispatched_in_order_and_answered_in_order() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let push =
            |id: u32| format!(r#"{{"target":{{"keys":["k"]}},"operation":{id},"payload":{{"text":""}},"id":"{id}"}}"#);
        let answer = gateway.push(&format!(" [{},{}]", push(1), push(2))).await;
        let results =
            json!([{ "dispatched": 1, "offline": 0, "id": "1" }, { "dispatched": 1, "offline": 0, "id": "2" }]);
        assert_eq!(answer.json()["results"], results);
        for expected in [1, 2] {
            let Order::Direct { payload, .. } = gateway.order(0).await else { panic!("a direct push") };
            assert_eq!(payload.operation, expected);
        }
        assert_eq!(gateway.push("[]").await.json(), json!({ "results": [] }));
    });
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_dispatched() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let with = |target: &str, payload: &str| format!(r#"{{"target":{target},"operation":1,"payload":{payload}}}"#);
        let text = r#"{"text":"x"}"#;
        let long = "x".repeat(257);
        let many = vec!["1"; 10_001].join(",");
        let cases = [
            ("", StatusCode::BAD_REQUEST, "EOF"),
            ("{", StatusCode::BAD_REQUEST, "EOF"),
            ("7", StatusCode::BAD_REQUEST, "invalid type"),
            (r#"{"target":{"all":true},"payload":{"text":"x"}}"#, StatusCode::BAD_REQUEST, "operation"),
            (
                r#"{"target":{"all":true},"operation":1,"payload":{"text":"x"},"colour":1}"#,
                StatusCode::BAD_REQUEST,
                "colour",
            ),
            (&with("{}", text), StatusCode::BAD_REQUEST, "exactly one of room"),
            (&with(r#"{"all":false}"#, text), StatusCode::BAD_REQUEST, "exactly one of room"),
            (&with(r#"{"all":true,"room":"r"}"#, text), StatusCode::BAD_REQUEST, "exactly one of room"),
            (&with(r#"{"room":""}"#, text), StatusCode::BAD_REQUEST, "no name"),
            (&with(r#"{"keys":[]}"#, text), StatusCode::BAD_REQUEST, "keys is empty"),
            (&with(&format!(r#"{{"room":"{long}"}}"#), text), StatusCode::BAD_REQUEST, "256"),
            (&with(&format!(r#"{{"keys":["{long}"]}}"#), text), StatusCode::BAD_REQUEST, "256"),
            (&with(&format!(r#"{{"members":[{many}]}}"#), text), StatusCode::PAYLOAD_TOO_LARGE, "10000"),
            (&with(r#"{"all":true}"#, "{}"), StatusCode::BAD_REQUEST, "exactly one of text"),
            (&with(r#"{"all":true}"#, r#"{"text":"x","base64":""}"#), StatusCode::BAD_REQUEST, "exactly one of text"),
            (&with(r#"{"all":true}"#, r#"{"base64":"?"}"#), StatusCode::BAD_REQUEST, "base64"),
        ];
        for (body, status, part) in cases {
            let answer = refused(gateway, body).await;
            assert_eq!(answer.status, status, "{body}");
            let message = answer.json()["error"]["message"].as_str().expect("a message").to_owned();
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
        let good = with(r#"{"all":true}"#, text);
        let array = refused(gateway, &format!("[{good},{}]", with("{}", text))).await;
        assert!(array.text().contains("push 1: "), "the wrong one is named: {}", array.text());
        assert!(refused(gateway, &format!("[{}]", vec![good.as_str(); 1001].join(","))).await.text().contains("1000"));
        assert!(gateway.is_quiet(), "a wrong call is refused whole");
    });
}

#[test]
fn a_room_that_is_pushed_to_too_fast_is_429_with_a_time_to_wait() {
    let limited = format!("[limits]\nroom_pushes_per_second_max = 2\n{OPEN}");
    run(config(&limited), async |gateway| {
        gateway.log_in(0, 1, r#"{"room_id":"r"}"#).await;
        let push = |room: &str| format!(r#"{{"target":{{"room":"{room}"}},"operation":1,"payload":{{"text":"x"}}}}"#);
        for _ in 0..2 {
            assert_eq!(gateway.push(&push("r")).await.status, StatusCode::OK);
        }
        let refused = gateway.push(&push("r")).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text());
        assert_eq!((refused.header("retry-after"), &refused.json()["error"]["code"]), ("1", &json!("too-fast")));
        assert_eq!(gateway.push(&push("nobody is here")).await.status, StatusCode::OK);
        assert!(gateway.get("/metrics").await.text().contains("halley_pushes_too_fast_total 1"));
    });
}

#[test]
fn a_body_without_its_type_is_415() {
    run(config(OPEN), async |gateway| {
        let answer = gateway.post("/v1/push", r#"{"target":{"all":true},"operation":1,"payload":{"text":"x"}}"#).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert!(answer.text().contains("application/json"));
    });
}

#[test]
fn a_payload_above_its_limit_is_413_and_names_it() {
    run(config(&OPEN.replace("auth", "body_bytes_max = 2000000\nauth")), async |gateway| {
        let text = "x".repeat((1 << 20) + 1);
        let answer =
            refused(gateway, &format!(r#"{{"target":{{"all":true}},"operation":1,"payload":{{"text":"{text}"}}}}"#))
                .await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(answer.text().contains("1048576"));
    });
}

#[test]
fn a_full_queue_is_503_only_if_nothing_was_taken() {
    run_with_room_for(1, async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let push = r#"{"target":{"keys":["k"]},"operation":1,"payload":{"text":""}}"#;
        let both = gateway.push(&format!("[{push},{push}]")).await;
        assert_eq!(both.status, StatusCode::OK);
        assert_eq!(both.json()["results"][0], json!({ "dispatched": 1, "offline": 0 }));
        assert_eq!(both.json()["results"][1]["error"]["code"], json!("busy"));

        let none = gateway.push(push).await;
        assert_eq!((none.status, none.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
        gateway.order(0).await;
        assert_eq!(gateway.push(push).await.status, StatusCode::OK);
    });
}

const NAMED: &str = r#"{"target":{"keys":["k"]},"operation":1,"payload":{"text":"once"},"id":"m-1"}"#;

#[test]
fn an_id_said_again_gets_the_first_answer_and_pushes_nothing() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let first = json!({ "results": [{ "dispatched": 1, "offline": 0, "id": "m-1" }] });
        assert_eq!(gateway.push(NAMED).await.json(), first);
        assert!(matches!(gateway.order(0).await, Order::Direct { .. }));
        let other = NAMED.replace("\"k\"", "\"nobody\"");
        for again in [NAMED, &other] {
            let answer = gateway.push(again).await;
            assert_eq!((answer.status, answer.json()), (StatusCode::OK, first.clone()));
        }
        let twice = gateway.push(&format!("[{NAMED},{}]", NAMED.replace("m-1", "m-2"))).await.json();
        assert_eq!(twice["results"][1], json!({ "dispatched": 1, "offline": 0, "id": "m-2" }), "another id is new");
        assert!(matches!(gateway.order(0).await, Order::Direct { .. }));
        assert!(gateway.is_quiet(), "nothing was pushed twice");
        assert_eq!(gateway.get("/v1/stats").await.json()["push_ids"], json!({ "repeats": 3, "forgotten": 0 }));
    });
}

#[test]
fn an_id_is_its_tokens_own_and_what_was_refused_is_not_remembered() {
    let tokens = OPEN.replace("auth = \"none\"", "tokens = [\"a-token-of-somebody\", \"a-token-of-others\"]");
    run(config(&tokens), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        for token in ["a-token-of-somebody", "a-token-of-others"] {
            let request = Request::post("/v1/push").header("content-type", "application/json");
            let request = request.header("authorization", format!("Bearer {token}"));
            let answer = gateway.send(request.body(Body::from(NAMED)).expect("a request")).await;
            assert_eq!(answer.json()["results"][0]["dispatched"], 1);
            assert!(matches!(gateway.order(0).await, Order::Direct { .. }), "pushed for {token}");
        }
    });
    run_with_room_for(1, async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        gateway.push(&NAMED.replace("m-1", "m-0")).await;
        assert_eq!(gateway.push(NAMED).await.status, StatusCode::SERVICE_UNAVAILABLE);
        gateway.order(0).await;
        assert_eq!(gateway.push(NAMED).await.status, StatusCode::OK);
        assert!(matches!(gateway.order(0).await, Order::Direct { .. }), "pushed when there was room");
    });
}

#[test]
fn an_id_has_a_byte_at_least_and_not_more_than_its_maximum() {
    run(config(OPEN), async |gateway| {
        for (bytes, status) in [(0, 400), (1, 200), (128, 200), (129, 400)] {
            let answer = gateway.push(&NAMED.replace("m-1", &"i".repeat(bytes))).await;
            assert_eq!(answer.status.as_u16(), status, "{bytes} bytes");
        }
    });
}
