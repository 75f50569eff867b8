//! Times as Go prints them, which is what kube-proxy's answers hold.

use std::time::{Duration, SystemTime};

const DAY_SECS: u64 = 86_400;

/// Returns the time in UTC, as `2026-11-21 06:15:00.5 +0000 UTC`. No time is Go's zero time.
pub(super) fn go_time(time: Option<SystemTime>) -> String {
    let Some(time) = time else { return "0001-01-01 00:00:00 +0000 UTC".to_owned() };
    // A clock before 1970 is not set.
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, secs) = (since.as_secs() / DAY_SECS, since.as_secs() % DAY_SECS);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    let fraction = format!(".{:09}", since.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

/// Year, month and day in the Gregorian calendar, `days` after 1970-01-01. Years begin in March
/// here, so that the leap day is the last of its year, and come in cycles of 400.
fn date(days: u64) -> (u64, u64, u64) {
    // 719_468 days lie between 0000-03-01 and 1970-01-01, 146_097 in a cycle.
    let days = days + 719_468;
    let (cycle, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (cycle * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_as_go_does() {
        let at = |nanos| go_time(Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)));
        assert_eq!(at(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(at(951_827_696_120_000_000), "2000-02-29 12:34:56.12 +0000 UTC");
        assert_eq!(at(1_769_860_800_000_000_001), "2026-01-31 12:00:00.000000001 +0000 UTC");
        assert_eq!(at(4_102_444_799_000_000_000), "2099-12-31 23:59:59 +0000 UTC");
        assert_eq!(go_time(None), "0001-01-01 00:00:00 +0000 UTC");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for days in 1..60_000 {
            let (year, month, day) = date(days);
            let next_day = (year, month) == (last.0, last.1) && day == last.2 + 1;
            let next_month = day == 1 && last.2 >= 28 && (month == last.1 + 1 || month == 1);
            assert!(next_day || next_month, "{last:?} then {:?}", (year, month, day));
            last = (year, month, day);
        }
    }
}
