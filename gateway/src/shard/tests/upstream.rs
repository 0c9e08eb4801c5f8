//! Stories of messages that are passed on: who is told what, and what it costs the shard.

use std::sync::Arc;

use halley_protocol::operation;
use halley_protocol::packet::BODY_BYTES_MAX;

use super::client::{Client, Got};
use super::session::{BOTH, login, marked};
use super::steady;
use super::world::{Setup, World};
use crate::limits::UPSTREAM_BUFFERS_MAX;
use crate::order::DrainPlan;
use crate::reason::CloseReason;
use crate::shard::Transport::{Tcp, WebSocket};
use crate::upstream::{Answer, Message, Outcome, Receipt, Refused, Rules};

const SEND: i32 = operation::SEND_MESSAGE;
const REPLY: i32 = operation::SEND_MESSAGE_REPLY;

fn rules() -> Rules {
    Rules {
        operations: Box::new([(4, 4), (1000, 1999)]),
        message_bytes_max: 4096,
        per_second: 0,
        burst: 1,
        connection_in_flight_max: 8,
    }
}

fn passing(rules: Rules) -> Setup {
    let rules = Arc::new(rules);
    Setup::new().shard(|shard| shard.upstream = Some(rules))
}

impl World {
    /// What waits for the place, oldest first.
    fn messages(&mut self) -> Vec<(Receipt, Vec<u8>)> {
        let mut found = Vec::new();
        for link in self.links.iter() {
            let Some(upstream) = &link.upstream else { continue };
            while let Some(message) = upstream.next() {
                found.push((message.receipt, message.body().to_vec()));
                upstream.give(message);
            }
        }
        found
    }

    /// The place has it, or not.
    fn say_outcome(&self, receipt: Receipt, outcome: Outcome) {
        self.links[receipt.conn.shard().at()].put_answer(Answer { receipt, outcome });
    }

    /// Everything that waits gets the same answer.
    fn answer_all(&mut self, outcome: Outcome) -> usize {
        let messages = self.messages();
        messages.iter().for_each(|(receipt, _)| self.say_outcome(*receipt, outcome));
        self.settle();
        messages.len()
    }

    fn refusals(&self, refused: Refused) -> u64 {
        self.sum(|stats| &stats.upstream.refused[refused.at()])
    }
}

fn reply(operation: i32, sequence: i32, body: &str) -> Got {
    Got::Reply { operation, sequence, body: body.into() }
}

/// Says a message, and hears nothing yet.
fn say(world: &mut World, client: &mut Client, operation: i32, body: &str) -> i32 {
    let sequence = client.send(operation, body.as_bytes());
    world.settle();
    assert_eq!(client.take(), [], "before the place has it");
    sequence
}

