//! Stories of goim v1's clients: what they say, what they get, and rooms that they share with goim v2's.

use halley_protocol::login::Login;
use halley_protocol::operation;
use halley_protocol::v1::{BODY_BYTES_MAX, PUSH, SEND, TEST, TEST_BODY, TEST_REPLY};

use super::client::{Client, Got};
use super::session::{BOTH, login};
use super::world::{Setup, World};
use crate::control::decide::LoginRule;
use crate::dispatch::Target;
use crate::reason::{CloseReason, DropReason};
use crate::shard::Transport::{self, Tcp, WebSocket};
use crate::shard::{Dialect, ListenerSettings};

/// Both transports in goim v2, then both in goim v1.
pub(super) fn four_classes() -> Setup {
    let mut setup = Setup::new();
    setup.listeners.extend(BOTH.map(|transport| ListenerSettings::new(transport).speaking(Dialect::GoimV1)));
    setup.policy.listeners = vec![LoginRule::Open, LoginRule::Open, LoginRule::OpenV1, LoginRule::OpenV1];
    setup
}

fn connect_v1(world: &mut World, transport: Transport) -> Client {
    let listener = 2 + usize::from(transport == WebSocket);
    let client = Client::connect(&world.net, listener, transport).speaking(Dialect::GoimV1);
    world.settle();
    client
}

/// A client of goim v1 that has logged in with a token.
pub(super) fn enter_v1(world: &mut World, transport: Transport, token: &str) -> Client {
    let mut client = connect_v1(world, transport);
    client.send(operation::AUTH, token.as_bytes());
    world.settle();
    let welcome = Got::Reply { operation: operation::AUTH_REPLY, sequence: 1, body: Vec::new() };
    assert_eq!(client.take(), [welcome]);
    client
}

fn push(world: &mut World, target: &Target, operation: i32, body: &str) {
    world.dispatch(target, operation, body).expect("places in the queues");
    world.settle();
}

fn is_told(client: &mut Client, code: u16) {
    let expected: &[Got] = if client.transport == WebSocket { &[Got::Close(Some(code))] } else { &[] };
    assert_eq!(client.take(), expected);
}

#[test]
fn a_number_is_a_member_in_room_1_and_anything_else_is_nobody_in_no_room() {
    for transport in BOTH {
        let mut world = four_classes().build();
        let _both = [enter_v1(&mut world, transport, "7"), enter_v1(&mut world, transport, "+7")];
        let _nobody = ["", "seven", "7 ", "9223372036854775808", "{\"mid\":7,\"room_id\":\"1\"}"]
            .map(|token| enter_v1(&mut world, transport, token));
        let directory = &world.directory;
        assert_eq!((directory.connections(), directory.room_size("1"), directory.rooms()), (7, 2, 1));
        assert_eq!(directory.rooms_numbered(9), [(1, 2)]);
        let mut keys: Vec<_> = directory.member_connections(7).iter().map(|(_, key)| key.to_string()).collect();
        keys.sort();
        assert_eq!(keys, ["7_1", "7_2"], "one user, several connections");
        assert_eq!(directory.key_connections("0_3").len(), 1);
    }
}

#[test]
fn a_key_that_somebody_has_taken_is_not_made_again() {
    let mut world = four_classes().build();
    let mut other = world.enter(Tcp, &login("7_1", ""));
    let _v1 = enter_v1(&mut world, Tcp, "7");
    assert_eq!((world.directory.key_connections("7_2").len(), other.take()), (1, Vec::new()));
    assert!(!other.is_closed());
}

#[test]
fn whoever_says_anything_before_the_login_is_closed() {
    for transport in BOTH {
        for operation in [operation::HEARTBEAT, SEND, TEST, operation::CHANGE_ROOM, 1000] {
            let mut world = four_classes().build();
            let mut client = connect_v1(&mut world, transport);
            client.send(operation, b"7");
            client.send(operation::AUTH, b"7");
            world.settle();
            is_told(&mut client, 1002);
            assert_eq!(world.closes(CloseReason::OperationUnknown), 1, "{operation} over {transport:?}");
            assert_eq!(world.directory.connections(), 0);
        }
    }
}

