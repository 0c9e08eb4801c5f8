//! The plan's arithmetic against what the bench measured.
#![allow(clippy::cast_precision_loss, reason = "bytes and seconds of a benchmark")]

use std::{fs, path::Path};

use serde_json::Value;
use tuning::{CONNECTION_BYTES, KERNEL_BYTES, Node, PROCESS_BYTES, Plan, SHARD_BYTES, Traffic, USER_BYTES};

const NODE: Node = Node { cores: 1, memory_bytes: 32 << 30, link_bits: 10_000_000_000 };

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The three runs of a case of the published suite.
fn runs(case: &str) -> [Value; 3] {
    [1, 2, 3].map(|run| {
        let path = workspace().join(format!("docs/benchmarks/data/2026-11-22-published/{case}-{run}.json"));
        serde_json::from_str(&fs::read_to_string(&path).expect("the run")).expect("JSON")
    })
}

/// The one in the middle.
fn median(case: &str, path: &str) -> f64 {
    let mut values = runs(case).map(|run| number(&run, path));
    values.sort_by(f64::total_cmp);
    values[1]
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
    for case in ["5000-unbatched", "10000-unbatched", "shards-1", "shards-2", "shards-8", "shards-51"] {
        let run = &runs(case)[0];
        let (plan, seconds) = (planned(run), number(run, "/settings/duration"));
        near(plan.deliveries_per_second * seconds, number(run, "/offered"), 0.1, case);
        near(plan.cores * seconds, median(case, "/server/cpu_seconds"), 15.0, case);
    }
}

#[test]
fn a_run_that_asks_for_more_than_a_core_joins_messages_and_stays_below_the_plan() {
    for run in runs("10000x40") {
        let plan = planned(&run);
        assert!(plan.cores > 1.0 && plan.nodes_for.cpu > 1, "{plan:?}");
        assert!(number(&run, "/server/cpu_seconds") < plan.cores * number(&run, "/settings/duration"));
    }
}

#[test]
fn memory_of_idle_connections_is_planned_within_5_percent() {
    for case in ["idle-tcp", "idle-ws"] {
        near(USER_BYTES as f64, median(case, "/server/bytes_per_connection"), 5.0, "user memory");
        near(KERNEL_BYTES as f64, median(case, "/kernel/server_bytes"), 5.0, "kernel memory");
        near(PROCESS_BYTES as f64, median(case, "/server/rss_bytes_at_start"), 20.0, "the process");
    }
    assert_eq!(CONNECTION_BYTES, USER_BYTES + KERNEL_BYTES);
    let rss = |case| median(case, "/server/rss_bytes");
    near(SHARD_BYTES as f64, (rss("shards-51") - rss("shards-1")) / 50.0, 5.0, "a shard");
}

/// The numbers of the rows of the manual's table with this heading.
fn table(heading: &str) -> Vec<Vec<u64>> {
    let page = fs::read_to_string(workspace().join("docs/operations/size.md")).expect("the page");
    let rows = page.split(heading).nth(1).expect("the table").lines().skip(2);
    let cells = |row: &str| {
        let digits = |cell: &str| cell.chars().filter(char::is_ascii_digit).collect::<String>();
        row.split('|').map(digits).filter_map(|cell| cell.parse().ok()).collect()
    };
    rows.take_while(|row| row.starts_with('|')).map(cells).collect()
}

#[test]
fn the_tables_of_the_page_on_size_are_those_of_the_plan() {
    let memory = table("| memory | connections |");
    assert_eq!(memory.len(), 4);
    for row in memory {
        let [gib, connections] = row[..] else { panic!("{row:?}") };
        let plan = |connections| {
            let traffic = Traffic { connections, rooms: 1, rate: 0.001, bytes: 100, tls: false };
            Plan::new(traffic, Node { memory_bytes: gib << 30, ..NODE }).nodes_for.memory
        };
        assert_eq!(
            (plan(connections), plan(connections * 21 / 20)),
            (1, 2),
            "{gib} GiB hold {connections}, and not 5 % more"
        );
    }
    let deliveries = table("| cores | deliveries/s |");
    assert_eq!(deliveries.len(), 3);
    for row in deliveries {
        let [cores, deliveries, messages] = row[..] else { panic!("{row:?}") };
        let plan = |deliveries| {
            let traffic = Traffic { connections: deliveries, rooms: 1, rate: 1.0, bytes: 16, tls: false };
            Plan::new(traffic, Node { cores, link_bits: 1 << 50, memory_bytes: 1 << 50 }).nodes_for.cpu
        };
        assert_eq!((plan(deliveries), plan(deliveries * 21 / 20)), (1, 2), "{cores} cores, {deliveries} deliveries");
        assert_eq!(messages, deliveries / 10_000);
    }
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
    assert_eq!(Plan::new(Traffic { tls: true, ..traffic }, node).tls_bytes, 2_200_000_000);
}
