//! What the generator says about servers whose behaviour is known, and about itself.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use bench::broadcast::{Failure, broadcast};
use bench::cli::{BroadcastArgs, Cli, Command};
use bench::interrupt::Interrupt;
use bench::measure::Measured;
use clap::Parser;
use support::{Delivery, Script, Server};

/// 8 clients, 20 messages in a fifth of a second, no warm-up, so that the script's numbers are
/// the sequences.
const RUN: [&str; 9] = [
    "halley-bench",
    "broadcast",
    "--connections=8",
    "--rate=100",
    "--duration=0.2",
    "--warmup=0",
    "--settle=0.1",
    "--grace=2",
    "--patience=20",
];

fn arguments(server: &Server, more: &[&str]) -> BroadcastArgs {
    let words = RUN.iter().map(ToString::to_string).chain(server.flags());
    let words = words.chain(more.iter().map(ToString::to_string));
    match Cli::try_parse_from(words).unwrap().command {
        Command::Broadcast(arguments) => *arguments,
        other => panic!("{other:?}"),
    }
}

fn run(script: Script, more: &[&str]) -> Result<Measured, Failure> {
    let server = Server::start(script);
    broadcast(&arguments(&server, more), &Interrupt::default()).map(|(measured, _)| measured)
}

#[test]
fn an_honest_server_loses_nothing_on_either_transport() {
    let measured = run(Script::default(), &["--keys-prefix=device-"]).unwrap();
    let counts = measured.counts;
    assert_eq!((measured.messages, measured.offered), (20, 160));
    assert_eq!((counts.delivered, counts.lost), (160, 0));
    assert_eq!((counts.duplicates, counts.reordered, counts.stray), (0, 0, 0));
    assert!(measured.latency_ms.p50 > 0.0 && measured.latency_ms.p50 <= measured.latency_ms.max);
    assert_eq!(measured.latency_us.unwrap().len(), 160);
}

#[test]
fn several_messages_in_one_frame_are_several_deliveries() {
    let script = Script {
        deliver: |n, _| Delivery::Messages(if n % 4 == 3 { (n - 3..=n).collect() } else { vec![] }),
        ..Script::default()
    };
    let measured = run(script, &["--payload-bytes=300"]).unwrap();
    assert_eq!((measured.counts.delivered, measured.counts.lost), (160, 0));
    assert_eq!(measured.counts.reordered, 0);
}

#[test]
#[allow(clippy::match_same_arms, reason = "one line for each lie")]
fn drops_repeats_and_swaps_are_reported_exactly() {
    let script = Script {
        deliver: |n, member| {
            Delivery::Messages(match (member, n) {
                (1, 3) | (2, 3 | 4 | 19) => vec![], // four lost
                (3, 5) => vec![5, 5, 5],            // two duplicates
                (4, 7) => vec![],
                (4, 8) => vec![8, 7], // one reordered
                (5, 0..=2) => vec![],
                (5, 3) => vec![3, 2, 1, 0, 2], // three reordered, one duplicate
                (_, n) => vec![n],
            })
        },
        ..Script::default()
    };
    let measured = run(script, &[]).unwrap();
    let counts = measured.counts;
    assert_eq!(measured.offered, 160);
    assert_eq!((counts.lost, counts.delivered), (4, 156));
    assert_eq!(counts.duplicates, 3);
    assert_eq!(counts.reordered, 4);
}

#[test]
fn refused_pushes_are_neither_offered_nor_lost() {
    let script = Script { refuse: |n| n % 5 == 0, ..Script::default() };
    let measured = run(script, &[]).unwrap();
    assert_eq!((measured.refused, measured.offered), (4, 128));
    assert_eq!((measured.counts.delivered, measured.counts.lost), (128, 0));
    assert_eq!(measured.counts.refused_but_delivered, 0);
}

#[test]
fn slow_clients_are_counted_apart_each_with_what_it_missed() {
    // A quarter of the clients of each transport: members 7 and 8.
    let script = Script {
        deliver: |n, member| {
            let dropped = member > 6 && n < u32::try_from(member).unwrap();
            Delivery::Messages(if dropped { vec![] } else { vec![n] })
        },
        ..Script::default()
    };
    let measured = run(script, &["--slow-percent=25"]).unwrap();
    assert_eq!((measured.connections, measured.offered, measured.counts.lost), (6, 120, 0));
    let mut slow = measured.slow.unwrap();
    slow.missed_each.sort_unstable();
    assert_eq!(slow.missed_each, [7, 8]);
    assert_eq!((slow.delivered, slow.missed), (25, 15));
}

