//! Conformance of the real server, as executable lists: RFC 6455, and goim's rules. `docs/testing/` is generated from
//! them. `cargo xtask conformance --target URL` runs the first list against another server.

mod document;
mod goim;
mod goim_v1;
mod rfc6455;
mod runner;
#[allow(dead_code, unused_imports, reason = "shared with the tests that use all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::net::ToSocketAddrs as _;

use crate::runner::Server;
use crate::support::{Gateway, OPEN};

/// Set by `cargo xtask conformance`: a URL such as `ws://127.0.0.1:9001/echo` that echoes messages.
const TARGET: &str = "HALLEY_CONFORMANCE_TARGET";
/// Set by it to try every position of every case.
const FULL: &str = "HALLEY_CONFORMANCE_FULL";

/// The server at a URL `ws://HOST:PORT/PATH`.
fn server(url: &str, strict: bool) -> Server {
    let rest = url.strip_prefix("ws://").unwrap_or_else(|| panic!("{url}: only ws:// is spoken"));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let full = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = full.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let address = address.unwrap_or_else(|| panic!("{full}: no such address"));
    let path = format!("/{path}");
    Server { address, host: host.to_owned(), path, strict, full: std::env::var_os(FULL).is_some() }
}

/// The server that is named, or ours.
fn target() -> (Server, Option<Gateway>) {
    if let Ok(url) = std::env::var(TARGET) {
        return (server(&url, false), None);
    }
    let listener =
        "[[listener]]\nbind = \"127.0.0.1:0\"\ntransport = \"ws\"\ndialect = \"echo\"\nlogin_ms_max = 60000\n";
    let gateway = Gateway::start(&format!("{}{listener}", OPEN.replace("256", "4096")));
    (server(&format!("ws://{}/echo", gateway.listeners[0]), true), Some(gateway))
}

#[test]
fn the_server_keeps_rfc_6455_wherever_its_bytes_are_cut() {
    let (server, gateway) = target();
    let requirements = rfc6455::requirements(&server.path);
    let (tries, failures) = runner::run(&server, &requirements);
    for failure in failures.iter().take(40) {
        eprintln!("{failure}");
    }
    eprintln!("{} requirements, {tries} connections, {} failures", requirements.len(), failures.len());
    assert!(failures.is_empty(), "{} of {tries} went wrong", failures.len());
    if let Some(gateway) = gateway {
        gateway.until_counter("/connections", 0);
        gateway.stop();
    }
}

#[test]
fn the_longest_message_comes_back_wherever_it_is_cut() {
    let (server, gateway) = target();
    let case = rfc6455::longest_message();
    let mut cuts = runner::cuts(case.bytes.len(), false);
    if !server.full {
        // Within its head and at the edge of the first half kilobyte, and some far behind.
        cuts = cuts
            .iter()
            .copied()
            .filter(|cut| matches!(cut, 0..=15 | 511 | 512) || cut % 9 == 0 && *cut > 512)
            .collect();
    }
    // One after another: a shard holds only a few of them.
    let failures: Vec<_> = cuts.iter().flat_map(|cut| runner::run_batch(&server, &[(&case, *cut)])).collect();
    assert!(failures.is_empty() && cuts.len() > 20, "{} of {}", failures.len(), cuts.len());
    if let Some(gateway) = gateway {
        gateway.stop();
    }
}

#[test]
fn goim_is_kept_rule_by_rule() {
    let failures = goim::run();
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn goim_v1_is_kept_rule_by_rule() {
    let failures = goim_v1::run();
    assert!(failures.is_empty(), "{failures:#?}");
}
