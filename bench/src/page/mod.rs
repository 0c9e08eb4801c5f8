//! Runs as one page that needs nothing else: HTML with its style and its plots inside. It makes no
//! request and has no script; every text of a run is escaped.

mod details;
mod metrics;
mod plot;
mod plots;
mod run;
mod value;

use maud::{DOCTYPE, Markup, PreEscaped, html};

pub use run::{Run, find};
pub use value::number;

/// Runs that share their plots; of more, each case has plots of its own.
const OVERLAID_MAX: usize = 6;

/// Refuses every request; the style is part of the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// The page about these runs; `failures` are runs that left nothing.
pub fn page(title: &str, runs: &[Run], failures: &[String]) -> String {
    let invalid = runs.iter().any(|run| !run.is_valid());
    let prefix = if invalid { "INVALID: " } else { "" };
    let cases = cases(runs);
    let repeated = cases.len() < runs.len();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { (prefix) (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (alarms(runs, failures))
                (header(title, runs))
                @if repeated || runs.len() > OVERLAID_MAX {
                    section {
                        h2 { "Cases" }
                        @if repeated { p.note { "Median of the runs, and under it from where to where they lie." } }
                        (metrics::overview(&cases))
                    }
                }
                @if runs.len() <= OVERLAID_MAX {
                    (results(runs, "Results", true))
                } @else {
                    @for (case, members) in &cases {
                        (results(&members.iter().map(|run| (*run).clone()).collect::<Vec<_>>(), case, false))
                    }
                }
                section {
                    h2 { @if runs.len() == 1 { "The run" } @else { "Each run" } }
                    @for run in runs { (details::of(run, runs.len() == 1)) }
                }
                (footer())
            }
        }
    }
    .into_string()
}

/// Runs by case, in the order in which they come.
fn cases(runs: &[Run]) -> Vec<(String, Vec<&Run>)> {
    let mut cases: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in runs {
        match cases.iter_mut().find(|(case, _)| *case == run.case) {
            Some((_, members)) => members.push(run),
            None => cases.push((run.case.clone(), vec![run])),
        }
    }
    for (case, members) in &mut cases {
        if let [only] = members.as_slice() {
            case.clone_from(&only.name);
        }
    }
    cases
}

/// What must be read before any number.
fn alarms(runs: &[Run], failures: &[String]) -> Markup {
    let invalid: Vec<&Run> = runs.iter().filter(|run| !run.is_valid()).collect();
    let missed: Vec<&Run> = runs.iter().filter(|run| !run.strings("bounds_missed").is_empty()).collect();
    html! {
        @if !invalid.is_empty() {
            div.alarm.bad role="alert" {
                p.verdict {
                    @if runs.len() == 1 { "This run is invalid." }
                    @else { (invalid.len()) " of " (runs.len()) " runs are invalid." }
                    " " span { "Its numbers say nothing about the server." }
                }
                (reasons(&invalid, runs.len() > 1, "invalid_reasons"))
            }
        }
        @if !failures.is_empty() {
            div.alarm.bad {
                p.verdict { "Without a result:" }
                ul { @for failure in failures { li { (failure) } } }
            }
        }
        @if !missed.is_empty() {
            div.alarm.warn {
                p.verdict { "A stated bound was missed." }
                (reasons(&missed, runs.len() > 1, "bounds_missed"))
            }
        }
    }
}

fn reasons(runs: &[&Run], named: bool, path: &str) -> Markup {
    html! {
        ul {
            @for run in runs {
                @let reasons = run.strings(path);
                @if reasons.is_empty() { li { @if named { strong { (run.name) } ": " } "no reason is given" } }
                @for reason in reasons { li { @if named { strong { (run.name) } ": " } (reason) } }
            }
        }
    }
}

fn header(title: &str, runs: &[Run]) -> Markup {
    let first = runs.first();
    let of = |path: &str| first.map(|run| run.text(path)).unwrap_or_default();
    let cpus = first.and_then(|run| run.number("machine.cpus")).unwrap_or_default();
    let valid = !runs.is_empty() && runs.iter().all(Run::is_valid);
    html! {
        header {
            p.brand { "halley-bench" }
            h1 { (title) }
            p.facts {
                @if valid { span.good { "valid" } " · " }
                @if !of("ended").is_empty() { (of("ended")) " · " }
                (cpus) " CPUs " (of("machine.cpu_model")) " · Linux " (of("machine.kernel"))
                @if !of("commit").is_empty() { " · commit " (of("commit")) }
            }
        }
    }
}

/// Numbers and plots of runs that belong together.
fn results(runs: &[Run], heading: &str, open: bool) -> Markup {
    html! {
        section {
            h2 { (heading) }
            @if let [only] = runs { (tiles(only)) }
            (plots::of(runs))
            details.numbers open[open] {
                summary { "All numbers" }
                @if let [only] = runs { (metrics::blocks(only)) } @else { (metrics::table(runs)) }
            }
        }
    }
}

/// The few numbers of a single run that are asked for first.
fn tiles(run: &Run) -> Markup {
    let number = |path: &str| run.number(path).map(|number| value::with_unit(path, number));
    let lost = run.number("lost");
    let tiles = [
        ("limit", number("limit.best.deliveries_per_second"), Some("deliveries, last good step".to_owned())),
        (
            "delivered",
            number("delivered"),
            run.number("offered").map(|offered| format!("of {}", value::number(offered))),
        ),
        ("lost", number("lost"), lost.map(|_| "exactly counted".to_owned())),
        ("p50", number("latency_ms.p50"), Some("from the due time".to_owned())),
        ("p99", number("latency_ms.p99"), number("latency_ms.max").map(|worst| format!("worst {worst}"))),
        (
            "CPU per delivery",
            number("server.cpu_us_per_delivery"),
            number("floor_ratio").map(|ratio| format!("{ratio} × the floor")),
        ),
        ("a further connection", number("server.bytes_per_connection"), Some("resident set".to_owned())),
        ("kernel memory", number("kernel.server_bytes"), Some("per connection".to_owned())),
        (
            "resident set",
            number("server.rss_bytes"),
            number("connections").map(|count| format!("with {count} connections")),
        ),
    ];
    html! {
        div.tiles {
            @for (name, value, below) in tiles.into_iter().filter_map(|(name, value, below)| Some((name, value?, below))) {
                div.tile.bad[name == "lost" && lost > Some(0.0)] {
                    span.name { (name) }
                    span.value { (value) }
                    @if let Some(below) = below { span.below { (below) } }
                }
            }
        }
    }
}

fn footer() -> Markup {
    html! {
        footer {
            p {
                "A delivery is message × connection. A latency runs from the moment the message was due, whatever the server did \
                 with those before it. Loss, repetition and order are counted for each connection, exactly. An invalid run is one in \
                 which the generator was the bottleneck; loss does not make a run invalid."
            }
            p { "Made by halley-bench " (env!("CARGO_PKG_VERSION")) ", commit " (env!("HALLEY_BENCH_COMMIT")) "." }
        }
    }
}
