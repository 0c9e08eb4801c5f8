//! Many rooms, and the search for the limit, against servers whose behaviour is known.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use bench::cli::{Cli, Command};
use bench::interrupt::Interrupt;
use bench::limit::{Limit, Verdict};
use bench::measure::Measured;
use bench::rooms::rooms;
use bench::stand::Failure;
use clap::Parser;
use support::{Delivery, Script, Server};

/// 8 clients in 3 rooms, 4 messages into each in a fifth of a second.
const RUN: [&str; 11] = [
    "halley-bench",
    "rooms",
    "--connections=8",
    "--subscribers-per-room=3",
    "--rate=20",
    "--duration=0.2",
    "--payload-bytes=64",
    "--warmup=0",
    "--settle=0.1",
    "--grace=2",
    "--patience=20",
];

fn run(script: Script, more: &[&str]) -> Result<(Measured, Option<Limit>), Failure> {
    let server = Server::start(script);
    let name = |flag: &str| flag.split('=').next().unwrap().to_owned();
    let usual = RUN.iter().filter(|flag| !more.iter().any(|given| name(given) == name(flag)));
    let words = usual.map(ToString::to_string).chain(server.flags());
    let words = words.chain(more.iter().map(ToString::to_string));
    match Cli::try_parse_from(words).unwrap().command {
        Command::Rooms(arguments) => rooms(&arguments, &Interrupt::default()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everybody_gets_the_messages_of_its_own_room_through_each_api() {
    for api in [&["--push-api=goim"][..], &["--push-api=halley"], &["--push-api=halley", "--push-batch=3"]] {
        let (measured, _) = run(Script::default(), api).unwrap();
        let counts = measured.counts;
        assert_eq!((measured.messages, measured.offered), (12, 32), "{api:?}");
        assert_eq!((counts.delivered, counts.lost, counts.duplicates, counts.reordered), (32, 0, 0, 0), "{api:?}");
        assert_eq!((counts.misrouted, counts.stray), (0, 0), "{api:?}");
    }
}

#[test]
fn a_message_that_reaches_another_room_is_reported_and_not_counted_as_delivered() {
    let script =
        Script { reroute: |room| if room == "live://bench-1" { "live://bench-2" } else { room }, ..Script::default() };
    let (measured, _) = run(script, &[]).unwrap();
    // The four messages of room 1 go to the three clients of room 2 instead of its own: it has two.
    let counts = measured.counts;
    assert_eq!((measured.offered, counts.delivered, counts.lost), (32, 20, 12));
    assert_eq!(counts.misrouted, 8);
}

#[test]
fn refused_messages_of_a_batch_are_owed_to_nobody() {
    let script = Script { refuse: |n| n % 6 == 0, ..Script::default() };
    let (measured, _) = run(script, &["--push-api=halley", "--push-batch=4", "--push-connections=1"]).unwrap();
    assert_eq!((measured.messages, measured.refused), (12, 2));
    // Messages 0 and 6 are of room 0, which has three clients.
    assert_eq!((measured.offered, measured.counts.delivered, measured.counts.lost), (26, 26, 0));
    assert_eq!(measured.counts.refused_but_delivered, 0);
}

#[test]
fn a_search_stops_at_a_server_that_begins_to_lose_above_a_known_rate() {
    // It bears 90 messages a second: 30 into each of three rooms.
    let script = Script { loses_above: 90.0, ..Script::default() };
    let flags = ["--find-limit", "--rate=10", "--step-percent=60", "--finer-percent=10", "--grace=0.3"];
    let (measured, limit) = run(script, &[&flags[..], &["--max-p99-ms=1000"]].concat()).unwrap();
    let limit = limit.unwrap();
    let broken = limit.steps.iter().find(|step| step.verdict == Verdict::Broken).unwrap();
    assert!(broken.rate > 30.0 && broken.reasons[0].ends_with("deliveries were lost"), "{broken:?}");
    let best = limit.best.as_ref().unwrap();
    assert_eq!((best.lost, measured.counts.lost), (0, 0));
    assert!(best.rate <= 30.0, "{best:?}");
    // A machine that is too busy for the generator ends the search early, and it says so.
    assert!(limit.at_least || best.rate * 1.1 >= 30.0, "{limit:?}");
}

#[test]
fn a_server_that_bears_no_load_has_no_limit() {
    let script = Script { deliver: |_, _| Delivery::Messages(vec![]), ..Script::default() };
    let flags = ["--find-limit", "--step-tries=1", "--grace=0.1", "--duration=0.1", "--rate=640"];
    let (_, limit) = run(script, &flags).unwrap();
    let limit = limit.unwrap();
    assert!(limit.best.is_none());
    assert_eq!(limit.steps.len(), 7, "halved until it makes no sense: {:?}", limit.steps);
}
