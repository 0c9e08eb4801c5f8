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

/// Seconds since 1970 as `2026-11-22 20:55:01 UTC`.
pub fn utc(unix_s: u64) -> String {
    let (mut days, second) = (unix_s / 86_400, unix_s % 86_400);
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute) = (days + 1, second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", second % 60)
}

/// A duration as nanoseconds of this clock.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00 UTC");
        assert_eq!(utc(1_795_378_071), "2026-11-22 20:07:51 UTC");
        assert_eq!(utc(4_107_542_399), "2100-02-28 23:59:59 UTC");
    }
}
