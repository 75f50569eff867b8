//! Values of a tree as the types of the settings.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;

use super::{duration::GoDuration, problem::Fault, tree::Value};
use crate::model::{Scheduler, SchedulerFlags};

/// IPVS counts in ticks of a kernel with 1000 a second, in 31 bits (`ip_vs_set_timeout`).
const MAX_KERNEL_SECS: u64 = (i32::MAX / 1000) as u64;

fn wrong_type(value: &Value, expected: &'static str) -> Fault {
    Fault::WrongType { found: value.to_string(), kind: value.kind(), expected }
}

/// Reads a string.
pub(super) fn text(value: &Value) -> Result<&str, Fault> {
    match value {
        Value::Text(text) => Ok(text.trim()),
        other => Err(wrong_type(other, "a string")),
    }
}

/// Says whether a text can be the pattern of interface names.
pub(super) fn is_pattern(name: &str) -> bool {
    !name.is_empty() && name.matches('*').count() <= 1
}

/// Reads `true` or `false`.
pub(super) fn flag(value: &Value) -> Result<bool, Fault> {
    match value {
        Value::Flag(flag) => Ok(*flag),
        other => Err(wrong_type(other, "true or false")),
    }
}

/// Reads a whole number.
pub(super) fn whole<T>(value: &Value, range: RangeInclusive<T>) -> Result<T, Fault>
where
    T: TryFrom<i128> + PartialOrd + fmt::Display,
{
    let Value::Whole(number) = value else { return Err(wrong_type(value, "a whole number")) };
    match T::try_from(*number) {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(Fault::OutOfRange {
            found: number.to_string(),
            lowest: range.start().to_string(),
            highest: range.end().to_string(),
        }),
    }
}

/// Reads a number of 0 or more.
pub(super) fn rate(value: &Value) -> Result<f32, Fault> {
    let number = match value {
        Value::Whole(number) => *number as f32,
        Value::Fraction(number) => *number as f32,
        other => return Err(wrong_type(other, "a number")),
    };
    if number.is_finite() && number >= 0.0 {
        return Ok(number);
    }
    let (lowest, highest) = ("0".to_owned(), f32::MAX.to_string());
    Err(Fault::OutOfRange { found: value.to_string(), lowest, highest })
}

/// Reads a time.
pub(super) fn time(value: &Value) -> Result<Duration, Fault> {
    match value {
        Value::Text(text) => Ok(text.trim().parse::<GoDuration>()?.0),
        Value::Whole(0) => Ok(Duration::ZERO),
        Value::Whole(number) => Ok(number.to_string().parse::<GoDuration>()?.0),
        other => Err(wrong_type(other, "a time such as 30s")),
    }
}

/// Reads a time above 0.
pub(super) fn period(value: &Value) -> Result<Duration, Fault> {
    match time(value)? {
        Duration::ZERO => Err(Fault::OutOfRange {
            found: value.to_string(),
            lowest: "1ns".into(),
            highest: "292 years".into(),
        }),
        period => Ok(period),
    }
}

/// Reads a timeout of the kernel, which counts in seconds: 0 leaves it as it is.
pub(super) fn timeout(value: &Value) -> Result<Option<Duration>, Fault> {
    let timeout = time(value)?;
    match timeout.as_secs() {
        _ if timeout.is_zero() => Ok(None),
        1..=MAX_KERNEL_SECS => Ok(Some(timeout)),
        _ => Err(Fault::OutOfRange {
            found: value.to_string(),
            lowest: "1s, or 0 to leave it as it is,".into(),
            highest: GoDuration(Duration::from_secs(MAX_KERNEL_SECS)).to_string(),
        }),
    }
}

/// Returns the items of a list of strings.
pub(super) fn texts(value: &Value) -> Result<Vec<&str>, Fault> {
    match value {
        Value::List(nodes) => nodes.iter().map(|node| text(&node.value)).collect(),
        other => Err(wrong_type(other, "a list of strings")),
    }
}

/// Reads an IP address.
pub(super) fn address(value: &Value) -> Result<IpAddr, Fault> {
    parse(text(value)?, "an IP address such as 192.0.2.1")
}

/// Reads an address range; bits beyond the prefix are dropped, as Go does.
pub(super) fn cidr(text: &str) -> Result<IpNet, Fault> {
    let cidr: IpNet = parse(text, "a CIDR such as 10.244.0.0/16 or fd00::/64")?;
    Ok(cidr.trunc())
}

/// Reads a list of address ranges.
pub(super) fn cidrs(value: &Value) -> Result<Vec<IpNet>, Fault> {
    texts(value)?.into_iter().map(cidr).collect()
}

/// Reads an address with a port, or an address alone for the given port.
pub(super) fn socket_address(value: &Value, port: u16) -> Result<SocketAddr, Fault> {
    let text = text(value)?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(addr) = bare.parse::<IpAddr>() {
        return Ok((addr, port).into());
    }
    let expected = "an IP address with a port, such as 0.0.0.0:10256 or [::]:10256";
    let address: SocketAddr = parse(text, expected)?;
    match address.port() {
        0 => Err(Fault::UnknownValue { found: text.to_owned(), expected }),
        _ => Ok(address),
    }
}

