//! The memory budget: above it no more connections are accepted, until some of it is free again.

/// Of the budget, what must be free before accepting goes on: a sixteenth, so that it does not change every second.
const FREE: u64 = 16;

/// Whether accepts are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Budget {
    /// Whether they are.
    pub(super) held: bool,
}

impl Budget {
    /// What to do now that so many bytes are resident: `Some(true)` holds accepts, `Some(false)` lets them go on. A
    /// budget of 0 is none.
    pub(super) fn judge(&mut self, resident_bytes: u64, bytes_max: u64) -> Option<bool> {
        let held = match bytes_max {
            0 => false,
            _ if self.held => resident_bytes > bytes_max - bytes_max / FREE,
            _ => resident_bytes > bytes_max,
        };
        (std::mem::replace(&mut self.held, held) != held).then_some(held)
    }
}

/// Bytes of this process in memory; `None` where the system does not tell.
pub(super) fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_are_held_above_the_budget_until_a_sixteenth_of_it_is_free() {
        let mut budget = Budget::default();
        assert_eq!(budget.judge(1600, 1600), None);
        assert_eq!(budget.judge(1601, 1600), Some(true));
        assert_eq!(budget.judge(1700, 1600), None, "told once");
        assert_eq!(budget.judge(1501, 1600), None, "not free enough");
        assert_eq!(budget.judge(1500, 1600), Some(false));
        assert_eq!(budget.judge(1601, 1600), Some(true));
        assert_eq!(budget.judge(1700, 0), Some(false), "the budget was taken away");
    }

    #[test]
    fn this_process_has_some_memory() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
