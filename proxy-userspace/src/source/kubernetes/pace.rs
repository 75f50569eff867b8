//! Not more requests than the API server should get from one node.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Lets `burst` requests through at once and then one an `interval`.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    slack: Duration,
    /// When the next request would be due if all were sent at the interval.
    due: Mutex<Instant>,
}

impl Pace {
    /// `qps` requests a second after the first `burst`; 0 or less is no limit.
    pub(super) fn new(qps: f32, burst: u32) -> Self {
        let interval = match qps > 0.0 {
            true => Duration::try_from_secs_f32(1.0 / qps).unwrap_or(Duration::ZERO),
            false => Duration::ZERO,
        };
        let slack = interval.saturating_mul(burst.max(1) - 1);
        Self { interval, slack, due: Mutex::new(Instant::now()) }
    }

    /// Waits until a request may be sent.
    pub(super) async fn wait(&self) {
        let start = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let mine = (*due).max(now);
            *due = mine + self.interval;
            mine.checked_sub(self.slack).unwrap_or(now)
        };
        if start > Instant::now() {
            sleep_until(start).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let pace = Pace::new(50.0, 5);
        let start = Instant::now();
        for _ in 0..5 {
            pace.wait().await;
        }
        assert!(start.elapsed() < Duration::from_millis(20), "the burst waited");
        for _ in 0..5 {
            pace.wait().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(95), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn without_a_rate_nothing_waits() {
        let pace = Pace::new(0.0, 0);
        let start = Instant::now();
        for _ in 0..1000 {
            pace.wait().await;
        }
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}
