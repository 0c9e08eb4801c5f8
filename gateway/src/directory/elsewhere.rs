//! What other nodes have: members of rooms, connections, addresses. The source that hears of it is its one writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use foldhash::fast::SeedableRandomState;

use super::key::HashSecret;
use super::rooms::RoomCount;

/// Members that rooms have on one other node, by name.
pub type RoomsOfNode = Vec<(Arc<str>, u32)>;

/// Sums over the other nodes that live.
pub struct Elsewhere {
    /// No room without members is here.
    rooms: DashMap<Arc<str>, u64, SeedableRandomState>,
    connections: AtomicU64,
    addresses: AtomicU64,
    /// Rooms whose counts changed since control last took them, with repeats.
    changed: Mutex<Vec<Arc<str>>>,
}

impl Elsewhere {
    pub(super) fn new(secret: &HashSecret) -> Self {
        Self {
            rooms: DashMap::with_hasher(secret.state()),
            connections: AtomicU64::new(0),
            addresses: AtomicU64::new(0),
            changed: Mutex::default(),
        }
    }

    /// Members of a room on other nodes.
    pub fn room_size(&self, name: &str) -> u64 {
        self.rooms.view(name, |_, members| *members).unwrap_or(0)
    }

    /// Rooms that other nodes have.
    pub fn rooms(&self) -> u64 {
        self.rooms.len() as u64
    }

    /// Connections logged in on other nodes.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Distinct addresses of other nodes; one that is on two of them counts twice.
    pub fn addresses(&self) -> u64 {
        self.addresses.load(Ordering::Relaxed)
    }

    /// The sums over what each node said of itself.
    pub(crate) fn set_totals(&self, connections: u64, addresses: u64) {
        self.connections.store(connections, Ordering::Relaxed);
        self.addresses.store(addresses, Ordering::Relaxed);
    }

