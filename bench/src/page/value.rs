//! Any JSON as HTML: numbers with the units that their names end in, lists of objects as tables,
//! columns of numbers as small plots. What a scenario adds is shown without this page knowing it.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::plot::{Line, Plot, Scale};
use super::run::column;

/// Rows of a table that are shown; the raw numbers have all.
const ROWS_MAX: usize = 200;

/// Names of columns that are times, and so the horizontal axis of those beside them.
const TIMES: [&str; 4] = ["at_s", "second", "seconds", "t_s"];

/// A number for people: `2,000,000`, `5.353`, `0.00599`.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs();
    if size >= 1000.0 || (value.fract() == 0.0 && size < 1e15) {
        return grouped(value);
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 12")]
    let digits = (3.0 - size.log10().floor()).clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with the unit that its path tells.
pub(super) fn with_unit(path: &str, value: f64) -> String {
    if path.ends_with("count") {
        return number(value);
    }
    let words: Vec<&str> = path.split(['.', '_']).collect();
    let has = |word: &str| words.contains(&word);
    if has("bytes") && !path.contains("payload") {
        return bytes(value);
    }
    let units = [("us", " µs"), ("ms", " ms"), ("ns", " ns"), ("percent", " %"), ("seconds", " s"), ("s", " s")];
    let per_second = path.ends_with("per_s") || path.ends_with("per_second");
    let unit = units.iter().find(|(word, _)| has(word)).map_or("", |(_, unit)| *unit);
    format!("{}{}", number(value), if per_second { "/s" } else { unit })
}

fn bytes(value: f64) -> String {
    let unit = [(30, " GiB"), (20, " MiB")].into_iter().find(|(shift, _)| value.abs() >= 2_f64.powi(*shift));
    unit.map_or_else(
        || format!("{} B", number(value)),
        |(shift, unit)| format!("{}{unit}", number(value / 2_f64.powi(shift))),
    )
}

/// `cpu_us_per_delivery` as words.
pub(super) fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A single value; `path` tells its unit.
pub(super) fn scalar(path: &str, value: &Value) -> Markup {
    html! {
        @match value {
            Value::Null => span.quiet { "–" },
            Value::Bool(true) => "yes",
            Value::Bool(false) => "no",
            Value::Number(number) => span.number { (number.as_f64().map_or_else(|| number.to_string(), |number| with_unit(path, number))) },
            Value::String(text) => (text),
            other => code { (other.to_string()) },
        }
    }
}

/// Any value.
pub(super) fn any(path: &str, value: &Value) -> Markup {
    match value {
        Value::Object(map) if map.is_empty() => html! { span.quiet { "none" } },
        Value::Object(map) => object(path, map),
        Value::Array(list) if list.is_empty() => html! { span.quiet { "none" } },
        Value::Array(list) if list.iter().all(Value::is_object) => table(path, list),
        Value::Array(list)
            if list.len() > 8 && list.iter().all(|item| column(item).is_some_and(|pair| pair.len() == 2)) =>
        {
            let end = |at: usize| list.iter().map(|item| item[at].as_f64().unwrap_or(f64::NAN)).collect::<Vec<_>>();
            small_plot(path, &end(0), &end(1), "first of each pair")
        }
        Value::Array(list) => match column(value) {
            Some(values) if values.len() > 8 => small_plot(path, &indexes(&values), &values, "place in the list"),
            _ => html! { @for (index, item) in list.iter().enumerate() { @if index > 0 { ", " } (any(path, item)) } },
        },
        flat => scalar(path, flat),
    }
}

fn object(path: &str, map: &Map<String, Value>) -> Markup {
    let columns: Vec<(&String, Vec<f64>)> = map
        .iter()
        .filter_map(|(name, value)| Some((name, column(value)?)))
        .filter(|(_, values)| values.len() > 8)
        .collect();
    let time = columns.iter().find(|(name, _)| TIMES.contains(&name.as_str()));
    let step = map.get("step_s").and_then(Value::as_f64);
    let is_column = |name: &String| columns.iter().any(|(column, _)| *column == name);
    html! {
        @if map.keys().any(|name| !is_column(name)) {
            table.pairs {
                @for (name, value) in map.iter().filter(|(name, _)| !is_column(name)) {
                    tr { th { (words(name)) } td { (any(&join(path, name), value)) } }
                }
            }
        }
        @if !columns.is_empty() {
            div.plots {
                @for (name, values) in columns.iter().filter(|(name, _)| time.is_none_or(|(time, _)| time != name)) {
                    @match (time, step) {
                        (Some((label, times)), _) => (small_plot(&join(path, name), times, values, &words(label))),
                        (None, Some(step)) => (small_plot(&join(path, name), &indexes(values).iter().map(|at| at * step).collect::<Vec<_>>(), values, "seconds")),
                        (None, None) => (small_plot(&join(path, name), &indexes(values), values, "place in the list")),
                    }
                }
            }
        }
    }
}

fn indexes(values: &[f64]) -> Vec<f64> {
    (0_u32..).take(values.len()).map(f64::from).collect()
}

fn small_plot(path: &str, x: &[f64], y: &[f64], x_label: &str) -> Markup {
    let name = words(&path.replace('.', ", "));
    let points = x.iter().copied().zip(y.iter().copied()).collect();
    let plot = Plot {
        title: name.clone(),
        x_label: x_label.to_owned(),
        x_scale: Scale::Linear,
        unit: "",
        y_scale: Scale::Linear,
        lines: vec![Line { name, colour: 0, dash: 0, points }],
        note: String::new(),
    };
    plot.figure().unwrap_or_else(|| html! { span.quiet { "none" } })
}

/// Objects as rows, with every name that any of them has as a column.
pub(super) fn table(path: &str, list: &[Value]) -> Markup {
    let mut names: Vec<&String> = Vec::new();
    for name in list.iter().filter_map(Value::as_object).flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    html! {
        div.scroll {
            table.rows {
                thead { tr { @for name in &names { th { (words(name)) } } } }
                tbody {
                    @for row in list.iter().take(ROWS_MAX) {
                        tr {
                            @for name in &names {
                                @let value = row.get(name.as_str()).unwrap_or(&Value::Null);
                                td.number[value.is_number()] { (cell(&join(path, name), value)) }
                            }
                        }
                    }
                }
            }
        }
        @if list.len() > ROWS_MAX { p.note { (list.len() - ROWS_MAX) " more rows are in the raw numbers." } }
    }
}

/// A value in a cell: an object of plain values on a few lines, no tables in tables.
fn cell(path: &str, value: &Value) -> Markup {
    match value {
        Value::Object(map) if map.values().all(|value| !value.is_object() && !value.is_array()) => html! {
            @for (name, value) in map { span.part { span.quiet { (words(name)) } " " (scalar(&join(path, name), value)) } " " }
        },
        Value::Array(list) if list.iter().any(Value::is_object) => html! { (list.len()) " entries" },
        value => any(path, value),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_four_digits_and_their_unit() {
        assert_eq!(number(2_000_000.0), "2,000,000");
        assert_eq!(number(5.353_019), "5.353");
        assert_eq!(number(0.005_991), "0.005991");
        assert_eq!(number(-1234.4), "-1,234");
        assert_eq!(with_unit("latency_ms.p99", 79.359), "79.36 ms");
        assert_eq!(with_unit("server.cpu_us_per_delivery", 5.353), "5.353 µs");
        assert_eq!(with_unit("server.rss_bytes", 9_928_704.0), "9.469 MiB");
        assert_eq!(with_unit("server.bytes_per_connection", 245.36), "245.4 B");
        assert_eq!(with_unit("over_time.deliveries.per_s", 10.0), "10/s");
        assert_eq!(with_unit("stats.sent", 10.0), "10");
    }

    #[test]
    fn every_value_of_an_unknown_object_is_shown() {
        let value = json!({"a": {"b": [1, 2]}, "c": [{"d": 7}, {"e": {"f": 8}}], "g": null, "h": "<i>"});
        let text = any("", &value).into_string();
        for shown in [">1<", ">2<", ">7<", ">8<", "–", "&lt;i&gt;"] {
            assert!(text.contains(shown), "{shown} is missing in {text}");
        }
    }

    #[test]
    fn columns_of_numbers_become_plots_over_their_time() {
        let value = json!({"at_s": (0..20).collect::<Vec<_>>(), "connects": (0..20).rev().collect::<Vec<_>>()});
        let text = any("", &value).into_string();
        assert_eq!(text.matches("<figure").count(), 1);
        assert!(text.contains("connects") && text.contains("at s"), "{text}");
    }
}
