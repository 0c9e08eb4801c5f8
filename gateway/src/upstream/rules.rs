//! Which operations are passed on, and how much of them: what a shard goes by. Time is an argument.

/// What a shard goes by; a reload replaces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Operations that are passed on: inclusive ranges.
    pub operations: Box<[(i32, i32)]>,
    /// Bytes of a message.
    pub message_bytes_max: u32,
    /// Messages of a connection a second on average. 0: as many as it likes.
    pub per_second: u32,
    /// Messages of a connection at once after a pause, at least 1.
    pub burst: u32,
    /// Messages of a connection without their answers, at least 1.
    pub connection_in_flight_max: u32,
}

impl Rules {
    /// Whether an operation is passed on.
    pub fn pass_on(&self, operation: i32) -> bool {
        self.operations.iter().any(|(first, last)| (*first..=*last).contains(&operation))
    }
}

/// How far a connection is ahead of its rate.
///
/// A message moves the moment at which the connection would have said as much as it may by `1 / per_second`. The moment may be
/// ahead of now by the burst.
#[derive(Clone, Copy, Debug, Default, bytemuck::Zeroable)]
pub struct Bucket {
    even_us: u64,
}

impl Bucket {
    /// Counts a message, if it is within the rate.
    pub fn take(&mut self, rules: &Rules, now_us: u64) -> bool {
        const SECOND_US: u64 = 1_000_000;
        if rules.per_second == 0 {
            return true;
        }
        let each_us = SECOND_US / u64::from(rules.per_second);
        let even_us = self.even_us.max(now_us);
        if even_us - now_us > each_us * u64::from(rules.burst - 1) {
            return false;
        }
        self.even_us = even_us + each_us;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(per_second: u32, burst: u32) -> Rules {
        let operations = Box::new([(4, 4), (1000, 1999)]);
        Rules { operations, message_bytes_max: 4096, per_second, burst, connection_in_flight_max: 1 }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_as_many_as_the_rate_says() {
        let (rules, mut bucket) = (rules(10, 3), Bucket::default());
        let passed = |bucket: &mut Bucket, now_us| (0..100).filter(|_| bucket.take(&rules, now_us)).count();
        assert_eq!(passed(&mut bucket, 5_000_000), 3);
        assert_eq!(passed(&mut bucket, 5_099_999), 0);
        assert_eq!(passed(&mut bucket, 5_100_000), 1);
        assert_eq!(passed(&mut bucket, 5_350_000), 2, "and no more than was missed");
        assert_eq!(passed(&mut bucket, 60_000_000), 3, "a long pause earns a burst and no more");
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let mut bucket = Bucket::default();
        assert!((0..1000).all(|_| bucket.take(&rules(0, 1), 7)));
    }

    #[test]
    fn operations_are_ranges_with_both_ends() {
        let rules = rules(1, 1);
        let passed: Vec<_> =
            [3, 4, 5, 999, 1000, 1500, 1999, 2000, -4].into_iter().filter(|n| rules.pass_on(*n)).collect();
        assert_eq!(passed, [4, 1000, 1500, 1999]);
    }
}
