//! The developer page in a browser, driven as a person would; skipped where there is no node or no Chromium.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Gateway, until_exit};

const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

#[test]
fn the_page_shows_sessions_and_pushes_and_survives_a_restart() {
    let Some(node) = program("node") else {
        println!("skipped: there is no node to drive the page with");
        return;
    };
    let Some(chromium) = CHROMIUM.into_iter().find_map(program) else {
        println!("skipped: there is no Chromium to show the page");
        return;
    };
    // An address of its own: on 127.0.0.1 a client of another test could get a port while the gateway is away.
    let mut gateway = Gateway::dev([SocketAddr::from(([127, 0, 0, 71], 0)); 3]);
    let addresses = [gateway.tcp(), gateway.ws(), gateway.api];
    let mut driver = Command::new(node)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page/drive.mjs"))
        .arg(format!("http://{}/", gateway.api))
        .arg(chromium)
        .arg("--restart")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut said = String::new();
    for line in BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        said.push_str(&line);
        said.push('\n');
        if line == "restart now" {
            gateway.stop();
            gateway = Gateway::dev(addresses);
        }
    }
    let mut failures = String::new();
    driver.stderr.take().expect("piped").read_to_string(&mut failures).expect("its output");
    let status = until_exit(&mut driver);
    assert!(status.success(), "{said}{failures}{}", gateway.log());
    assert!(said.contains("restart now") && said.contains("the page works"), "{said}");
    gateway.stop();
}

/// A program of the search path.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}
