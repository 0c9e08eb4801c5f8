//! Decisions that wait for the platform's answer.

use super::*;
use crate::control::decide::{About, Allowed, HookAnswer, Question};
use crate::identity::Date;
use crate::identity::testing::{EPOCH_S, token, tokens};
use crate::order::Asked;

/// Listeners of the rig: whom the platform lets in; whoever has a token; everybody.
const BY_HOOK: u8 = 0;
const BY_TOKEN: u8 = 1;
const OPEN: u8 = 2;

fn rig(hooks: HookPolicy) -> Rig {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.control.set_tokens(tokens());
    rig.control.set_now(EPOCH_S);
    let policy = &mut rig.control.policy;
    policy.listeners = vec![LoginRule::Hook, LoginRule::Jwt, LoginRule::Open];
    policy.hooks = hooks;
    rig
}

fn asks_for_rooms() -> Rig {
    rig(HookPolicy { join: true, ..HookPolicy::default() })
}

/// What waits for the platform.
struct Waits {
    token: u64,
    question: Question,
}

impl Rig {
    fn waits(&mut self, conn: ConnWord, listener: u8, ticket: u64, operation: i32, body: &[u8]) -> Waits {
        let outcome = self.ask_with(conn, Ask { listener, ticket, ..ask(operation, body) });
        assert!(matches!(outcome.verdict, Verdict::Later) && outcome.orders.is_empty(), "{:?}", outcome.verdict);
        let Some(Event::Asks { token, question }) = outcome.event else { panic!("a question") };
        Waits { token, question: *question }
    }

    fn answered(&mut self, token: u64, answer: HookAnswer) -> Outcome {
        let event = self.control.hook_answered(token, answer, &mut self.orders);
        let mut orders = std::mem::take(&mut self.orders.0);
        let Some((_, Order::Decided { verdict, .. })) = orders.pop() else { panic!("a decision") };
        Outcome { orders, verdict, event }
    }

    /// Logs in as the platform says, and returns the ticket.
    fn enter(&mut self, conn: ConnWord, body: &str, allowed: Allowed) -> u64 {
        let Waits { token, .. } = self.waits(conn, BY_HOOK, 0, operation::AUTH, body.as_bytes());
        self.answered(token, HookAnswer::Allowed(Box::new(allowed))).grant().ticket
    }
}

fn yes() -> HookAnswer {
    HookAnswer::Allowed(Box::default())
}

#[test]
fn a_login_waits_for_the_platform_and_is_as_the_client_said_unless_the_answer_says_more() {
    let body = br#"{"mid":7,"key":"phone","room_id":"a","platform":"web","accepts":[1,2],"token":"t","halley":1}"#;
    let said = Allowed {
        mid: Some(9),
        key: Some("tv".into()),
        room_id: Some("b".into()),
        accepts: Some(vec![3]),
        ..Allowed::default()
    };
    for (allowed, mid, key, room, accepts) in
        [(Allowed::default(), 7, "phone", "a", &[1, 2][..]), (said, 9, "tv", "b", &[3])]
    {
        let mut rig = rig(HookPolicy::default());
        let Waits { token, question } = rig.waits(conn(ONE, 1), BY_HOOK, 0, operation::AUTH, body);
        assert_eq!((question.listener, question.peer), (BY_HOOK, peer()));
        let About::Login(login) = question.about else { panic!("a login") };
        assert_eq!((login.mid, &*login.key, &*login.token, &*login.platform), (7, "phone", "t", "web"));
        assert_eq!((rig.control.directory().connections(), rig.control.pending()), (0, 1), "nothing yet");
        let outcome = rig.answered(token, HookAnswer::Allowed(Box::new(allowed)));
        assert!(matches!(outcome.verdict, Verdict::Admit));
        let grant = outcome.grant();
        assert_eq!((grant.accepts.as_slice(), grant.marked, grant.limited), (accepts, true, false));
        let directory = rig.control.directory();
        assert_eq!(grant.room, directory.room_in(ONE, room));
        assert_eq!(directory.connection(grant.ticket, conn(ONE, 1)), Some((mid, Key::new(key))));
        assert_eq!((rig.control.pending(), rig.control.standings()), (0, 1));
        assert!(rig.control.hook_answered(token, HookAnswer::Refused, &mut rig.orders).is_none(), "once");
        assert!(rig.orders.0.is_empty());
    }
}

