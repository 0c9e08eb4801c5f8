//! What a pass did over time: deliveries and latencies second by second, in little memory.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::clients::latency_histogram;

/// Seconds with a row of their own; in longer passes two rows become one.
const ROWS_MAX: usize = 600;

/// Parts of each power of two: a value is known to one part in 16.
const PARTS: usize = 16;

/// Values of 2^27 microseconds (two minutes) and more share the last bucket.
const BUCKETS: usize = 24 * PARTS;

const SECOND_NS: u64 = 1_000_000_000;

/// Latencies in microseconds: of the whole pass, exact to three digits, and second by second.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Of the whole pass.
    pub all_us: Histogram<u64>,
    /// By the second of their arrival.
    pub over_time: Intervals,
}

/// Values in microseconds, by the second in which they were seen.
#[derive(Clone, Debug)]
pub struct Intervals {
    start_ns: u64,
    step_ns: u64,
    rows: Vec<Row>,
    /// The row of the last value, and the time that it covers.
    at: usize,
    from_ns: u64,
    until_ns: u64,
}

#[derive(Clone, Debug)]
struct Row {
    count: u64,
    max_us: u64,
    buckets: Box<[u32; BUCKETS]>,
}

/// One column for each question, one place for each interval.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Columns {
    /// Seconds of an interval; the first begins when the first message is due.
    pub step_s: f64,
    /// Values a second.
    pub per_s: Vec<f64>,
    /// Median in milliseconds; none where there was no value.
    pub p50_ms: Vec<Option<f64>>,
    /// 99th percentile.
    pub p99_ms: Vec<Option<f64>>,
    /// The greatest, exactly.
    pub worst_ms: Vec<Option<f64>>,
}

impl Latencies {
    /// None yet, of a pass that begins at `start_ns`.
    pub fn new(start_ns: u64) -> Self {
        Self { all_us: latency_histogram(), over_time: Intervals::new(start_ns) }
    }

    /// Takes one.
    #[inline]
    pub fn record(&mut self, at_ns: u64, us: u64) {
        self.all_us.saturating_record(us);
        self.over_time.record(at_ns, us);
    }

    /// Adds those of another thread.
    #[allow(clippy::expect_used, reason = "all are made with the same bounds")]
    pub fn add(&mut self, other: Self) {
        self.all_us.add(other.all_us).expect("same bounds");
        self.over_time.add(other.over_time);
    }
}

impl Intervals {
    /// None yet; the first interval begins at `start_ns`.
    pub fn new(start_ns: u64) -> Self {
        Self { start_ns, step_ns: SECOND_NS, rows: Vec::new(), at: 0, from_ns: 0, until_ns: 0 }
    }

    /// Takes a value seen at `at_ns`; what was seen before the start belongs to the first interval.
    #[inline]
    pub fn record(&mut self, at_ns: u64, value_us: u64) {
        self.record_n(at_ns, value_us, 1);
    }

    /// Takes as many equal values.
    #[inline]
    pub fn record_n(&mut self, at_ns: u64, value_us: u64, values: u64) {
        if at_ns < self.from_ns || at_ns >= self.until_ns {
            self.turn_to(at_ns);
        }
        let row = &mut self.rows[self.at];
        row.count += values;
        row.max_us = row.max_us.max(value_us);
        let bucket = &mut row.buckets[bucket(value_us)];
        *bucket = bucket.saturating_add(u32::try_from(values).unwrap_or(u32::MAX));
    }

    #[cold]
    fn turn_to(&mut self, at_ns: u64) {
        let since_ns = at_ns.saturating_sub(self.start_ns);
        while since_ns / self.step_ns >= ROWS_MAX as u64 {
            self.coarsen();
        }
        let index = since_ns / self.step_ns;
        self.at = usize::try_from(index).unwrap_or(0); // below ROWS_MAX
        if self.rows.len() <= self.at {
            self.rows.resize_with(self.at + 1, Row::empty);
        }
        self.from_ns = if index == 0 { 0 } else { self.start_ns + index * self.step_ns };
        self.until_ns = self.start_ns + (index + 1) * self.step_ns;
    }

    /// Two intervals become one.
    fn coarsen(&mut self) {
        let pairs = self.rows.chunks(2).map(|pair| {
            let mut row = pair[0].clone();
            if let Some(second) = pair.get(1) {
                row.add(second);
            }
            row
        });
        self.rows = pairs.collect();
        self.step_ns *= 2;
        (self.from_ns, self.until_ns) = (0, 0);
    }

