//! Tells the program which commit it was built from, so that its reports can say so.

use std::process::Command;

/// What the program is made of, relative to its package.
const SOURCES: [&str; 5] = ["src", "Cargo.toml", "../protocol/src", "../ring/src", "../Cargo.lock"];

fn main() {
    println!("cargo::rustc-env=HALLEY_BENCH_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    // The log of HEAD grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// The commit, and whether the sources differ from it; none outside of a repository that has them.
fn commit() -> Option<String> {
    git(&["ls-files", "--error-unmatch", "Cargo.toml"])?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let changed = !git(&status)?.is_empty();
    Some(if changed { format!("{commit} with changes") } else { commit })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
