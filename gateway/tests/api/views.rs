//! Rooms, connections, counters: what an operator sees.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use gateway::control::metrics::GROUPS;
use gateway::ids::{RoomIndex, RoomRef};
use gateway::order::{Inspection, Order, Report};
use gateway::reason::{CloseReason, DropReason};
use hyper::{Method, StatusCode};
use serde_json::json;

use crate::harness::{OPEN, config, run};

#[test]
fn rooms_come_in_pages_by_name() {
    run(config(OPEN), async |gateway| {
        for (slot, room) in ["live://3", "live://1", "live://2", "other://1"].iter().enumerate() {
            gateway.log_in(0, u32::try_from(slot).expect("few"), &format!(r#"{{"room_id":"{room}"}}"#)).await;
        }
        let first = gateway.get("/v1/rooms?prefix=live&limit=2").await.json();
        assert_eq!(
            first,
            json!({ "rooms": [{ "room": "live://1", "members": 1 }, { "room": "live://2", "members": 1 }], "next": "live://2" })
        );
        let second = gateway.get("/v1/rooms?prefix=live&limit=2&after=live%3A%2F%2F2").await.json();
        assert_eq!(second, json!({ "rooms": [{ "room": "live://3", "members": 1 }], "next": null }));
        assert_eq!(gateway.get("/v1/rooms?limit=1001").await.status, StatusCode::BAD_REQUEST);

        let one = gateway.get("/v1/rooms/live%3A%2F%2F1").await;
        assert_eq!(one.json(), json!({ "room": "live://1", "members": 1, "here": 1 }));
        assert_eq!(gateway.get("/v1/rooms/none").await.status, StatusCode::NOT_FOUND);
    });
}

#[test]
fn a_name_that_is_not_text_is_400_like_any_other_fault() {
    run(config(OPEN), async |gateway| {
        for (method, path) in [
            (Method::GET, "/v1/rooms/%zz%00%ff"),
            (Method::GET, "/v1/connections/%ff"),
            (Method::DELETE, "/v1/connections/%ff"),
        ] {
            let answer = gateway.call(method, path, "").await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
            assert_eq!(answer.json()["error"]["code"], "bad-request", "{path}");
        }
    });
}

#[test]
fn a_connection_is_shown_as_its_shard_sees_it() {
    run(config(OPEN), async |gateway| {
        let conn = gateway.log_in(1, 3, r#"{"key":"a b","room_id":"live://1","accepts":[1000]}"#).await;
        let asking = gateway.get("/v1/connections/a%20b");
        let answering = async {
            let Order::Inspect { conn: asked, token } = gateway.order(1).await else { panic!("an inspection") };
            assert_eq!(asked, conn);
            let found = Inspection {
                peer: ([10, 0, 0, 1], 4).into(),
                listener: 0,
                age_ms: 5,
                rooms: vec![
                    RoomRef { index: RoomIndex(0), generation: 0 },
                    RoomRef { index: RoomIndex(9), generation: 9 },
                ],
                queued_bytes: 6,
                queued_messages: 7,
                accepts: vec![1000],
            };
            gateway.report(1, Report::Inspected { token, found: Some(Box::new(found)) });
        };
        let (answer, ()) = monoio::join!(asking, answering);
        assert_eq!(answer.status, StatusCode::OK);
        let shown = answer.json();
        assert_eq!(shown["key"], "a b");
        let connection = &shown["connections"][0];
        assert_eq!(connection["peer"], "10.0.0.1:4");
        assert_eq!((&connection["shard"], &connection["queued_messages"]), (&json!(1), &json!(7)));
        assert!(
            connection["rooms"].as_array().is_some_and(|rooms| rooms.len() <= 1),
            "a stale room has no name: {connection}"
        );
    });
}

#[test]
fn a_connection_that_went_meanwhile_is_404_and_a_silent_shard_is_503() {
    run(config(OPEN), async |gateway| {
        gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let gone = async {
            let Order::Inspect { token, .. } = gateway.order(0).await else { panic!("an inspection") };
            gateway.report(0, Report::Inspected { token, found: None });
        };
        let (answer, ()) = monoio::join!(gateway.get("/v1/connections/k"), gone);
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(gateway.get("/v1/connections/nobody").await.status, StatusCode::NOT_FOUND);
        assert_eq!(gateway.get("/v1/connections/k").await.status, StatusCode::SERVICE_UNAVAILABLE);
    });
}

#[test]
fn a_kick_closes_every_connection_of_the_key() {
    run(config(&format!("key_policy = \"share\"\n{OPEN}")), async |gateway| {
        let conns = [gateway.log_in(0, 1, r#"{"key":"k"}"#).await, gateway.log_in(1, 1, r#"{"key":"k"}"#).await];
        let answer = gateway.call(Method::DELETE, "/v1/connections/k?reason=spam", "").await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "key": "k", "closed": 2 })));
        for (shard, expected) in [(0, conns[0]), (1, conns[1])] {
            let Order::Close { conn, reason } = gateway.order(shard).await else { panic!("a close") };
            assert_eq!((conn, reason), (expected, CloseReason::Kicked));
        }
        assert_eq!(gateway.call(Method::DELETE, "/v1/connections/nobody", "").await.status, StatusCode::NOT_FOUND);
        let long = format!("/v1/connections/k?reason={}", "x".repeat(257));
        assert_eq!(gateway.call(Method::DELETE, &long, "").await.status, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn counters_of_shards_are_shown_one_by_one_and_summed() {
    run(config(OPEN), async |gateway| {
        for (at, link) in gateway.app.links.iter().enumerate() {
            let n = at as u64 + 1;
            link.stats.offered.add(100 * n);
            link.stats.sent.add(90 * n);
            link.stats.queued.add(3 * n);
            link.stats.dropped[DropReason::SlowNewest.at()].add(7 * n);
            link.stats.closes[CloseReason::PeerClosed.at()].add(n);
            link.stats.turn_us.record(3);
            link.stats.turn_us.record(u64::MAX / 4);
        }
        gateway.log_in(0, 1, "{}").await;
        gateway.ask_to_log_in(0, 2, "no json").await;

        let stats = gateway.get("/v1/stats").await.json();
        let shard = &stats["shards"][1];
        assert_eq!((&shard["offered"], &shard["sent"], &shard["queued"]), (&json!(200), &json!(180), &json!(6)));
        assert_eq!((&shard["dropped"]["slow-newest"], &shard["dropped"]["closed"]), (&json!(14), &json!(0)));
        assert_eq!((&stats["online"], &stats["kafka"]), (&json!(1), &json!([])));

        let scrape = gateway.get("/metrics").await;
        assert!(scrape.header("content-type").starts_with("application/openmetrics-text"));
        for line in [
            "halley_offered_total 300",
            "halley_sent_total 270",
            "halley_queued 9",
            "halley_connections 0",
            "halley_online 1",
            "halley_dropped_total{reason=\"slow-newest\"} 21",
            "halley_dropped_total{reason=\"room-behind\"} 0",
            "halley_closes_total{reason=\"peer-closed\"} 3",
            "halley_rejects_total{reason=\"stale-room\"} 0",
            "halley_logins_total{result=\"admitted\"} 1",
            "halley_logins_total{result=\"login-syntax\"} 1",
            "halley_enters_total 0",
            "halley_completions_total 0",
            "halley_turn_seconds_count 4",
            "halley_turn_seconds_bucket{le=\"+Inf\"} 4",
            "halley_run_messages_count 0",
            "# EOF",
        ] {
            assert!(scrape.text().lines().any(|other| other == line), "no line {line:?} in\n{}", scrape.text());
        }
        let mut types = BTreeSet::new();
        for line in scrape.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            assert!(types.insert(line.to_owned()), "{line} comes once");
        }
        let families = GROUPS
            .iter()
            .filter(|group| !["Kafka", "Upstream"].contains(&group.title))
            .flat_map(|group| group.families);
        let families = families.map(|family| format!("{} {}", family.name, family.kind.name()));
        assert_eq!(types, families.collect::<BTreeSet<_>>(), "what is exported is what the table says");
        let three = "halley_turn_seconds_bucket{le=\"3e-6\"} 2";
        assert!(scrape.text().contains(three) || scrape.text().contains("le=\"0.000003\"} 2"), "{}", scrape.text());
    });
}

#[test]
fn readiness_ends_with_the_beginning_of_a_drain() {
    run(config(OPEN), async |gateway| {
        assert_eq!(gateway.get("/readyz").await.status, StatusCode::OK);
        gateway.app.draining.store(true, Ordering::Relaxed);
        assert_eq!(gateway.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(gateway.get("/healthz").await.status, StatusCode::OK);
        let instances = gateway.get("/goim/nodes/instances").await.json();
        assert_eq!(instances["data"][0]["metadata"]["offline"], "true");
    });
}
