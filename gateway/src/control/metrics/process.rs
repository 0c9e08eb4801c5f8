//! What the kernel says of the process, under the names that Prometheus' own clients use.

use std::fs;
use std::sync::OnceLock;

/// Ticks of a second in `/proc`: the same on every architecture that Halley runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// A reading of `/proc/self/stat`; zeros where it cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: f64,
    pub(super) threads: u64,
    /// Seconds since 1970.
    pub(super) start_seconds: f64,
    pub(super) virtual_bytes: u64,
    pub(super) resident_bytes: u64,
}

impl Process {
    pub(super) fn read() -> Self {
        static BOOTED: OnceLock<f64> = OnceLock::new();
        let booted = *BOOTED.get_or_init(|| booted(&fs::read_to_string("/proc/stat").unwrap_or_default()));
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        Self::parse(&stat, booted, rustix::param::page_size() as u64).unwrap_or_default()
    }

    /// Fields as `proc_pid_stat(5)` numbers them; the second may hold anything, up to its last parenthesis.
    fn parse(stat: &str, booted: f64, page_bytes: u64) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        #[allow(clippy::cast_precision_loss, reason = "metrics are f64")]
        let seconds = |ticks: u64| ticks as f64 / TICKS_PER_SECOND;
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            threads: field(20)?,
            start_seconds: booted + seconds(field(22)?),
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * page_bytes,
        })
    }
}

/// When the system started, seconds since 1970.
fn booted(stat: &str) -> f64 {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_is_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194304 99 0 0 0 150 50 0 0 20 0 5 0 12345 1048576 3 184";
        let process = Process::parse(stat, booted("cpu 1\nbtime 1000\n"), 4096).expect("all fields");
        let expected = Process {
            cpu_seconds: 2.0,
            threads: 5,
            start_seconds: 1123.45,
            virtual_bytes: 1 << 20,
            resident_bytes: 3 * 4096,
        };
        assert_eq!(process, expected);
        assert_eq!(Process::parse("7 (a) S", 0.0, 4096), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_a_start() {
        let process = Process::read();
        assert!(process.resident_bytes > 1 << 20 && process.threads > 0, "{process:?}");
        assert!(process.start_seconds > 1.5e9, "{process:?}");
    }
}
