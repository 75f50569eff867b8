//! Numbers that stand for what tables hold. Those of entries are added up, so that their order does
//! not matter; they find accidents, not forgeries.

use std::net::IpAddr;

/// Takes a word up into a number (the finalizer of splitmix64).
pub fn mix(number: u64, word: u64) -> u64 {
    let mut z = (number ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

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

        #[test]
        fn order_counts_where_words_are_taken_up_one_after_the_other(a: u64, b: u64) {
            prop_assume!(a != b);
            prop_assert_ne!(mix(mix(0, a), b), mix(mix(0, b), a));
        }
    }
}
