//! Nanoseconds a packet, measured many times.

/// The least and the median of what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cost {
    pub(crate) min: f64,
    pub(crate) median: f64,
}

impl Cost {
    /// Sums up what was measured; there is at least one value.
    pub(crate) fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let at = |index: usize| times.get(index).copied().unwrap_or(f64::NAN);
        let middle = times.len() / 2;
        let median = match times.len() % 2 {
            0 => f64::midpoint(at(middle.wrapping_sub(1)), at(middle)),
            _ => at(middle),
        };
        Self { min: at(0), median }
    }

    /// What is left of it without `other`: minimum without minimum, median without median.
    pub(crate) fn without(self, other: Self) -> Self {
        Self { min: self.min - other.min, median: self.median - other.median }
    }

    /// Half of it.
    pub(crate) fn half(self) -> Self {
        Self { min: self.min / 2.0, median: self.median / 2.0 }
    }

    /// Both together.
    pub(crate) fn with(self, other: Self) -> Self {
        Self { min: self.min + other.min, median: self.median + other.median }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_minimum_do_not_depend_on_the_order() {
        assert_eq!(Cost::of(vec![3.0, 1.0, 2.0]), Cost { min: 1.0, median: 2.0 });
        assert_eq!(Cost::of(vec![4.0, 1.0, 2.0, 3.0]), Cost { min: 1.0, median: 2.5 });
        assert_eq!(Cost::of(vec![7.0]), Cost { min: 7.0, median: 7.0 });
    }

    #[test]
    fn costs_are_subtracted_like_from_like() {
        let (all, part) = (Cost { min: 30.0, median: 50.0 }, Cost { min: 10.0, median: 20.0 });
        assert_eq!(all.without(part), Cost { min: 20.0, median: 30.0 });
        assert_eq!(all.without(part).with(part), all);
        assert_eq!(all.half(), Cost { min: 15.0, median: 25.0 });
    }
}
