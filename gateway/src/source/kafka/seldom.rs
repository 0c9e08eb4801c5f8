//! Lines of the log that could come a thousand times a second: one a second, which says how often it happened.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const APART: Duration = Duration::from_secs(1);

/// What has happened since the last line, and when that was.
#[derive(Debug, Default)]
pub(super) struct Seldom(Mutex<(u64, Option<Instant>)>);

impl Seldom {
    /// Counts one more. If a line is due: how many there were since the last one.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.0 += 1;
        if since.1.is_some_and(|told| now.duration_since(told) < APART) {
            return None;
        }
        since.1 = Some(now);
        Some(std::mem::take(&mut since.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_a_second_and_leaves_none_uncounted() {
        let (seldom, begun) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.count(begun), Some(1), "the first at once");
        assert_eq!(seldom.count(begun), None);
        assert_eq!(seldom.count(begun + APART / 2), None);
        assert_eq!(seldom.count(begun + APART), Some(3));
        assert_eq!(seldom.count(begun + 3 * APART), Some(1));
    }
}
