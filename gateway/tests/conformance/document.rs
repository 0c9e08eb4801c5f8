//! `docs/testing/`: the lists as tables, written by `HALLEY_CONFORMANCE_WRITE=1` and compared by every other run.

use std::fmt::Write as _;
use std::path::Path;

use crate::{goim, goim_v1, rfc6455};

/// Set to write the pages anew.
const WRITE: &str = "HALLEY_CONFORMANCE_WRITE";

fn rfc() -> String {
    let mut out = String::from(
        "# RFC 6455, requirement by requirement\n\n\
         Generated from `gateway/tests/conformance/rfc6455.rs`; a test compares. Every case runs against the real server over a\n\
         socket: whole, and cut in two at every position of its first 512 bytes and at 100 beyond; the second half is sent when\n\
         the kernel's tables say that the program has read the first. `cargo xtask conformance --target ws://HOST:PORT/PATH`\n\
         runs the list against any server that echoes, which may choose its own codes; `--full` cuts at every position.\n\
         A message of 16 MiB, the longest there is, is tried by itself: cut within its head and at some places beyond, with `--full`\n\
         as the others are without it.\n\n\
         | section | requirement | cases |\n|---|---|---|\n",
    );
    for requirement in rfc6455::requirements("/echo") {
        let names: Vec<&str> = requirement.cases.iter().map(|case| &*case.name).collect();
        let sentence = requirement.sentence.replace('|', "\\|");
        let _ = writeln!(out, "| {} | {sentence} | {} |", requirement.section, names.join("; "));
    }
    out
}

fn goim() -> String {
    let mut out = String::from(
        "# goim, rule by rule\n\n\
         Generated from `gateway/tests/conformance/goim.rs` and `goim_v1.rs`, where each rule is tried against a live server; a\n\
         test compares. Rules about gRPC, Redis and discovery are goim's inside and not kept.\n\n",
    );
    for (version, rules) in [("v2", goim::RULES), ("v1", goim_v1::RULES)] {
        let _ = writeln!(out, "{}## goim {version}\n", if version == "v1" { "\n" } else { "" });
        out.push_str("| about | rule |\n|---|---|\n");
        for rule in rules {
            let _ = writeln!(out, "| {} | {} |", rule.part, rule.words);
        }
    }
    out
}

/// Compares a page with what it must be, or writes it.
pub(crate) fn compare(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/testing").join(name);
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, page).expect("a folder that can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/testing/{name} is not as the code: run `cargo xtask conformance --write`");
}

#[test]
fn the_page_on_rfc_6455_is_that_of_the_code() {
    compare("rfc6455-conformance.md", &rfc());
}

#[test]
fn the_page_on_goim_is_that_of_the_code() {
    compare("goim-conformance.md", &goim());
}
