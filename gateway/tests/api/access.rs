//! Who may call, what unknown calls are told, and that the description matches the routes.

use std::collections::BTreeSet;

use axum::body::Body;
use gateway::config::{Config, Host, Scope, Sources, TokenHash};
use gateway::control::api::{self, Access, Route, routes};
use hyper::{Method, Request, StatusCode};

use crate::harness::{Gateway, OPEN, config, run};

const TOKENS: &str = "[api]\ntokens = [\"first-token-0123456\", \"second-token-012345\"]\n[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n";

async fn status_with(gateway: &Gateway, method: Method, path: &str, authorization: Option<&str>) -> StatusCode {
    let mut request = Request::builder().method(method).uri(path.replace("{room}", "r").replace("{key}", "k"));
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    gateway.send(request.body(Body::empty()).expect("a request")).await.status
}

#[test]
fn every_route_but_the_probes_wants_a_token() {
    run(config(TOKENS), async |gateway| {
        for route in routes() {
            for wrong in [None, Some("Bearer first-token-012345"), Some("Bearer "), Some("Basic first-token-0123456")] {
                let status = status_with(gateway, route.method.clone(), route.path, wrong).await;
                let let_in = status != StatusCode::UNAUTHORIZED;
                assert_eq!(let_in, route.access == Access::Anybody, "{} {} {wrong:?}", route.method, route.path);
            }
            for right in ["Bearer first-token-0123456", "bearer second-token-012345"] {
                let status = status_with(gateway, route.method.clone(), route.path, Some(right)).await;
                assert_ne!(status, StatusCode::UNAUTHORIZED, "{} {}", route.method, route.path);
            }
        }
        let probes = routes().into_iter().filter(|route| route.access == Access::Anybody).map(|route| route.path);
        assert_eq!(probes.collect::<Vec<_>>(), ["/healthz", "/readyz"]);
    });
}

/// Three tokens, each of one scope, known by their hashes.
fn scoped() -> String {
    let entry = |scope: Scope| {
        let (name, hash) = (scope.name(), TokenHash::of(format!("token-for-{}", scope.name()).as_bytes()));
        format!("{{ name = \"the-{name}\", hash = \"{hash}\", scopes = [\"{name}\"] }}")
    };
    let entries = Scope::ALL.map(entry).join(", ");
    TOKENS.replace("\"first-token-0123456\"", &entries)
}

#[test]
fn a_token_of_another_scope_is_403_and_says_which_is_needed() {
    run(config(&scoped()), async |gateway| {
        for route in routes() {
            let Access::Scope(needed) = route.access else { continue };
            for scope in Scope::ALL {
                let token = format!("Bearer token-for-{}", scope.name());
                let mut request =
                    Request::builder().method(route.method.clone()).uri(route.path.replace(['{', '}'], ""));
                request = request.header("authorization", token);
                let answer = gateway.send(request.body(Body::empty()).expect("a request")).await;
                let place = format!("{} {} with {}", route.method, route.path, scope.name());
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{place}");
                assert_eq!(answer.status == StatusCode::FORBIDDEN, scope != needed, "{place}");
                if scope != needed {
                    let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.name());
                    assert_eq!(answer.header("www-authenticate"), challenge, "{place}");
                }
            }
            let plain =
                status_with(gateway, route.method.clone(), route.path, Some("Bearer second-token-012345")).await;
            assert!(plain != StatusCode::FORBIDDEN, "a token in plain text has every scope");
        }
        let hash = format!("Bearer {}", TokenHash::of(b"token-for-read"));
        let status = status_with(gateway, Method::GET, "/v1/stats", Some(&hash)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "a hash is no token");
    });
}

#[test]
fn a_refusal_says_what_to_send_and_comes_before_the_body_is_read() {
    run(config(TOKENS), async |gateway| {
        let answer = gateway.post("/v1/push", vec![b'x'; 4 << 20]).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
        assert!(answer.text().contains("Authorization: Bearer"));
        let unknown = Request::get("/v1/stats").header("authorization", "Bearer x").body(Body::empty());
        let unknown = gateway.send(unknown.expect("a request")).await;
        assert_eq!(unknown.header("www-authenticate"), "Bearer error=\"invalid_token\"");
        let goim = gateway.post("/goim/push/all?operation=1", "x").await;
        assert_eq!((goim.status, goim.json()["code"].as_i64()), (StatusCode::UNAUTHORIZED, Some(-400)));
    });
}

