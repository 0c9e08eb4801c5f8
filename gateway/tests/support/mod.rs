//! What the tests of the real binary share: the process, its clients, its HTTP API, and waiting for a condition.

mod client;
mod http;
mod process;
pub(crate) mod talk;

use std::time::{Duration, Instant};

pub(crate) use client::{Client, Heard, Transport, connect, ended, exchange};
pub(crate) use process::{Gateway, LISTENERS, OPEN, folder_with, halley, output, until_exit};

/// Longest that anything may take; only a failed test gets there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Looks again until it is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !so() {
        assert!(since.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
