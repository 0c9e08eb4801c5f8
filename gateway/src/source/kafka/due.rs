//! Partitions whose reading is to begin: tried at once, and again while that fails.

use std::collections::BTreeMap;
use std::time::Instant;

use super::consume::REPEAT;

/// Partitions that are to be read, each from its offset, until reading them has begun.
#[derive(Debug, Default)]
pub(super) struct Due {
    offsets: BTreeMap<i32, i64>,
    tried: Option<Instant>,
}

impl Due {
    /// Starts what is new at once, and what could not be started once in a while. The last offset said is the one.
    pub(super) fn start<E>(
        &mut self,
        new: Vec<(i32, i64)>,
        now: Instant,
        mut start: impl FnMut(i32, i64) -> Result<(), E>,
    ) -> Vec<(i32, i64, E)> {
        let waits = self.tried.is_some_and(|tried| now.duration_since(tried) < REPEAT);
        if new.is_empty() && (self.offsets.is_empty() || waits) {
            return Vec::new();
        }
        self.tried = Some(now);
        self.offsets.extend(new);
        let mut failed = Vec::new();
        self.offsets.retain(|partition, offset| match start(*partition, *offset) {
            Ok(()) => false,
            Err(error) => {
                failed.push((*partition, *offset, error));
                true
            }
        });
        failed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_partition_that_cannot_be_started_is_tried_again_from_the_last_offset_said() {
        let (mut due, begun) = (Due::default(), Instant::now());
        let mut tried = Vec::new();
        let mut step = |new: &[(i32, i64)], after: Duration, works: bool| {
            tried.clear();
            let failed = due.start(new.to_vec(), begun + after, |partition, offset| {
                tried.push((partition, offset));
                if works || partition == 0 { Ok(()) } else { Err("no") }
            });
            (tried.clone(), failed)
        };
        let first = step(&[(0, 5), (1, 7)], Duration::ZERO, false);
        assert_eq!(first, (vec![(0, 5), (1, 7)], vec![(1, 7, "no")]));
        assert_eq!(step(&[], REPEAT / 2, true), (vec![], vec![]), "not in every turn");
        assert_eq!(step(&[(1, 9)], REPEAT / 2, false).0, [(1, 9)], "what is new, at once");
        assert_eq!(step(&[], REPEAT * 2, true), (vec![(1, 9)], vec![]));
        assert_eq!(step(&[], REPEAT * 4, true), (vec![], vec![]), "all are read");
    }
}
