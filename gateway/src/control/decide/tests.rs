//! Decisions, report by report.

mod hooks;
mod model;
mod tokens;

use std::sync::atomic::Ordering;

use halley_protocol::packet::BODY_BYTES_MAX;

use super::*;
use crate::directory::HashSecret;
use crate::limits;
use crate::order::{DrainPlan, Grant};

const ZERO: ShardIndex = ShardIndex(0);
const ONE: ShardIndex = ShardIndex(1);

/// Orders in the order they were put.
#[derive(Default)]
struct Orders(Vec<(ShardIndex, Order)>);

impl OrderSink for Orders {
    fn put(&mut self, shard: ShardIndex, order: Order) {
        self.0.push((shard, order));
    }
}

struct Rig {
    control: Control,
    orders: Orders,
}

/// What one ask led to.
struct Outcome {
    orders: Vec<(ShardIndex, Order)>,
    verdict: Verdict,
    event: Option<Event>,
}

impl Outcome {
    fn refusal(&self) -> Option<(Refusal, CloseReason)> {
        match (&self.event, self.verdict) {
            (Some(Event::Refused { refusal, .. }), Verdict::Refuse(reason)) => Some((*refusal, reason)),
            _ => None,
        }
    }

    fn grant(&self) -> &Grant {
        match self.orders.first() {
            Some((_, Order::Grant { grant, .. })) => grant,
            other => panic!("not a grant: {other:?}"),
        }
    }

    fn admitted_key(&self) -> String {
        match &self.event {
            Some(Event::Admitted { key, .. }) => key.to_string(),
            other => panic!("not admitted: {other:?}"),
        }
    }

    fn closes(&self) -> Vec<(ShardIndex, ConnWord, CloseReason)> {
        let closes = self.orders.iter().filter_map(|(shard, order)| match order {
            Order::Close { conn, reason } => Some((*shard, *conn, *reason)),
            _ => None,
        });
        closes.collect()
    }
}

impl Rig {
    fn new(key_policy: KeyPolicy, key_connections_max: usize) -> Self {
        Self::with_rooms(key_policy, key_connections_max, 100)
    }

    fn with_rooms(key_policy: KeyPolicy, key_connections_max: usize, rooms_max: usize) -> Self {
        let writer = DirectoryWriter::new(2, rooms_max, &HashSecret::fixed(1));
        let listeners = vec![LoginRule::Open, LoginRule::Refuse, LoginRule::Jwt];
        let mut made = 0_u128;
        let random = move || {
            made += 1;
            made.to_be_bytes()
        };
        let policy =
            Policy { listeners, key_connections_max, key_policy, room_members_max: 0, hooks: HookPolicy::default() };
        Self { control: Control::new(writer, policy, random), orders: Orders::default() }
    }

    fn ask(&mut self, conn: ConnWord, ticket: u64, operation: i32, body: &[u8]) -> Outcome {
        self.ask_with(conn, Ask { ticket, ..ask(operation, body) })
    }

    fn ask_with(&mut self, conn: ConnWord, ask: Ask) -> Outcome {
        let event = self.control.handle(conn.shard(), Report::Ask { conn, ask: Box::new(ask) }, &mut self.orders);
        let mut orders = std::mem::take(&mut self.orders.0);
        let Some((shard, Order::Answer { conn: to, verdict, .. })) = orders.pop() else {
            panic!("an ask ends with its answer")
        };
        assert_eq!((shard, to), (conn.shard(), conn));
        assert!(!orders.iter().any(|(_, order)| matches!(order, Order::Answer { .. })), "one answer");
        Outcome { orders, verdict, event }
    }

    fn login(&mut self, conn: ConnWord, body: &str) -> Outcome {
        self.ask(conn, 0, operation::AUTH, body.as_bytes())
    }

    fn gone(&mut self, conn: ConnWord, ticket: u64) {
        let report = Report::Gone { conn, ticket, reason: CloseReason::PeerClosed, peer: peer() };
        self.control.handle(conn.shard(), report, &mut self.orders);
    }

