//! `docs/limits.md` compared with the code: every number, every maximum there is, every test it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use gateway::config::{Config, Host, KEYS, Sources};
use gateway::limits;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Sizes of buffers and fields that follow from other limits: nothing can go there.
const FOLLOWS: &[&str] = &[
    "ANSWER_BYTES_MAX",
    "CONTROL_BYTES_MAX",
    "FAREWELL_BYTES_MAX",
    "FRAME_HEADER_BYTES_MAX",
    "INSPECTION_MAX",
    "MASKED_CONTROL_BYTES_MAX",
    "MASKED_HEADER_BYTES_MAX",
    "OPERATIONS_MAX",
    "OVERHEAD_BYTES_MAX",
    "REPLY_BYTES_MAX",
    "RETRY_BYTES_MAX",
    "ROOMS_MAX",
    "SEAL_BYTES_MAX",
    "SEAL_PLAIN_BYTES_MAX",
    "SLEEP_MS_MAX",
    "STORED_BYTES_MAX",
];

/// A row: the file of its heading, empty under `Configuration`; its cells without backticks.
struct Row {
    file: String,
    cells: Vec<String>,
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut file = String::new();
    for line in read("docs/limits.md").lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            heading.trim_matches('`').clone_into(&mut file);
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells = row.trim_end_matches('|').split(" |").map(|cell| cell.trim().trim_matches('`').to_owned());
            rows.push(Row { file: file.clone(), cells: cells.collect() });
        }
    }
    rows
}

/// Every Rust file under a folder of the checkout, by its path from the root.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(Path::new(ROOT).join(&folder)).expect("a folder").map(|entry| entry.expect("readable"))
        {
            let path = folder.join(entry.file_name());
            if entry.file_type().expect("a type").is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.display().to_string(), read(&path)));
            }
        }
    }
    found
}

/// The constants of a file and their expressions.
fn constants(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.trim_start().split_once("const ")?;
            let (name, rest) = rest.split_once(": ")?;
            let (_, expression) = rest.split_once(" = ")?;
            Some((name, expression.trim_end_matches(';')))
        })
        .collect()
}

/// Numbers and constants of the same file, joined by one kind of operator.
fn value(expression: &str, constants: &BTreeMap<&str, &str>) -> Option<u64> {
    let mut words = expression.split(' ');
    let operand = |word: &str| {
        let named = || value(constants.get(word)?, constants);
        word.replace('_', "").parse::<u64>().ok().or_else(named)
    };
    let mut result = operand(words.next()?)?;
    while let Some(operator) = words.next() {
        let right = operand(words.next()?)?;
        result = match operator {
            "+" => result + right,
            "*" => result * right,
            "<<" => result << right,
            _ => return None,
        };
    }
    Some(result)
}

#[test]
fn every_number_is_that_of_the_code() {
    for row in rows().iter().filter(|row| !row.file.is_empty()) {
        let [name, stated, ..] = &row.cells[..] else { panic!("{:?}", row.cells) };
        let text = read(&row.file);
        let constants = constants(&text);
        let field =
            || text.split_once(&format!("{name}: ")).map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or(""));
        let expression = constants.get(&**name).copied().or_else(field);
        let actual = expression.and_then(|expression| value(expression, &constants));
        assert_eq!(actual.map(|n| n.to_string()).as_ref(), Some(stated), "{} {name}: {expression:?}", row.file);
    }
}

#[test]
fn every_maximum_of_the_code_is_listed() {
    let listed: BTreeSet<(String, String)> =
        rows().into_iter().map(|row| (row.file, row.cells.into_iter().next().expect("a name"))).collect();
    for (path, text) in sources("gateway/src").into_iter().chain(sources("protocol/src")) {
        if path.contains("/tests") {
            continue;
        }
        for name in constants(&text).into_keys().filter(|name| name.ends_with("_MAX") && !FOLLOWS.contains(name)) {
            assert!(listed.contains(&(path.clone(), name.to_owned())), "{path}: {name} is not in docs/limits.md");
        }
    }
    for key in KEYS.iter().filter(|key| key.name.ends_with("_max")) {
        assert!(listed.contains(&(String::new(), key.name.to_owned())), "{} is not in docs/limits.md", key.name);
    }
}

#[test]
fn every_default_is_that_of_the_configuration() {
    for row in rows().iter().filter(|row| row.file.is_empty()) {
        let [name, stated, ..] = &row.cells[..] else { panic!("{:?}", row.cells) };
        let key = KEYS.iter().find(|key| key.name == name).unwrap_or_else(|| panic!("{name} is no key"));
        let default = key.default.trim_matches(['(', ')']).replace('`', "");
        assert_eq!(stated.replace('`', ""), default, "{name}");
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let code: String = ["gateway", "protocol"].into_iter().flat_map(sources).map(|(_, text)| text).collect();
    for row in rows() {
        let test = row.cells.last().expect("cells");
        assert!(test.is_empty() || code.contains(&format!("fn {test}() {{")), "there is no test {test}");
    }
}

/// What is wrong with this configuration on a machine without limits.
fn refusal(text: &str) -> String {
    let host = Host { cpus: vec![0], files_max: u64::MAX, memory_bytes: u64::MAX };
    let sources = Sources { file: Some(("halley.toml".into(), text.into())), environment: Vec::new() };
    Config::load(&sources, &host).expect_err("too much").to_string()
}

const API: &str = "[api]\nauth = \"none\"\n";
const LISTENER: &str = "[[listener]]\nbind = \"127.0.0.1:0\"\nlogin = \"open\"\n";

#[test]
fn a_shard_of_more_connections_than_it_can_number_is_refused_at_start() {
    let connections = limits::SHARD_CONNECTIONS_MAX + 1;
    let text = refusal(&format!("connections_max = {connections}\nshards = 1\n{API}{LISTENER}"));
    assert!(text.contains("connections_max") && text.contains("1048576"), "{text}");
}

#[test]
fn more_listeners_than_there_may_be_are_refused_at_start() {
    let text = refusal(&format!("{API}{}", LISTENER.repeat(17)));
    assert!(text.contains("17 listeners: at most 16"), "{text}");
}

#[test]
fn connections_of_a_key_have_an_end_too() {
    let text = refusal(&format!("key_connections_max = 1025\n{API}{LISTENER}"));
    assert!(text.contains("halley.toml:1: key_connections_max: 1025 is out of range: use 1 to 1024"), "{text}");
}
