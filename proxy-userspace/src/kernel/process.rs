//! What this process uses.

use std::{
    fs, io,
    time::{Duration, SystemTime},
};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    time::{ClockId, clock_gettime},
};

/// What this process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// CPU, of the kernel and of itself.
    pub cpu: Duration,
    /// Bytes of memory that it holds.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_files: u64,
    /// When it started.
    pub started_at: SystemTime,
}

impl Usage {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// `/proc` is not there, or says something else.
    pub fn read() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat")?;
        let (ticks, start) = times(&stat).ok_or(io::ErrorKind::InvalidData)?;
        let statm = fs::read_to_string("/proc/self/statm")?;
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
        let since_boot = clock_gettime(ClockId::Boottime);
        let since_boot = Duration::new(since_boot.tv_sec.unsigned_abs(), 0)
            + Duration::from_nanos(since_boot.tv_nsec.unsigned_abs());
        let age = since_boot.saturating_sub(of_ticks(start));
        Ok(Self {
            cpu: of_ticks(ticks),
            resident_bytes: pages * page_size() as u64,
            open_files: fs::read_dir("/proc/self/fd")?.count() as u64,
            started_at: SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// Returns the ticks used, and those from the boot to the start. The name may have spaces in it, and
/// brackets: what counts comes after the last one.
fn times(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((number(11)? + number(12)?, number(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 4711 1 2 3";
        assert_eq!(times(stat), Some((200, 4711)));
    }

    #[test]
    fn this_process_is_young_and_has_files_open() {
        let usage = Usage::read().unwrap();
        let age = SystemTime::now().duration_since(usage.started_at).unwrap();
        assert!(age < Duration::from_secs(3600), "{age:?}");
        assert!(usage.open_files >= 3 && usage.resident_bytes > 1 << 20, "{usage:?}");
    }
}
