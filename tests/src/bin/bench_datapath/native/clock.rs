//! Clocks.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Nanoseconds of CPU time of this thread.
pub(super) fn cpu() -> f64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

/// Nanoseconds since some moment.
pub(super) fn wall() -> f64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

fn nanoseconds(time: Timespec) -> f64 {
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}
