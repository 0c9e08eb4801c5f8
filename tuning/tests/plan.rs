//! The plan's arithmetic against what the bench measured.
#![allow(clippy::cast_precision_loss, reason = "bytes and seconds of a benchmark")]

use std::{fs, path::Path};

use serde_json::Value;
use tuning::{CONNECTION_BYTES, KERNEL_BYTES, Node, PROCESS_BYTES, Plan, SHARD_BYTES, Traffic, USER_BYTES};

const NODE: Node = Node { cores: 1, memory_bytes: 32 << 30, link_bits: 10_000_000_000 };

fn run(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let path = root.join("docs/benchmarks/data/2026-11-22-2-core-vm").join(name);
    serde_json::from_str(&fs::read_to_string(&path).expect("the run")).expect("JSON")
}

fn number(run: &Value, path: &str) -> f64 {
    run.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path}"))
}

fn near(planned: f64, measured: f64, percent: f64, what: &str) {
    let off = (planned / measured - 1.0) * 100.0;
    assert!(off.abs() <= percent, "{what}: planned {planned}, measured {measured}: {off:.1} % off");
}

fn planned(run: &Value) -> Plan {
    let whole = |path| serde_json::from_value(run.pointer(path).cloned().expect("a number")).expect("a whole number");
    let traffic = Traffic {
        connections: whole("/settings/connections"),
        rooms: 1,
        rate: number(run, "/settings/rate"),
        bytes: whole("/settings/payload_bytes"),
        tls: false,
    };
    Plan::new(traffic, NODE)
}

#[test]
fn deliveries_and_cpu_of_unjoined_runs_are_planned_within_15_percent() {
    for name in ["10000x10-1.json", "10000x10-60s-1.json", "shards-1-1.json", "shards-51-1.json", "slow-none-1.json"] {
        let run = run(name);
        let (plan, seconds) = (planned(&run), number(&run, "/settings/duration"));
        near(plan.deliveries_per_second * seconds, number(&run, "/offered"), 0.1, name);
        near(plan.cores * seconds, number(&run, "/server/cpu_seconds"), 15.0, name);
    }
}

#[test]
fn a_run_that_asks_for_more_than_a_core_joins_messages_and_stays_below_the_plan() {
    let run = run("10000x40-1.json");
    let plan = planned(&run);
    assert!(plan.cores > 1.0 && plan.nodes_for.cpu > 1, "{plan:?}");
    assert!(number(&run, "/server/cpu_seconds") < plan.cores * number(&run, "/settings/duration"));
}

#[test]
fn memory_of_idle_connections_is_planned_within_5_percent() {
    let run = run("idle-1.json");
    near(USER_BYTES as f64, number(&run, "/server/bytes_per_connection"), 5.0, "user memory");
    near(KERNEL_BYTES as f64, number(&run, "/kernel/server_bytes"), 5.0, "kernel memory");
    assert_eq!(CONNECTION_BYTES, USER_BYTES + KERNEL_BYTES);
    near(PROCESS_BYTES as f64, number(&run, "/server/rss_bytes_at_start"), 20.0, "the process");
    let rss = |name| number(&self::run(name), "/server/rss_bytes");
    near(SHARD_BYTES as f64, (rss("shards-51-1.json") - rss("shards-1-1.json")) / 50.0, 5.0, "a shard");
}

#[test]
fn nodes_are_what_the_scarcest_thing_asks_for_and_one_more() {
    let traffic = Traffic { connections: 1_000_000, rooms: 1000, rate: 1.0, bytes: 512, tls: false };
    let node = Node { cores: 8, memory_bytes: 32 << 30, link_bits: 10_000_000_000 };
    let plan = Plan::new(traffic, node);
    assert_eq!((plan.nodes_for.cpu, plan.nodes_for.memory, plan.nodes_for.link, plan.nodes), (2, 1, 1, 3));
    let small = Plan::new(traffic, Node { memory_bytes: 2 << 30, ..node });
    assert_eq!((small.nodes_for.memory, small.nodes), (3, 4));
    let thin = Plan::new(traffic, Node { link_bits: 1_000_000_000, ..node });
    assert_eq!((thin.nodes_for.link, thin.nodes), (7, 8));
    assert_eq!(Plan::new(Traffic { tls: true, ..traffic }, node).tls_bytes, 7_300_000_000);
}
