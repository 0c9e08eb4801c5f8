//! `docs/operations/logs.md` compared with the code: every event, at its levels.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Text of every Rust file of the gateway outside tests.
fn sources() -> Vec<String> {
    let mut folders = vec![Path::new(ROOT).join("gateway/src")];
    let mut texts = Vec::new();
    while let Some(folder) = folders.pop() {
        let paths = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("readable").path());
        for path in paths.collect::<Vec<PathBuf>>() {
            if path.is_dir() {
                folders.push(path);
            } else if !path.to_string_lossy().contains("tests") {
                texts.push(fs::read_to_string(&path).expect("text"));
            }
        }
    }
    texts
}

/// Events and the levels at which they are logged.
fn logged() -> BTreeMap<String, BTreeSet<String>> {
    let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The ready line is written by hand.
    events.entry("ready".into()).or_default().insert("info".into());
    for text in sources() {
        let code = text.split("\n#[cfg(test)]\nmod tests").next().expect("a first part");
        for call in code.split("tracing::").skip(1) {
            let Some((level, rest)) = call.split_once("!(") else { continue };
            let Some((_, name)) = rest.split_once("event = \"") else { continue };
            // The field is the first of its call.
            let rest = rest.trim_start().strip_prefix("target: \"audit\", ").unwrap_or(rest.trim_start());
            if !rest.starts_with("event = ") {
                continue;
            }
            let name = name.split('"').next().expect("a name");
            events.entry(name.into()).or_default().insert(level.into());
        }
    }
    events
}

fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/operations/logs.md")).expect("the page");
    let (_, table) = page.split_once("## Events").expect("the table");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.split(", ").map(str::to_owned).collect()))
    });
    rows.collect()
}

#[test]
fn every_event_of_the_code_is_documented_with_its_levels_and_no_other() {
    assert_eq!(documented(), logged());
}
