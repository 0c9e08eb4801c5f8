//! How many connections a shard takes in a time: a bucket that fills steadily and is emptied one by one.

/// Units of one accept: a rate in accepts per 1000 seconds fills so many of them in a millisecond.
const ACCEPT: u64 = 1_000_000;

/// A shard's part of the process' rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptRate {
    /// Accepts in 1000 seconds on average. 0: as many as come.
    pub per_1000_s: u64,
    /// Accepts at once, after a time without any; at least 1.
    pub burst: u32,
}

impl AcceptRate {
    /// The part of one shard of so many. 0 a second: no limit.
    pub fn share(per_second: u32, burst: u32, shards: u32) -> Self {
        let per_1000_s = u64::from(per_second) * 1000 / u64::from(shards.max(1));
        Self {
            per_1000_s: if per_second > 0 { per_1000_s.max(1) } else { 0 },
            burst: burst.div_ceil(shards.max(1)).max(1),
        }
    }
}

/// The bucket. Who arms an accept takes one out, and puts it back if nobody came.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: AcceptRate,
    level: u64,
    filled_ms: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: AcceptRate) -> Self {
        Self { rate, level: u64::from(rate.burst) * ACCEPT, filled_ms: 0 }
    }

    /// Another rate from now on. What was saved up stays, as far as the new burst allows.
    pub(super) fn set(&mut self, rate: AcceptRate) {
        let was_limited = self.rate.per_1000_s > 0;
        self.rate = rate;
        let most = u64::from(rate.burst) * ACCEPT;
        self.level = if was_limited { self.level.min(most) } else { most };
    }

    /// Fills it with what has come since the last time.
    pub(super) fn fill(&mut self, now_ms: u64) {
        let more = self.rate.per_1000_s.saturating_mul(now_ms.saturating_sub(self.filled_ms));
        self.filled_ms = now_ms;
        self.level = self.level.saturating_add(more).min(u64::from(self.rate.burst) * ACCEPT);
    }

    /// Whether there is one.
    pub(super) fn has(&self) -> bool {
        self.rate.per_1000_s == 0 || self.level >= ACCEPT
    }

    pub(super) fn take(&mut self) {
        self.level = self.level.saturating_sub(ACCEPT);
    }

    pub(super) fn give(&mut self) {
        self.level = (self.level + ACCEPT).min(u64::from(self.rate.burst) * ACCEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes all there are.
    fn empty(bucket: &mut Bucket) -> u64 {
        let mut taken = 0;
        while taken < 10_000 && bucket.has() {
            bucket.take();
            taken += 1;
        }
        taken
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(AcceptRate { per_1000_s: 50_000, burst: 7 });
        assert_eq!(empty(&mut bucket), 7);
        let mut taken = 0;
        for now_ms in 1..=2000 {
            bucket.fill(now_ms);
            taken += empty(&mut bucket);
        }
        assert_eq!(taken, 100, "fifty a second, however often it is looked at");
        bucket.fill(1_000_000);
        assert_eq!(empty(&mut bucket), 7, "not more than the burst after a long time");
        bucket.give();
        assert_eq!(empty(&mut bucket), 1);
    }

    #[test]
    fn without_a_rate_there_is_always_one() {
        assert_eq!(empty(&mut Bucket::new(AcceptRate::default())), 10_000);
        assert_eq!(AcceptRate::share(0, 0, 4).per_1000_s, 0);
    }

    #[test]
    fn shards_share_a_rate_and_each_has_some() {
        assert_eq!(AcceptRate::share(1000, 100, 4), AcceptRate { per_1000_s: 250_000, burst: 25 });
        assert_eq!(AcceptRate::share(1, 1, 64), AcceptRate { per_1000_s: 15, burst: 1 });
    }

    #[test]
    fn a_new_rate_begins_with_what_was_saved_or_its_burst() {
        let mut bucket = Bucket::new(AcceptRate { per_1000_s: 1000, burst: 9 });
        bucket.set(AcceptRate { per_1000_s: 1000, burst: 3 });
        assert_eq!(empty(&mut bucket), 3);
        bucket.set(AcceptRate { per_1000_s: 1000, burst: 9 });
        assert_eq!(empty(&mut bucket), 0);
        bucket.set(AcceptRate::default());
        bucket.set(AcceptRate { per_1000_s: 1000, burst: 2 });
        assert_eq!(empty(&mut bucket), 2);
    }
}
