//! Key to connections: a table of keyed hashes, each with the chain of records that share it.

use dashmap::{DashMap, Entry};

use super::key::{AsIs, HashSecret, Key, KeyRef};
use crate::ids::ConnWord;
use crate::sabotage::{Bug, planted};

/// One connection. Records of one chain are the connections of one key, newest first, and those of
/// keys that happen to have the same hash: the key is always compared.
pub(super) struct Record {
    pub(super) conn: ConnWord,
    /// 0 or below: none.
    pub(super) member: i64,
    next: Link,
    pub(super) key: Key,
}

type Link = Option<Box<Record>>;

const _: () = assert!(size_of::<Record>() == 48, "held for every connection");

pub(super) struct KeyTable {
    /// No chain is empty.
    chains: DashMap<u64, Link, AsIs>,
    secret: HashSecret,
}

impl KeyTable {
    pub(super) fn new(secret: HashSecret) -> Self {
        Self { chains: DashMap::with_hasher(AsIs::default()), secret }
    }

    pub(super) fn hash(&self, key: &Key) -> u64 {
        self.secret.key(key.borrow())
    }

    /// Puts a connection in front of its chain and takes out the oldest of its key beyond `max`, in one
    /// step for readers.
    pub(super) fn insert(&self, hash: u64, key: Key, member: i64, conn: ConnWord, max: usize) -> Vec<Record> {
        let mut entry = self.chains.entry(hash).or_default();
        let chain = entry.value_mut();
        let mut count = 1 + of_key(chain, key.borrow()).count();
        let mut removed = Vec::new();
        while count > max.max(1) {
            count -= 1;
            let mut newer = count - 1;
            let oldest = unlink(chain, |record| {
                let found = record.key == key && newer == 0;
                newer = newer.saturating_sub(usize::from(record.key == key));
                found
            });
            removed.extend(oldest.map(|record| *record));
        }
        let next = chain.take();
        *chain = Some(Box::new(Record { conn, member, next, key }));
        removed
    }

    /// Takes the record of this connection out, if it is still there.
    pub(super) fn remove(&self, hash: u64, conn: ConnWord) -> Option<Box<Record>> {
        let Entry::Occupied(mut entry) = self.chains.entry(hash) else { return None };
        let removed = unlink(entry.get_mut(), |record| record.conn == conn || planted(Bug::DepartureTakesNewer));
        if entry.get().is_none() {
            entry.remove();
        }
        removed
    }

    /// Member and key of a connection, if it is there.
    pub(super) fn find(&self, hash: u64, conn: ConnWord) -> Option<(i64, Key)> {
        let found = |_: &u64, chain: &Link| {
            records(chain).find(|record| record.conn == conn).map(|record| (record.member, record.key.clone()))
        };
        self.chains.view(&hash, found).flatten()
    }

    /// Calls `each` for every connection of a key, newest first.
    pub(super) fn each_of_key(&self, key: &str, each: impl FnMut(&Record)) {
        let key = KeyRef::new(key);
        self.chains.view(&self.secret.key(key), |_, chain| of_key(chain, key).for_each(each));
    }

    /// Calls `each` for the connections of a member among those whose keys have this hash.
    pub(super) fn each_of_member(&self, hash: u64, member: i64, each: impl FnMut(&Record)) {
        self.chains.view(&hash, |_, chain| records(chain).filter(|record| record.member == member).for_each(each));
    }
}

fn records(chain: &Link) -> impl Iterator<Item = &Record> {
    std::iter::successors(chain.as_deref(), |record| record.next.as_deref())
}

fn of_key<'a>(chain: &'a Link, key: KeyRef<'a>) -> impl Iterator<Item = &'a Record> {
    records(chain).filter(move |record| record.key.borrow() == key)
}

fn unlink(mut link: &mut Link, mut found: impl FnMut(&Record) -> bool) -> Link {
    while let Some(record) = link {
        if found(record) {
            break;
        }
        link = &mut link.as_mut()?.next;
    }
    let mut record = link.take()?;
    *link = record.next.take();
    Some(record)
}
