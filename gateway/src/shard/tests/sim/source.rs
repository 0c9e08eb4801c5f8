//! A source as Kafka is one: records in order, paused while a shard's queue is full, some read again after a crash.

use std::collections::VecDeque;

use super::actor::Pushed;

/// Records that were taken and may come again.
const REPEATED_MAX: usize = 8;

/// A partition, read in order.
#[derive(Default)]
pub(super) struct Source {
    /// Records not yet dispatched, the next one first.
    ahead: VecDeque<Pushed>,
    /// The last ones that were.
    behind: VecDeque<Pushed>,
    /// Turned away since the last record that was taken.
    pub(super) refused: u64,
}

impl Source {
    pub(super) fn append(&mut self, record: Pushed) {
        self.ahead.push_back(record);
    }

    /// Loses its place: the last records come again.
    pub(super) fn crash(&mut self, records: usize) -> usize {
        let again = records.min(self.behind.len());
        for record in self.behind.drain(self.behind.len() - again..).rev() {
            self.ahead.push_front(record);
        }
        again
    }

    pub(super) fn next(&self) -> Option<&Pushed> {
        self.ahead.front()
    }

    /// The next record was dispatched: only now the position goes on.
    pub(super) fn taken(&mut self) {
        self.behind.extend(self.ahead.pop_front());
        if self.behind.len() > REPEATED_MAX {
            self.behind.pop_front();
        }
        self.refused = 0;
    }
}