    /// Adds what another one saw from the same start.
    pub fn add(&mut self, mut other: Self) {
        while self.step_ns < other.step_ns {
            self.coarsen();
        }
        while other.step_ns < self.step_ns {
            other.coarsen();
        }
        if self.rows.len() < other.rows.len() {
            self.rows.resize_with(other.rows.len(), Row::empty);
        }
        for (row, more) in self.rows.iter_mut().zip(&other.rows) {
            row.add(more);
        }
    }

    /// What is published of it; none if there was no value.
    #[allow(clippy::cast_precision_loss, reason = "times and counts of a run")]
    pub fn columns(&self) -> Option<Columns> {
        let step_s = self.step_ns as f64 / SECOND_NS as f64;
        let ms = |value: fn(&Row) -> Option<u64>| {
            self.rows.iter().map(|row| value(row).map(|us| us as f64 / 1000.0)).collect()
        };
        (!self.rows.is_empty()).then(|| Columns {
            step_s,
            per_s: self.rows.iter().map(|row| row.count as f64 / step_s).collect(),
            p50_ms: ms(|row| row.at(50)),
            p99_ms: ms(|row| row.at(99)),
            worst_ms: ms(|row| (row.count > 0).then_some(row.max_us)),
        })
    }
}

impl Row {
    fn empty() -> Self {
        Self { count: 0, max_us: 0, buckets: Box::new([0; BUCKETS]) }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            *bucket = bucket.saturating_add(*more);
        }
    }

    /// The upper end of the bucket in which so many percent of the values are reached.
    fn at(&self, percent: u64) -> Option<u64> {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let reached = |count: &u32| {
            seen += u64::from(*count);
            seen >= wanted
        };
        let bucket = self.buckets.iter().position(reached)?;
        (self.count > 0).then(|| upper_end(bucket).min(self.max_us))
    }
}

/// Below 16 each value has a bucket, above it each sixteenth of a power of two.
#[inline]
fn bucket(us: u64) -> usize {
    let us = usize::try_from(us).unwrap_or(usize::MAX).min((1 << 27) - 1);
    let shift = (us | PARTS).ilog2() - PARTS.ilog2();
    shift as usize * PARTS + (us >> shift)
}

fn upper_end(bucket: usize) -> u64 {
    let shift = (bucket / PARTS).saturating_sub(1);
    (((bucket - shift * PARTS + 1) << shift) - 1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_lies_up_to_its_upper_end() {
        for us in (0..5000).chain([65_535, 65_536, (1 << 27) - 1]) {
            let end = upper_end(bucket(us));
            assert!(end >= us && end - us <= us / 16, "{us} is in the bucket up to {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn each_second_has_its_own_percentiles() {
        let mut seen = Intervals::new(5 * SECOND_NS);
        for us in 1..=100 {
            seen.record(5 * SECOND_NS + us, us * 1000);
        }
        seen.record(7 * SECOND_NS, 40);
        let columns = seen.columns().unwrap();
        assert_eq!(columns.per_s, [100.0, 0.0, 1.0]);
        assert_eq!(columns.worst_ms, [Some(100.0), None, Some(0.04)]);
        let p50 = columns.p50_ms[0].unwrap();
        assert!((50.0..54.0).contains(&p50), "{p50}");
        assert_eq!(columns.p50_ms[1..], [None, Some(0.04)]);
    }

    #[test]
    fn a_long_pass_keeps_every_value_in_a_bounded_number_of_rows() {
        let mut seen = Intervals::new(0);
        for second in 0..3000 {
            seen.record(second * SECOND_NS, 7);
        }
        let columns = seen.columns().unwrap();
        assert!(columns.per_s.len() <= ROWS_MAX);
        assert!((columns.per_s.iter().sum::<f64>() * columns.step_s - 3000.0).abs() < 1e-6);
    }

    #[test]
    fn threads_that_saw_different_lengths_add_up() {
        let (mut long, mut short) = (Intervals::new(0), Intervals::new(0));
        (0..2000).for_each(|second| long.record(second * SECOND_NS, 1));
        (0..10).for_each(|second| short.record(second * SECOND_NS, 1));
        short.add(long.clone());
        long.add(Intervals::new(0));
        let sum = |seen: &Intervals| seen.columns().map(|columns| columns.per_s.iter().sum::<f64>() * columns.step_s);
        assert_eq!(sum(&short), Some(2010.0));
        assert_eq!(sum(&long), Some(2000.0));
        assert!(Intervals::new(0).columns().is_none());
    }
}
