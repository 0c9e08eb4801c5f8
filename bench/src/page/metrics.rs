//! The numbers that every reader asks for, in the order of the asking, and the table of them.

use maud::{Markup, html};
use serde_json::Value;

use super::run::Run;
use super::value::{self, number, with_unit, words};

/// Headings, and under each the paths with what they are called.
const KNOWN: &[(&str, &[(&str, &str)])] = &[
    (
        "The limit that was found: the last good step",
        &[
            ("limit.best.deliveries_per_second", "deliveries per second"),
            ("limit.best.deliveries_per_second_per_core", "the same for each core"),
            ("limit.best.rate", "messages per second into each room"),
            ("limit.best.latency_ms.p50", "p50"),
            ("limit.best.latency_ms.p99", "p99"),
            ("limit.best.latency_ms.p999", "p99.9"),
            ("limit.best.latency_ms.max", "worst"),
            ("limit.best.server_cpu_percent", "CPU of the server"),
            ("limit.best.server_cpu_us_per_delivery", "CPU per delivery"),
            ("limit.at_least", "at least: it was the generator that could do no more"),
            ("limit.ended", "why the search ended"),
        ],
    ),
    (
        "Deliveries",
        &[
            ("connections", "connections"),
            ("seconds", "measured"),
            ("messages", "messages"),
            ("offered", "offered"),
            ("delivered", "delivered"),
            ("lost", "lost"),
            ("duplicates", "duplicates"),
            ("reordered", "out of order"),
            ("refused", "pushes refused (503)"),
            ("unanswered", "pushes unanswered"),
            ("refused_but_delivered", "refused but delivered"),
            ("closed", "connections lost"),
            ("malformed", "malformed"),
            ("stray", "stray messages"),
            ("slow.connections", "slow clients"),
            ("slow.missed", "missed by slow clients"),
            ("slow_closed", "slow clients closed"),
        ],
    ),
    (
        "Latency from the due time",
        &[
            ("latency_ms.p50", "p50"),
            ("latency_ms.p90", "p90"),
            ("latency_ms.p99", "p99"),
            ("latency_ms.p999", "p99.9"),
            ("latency_ms.max", "worst"),
            ("fairness_ms.0", "mean of the best served client"),
            ("fairness_ms.1", "mean of the median client"),
            ("fairness_ms.2", "mean of the worst served client"),
            ("push_answer_ms.p50", "answer to a push, p50"),
            ("push_answer_ms.p99", "answer to a push, p99"),
            ("push_answer_ms.max", "answer to a push, worst"),
        ],
    ),
    (
        "Cost to the server",
        &[
            ("server.cpu_us_per_delivery", "CPU per delivery"),
            ("floor.ring_us", "floor, bare ring"),
            ("floor.send_us", "floor, send(2)"),
            ("floor_ratio", "times the better floor"),
            ("server.cpu_seconds", "CPU"),
            ("server.user_seconds", "of it in user mode"),
            ("server.system_seconds", "of it in the kernel"),
            ("server.rss_bytes", "resident set"),
            ("server.bytes_per_connection", "resident set, each further connection"),
            ("server.rss_bytes_per_connection", "resident set over connections"),
            ("kernel.server_bytes", "kernel memory per connection"),
            ("server.idle_cpu_percent", "CPU while idle"),
        ],
    ),
    (
        "The server's own counters",
        &[
            ("stats.offered", "offered"),
            ("stats.sent", "sent"),
            ("stats.queued", "queued"),
            ("stats.law_holds", "offered = sent + dropped + queued"),
            ("stats.sent_is_delivered", "sent = what clients counted"),
            ("stats.run_messages.count", "runs"),
            ("stats.run_messages.mean", "messages in a run, mean"),
            ("stats.run_messages.p99_at_most", "messages in a run, p99 at most"),
            ("stats.sends_per_delivery", "sends per delivery"),
            ("stats.sends_per_enter", "sends per io_uring_enter"),
            ("stats.enters_per_delivery", "io_uring_enter per delivery"),
            ("stats.completions_per_delivery", "completions per delivery"),
            ("stats.allocations_per_delivery", "allocations per delivery"),
            ("stats.turns", "turns"),
            ("stats.turn_us.mean", "a turn, mean"),
            ("stats.turn_us.p99_at_most", "a turn, p99 at most"),
        ],
    ),
    (
        "The generator",
        &[
            ("generator.lateness_ms.0", "messages late, p99"),
            ("generator.lateness_ms.1", "messages late, worst"),
            ("generator.pause_ms_max", "stood still at worst"),
            ("generator.spent.cpu_seconds", "CPU"),
            ("generator.spent.user_seconds", "of it in user mode"),
            ("generator.spent.system_seconds", "of it in the kernel"),
            ("generator.spent.rss_bytes", "resident set"),
        ],
    ),
];

