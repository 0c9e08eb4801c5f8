//! Sets of accepted operations, shared by all connections that have the same one.

use bytemuck::Zeroable;

use crate::limits::{ACCEPT_SETS_MAX, ACCEPTS_MAX};

/// A set's number; 0 is the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Zeroable)]
#[repr(transparent)]
pub(super) struct SetIndex(u16);

#[derive(Clone, Copy, Zeroable)]
struct Set {
    /// Connections that have it.
    users: u32,
    /// The next set of the same bucket, or of the free list; one more than its number.
    next: u16,
    length: u16,
    /// Sorted, without repeats, `length` of them.
    operations: [i32; ACCEPTS_MAX],
}

const BUCKETS: usize = 256;

/// The sets of one shard.
pub(super) struct AcceptSets {
    sets: Box<[Set]>,
    buckets: [u16; BUCKETS],
    free: u16,
    fresh: u16,
    used: u16,
}

/// A set could not be had: too many operations, or too many different sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl AcceptSets {
    pub(super) fn new() -> Self {
        // Set 0 is the empty one and never leaves.
        Self { sets: bytemuck::zeroed_slice_box(ACCEPT_SETS_MAX), buckets: [0; BUCKETS], free: 0, fresh: 1, used: 0 }
    }

    /// The operations of a set, sorted.
    pub(super) fn operations(&self, set: SetIndex) -> &[i32] {
        let set = &self.sets[usize::from(set.0)];
        &set.operations[..usize::from(set.length)]
    }

    /// Whether a set holds the operation.
    pub(super) fn accepts(&self, set: SetIndex, operation: i32) -> bool {
        self.operations(set).binary_search(&operation).is_ok()
    }

    /// A use of the set of these operations, in any order and with repeats.
    pub(super) fn take(&mut self, operations: &mut [i32]) -> Result<SetIndex, TooMany> {
        operations.sort_unstable();
        let mut sorted = [0; ACCEPTS_MAX];
        let mut length = 0;
        for (at, operation) in operations.iter().enumerate() {
            if at > 0 && operations[at - 1] == *operation {
                continue;
            }
            *sorted.get_mut(length).ok_or(TooMany)? = *operation;
            length += 1;
        }
        if length == 0 {
            return Ok(SetIndex(0));
        }
        self.intern(&sorted, length)
    }

    fn intern(&mut self, sorted: &[i32; ACCEPTS_MAX], length: usize) -> Result<SetIndex, TooMany> {
        let bucket = bucket(&sorted[..length]);
        let mut at = self.buckets[bucket];
        while at != 0 {
            let index = SetIndex(at - 1);
            if self.operations(index) == &sorted[..length] {
                self.sets[usize::from(at - 1)].users += 1;
                return Ok(index);
            }
            at = self.sets[usize::from(at - 1)].next;
        }
        let place = if self.free != 0 {
            let place = self.free - 1;
            self.free = self.sets[usize::from(place)].next;
            place
        } else if usize::from(self.fresh) < ACCEPT_SETS_MAX {
            self.fresh += 1;
            self.fresh - 1
        } else {
            return Err(TooMany);
        };
        let length = u16::try_from(length).map_err(|_| TooMany)?;
        self.sets[usize::from(place)] = Set { users: 1, next: self.buckets[bucket], length, operations: *sorted };
        self.buckets[bucket] = place + 1;
        self.used += 1;
        Ok(SetIndex(place))
    }

    /// Gives a use back.
    pub(super) fn give(&mut self, set: SetIndex) {
        if set.0 == 0 {
            return;
        }
        let place = usize::from(set.0);
        self.sets[place].users -= 1;
        if self.sets[place].users > 0 {
            return;
        }
        let bucket = bucket(self.operations(set));
        let next = self.sets[place].next;
        let mut at = self.buckets[bucket];
        if at == set.0 + 1 {
            self.buckets[bucket] = next;
        } else {
            while self.sets[usize::from(at - 1)].next != set.0 + 1 {
                at = self.sets[usize::from(at - 1)].next;
            }
            self.sets[usize::from(at - 1)].next = next;
        }
        self.sets[place].next = self.free;
        self.free = set.0 + 1;
        self.used -= 1;
    }

    /// Sets that somebody has.
    pub(super) fn used(&self) -> u16 {
        self.used
    }

    /// The same, counted.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        let counted = self.sets.iter().filter(|set| set.users > 0).count();
        assert_eq!(usize::from(self.used), counted, "sets");
        counted
    }
}

/// Not guarded against chosen operations: the number of sets is bounded, and so is a bucket's length.
fn bucket(operations: &[i32]) -> usize {
    let mixed =
        operations.iter().fold(0u32, |hash, operation| (hash ^ operation.cast_unsigned()).wrapping_mul(0x0100_0193));
    mixed as usize % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_are_one_and_leave_with_their_last_user() {
        let mut sets = AcceptSets::new();
        let first = sets.take(&mut [1002, 1000, 1002]).expect("room");
        let second = sets.take(&mut [1000, 1002]).expect("room");
        assert_eq!(first, second);
        assert!(sets.accepts(first, 1000) && sets.accepts(first, 1002) && !sets.accepts(first, 1001));
        sets.give(first);
        assert!(sets.accepts(second, 1000));
        sets.give(second);
        assert_eq!(sets.in_use(), 0);
    }

    #[test]
    fn nothing_accepted_is_the_empty_set() {
        let mut sets = AcceptSets::new();
        let none = sets.take(&mut []).expect("always");
        assert!(!sets.accepts(none, 0));
        sets.give(none);
    }

    #[test]
    fn a_set_beyond_either_limit_is_refused() {
        let mut sets = AcceptSets::new();
        let mut many: Vec<i32> = (0..=i32::try_from(ACCEPTS_MAX).expect("small")).collect();
        assert_eq!(sets.take(&mut many), Err(TooMany));
        many.pop();
        let full = sets.take(&mut many).expect("exactly the limit");
        sets.give(full);
        let taken: Vec<_> = std::iter::from_fn({
            let mut number = 0;
            let sets = &mut sets;
            move || {
                number += 1;
                sets.take(&mut [number]).ok()
            }
        })
        .collect();
        assert_eq!(taken.len(), ACCEPT_SETS_MAX - 1);
        for set in taken.into_iter().rev() {
            sets.give(set);
        }
        assert_eq!(sets.in_use(), 0);
        assert!(sets.take(&mut [7]).is_ok());
    }
}
