//! How long to wait after an error.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Before the first retry: an API server that restarts is back in seconds.
const FIRST: Duration = Duration::from_millis(200);
/// Between retries at most.
const LONGEST: Duration = Duration::from_secs(15);
/// An error after this long without one is a new trouble.
const CALM: Duration = Duration::from_secs(60);

/// Waits that double, with jitter: the agents of a cluster do not come back as one.
#[derive(Debug)]
pub(super) struct Backoff {
    delays: ExponentialBackoff,
    last: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delays: delays(), last: None }
    }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(FIRST)
        .with_max_delay(LONGEST)
        .with_jitter()
        .without_max_times()
        .build()
}

impl Backoff {
    /// Returns how long to wait after an error that comes now.
    pub(super) fn after_error(&mut self) -> Duration {
        let now = Instant::now();
        let calm = self.last.is_some_and(|last| now.duration_since(last) > CALM + LONGEST);
        self.last = Some(now);
        if calm {
            self.delays = delays();
        }
        // The iterator has no end.
        self.delays.next().unwrap_or(LONGEST)
    }

    /// Notes that it went well.
    pub(super) fn reset(&mut self) {
        if self.last.take().is_some() {
            self.delays = delays();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again_when_it_went_well() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.after_error()).collect();
        for (number, wait) in waits.iter().enumerate() {
            let least = (FIRST * 2u32.pow(number as u32)).min(LONGEST);
            assert!((least..=least * 2).contains(wait), "wait {number} is {wait:?}");
        }
        backoff.reset();
        assert!(backoff.after_error() <= FIRST * 2);
    }

    #[test]
    fn two_agents_do_not_wait_equally_long() {
        let sum = || {
            let mut backoff = Backoff::default();
            (0..8).map(|_| backoff.after_error()).sum::<Duration>()
        };
        assert_ne!(sum(), sum());
    }
}