/// Shown elsewhere on the page, or no result.
const ELSEWHERE: &[&str] = &[
    "tool",
    "commit",
    "scenario",
    "command",
    "ended_unix_s",
    "ended",
    "machine",
    "settings",
    "valid",
    "bounds_missed",
    "invalid_reasons",
    "latency_curve",
    "over_time",
    "push_answer_ms",
];

/// One row of the table.
pub(super) struct Row {
    /// Where its numbers stand.
    pub(super) path: String,
    /// What it is called.
    pub(super) label: String,
}

/// Headings with the rows that any of the runs has.
pub(super) fn sections(runs: &[Run]) -> Vec<(&'static str, Vec<Row>)> {
    let mut sections: Vec<(&'static str, Vec<Row>)> = Vec::new();
    for (heading, paths) in KNOWN {
        let has = |path: &str| {
            runs.iter().any(|run| run.at(path).is_some_and(|value| !value.is_object() && !value.is_array()))
        };
        let rows = paths.iter().filter(|(path, _)| has(path));
        let rows: Vec<Row> =
            rows.map(|(path, label)| Row { path: (*path).to_owned(), label: (*label).to_owned() }).collect();
        sections.push((heading, rows));
    }
    sections.push(("More of this scenario", further(runs)));
    sections.retain(|(_, rows)| !rows.is_empty());
    sections
}

/// Plain values that this file does not know.
fn further(runs: &[Run]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for run in runs {
        for (name, value) in run.json.as_object().into_iter().flatten() {
            if !ELSEWHERE.contains(&name.as_str()) {
                collect(name, value, &mut rows);
            }
        }
    }
    rows
}

fn collect(path: &str, value: &Value, rows: &mut Vec<Row>) {
    let is_known =
        KNOWN.iter().flat_map(|(_, paths)| *paths).any(|(known, _)| *known == path) || path == "stats.turn_us.count"; // as many as turns
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| collect(&format!("{path}.{name}"), value, rows)),
        Value::Array(_) | Value::Null => {}
        _ if is_known || rows.iter().any(|row| row.path == path) => {}
        _ => rows.push(Row { path: path.to_owned(), label: words(&path.replace('.', ", ")) }),
    }
}

/// The numbers of one run, each heading a block of its own.
pub(super) fn blocks(run: &Run) -> Markup {
    html! {
        div.blocks {
            @for (heading, rows) in sections(std::slice::from_ref(run)) {
                table.compare {
                    thead { tr { th colspan="2" { (heading) } } }
                    tbody {
                        @for row in rows {
                            @let value = run.at(&row.path).unwrap_or(&Value::Null);
                            tr { th { (row.label) } td.bad[is_bad(&row.path, value)] { (value::scalar(&row.path, value)) } }
                        }
                    }
                }
            }
        }
    }
}

