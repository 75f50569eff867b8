//! IP addresses, read strictly: what two programs may read differently is an error.

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
};

use super::{super::Fault, scope::Scope};
use crate::source::manifest::Leaf;

/// Returns the address of a single host in a leaf, or reports why there is none.
pub(super) fn host(
    scope: &mut Scope<'_>,
    node: &Leaf,
    text: &str,
    field: impl Display,
) -> Option<IpAddr> {
    match parse(text) {
        Ok(addr) => Some(addr),
        Err(fault) => {
            scope.report(node.referenced, field, fault);
            None
        }
    }
}

fn parse(text: &str) -> Result<IpAddr, Fault> {
    let found = || text.to_owned();
    let Ok(addr) = text.parse::<IpAddr>() else {
        return Err(match without_leading_zeros(text) {
            Some(plain) => Fault::LeadingZeros { found: found(), plain },
            None => Fault::NotAnAddress { found: found() },
        });
    };
    if let IpAddr::V6(addr) = addr
        && let Some(plain) = addr.to_ipv4_mapped()
    {
        return Err(Fault::MappedAddress { found: found(), plain });
    }
    match unusable(addr) {
        Some(kind) => Err(Fault::UnusableAddress { addr, kind }),
        None => Ok(addr),
    }
}

/// Returns the address that a text with leading zeros means if its parts are decimal.
fn without_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let parts: Option<Vec<u8>> = text
        .split('.')
        .map(|part| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if digits { part.parse().ok() } else { None }
        })
        .collect();
    <[u8; 4]>::try_from(parts?).ok().map(Ipv4Addr::from)
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

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn leading_zeros_are_an_error_with_the_decimal_reading_as_cure() {
        let error = parse("010.96.0.01").unwrap_err();
        assert_eq!(error.to_string(), "\"010.96.0.01\" has leading zeros; write 10.96.0.1");
    }

    #[test]
    fn what_is_no_address_of_a_host_is_an_error() {
        for text in ["", "10.96.0", "10.96.0.256", "10.96.0.1/32", "0.0.0.0", "127.0.0.1", "::1"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["224.0.0.1", "255.255.255.255", "::ffff:10.0.0.1", "ff02::1", "host"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_of_hosts_are_read() {
        for text in ["10.96.0.1", "169.254.20.10", "fd00::1"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }
}