    fn conns(&self, key: &str) -> Vec<ConnWord> {
        self.control.directory().key_connections(key)
    }
}

fn peer() -> SocketAddr {
    "10.0.0.1:5000".parse().expect("an address")
}

fn ask(operation: i32, body: &[u8]) -> Ask {
    let mut buffer = [0; BODY_BYTES_MAX];
    buffer[..body.len()].copy_from_slice(body);
    let body_bytes = u16::try_from(body.len()).expect("fits a packet");
    Ask { listener: 0, ticket: 0, peer: peer(), version: 1, operation, sequence: 9, body_bytes, body: buffer }
}

fn conn(shard: ShardIndex, slot: u32) -> ConnWord {
    ConnWord::new(shard, halley_ring::Slot(slot), 1)
}

#[test]
fn a_login_is_granted_then_entered_then_admitted() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let outcome = rig.login(
        conn(ONE, 3),
        r#"{"mid":7,"key":"device","room_id":"live://1","platform":"web","accepts":[1001,1000,1001],"halley":1}"#,
    );
    assert!(matches!(outcome.verdict, Verdict::Admit));
    assert_eq!(outcome.orders.len(), 1);
    let grant = outcome.grant();
    assert_ne!(grant.ticket, 0);
    assert_eq!((grant.accepts.as_slice(), grant.marked), (&[1000, 1001][..], true));
    let directory = rig.control.directory();
    assert_eq!(grant.room, directory.room_in(ONE, "live://1"));
    assert_eq!(directory.key_connections("device"), [conn(ONE, 3)]);
    assert_eq!(directory.member_connections(7).len(), 1);
    assert_eq!((directory.connections(), directory.addresses(), directory.room_size("live://1")), (1, 1, 1));
}