    /// One node's rooms are now `new`, and were `old`; both in order of names. `concerns` says of which rooms control
    /// wants to hear.
    pub(crate) fn replace(&self, old: &RoomsOfNode, new: &RoomsOfNode, concerns: impl Fn(&str) -> bool) {
        let mut changed = Vec::new();
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            let (name, before, now) = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some((name, members)), None) => (name, *members, 0),
                (None, Some((name, members))) => (name, 0, *members),
                (Some(was), Some(is)) if was.0 < is.0 => (&was.0, was.1, 0),
                (Some(was), Some(is)) if was.0 > is.0 => (&is.0, 0, is.1),
                (Some(was), Some(is)) => (&was.0, was.1, is.1),
            };
            let name = Arc::clone(name);
            old.next_if(|it| it.0 == name);
            new.next_if(|it| it.0 == name);
            if before == now {
                continue;
            }
            self.add(&name, before, now);
            if concerns(&name) {
                changed.push(name);
            }
        }
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut changed);
    }

    fn add(&self, name: &Arc<str>, before: u32, now: u32) {
        let mut sum = self.rooms.entry(Arc::clone(name)).or_default();
        *sum = (*sum + u64::from(now)).saturating_sub(before.into());
        let empty = *sum == 0;
        drop(sum);
        if empty {
            self.rooms.remove_if(&**name, |_, sum| *sum == 0);
        }
    }

    /// The rooms that control is to look at again.
    pub(super) fn take_changed(&self) -> Vec<Arc<str>> {
        let mut changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        changed.sort_unstable();
        changed.dedup();
        changed
    }

    /// Rooms whose changes control has not taken, repeats included.
    pub(crate) fn untaken(&self) -> usize {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Every room whose name begins with `prefix` and is greater than `after`, in no order.
    pub(super) fn each(&self, prefix: &str, after: &str) -> Vec<RoomCount> {
        let rooms = self.rooms.iter().filter(|room| room.key().starts_with(prefix) && **room.key() > *after);
        rooms.map(|room| RoomCount { name: Arc::clone(room.key()), members: *room.value() }).collect()
    }

    /// Nobody is elsewhere.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn node(rooms: &[(&str, u32)]) -> RoomsOfNode {
        rooms.iter().map(|(name, members)| ((*name).into(), *members)).collect()
    }

    fn counts(elsewhere: &Elsewhere, prefix: &str, after: &str) -> Vec<(String, u64)> {
        let mut rooms = elsewhere.each(prefix, after);
        rooms.sort();
        rooms.into_iter().map(|room| (room.name.to_string(), room.members)).collect()
    }

    fn names(rooms: &[Arc<str>]) -> Vec<&str> {
        rooms.iter().map(|name| &**name).collect()
    }

    #[test]
    fn sizes_are_sums_over_the_nodes_and_only_what_changed_is_told() {
        let elsewhere = Elsewhere::new(&HashSecret::fixed(1));
        assert!(elsewhere.is_empty());
        let (none, first) = (node(&[]), node(&[("a", 2), ("b", 3), ("d", 1)]));
        elsewhere.replace(&none, &first, |_| true);
        elsewhere.replace(&none, &node(&[("b", 4), ("c", 5)]), |name| name != "c");
        let all = [("a", 2), ("b", 7), ("c", 5), ("d", 1)].map(|(name, members)| (name.to_owned(), members));
        assert_eq!(counts(&elsewhere, "", ""), all);
        assert_eq!((elsewhere.rooms(), elsewhere.is_empty()), (4, false));
        assert_eq!((elsewhere.room_size("b"), elsewhere.room_size("x")), (7, 0));
        assert_eq!(elsewhere.untaken(), 4, "repeats included");
        assert_eq!(names(&elsewhere.take_changed()), ["a", "b", "d"]);
        assert_eq!((elsewhere.untaken(), elsewhere.take_changed().len()), (0, 0));
        elsewhere.replace(&first, &node(&[("a", 2), ("b", 1), ("e", 1)]), |_| true);
        assert_eq!(names(&elsewhere.take_changed()), ["b", "d", "e"], "as many in a as before");
        assert_eq!((elsewhere.room_size("b"), elsewhere.room_size("d"), elsewhere.rooms()), (5, 0, 4));
    }

    #[test]
    fn rooms_are_found_by_prefix_behind_a_name() {
        let elsewhere = Elsewhere::new(&HashSecret::fixed(1));
        elsewhere.replace(&node(&[]), &node(&[("a", 1), ("ab", 2), ("abc", 3), ("b", 4)]), |_| true);
        let found = |prefix, after| counts(&elsewhere, prefix, after).into_iter().map(|(name, _)| name);
        assert!(found("ab", "").eq(["ab", "abc"]));
        assert!(found("", "ab").eq(["abc", "b"]));
        assert!(found("ab", "ab").eq(["abc"]));
        assert!(found("x", "").eq([""; 0]));
    }

    #[test]
    fn totals_are_what_was_said_last() {
        let elsewhere = Elsewhere::new(&HashSecret::fixed(1));
        elsewhere.set_totals(7, 3);
        assert_eq!((elsewhere.connections(), elsewhere.addresses()), (7, 3));
        elsewhere.set_totals(2, 1);
        assert_eq!((elsewhere.connections(), elsewhere.addresses()), (2, 1));
    }

    #[test]
    fn any_sequence_of_words_of_three_nodes_leaves_the_sum_of_the_last_ones() {
        let mut random = fastrand::Rng::with_seed(7);
        let elsewhere = Elsewhere::new(&HashSecret::fixed(1));
        let mut nodes = [(); 3].map(|()| RoomsOfNode::new());
        for _ in 0..500 {
            let at = random.usize(..3);
            let rooms: BTreeMap<u8, u32> = (0..random.usize(..6)).map(|_| (random.u8(..9), random.u32(1..4))).collect();
            let new: RoomsOfNode =
                rooms.into_iter().map(|(name, members)| (format!("room {name}").into(), members)).collect();
            elsewhere.replace(&nodes[at], &new, |name| name != "room 3");
            let change = |name: &str| {
                let of = |rooms: &RoomsOfNode| rooms.iter().find(|room| *room.0 == *name).map(|room| room.1);
                of(&nodes[at]) != of(&new)
            };
            let changed: Vec<String> = (0..9).map(|name| format!("room {name}")).filter(|name| change(name)).collect();
            assert!(names(&elsewhere.take_changed()).into_iter().eq(changed.iter().filter(|name| *name != "room 3")));
            nodes[at] = new;
            let mut sum: BTreeMap<String, u64> = BTreeMap::new();
            for (name, members) in nodes.iter().flatten() {
                *sum.entry(name.to_string()).or_default() += u64::from(*members);
            }
            assert_eq!(counts(&elsewhere, "", ""), sum.into_iter().collect::<Vec<_>>());
        }
    }
}
