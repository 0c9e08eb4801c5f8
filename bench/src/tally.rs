//! Which messages of a pass a client has had: loss, repetition and order, exactly.

use std::collections::HashMap;

/// One client's place in the sequence.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// The highest sequence seen, and one.
    next: u32,
    /// Different messages seen.
    received: u32,
    /// Sum of their latencies in microseconds.
    latency_us: u64,
}

/// What a message was to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Later than all before it.
    InOrder,
    /// Seen for the first time, but after a later one.
    Reordered,
    /// Seen before.
    Duplicate,
}

/// Sequences below `next` that have not come, per client, as half-open ranges in order. Only
/// clients that miss something have an entry.
#[derive(Debug, Default)]
pub struct Gaps(HashMap<u32, Vec<(u32, u32)>>);

impl Tally {
    /// Of a client that is owed nothing before this message.
    pub fn starting_at(sequence: u32) -> Self {
        Self { next: sequence, ..Self::default() }
    }

    /// Takes a message of the pass.
    #[inline]
    pub fn take(&mut self, gaps: &mut Gaps, client: u32, sequence: u32, latency_us: u64) -> Verdict {
        if sequence >= self.next {
            if sequence > self.next {
                gaps.0.entry(client).or_default().push((self.next, sequence));
            }
            self.next = sequence + 1;
            self.received += 1;
            self.latency_us += latency_us;
            return Verdict::InOrder;
        }
        if gaps.fill(client, sequence) {
            self.received += 1;
            self.latency_us += latency_us;
            Verdict::Reordered
        } else {
            Verdict::Duplicate
        }
    }

    /// Different messages seen.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Mean latency in microseconds of the messages seen, none if there are none.
    pub fn latency_us_mean(&self) -> Option<u64> {
        self.latency_us.checked_div(u64::from(self.received))
    }

    /// How many of `offered` messages never came, not counting the `refused` (in order) ones.
    pub fn missing(&self, gaps: &Gaps, client: u32, offered: u32, refused: &[u32]) -> u32 {
        let tail = (self.next, offered.max(self.next));
        let holes = gaps.0.get(&client).map_or(&[][..], Vec::as_slice);
        holes.iter().chain([&tail]).map(|&(from, to)| to - from - within(refused, from, to)).sum()
    }

    /// How many of the `refused` (in order) messages came all the same.
    pub fn refused_but_received(&self, gaps: &Gaps, client: u32, refused: &[u32]) -> u32 {
        let holes = gaps.0.get(&client).map_or(&[][..], Vec::as_slice);
        let absent: u32 = holes.iter().map(|&(from, to)| within(refused, from, to)).sum();
        within(refused, 0, self.next) - absent
    }
}

impl Gaps {
    /// Forgets what a client has missed: its place is another's.
    pub fn forget(&mut self, client: u32) {
        self.0.remove(&client);
    }

    /// Takes `sequence` out of the gaps of `client`; whether it was in one.
    fn fill(&mut self, client: u32, sequence: u32) -> bool {
        let Some(holes) = self.0.get_mut(&client) else { return false };
        let place = holes.partition_point(|&(_, to)| to <= sequence);
        let Some(&(from, to)) = holes.get(place) else { return false };
        if sequence < from {
            return false;
        }
        let parts = [(from, sequence), (sequence + 1, to)];
        holes.splice(place..=place, parts.into_iter().filter(|(from, to)| from < to));
        true
    }
}

/// How many of `sorted` lie in `from..to`.
fn within(sorted: &[u32], from: u32, to: u32) -> u32 {
    let below = |limit| sorted.partition_point(|&sequence| sequence < limit);
    u32::try_from(below(to) - below(from)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[u32]) -> (Tally, Gaps, Vec<Verdict>) {
        let (mut tally, mut gaps) = (Tally::default(), Gaps::default());
        let verdicts = sequences.iter().map(|&sequence| tally.take(&mut gaps, 7, sequence, 10)).collect();
        (tally, gaps, verdicts)
    }

    #[test]
    fn loss_repetition_and_order_are_told_apart() {
        use Verdict::{Duplicate, InOrder, Reordered};
        let (tally, gaps, verdicts) = run(&[0, 2, 1, 2, 1, 6, 4, 4]);
        let expected = [InOrder, InOrder, Reordered, Duplicate, Duplicate, InOrder, Reordered, Duplicate];
        assert_eq!(verdicts, expected);
        assert_eq!(tally.received(), 5);
        assert_eq!(tally.missing(&gaps, 7, 9, &[]), 4, "3, 5, 7 and 8");
        assert_eq!(tally.latency_us_mean(), Some(10));
    }

    #[test]
    fn refused_messages_are_not_missed_and_noticed_if_they_come() {
        let (tally, gaps, _) = run(&[0, 2, 5]);
        assert_eq!(tally.missing(&gaps, 7, 8, &[3, 6]), 3, "1, 4 and 7");
        assert_eq!(tally.refused_but_received(&gaps, 7, &[2, 3, 6]), 1);
    }

    #[test]
    fn every_order_of_every_subset_adds_up() {
        for mask in 0..64_u32 {
            let mut sequences: Vec<u32> = (0..6).filter(|bit| mask & 1 << bit != 0).collect();
            let different = u32::try_from(sequences.len()).unwrap();
            sequences.reverse();
            let (tally, gaps, _) = run(&sequences);
            assert_eq!(tally.received() + tally.missing(&gaps, 7, 6, &[]), 6);
            assert_eq!(tally.received(), different);
        }
    }

    #[test]
    fn a_client_that_received_nothing_missed_everything() {
        let (tally, gaps, _) = run(&[]);
        assert_eq!(tally.missing(&gaps, 7, 5, &[4]), 4);
        assert_eq!(tally.latency_us_mean(), None);
    }
}