/// Looks into the directory at every order.
struct Watching {
    directory: Arc<Directory>,
    seen: Vec<(&'static str, usize, u64)>,
}

impl OrderSink for Watching {
    fn put(&mut self, _: ShardIndex, order: Order) {
        let what = match order {
            Order::Grant { .. } => "grant",
            Order::Answer { .. } => "answer",
            _ => "other",
        };
        self.seen.push((what, self.directory.key_connections("device").len(), self.directory.room_size("a")));
    }
}

#[test]
fn the_room_is_marked_before_the_grant_and_the_key_found_before_the_answer() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let mut orders = Watching { directory: rig.control.directory().clone(), seen: Vec::new() };
    let ask = Box::new(ask(operation::AUTH, br#"{"key":"device","room_id":"a"}"#));
    rig.control.handle(ZERO, Report::Ask { conn: conn(ZERO, 1), ask }, &mut orders);
    assert_eq!(orders.seen, [("grant", 0, 1), ("answer", 1, 1)]);
}

#[test]
fn an_empty_login_gets_a_generated_key_and_nothing_else() {
    let mut rig = Rig::new(KeyPolicy::Refuse, 1);
    let keys = [1, 2].map(|slot| {
        let outcome = rig.login(conn(ZERO, slot), "{}");
        let grant = outcome.grant();
        assert_eq!((grant.room, grant.accepts.len(), grant.marked), (None, 0, false));
        outcome.admitted_key()
    });
    assert_eq!(
        keys,
        ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"],
        "made of the random bytes given"
    );
    assert_eq!(rig.conns(&keys[1]), [conn(ZERO, 2)]);
}

#[test]
fn a_refused_login_leaves_nothing_behind_and_says_why() {
    let long_key = format!(r#"{{"key":"{}"}}"#, "k".repeat(limits::KEY_BYTES_MAX + 1));
    let long_room = format!(r#"{{"room_id":"{}"}}"#, "r".repeat(limits::ROOM_NAME_BYTES_MAX + 1));
    let accepts = format!(r#"{{"accepts":{:?}}}"#, (0..=limits::ACCEPTS_MAX).collect::<Vec<_>>());
    let refused = CloseReason::LoginRefused;
    for (body, refusal, reason) in [
        ("", Refusal::LoginSyntax, refused),
        ("{", Refusal::LoginSyntax, refused),
        (r#"{"mid":"7"}"#, Refusal::LoginWrongType, refused),
        (&long_key, Refusal::KeyTooLong, refused),
        (&long_room, Refusal::RoomNameBad, CloseReason::RoomNameBad),
        (&accepts, Refusal::AcceptsTooMany, refused),
    ] {
        let mut rig = Rig::new(KeyPolicy::Replace, 1);
        let outcome = rig.login(conn(ZERO, 1), body);
        assert_eq!(outcome.refusal(), Some((refusal, reason)), "{body}");
        assert!(outcome.orders.is_empty());
        let directory = rig.control.directory();
        assert_eq!((directory.connections(), directory.rooms(), directory.addresses()), (0, 0, 0));
    }
}

#[test]
fn a_login_at_its_limits_is_admitted() {
    let accepts: Vec<_> = (0..limits::ACCEPTS_MAX).collect();
    let [key, room] = ["k".repeat(limits::KEY_BYTES_MAX), "r".repeat(limits::ROOM_NAME_BYTES_MAX)];
    let body = format!(r#"{{"key":"{key}","room_id":"{room}","accepts":{accepts:?}}}"#);
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    assert!(matches!(rig.login(conn(ZERO, 1), &body).verdict, Verdict::Admit));
}

#[test]
fn a_listener_that_lets_nobody_in_refuses_and_so_does_an_unknown_one() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    for listener in [1, 9] {
        let outcome = rig.ask_with(conn(ZERO, 1), Ask { listener, ..ask(operation::AUTH, b"{}") });
        assert_eq!(outcome.refusal(), Some((Refusal::LoginsClosed, CloseReason::LoginRefused)));
    }
}

#[test]
fn a_second_login_and_an_unknown_operation_are_answered_with_a_refusal() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let ticket = rig.login(conn(ZERO, 1), r#"{"key":"device"}"#).grant().ticket;
    let again = rig.ask(conn(ZERO, 1), ticket, operation::AUTH, b"{}");
    assert_eq!(again.refusal(), Some((Refusal::LoginTwice, CloseReason::LoginRefused)));
    let unknown = rig.ask(conn(ZERO, 1), ticket, 4, b"");
    assert_eq!(unknown.refusal(), Some((Refusal::OperationUnknown, CloseReason::PacketMalformed)));
    assert_eq!(rig.conns("device"), [conn(ZERO, 1)]);
}

#[test]
fn a_reconnect_under_replace_closes_the_old_connection_wherever_it_is() {
    for old in [conn(ZERO, 1), conn(ONE, 1)] {
        let mut rig = Rig::new(KeyPolicy::Replace, 1);
        let old_ticket = rig.login(old, r#"{"key":"device","mid":7}"#).grant().ticket;
        let outcome = rig.login(conn(ZERO, 2), r#"{"key":"device","mid":7}"#);
        assert!(matches!(outcome.event, Some(Event::Admitted { replaced: 1, .. })));
        assert_eq!(outcome.closes(), [(old.shard(), old, CloseReason::Replaced)]);
        rig.gone(old, old_ticket);
        assert_eq!(rig.conns("device"), [conn(ZERO, 2)]);
        assert_eq!(rig.control.directory().member_connections(7).len(), 1);
        assert_eq!((rig.control.directory().connections(), rig.control.directory().addresses()), (1, 1));
    }
}

#[test]
fn replace_keeps_as_many_connections_as_the_key_may_have() {
    let mut rig = Rig::new(KeyPolicy::Replace, 2);
    for slot in 1..=2 {
        assert!(rig.login(conn(ZERO, slot), r#"{"key":"tv"}"#).closes().is_empty());
    }
    let third = rig.login(conn(ONE, 3), r#"{"key":"tv"}"#);
    assert_eq!(third.closes(), [(ZERO, conn(ZERO, 1), CloseReason::Replaced)]);
    assert_eq!(rig.conns("tv"), [conn(ONE, 3), conn(ZERO, 2)]);
}

#[test]
fn refuse_and_share_turn_down_the_login_beyond_the_maximum_until_one_goes() {
    for policy in [KeyPolicy::Refuse, KeyPolicy::Share] {
        let mut rig = Rig::new(policy, 2);
        let body = r#"{"key":"tv","room_id":"a"}"#;
        let ticket = rig.login(conn(ZERO, 1), body).grant().ticket;
        rig.login(conn(ONE, 2), body);
        let third = rig.login(conn(ZERO, 3), body);
        assert_eq!(third.refusal(), Some((Refusal::KeyInUse, CloseReason::LoginRefused)));
        assert!(third.orders.is_empty());
        assert_eq!(rig.control.directory().room_size("a"), 2, "a refused login orders no join");
        rig.gone(conn(ZERO, 3), 0);
        assert_eq!(rig.conns("tv"), [conn(ONE, 2), conn(ZERO, 1)]);
        rig.gone(conn(ZERO, 1), ticket);
        assert!(matches!(rig.login(conn(ZERO, 4), body).verdict, Verdict::Admit));
    }
}

#[test]
fn a_departure_without_a_ticket_changes_nothing() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.login(conn(ZERO, 1), r#"{"key":"device"}"#);
    rig.gone(conn(ZERO, 2), 0);
    assert_eq!((rig.control.directory().connections(), rig.control.directory().addresses()), (1, 1));
}

#[test]
fn addresses_count_each_ip_once_whatever_the_port() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    for (slot, peer) in (1..).zip(["10.0.0.1:1", "10.0.0.1:2", "[::ffff:10.0.0.1]:3", "[2001:db8::1]:4"]) {
        let peer = peer.parse().expect("an address");
        rig.ask_with(conn(ZERO, slot), Ask { peer, ..ask(operation::AUTH, b"{}") });
    }
    assert_eq!((rig.control.directory().connections(), rig.control.directory().addresses()), (4, 2));
}

#[test]
fn a_change_of_room_moves_there_and_an_empty_one_moves_out() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let Verdict::Move(Some(room)) = rig.ask(conn(ONE, 1), 5, operation::CHANGE_ROOM, b"live://2").verdict else {
        panic!("moved")
    };
    assert_eq!(rig.control.room_of(ONE, room).as_deref(), Some("live://2"));
    assert_eq!(rig.control.room_of(ZERO, room), None);
    assert!(matches!(rig.ask(conn(ONE, 1), 5, operation::CHANGE_ROOM, b"").verdict, Verdict::Move(None)));
}

#[test]
fn moving_into_the_same_room_again_counts_as_another_ordered_join() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    for _ in 0..2 {
        rig.ask(conn(ONE, 1), 5, operation::CHANGE_ROOM, b"a");
    }
    let room = rig.control.directory().room_in(ONE, "a").expect("marked");
    let report = |joins| Report::Room { room, size: 0, joins };
    rig.control.handle(ONE, report(1), &mut rig.orders);
    assert_eq!(rig.control.directory().rooms(), 1);
    rig.control.handle(ONE, report(2), &mut rig.orders);
    assert_eq!(rig.control.directory().rooms(), 0);
}

#[test]
fn a_bad_room_name_closes_on_a_change_and_is_told_on_a_join() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let long = vec![b'r'; limits::ROOM_NAME_BYTES_MAX + 1];
    for name in [&b"\xff"[..], &long] {
        let change = rig.ask(conn(ZERO, 1), 5, operation::CHANGE_ROOM, name);
        assert_eq!(change.refusal(), Some((Refusal::RoomNameBad, CloseReason::RoomNameBad)));
    }
    for name in [&b""[..], b"\xff", &long] {
        let join = rig.ask(conn(ZERO, 1), 5, operation::JOIN, name);
        assert!(matches!(join.verdict, Verdict::JoinRefused));
        assert!(matches!(rig.ask(conn(ZERO, 1), 5, operation::LEAVE, name).verdict, Verdict::Leave(None)));
    }
    assert!(matches!(rig.ask(conn(ZERO, 1), 5, operation::CHANGE_ROOM, &long[1..]).verdict, Verdict::Move(Some(_))));
}

#[test]
fn a_join_names_the_room_and_its_members_with_the_joining_one() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.ask(conn(ONE, 1), 5, operation::JOIN, b"a");
    let Verdict::Join { room, members } = rig.ask(conn(ZERO, 1), 5, operation::JOIN, b"a").verdict else {
        panic!("joined")
    };
    assert_eq!((rig.control.directory().room_in(ZERO, "a"), members), (Some(room), 2));
}

#[test]
fn a_leave_names_the_room_only_if_the_shard_has_it() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.ask(conn(ONE, 1), 5, operation::JOIN, b"a");
    let room = rig.control.directory().room_in(ONE, "a");
    assert!(matches!(rig.ask(conn(ONE, 1), 5, operation::LEAVE, b"a").verdict, Verdict::Leave(found) if found == room));
    assert!(matches!(rig.ask(conn(ZERO, 1), 5, operation::LEAVE, b"a").verdict, Verdict::Leave(None)));
}

#[test]
fn a_shard_with_all_rooms_it_can_number_refuses_further_ones() {
    let mut rig = Rig::with_rooms(KeyPolicy::Replace, 1, 1);
    rig.ask(conn(ZERO, 1), 5, operation::JOIN, b"a");
    let login = rig.login(conn(ZERO, 2), r#"{"room_id":"b"}"#);
    assert_eq!(login.refusal(), Some((Refusal::RoomsTooMany, CloseReason::LoginRefused)));
    assert_eq!(rig.control.directory().connections(), 0);
    let change = rig.ask(conn(ZERO, 1), 5, operation::CHANGE_ROOM, b"b");
    assert_eq!(change.refusal().map(|(refusal, _)| refusal), Some(Refusal::RoomsTooMany));
    let join = rig.ask(conn(ZERO, 1), 5, operation::JOIN, b"b");
    assert!(matches!(join.verdict, Verdict::JoinRefused));
    assert!(matches!(rig.ask(conn(ZERO, 1), 5, operation::JOIN, b"a").verdict, Verdict::Join { .. }));
}

#[test]
fn a_full_room_takes_nobody_until_somebody_leaves() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    rig.control.policy.room_members_max = 2;
    let first = rig.login(conn(ZERO, 1), r#"{"room_id":"a"}"#);
    let (room, ticket) = (first.grant().room.expect("a room"), first.grant().ticket);
    assert!(matches!(rig.ask(conn(ONE, 2), 0, operation::JOIN, b"a").verdict, Verdict::Join { members: 2, .. }));
    let full = rig.login(conn(ZERO, 3), r#"{"room_id":"a"}"#);
    assert!(matches!(full.verdict, Verdict::Refuse(CloseReason::RoomFull)));
    assert!(matches!(full.event, Some(Event::Refused { refusal: Refusal::RoomFull, .. })));
    for operation in [operation::JOIN, operation::CHANGE_ROOM] {
        // Its shard knows who is a member already.
        let verdict = rig.ask(conn(ZERO, 3), 1, operation, b"a").verdict;
        let full = matches!(verdict, Verdict::RoomFull { room: Some(of), members: 2, moves } if of == room && moves == (operation > 0));
        assert!(full, "{verdict:?}");
    }
    assert!(matches!(rig.ask(conn(ZERO, 3), 1, operation::JOIN, b"b").verdict, Verdict::Join { .. }), "another room");
    let left = Report::Room { room, size: 0, joins: 1 };
    rig.control.handle(ZERO, left, &mut rig.orders);
    rig.gone(conn(ZERO, 1), ticket);
    assert!(matches!(rig.ask(conn(ZERO, 3), 1, operation::CHANGE_ROOM, b"a").verdict, Verdict::Move(Some(_))));
}

#[test]
fn a_kick_closes_every_connection_of_the_key() {
    let mut rig = Rig::new(KeyPolicy::Share, 5);
    rig.login(conn(ZERO, 1), r#"{"key":"tv"}"#);
    rig.login(conn(ONE, 2), r#"{"key":"tv"}"#);
    let mut orders = Orders::default();
    assert_eq!(rig.control.kick("tv", CloseReason::Kicked, &mut orders), 2);
    assert_eq!(rig.control.kick("nobody", CloseReason::Kicked, &mut orders), 0);
    let closed: Vec<_> = orders.0.iter().map(|(shard, order)| (*shard, format!("{order:?}"))).collect();
    assert_eq!(closed.len(), 2);
    assert!(closed[0].0 == ONE && closed[0].1.contains("1/2#1") && closed[0].1.contains("Kicked"), "{closed:?}");
    assert!(closed[1].0 == ZERO && closed[1].1.contains("0/1#1"), "{closed:?}");
}

#[test]
fn inspections_and_drains_go_out_and_their_reports_come_back_as_events() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let mut orders = Orders::default();
    rig.control.inspect(conn(ONE, 4), 77, &mut orders);
    rig.control.drain(DrainPlan::new(0, 0, 500), &mut orders);
    assert!(matches!(
        orders.0[..],
        [
            (ONE, Order::Inspect { token: 77, .. }),
            (ZERO, Order::Drain { plan: DrainPlan { deadline_ms: 500, .. } }),
            (ONE, Order::Drain { plan: DrainPlan { deadline_ms: 500, .. } }),
        ]
    ));
    let found = rig.control.handle(ONE, Report::Inspected { token: 77, found: None }, &mut orders);
    assert!(matches!(found, Some(Event::Inspected { token: 77, found: None })));
    assert!(matches!(rig.control.handle(ONE, Report::Drained, &mut orders), Some(Event::Drained { shard: ONE })));
}

#[test]
fn orders_that_find_a_queue_full_keep_their_order_and_hold_back_their_shard_only() {
    let places = limits::ORDERS_CONTROL_SHARE + 1;
    let links: Arc<[_]> = (0..2).map(|_| Arc::new(ShardLink::with_orders(10, places))).collect();
    let mut queues = OutgoingQueues::new(links.clone());
    let total = u32::try_from(places + 5).expect("small");
    for deadline_ms in 0..total {
        queues.put(ZERO, Order::Drain { plan: DrainPlan::new(0, 0, deadline_ms) });
    }
    assert!(!queues.ready(ZERO));
    assert!(queues.ready(ONE));
    let mut seen = Vec::new();
    let mut waiting = usize::MAX;
    while waiting > 0 {
        if let Some(Order::Drain { plan }) = links[0].next_order() {
            seen.push(plan.deadline_ms);
        }
        queues.ready(ZERO);
        waiting = queues.waiting();
    }
    assert!(queues.ready(ZERO));
    let rest = std::iter::from_fn(|| links[0].next_order());
    seen.extend(rest.map(|order| if let Order::Drain { plan } = order { plan.deadline_ms } else { u32::MAX }));
    assert_eq!(seen, (0..total).collect::<Vec<_>>());
}

#[test]
fn room_counts_reach_the_shards_when_published() {
    let mut rig = Rig::new(KeyPolicy::Replace, 1);
    let links: Vec<_> = (0..2).map(|_| Arc::new(ShardLink::new(100))).collect();
    let room = rig.login(conn(ONE, 1), r#"{"room_id":"a"}"#).grant().room.expect("a room");
    rig.control.publish_online(&links);
    assert_eq!(links[1].room_online[room.index.0 as usize].load(Ordering::Relaxed), 1);
}
