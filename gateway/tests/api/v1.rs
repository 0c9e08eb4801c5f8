//! goim v1's API on its own address: parameters, `ret`, counts, and who may call.

use axum::body::Body;
use gateway::control::api;
use gateway::order::Order;
use hyper::{Method, Request, StatusCode};
use serde_json::json;

use crate::harness::{Answer, Gateway, OPEN, config, run};

const OPEN_V1: &str = "[api_v1]\nauth = \"none\"\n";
const DONE: &str = r#"{"ret":1}"#;
const REFUSED: &str = r#"{"ret":65535}"#;

/// A gateway with goim v1's clients on its only listener, whose API is goim v1's here.
fn run_v1(configuration: &str, test: impl AsyncFnOnce(&Gateway)) {
    run(config(configuration), async |gateway| {
        let router = api::v1::router(&gateway.app);
        test(&gateway.with_router(router)).await;
    });
}

fn open() -> String {
    format!("{OPEN}dialect = \"goim-v1\"\n{OPEN_V1}")
}

/// The answer to a call, and the push that shard 0 got.
async fn pushed(gateway: &Gateway, uri: &str, body: &str) -> Vec<u8> {
    let answer = gateway.post(uri, body.to_owned()).await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, DONE), "{uri}");
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    match gateway.order(0).await {
        Order::Direct { payload, .. } | Order::Room { payload, .. } | Order::All { payload } => {
            assert_eq!(payload.operation, 5, "{uri}");
            payload.inner()[16..].to_vec()
        }
        other => panic!("{uri}: {other:?}"),
    }
}

#[test]
fn a_room_that_is_pushed_to_too_fast_is_429_and_others_than_rooms_are_not_limited() {
    run_v1(&format!("[limits]\nroom_pushes_per_second_max = 2\n{}", open()), async |gateway| {
        gateway.log_in(0, 1, "7").await;
        for _ in 0..2 {
            pushed(gateway, "/1/push/room?rid=1", "x").await;
        }
        let refused = gateway.post("/1/push/room?rid=1", "x").await;
        assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
        let told = refused.json();
        assert!(told["ret"] == 65535 && told["message"].as_str().is_some_and(|it| it.contains("room")), "{told}");
        for uri in ["/1/push?uid=7", "/1/push?uid=7", "/1/push?uid=7", "/1/push/all", "/1/push/all", "/1/push/all"] {
            pushed(gateway, uri, "x").await;
        }
    });
}

