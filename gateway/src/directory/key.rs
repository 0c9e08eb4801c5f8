//! A connection's key and its keyed hash.

use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

/// A connection's key. A canonical lower-case UUID, as generated keys are, takes 16 bytes instead of 36.
///
/// Equal texts are equal keys: any other spelling of a UUID stays text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower case.
    Uuid([u8; 16]),
    /// Anything else.
    Text(Box<str>),
}

impl Key {
    /// The key with this text.
    pub fn new(text: &str) -> Self {
        match KeyRef::new(text) {
            KeyRef::Uuid(bytes) => Self::Uuid(bytes),
            KeyRef::Text(text) => Self::Text(text.into()),
        }
    }

    /// A UUID of version 4 made of these random bytes.
    pub fn generated(random: [u8; 16]) -> Self {
        Self::Uuid(uuid::Builder::from_random_bytes(random).into_uuid().into_bytes())
    }

    pub(super) fn borrow(&self) -> KeyRef<'_> {
        match self {
            Self::Uuid(bytes) => KeyRef::Uuid(*bytes),
            Self::Text(text) => KeyRef::Text(text),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).as_hyphenated().fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A key that is only looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum KeyRef<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> KeyRef<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        const TEXT_BYTES: usize = uuid::fmt::Hyphenated::LENGTH;
        if text.len() == TEXT_BYTES
            && let Ok(uuid) = uuid::Uuid::try_parse(text)
            && *uuid.as_hyphenated().encode_lower(&mut [0; TEXT_BYTES]) == *text
        {
            return Self::Uuid(uuid.into_bytes());
        }
        Self::Text(text)
    }
}

/// The secret of the directory's hashes: peers choose keys, members and room names, and must not be
/// able to choose where these land.
#[derive(Clone, Debug)]
pub struct HashSecret {
    state: SeedableRandomState,
    /// Bits of a key's hash in use. Tests take few, so that keys collide.
    mask: u64,
}

/// A key's hash leaves the top bit to the member table.
const KEY_HASH_MASK: u64 = u64::MAX >> 1;

impl HashSecret {
    /// A secret of this process.
    pub fn random() -> Self {
        Self { state: SeedableRandomState::random(), mask: KEY_HASH_MASK }
    }

    /// Always the same hashes, for simulation and tests; open to chosen collisions.
    pub fn fixed(seed: u64) -> Self {
        Self { state: SeedableRandomState::with_seed(seed, SharedSeed::global_fixed()), mask: KEY_HASH_MASK }
    }

    /// Hashes of so few bits that keys collide.
    #[cfg(test)]
    pub(crate) fn colliding(bits: u32) -> Self {
        Self { mask: (1 << bits) - 1, ..Self::fixed(1) }
    }

    /// Never 0, which says "no ticket", and below `1 << 63`.
    pub(super) fn key(&self, key: KeyRef<'_>) -> u64 {
        (self.state.hash_one(key) & self.mask).max(1)
    }

    /// For tables whose keys a peer chooses.
    pub(crate) fn state(&self) -> SeedableRandomState {
        self.state.clone()
    }
}

/// For tables whose keys are hashes already.
pub(super) type AsIs = BuildHasherDefault<AsIsHasher>;

#[derive(Default)]
pub(super) struct AsIsHasher(u64);

impl Hasher for AsIsHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only tables of u64 hashes use this");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_spelling_of_a_uuid_is_packed() {
        let canonical = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        assert!(matches!(Key::new(canonical), Key::Uuid(_)));
        let others = [
            "67E55044-10B1-426F-9247-BB680E5FE0C8",
            "67e5504410b1426f9247bb680e5fe0c8",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "67e55044-10b1-426f-9247-bb680e5fe0cg",
            "device",
            "",
        ];
        for text in others {
            assert!(matches!(Key::new(text), Key::Text(_)), "{text}");
            assert_eq!(Key::new(text).to_string(), text);
        }
        assert_eq!(Key::new(canonical).to_string(), canonical);
    }

    #[test]
    fn a_generated_key_is_a_version_4_uuid_and_is_found_by_its_text() {
        let key = Key::generated([0xff; 16]);
        assert_eq!(key.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Key::new(&key.to_string()), key);
    }

    #[test]
    fn a_hash_is_never_the_word_for_no_ticket_nor_has_the_top_bit() {
        let all_collide = HashSecret::colliding(0);
        assert_eq!(all_collide.key(KeyRef::new("a")), 1);
        let secret = HashSecret::fixed(7);
        for n in 0..1000 {
            assert!(secret.key(KeyRef::new(&n.to_string())) < 1 << 63);
        }
    }
}
