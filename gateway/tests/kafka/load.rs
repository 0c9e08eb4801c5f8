//! `halley-bench --push kafka://…` against a gateway: what it lets out is what clients get, and what is not acknowledged is said.

use bench::broadcast::broadcast;
use bench::cli::{Cli, Command};
use bench::interrupt::Interrupt;
use bench::measure::Measured;
use clap::Parser as _;
use xtask::kafka::Broker;

use crate::support::Gateway;
use crate::world::{broker, folder, gateway, jars, source, topic, until_dispatched};

fn run(gateway: &Gateway, broker: &Broker, topic: &str, more: &[&str]) -> Result<Measured, String> {
    let words = [
        "halley-bench broadcast --connections=12 --rate=100 --warmup=0 --settle=0.1".to_owned(),
        format!("--target=tcp://{} --target=ws://{}/sub", gateway.tcp(), gateway.ws()),
        format!("--push=kafka://{}/{topic}", broker.address()),
        more.join(" "),
    ];
    let words = words.join(" ");
    let cli = Cli::try_parse_from(words.split_whitespace()).expect("right flags");
    let Command::Broadcast(arguments) = cli.command else { panic!("a broadcast") };
    broadcast(&arguments, &Interrupt::default()).map(|(measured, _)| measured).map_err(|failure| format!("{failure:?}"))
}

#[test]
fn what_the_bench_lets_out_in_each_format_is_what_every_client_gets() {
    let Some(broker) = broker() else { return };
    let topic = topic(broker, 2);
    let gateway = gateway(broker, &topic, "");
    for (n, format) in ["goim-v2", "halley", "plain"].into_iter().enumerate() {
        let flag = format!("--push-format={format}");
        let measured =
            run(&gateway, broker, &topic, &["--duration=1 --grace=5 --payload-bytes=64", &flag]).expect("a run");
        let counts = measured.counts;
        assert_eq!((measured.messages, measured.refused, measured.unanswered), (100, 0, 0), "{format}");
        assert_eq!((measured.offered, counts.delivered, counts.lost), (1200, 1200, 0), "{format}");
        assert_eq!((counts.duplicates, counts.reordered), (0, 0), "{format}");
        assert!(measured.push_answer_ms.is_some(), "acknowledgements are timed");
        until_dispatched(&gateway, 100 * (n as u64 + 1));
    }
    assert!(source(&gateway)["rejects"].as_object().expect("reasons").values().all(|count| *count == 0));
    let refused = |topic: &str, more: &[&str]| run(&gateway, broker, topic, more).expect_err("refused");
    assert!(refused("no-such-topic", &[]).contains("cannot be reached"));
    assert!(refused(&topic, &["--push-batch=2", "--push-api=halley"]).contains("--push-format"));
}

#[test]
fn what_kafka_does_not_acknowledge_is_counted_as_unanswered() {
    let Some(jars) = jars() else { return };
    let broker = Broker::start(jars, &folder("load"), "").and_then(Broker::guarded).expect("a broker");
    let topic = topic(&broker, 1);
    let gateway = gateway(&broker, &topic, "");
    let measured = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(&gateway, &broker, &topic, &["--duration=3", "--grace=1"]));
        crate::support::until("under load", || source(&gateway)["dispatched"].as_u64() > Some(50));
        broker.signal("STOP").expect("stopped");
        let measured = run.join().expect("it ends");
        broker.signal("CONT").expect("goes on");
        measured.expect("a run")
    });
    assert!(measured.unanswered > 0 && measured.messages > 50, "{} of {}", measured.unanswered, measured.messages);
    assert!(measured.counts.lost > 0, "and what it owed its clients was lost");
}
