//! Whether a run means anything: a generator that was late, stopped or out of breath has measured
//! itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::clock;
use crate::cost::{NetCounters, Spent, ThreadSpent};
use crate::machine;

/// Messages later than this at the source, or a generator that stood still so long, spoil a run.
const PAUSE_MS_MAX: f64 = 100.0;

/// 99 of 100 messages must leave the source within this.
const LATENESS_P99_MS_MAX: f64 = 20.0;

/// A thread of the generator busy for more than this share of the run is the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.95;

/// A thread of the generator that waited for a CPU for more than this share was starved.
const WAIT_SHARE_MAX: f64 = 0.25;

/// What the generator knows about itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Generator {
    /// How late messages left the source: (99th percentile, maximum) in milliseconds.
    pub lateness_ms: (f64, f64),
    /// The longest time for which the generator stood still, in milliseconds.
    pub pause_ms_max: f64,
    /// What it spent.
    pub spent: Spent,
    /// Drops the kernel counted while connecting and during the run.
    pub kernel_drops: NetCounters,
}

impl Generator {
    /// Adds threads that had ended when the process was looked at.
    pub fn add_threads(&mut self, threads: &[ThreadSpent]) {
        self.spent.cpu_seconds += threads.iter().map(|thread| thread.cpu_seconds).sum::<f64>();
        self.spent.threads.extend_from_slice(threads);
    }

    /// The busiest thread, in percent of a run of so many seconds.
    pub fn busy_percent(&self, seconds: f64) -> f64 {
        let busy = self.spent.threads.iter().map(|thread| thread.cpu_seconds);
        busy.fold(0.0, f64::max) / seconds.max(1e-9) * 100.0
    }

    /// Why the run is invalid; empty if it is not. `seconds` is the length of the run.
    pub fn doubts(&self, seconds: f64) -> Vec<String> {
        let mut doubts = Vec::new();
        let (p99, max) = self.lateness_ms;
        if p99 > LATENESS_P99_MS_MAX || max > PAUSE_MS_MAX {
            doubts.push(format!("the generator was late: p99 {p99:.1} ms, at most {max:.1} ms"));
        }
        if self.pause_ms_max > PAUSE_MS_MAX {
            doubts.push(format!("the generator stood still for {:.0} ms", self.pause_ms_max));
        }
        // More threads of clients than CPUs wait for each other: then their sum counts.
        let crowd = || self.spent.threads.iter().filter(|thread| thread.name.starts_with("clients"));
        let cpus = machine::cpus_allowed();
        let crowded = crowd().count() > cpus as usize;
        let share = crowd().map(|thread| thread.cpu_seconds).sum::<f64>() / seconds / f64::from(cpus);
        if crowded && share > BUSY_SHARE_MAX {
            let percent = share * 100.0;
            doubts.push(format!("generator threads were {percent:.0} % busy on their {cpus} CPU(s)"));
        }
        for thread in &self.spent.threads {
            let (busy, wait) = (thread.cpu_seconds / seconds, thread.wait_seconds / seconds);
            if busy > BUSY_SHARE_MAX {
                let percent = busy * 100.0;
                doubts.push(format!("generator thread {} was {percent:.0} % busy", thread.name));
            } else if wait > WAIT_SHARE_MAX && !(crowded && thread.name.starts_with("clients")) {
                let percent = wait * 100.0;
                doubts.push(format!("generator thread {} waited for a CPU {percent:.0} % of the time", thread.name));
            }
        }
        for (counter, grown) in self.kernel_drops.iter() {
            doubts.push(format!("the kernel dropped: {counter} grew by {grown}"));
        }
        doubts
    }
}

/// Why a run without a delivery means nothing, and what may be wrong.
pub fn nothing_arrived(stray: u64) -> String {
    match stray {
        0 => "nothing arrived: are target and push API of the same server, and the room the same for both?".to_owned(),
        _ => format!(
            "none of the messages arrived, but {stray} others did: does the server change what is pushed \
             (escape it, encode it), or is another run going on in this room?"
        ),
    }
}

/// Notices when the whole process stands still (stopped, starved, suspended).
#[derive(Debug, Default)]
pub struct Watchdog {
    stop: AtomicBool,
}

impl Watchdog {
    /// Ends `watch`.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether `stop` was called.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Wakes every 10 ms until stopped; answers by how much it woke too late at worst, in ms.
    #[allow(clippy::cast_precision_loss, reason = "milliseconds")]
    pub fn watch(&self) -> f64 {
        let step_ns = clock::nanoseconds(Duration::from_millis(10));
        let mut worst_ns = 0;
        let mut before_ns = clock::now_ns();
        while !self.is_stopped() {
            clock::sleep_until(before_ns + step_ns);
            let now_ns = clock::now_ns();
            worst_ns = worst_ns.max((now_ns - before_ns).saturating_sub(step_ns));
            before_ns = now_ns;
        }
        worst_ns as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(cpu_seconds: f64, wait_seconds: f64) -> Generator {
        let thread = ThreadSpent { name: "clients-0".to_owned(), cpu_seconds, wait_seconds };
        let spent = Spent { threads: vec![thread], ..Spent::default() };
        Generator { spent, ..Generator::default() }
    }

    #[test]
    fn a_calm_generator_raises_no_doubt() {
        let generator = Generator { lateness_ms: (0.3, 4.0), ..thread(5.0, 0.5) };
        assert_eq!(generator.doubts(10.0), [""; 0]);
    }

    #[test]
    fn more_threads_than_cpus_wait_for_each_other_and_count_together() {
        let cpus = machine::cpus_allowed();
        let crowd = |cpu_seconds: f64| {
            let each = cpu_seconds * f64::from(cpus) / f64::from(cpus * 2);
            let thread = ThreadSpent { name: "clients-0".to_owned(), cpu_seconds: each, wait_seconds: 5.0 };
            let spent = Spent { threads: vec![thread; cpus as usize * 2], ..Spent::default() };
            Generator { spent, ..Generator::default() }
        };
        assert_eq!(crowd(5.0).doubts(10.0), [""; 0]);
        let doubts = crowd(9.9).doubts(10.0);
        assert_eq!(doubts.len(), 1, "{doubts:?}");
        assert!(doubts[0].contains("99 % busy on their"), "{doubts:?}");
    }

    #[test]
    fn each_sign_of_trouble_is_a_doubt_of_its_own() {
        let late = Generator { lateness_ms: (1.0, 101.0), ..Generator::default() };
        let still = Generator { pause_ms_max: 500.0, ..Generator::default() };
        for (generator, word) in [
            (late, "late"),
            (still, "stood still for 500 ms"),
            (thread(9.9, 0.0), "99 % busy"),
            (thread(1.0, 4.0), "waited for a CPU 40 %"),
        ] {
            let doubts = generator.doubts(10.0);
            assert_eq!(doubts.len(), 1, "{doubts:?}");
            assert!(doubts[0].contains(word), "{doubts:?}");
        }
    }
}