#[test]
fn a_message_is_acknowledged_under_its_own_sequence_once_the_place_has_it() {
    for transport in BOTH {
        let mut world = passing(rules()).build();
        let mut client = world.enter(transport, &login("key", "live://1"));
        let first = say(&mut world, &mut client, SEND, "one");
        let second = say(&mut world, &mut client, 1999, "two");
        let messages = world.messages();
        let said: Vec<_> = messages.iter().map(|(it, body)| (it.operation, it.sequence, &body[..])).collect();
        assert_eq!(said, [(SEND, first, &b"one"[..]), (1999, second, b"two")]);
        world.now_ms += 3;
        world.say_outcome(messages[1].0, Ok(()));
        world.settle();
        assert_eq!(client.take(), [reply(1999, second, "")], "goim's own code for what it does not know");
        world.say_outcome(messages[0].0, Err(Refused::PlaceAway));
        world.settle();
        assert_eq!(client.take(), [reply(REPLY, first, r#"{"refused":"place-away"}"#)]);
        let stats = &world.stats(0).upstream;
        assert_eq!((stats.received.get(), stats.acknowledged.get(), stats.in_flight.get()), (2, 1, 0));
        assert_eq!((stats.answer_us.count(), stats.answer_us.sum()), (1, 3000));
    }
}

#[test]
fn a_message_knows_its_ticket_and_its_rooms_the_login_room_first() {
    let mut world = passing(rules()).build();
    let mut client = world.enter(Tcp, &marked("key", "live://1"));
    world.ask(&mut client, operation::JOIN, b"b");
    say(&mut world, &mut client, SEND, "x");
    let link = Arc::clone(&world.links[0]);
    let upstream = link.upstream.as_ref().expect("it passes on");
    let message: Box<Message> = upstream.next().expect("a message");
    let conn = message.receipt.conn;
    let (_, key) = world.directory.connection(message.ticket, conn).expect("it is there");
    let names = message.rooms.iter().map(|room| world.directory.room_name(conn.shard(), *room).expect("a name"));
    assert_eq!((key.to_string(), names.collect::<Vec<_>>()), ("key".into(), vec!["live://1".into(), "b".into()]));
    upstream.give(message);
}

#[test]
fn without_a_place_and_in_other_dialects_everything_is_as_it_was() {
    let mut world = World::new();
    let mut client = world.enter(Tcp, &login("key", ""));
    for operation in [SEND, 5, 1000, 99] {
        assert_eq!(world.ask(&mut client, operation, b"x"), (operation, Vec::new()));
    }
    let mut world = passing(rules()).build();
    let mut client = world.enter(Tcp, &login("key", ""));
    for operation in [0, 5, 99, 2000, -4] {
        assert_eq!(world.ask(&mut client, operation, b"x"), (operation, Vec::new()), "is no message");
    }
    assert_eq!(world.sum(|stats| &stats.upstream.received), 0);
}

#[test]
fn nothing_is_passed_on_before_the_login() {
    let mut world = passing(rules()).build();
    let mut client = world.connect(Tcp);
    client.send(SEND, b"x");
    world.settle();
    assert_eq!((client.take(), world.messages().len()), (vec![], 0));
}

// long: a way to each reason
#[test]
fn every_refusal_is_told_with_its_reason_and_counted() {
    for refused in Refused::ALL {
        let small = Rules { message_bytes_max: 10, per_second: 1, burst: 3, connection_in_flight_max: 2, ..rules() };
        let mut setup = passing(small);
        setup.in_flight_max = if refused == Refused::QueueFull { 1 } else { 64 };
        let mut world = setup.build();
        let mut client = world.enter(WebSocket, &login("key", "room"));
        let last = match refused {
            Refused::TooLarge => client.send(SEND, b"12345678901"),
            Refused::Rate => {
                for _ in 0..3 {
                    say(&mut world, &mut client, SEND, "x");
                    world.answer_all(Ok(()));
                    client.take();
                }
                client.send(SEND, b"x")
            }
            Refused::InFlight | Refused::QueueFull => {
                (0..2 - i32::from(refused == Refused::QueueFull)).for_each(|_| {
                    say(&mut world, &mut client, SEND, "x");
                });
                client.send(SEND, b"x")
            }
            Refused::Draining => {
                say(&mut world, &mut client, SEND, "x");
                world.control.drain(DrainPlan::new(0, 0, 60_000), &mut world.outgoing);
                world.settle();
                client.send(SEND, b"x")
            }
            Refused::PlaceAway | Refused::PlaceRefused | Refused::TimeOut | Refused::Replaced => {
                let sequence = say(&mut world, &mut client, SEND, "x");
                assert_eq!(world.answer_all(Err(refused)), 1);
                sequence
            }
        };
        world.settle();
        assert_eq!(client.take(), [reply(REPLY, last, refused.body())], "{refused:?}");
        assert_eq!(world.refusals(refused), 1, "{refused:?}");
        let all: u64 = Refused::ALL.iter().map(|refused| world.refusals(*refused)).sum();
        assert_eq!(all, 1, "{refused:?}");
    }
}

#[test]
fn a_message_of_the_longest_body_is_passed_on_whole() {
    for transport in BOTH {
        let mut world = passing(rules()).build();
        let mut client = world.enter(transport, &login("key", ""));
        let body = "x".repeat(BODY_BYTES_MAX);
        say(&mut world, &mut client, SEND, &body);
        assert_eq!(world.messages()[0].1, body.as_bytes());
    }
}

#[test]
fn messages_beyond_the_buffers_are_refused_until_some_are_taken_up() {
    let mut setup = passing(Rules { connection_in_flight_max: u32::MAX, ..rules() });
    setup.in_flight_max = 4 * UPSTREAM_BUFFERS_MAX;
    let mut world = setup.build();
    let mut client = world.enter(Tcp, &login("key", ""));
    let mut refused = |world: &mut World| {
        (0..UPSTREAM_BUFFERS_MAX + 44).for_each(|_| _ = client.send(SEND, b"x"));
        world.settle();
        let refusal =
            |got: &Got| matches!(got, Got::Reply { body, .. } if body == Refused::QueueFull.body().as_bytes());
        client.take().iter().filter(|got| refusal(got)).count()
    };
    assert_eq!(refused(&mut world), 44);
    let mut taken = world.messages();
    assert_eq!(refused(&mut world), 44);
    taken.extend(world.messages());
    // More than a turn tells of.
    assert_eq!(taken.len(), 2 * UPSTREAM_BUFFERS_MAX);
    assert_eq!(refused(&mut world), 44);
    taken.extend(world.messages());
    taken.iter().for_each(|(receipt, _)| world.say_outcome(*receipt, Ok(())));
    assert!(world.turn(0), "a turn has told of some");
    assert_eq!(world.stats(0).upstream.acknowledged.get(), 512);
    world.settle();
    assert_eq!(world.stats(0).upstream.acknowledged.get(), 3 * UPSTREAM_BUFFERS_MAX as u64);
}

#[test]
fn a_rate_refills_with_time() {
    let mut world = passing(Rules { per_second: 2, burst: 1, ..rules() }).build();
    let mut client = world.enter(Tcp, &login("key", ""));
    say(&mut world, &mut client, SEND, "1");
    client.send(SEND, b"2");
    world.settle();
    assert!(matches!(client.take()[..], [Got::Reply { .. }]), "refused at once");
    world.advance(500);
    say(&mut world, &mut client, SEND, "3");
    assert_eq!(world.messages().len(), 2);
}

#[test]
fn a_slot_waits_for_the_answers_to_its_messages_and_then_it_is_anothers() {
    let mut setup = passing(rules()).shard(|shard| (shard.connections_max, shard.accepts_armed_max) = (1, 1));
    setup.listeners.truncate(1);
    let mut world = setup.build();
    let mut client = world.enter(Tcp, &login("key", "room"));
    say(&mut world, &mut client, SEND, "said, and gone");
    client.half_close();
    world.settle();
    assert_eq!(world.closes(CloseReason::PeerClosed), 1);
    let (receipt, _) = world.messages().pop().expect("it was passed on");
    let ticket = world.shards[0].table[receipt.conn.slot()].ticket;
    assert!(world.directory.connection(ticket, receipt.conn).is_some(), "it is still known who said it");
    let mut next = Client::connect(&world.net, 0, Tcp);
    next.login(&login("next", ""));
    world.settle();
    assert_eq!(next.take(), [], "there is no other slot");
    world.say_outcome(receipt, Ok(()));
    world.settle();
    assert_eq!(next.take(), [reply(operation::AUTH_REPLY, 1, "")]);
    assert!(world.directory.connection(ticket, receipt.conn).is_none());
    next.half_close();
    world.settle();
    world.assert_empty();
}

#[test]
fn answers_to_one_connection_in_a_row_leave_as_one_reply() {
    let mut world = passing(rules()).build();
    let mut clients = [world.enter(Tcp, &login("a", "")), world.enter(Tcp, &login("b", ""))];
    for client in &mut clients {
        (0..5).for_each(|_| {
            say(&mut world, client, SEND, "x");
        });
    }
    let sends = world.stats(0).sends.get();
    assert_eq!(world.answer_all(Ok(())), 10);
    assert_eq!(world.stats(0).sends.get() - sends, 2);
    assert!(clients.iter_mut().all(|client| client.take().len() == 5));
}

#[test]
fn a_drain_lets_a_connection_stay_until_its_messages_are_answered() {
    for transport in BOTH {
        let mut world = passing(rules()).build();
        let mut client = world.enter(transport, &marked("key", "room"));
        let mut other = world.enter(transport, &marked("other", "room"));
        let sequence = say(&mut world, &mut client, SEND, "x");
        world.control.drain(DrainPlan::new(0, 0, 60_000), &mut world.outgoing);
        world.settle();
        assert_eq!(other.take()[0], Got::Kick { code: 1012, text: "drain".into() });
        assert_eq!((client.take(), world.drained), (vec![], 0));
        world.answer_all(Ok(()));
        let got = client.take();
        assert_eq!(got[0], reply(REPLY, sequence, ""));
        assert_eq!(got[1], Got::Kick { code: 1012, text: "drain".into() });
        [&client, &other].iter().for_each(|client| client.half_close());
        world.settle();
        assert_eq!(world.drained, 1);
        world.assert_empty();
    }
}

#[test]
fn a_drain_does_not_wait_for_answers_beyond_its_deadline() {
    let mut world = passing(rules()).build();
    let mut clients = [world.enter(Tcp, &login("a", "")), world.enter(Tcp, &login("b", ""))];
    clients.iter_mut().for_each(|client| _ = say(&mut world, client, SEND, "x"));
    clients[1].half_close();
    world.settle();
    let messages = world.messages();
    world.control.drain(DrainPlan::new(0, 0, 2000), &mut world.outgoing);
    world.advance(1900);
    assert_eq!(world.drained, 0);
    world.advance(300);
    assert_eq!(world.drained, 1);
    messages.iter().for_each(|(receipt, _)| world.say_outcome(*receipt, Ok(())));
    world.settle();
    world.assert_empty();
}

#[test]
fn messages_and_their_answers_allocate_nothing_in_the_shard() {
    let mut world = passing(rules()).build();
    let mut clients: Vec<_> = (0..20).map(|n| world.enter(BOTH[n % 2], &login(&format!("key-{n}"), "room"))).collect();
    let mut load = |world: &mut World| {
        clients.iter_mut().for_each(|client| (0..3).for_each(|_| _ = client.send(SEND, b"hello")));
        let mut allocated = steady::turns(world);
        let messages = world.messages();
        assert_eq!(messages.len(), 60);
        messages.iter().for_each(|(receipt, _)| world.say_outcome(*receipt, Ok(())));
        allocated += steady::turns(world);
        assert!(clients.iter_mut().all(|client| client.take().len() == 3));
        allocated
    };
    (0..4).for_each(|_| _ = load(&mut world));
    assert_eq!((0..4).map(|_| load(&mut world)).sum::<u64>(), 0);
}
