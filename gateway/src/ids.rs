//! The small names that threads exchange: which connection, which room.
//!
//! A name handed to a shard carries a generation, so that a stale one is refused instead of
//! reaching whoever has the slot or the room index now.

use halley_ring::Slot;

/// A shard's number, `0..shards`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u8);

impl ShardIndex {
    /// The index as a position in an array of shards.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// How often a slot or a room index has been used before.
pub type Generation = u32;

/// One connection in the whole process: shard 8 bits, slot 24 bits, generation 32 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnWord(u64);

impl ConnWord {
    /// Packs the three parts. `slot` must fit 24 bits, which `limits` asserts for every table.
    pub fn new(shard: ShardIndex, slot: Slot, generation: Generation) -> Self {
        debug_assert!(slot.0 < 1 << 24, "a slot fits 24 bits");
        Self(u64::from(shard.0) << 56 | u64::from(slot.0 & 0x00ff_ffff) << 32 | u64::from(generation))
    }

    /// The shard that holds the connection.
    #[allow(clippy::cast_possible_truncation, reason = "the top 8 bits")]
    pub fn shard(self) -> ShardIndex {
        ShardIndex((self.0 >> 56) as u8)
    }

    /// Its slot in that shard.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 32) as u32 & 0x00ff_ffff)
    }

    /// The generation of the slot when the connection was accepted.
    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits")]
    pub fn generation(self) -> Generation {
        self.0 as u32
    }

    /// The word as a number, for logs and JSON.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl std::fmt::Debug for ConnWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}#{}", self.shard().0, self.slot().0, self.generation())
    }
}

/// A room's number inside one shard. Each shard numbers the rooms it has members of by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomIndex(pub u32);

/// A room as one shard knows it: the index and how often the index was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoomRef {
    /// Position in the shard's room table.
    pub index: RoomIndex,
    /// Generation of that position.
    pub generation: Generation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_word_keeps_its_three_parts() {
        let word = ConnWord::new(ShardIndex(63), Slot(0x00ab_cdef), 0xffff_fffe);
        assert_eq!(word.shard(), ShardIndex(63));
        assert_eq!(word.slot(), Slot(0x00ab_cdef));
        assert_eq!(word.generation(), 0xffff_fffe);
    }
}