/// Runs side by side.
pub(super) fn table(runs: &[Run]) -> Markup {
    html! {
        div.scroll {
            table.compare {
                thead {
                    tr {
                        td {}
                        @for run in runs { th { (run.name) @if !run.is_valid() { " " span.bad { "invalid" } } } }
                    }
                }
                @for (heading, rows) in sections(runs) {
                    tbody {
                        tr.heading { th colspan=(runs.len() + 1) { span { (heading) } } }
                        @for row in rows {
                            tr {
                                th { (row.label) }
                                @for run in runs {
                                    @let value = run.at(&row.path).unwrap_or(&Value::Null);
                                    td.bad[is_bad(&row.path, value)] { (value::scalar(&row.path, value)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Whether a value is one that must not be overlooked.
fn is_bad(path: &str, value: &Value) -> bool {
    let counts =
        ["lost", "duplicates", "reordered", "refused", "unanswered", "refused_but_delivered", "closed", "malformed"];
    let broken = ["stats.law_holds", "stats.sent_is_delivered"];
    (counts.contains(&path) && value.as_f64().is_some_and(|count| count > 0.0))
        || (broken.contains(&path) && value == &Value::Bool(false))
}

/// What a table of cases shows: (path, heading).
const OVERVIEW: &[(&str, &str)] = &[
    ("connections", "connections"),
    ("limit.best.deliveries_per_second", "limit, deliveries per second"),
    ("delivered", "delivered"),
    ("lost", "lost"),
    ("latency_ms.p50", "p50"),
    ("latency_ms.p99", "p99"),
    ("latency_ms.max", "worst"),
    ("server.cpu_us_per_delivery", "CPU per delivery"),
    ("floor_ratio", "× floor"),
    ("stats.run_messages.mean", "messages in a run"),
    ("server.rss_bytes", "resident set"),
    ("server.bytes_per_connection", "bytes per connection"),
];

/// Median, least and greatest of the runs that have the number.
pub(super) fn spread(runs: &[&Run], path: &str) -> Option<(f64, f64, f64)> {
    let mut values: Vec<f64> = runs.iter().filter_map(|run| run.number(path)).collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
    Some((median, low, high))
}

/// One row for each case: medians, and from where to where the runs lie.
pub(super) fn overview(cases: &[(String, Vec<&Run>)]) -> Markup {
    let has = |path: &str| cases.iter().any(|(_, runs)| spread(runs, path).is_some());
    let shown: Vec<_> = OVERVIEW.iter().filter(|(path, _)| has(path)).collect();
    html! {
        div.scroll {
            table.rows.overview {
                thead { tr { th { "case" } th { "valid" } @for (_, heading) in &shown { th { (heading) } } } }
                tbody {
                    @for (case, runs) in cases {
                        @let valid = runs.iter().filter(|run| run.is_valid()).count();
                        tr {
                            th { (case) span.quiet.part { (runs[0].text("scenario")) } }
                            td.bad[valid < runs.len()] { (valid) " of " (runs.len()) }
                            @for (path, _) in &shown {
                                td.number {
                                    @match spread(runs, path) {
                                        None => span.quiet { "–" },
                                        Some((median, low, high)) => {
                                            (with_unit(path, median))
                                            @if runs.len() > 1 && low < high {
                                                span.quiet.part { (if path.contains("bytes") { with_unit(path, low) } else { number(low) }) " … " (with_unit(path, high)) }
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_lies_between_its_ends() {
        let runs: Vec<Run> = [5.0, 1.0, 2.0, 4.0].map(|value| Run::new("a", json!({ "x": value }))).to_vec();
        let all: Vec<&Run> = runs.iter().collect();
        assert_eq!(spread(&all, "x"), Some((3.0, 1.0, 5.0)));
        assert_eq!(spread(&all[..3], "x"), Some((2.0, 1.0, 5.0)));
        assert_eq!(spread(&all, "y"), None);
    }

    #[test]
    fn numbers_of_scenarios_to_come_are_rows_too() {
        let run = Run::new("a", json!({"scenario": "storm", "lost": 0, "storm": {"back_seconds": 4.2, "curve": [1]}}));
        let rows = sections(&[run]);
        let paths: Vec<&str> = rows.iter().flat_map(|(_, rows)| rows).map(|row| row.path.as_str()).collect();
        assert_eq!(paths, ["lost", "storm.back_seconds"]);
    }
}