#[test]
fn what_is_no_yes_has_its_refusal_and_leaves_nothing_behind() {
    let too_long = Allowed { key: Some("k".repeat(limits::KEY_BYTES_MAX + 1)), ..Allowed::default() };
    let too_many = Allowed { rooms: Some(vec!["a".into(); 65]), ..Allowed::default() };
    let over = Allowed { exp: Some(Date(EPOCH_S)), ..Allowed::default() };
    for (answer, refusal, reason) in [
        (HookAnswer::Refused, Refusal::HookRefused, CloseReason::LoginRefused),
        (HookAnswer::Down, Refusal::HookDown, CloseReason::HookFailed),
        (HookAnswer::Nonsense, Refusal::HookNonsense, CloseReason::HookFailed),
        (HookAnswer::Allowed(too_many.into()), Refusal::HookNonsense, CloseReason::HookFailed),
        (HookAnswer::Allowed(over.into()), Refusal::HookNonsense, CloseReason::HookFailed),
        (HookAnswer::Allowed(too_long.into()), Refusal::KeyTooLong, CloseReason::LoginRefused),
    ] {
        let mut rig = rig(HookPolicy::default());
        let Waits { token, .. } = rig.waits(conn(ZERO, 1), BY_HOOK, 0, operation::AUTH, br#"{"room_id":"a"}"#);
        let outcome = rig.answered(token, answer);
        assert_eq!(outcome.refusal(), Some((refusal, reason)));
        assert!(outcome.orders.is_empty());
        let directory = rig.control.directory();
        assert_eq!((directory.connections(), directory.rooms(), directory.addresses()), (0, 0, 0));
        assert_eq!((rig.control.pending(), rig.control.standings()), (0, 0));
    }
}

#[test]
fn a_platform_that_is_down_lets_in_whoever_is_there_if_it_is_configured_so() {
    let mut rig = rig(HookPolicy { allow_when_down: true, ..HookPolicy::default() });
    let Waits { token, .. } = rig.waits(conn(ZERO, 1), BY_HOOK, 0, operation::AUTH, br#"{"mid":7,"key":"k"}"#);
    let outcome = rig.answered(token, HookAnswer::Down);
    assert!(matches!(outcome.verdict, Verdict::Admit));
    assert_eq!(rig.conns("k"), [conn(ZERO, 1)]);
    let Waits { token, .. } = rig.waits(conn(ZERO, 2), BY_HOOK, 0, operation::AUTH, b"{}");
    let outcome = rig.answered(token, HookAnswer::Nonsense);
    assert_eq!(outcome.refusal(), Some((Refusal::HookNonsense, CloseReason::HookFailed)), "it is there");
}

#[test]
fn what_the_platform_gives_holds_after_the_login_and_ends_with_its_time() {
    let mut rig = rig(HookPolicy::default());
    let allowed = Allowed {
        rooms: Some(vec!["live://*".into()]),
        operations: Some(vec![1000]),
        exp: Some(Date(EPOCH_S + 60)),
        ..Allowed::default()
    };
    let conn = conn(ZERO, 1);
    let ticket = rig.enter(conn, r#"{"key":"k","room_id":"lobby","accepts":[1000,1001]}"#, allowed);
    let mut asked = |operation, body: &[u8]| rig.ask_with(conn, Ask { ticket, ..ask(operation, body) }).verdict;
    assert!(matches!(asked(operation::JOIN, b"live://1"), Verdict::Join { members: 1, .. }));
    assert!(matches!(asked(operation::JOIN, b"chat://1"), Verdict::JoinRefused));
    assert!(matches!(asked(operation::SUBSCRIBE, b"1001"), Verdict::AcceptRefused));
    // Whom the platform let in has no token, and a token is not what lets it stay.
    let good = token(&serde_json::json!({ "key": "k", "exp": EPOCH_S + 900 }));
    assert!(matches!(asked(operation::REFRESH, good.as_bytes()), Verdict::RefreshRefused { seconds: 60 }));
    rig.control.set_now(EPOCH_S + 60);
    rig.control.expire(&mut rig.orders);
    let ended = std::mem::take(&mut rig.orders.0);
    assert!(matches!(ended[..], [(ZERO, Order::Close { reason: CloseReason::GrantExpired, .. })]));
    // Without a word about rooms and end: none, and never.
    let other = ConnWord::new(ZERO, halley_ring::Slot(2), 1);
    let ticket = rig.enter(other, "{}", Allowed::default());
    let verdict = rig.ask_with(other, Ask { ticket, ..ask(operation::JOIN, b"live://1") }).verdict;
    assert!(matches!(verdict, Verdict::JoinRefused));
    rig.control.set_now(u64::from(u32::MAX) - 1);
    assert!(!rig.control.is_due());
}

#[test]
fn beyond_those_who_may_wait_everybody_is_refused_at_once() {
    let mut rig = rig(HookPolicy { pending_max: 2, ..HookPolicy::default() });
    let first = rig.waits(conn(ZERO, 1), BY_HOOK, 0, operation::AUTH, b"{}");
    rig.waits(conn(ONE, 2), BY_HOOK, 0, operation::AUTH, b"{}");
    let third = rig.ask_with(conn(ZERO, 3), Ask { listener: BY_HOOK, ..ask(operation::AUTH, b"{}") });
    assert_eq!(third.refusal(), Some((Refusal::HookBusy, CloseReason::HookFailed)));
    let open = rig.ask_with(conn(ZERO, 4), Ask { listener: OPEN, ..ask(operation::AUTH, b"{}") });
    assert!(matches!(open.verdict, Verdict::Admit), "others do not wait");
    rig.answered(first.token, yes());
    rig.waits(conn(ZERO, 5), BY_HOOK, 0, operation::AUTH, b"{}");
}

#[test]
fn the_platform_is_asked_about_every_room_that_is_entered() {
    let mut rig = asks_for_rooms();
    let allowed = Allowed { mid: Some(7), ..Allowed::default() };
    let one = conn(ZERO, 1);
    let ticket = rig.enter(one, r#"{"key":"k","room_id":"lobby"}"#, allowed);
    for (operation, answer) in
        [(operation::JOIN, yes()), (operation::CHANGE_ROOM, yes()), (operation::JOIN, HookAnswer::Refused)]
    {
        let Waits { token, question } = rig.waits(one, BY_HOOK, ticket, operation, b"a");
        let About::Join { member: 7, key, room } = question.about else { panic!("about a room") };
        assert_eq!((&*key, &*room), ("k", "a"));
        let refused = matches!(answer, HookAnswer::Refused);
        match rig.answered(token, answer).verdict {
            Verdict::Join { members, .. } => assert!(members > 0 && operation == operation::JOIN && !refused),
            Verdict::Move(Some(_)) => assert!(operation == operation::CHANGE_ROOM && !refused),
            Verdict::JoinRefused => assert!(operation == operation::JOIN && refused),
            other => panic!("{other:?}"),
        }
    }
    let Waits { token, .. } = rig.waits(one, BY_HOOK, ticket, operation::CHANGE_ROOM, b"b");
    let outcome = rig.answered(token, HookAnswer::Down);
    assert_eq!(outcome.refusal(), Some((Refusal::HookDown, CloseReason::HookFailed)));
    let out = rig.ask_with(one, Ask { ticket, ..ask(operation::CHANGE_ROOM, b"") });
    assert!(matches!(out.verdict, Verdict::Move(None)), "out of a room everybody may go");
    rig.gone(one, ticket);
    let nobody = rig.ask_with(one, Ask { ticket, ..ask(operation::JOIN, b"a") });
    assert!(matches!(nobody.verdict, Verdict::JoinRefused), "nobody is asked about who is gone");
}

#[test]
fn the_room_of_a_login_is_asked_about_where_the_login_is_not() {
    let claims = serde_json::json!({ "exp": EPOCH_S + 60, "key": "t", "rooms": ["*"], "operations": [1] });
    let by_token = serde_json::json!({ "room_id": "a", "token": token(&claims) }).to_string();
    for (listener, body, key, limited) in
        [(OPEN, r#"{"key":"o","room_id":"a"}"#, "o", false), (BY_TOKEN, &by_token, "t", true)]
    {
        let mut rig = asks_for_rooms();
        let Waits { token, question } = rig.waits(conn(ZERO, 1), listener, 0, operation::AUTH, body.as_bytes());
        assert!(matches!(question.about, About::Join { member: 0, key: of, room } if of == key && room == "a"));
        let outcome = rig.answered(token, yes());
        assert_eq!((outcome.grant().limited, rig.conns(key).len()), (limited, 1));
        let Waits { token, .. } = rig.waits(conn(ZERO, 2), listener, 0, operation::AUTH, body.as_bytes());
        let refused = rig.answered(token, HookAnswer::Refused);
        assert_eq!(refused.refusal(), Some((Refusal::HookRefused, CloseReason::LoginRefused)));
        let roomless = rig.ask_with(conn(ZERO, 3), Ask { listener: OPEN, ..ask(operation::AUTH, b"{}") });
        assert!(matches!(roomless.verdict, Verdict::Admit), "there is nothing to ask");
    }
}

#[test]
fn a_drain_lets_nobody_wait() {
    let mut rig = asks_for_rooms();
    let Waits { token, .. } = rig.waits(conn(ZERO, 1), BY_HOOK, 0, operation::AUTH, b"{}");
    rig.control.drain(DrainPlan::new(0, 0, 500), &mut rig.orders);
    let orders = std::mem::take(&mut rig.orders.0);
    assert!(matches!(orders[0].1, Order::Decided { verdict: Verdict::Refuse(CloseReason::Drain), .. }));
    assert!(rig.control.hook_answered(token, yes(), &mut rig.orders).is_none(), "it comes too late");
    assert_eq!((rig.control.pending(), rig.control.directory().connections()), (0, 0));
    let late = rig.ask_with(conn(ZERO, 2), Ask { listener: BY_HOOK, ..ask(operation::AUTH, b"{}") });
    assert_eq!(late.refusal(), Some((Refusal::Draining, CloseReason::Drain)));
}

#[test]
fn an_answer_echoes_what_was_asked() {
    let mut rig = asks_for_rooms();
    let ticket = rig.enter(conn(ZERO, 1), r#"{"key":"k"}"#, Allowed::default());
    let Waits { token, .. } = rig.waits(conn(ZERO, 1), BY_HOOK, ticket, operation::CHANGE_ROOM, b"room");
    rig.control.hook_answered(token, yes(), &mut rig.orders);
    let Some((ZERO, Order::Decided { asked, .. })) = rig.orders.0.pop() else { panic!("a decision") };
    let Asked { version, sequence, body } = *asked;
    assert_eq!((version, sequence, &*body), (1, 9, &b"room"[..]));
}
