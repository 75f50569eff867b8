//! Times as Go's `time.ParseDuration` reads them, and as `metav1.Duration` prints them.

use std::{fmt, str::FromStr, time::Duration};

/// The longest time Go knows, `math.MaxInt64` nanoseconds: 292 years.
const MAX_NANOS: u128 = i64::MAX as u128;
/// Digits after the point that are looked at; a nanosecond of an hour has 13.
const FRACTION_DIGITS: usize = 18;

/// A time as Kubernetes writes it: `30s`, `1m`, `2h22m`, `1.5h`, `100ms`, `0`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct GoDuration(pub Duration);

/// A text that is no such time.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ParseDurationError {
    /// Neither number nor unit.
    #[error("{found:?} is not a time; write one such as 30s, 1m or 2h22m")]
    NotATime {
        /// The text.
        found: String,
    },
    /// A number alone.
    #[error("{found:?} has no unit; write {found}s for seconds")]
    NoUnit {
        /// The text.
        found: String,
    },
    /// A unit that Go does not know.
    #[error("{found:?} has the unknown unit {unit:?}; write h, m, s, ms, us or ns")]
    UnknownUnit {
        /// The text.
        found: String,
        /// The unit.
        unit: String,
    },
    /// Less than nothing.
    #[error("{found:?} is negative; write 0 or more")]
    Negative {
        /// The text.
        found: String,
    },
    /// Longer than Go can say.
    #[error("{found:?} is longer than 292 years; write less")]
    TooLong {
        /// The text.
        found: String,
    },
}

impl FromStr for GoDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = || text.to_owned();
        if text.starts_with('-') && text != "-" {
            return Err(ParseDurationError::Negative { found: found() });
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(ParseDurationError::NotATime { found: found() });
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let (number, after) = split(rest, is_of_number);
            let (unit, after) = split(after, |character| !is_of_number(character));
            let unit_nanos = match (nanos_of(unit), unit) {
                (Some(nanos), _) => nanos,
                (None, "") => return Err(ParseDurationError::NoUnit { found: found() }),
                (None, _) if number.is_empty() => {
                    return Err(ParseDurationError::NotATime { found: found() });
                }
                (None, unit) => {
                    let unit = unit.to_owned();
                    return Err(ParseDurationError::UnknownUnit { found: found(), unit });
                }
            };
            let part = times(number, unit_nanos)
                .ok_or_else(|| ParseDurationError::NotATime { found: found() })?;
            nanos = nanos.saturating_add(part);
            if nanos > MAX_NANOS {
                return Err(ParseDurationError::TooLong { found: found() });
            }
            rest = after;
        }
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Ok(Self(Duration::from_nanos(nanos)))
    }
}

fn is_of_number(character: char) -> bool {
    character.is_ascii_digit() || character == '.'
}

/// Splits before the first character that is not taken.
fn split(text: &str, taken: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|character| !taken(character)).unwrap_or(text.len()))
}

fn nanos_of(unit: &str) -> Option<u128> {
    match unit {
        "ns" => Some(1),
        // Go takes the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000),
        "m" => Some(60 * 1_000_000_000),
        "h" => Some(3600 * 1_000_000_000),
        _ => None,
    }
}

/// Multiplies a decimal number; what is less than a nanosecond is dropped. `None` when it is no
/// number.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than a u64 has are longer than 292 years in any unit.
    let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u64::MAX) };
    let fraction = fraction.get(..FRACTION_DIGITS.min(fraction.len())).unwrap_or_default();
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    Some(u128::from(whole).saturating_mul(unit).saturating_add(fraction * unit / scale))
}

/// Prints as Go does: `1h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        let (unit, name) = match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => (1, "ns"),
            1_000..1_000_000 => (1_000, "\u{b5}s"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        let rest = nanos - u128::from(seconds - seconds % 60) * 1_000_000_000;
        let digits = unit.to_string().len() - 1;
        let fraction = format!("{:0digits$}", rest % unit);
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{}{name}", rest / unit),
            fraction => write!(f, "{}.{fraction}{name}", rest / unit),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Duration, ParseDurationError> {
        text.parse::<GoDuration>().map(|duration| duration.0)
    }

    #[test]
    fn times_are_read_as_go_reads_them() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("+0", 0),
            ("30s", 30_000),
            ("+5s", 5_000),
            ("1m", 60_000),
            ("2h22m", (2 * 60 + 22) * 60_000),
            ("1.5h", 90 * 60_000),
            (".5s", 500),
            ("5.s", 5_000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1s1m", 61_000),
            ("24h0m0s", 24 * 3_600_000),
            ("0.100000000000000000000h", 360_000),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text:?}");
        }
        for text in ["7us", "7\u{b5}s", "7\u{3bc}s"] {
            assert_eq!(parse(text), Ok(Duration::from_micros(7)), "{text:?}");
        }
        assert_eq!(parse("7ns"), Ok(Duration::from_nanos(7)));
    }

    #[test]
    fn what_is_no_time_is_explained() {
        let cases = [
            ("", "\"\" is not a time; write one such as 30s, 1m or 2h22m"),
            ("s", "\"s\" is not a time; write one such as 30s, 1m or 2h22m"),
            (".s", "\".s\" is not a time; write one such as 30s, 1m or 2h22m"),
            ("1.2.3s", "\"1.2.3s\" is not a time; write one such as 30s, 1m or 2h22m"),
            ("soon", "\"soon\" is not a time; write one such as 30s, 1m or 2h22m"),
            ("30", "\"30\" has no unit; write 30s for seconds"),
            ("1m30", "\"1m30\" has no unit; write 1m30s for seconds"),
            ("3d", "\"3d\" has the unknown unit \"d\"; write h, m, s, ms, us or ns"),
            ("1 s", "\"1 s\" has the unknown unit \" s\"; write h, m, s, ms, us or ns"),
            ("-1s", "\"-1s\" is negative; write 0 or more"),
            ("3000000h", "\"3000000h\" is longer than 292 years; write less"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text:?}");
        }
        let long = "9".repeat(80) + "h";
        assert!(matches!(parse(&long), Err(ParseDurationError::TooLong { .. })));
    }

    #[test]
    fn times_print_as_go_prints_them() {
        for text in
            ["0s", "5ns", "1.5\u{b5}s", "250ms", "30s", "1.5s", "1m0s", "2h22m0s", "24h0m0s"]
        {
            assert_eq!(text.parse::<GoDuration>().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos in 0..=i64::MAX as u64) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC*") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
