//! Keeps one reason from filling the log: so many lines in a time pass, the rest are counted and told of.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Filter};

/// Lines of one reason that pass in a window.
const LINES_MAX: u32 = 20;

/// Milliseconds of a window; it begins with its first line.
const WINDOW_MS: u64 = 10_000;

/// Reasons that are told apart; all others are one.
const REASONS_MAX: usize = 256;

/// What makes two lines alike: where they are from, and the value of their field `event`, `reason` or `refusal`.
type Reason = (usize, String);

/// Lines of one reason since its window began.
#[derive(Debug)]
struct Window {
    began_ms: u64,
    lines: u32,
}

/// Lines by their reasons. Time is an argument.
#[derive(Debug, Default)]
struct Limiter {
    windows: HashMap<Reason, Window>,
}

impl Limiter {
    /// Whether another line of this reason passes.
    fn admit(&mut self, reason: Reason, now_ms: u64) -> bool {
        let full = self.windows.len() >= REASONS_MAX && !self.windows.contains_key(&reason);
        let reason = if full { (0, "others".to_owned()) } else { reason };
        let window = self.windows.entry(reason).or_insert(Window { began_ms: now_ms, lines: 0 });
        window.lines = window.lines.saturating_add(1);
        window.lines <= LINES_MAX
    }

    /// Ends the windows whose time is over: how many lines of which reason did not pass.
    fn ended(&mut self, now_ms: u64) -> Vec<(String, u32)> {
        let mut suppressed = Vec::new();
        self.windows.retain(|(_, name), window| {
            let goes_on = now_ms < window.began_ms + WINDOW_MS;
            if !goes_on && window.lines > LINES_MAX {
                suppressed.push((name.clone(), window.lines - LINES_MAX));
            }
            goes_on
        });
        suppressed.sort_unstable();
        suppressed
    }
}

/// The limiter as a filter of the log. What is asked for on purpose, `debug` and below, always passes.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    limiter: Arc<Mutex<Limiter>>,
    began: Instant,
}

impl Limit {
    pub(super) fn new() -> Self {
        Self { limiter: Arc::default(), began: Instant::now() }
    }

    /// Tells of what did not pass in windows that are over; to be called about once a second.
    pub(super) fn tell(&self) {
        let ended = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).ended(self.now_ms());
        for (reason, lines) in ended {
            tracing::warn!(event = "suppressed", reason, lines, window_ms = WINDOW_MS, "more lines of this kind");
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl<S: Subscriber> Filter<S> for Limit {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        // Nothing is left out of the audit log.
        if *event.metadata().level() > Level::INFO || event.metadata().target() == "audit" {
            return true;
        }
        let mut name = Name::default();
        event.record(&mut name);
        let place = std::ptr::from_ref(event.metadata()).addr();
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admit((place, name.0), self.now_ms())
    }
}

/// The values of the fields that make a reason, joined.
#[derive(Debug, Default)]
struct Name(String);

impl Visit for Name {
    fn record_str(&mut self, field: &Field, value: &str) {
        if matches!(field.name(), "event" | "reason" | "refusal") {
            if !self.0.is_empty() {
                self.0.push(' ');
            }
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(name: &str) -> Reason {
        (1, name.into())
    }

    #[test]
    fn so_many_lines_of_a_reason_pass_and_the_rest_are_counted() {
        let mut limiter = Limiter::default();
        let passed = (0..100).filter(|ms| limiter.admit(reason("a"), *ms)).count();
        assert_eq!(passed, LINES_MAX as usize);
        assert!(limiter.admit(reason("b"), 99), "another reason has its own window");
        assert_eq!(limiter.ended(WINDOW_MS - 1), [], "the window is not over");
        assert_eq!(limiter.ended(WINDOW_MS), [("a".into(), 100 - LINES_MAX)]);
        assert!(limiter.admit(reason("a"), WINDOW_MS), "a new window");
        assert_eq!(limiter.ended(WINDOW_MS + 99), [], "nothing of b was suppressed");
        assert_eq!(limiter.windows.len(), 1);
    }

    #[test]
    fn reasons_beyond_those_told_apart_are_one() {
        let mut limiter = Limiter::default();
        for number in 0..REASONS_MAX + 2 * LINES_MAX as usize {
            limiter.admit(reason(&number.to_string()), 0);
        }
        assert_eq!(limiter.windows.len(), REASONS_MAX + 1);
        assert_eq!(limiter.ended(WINDOW_MS), [("others".into(), LINES_MAX)]);
    }
}
