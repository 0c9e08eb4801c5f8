//! Control's tasks: reports come in whatever the rest does, and orders go out in order.

use gateway::ids::{ConnWord, ShardIndex};
use gateway::limits;
use gateway::order::{Order, Verdict};
use gateway::reason::CloseReason;
use halley_ring::Slot;
use hyper::{Method, StatusCode};

use crate::harness::{Gateway, OPEN, config, run};

/// An order that means nothing to this test.
fn filler() -> Order {
    Order::Close { conn: ConnWord::new(ShardIndex(0), Slot(9), 9), reason: CloseReason::Kicked }
}

/// Fills what is left of a shard's queue, and returns how much that was.
fn fill(gateway: &Gateway, shard: usize) -> usize {
    (0..=limits::ORDERS_MAX).take_while(|_| gateway.app.links[shard].put_control(filler()).is_ok()).count()
}

#[test]
fn an_answer_that_finds_the_queue_full_follows_when_there_is_room() {
    run(config(OPEN), async |gateway| {
        let filled = fill(gateway, 0);
        let logging_in = gateway.ask_to_log_in(0, 1, r#"{"key":"k"}"#);
        let other_shard = async {
            // The full shard holds up nobody else.
            gateway.log_in(1, 1, r#"{"key":"other"}"#).await;
        };
        let ((_, verdict), ()) = monoio::join!(logging_in, other_shard);
        assert!(filled > 0 && matches!(verdict, Verdict::Admit), "{verdict:?}");
        assert_eq!(gateway.app.directory.connections(), 2);
    });
}

#[test]
fn more_logins_than_one_round_takes_are_all_answered() {
    run(config(OPEN), async |gateway| {
        let each = u32::try_from(limits::REPORTS_MAX).expect("few");
        for (shard, slot) in (0..each).flat_map(|slot| [(0, slot), (1, slot)]) {
            gateway.ask(shard, slot, "{}");
        }
        for shard in [0, 1] {
            let mut answered = 0;
            while answered < each {
                answered += u32::from(matches!(gateway.order(shard).await, Order::Answer { .. }));
            }
        }
        assert_eq!(gateway.app.directory.connections(), 2 * u64::from(each));
    });
}

#[test]
fn a_call_is_answered_while_reports_keep_coming() {
    run(config(OPEN), async |gateway| {
        let busy = async {
            for slot in 0..500 {
                gateway.log_in(0, slot, "{}").await;
            }
        };
        let asking = async {
            for _ in 0..50 {
                assert_eq!(gateway.get("/v1/stats").await.status, StatusCode::OK);
            }
        };
        monoio::join!(busy, asking);
        assert_eq!(gateway.app.directory.connections(), 500);
    });
}

#[test]
fn a_kick_that_finds_the_queue_full_still_closes() {
    run(config(OPEN), async |gateway| {
        let conn = gateway.log_in(0, 1, r#"{"key":"k"}"#).await;
        let filled = fill(gateway, 0);
        let answer = gateway.call(Method::DELETE, "/v1/connections/k", "").await;
        assert_eq!(answer.status, StatusCode::OK);
        for _ in 0..filled {
            gateway.order(0).await;
        }
        let Order::Close { conn: closed, .. } = gateway.order(0).await else { panic!("a close") };
        assert_eq!(closed, conn);
    });
}

#[test]
fn a_call_is_answered_while_tokens_keep_coming() {
    let jwt = "[[jwt.keys]]\nkid = \"k\"\nalgorithm = \"HS256\"\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    run(config(&format!("{}{jwt}", OPEN.replace("open", "jwt"))), async |gateway| {
        let each = u32::try_from(limits::REPORTS_MAX).expect("few");
        let forged = r#"{"token":"eyJhbGciOiJIUzI1NiJ9.e30.AAAA"}"#;
        for slot in 0..each {
            gateway.ask(0, slot, forged);
        }
        assert_eq!(gateway.get("/healthz").await.status, StatusCode::OK);
        for _ in 0..each {
            let Order::Answer { verdict, .. } = gateway.order(0).await else { panic!("an answer") };
            assert!(matches!(verdict, Verdict::Refuse(CloseReason::LoginRefused)));
        }
        let logins = gateway.get("/v1/stats").await.json()["logins"].clone();
        assert_eq!(logins["token-signature"], each, "{logins}");
    });
}
