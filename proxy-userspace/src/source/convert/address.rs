//! IP addresses and ranges of them.
//!
//! In files they are read strictly: what two programs may read differently is an error. In stored
//! objects they are read as the API server did when it took them, long before it became strict
//! (KEP-4858): leading zeros are decimal, and IPv4 in IPv6 clothes is IPv4.

use std::{fmt::Display, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_saphyr::Location;

use super::{super::Fault, Strictness, scope::Scope};
use crate::source::manifest::Leaf;

/// Returns the address of a single host in a leaf, or reports why there is none.
pub(super) fn host(
    scope: &mut Scope<'_>,
    node: &Leaf,
    text: &str,
    field: impl Display,
) -> Option<IpAddr> {
    found(scope, node.referenced, field, parse_host(text, scope.strictness()))
}

/// Returns the address of a host that is not on the local link: those belong to the node, as that
/// of a cloud's metadata service, and the API server refuses them as external IPs and endpoints.
pub(super) fn remote_host(
    scope: &mut Scope<'_>,
    node: &Leaf,
    text: &str,
    field: impl Display,
) -> Option<IpAddr> {
    let addr = parse_host(text, scope.strictness()).and_then(|addr| {
        let on_link = match addr {
            IpAddr::V4(addr) => addr.is_link_local(),
            IpAddr::V6(addr) => addr.is_unicast_link_local(),
        };
        let kind = "a link-local address, which is another host on every link";
        if on_link { Err(Fault::UnusableAddress { addr, kind }) } else { Ok(addr) }
    });
    found(scope, node.referenced, field, addr)
}

/// Returns a range of addresses, or reports why there is none.
pub(super) fn range(
    scope: &mut Scope<'_>,
    at: Location,
    text: &str,
    field: impl Display,
) -> Option<IpNet> {
    found(scope, at, field, parse_range(text, scope.strictness()))
}

fn found<T>(
    scope: &mut Scope<'_>,
    at: Location,
    field: impl Display,
    result: Result<T, Fault>,
) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(fault) => {
            scope.report(at, field, fault);
            None
        }
    }
}

/// Reads the address of a single host.
pub(super) fn parse_host(text: &str, strictness: Strictness) -> Result<IpAddr, Fault> {
    let addr = parse(text, strictness)?;
    match unusable(addr) {
        Some(kind) => Err(Fault::UnusableAddress { addr, kind }),
        None => Ok(addr),
    }
}

fn parse(text: &str, strictness: Strictness) -> Result<IpAddr, Fault> {
    let found = || text.to_owned();
    let (addr, plain) = match text.parse::<IpAddr>() {
        Ok(addr) => (addr, false),
        Err(_) => match without_leading_zeros(text) {
            Some(addr) => (addr, true),
            None => return Err(Fault::NotAnAddress { found: found() }),
        },
    };
    let canonical = addr.to_canonical();
    match (strictness, canonical) {
        (Strictness::Strict, plain_addr) if plain => {
            Err(Fault::LeadingZeros { found: found(), plain: plain_addr })
        }
        (Strictness::Strict, IpAddr::V4(plain)) if addr.is_ipv6() => {
            Err(Fault::MappedAddress { found: found(), plain })
        }
        _ => Ok(canonical),
    }
}

/// Returns the address that a text with leading zeros means if its parts are decimal.
fn without_leading_zeros(text: &str) -> Option<IpAddr> {
    let (v6, v4) = match text.rfind(':') {
        Some(colon) => text.split_at(colon + 1),
        None => ("", text),
    };
    let parts: Option<Vec<u8>> = v4.split('.').map(decimal).collect();
    let [a, b, c, d] = parts?.try_into().ok()?;
    format!("{v6}{a}.{b}.{c}.{d}").parse().ok()
}

/// Reads digits, and nothing else: the standard library allows a sign.
fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

fn unusable(addr: IpAddr) -> Option<&'static str> {
    if addr.is_unspecified() {
        return Some("the unspecified address");
    }
    if addr.is_loopback() {
        return Some("a loopback address");
    }
    if addr.is_multicast() {
        return Some("a multicast address");
    }
    matches!(addr, IpAddr::V4(addr) if addr.is_broadcast()).then_some("the broadcast address")
}

fn parse_range(text: &str, strictness: Strictness) -> Result<IpNet, Fault> {
    let Some(net) = sloppy_range(text) else {
        return Err(Fault::NotARange { found: text.to_owned() });
    };
    let plain = net.trunc();
    // Only a text with one reading is also read this way; `08` and `+8` are not.
    let strictly = text.split_once('/').is_some_and(|(addr, length)| {
        addr.parse() == Ok(plain.addr()) && length == plain.prefix_len().to_string()
    });
    match strictness {
        Strictness::Strict if !strictly => {
            Err(Fault::AmbiguousRange { found: text.to_owned(), plain })
        }
        _ => Ok(plain),
    }
}

