//! One run in full: how to repeat it, where it was made, what it cost, and everything else it wrote.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::run::Run;
use super::value::{any, table, words};

/// Fields with a place of their own, here or above.
const PLACED: &[&str] = &[
    "tool",
    "commit",
    "scenario",
    "command",
    "ended_unix_s",
    "ended",
    "machine",
    "settings",
    "valid",
    "invalid_reasons",
    "bounds_missed",
    "latency_ms",
    "latency_curve",
    "over_time",
    "fairness_ms",
    "push_answer_ms",
    "server",
    "stats",
    "generator",
    "floor",
    "floor_ratio",
];

/// What stands behind the numbers of a run.
pub(super) fn of(run: &Run, open: bool) -> Markup {
    let threads = |path: &str| run.at(path).and_then(Value::as_array).filter(|list| !list.is_empty());
    html! {
        details.run open[open] {
            summary {
                (run.name) " " span.quiet { (run.text("scenario")) }
                @if !run.is_valid() { " " span.bad { "invalid" } }
            }
            h3 { "To repeat it" }
            pre.command { (command(run)) }
            p.note { (run.text("tool")) @if !run.text("commit").is_empty() { ", commit " (run.text("commit")) } @if !run.text("ended").is_empty() { ", ended " (run.text("ended")) } }
            @if let Some(list) = run.at("floor.passes").and_then(Value::as_array) { h3 { "Passes of the floor" } (table("", list)) }
            @if let Some(list) = threads("server.threads") { h3 { "Threads of the server" } (table("", list)) }
            @if let Some(list) = threads("generator.spent.threads") { h3 { "Threads of the generator" } (table("", list)) }
            @for (path, title) in [("stats.dropped", "Dropped by the server"), ("generator.kernel_drops", "Dropped by the kernel")] {
                @if let Some(map) = run.at(path).and_then(Value::as_object).filter(|map| !map.is_empty()) { h3 { (title) } (any("", &Value::Object(map.clone()))) }
            }
            @for (name, value) in others(run) { h3 { (words(name)) } (any(name, value)) }
            div.halves {
                @for name in ["machine", "settings"] {
                    @if let Some(value) = run.at(name) { details { summary { (words(name)) } (any("", &pairs(value))) } }
                }
            }
            details { summary { "raw numbers" } pre { (serde_json::to_string_pretty(&run.json).unwrap_or_default()) } }
        }
    }
}

/// What this page does not know, plain values left out: the table of numbers has them.
fn others(run: &Run) -> impl Iterator<Item = (&String, &Value)> {
    let fields = run.json.as_object().into_iter().flatten();
    let is_empty =
        |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    fields.filter(move |(name, value)| {
        !PLACED.contains(&name.as_str()) && (value.is_array() || value.is_object()) && !is_empty(value)
    })
}

/// Lists of (name, value) as an object, at any depth of an object: older files write sysctls so.
fn pairs(value: &Value) -> Value {
    let pair = |item: &Value| Some((item.get(0)?.as_str()?.to_owned(), item.get(1)?.clone()));
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), pairs(value))).collect(),
        Value::Array(list) if !list.is_empty() => {
            list.iter().map(pair).collect::<Option<Map<_, _>>>().map_or_else(|| value.clone(), Value::Object)
        }
        other => other.clone(),
    }
}

/// The command line for a shell.
fn command(run: &Run) -> String {
    let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=,+@%".contains(&byte));
    let quoted = |word: &str| match word {
        word if !word.is_empty() && plain(word) => word.to_owned(),
        word => format!("'{}'", word.replace('\'', r"'\''")),
    };
    let words: Vec<String> = run.strings("command").into_iter().map(quoted).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let run = Run::new("a", json!({"command": ["halley-bench", "--room=a b", "it's", "--rate=10", ""]}));
        assert_eq!(command(&run), r"halley-bench '--room=a b' 'it'\''s' --rate=10 ''");
    }

    #[test]
    fn fields_of_other_scenarios_are_shown_and_pairs_become_tables() {
        let run = Run::new("a", json!({"server": {}, "steps": [{"rate": 77}], "lost": 3, "empty": []}));
        let names: Vec<&String> = others(&run).map(|(name, _)| name).collect();
        assert_eq!(names, ["steps"]);
        assert_eq!(pairs(&json!({"s": [["a/b", "1 2"]], "n": [1]})), json!({"s": {"a/b": "1 2"}, "n": [1]}));
    }
}
