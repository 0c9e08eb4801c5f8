//! The plots that every run with a schedule has, several runs over each other.

use maud::{Markup, html};
use serde_json::Value;

use super::plot::{Line, Plot, Scale};
use super::run::{Run, find};

/// What a plot draws of each run: (name, path of the column, dash).
type Quantities<'a> = &'a [(&'a str, &'a str, usize)];

const SECONDS: &str = "seconds from the first message";

/// All plots for which there is data.
pub(super) fn of(runs: &[Run]) -> Markup {
    let deliveries = "over_time.deliveries";
    let usage = "over_time.usage";
    let per_second = [
        (steps(runs, "Deliveries per second", deliveries, &[("deliveries", "per_s", 0)]), (Scale::Linear, "", 1.0)),
        (
            steps(
                runs,
                "Latency over time",
                deliveries,
                &[("p99", "p99_ms", 0), ("p50", "p50_ms", 1), ("worst", "worst_ms", 2)],
            ),
            (Scale::Log, "ms", 1.0),
        ),
        (
            steps(
                runs,
                "CPU, one core is 100",
                usage,
                &[("server", "server_cpu_percent", 0), ("generator", "generator_cpu_percent", 1)],
            ),
            (Scale::Linear, "%", 1.0),
        ),
        (
            steps(runs, "Resident set of the server", usage, &[("server", "server_rss_bytes", 0)]),
            (Scale::Linear, "MiB", 1.0 / f64::from(1 << 20)),
        ),
        (
            steps(
                runs,
                "How late messages left the generator",
                "over_time.lateness",
                &[("p99", "p99_ms", 0), ("worst", "worst_ms", 2)],
            ),
            (Scale::Linear, "ms", 1.0),
        ),
    ];
    let over_time = per_second.into_iter().map(|(plot, (y_scale, unit, factor))| {
        let mut plot = Plot { unit, y_scale, ..plot };
        plot.lines.iter_mut().flat_map(|line| &mut line.points).for_each(|(_, y)| *y *= factor);
        plot
    });
    let figures: Vec<Markup> =
        [percentiles(runs), limit(runs)].into_iter().chain(over_time).filter_map(|plot| plot.figure()).collect();
    html! { @if !figures.is_empty() { div.plots { @for figure in figures { (figure) } } } }
}

/// Latency by percentile, the better visible the rarer.
fn percentiles(runs: &[Run]) -> Plot {
    let line = |(index, run): (usize, &Run)| {
        let worst = 1.0 - 1.0 / run.number("delivered").unwrap_or(0.0).max(2.0);
        let points = run.curve().into_iter().map(|(share, ms)| (share.min(worst), ms)).collect();
        Line { name: run.name.clone(), colour: index, dash: 0, points }
    };
    Plot {
        title: "Latency by percentile".to_owned(),
        x_label: "percentile of the deliveries".to_owned(),
        x_scale: Scale::Tail,
        unit: "ms",
        y_scale: Scale::Log,
        lines: runs.iter().enumerate().map(line).collect(),
        note: String::new(),
    }
}

/// Steps of a search for a limit: latency over the load.
fn limit(runs: &[Run]) -> Plot {
    let mut lines = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let steps = ["steps", "limit.steps", "find_limit.steps"]
            .into_iter()
            .find_map(|path| run.at(path))
            .and_then(Value::as_array);
        let Some(steps) = steps else { continue };
        let load = ["deliveries_per_s", "deliveries_per_second", "rate"];
        let points = |path: &str| {
            let mut points: Vec<(f64, f64)> = steps
                .iter()
                .filter_map(|step| {
                    let at = |path: &str| find(step, path).and_then(Value::as_f64);
                    Some((
                        load.iter().find_map(|name| at(name))?,
                        at(path).or_else(|| at(&path.replace("latency_ms.", "")))?,
                    ))
                })
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            points
        };
        lines.push(line(runs, index, "p99", 0, points("latency_ms.p99")));
        lines.push(line(runs, index, "p50", 1, points("latency_ms.p50")));
    }
    Plot {
        title: "Latency over load".to_owned(),
        x_label: "deliveries per second".to_owned(),
        x_scale: Scale::Linear,
        unit: "ms",
        y_scale: Scale::Log,
        lines,
        note: String::new(),
    }
}

/// Columns of all runs over time.
fn steps(runs: &[Run], title: &str, place: &str, quantities: Quantities<'_>) -> Plot {
    let mut lines = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        for (name, column, dash) in quantities {
            // Of several runs, the worst case of each second would only hide the others.
            if runs.len() > 1 && *dash == 2 {
                continue;
            }
            let values = run.column(&format!("{place}.{column}"));
            let times = run.column(&format!("{place}.at_s"));
            let step = run.number(&format!("{place}.step_s")).unwrap_or(1.0);
            let at = |index: usize, count: u32| times.get(index).copied().unwrap_or((f64::from(count) + 0.5) * step);
            let points =
                (0_u32..).zip(values).enumerate().map(|(index, (count, value))| (at(index, count), value)).collect();
            lines.push(line(runs, index, name, *dash, points));
        }
    }
    Plot {
        title: title.to_owned(),
        x_label: SECONDS.to_owned(),
        x_scale: Scale::Linear,
        unit: "",
        y_scale: Scale::Linear,
        lines,
        note: dashes(runs, quantities),
    }
}

/// One run: a colour for each quantity. Several: a colour for each run.
fn line(runs: &[Run], index: usize, quantity: &str, dash: usize, points: Vec<(f64, f64)>) -> Line {
    match runs {
        [_] => Line { name: quantity.to_owned(), colour: dash, dash, points },
        _ => Line { name: runs[index].name.clone(), colour: index, dash, points },
    }
}

fn dashes(runs: &[Run], quantities: Quantities<'_>) -> String {
    let style = |dash: usize| ["solid", "dashed", "dotted"][dash % 3];
    let shown: Vec<_> = quantities
        .iter()
        .filter(|(_, _, dash)| *dash < 2)
        .map(|(name, _, dash)| format!("{name} {}", style(*dash)))
        .collect();
    if runs.len() > 1 && shown.len() > 1 { shown.join(", ") } else { String::new() }
}
