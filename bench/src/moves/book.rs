//! What clients that come and go are owed, message by message.

use crate::offered::Offered;
use crate::schedule::Schedule;

/// Which messages of a pass clients are owed: those due strictly between the moment a client has
/// read the answer to its login and the moment it leaves.
pub(crate) struct Book {
    schedule: Schedule,
    stays: Vec<Stay>,
    /// Change of the number of clients that are owed a message, against the message before it.
    owed: Vec<i64>,
    /// Clients that have had a message they are owed.
    arrived: Vec<u32>,
}

/// Messages from (included) to (excluded) that a client is owed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Stay {
    from: u32,
    /// `OPEN` while it stays.
    to: u32,
}

const OPEN: u32 = u32::MAX;

impl Book {
    pub(super) fn new(schedule: Schedule, clients: usize) -> Self {
        let messages = schedule.count as usize;
        Self {
            schedule,
            stays: vec![Stay::default(); clients],
            owed: vec![0; messages + 1],
            arrived: vec![0; messages],
        }
    }

    /// A client is there from now on.
    pub(crate) fn enter(&mut self, client: u32, now_ns: u64) {
        let from = self.schedule.due_by(now_ns);
        self.stays[client as usize] = Stay { from, to: OPEN };
        self.owed[from as usize] += 1;
    }

    pub(super) fn leave(&mut self, client: u32, now_ns: u64) {
        if self.is_open(client) {
            let stay = &mut self.stays[client as usize];
            stay.to = self.schedule.due_before(now_ns).max(stay.from);
            self.owed[stay.to as usize] -= 1;
        }
    }

    /// A client is gone: what comes before the next one in its place has logged in is owed to nobody.
    pub(super) fn vacate(&mut self, client: u32, now_ns: u64) {
        self.leave(client, now_ns);
        self.stays[client as usize] = Stay::default();
    }

    pub(super) fn is_open(&self, client: u32) -> bool {
        self.stays[client as usize].to == OPEN
    }

    /// The first message that a client is owed.
    pub(crate) fn from(&self, client: u32) -> u32 {
        self.stays[client as usize].from
    }

    /// Whether a client that should leave has had all it is owed.
    pub(crate) fn is_complete(&self, client: u32, received: u32) -> bool {
        let Stay { from, to } = self.stays[client as usize];
        to != OPEN && received >= to - from
    }

    /// Whether a client is owed a message.
    #[inline]
    pub(crate) fn owes(&self, client: u32, sequence: u32) -> bool {
        let Stay { from, to } = self.stays[client as usize];
        (from..to).contains(&sequence)
    }

    /// A message that is owed has come, for the first time.
    #[inline]
    pub(crate) fn arrived(&mut self, sequence: u32) {
        self.arrived[sequence as usize] += 1;
    }

    /// Deliveries owed, lost, and made although the server had refused the message, if only what
    /// was offered counts.
    pub(crate) fn settle(&self, offered: &Offered) -> (u64, u64, u64) {
        let (mut owed, mut lost, mut despite) = (0, 0, 0);
        let mut present = 0;
        for (sequence, (change, arrived)) in (0..offered.messages_in(0)).zip(self.owed.iter().zip(&self.arrived)) {
            present += change;
            let arrived = u64::from(*arrived);
            if offered.refused_in(0).binary_search(&sequence).is_ok() {
                despite += arrived;
            } else {
                owed += present.unsigned_abs();
                lost += present.unsigned_abs().saturating_sub(arrived);
            }
        }
        (owed, lost, despite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Ten messages, one a second, the first at second 10.
    fn schedule() -> Schedule {
        Schedule { run: 1, start_ns: 10 * SECOND, interval_ns: SECOND, count: 10, rooms: 1 }
    }

    #[test]
    fn a_client_is_owed_what_is_due_strictly_between_login_and_leave() {
        let mut book = Book::new(schedule(), 4);
        book.enter(0, 9 * SECOND); // before the first
        book.enter(1, 12 * SECOND); // at the moment of message 2: owed from 3
        book.leave(1, 15 * SECOND); // at the moment of message 5: owed to 4
        book.enter(2, 13 * SECOND + 1);
        book.leave(2, 13 * SECOND + 2); // nothing is due between
        book.enter(3, 25 * SECOND); // after the last
        for (client, owed) in [(0, 0..10), (1, 3..5), (2, 4..4), (3, 10..10)] {
            let owes: Vec<u32> = (0..10).filter(|sequence| book.owes(client, *sequence)).collect();
            assert_eq!(owes, owed.collect::<Vec<u32>>(), "client {client}");
        }
        assert!(book.is_complete(1, 2) && !book.is_complete(1, 1) && book.is_complete(2, 0));
        let offered = |messages: u32, refused: &[u32]| {
            let mut offered = Offered::nothing(1);
            offered.let_out(0, messages - 1);
            for place in refused {
                offered.refuse(0, *place);
            }
            offered
        };
        assert_eq!(book.settle(&offered(10, &[])), (12, 12, 0));
        for sequence in [0, 3, 3, 4, 9] {
            book.arrived(sequence);
        }
        assert_eq!(book.settle(&offered(10, &[])), (12, 7, 0));
        assert_eq!(book.settle(&offered(10, &[4])), (10, 6, 1), "a refused message is not owed");
        assert_eq!(book.settle(&offered(4, &[])), (5, 2, 0), "nor is one that was not let out");
    }

    #[test]
    fn who_has_a_place_after_another_is_not_owed_what_that_one_was() {
        let mut book = Book::new(schedule(), 1);
        book.enter(0, 9 * SECOND);
        book.vacate(0, 15 * SECOND);
        assert!(!book.owes(0, 3));
        book.enter(0, 16 * SECOND);
        assert!(!book.owes(0, 3) && !book.owes(0, 6) && book.owes(0, 7));
    }
}
