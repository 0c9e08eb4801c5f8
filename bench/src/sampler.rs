//! What server and generator spend over time, read from `/proc` once a second.

use std::fs;
use std::time::Duration;

use rustix::param::page_size;
use serde::Serialize;

use crate::clock;

/// Readings kept; when there are more, every second one goes and the next come half as often.
const READINGS_MAX: usize = 600;

/// One column for each question, one place for each second or so.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Usages {
    /// Seconds from the beginning of the measured window to the reading.
    pub at_s: Vec<f64>,
    /// CPU of the server since the reading before, in percent of one core.
    pub server_cpu_percent: Vec<Option<f64>>,
    /// Resident set of the server.
    pub server_rss_bytes: Vec<Option<u64>>,
    /// CPU of the generator, in percent of one core.
    pub generator_cpu_percent: Vec<Option<f64>>,
}

#[derive(Clone, Copy)]
struct Reading {
    at_ns: u64,
    server: Option<Glance>,
    generator: Option<Glance>,
}

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Glance {
    /// CPU so far, in clock ticks of 10 ms.
    ticks: u64,
    rss_bytes: u64,
}

/// Reads until `stopped` says so.
pub fn watch(server: Option<u32>, stopped: impl Fn() -> bool) -> Usages {
    let mut step_ns = clock::nanoseconds(Duration::from_secs(1));
    let mut readings = vec![Reading::now(server)];
    let mut due_ns = readings[0].at_ns + step_ns;
    while !stopped() {
        let now_ns = clock::now_ns();
        if now_ns < due_ns {
            clock::sleep_until(due_ns.min(now_ns + 50_000_000));
            continue;
        }
        readings.push(Reading::now(server));
        if readings.len() > READINGS_MAX {
            readings = readings.into_iter().step_by(2).collect();
            step_ns *= 2;
        }
        due_ns = (due_ns + step_ns).max(now_ns);
    }
    usages(&readings)
}

impl Reading {
    fn now(server: Option<u32>) -> Self {
        let generator = Glance::of(std::process::id());
        Self { at_ns: clock::now_ns(), server: server.and_then(Glance::of), generator }
    }
}

#[allow(clippy::cast_precision_loss, reason = "times of a run")]
fn usages(readings: &[Reading]) -> Usages {
    let mut usages = Usages::default();
    let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
    for pair in readings.windows(2) {
        let [before, now] = pair else { continue };
        let seconds = (now.at_ns - before.at_ns) as f64 / 1e9;
        let percent = |now: Option<Glance>, before: Option<Glance>| {
            now.zip(before).map(|(now, before)| rounded(now.ticks.saturating_sub(before.ticks) as f64 / seconds))
        };
        usages.at_s.push(rounded((now.at_ns - readings[0].at_ns) as f64 / 1e9));
        usages.server_cpu_percent.push(percent(now.server, before.server));
        usages.server_rss_bytes.push(now.server.map(|server| server.rss_bytes));
        usages.generator_cpu_percent.push(percent(now.generator, before.generator));
    }
    usages
}

impl Glance {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields 14, 15 and 24 of `/proc/PID/stat`: user and system ticks, resident pages.
    fn parse(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        Some(Self { ticks: number(11)? + number(12)?, rss_bytes: number(21)? * page_size() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 30 12 0 0 20 0 3 0 99 10000 5 18446744073709551615";
        assert_eq!(Glance::parse(stat), Some(Glance { ticks: 42, rss_bytes: 5 * page_size() as u64 }));
        assert_eq!(Glance::parse("7 (a"), None);
    }

    #[test]
    fn cpu_is_told_between_readings_and_not_for_a_server_that_has_gone() {
        let glance = |ticks| Some(Glance { ticks, rss_bytes: 4096 });
        let reading = |second: u64, server, generator| Reading { at_ns: second * 1_000_000_000, server, generator };
        let usages = usages(&[
            reading(3, glance(10), glance(0)),
            reading(5, glance(110), glance(20)),
            reading(6, None, glance(20)),
        ]);
        assert_eq!(usages.at_s, [2.0, 3.0]);
        assert_eq!(usages.server_cpu_percent, [Some(50.0), None]);
        assert_eq!(usages.server_rss_bytes, [Some(4096), None]);
        assert_eq!(usages.generator_cpu_percent, [Some(10.0), Some(0.0)]);
    }

    #[test]
    fn this_process_can_be_watched() {
        assert!(Glance::of(std::process::id()).unwrap().rss_bytes > 0);
        assert_eq!(Glance::of(u32::MAX), None);
    }
}