#[test]
fn unknown_paths_and_methods_have_one_shape() {
    run(config(OPEN), async |gateway| {
        let unknown = gateway.get("/v2/push").await;
        assert_eq!(
            (unknown.status, unknown.json()["error"]["code"].as_str()),
            (StatusCode::NOT_FOUND, Some("not-found"))
        );
        let method = gateway.call(Method::PUT, "/v1/connections/k", "").await;
        assert_eq!(method.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(method.json()["error"]["code"], "method-not-allowed");
        let mut allowed: Vec<_> = method.header("allow").split(',').collect();
        allowed.sort_unstable();
        assert_eq!(allowed, ["DELETE", "GET", "HEAD"]);
        let goim = gateway.get("/goim/push/all").await;
        assert_eq!((goim.status, goim.header("allow")), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
        assert_eq!(goim.json()["code"], -400);
    });
}

#[test]
fn a_body_above_its_limit_is_413_and_names_the_key() {
    run(config(&OPEN.replace("auth", "body_bytes_max = 1024\nauth")), async |gateway| {
        let known = gateway.post("/goim/push/all?operation=1", vec![b'x'; 1025]).await;
        assert_eq!(known.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(known.text().contains("api.body_bytes_max"));
        assert_eq!(gateway.post("/goim/push/all?operation=1", vec![b'x'; 1024]).await.status, StatusCode::OK);
    });
}

#[test]
fn the_page_is_there_in_developer_mode_only() {
    let host = Host { cpus: vec![0], files_max: 1000, memory_bytes: 1 << 34 };
    run(Config::load(&Sources::default(), &host).expect("--dev"), async |gateway| {
        for (path, kind) in [
            ("/", "text/html"),
            ("/page.css", "text/css"),
            ("/page.js", "text/javascript"),
            ("/goim.js", "text/javascript"),
        ] {
            let answer = gateway.get(path).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
            assert!(answer.header("content-type").starts_with(kind), "{path}");
        }
        let addresses = gateway.get("/dev.json").await.text().to_owned();
        assert_eq!(
            addresses,
            r#"{"websocket":"ws://127.0.0.1:3102/sub","tcp":"127.0.0.1:3101","api":"http://127.0.0.1:3111"}"#
        );
    });
    run(config(OPEN), async |gateway| {
        assert_eq!(gateway.get("/").await.status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn the_descriptions_have_the_routes_of_the_routers_with_their_scopes_and_no_others() {
    compare(include_str!("../../../docs/api/openapi.yaml"), &routes());
    compare(include_str!("../../../docs/api/openapi-v1.yaml"), &api::v1::routes());
}

#[test]
fn the_descriptions_say_of_pushes_to_rooms_that_they_can_be_too_fast_and_of_no_other_call() {
    for (yaml, limited) in [
        (include_str!("../../../docs/api/openapi.yaml"), &["/goim/push/room", "/v1/push"][..]),
        (include_str!("../../../docs/api/openapi-v1.yaml"), &["/1/push/room"]),
    ] {
        let calls = paths(yaml).split("\n  /").filter(|call| call.contains("\n        \"429\": "));
        let described: Vec<_> = calls.map(|call| format!("/{}", call.split(':').next().expect("a path"))).collect();
        assert_eq!(described, limited);
    }
}

fn paths(yaml: &str) -> &str {
    yaml.split_once("\npaths:").and_then(|(_, rest)| rest.split_once("\ncomponents:\n")).expect("paths").0
}

fn compare(yaml: &str, table: &[Route]) {
    let mut described = BTreeSet::new();
    let (mut path, mut method) = ("", "");
    for line in paths(yaml).lines() {
        let indent = line.len() - line.trim_start().len();
        let name = line.trim().trim_end_matches(':');
        match indent {
            2 => path = name,
            4 => method = name,
            6 if name.starts_with("security: ") => {
                let described = described.insert((path.to_owned(), method.to_uppercase(), name.to_owned()));
                assert!(described, "twice: {path} {method}");
            }
            _ => {}
        }
    }
    let security = |access| match access {
        Access::Scope(scope) => format!("security: [{{ token: [{}] }}]", scope.name()),
        Access::Anybody => "security: []".into(),
    };
    let routed: BTreeSet<_> =
        table.iter().map(|route| (route.path.to_owned(), route.method.to_string(), security(route.access))).collect();
    assert_eq!(described, routed);
}
