//! When an endpoint that is down is left alone for a moment, so that not every call waits for its whole time.

use std::time::{Duration, Instant};

/// Failures in a row after which calls are not tried.
const FAILURES: u32 = 8;

/// How long; then one call tries, and the others wait as long again for how it ends.
const REST: Duration = Duration::from_secs(1);

/// What is known of an endpoint by its last calls.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    failures: u32,
    rests_until: Option<Instant>,
}

impl Circuit {
    /// Whether a call may be tried now.
    pub(super) fn may_call(&mut self, now: Instant) -> bool {
        match self.rests_until {
            Some(until) if now < until => false,
            Some(_) => {
                self.rests_until = Some(now + REST);
                true
            }
            None => true,
        }
    }

    /// A call has ended.
    pub(super) fn note(&mut self, good: bool, now: Instant) {
        self.failures = if good { 0 } else { self.failures.saturating_add(1) };
        self.rests_until = (self.failures >= FAILURES).then(|| now + REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_failures_in_a_row_one_call_a_second_is_tried_until_one_succeeds() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        for _ in 1..FAILURES {
            circuit.note(false, start);
        }
        assert!(circuit.may_call(start), "one less");
        circuit.note(true, start);
        for _ in 0..FAILURES {
            assert!(circuit.may_call(start));
            circuit.note(false, start);
        }
        assert!(!circuit.may_call(start + REST / 2));
        assert!(circuit.may_call(start + REST), "the one that tries");
        assert!(!circuit.may_call(start + REST), "nobody else meanwhile");
        circuit.note(false, start + REST);
        assert!(!circuit.may_call(start + REST * 3 / 2));
        assert!(circuit.may_call(start + REST * 2));
        circuit.note(true, start + REST * 2);
        assert!(circuit.may_call(start + REST * 2) && circuit.may_call(start + REST * 2));
    }
}
