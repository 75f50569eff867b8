//! Numbers that stand for what tables hold. Those of entries are added up, so that their order does
//! not matter; they find accidents, not forgeries.

use std::net::IpAddr;

pub use proxy_common::fingerprint::mix;

/// Takes an address up.
pub fn mix_addr(number: u64, addr: IpAddr) -> u64 {
    match addr {
        IpAddr::V4(addr) => mix(mix(number, 4), addr.to_bits().into()),
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            mix(mix(mix(number, 6), bits as u64), (bits >> 64) as u64)
        }
    }
}

/// Takes address, port and protocol number of something up.
pub fn of_socket(addr: IpAddr, port: u16, protocol: u8) -> u64 {
    mix(mix_addr(1, addr), u64::from(port) << 8 | u64::from(protocol))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sockets_that_differ_have_other_numbers(
            one: (IpAddr, u16, u8), other: (IpAddr, u16, u8),
        ) {
            let number = |(addr, port, protocol)| of_socket(addr, port, protocol);
            prop_assert_eq!(number(one) == number(other), one == other);
        }
    }
}
