//! Grants of connections that came with a token: what they allow, and when they end.
//!
//! User memory of such a connection: 24 bytes by its slot, and 8 to 16 in the wheel of ends; rules are held once for all
//! connections that have the same.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::identity::Rules;
use crate::ids::{ConnWord, Generation};
use crate::sabotage::{Bug, planted};

/// Entries of the wheel beyond those that are in use, before it is made anew.
const STALE_MAX: usize = 1024;

/// What a connection's token gave it.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// `None`: it came without a token, or is gone.
    rules: Option<Arc<Rules>>,
    /// Hash of the token's id; 0: it has none.
    token: u64,
    generation: Generation,
    /// Seconds since 1970; `u32::MAX`: after 2106 or never.
    ends_s: u32,
}

const _: () = assert!(size_of::<Standing>() == 24, "held for every connection with a token");

/// The grants of all connections.
#[derive(Debug, Default)]
pub(super) struct Standings {
    /// By shard and slot.
    shards: Vec<Vec<Standing>>,
    rules: HashSet<Arc<Rules>>,
    /// Connections by the second of their end. Some may be gone, or end later, by now.
    ends: BTreeMap<u32, Vec<ConnWord>>,
    entries: usize,
    live: usize,
}

impl Standings {
    /// A connection has this grant now, in place of an earlier one.
    pub(super) fn put(&mut self, conn: ConnWord, rules: Rules, token_id: Option<&str>, ends_s: u64) {
        self.remove(conn);
        let (shard, slot) = (conn.shard().at(), conn.slot().at());
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Vec::new);
        }
        let slots = &mut self.shards[shard];
        if slots.len() <= slot {
            slots.resize_with(slot + 1, Standing::default);
        }
        let same = self.rules.get(&rules).cloned();
        let rules = same.unwrap_or_else(|| {
            let rules = Arc::new(rules);
            self.rules.insert(Arc::clone(&rules));
            rules
        });
        let ends_s = u32::try_from(ends_s).unwrap_or(u32::MAX);
        let token = token_id.map_or(0, hash);
        slots[slot] = Standing { rules: Some(rules), token, generation: conn.generation(), ends_s };
        self.live += 1;
        self.ends.entry(ends_s).or_default().push(conn);
        self.entries += 1;
        if self.entries > 2 * self.live + STALE_MAX {
            self.make_wheel();
        }
    }

    /// The rules of a connection; `None`: it came without a token.
    pub(super) fn rules(&self, conn: ConnWord) -> Option<&Arc<Rules>> {
        self.get(conn)?.rules.as_ref()
    }

    /// When the grant of a connection ends.
    pub(super) fn ends_s(&self, conn: ConnWord) -> Option<u32> {
        Some(self.get(conn)?.ends_s)
    }

    /// A connection is gone.
    pub(super) fn remove(&mut self, conn: ConnWord) {
        let slots = self.shards.get_mut(conn.shard().at());
        let Some(standing) = slots.and_then(|slots| slots.get_mut(conn.slot().at())) else { return };
        if standing.generation != conn.generation() {
            return;
        }
        let Some(rules) = std::mem::take(standing).rules else { return };
        self.live -= 1;
        // One here and one in the set.
        if Arc::strong_count(&rules) == 2 {
            self.rules.remove(&rules);
        }
    }

    /// Takes up to `most` connections out of the wheel whose grant has ended; and whether there are more.
    pub(super) fn due(&mut self, now_s: u64, most: usize) -> (Vec<ConnWord>, bool) {
        let mut due = Vec::new();
        while let Some(mut first) = self.ends.first_entry() {
            let ends_s = *first.key();
            if u64::from(ends_s) > now_s || planted(Bug::ExpiryIgnored) {
                return (due, false);
            }
            if due.len() >= most {
                return (due, true);
            }
            let conn = first.get_mut().pop();
            if first.get().is_empty() {
                first.remove();
            }
            let Some(conn) = conn else { continue };
            self.entries -= 1;
            if self.get(conn).is_some_and(|standing| standing.ends_s == ends_s) {
                due.push(conn);
            }
        }
        (due, false)
    }

    /// Whether a grant has ended that was not taken out.
    pub(super) fn is_due(&self, now_s: u64) -> bool {
        let passed = |ends_s: &u32| u64::from(*ends_s) <= now_s && !planted(Bug::ExpiryIgnored);
        self.ends.first_key_value().is_some_and(|(ends_s, _)| passed(ends_s))
    }

    /// The connections that came with the token of this id. Looks at every connection.
    pub(super) fn of_token(&self, id: &str) -> Vec<ConnWord> {
        let wanted = hash(id);
        self.each().filter(|(_, standing)| standing.token == wanted).map(|(conn, _)| conn).collect()
    }

    /// Connections that came with a token.
    pub(super) fn count(&self) -> usize {
        self.live
    }

    fn get(&self, conn: ConnWord) -> Option<&Standing> {
        let standing = self.shards.get(conn.shard().at())?.get(conn.slot().at())?;
        (standing.rules.is_some() && standing.generation == conn.generation()).then_some(standing)
    }

    fn each(&self) -> impl Iterator<Item = (ConnWord, &Standing)> {
        let word = |shard: usize, slot: usize, standing: &Standing| {
            let shard = crate::ids::ShardIndex(u8::try_from(shard).expect("a shard's index is a byte"));
            let slot = halley_ring::Slot(u32::try_from(slot).expect("a slot has 24 bits"));
            ConnWord::new(shard, slot, standing.generation)
        };
        self.shards.iter().enumerate().flat_map(move |(shard, slots)| {
            let taken = slots.iter().enumerate().filter(|(_, standing)| standing.rules.is_some());
            taken.map(move |(slot, standing)| (word(shard, slot, standing), standing))
        })
    }

    /// Without those that are gone.
    fn make_wheel(&mut self) {
        let mut ends: BTreeMap<u32, Vec<ConnWord>> = BTreeMap::new();
        for (conn, standing) in self.each() {
            ends.entry(standing.ends_s).or_default().push(conn);
        }
        self.ends = ends;
        self.entries = self.live;
    }
}

