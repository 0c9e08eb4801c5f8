//! The commands of the manual: each block of docs/operations, and of the page on configuration, that can be run is run.
use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// What a block of commands may need: nothing, the rights of root, or another machine.
const MARKS: [&str; 3] = ["runnable", "as-root", "elsewhere"];

/// Ports that the manual names, which a test must not take.
const PORTS: [&str; 4] = ["3101", "3102", "3103", "3111"];

fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir("../docs/operations").expect("the manual").map(|entry| entry.expect("an entry").path());
    let mut pages: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.sort();
    pages
}

/// Mark and text of every `sh` block of a page.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(mark) = line.strip_prefix("```sh") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((mark.trim().to_owned(), text.join("\n")));
        }
    }
    blocks
}

/// The folder of the programs of this build; they are built if a test of this package alone is run.
fn programs() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let folder = test.ancestors().nth(2).expect("the folder above deps").to_path_buf();
    let packages = [("gateway", "halley"), ("tuning", "halley-tune")];
    if packages.iter().any(|(_, program)| !folder.join(program).exists()) {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--locked"]).current_dir("..");
        let built = packages.iter().fold(&mut cargo, |cargo, (package, _)| cargo.args(["-p", package])).status();
        assert!(built.is_ok_and(|status| status.success()), "the programs of the manual are not built");
    }
    folder
}

/// Free ports in their place, so that pages can be tested beside a gateway of somebody else.
fn free_ports() -> [String; PORTS.len()] {
    let held = [(); PORTS.len()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|socket| socket.local_addr().expect("an address").port().to_string())
}

/// Runs a page's blocks as one script in an empty folder. What it started is gone afterwards.
fn run(page: &Path, script: &str, programs: &Path) -> Result<(), String> {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let free = free_ports();
    let mut commands = script.to_owned();
    for (port, free) in PORTS.iter().zip(&free) {
        commands = commands.replace(&format!(":{port}"), &format!(":{free}"));
    }
    let [tcp, ws, wss, api] = free.map(|port| format!("127.0.0.1:{port}"));
    let secure =
        if commands.contains("HALLEY__DEV__CERTIFICATE") { format!(" HALLEY__DEV__WSS={wss}") } else { String::new() };
    let dev = format!("env HALLEY__DEV__TCP={tcp} HALLEY__DEV__WS={ws} HALLEY__API__BIND={api}{secure} halley --dev");
    let commands = commands.replace("halley --dev", &dev);
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap_or_default());
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}\n");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(scratch.path())
        .env("PATH", path)
        .output()
        .expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}\n{}{}", page.display(), output.status, text(&output.stdout), text(&output.stderr)))
}

#[test]
fn every_command_of_the_manual_that_can_be_run_works() {
    if ["bash", "curl"].iter().any(|program| Command::new(program).arg("--version").output().is_err()) {
        eprintln!("skipped: bash and curl are not installed here");
        return;
    }
    let programs = programs();
    let mut run_pages = 0;
    let configuration = PathBuf::from("../docs/configuration.md");
    assert_eq!(blocks(&fs::read_to_string(&configuration).expect("the page"))[0].0, "runnable", "its smallest file");
    let with_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !with_openssl {
        eprintln!("skipped: docs/tls.md, since openssl is not installed here");
    }
    let tls = with_openssl.then(|| PathBuf::from("../docs/tls.md"));
    for page in pages().into_iter().chain([configuration]).chain(tls) {
        let blocks = blocks(&fs::read_to_string(&page).expect("a page"));
        let runnable: Vec<&str> =
            blocks.iter().filter(|(mark, _)| mark == "runnable").map(|(_, text)| text.as_str()).collect();
        if !runnable.is_empty() {
            run_pages += 1;
            assert_eq!(run(&page, &runnable.join("\n"), &programs), Ok(()));
        }
    }
    assert!(run_pages >= 6, "only {run_pages} pages have commands");
    let wrong = run(Path::new("none"), "halley --no-such-flag", &programs);
    assert!(wrong.is_err(), "a command that fails is not noticed");
}

#[test]
fn every_block_of_commands_says_what_it_needs() {
    let all = documents(Path::new("../docs"));
    for page in all.iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        for (mark, text) in blocks(&fs::read_to_string(page).expect("a page")) {
            assert!(MARKS.contains(&mark.as_str()), "{}: {mark:?} is none of {MARKS:?}:\n{text}", page.display());
        }
    }
}

/// Pages and files that a page links to, from `docs/`.
fn links(page: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(page).expect("a page");
    let targets = text.split("](").skip(1).filter_map(|link| link.split([')', '#', ' ']).next());
    let local = targets.filter(|link| !link.is_empty() && !link.contains("://"));
    local.filter_map(|link| page.parent().expect("a folder").join(link).canonicalize().ok()).collect()
}

/// Every file below, but not the raw data of benchmarks, which has an index of its own.
fn documents(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true if path.ends_with("data") => Vec::new(),
            true => documents(&path),
            false => vec![path.canonicalize().expect("a file")],
        })
        .collect()
}

#[test]
fn everything_is_two_clicks_away_from_the_index() {
    let index = Path::new("../docs/README.md").canonicalize().expect("the index");
    let mut reached = vec![index.clone()];
    let mut pages = vec![index];
    for _ in 0..2 {
        let markdown = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
        pages = pages.iter().filter(|page| markdown(page)).flat_map(|page| links(page)).collect();
        reached.extend(pages.iter().cloned());
    }
    let is_page =
        |path: &PathBuf| path.extension().is_some_and(|end| ["md", "yml", "yaml"].iter().any(|page| end == *page));
    let far = documents(Path::new("../docs")).into_iter().filter(|path| is_page(path) && !reached.contains(path));
    let far: Vec<PathBuf> = far.collect();
    assert_eq!(far, Vec::<PathBuf>::new(), "more than two clicks from docs/README.md");
}

#[test]
fn every_alert_has_an_entry_of_the_runbook() {
    let alerts = fs::read_to_string("../docs/operations/alerts.yml").unwrap_or_default();
    let runbook = fs::read_to_string("../docs/operations/runbook.md").expect("the runbook");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert:")) {
        assert!(runbook.contains(alert.trim()), "{alert} is not in the runbook");
    }
}

#[test]
fn every_page_is_linked_from_the_index() {
    let index = fs::read_to_string("../docs/operations/README.md").expect("the index");
    let above = fs::read_to_string("../docs/README.md").expect("the index of all documents");
    assert!(above.contains("](operations/README.md)"), "the manual is not in docs/README.md");
    for page in pages() {
        let name = page.file_name().expect("a name").to_string_lossy().into_owned();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "{name} is not in the index");
    }
}
