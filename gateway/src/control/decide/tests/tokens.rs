//! Decisions on tokens, at times that the test says.

use serde_json::{Value, json};

use super::*;
use crate::identity::testing::{EPOCH_S, token, tokens};

/// The listener that asks for tokens.
const BY_TOKEN: u8 = 2;

fn rig() -> Rig {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.control.set_tokens(tokens());
    rig.control.set_now(EPOCH_S);
    rig
}

fn enter(rig: &mut Rig, conn: ConnWord, claims: &Value, mut login: Value) -> Outcome {
    login["token"] = token(claims).into();
    let ask = ask(operation::AUTH, login.to_string().as_bytes());
    rig.ask_with(conn, Ask { listener: BY_TOKEN, ..ask })
}

fn due(rig: &mut Rig, now_s: u64) -> Vec<ConnWord> {
    rig.control.set_now(now_s);
    let mut orders = Orders::default();
    while rig.control.expire(&mut orders) {}
    let closed = orders.0.into_iter().map(|(_, order)| match order {
        Order::Close { conn, reason: CloseReason::GrantExpired } => conn,
        other => panic!("not an end of a grant: {other:?}"),
    });
    closed.collect()
}

#[test]
fn a_key_is_the_tokens_or_fits_its_pattern_or_is_made_up() {
    for (claim, asked, key) in [
        (json!("device"), "", Ok("device")),
        (json!("device"), "device", Ok("device")),
        (json!("device"), "other", Err(Refusal::KeyNotGranted)),
        (json!("phone-*"), "phone-1", Ok("phone-1")),
        (json!("phone-*"), "phone-", Ok("phone-")),
        (json!("phone-*"), "tablet-1", Err(Refusal::KeyNotGranted)),
        (json!("phone-*"), "", Err(Refusal::KeyNotGranted)),
        (Value::Null, "", Ok("00000000-0000-4000-8000-000000000001")),
        (Value::Null, "any", Err(Refusal::KeyNotGranted)),
    ] {
        let mut rig = rig();
        let outcome =
            enter(&mut rig, conn(ZERO, 1), &json!({ "exp": EPOCH_S + 9, "key": claim }), json!({ "key": asked }));
        match key {
            Ok(key) => assert_eq!(outcome.admitted_key(), key, "{claim} {asked}"),
            Err(refusal) => {
                assert_eq!(outcome.refusal(), Some((refusal, CloseReason::LoginRefused)), "{claim} {asked}");
            }
        }
    }
}

#[test]
fn a_grant_is_measured_until_its_second_and_not_after_its_connection() {
    let mut rig = rig();
    let claims = |exp: u64| json!({ "exp": EPOCH_S + exp, "rooms": ["a*"], "mid": 7 });
    let ticket = enter(&mut rig, conn(ONE, 1), &claims(5), json!({ "room_id": "ab" })).grant().ticket;
    let gone = enter(&mut rig, conn(ONE, 2), &claims(5), json!({})).grant().ticket;
    rig.gone(conn(ONE, 2), gone);
    let outcome = rig.ask(conn(ONE, 1), ticket, operation::CHANGE_ROOM, b"b");
    assert_eq!(outcome.refusal(), Some((Refusal::RoomNotGranted, CloseReason::LoginRefused)));
    assert!(matches!(rig.ask(conn(ONE, 1), ticket, operation::JOIN, b"b").verdict, Verdict::JoinRefused));
    assert!(matches!(rig.ask(conn(ONE, 1), ticket, operation::JOIN, b"ac").verdict, Verdict::Join { .. }));
    // Who has the slot now came without a token.
    let next = ConnWord::new(ONE, halley_ring::Slot(1), 2);
    assert!(matches!(rig.ask(next, 5, operation::JOIN, b"b").verdict, Verdict::Join { .. }));
    assert_eq!(due(&mut rig, EPOCH_S + 4), []);
    assert_eq!(due(&mut rig, EPOCH_S + 5), [conn(ONE, 1)]);
    assert_eq!(due(&mut rig, EPOCH_S + 50), [], "once");
    let late = enter(&mut rig, conn(ONE, 3), &claims(5), json!({}));
    assert_eq!(late.refusal().map(|(refusal, _)| refusal), Some(Refusal::Token(TokenReject::Expired)));
}

