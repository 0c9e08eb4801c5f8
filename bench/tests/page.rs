//! The page of `report` as its reader gets it: in a browser, from files of every kind.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Text that would be more than text if anybody forgot to escape it.
const HOSTILE: &str = r#""><script>console.error('run')</script><img src=http://127.0.0.1:9/x onerror="alert(1)">"#;

fn report(files: &[PathBuf], html: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halley-bench")).arg("report").args(files).arg("--html").arg(html).output().unwrap()
}

fn write(folder: &Path, name: &str, json: &Value) -> PathBuf {
    let path = folder.join(format!("{name}.json"));
    std::fs::write(&path, json.to_string()).unwrap();
    path
}

/// A run in which everything that a user or a server can name is hostile.
fn hostile() -> Value {
    json!({
        "scenario": HOSTILE, "commit": HOSTILE, "ended": HOSTILE, "tool": HOSTILE,
        "command": ["halley-bench", HOSTILE], "settings": {"room": HOSTILE, HOSTILE: 1},
        "machine": {"cpu_model": HOSTILE, "kernel": HOSTILE, "cpus": 2},
        "valid": false, "invalid_reasons": [format!("first of all: {HOSTILE}")], "bounds_missed": [HOSTILE],
        "server": {"threads": [{"name": HOSTILE, "cpu_seconds": 1.0}]}, HOSTILE: {HOSTILE: [HOSTILE]},
        "stats": {"dropped": {HOSTILE: 3}}, "steps": [{"rate": 1, HOSTILE: HOSTILE}],
    })
}

/// A run with everything that is drawn.
fn full() -> Value {
    let numbers: Vec<f64> = (1..40).map(f64::from).collect();
    json!({
        "scenario": "broadcast", "valid": true, "offered": 40, "delivered": 40, "lost": 0,
        "latency_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0}, "latency_curve": [[0.0, 0.5], [0.9, 1.5], [1.0, 3.0]],
        "over_time": {
            "deliveries": {"step_s": 1.0, "per_s": numbers, "p50_ms": numbers, "p99_ms": [null, 3.0], "worst_ms": numbers},
            "usage": {"at_s": numbers, "server_cpu_percent": numbers, "server_rss_bytes": numbers},
        },
        "steps": [{"rate": 1.0, "latency_ms": {"p99": 2.0}}, {"rate": 2.0, "latency_ms": {"p99": 4.0}}],
        "storm": {"at_s": numbers, "connects": numbers},
    })
}

fn committed() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks/data");
    let folders = std::fs::read_dir(data).unwrap().map(|folder| folder.unwrap().path());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

#[test]
fn an_invalid_run_says_so_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let files = [write(folder.path(), "good", &full()), write(folder.path(), "bad", &hostile())];
    let html = folder.path().join("page.html");
    let output = report(&files, &html);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let page = std::fs::read_to_string(html).unwrap();
    let body = page.split("<body>").nth(1).unwrap();
    assert!(
        body.starts_with(r#"<div class="alarm bad" role="alert"><p class="verdict">1 of 2 runs are invalid."#),
        "{body}"
    );
    assert!(body.find("first of all").unwrap() < body.find("<h1>").unwrap());
    assert!(page.contains("<title>INVALID"));
}

#[test]
fn no_text_of_a_run_becomes_markup() {
    let folder = tempfile::tempdir().unwrap();
    let name = "<script>console.error('name')<".to_owned() + "img src=x>";
    let files = [write(folder.path(), &name, &hostile()), write(folder.path(), "other", &hostile())];
    let html = folder.path().join("page.html");
    report(&files, &html);
    let page = std::fs::read_to_string(html).unwrap();
    assert!(page.contains("&lt;script&gt;"));
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
}

#[test]
fn a_file_that_is_no_report_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let html = folder.path().join("page.html");
    for wrong in [json!([1]), json!({"valid": true})] {
        let output = report(&[write(folder.path(), "wrong", &wrong)], &html);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("wrong.json is no report"));
    }
    assert!(!html.exists());
}

#[test]
fn the_page_opens_in_a_browser_without_a_request_or_complaint() {
    let Some(node) = program("node") else {
        println!("skipped: there is no node to open the page with");
        return;
    };
    let Some(chromium) = CHROMIUM.into_iter().find_map(program) else {
        println!("skipped: there is no Chromium to show the page");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (write(folder.path(), "good", &full()), write(folder.path(), "bad", &hostile()));
    let cases =
        [("one", vec![good.clone()]), ("invalid", vec![bad.clone()]), ("two", vec![good, bad]), ("data", committed())];
    let pages: Vec<PathBuf> = cases.iter().map(|(name, _)| folder.path().join(format!("{name}.html"))).collect();
    for ((name, files), page) in cases.iter().zip(&pages) {
        let output = report(files, page);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{name}: {output:?}");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/open.mjs");
    let output = Command::new(node).arg(script).arg(chromium).args(&pages).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seen.len(), pages.len(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for ((name, _), seen) in cases.iter().zip(&seen) {
        assert_eq!(seen["failures"], json!([]), "{name}");
        assert_eq!(seen["overflow"], false, "{name} is wider than a telephone");
    }
    assert!(seen[1]["first"].as_str().unwrap().starts_with("This run is invalid."), "{said}");
    assert!(!seen[0]["first"].as_str().unwrap().contains("invalid"), "{said}");
}

/// A program of the search path.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
