//! The developer page and the console in a browser, driven as a person would; skipped where there is no node or no Chromium.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::support::{Client, Gateway, Heard, LISTENERS, Transport, until_exit};

const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

#[test]
fn the_page_shows_sessions_and_pushes_and_survives_a_restart() {
    // An address of its own: on 127.0.0.1 a client of another test could get a port while the gateway is away.
    let first = Gateway::dev([SocketAddr::from(([127, 0, 0, 71], 0)); 3]);
    let addresses = [first.tcp(), first.ws(), first.api];
    let Some(driver) = drive("page", &format!("http://{}/", first.api), &["--restart"]) else { return };
    let mut gateway = Some(first);
    let said = works(driver, |line, _| {
        if line == "restart now" {
            gateway.take().expect("one runs").stop();
            gateway = Some(Gateway::dev(addresses));
        }
    });
    assert!(said.contains("restart now"), "{said}");
    gateway.expect("one runs").stop();
}

#[test]
fn an_operator_finds_kicks_and_pushes_in_the_console() {
    let token = "operator-token-0123456789";
    let gateway = Gateway::start(&format!(
        "connections_max = 64\nshards = 1\n[api]\nbind = \"127.0.0.1:0\"\ntokens = [\"{token}\"]\n{LISTENERS}"
    ));
    let login = r#"{"mid":41,"key":"phone of somebody","room_id":"show://1","accepts":[1000]}"#;
    let mut client = Client::login(gateway.tcp(), Transport::Tcp, login);
    let Some(driver) = drive("console", &format!("http://{}/console", gateway.api), &[]) else { return };
    works(driver, |line, input| {
        if line == "token please" {
            writeln!(input.take().expect("asked once"), "{token}\nphone of somebody\n41\nshow://1").expect("it reads");
        }
    });
    client.expect_push(1000, "from the console");
    assert_eq!(client.hear(), Heard::End, "kicked");
    gateway.stop();
}

/// Starts the script `tests/page/NAME.mjs`; `None` where something for it is missing.
pub(super) fn drive(name: &str, url: &str, flags: &[&str]) -> Option<Child> {
    let Some(node) = program("node") else {
        println!("skipped: there is no node to drive a browser with");
        return None;
    };
    let Some(chromium) = CHROMIUM.into_iter().find_map(program) else {
        println!("skipped: there is no Chromium to show the page");
        return None;
    };
    let mut command = Command::new(node);
    command.arg(format!("{}/tests/page/{name}.mjs", env!("CARGO_MANIFEST_DIR"))).arg(url).arg(chromium).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command.spawn().expect("node starts"))
}

/// Waits for a script that must end well; hands each of its lines, and its input, to `answer`. All that it said.
pub(super) fn works(mut driver: Child, mut answer: impl FnMut(&str, &mut Option<ChildStdin>)) -> String {
    let mut input = driver.stdin.take();
    let mut said = String::new();
    for line in BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        answer(&line, &mut input);
        said = said + &line + "\n";
    }
    let mut failures = String::new();
    driver.stderr.take().expect("piped").read_to_string(&mut failures).expect("its output");
    let status = until_exit(&mut driver);
    assert!(status.success() && said.contains(" works\n"), "{said}{failures}");
    said
}

/// A program of the search path.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
