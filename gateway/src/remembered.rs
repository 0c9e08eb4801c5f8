//! What was seen lately, by name: so many at most, each for so long at most; the oldest goes first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// The names and what is known of each. Time is an argument, in milliseconds, and must not go back.
#[derive(Debug)]
pub struct Remembered<V> {
    entries: HashMap<Arc<str>, (u64, V)>,
    /// In the order they came: number, when it ends, name. Some may have been taken out, or put anew, since.
    order: VecDeque<(u64, u64, Arc<str>)>,
    next: u64,
    entries_max: usize,
    ms_max: u64,
    /// Entries that went before their time, because there were too many.
    forgotten: u64,
}

impl<V> Remembered<V> {
    /// Nothing yet.
    pub fn new(entries_max: usize, ms_max: u64) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        Self { entries, order, next: 0, entries_max, ms_max, forgotten: 0 }
    }

    /// What is known of a name.
    pub fn get(&mut self, name: &str, now_ms: u64) -> Option<&mut V> {
        self.expire(now_ms);
        self.entries.get_mut(name).map(|(_, value)| value)
    }

    /// Remembers a value from now on, in place of an earlier one of the name, which is returned.
    pub fn put(&mut self, name: &str, value: V, now_ms: u64) -> Option<V> {
        self.expire(now_ms);
        while self.order.len() >= self.entries_max {
            self.forgotten += u64::from(self.forget_oldest());
        }
        self.next += 1;
        let name: Arc<str> = name.into();
        self.order.push_back((self.next, now_ms.saturating_add(self.ms_max), Arc::clone(&name)));
        self.entries.insert(name, (self.next, value)).map(|(_, value)| value)
    }

    /// Takes a name out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        self.entries.remove(name).map(|(_, value)| value)
    }

    /// Entries that went before their time.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn expire(&mut self, now_ms: u64) {
        while self.order.front().is_some_and(|(_, until, _)| *until <= now_ms) {
            self.forget_oldest();
        }
    }

    /// Whether there was one that had not been taken out or put anew.
    fn forget_oldest(&mut self) -> bool {
        let Some((number, _, name)) = self.order.pop_front() else { return false };
        let current = self.entries.get(&name).is_some_and(|(current, _)| *current == number);
        if current {
            self.entries.remove(&name);
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_remembered_for_its_time_and_not_a_millisecond_longer() {
        let mut seen = Remembered::new(10, 100);
        seen.put("a", 1, 1000);
        assert_eq!(seen.get("a", 1099).copied(), Some(1));
        assert_eq!(seen.get("a", 1100), None);
        assert_eq!((seen.forgotten(), seen.order.len(), seen.entries.len()), (0, 0, 0));
    }

    #[test]
    fn beyond_the_maximum_the_oldest_is_forgotten_and_counted() {
        let mut seen = Remembered::new(3, 100);
        for (name, value) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            seen.put(name, value, 0);
        }
        assert_eq!(seen.get("a", 1), None);
        assert_eq!(seen.get("b", 1).copied(), Some(2));
        assert_eq!((seen.forgotten(), seen.entries.len()), (1, 3));
    }

    #[test]
    fn what_was_taken_out_or_put_anew_is_not_forgotten_twice() {
        let mut seen = Remembered::new(3, 100);
        seen.put("a", 1, 0);
        assert_eq!(seen.remove("a"), Some(1));
        seen.put("a", 2, 50);
        assert_eq!(seen.get("a", 120).copied(), Some(2), "the first one's end is not the second one's");
        assert_eq!(seen.put("a", 3, 130), Some(2));
        assert_eq!(seen.get("a", 160).copied(), Some(3));
        for at in 0..10_000 {
            seen.put("a", at, 160);
        }
        assert_eq!((seen.order.len(), seen.entries.len()), (3, 1), "bounded whatever is put");
    }
}