/// Reads the name of a network interface, or the beginning of one.
pub(super) fn interface(value: &Value) -> Result<String, Fault> {
    let text = text(value)?;
    let fits = !text.is_empty()
        && text.len() <= 15
        && !text.contains(|character: char| character.is_whitespace() || "/:".contains(character));
    if fits {
        return Ok(text.to_owned());
    }
    let expected = "an interface name of 1 to 15 bytes";
    Err(Fault::UnknownValue { found: text.to_owned(), expected })
}

/// Reads one of a fixed set of words.
pub(super) fn choice<T: Copy>(
    value: &Value,
    choices: &[(&str, T)],
    expected: &'static str,
) -> Result<T, Fault> {
    let text = text(value)?;
    choices
        .iter()
        .find_map(|(word, choice)| (*word == text).then_some(*choice))
        .ok_or_else(|| Fault::UnknownValue { found: text.to_owned(), expected })
}

/// The bits of a scheduler's flags in a virtual server: `IP_VS_SVC_F_SCHED1` and `2`.
fn scheduler_flags(scheduler: Scheduler) -> &'static [(&'static str, u32)] {
    match scheduler {
        Scheduler::Mh => &[("mh-fallback", 0x08), ("mh-port", 0x10)],
        Scheduler::Sh => &[("sh-fallback", 0x08), ("sh-port", 0x10)],
        _ => &[],
    }
}

/// Reads a scheduler with its flags, such as `mh,mh-port`.
pub(super) fn scheduler(text: &str) -> Result<(Scheduler, SchedulerFlags), Fault> {
    let mut words = text.split(',').map(str::trim);
    let scheduler = Scheduler::from_str(words.next().unwrap_or_default())?;
    let known = scheduler_flags(scheduler);
    let mut flags = SchedulerFlags::default();
    for word in words {
        let bit = known.iter().find_map(|(name, bit)| (*name == word).then_some(*bit));
        flags.0 |= bit.ok_or_else(|| Fault::SchedulerFlag {
            scheduler,
            found: word.to_owned(),
            cure: match scheduler {
                Scheduler::Mh => "write mh-fallback or mh-port",
                Scheduler::Sh => "write sh-fallback or sh-port",
                _ => "only sh and mh have flags: remove it",
            },
        })?;
    }
    Ok((scheduler, flags))
}

/// Prints a scheduler with its flags.
pub(super) fn scheduler_text((scheduler, flags): (Scheduler, SchedulerFlags)) -> String {
    let set = scheduler_flags(scheduler).iter().filter(|(_, bit)| flags.0 & bit != 0);
    set.fold(scheduler.to_string(), |text, (name, _)| text + "," + name)
}

fn parse<T: FromStr>(text: &str, expected: &'static str) -> Result<T, Fault> {
    text.parse().map_err(|_| Fault::UnknownValue { found: text.to_owned(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn a_scheduler_may_have_its_own_flags_only() {
        assert_eq!(scheduler("wlc").unwrap(), (Scheduler::Wlc, SchedulerFlags(0)));
        let both = (Scheduler::Mh, SchedulerFlags(0x18));
        assert_eq!(scheduler("mh,mh-port, mh-fallback").unwrap(), both);
        assert_eq!(scheduler(&scheduler_text(both)).unwrap(), both);
        let message = |text| scheduler(text).unwrap_err().to_string();
        assert_eq!(
            message("sh,mh-port"),
            "scheduler sh has no flag \"mh-port\"; write sh-fallback or sh-port"
        );
        assert_eq!(
            message("rr,rr-port"),
            "scheduler rr has no flag \"rr-port\"; only sh and mh have flags: remove it"
        );
        assert!(message("random").starts_with("unknown scheduler \"random\": use one of rr, wrr"));
    }

    #[test]
    fn a_socket_address_may_leave_its_port_out() {
        let read = |text| socket_address(&value(text), 10256).map(|address| address.to_string());
        assert_eq!(read("127.0.0.1").unwrap(), "127.0.0.1:10256");
        assert_eq!(read("127.0.0.1:80").unwrap(), "127.0.0.1:80");
        assert_eq!(read("::").unwrap(), "[::]:10256");
        assert_eq!(read("[::1]").unwrap(), "[::1]:10256");
        assert_eq!(read("[::1]:99").unwrap(), "[::1]:99");
        for text in ["localhost:80", ":80", "1.2.3.4:0", "1.2.3.4:70000", "x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn timeouts_of_the_kernel_are_whole_seconds_within_its_limits() {
        assert_eq!(timeout(&value("0s")).unwrap(), None);
        assert_eq!(timeout(&Value::Whole(0)).unwrap(), None);
        assert_eq!(timeout(&value("15m")).unwrap(), Some(Duration::from_secs(900)));
        for text in ["500ms", "600h"] {
            let message = timeout(&value(text)).unwrap_err().to_string();
            assert!(message.ends_with("write 1s, or 0 to leave it as it is, to 596h31m23s"));
        }
        let message = timeout(&Value::Whole(30)).unwrap_err().to_string();
        assert_eq!(message, "\"30\" has no unit; write 30s for seconds");
    }

    #[test]
    fn a_range_loses_the_bits_beyond_its_prefix() {
        assert_eq!(cidr("10.244.1.7/16").unwrap().to_string(), "10.244.0.0/16");
        assert_eq!(
            cidr("10.244.1.7").unwrap_err().to_string(),
            "unknown value \"10.244.1.7\"; write a CIDR such as 10.244.0.0/16 or fd00::/64"
        );
    }
}