#[test]
fn a_refresh_needs_the_same_member_and_key_and_otherwise_changes_nothing() {
    let mut rig = rig();
    let claims = json!({ "exp": EPOCH_S + 5, "mid": 7, "key": "k", "rooms": ["a"] });
    let ticket = enter(&mut rig, conn(ZERO, 1), &claims, json!({})).grant().ticket;
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(&claims)
    };
    for (wrong, refusal) in [
        (with("mid", json!(8)), Refusal::MemberNotGranted),
        (with("mid", Value::Null), Refusal::MemberNotGranted),
        (with("key", json!("l*")), Refusal::KeyNotGranted),
        (with("key", Value::Null), Refusal::KeyNotGranted),
        (with("exp", json!(EPOCH_S)), Refusal::Token(TokenReject::Expired)),
        (with("mid", json!(7)) + "x", Refusal::Token(TokenReject::Signature)),
    ] {
        let outcome = rig.ask(conn(ZERO, 1), ticket, operation::REFRESH, wrong.as_bytes());
        assert!(
            matches!(outcome.verdict, Verdict::RefreshRefused { seconds: 5 }),
            "{refusal:?}: {:?}",
            outcome.verdict
        );
        assert!(
            matches!(outcome.event, Some(Event::Refused { refusal: found, .. }) if found == refusal),
            "{refusal:?}"
        );
    }
    let mut renewed = claims.clone();
    (renewed["exp"], renewed["key"], renewed["operations"]) = (json!(EPOCH_S + 90), json!("k*"), json!([1]));
    let outcome = rig.ask(conn(ZERO, 1), ticket, operation::REFRESH, token(&renewed).as_bytes());
    assert!(
        matches!(outcome.verdict, Verdict::Refreshed { seconds: 90, limited: true, rate: 0 }),
        "{:?}",
        outcome.verdict
    );
    assert!(matches!(rig.ask(conn(ZERO, 1), ticket, operation::SUBSCRIBE, b"1").verdict, Verdict::Accept));
    assert!(matches!(rig.ask(conn(ZERO, 1), ticket, operation::SUBSCRIBE, b"1,2").verdict, Verdict::AcceptRefused));
    assert!(matches!(rig.ask(conn(ZERO, 1), ticket, operation::SUBSCRIBE, b"no list").verdict, Verdict::Accept));
    assert_eq!((due(&mut rig, EPOCH_S + 89), due(&mut rig, EPOCH_S + 90)), (vec![], vec![conn(ZERO, 1)]));

    let open = rig.login(conn(ZERO, 2), r#"{"key":"open"}"#).grant().ticket;
    let outcome = rig.ask(conn(ZERO, 2), open, operation::REFRESH, token(&claims).as_bytes());
    assert!(matches!(outcome.verdict, Verdict::RefreshRefused { seconds: 0 }), "who came without one");
}

#[test]
fn a_revoked_token_is_neither_let_in_nor_taken_as_a_new_one() {
    let mut rig = rig();
    let claims = |id: &str| json!({ "exp": EPOCH_S + 500, "mid": 7, "key": "k", "jti": id });
    let ticket = enter(&mut rig, conn(ZERO, 1), &claims("a"), json!({})).grant().ticket;
    let mut orders = Orders::default();
    assert_eq!(rig.control.revoke(&Revoked::Token("b".into()), EPOCH_S + 100, &mut orders), Ok(0));
    let refresh = rig.ask(conn(ZERO, 1), ticket, operation::REFRESH, token(&claims("b")).as_bytes());
    assert!(matches!(refresh.verdict, Verdict::RefreshRefused { seconds: 500 }));
    let refused = enter(&mut rig, conn(ZERO, 2), &claims("b"), json!({})).refusal();
    assert_eq!(refused, Some((Refusal::Token(TokenReject::Revoked), CloseReason::LoginRefused)));
    assert_eq!(rig.control.revoke(&Revoked::Token("a".into()), EPOCH_S + 100, &mut orders), Ok(1));
    let [(ZERO, Order::Close { conn: closed, reason: CloseReason::GrantRevoked })] = orders.0[..] else {
        panic!("one close: {:?}", orders.0)
    };
    assert_eq!((closed, rig.control.standings()), (conn(ZERO, 1), 1));
    rig.gone(conn(ZERO, 1), ticket);
    assert_eq!(rig.control.standings(), 0);
}
