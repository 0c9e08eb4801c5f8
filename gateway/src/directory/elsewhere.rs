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
