//! Waiting for a state, always with a deadline. The only place of the harness that sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a state of the node may take to come: generous, because an emulated guest is slow
/// and a state that comes earlier ends the wait earlier.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Pause between two looks, at least: looking may not take the time of what is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// The pace of a client that keeps a flow alive without filling the machine.
pub const BREATH: Duration = Duration::from_millis(10);

/// Returns the first value `look` finds.
///
/// A look that errs counts as "not yet"; the last error is part of the message when `limit` is
/// over.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let looking = Instant::now();
        let last = match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= limit {
            let cause = last.map_or_else(String::new, |error| format!(": {error:#}"));
            return Err(anyhow!("waited {limit:?} in vain until {what}{cause}"));
        }
        std::thread::sleep(PAUSE.max(looking.elapsed()));
    }
}

/// Sleeps: the pace of a client that asks on, never a wait for a state.
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Waits until `holds` says true.
pub fn until_true(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, || Ok(holds()?.then_some(())))
}

/// Repeats `step` at `interval` for `duration`, or until a step errs: traffic that keeps a flow
/// alive without filling the machine. Returns the number of steps.
pub fn paced(
    duration: Duration,
    interval: Duration,
    mut step: impl FnMut() -> Result<()>,
) -> Result<u64> {
    let start = Instant::now();
    let mut steps = 0;
    while start.elapsed() < duration {
        step()?;
        steps += 1;
        std::thread::sleep(interval);
    }
    Ok(steps)
}