/// Never 0. Who issues tokens chooses their ids, not who comes with one.
fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Claims;
    use crate::ids::ShardIndex;

    fn conn(slot: u32, generation: u32) -> ConnWord {
        ConnWord::new(ShardIndex(1), halley_ring::Slot(slot), generation)
    }

    fn rules(room: &str) -> Rules {
        Rules::new(&Claims { rooms: vec![room.into()], ..Claims::default() })
    }

    #[test]
    fn a_grant_ends_once_at_its_second_and_not_if_it_was_renewed_or_is_gone() {
        let mut standings = Standings::default();
        for (slot, ends_s) in [(0, 10), (1, 10), (2, 10), (3, 11)] {
            standings.put(conn(slot, 1), rules("a"), None, ends_s);
        }
        standings.put(conn(1, 1), rules("a"), None, 20);
        standings.remove(conn(2, 1));
        standings.put(conn(2, 2), rules("a"), None, 30);
        assert!(!standings.is_due(9) && standings.due(9, 9).0.is_empty());
        assert!(standings.is_due(11));
        assert_eq!(standings.due(11, 1), (vec![conn(0, 1)], true));
        assert_eq!(standings.due(11, 9), (vec![conn(3, 1)], false));
        assert_eq!(standings.due(29, 9), (vec![conn(1, 1)], false));
        assert_eq!(standings.due(u64::from(u32::MAX) - 1, 9), (vec![conn(2, 2)], false));
    }

    #[test]
    fn equal_rules_are_held_once_and_go_with_the_last_who_has_them() {
        let mut standings = Standings::default();
        standings.put(conn(0, 1), rules("a"), Some("t"), 10);
        standings.put(conn(1, 1), rules("a"), Some("t"), 10);
        standings.put(conn(2, 1), rules("b"), Some("u"), u64::MAX);
        assert_eq!((standings.rules.len(), standings.count()), (2, 3));
        assert_eq!(standings.of_token("t"), [conn(0, 1), conn(1, 1)]);
        assert!(standings.rules(conn(0, 2)).is_none(), "another who has the slot");
        standings.remove(conn(0, 2));
        standings.remove(conn(0, 1));
        assert!(standings.rules(conn(1, 1)).is_some_and(|rules| rules.allow_room("a")));
        standings.remove(conn(1, 1));
        standings.remove(conn(1, 1));
        assert_eq!((standings.rules.len(), standings.count()), (1, 1));
    }

    #[test]
    fn those_who_come_and_go_leave_no_more_than_a_bounded_rest() {
        let mut standings = Standings::default();
        for generation in 0..10_000 {
            standings.put(conn(0, generation), rules("a"), None, 1_000_000);
            standings.remove(conn(0, generation));
        }
        let held: usize = standings.ends.values().map(Vec::len).sum();
        assert!(held == standings.entries && held <= STALE_MAX + 2, "{held}");
    }
}