fn sloppy_range(text: &str) -> Option<IpNet> {
    let (addr, length) = text.split_once('/')?;
    let addr = addr.parse().ok().or_else(|| without_leading_zeros(addr))?;
    let length = decimal(length)?;
    let IpAddr::V6(v6) = addr else { return IpNet::new(addr, length).ok() };
    match v6.to_ipv4_mapped() {
        Some(v4) => Ipv4Net::new(v4, length.checked_sub(96)?).ok().map(IpNet::V4),
        None => Ipv6Net::new(v6, length).ok().map(IpNet::V6),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::{IpNet, Ipv4Net, Strictness::Stored, Strictness::Strict, parse_host, parse_range};

    #[test]
    fn leading_zeros_are_an_error_with_the_decimal_reading_as_cure() {
        let error = parse_host("010.96.0.01", Strict).unwrap_err();
        assert_eq!(error.to_string(), "\"010.96.0.01\" has leading zeros; write 10.96.0.1");
    }

    #[test]
    fn what_is_no_address_of_a_host_is_an_error() {
        for strictness in [Strict, Stored] {
            for text in
                ["", "10.96.0", "10.96.0.256", "10.96.0.1/32", "0.0.0.0", "127.0.0.1", "::1"]
            {
                assert!(parse_host(text, strictness).is_err(), "{text}");
            }
            for text in ["224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "ff02::1", "host"] {
                assert!(parse_host(text, strictness).is_err(), "{text}");
            }
            for text in ["+10.0.0.1", "10.0.0.1 ", "10..0.1", "10.0.0.0x1", "fe80::1%eth0", "1:2"] {
                assert!(parse_host(text, strictness).is_err(), "{text}");
            }
        }
        assert!(parse_host("::ffff:10.0.0.1", Strict).is_err());
    }

    #[test]
    fn addresses_of_hosts_are_read() {
        for strictness in [Strict, Stored] {
            for text in ["10.96.0.1", "169.254.20.10", "fd00::1"] {
                assert_eq!(parse_host(text, strictness).unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn stored_addresses_are_read_as_the_api_server_took_them() {
        for (text, addr) in [
            ("010.096.000.009", "10.96.0.9"),
            ("0000010.96.0.1", "10.96.0.1"),
            ("::ffff:10.96.0.1", "10.96.0.1"),
            ("::ffff:010.096.0.1", "10.96.0.1"),
            ("FD00:0::0001", "fd00::1"),
        ] {
            assert_eq!(parse_host(text, Stored).unwrap().to_string(), addr, "{text}");
        }
    }

    #[test]
    fn ranges_are_read() {
        for strictness in [Strict, Stored] {
            for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.7/32", "fd00::/8", "::/0"] {
                assert_eq!(parse_range(text, strictness).unwrap().to_string(), text);
            }
        }
    }

    #[test]
    fn a_range_with_several_readings_is_an_error_in_a_file_and_read_when_it_is_stored() {
        for (text, plain) in [
            ("010.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/08", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("fd00::1/8", "fd00::/8"),
        ] {
            let error = parse_range(text, Strict).unwrap_err().to_string();
            assert!(error.ends_with(&format!("; write {plain}")), "{text}: {error}");
            assert_eq!(parse_range(text, Stored).unwrap().to_string(), plain, "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_an_error_in_both() {
        for strictness in [Strict, Stored] {
            for text in ["", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "/8", "a/8"] {
                assert!(parse_range(text, strictness).is_err(), "{text}");
            }
            // Wider than all of IPv4: no IPv4 range says this.
            for text in ["::ffff:0.0.0.0/95", "fd00::/129", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0"] {
                assert!(parse_range(text, strictness).is_err(), "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_number_of_leading_zeros_is_the_same_address(
            octets in any::<[u8; 4]>(),
            zeros in any::<[bool; 4]>(),
            length in 0..=32_u8,
        ) {
            let parts = octets.iter().zip(zeros);
            let parts = parts.map(|(octet, zero)| if zero { format!("00{octet}") } else { octet.to_string() });
            let text = format!("{}/{length}", parts.collect::<Vec<_>>().join("."));
            let plain = Ipv4Net::new(Ipv4Addr::from(octets), length).unwrap();
            let stored = parse_range(&text, Stored).unwrap();
            prop_assert_eq!(stored, IpNet::V4(plain.trunc()));
            let unambiguous = zeros == [false; 4] && plain == plain.trunc();
            prop_assert_eq!(parse_range(&text, Strict).is_ok(), unambiguous);
        }
    }
}
