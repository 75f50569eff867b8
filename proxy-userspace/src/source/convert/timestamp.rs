//! RFC 3339 timestamps, as the API server writes them.

use std::time::{Duration, SystemTime};

/// Returns the seconds since 1970-01-01T00:00:00Z; fractions are cut off. `None` if the text is
/// no timestamp.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let [year, month, day] = numbers(date, '-')?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let [hour, minute, second] =
        numbers(clock.split_once('.').map_or(clock, |(clock, _)| clock), ':')?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        // 60 is a leap second.
        && (0..=60).contains(&second);
    let days = days_since_1970(year, month, day);
    valid.then_some(days * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone)?)
}

/// Returns the moment, to the nanosecond. `None` if the text is no timestamp, or before 1970.
pub(super) fn moment(text: &str) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds(text)?).ok()?;
    let digits = text.split_once('.').map_or("", |(_, rest)| rest);
    let digits = digits.bytes().take_while(u8::is_ascii_digit).take(9);
    let (nanoseconds, _) = digits.fold((0, 100_000_000), |(sum, weight), digit| {
        (sum + u32::from(digit - b'0') * weight, weight / 10)
    });
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

/// Returns the seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let [hours, minutes] = numbers(zone.get(1..)?, ':')?;
    Some(sign * (hours * 3_600 + minutes * 60))
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let parse = |part: &str| {
        let digits =
            (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        if digits { part.parse().ok() } else { None }
    };
    text.split(separator).map(parse).collect::<Option<Vec<i64>>>()?.try_into().ok()
}

/// Days in the proleptic Gregorian calendar, counted in years that begin in March so that the
/// leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719_468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::{moment, seconds};
    use std::time::{Duration, SystemTime};

    #[test]
    fn timestamps_are_read() {
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2026-01-31T12:00:00.123456Z"), Some(1_769_860_800));
        assert_eq!(seconds("2026-01-31T13:00:00+01:00"), Some(1_769_860_800));
        assert_eq!(seconds("1969-12-31T23:59:59Z"), Some(-1));
    }

    #[test]
    fn a_moment_has_its_fraction() {
        let after = |text| moment(text)?.duration_since(SystemTime::UNIX_EPOCH).ok();
        assert_eq!(after("1970-01-01T00:00:01Z"), Some(Duration::from_secs(1)));
        assert_eq!(after("1970-01-01T00:00:01.5Z"), Some(Duration::from_millis(1500)));
        let nanoseconds = Duration::new(3600, 123_456_789);
        assert_eq!(after("1970-01-01T00:00:00.1234567891-01:00"), Some(nanoseconds));
        assert_eq!(after("1969-12-31T23:59:59Z"), None);
    }

    #[test]
    fn other_texts_are_not() {
        for text in ["", "2026-01-31", "2026-01-31T12:00:00", "2026-13-01T00:00:00Z", "aTbZ"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
