//! Addresses and ports as the schedulers see them: one word each.

use core::net::IpAddr;

/// Address family of a virtual server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Returns the family of an address.
    pub fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// Returns the word of an IPv4 address, which is in network order.
#[inline(always)]
pub fn ipv4(addr: [u8; 4]) -> u32 {
    u32::from_be_bytes(addr)
}

/// Returns the word of an IPv6 address, which is in network order.
#[inline(always)]
pub fn ipv6(addr: [u8; 16]) -> u32 {
    let bits = u128::from_be_bytes(addr);
    (bits ^ bits >> 32 ^ bits >> 64 ^ bits >> 96) as u32
}

/// Returns the word of an address in a virtual server of that family. A destination behind a tunnel may
/// be of the other: the kernel then reads its address as if it were not.
pub fn word(addr: IpAddr, family: Family) -> u32 {
    match (addr, family) {
        // The other words of its address are 0.
        (IpAddr::V4(addr), _) => ipv4(addr.octets()),
        (IpAddr::V6(addr), Family::Ipv6) => ipv6(addr.octets()),
        (IpAddr::V6(addr), Family::Ipv4) => (u128::from_be_bytes(addr.octets()) >> 96) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_word() {
        let v6: IpAddr = "2001:db8:1::5".parse().unwrap();
        assert_eq!(word([10, 1, 10, 10].into(), Family::Ipv4), 0x0a01_0a0a);
        assert_eq!(word(v6, Family::Ipv6), 0x2001_0db8 ^ 0x0001_0000 ^ 5);
        assert_eq!(word(v6, Family::Ipv4), 0x2001_0db8);
        assert_eq!(word([10, 1, 10, 10].into(), Family::Ipv6), 0x0a01_0a0a);
    }
}
