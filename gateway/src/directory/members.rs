//! Member to the hashes of its keys. The connections themselves are the records of the key table.

use dashmap::DashMap;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashSet;

use super::key::{AsIs, HashSecret};

/// In place of a hash: the member has several, look into `many`.
const MANY: u64 = 1 << 63;

pub(super) struct MemberTable {
    /// The hash of the member's only key, or [`MANY`]: 16 bytes for the usual member.
    members: DashMap<i64, u64, SeedableRandomState>,
    /// Two hashes or more. Written before and cleared after `members` says so.
    many: DashMap<i64, HashSet<u64, AsIs>, SeedableRandomState>,
}

impl MemberTable {
    pub(super) fn new(secret: &HashSecret) -> Self {
        Self { members: DashMap::with_hasher(secret.state()), many: DashMap::with_hasher(secret.state()) }
    }

    /// Adds a hash; one that is there already stays once.
    pub(super) fn add(&self, member: i64, hash: u64) {
        match self.word(member) {
            None => {
                self.members.insert(member, hash);
            }
            Some(MANY) => {
                self.many.entry(member).or_default().insert(hash);
            }
            Some(only) if only == hash => {}
            Some(only) => {
                self.many.insert(member, HashSet::from_iter([only, hash]));
                self.members.insert(member, MANY);
            }
        }
    }

    /// Removes a hash, if it is there.
    pub(super) fn remove(&self, member: i64, hash: u64) {
        if self.word(member) != Some(MANY) {
            self.members.remove_if(&member, |_, only| *only == hash);
            return;
        }
        let mut last = None;
        if let Some(mut hashes) = self.many.get_mut(&member) {
            hashes.remove(&hash);
            last = hashes.iter().next().copied().filter(|_| hashes.len() == 1);
        }
        if let Some(last) = last {
            self.members.insert(member, last);
            self.many.remove(&member);
        }
    }

    /// The hashes of a member's keys, in no order.
    pub(super) fn hashes(&self, member: i64) -> Vec<u64> {
        loop {
            match self.word(member) {
                None => return Vec::new(),
                Some(MANY) => {
                    if let Some(hashes) = self.many.view(&member, |_, hashes| hashes.iter().copied().collect()) {
                        return hashes;
                    }
                    // The writer left the member one key in between: read its word again.
                }
                Some(only) => return vec![only],
            }
        }
    }

    fn word(&self, member: i64) -> Option<u64> {
        self.members.view(&member, |_, word| *word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(table: &MemberTable, member: i64) -> Vec<u64> {
        let mut hashes = table.hashes(member);
        hashes.sort_unstable();
        hashes
    }

    #[test]
    fn a_member_goes_from_one_key_to_several_and_back() {
        let table = MemberTable::new(&HashSecret::fixed(1));
        table.add(7, 100);
        table.add(7, 100);
        assert_eq!(sorted(&table, 7), [100]);
        table.add(7, 200);
        table.add(7, 300);
        table.add(7, 200);
        assert_eq!(sorted(&table, 7), [100, 200, 300]);
        table.remove(7, 999);
        table.remove(7, 100);
        table.remove(7, 200);
        assert_eq!(sorted(&table, 7), [300]);
        assert!(table.many.is_empty(), "a member of one key takes no set");
        table.remove(7, 200);
        assert_eq!(sorted(&table, 7), [300]);
        table.remove(7, 300);
        assert!(table.members.is_empty());
    }

    #[test]
    fn a_reader_meets_every_key_that_stays_while_others_come_and_go() {
        let table = MemberTable::new(&HashSecret::fixed(1));
        table.add(7, 100);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0_u32;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(table.hashes(7).contains(&100), "after {reads} reads");
                    reads += 1;
                }
            });
            for _ in 0..20_000 {
                table.add(7, 200);
                table.remove(7, 200);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            reader.join().expect("every read found the key");
        });
    }
}
