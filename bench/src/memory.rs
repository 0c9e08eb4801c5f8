//! What memory a process holds, read when it has stopped changing.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cost::field;

/// Between two looks at a resident set that should become steady.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A resident set whose extremes differ by no more than this is steady.
const SPREAD_MAX: f64 = 0.005;

/// Memory of a process at one moment, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// Clients that were logged in.
    pub connections: u32,
    /// Resident set (`VmRSS`).
    pub rss_bytes: u64,
    /// Resident anonymous memory; none: `smaps_rollup` may not be read.
    pub anonymous_bytes: Option<u64>,
    /// Resident memory with shared pages divided among those who share them.
    pub pss_bytes: Option<u64>,
    /// The kernel's page tables of this process.
    pub page_table_bytes: u64,
    /// Seconds until the resident set was steady.
    pub settled_seconds: f64,
    /// Whether it became steady.
    pub steady: bool,
}

/// When a resident set counts as steady.
#[derive(Clone, Copy, Debug)]
pub struct Settling {
    /// For how long it must have stayed the same.
    pub steady: Duration,
    /// How long to wait for that.
    pub patience: Duration,
}

impl Memory {
    /// Reads the process with this id.
    ///
    /// # Errors
    /// If there is none, or `/proc` cannot be read.
    pub fn of(pid: u32, connections: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        Ok(Self {
            connections,
            rss_bytes: kilobytes(&status, "VmRSS:")?,
            anonymous_bytes: kilobytes(&rollup, "Anonymous:").ok(),
            pss_bytes: kilobytes(&rollup, "Pss:").ok(),
            page_table_bytes: kilobytes(&status, "VmPTE:")?,
            settled_seconds: 0.0,
            steady: true,
        })
    }
}

impl Settling {
    /// Waits until the resident set of a process is steady, then reads its memory; reads it all the
    /// same if it never is. `trouble` is asked meanwhile for a reason to give up.
    ///
    /// # Errors
    /// A sentence, if the process cannot be watched or there is trouble.
    pub fn read(&self, pid: u32, connections: u32, trouble: impl Fn() -> Option<String>) -> Result<Memory, String> {
        let unseen = |error| format!("process {pid} cannot be watched: {error}");
        let started = Instant::now();
        let mut window = Window::default();
        let steady = loop {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(unseen)?;
            let rss_bytes = kilobytes(&status, "VmRSS:").map_err(unseen)?;
            if window.take(started.elapsed(), rss_bytes, self.steady) {
                break true;
            }
            if started.elapsed() >= self.patience {
                break false;
            }
            if let Some(sentence) = trouble() {
                return Err(sentence);
            }
            std::thread::sleep(LOOK_EVERY);
        };
        let settled_seconds = started.elapsed().as_secs_f64();
        let memory = Memory::of(pid, connections).map_err(unseen)?;
        Ok(Memory { settled_seconds, steady, ..memory })
    }
}

/// The last looks at a resident set: when, bytes.
#[derive(Default)]
struct Window(VecDeque<(Duration, u64)>);

impl Window {
    /// Takes a look; answers whether all looks of the last `length`, a whole one, are the same.
    #[allow(clippy::cast_precision_loss, reason = "memory sizes")]
    fn take(&mut self, now: Duration, rss_bytes: u64, length: Duration) -> bool {
        self.0.push_back((now, rss_bytes));
        // The look before the window's beginning stays: it was true until the next one.
        while self.0.get(1).is_some_and(|(second, _)| now.saturating_sub(*second) >= length) {
            self.0.pop_front();
        }
        let whole = self.0.front().is_some_and(|(first, _)| now.saturating_sub(*first) >= length);
        let sizes = || self.0.iter().map(|(_, bytes)| *bytes);
        let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
        whole && (most - least) as f64 <= most as f64 * SPREAD_MAX
    }
}

/// A line of `/proc` in kB, as bytes.
fn kilobytes(text: &str, name: &str) -> io::Result<u64> {
    let missing = || io::Error::other(format!("there is no {name} to read"));
    field(text, name).map(|kilobytes| kilobytes * 1024).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(3);

    fn steady_at(sizes: &[u64]) -> Option<usize> {
        let mut window = Window::default();
        (0..).zip(sizes).position(|(second, size)| window.take(Duration::from_secs(second), *size, LENGTH))
    }

    #[test]
    fn memory_is_steady_after_a_whole_window_without_change() {
        assert_eq!(steady_at(&[1000, 1000, 1000]), None);
        assert_eq!(steady_at(&[1000; 4]), Some(3));
        assert_eq!(steady_at(&[1000, 1000, 1100, 1100, 1100, 1100]), Some(5));
        assert_eq!(steady_at(&[1000, 1005, 1000, 1005]), Some(3), "within half a percent");
    }

    #[test]
    fn memory_that_creeps_is_not_steady() {
        let creeping: Vec<u64> = (0..100).map(|second| 1000 + 3 * second).collect();
        assert_eq!(steady_at(&creeping[..20]), None);
    }

    #[test]
    fn this_process_has_memory_and_one_that_ended_is_named() {
        let memory = Memory::of(std::process::id(), 0).unwrap();
        assert!(memory.rss_bytes > 0 && memory.page_table_bytes > 0);
        assert!(memory.anonymous_bytes.is_none_or(|bytes| bytes > 0 && bytes <= memory.rss_bytes * 2));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let settling = Settling { steady: Duration::ZERO, patience: Duration::ZERO };
        let sentence = settling.read(pid, 0, || None).unwrap_err();
        assert!(sentence.starts_with(&format!("process {pid} cannot be watched")), "{sentence}");
    }
}