#[test]
fn after_the_login_each_of_its_operations_is_answered_and_any_other_ends_the_connection() {
    for transport in BOTH {
        let unknown = [0, 1, 3, 5, 6, operation::AUTH, 8, 9, operation::CHANGE_ROOM, 14, 16, 255, 1000, -1];
        for unknown in unknown {
            let mut world = four_classes().build();
            let mut client = enter_v1(&mut world, transport, "7");
            let beat: &[u8] = if transport == Tcp { b"" } else { b"beat" };
            assert_eq!(
                world.ask(&mut client, operation::HEARTBEAT, b"beat"),
                (operation::HEARTBEAT_REPLY, beat.into())
            );
            assert_eq!(world.ask(&mut client, SEND, b"hello"), (PUSH, b"hello".into()));
            assert_eq!(world.ask(&mut client, TEST, b"ignored"), (TEST_REPLY, TEST_BODY.into()));
            // What was asked before is answered before the end.
            client.send(SEND, b"last");
            client.send(unknown, b"");
            world.settle();
            let got = client.take();
            assert_eq!(got[0], Got::Reply { operation: PUSH, sequence: 5, body: b"last".into() }, "{unknown}");
            let told = if transport == WebSocket { vec![Got::Close(Some(1002))] } else { Vec::new() };
            assert_eq!(got[1..], told, "{unknown}");
            assert_eq!(world.closes(CloseReason::OperationUnknown), 1);
        }
    }
}

#[test]
fn a_body_has_at_most_1024_bytes() {
    for transport in BOTH {
        let mut world = four_classes().build();
        let mut client = enter_v1(&mut world, transport, "7");
        let most = vec![b'x'; BODY_BYTES_MAX];
        assert_eq!(world.ask(&mut client, SEND, &most), (PUSH, most.clone()));
        client.send(SEND, &vec![b'x'; BODY_BYTES_MAX + 1]);
        world.settle();
        is_told(&mut client, 1009);
        assert_eq!(world.closes(CloseReason::PacketTooBig), 1);
    }
}

#[test]
fn only_a_heartbeat_keeps_it() {
    for transport in BOTH {
        let mut world = four_classes().listeners(|listener| listener.heartbeat_ms_max = 1000).build();
        let mut client = enter_v1(&mut world, transport, "7");
        world.advance(700);
        world.ask(&mut client, operation::HEARTBEAT, b"");
        world.advance(700);
        world.ask(&mut client, SEND, b"");
        world.advance(500);
        is_told(&mut client, 4003);
        assert_eq!(world.closes(CloseReason::HeartbeatMissed), 1);
    }
}

#[test]
fn every_push_comes_as_operation_5_whatever_it_was_and_nothing_is_filtered() {
    for transport in BOTH {
        let mut world = four_classes().build();
        let mut client = enter_v1(&mut world, transport, "7");
        for target in
            [Target::Members(vec![7]), Target::Keys(vec!["7_1".into()]), Target::All, Target::Room("1".into())]
        {
            push(&mut world, &target, 1000, "hello");
            assert_eq!(client.take(), [Got::Push { operation: PUSH, body: b"hello".into() }], "{target:?}");
        }
        push(&mut world, &Target::Room("2".into()), 1000, "others");
        assert_eq!(client.take(), []);
    }
}

/// One of each class in room 1; the clients of goim v2 accept nothing, so that only the room reaches them.
fn one_of_each(world: &mut World) -> [Client; 4] {
    let v2 = |key: &str| Login { key: key.into(), room_id: "1".into(), ..Login::default() };
    [
        world.enter(Tcp, &v2("tcp")),
        world.enter(WebSocket, &v2("ws")),
        enter_v1(world, Tcp, "7"),
        enter_v1(world, WebSocket, "8"),
    ]
}