#[test]
fn slow_clients_read_so_many_bytes_a_second_and_what_is_left_afterwards() {
    // A second of 100 messages of 500 bytes; 4,000 bytes a second are fewer than ten of them.
    let flags = ["--slow-percent=25", "--slow-bytes-per-second=4000", "--payload-bytes=500"];
    let server = Server::start(Script::default());
    let mut arguments = arguments(&server, &flags);
    arguments.load.run.duration = 1.0;
    let (measured, _) = broadcast(&arguments, &Interrupt::default()).unwrap();
    let slow = measured.slow.unwrap();
    assert_eq!((slow.delivered, slow.missed, measured.counts.lost), (200, 0, 0));
    // Until the window and its drain are over, which no pause of this machine makes shorter.
    let bytes_max = 2.0 * 4000.0 * (measured.seconds + 1.0);
    let read = slow.delivered_while_slow;
    assert!(read > 0 && f64::from(u32::try_from(read).unwrap()) * 500.0 < bytes_max, "{read} messages");
}

#[test]
fn a_client_that_is_sent_nonsense_is_counted_and_the_others_go_on() {
    let script = Script {
        deliver: |n, member| match (member, n) {
            (2, 10) => Delivery::Bytes(vec![0xff; 40]),
            _ => Delivery::Messages(vec![n]),
        },
        ..Script::default()
    };
    let measured = run(script, &[]).unwrap();
    let counts = measured.counts;
    assert_eq!((counts.malformed, counts.closed), (1, 1));
    assert_eq!((counts.delivered, counts.lost), (150, 10));
    let [fault] = &measured.malformed_frames[..] else { panic!("{:?}", measured.malformed_frames) };
    assert_eq!((fault.client, fault.hex.as_str()), (1, "ff".repeat(40).as_str()));
    assert!(!fault.why.is_empty() && fault.target.starts_with("ws://"), "{fault:?}");
}

/// Reproducible noise.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[1]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[test]
fn random_bytes_from_a_server_are_counted_and_shown_and_never_a_panic() {
    // Every client gets noise of its own, behind one, two … good messages.
    let script = Script {
        deliver: |n, member| match u32::try_from(member).unwrap() {
            noisy if n >= noisy => Delivery::Bytes(noise(n * 100 + noisy, 900)),
            _ => Delivery::Messages(vec![n]),
        },
        ..Script::default()
    };
    let measured = run(script, &[]).unwrap();
    let counts = measured.counts;
    assert_eq!((counts.closed, counts.malformed), (8, 8));
    assert_eq!(counts.delivered, 36, "1 + 2 + … + 8 came before the noise");
    assert_eq!(counts.lost, measured.offered - 36);
    assert_eq!(measured.malformed_frames.len(), 5, "the first few are shown");
    assert!(measured.malformed_frames.iter().all(|fault| fault.hex.len() <= 128 && !fault.why.is_empty()));
}

#[test]
fn a_server_that_dies_in_the_middle_is_reported_with_the_time() {
    let script = Script { dies_at: 12, ..Script::default() };
    let measured = run(script, &[]).unwrap();
    assert!(!measured.valid);
    let death = measured.death.unwrap();
    assert!((0.1..2.0).contains(&death.seconds), "{death:?}");
    assert_eq!(death.connections_ended, 0, "only the API is gone");
    assert!(measured.invalid_reasons[0].starts_with("the server died "), "{:?}", measured.invalid_reasons);
    assert!(measured.counts.delivered >= 12 * 8);
}

#[test]
fn a_refused_login_ends_the_run_with_a_sentence() {
    let script = Script { welcome: |member| member != 5, ..Script::default() };
    let Err(Failure::Run(sentence)) = run(script, &[]) else { panic!("a login was refused") };
    assert!(sentence.contains("before its login was answered"), "{sentence}");
}

#[test]
fn a_target_where_nobody_listens_is_told_before_the_run() {
    let server = Server::start(Script::default());
    let mut arguments = arguments(&server, &[]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    arguments.load.clients.target[0].address = closed;
    let outcome = broadcast(&arguments, &Interrupt::default());
    let Err(Failure::Surroundings(sentence)) = outcome else { panic!("nobody listens") };
    assert!(sentence.contains("cannot be reached"), "{sentence}");
}
