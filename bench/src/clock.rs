//! One clock for every process of a run: nanoseconds of `CLOCK_MONOTONIC`.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds since the machine started.
#[inline]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// What an idle CPU takes to wake up, about; waited for awake, or every message would be late by it.
const AWAKE_NS: u64 = 100_000;

/// Sleeps until `deadline_ns`; a signal may end it early. The end of a long sleep is spent awake, at most
/// a twentieth of it.
pub fn sleep_until(deadline_ns: u64) {
    let awake_ns = AWAKE_NS.min(deadline_ns.saturating_sub(now_ns()) / 20);
    let wake_ns = deadline_ns - awake_ns;
    let wake =
        Timespec { tv_sec: (wake_ns / 1_000_000_000).cast_signed(), tv_nsec: (wake_ns % 1_000_000_000).cast_signed() };
    if clock_nanosleep_absolute(ClockId::Monotonic, &wake).is_ok() {
        while now_ns() < deadline_ns {
            std::hint::spin_loop();
        }
    }
}

/// A duration as nanoseconds of this clock.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
