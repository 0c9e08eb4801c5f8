//! Metrics compared with what is written about them: `docs/metrics.md`, the dashboard, the alerts, every page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gateway::control::metrics::{GROUPS, document};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// What Prometheus itself adds to every sample, or computes with.
const LABELS_OF_PROMETHEUS: &[&str] = &["job", "instance", "le"];

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every name of a sample, and its labels.
fn exported() -> BTreeMap<String, BTreeSet<&'static str>> {
    let families = GROUPS.iter().flat_map(|group| group.families);
    let samples = families.flat_map(|family| {
        let labels: BTreeSet<_> = family.labels.iter().chain(LABELS_OF_PROMETHEUS).copied().collect();
        family.sample_names().into_iter().chain([family.sample()]).map(move |name| (name, labels.clone()))
    });
    samples.collect()
}

/// Documents that may name metrics: all but raw data of benchmarks.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md"), PathBuf::from("ARCHITECTURE.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(ROOT).join(&folder)).expect("a folder") {
            let entry = entry.expect("readable");
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.extend(Some(path).filter(|path| !path.ends_with("benchmarks/data")));
            } else {
                found.push(path);
            }
        }
    }
    found
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Words that look like metrics of ours, each with what follows it.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    ["halley_", "process_"].into_iter().flat_map(move |prefix| {
        text.match_indices(prefix).filter_map(move |(at, _)| {
            let begins = !text[..at].ends_with(|c: char| is_word(c) || matches!(c, '-' | '/' | '.' | ':'));
            let word = &text[at..];
            let end = word.find(|c: char| !is_word(c)).unwrap_or(word.len());
            (begins && end > prefix.len() && !word[end..].starts_with("::")).then_some((&word[..end], &word[end..]))
        })
    })
}

/// The labels in the braces right behind a name: `{a="…",b=~"…"}`, or `{a}` in prose.
fn labels(behind: &str) -> Vec<&str> {
    let Some((inside, _)) = behind.strip_prefix('{').and_then(|rest| rest.split_once('}')) else { return Vec::new() };
    let matchers = inside.split(',').map(str::trim).filter(|matcher| !matcher.is_empty());
    matchers.map(|matcher| matcher.split(['=', '!', '~']).next().expect("a part").trim()).collect()
}

/// The labels in `by (…)` and `without (…)` of an expression.
fn grouped(expression: &str) -> Vec<&str> {
    ["by (", "without ("]
        .into_iter()
        .flat_map(|word| expression.split(word).skip(1))
        .flat_map(|rest| rest.split(')').next().expect("a part").split(','))
        .map(str::trim)
        .collect()
}

/// Expressions of the dashboard and of the alerts, unquoted.
fn expressions() -> Vec<String> {
    let dashboard: serde_json::Value = serde_json::from_str(&read("docs/operations/dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut found: Vec<_> = targets.map(|target| target["expr"].as_str().expect("an expression").to_owned()).collect();
    assert!(found.len() > 20, "the dashboard has its panels");
    let alerts = read("docs/operations/alerts.yml");
    found.extend(alerts.lines().filter_map(|line| Some(line.trim().strip_prefix("expr: ")?.to_owned())));
    found
}

#[test]
fn the_document_is_what_the_code_exports() {
    let path = Path::new(ROOT).join("docs/metrics.md");
    if std::env::var_os("HALLEY_WRITE_TABLES").is_some() {
        fs::write(&path, document()).expect("the document can be written");
    }
    assert_eq!(read("docs/metrics.md"), document(), "write it anew with HALLEY_WRITE_TABLES=1");
}

#[test]
fn names_follow_the_conventions_of_prometheus() {
    let mut names = BTreeSet::new();
    for family in GROUPS.iter().flat_map(|group| group.families) {
        let name = family.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("halley_") || name.starts_with("process_"), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
        for wrong in ["_total", "_ms", "_us", "_milliseconds", "_kb", "_percent", "_count", "_sum", "_bucket"] {
            assert!(!name.ends_with(wrong), "{name} ends in {wrong}");
        }
        assert!(!family.help.ends_with('.') && !family.help.contains('|'), "{name}: {}", family.help);
        assert!(family.labels.iter().all(|label| !LABELS_OF_PROMETHEUS.contains(label)), "{name}");
    }
}

#[test]
fn every_metric_that_a_page_names_is_exported_with_its_labels() {
    let exported = exported();
    let mut seen = 0;
    for path in documents() {
        let text = read(&path);
        // In JSON the quotes of labels are escaped.
        let text = text.replace("\\\"", "\"");
        for (name, behind) in named(&text) {
            let Some(known) = exported.get(name) else { panic!("{}: {name} is not exported", path.display()) };
            seen += 1;
            for label in labels(behind) {
                assert!(known.contains(label), "{}: {name} has no label {label:?}", path.display());
            }
        }
    }
    assert!(seen > 100, "only {seen} names found");
}

#[test]
fn expressions_group_by_labels_that_their_metrics_have() {
    let exported = exported();
    for expression in expressions() {
        let known: BTreeSet<&str> =
            named(&expression).flat_map(|(name, _)| exported.get(name).expect("exported")).copied().collect();
        assert!(!known.is_empty() || expression.contains("up{"), "{expression} names no metric");
        for label in grouped(&expression) {
            assert!(known.contains(label), "{expression}: no label {label:?}");
        }
        let (open, close) = (expression.matches('(').count(), expression.matches(')').count());
        assert_eq!(open, close, "{expression}");
    }
}

#[test]
fn every_alert_says_what_it_means_and_has_its_page_in_the_runbook() {
    let alerts = read("docs/operations/alerts.yml");
    let runbook = read("docs/operations/runbook.md");
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.to_lowercase().replace(' ', "-").replace([',', '.', '`', '\''], ""))
        .collect();
    let rules: Vec<&str> = alerts.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 15, "the alerts are there");
    for rule in rules {
        let name = rule.lines().next().expect("a name");
        for field in ["expr: ", "severity: ", "summary: "] {
            assert!(rule.contains(field), "{name} has no {field}");
        }
        let page = rule.split("runbook: docs/operations/runbook.md#").nth(1);
        let page = page.and_then(|rest| rest.lines().next()).unwrap_or_else(|| panic!("{name} has no runbook"));
        assert!(anchors.contains(page), "{name}: the runbook has no {page}; it has {anchors:?}");
        assert!(runbook.contains(name), "{name} is not named in the runbook");
    }
}

#[test]
fn a_name_or_label_that_is_not_exported_is_found() {
    let exported = exported();
    let text = "rate(halley_sent_total[5m]) / halley_nonsense{reason=\"x\"} and use halley_ring::now_us, my_halley_x";
    let found: Vec<_> = named(text).map(|(name, _)| name).collect();
    assert_eq!(found, ["halley_sent_total", "halley_nonsense"]);
    assert!(exported.contains_key("halley_sent_total") && !exported.contains_key("halley_nonsense"));
    assert!(!exported["halley_dropped_total"].contains("why"));
    assert_eq!(labels("{reason!=\"a\",le=~\"b\"} x"), ["reason", "le"]);
    assert_eq!(labels("{reason}` over"), ["reason"]);
    assert_eq!(grouped("sum by (reason, le) (x) / sum without (shard) (y)"), ["reason", "le", "shard"]);
}
