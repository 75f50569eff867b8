//! Percentiles by nearest rank: always a value that was measured.

use std::time::Duration;

/// Times in the order of their length.
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the time in milliseconds that `percent` of all do not exceed; 0 when there are none.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(times.percentile_ms(50), 100.0);
        assert_eq!(times.percentile_ms(99), 198.0);
        assert_eq!(times.percentile_ms(100), 200.0);
        assert_eq!(times.percentile_ms(0), 1.0);
        let one = Times::new(vec![Duration::from_millis(7)]);
        assert_eq!((one.count(), one.percentile_ms(99)), (1, 7.0));
        assert_eq!(Times::new(Vec::new()).percentile_ms(99), 0.0);
    }
}
