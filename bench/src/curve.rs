//! A count over time, in few enough points to be drawn.

use serde::ser::{Serialize, SerializeStruct, Serializer};

/// Points kept; with more, every second one goes.
const POINTS_MAX: usize = 600;

/// A count that grows, looked at now and then.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Seconds since the beginning, and the count.
    points: Vec<(f64, u64)>,
    every_s: f64,
}

/// As two columns, `seconds` and `clients`.
impl Serialize for Curve {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let rounded = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
        let (seconds, clients): (Vec<f64>, Vec<u64>) =
            self.points.iter().map(|(seconds, clients)| (rounded(*seconds), *clients)).unzip();
        let mut columns = out.serialize_struct("Curve", 2)?;
        columns.serialize_field("seconds", &seconds)?;
        columns.serialize_field("clients", &clients)?;
        columns.end()
    }
}

impl Default for Curve {
    fn default() -> Self {
        Self { points: Vec::new(), every_s: 0.02 }
    }
}

impl Curve {
    /// Takes a look; most of those that follow closely on another are left out.
    pub fn take(&mut self, seconds: f64, count: u64) {
        if self.points.last().is_some_and(|(last, _)| seconds - last < self.every_s) {
            return;
        }
        self.points.push((seconds, count));
        if self.points.len() > POINTS_MAX {
            self.every_s *= 2.0;
            let mut place = 0;
            self.points.retain(|_| {
                place += 1;
                place % 2 == 1
            });
        }
    }

    /// The least and the most per second over tenths of the time; none without a time to speak of.
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    pub fn rates(&self) -> Option<(f64, f64)> {
        let &(start, _) = self.points.first()?;
        let &(end, _) = self.points.last()?;
        let tenth = (end - start) / 10.0;
        if tenth <= self.every_s {
            return None;
        }
        let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
        let mut before = *self.points.first()?;
        for &(seconds, count) in &self.points {
            if seconds - before.0 >= tenth {
                let rate = count.saturating_sub(before.1) as f64 / (seconds - before.0);
                (least, most) = (least.min(rate), most.max(rate));
                before = (seconds, count);
            }
        }
        Some((least, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_few_points_and_its_rates() {
        let mut curve = Curve::default();
        for step in 0..100_000_u32 {
            let seconds = f64::from(step) / 100.0;
            // Twice as fast in the second half.
            let count = if step < 50_000 { step } else { 50_000 + (step - 50_000) * 2 };
            curve.take(seconds, u64::from(count));
        }
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&curve.points.len()), "{}", curve.points.len());
        let (least, most) = curve.rates().unwrap();
        assert!((least - 100.0).abs() < 1.0 && (most - 200.0).abs() < 1.0, "{least} {most}");
    }

    #[test]
    fn a_moment_has_no_rate() {
        let mut curve = Curve::default();
        assert_eq!(curve.rates(), None);
        curve.take(0.0, 5);
        curve.take(0.05, 9);
        assert_eq!(curve.rates(), None);
    }
}
