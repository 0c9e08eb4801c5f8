//! Power-of-two blocks of one array: who grows takes the next class and gives the old block back.

/// Classes: blocks of 1, 2, 4 … `2^(CLASSES-1)` units.
const CLASSES: usize = 28;

/// Which blocks of an array are free. Counts in units; what a unit is, the owner of the array knows.
pub(super) struct Blocks {
    /// For the first unit of a free block: the next free block of its class, one more than its first unit.
    next: Box<[u32]>,
    free: [u32; CLASSES],
    /// Units from here on were never given.
    fresh: u32,
}

impl Blocks {
    pub(super) fn new(units: u32) -> Self {
        Self { next: bytemuck::zeroed_slice_box(units as usize), free: [0; CLASSES], fresh: 0 }
    }

    /// The smallest class whose blocks hold so many units.
    pub(super) fn class(units: u32) -> u8 {
        u8::try_from(units.max(1).next_power_of_two().trailing_zeros()).unwrap_or(u8::MAX)
    }

    /// A block's first unit; `None` when the array is used up.
    pub(super) fn take(&mut self, class: u8) -> Option<u32> {
        let at = usize::from(class);
        if let Some(unit) = self.pop(at) {
            return Some(unit);
        }
        let units = 1u32.checked_shl(u32::from(class))?;
        if let Some(end) = self.fresh.checked_add(units).filter(|end| *end as usize <= self.next.len()) {
            let unit = self.fresh;
            self.fresh = end;
            return Some(unit);
        }
        self.split(at)
    }

    /// Cuts the smallest larger free block down; what is left over goes to the free lists.
    fn split(&mut self, class: usize) -> Option<u32> {
        let larger = (class + 1..CLASSES).find(|larger| self.free[*larger] != 0)?;
        let unit = self.pop(larger)?;
        for half in class..larger {
            self.push(unit + (1 << half), half);
        }
        Some(unit)
    }

    /// Gives a block back.
    pub(super) fn give(&mut self, unit: u32, class: u8) {
        self.push(unit, usize::from(class));
    }

    /// Units that somebody has.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> u32 {
        let free = |class: usize| {
            let blocks =
                std::iter::successors(self.free[class].checked_sub(1), |unit| self.next[*unit as usize].checked_sub(1));
            u32::try_from(blocks.count() << class).expect("units are u32")
        };
        self.fresh - (0..CLASSES).map(free).sum::<u32>()
    }

    fn pop(&mut self, class: usize) -> Option<u32> {
        let unit = self.free.get(class).copied()?.checked_sub(1)?;
        self.free[class] = self.next[unit as usize];
        Some(unit)
    }

    fn push(&mut self, unit: u32, class: usize) {
        self.next[unit as usize] = self.free[class];
        self.free[class] = unit + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_is_asked_for() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1024].map(Blocks::class), [0, 0, 1, 2, 2, 3, 10]);
    }

    #[test]
    fn blocks_never_overlap_and_the_array_can_be_used_again() {
        let mut blocks = Blocks::new(64);
        for _ in 0..3 {
            let mut owner = [None; 64];
            let mut taken = Vec::new();
            for class in [3u8, 0, 4, 1, 2, 0, 3].into_iter().cycle() {
                let Some(unit) = blocks.take(class) else { break };
                for owned in &mut owner[unit as usize..(unit + (1 << class)) as usize] {
                    assert_eq!(owned.replace(taken.len()), None, "given twice");
                }
                taken.push((unit, class));
            }
            assert!(taken.len() > 5);
            for (unit, class) in taken {
                blocks.give(unit, class);
            }
        }
    }

    #[test]
    fn a_used_up_array_gives_nothing() {
        let mut blocks = Blocks::new(4);
        let all = blocks.take(2);
        assert_eq!(all, Some(0));
        assert_eq!(blocks.take(0), None);
        blocks.give(0, 2);
        assert!((0..4).all(|_| blocks.take(0).is_some()), "a larger block is cut down");
        assert_eq!(blocks.take(0), None);
    }
}