#[test]
fn a_room_of_all_classes_gets_every_message_once_and_each_class_in_its_own_words() {
    let mut world = four_classes().build();
    let mut clients = one_of_each(&mut world);
    for count in [1, 3, 30] {
        let before: Vec<u64> = clients.iter().map(|client| client.bytes).collect();
        let sends = world.stats(0).sends.get();
        for number in 0..count {
            world.dispatch(&Target::Room("1".into()), 1000 + number, &format!("message {number}")).expect("places");
        }
        world.settle();
        for (at, client) in clients.iter_mut().enumerate() {
            let operation = |number| if at < 2 { 1000 + number } else { PUSH };
            let body = |number| format!("message {number}").into_bytes();
            let expected: Vec<_> =
                (0..count).map(|number| Got::Push { operation: operation(number), body: body(number) }).collect();
            assert_eq!(client.take(), expected, "class {at}");
        }
        assert_eq!(world.stats(0).sends.get() - sends, 4, "what waits together is one run, sent once to each");
        let bytes: Vec<u64> = clients.iter().zip(before).map(|(client, before)| client.bytes - before).collect();
        assert_eq!(bytes[0], bytes[2], "packets of both dialects are as long");
        assert_eq!(bytes[1] - bytes[3], 16, "goim v1 has no outer header: {bytes:?}");
    }
}

#[test]
fn a_slow_client_gets_the_rest_where_it_stopped_and_all_is_accounted_for() {
    for windows in [1, 2, 15, 16, 17, 40, 100] {
        let mut world = four_classes().build();
        let mut clients = one_of_each(&mut world);
        for client in &clients {
            client.set_window(windows);
        }
        for round in 0..3 {
            for number in 0..5 {
                let text = format!("round {round} number {number}");
                world.dispatch(&Target::Room("1".into()), 1000, &text).expect("places");
            }
            world.settle();
        }
        assert!(world.stats(0).pinned_bytes.get() > 0, "something waits");
        for client in &mut clients {
            client.set_window(usize::MAX);
        }
        world.settle();
        for client in &mut clients {
            assert_eq!(client.texts().len(), 15, "of {:?} {:?}", client.transport, client.dialect);
            assert!(!client.is_torn());
        }
        assert_eq!((world.stats(0).sent.get(), world.stats(0).pinned_bytes.get()), (60, 0));
        clients.iter().for_each(Client::half_close);
        world.advance(2500);
        world.assert_empty();
    }
}

#[test]
fn without_memory_for_its_words_a_client_of_goim_v1_is_closed_and_the_others_go_on() {
    for transport in BOTH {
        // The push fits what may be pinned; with its translation it does not.
        let mut world = four_classes().shard(|shard| shard.pinned_bytes_max = 3000).build();
        let v2 = |key: &str| Login { key: key.into(), room_id: "1".into(), ..Login::default() };
        // Members are served from the last to the first.
        let mut late = enter_v1(&mut world, transport, "7");
        let mut slow = world.enter(Tcp, &v2("slow"));
        slow.set_window(0);
        world.push_room("1", "first");
        assert_eq!(late.texts(), ["first"]);
        world.push_room("1", &"x".repeat(2000));
        is_told(&mut late, 1013);
        assert_eq!((world.closes(CloseReason::OutboxPool), world.dropped(DropReason::Closed)), (1, 1));
        slow.set_window(usize::MAX);
        world.settle();
        assert_eq!(slow.texts().len(), 2);
        let mut again = enter_v1(&mut world, transport, "7");
        world.push_room("1", "hello");
        assert_eq!((again.texts(), slow.texts()), (vec!["hello".to_owned()], vec!["hello".to_owned()]));
    }
}