#[test]
fn each_target_is_reached_with_the_body_as_it_was() {
    run_v1(&open(), async |gateway| {
        gateway.log_in(0, 1, "7").await;
        for uri in [
            "/1/push?uid=7",
            "/1/push/room?rid=1",
            "/1/push/room?rid=1&ensure=true",
            "/1/push/room?ensure=no&rid=%2B1",
            "/1/push/all",
        ] {
            assert_eq!(pushed(gateway, uri, "{\"test\": 1}").await, b"{\"test\": 1}", "{uri}");
        }
        for (body, message) in [
            (r#"{"m":{"test": 1},"u":[6,7]}"#, r#"{"test": 1}"#),
            (r#" { "u" : [7], "m": "text", "x": 0 }"#, r#""text""#),
            (r#"{"u":[7],"m":null}"#, "null"),
            (r#"{"u":[7]}"#, ""),
        ] {
            assert_eq!(pushed(gateway, "/1/pushs", body).await, message.as_bytes(), "{body}");
        }
    });
}

#[test]
fn a_push_to_nobody_is_done_and_one_that_cannot_be_read_is_not() {
    run_v1(&open(), async |gateway| {
        for (uri, body) in [
            ("/1/push?uid=8", "x"),
            ("/1/push?uid=0", "x"),
            ("/1/push/room?rid=-1", "x"),
            ("/1/push/all", "x"),
            ("/1/pushs", r#"{"m":1,"u":[]}"#),
            ("/1/pushs", r#"{"m":1,"u":null}"#),
            ("/1/server/del?server=1", ""),
        ] {
            let answer = gateway.post(uri, body).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, DONE), "{uri} {body}");
        }
        for (uri, body) in [
            ("/1/push", "x"),
            ("/1/push?uid=", "x"),
            ("/1/push?uid=me", "x"),
            ("/1/push?uid=9223372036854775808", "x"),
            ("/1/push/room", "x"),
            ("/1/push/room?rid=2147483648", "x"),
            ("/1/push/room?rid=live", "x"),
            ("/1/pushs", "x"),
            ("/1/pushs", ""),
            ("/1/pushs", r#"{"m":1,"u":["7"]}"#),
        ] {
            let answer = gateway.post(uri, body).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, REFUSED), "{uri} {body}");
        }
        let answer = gateway.post("/1/server/del?server=a", "").await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, ""), "as goim v1 does");
        assert!(gateway.is_quiet());
    });
}

#[test]
fn counts_name_numbered_rooms_and_this_server() {
    run_v1(&open(), async |gateway| {
        gateway.log_in(0, 1, "7").await;
        gateway.log_in(1, 1, "8").await;
        gateway.log_in(1, 2, "nobody").await;
        for (kind, text) in [
            ("room", r#"{"data":[{"RoomId":1,"Count":2}],"ret":1}"#),
            ("server", r#"{"data":[{"Server":1,"Count":3}],"ret":1}"#),
            ("other", DONE),
        ] {
            let answer = gateway.get(&format!("/1/count?type={kind}")).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, text));
        }
        assert_eq!(gateway.get("/1/count").await.text(), DONE);
        assert_eq!(gateway.get("/monitor/ping").await.text(), "ok");
    });
}

#[test]
fn a_wrong_method_or_path_is_answered_as_by_go() {
    run_v1(&open(), async |gateway| {
        for (method, uri) in [
            (Method::GET, "/1/push?uid=7"),
            (Method::PUT, "/1/pushs"),
            (Method::GET, "/1/push/room?rid=1"),
            (Method::DELETE, "/1/push/all"),
            (Method::GET, "/1/server/del?server=1"),
            (Method::POST, "/1/count?type=room"),
        ] {
            let answer = gateway.call(method, uri, "x").await;
            assert_eq!(
                (answer.status, answer.text()),
                (StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n"),
                "{uri}"
            );
        }
        for uri in ["/", "/1/pushes", "/1/push/", "/goim/online/total", "/v1/stats", "/monitor/stat", "/metrics"] {
            let answer = gateway.get(uri).await;
            assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, "404 page not found\n"), "{uri}");
        }
    });
}

#[test]
fn a_gateway_that_has_no_place_says_503_and_not_done() {
    run_v1(&open(), async |gateway| {
        gateway.log_in(0, 1, "7").await;
        let mut refused = None;
        for _ in 0..5000 {
            let answer = gateway.post("/1/push/room?rid=1", "x").await;
            if answer.status != StatusCode::OK {
                refused = Some(answer);
                break;
            }
        }
        let refused = refused.expect("nobody takes the orders");
        assert_eq!((refused.status, &refused.json()["ret"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(65535)));
        assert_eq!(refused.header("retry-after"), "1");
    });
}

#[test]
fn a_token_is_needed_unless_it_is_said_that_none_is() {
    let token = "0123456789abcdef";
    let text = format!("{OPEN}dialect = \"goim-v1\"\n[api_v1]\n")
        .replace("\"none\"", "\"token\"\ntokens = [\"0123456789abcdef\"]");
    run_v1(&text, async |gateway| {
        for uri in ["/1/push?uid=7", "/1/push/room?rid=1", "/1/push/all", "/1/pushs", "/1/server/del?server=1"] {
            let answer = gateway.post(uri, "{}").await;
            assert_eq!((answer.status, &answer.json()["ret"]), (StatusCode::UNAUTHORIZED, &json!(65535)), "{uri}");
        }
        assert_eq!(gateway.get("/1/count?type=room").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(gateway.get("/monitor/ping").await.status, StatusCode::OK, "probes have no token");
        let request = Request::post("/1/push/all").header("authorization", format!("Bearer {token}"));
        let Answer { status, .. } = gateway.send(request.body(Body::from("x")).expect("a request")).await;
        assert_eq!(status, StatusCode::OK);
    });
}

#[test]
fn a_body_beyond_its_limit_is_413() {
    run_v1(&open().replace("[api]", "[api]\nbody_bytes_max = 1024"), async |gateway| {
        let answer = gateway.post("/1/push/all", "x".repeat(1025)).await;
        assert_eq!((answer.status, &answer.json()["ret"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!(65535)));
        assert_eq!(gateway.post("/1/push/all", "x".repeat(1024)).await.text(), DONE);
    });
}
