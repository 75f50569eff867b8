//! A hash for direct-mapped tables. It need not resist an attacker: a collision there only delays
//! learning.

use crate::abi::{Addr, FlowKey};

/// Returns a 32-bit hash of a flow key, whose addresses are folded into a word each by `word`.
#[inline(always)]
pub fn flow<A: Addr>(key: &FlowKey<A>, word: impl Fn(A) -> u32) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b1;
    let ports = u32::from(key.source_port) << 16 | u32::from(key.destination_port);
    let mut hash = word(key.source).wrapping_mul(GOLDEN);
    hash = (hash.rotate_left(13) ^ word(key.destination)).wrapping_mul(GOLDEN);
    hash = (hash.rotate_left(13) ^ ports).wrapping_mul(GOLDEN);
    hash =
        (hash.rotate_left(13) ^ key.interface ^ u32::from(key.protocol) << 24).wrapping_mul(GOLDEN);
    hash ^ hash >> 15
}

/// Returns a 32-bit hash of an address, by words as they lie in a packet, with a port in host order and
/// the protocol's number. Its upper bits are the better ones.
#[inline(always)]
pub fn socket(addr: &[u32], port: u16, protocol: u8) -> u32 {
    const GOLDEN: u32 = 0x9e37_79b1;
    let mut hash = (u32::from(port) | u32::from(protocol) << 16).wrapping_mul(GOLDEN);
    for word in addr {
        hash = (hash.rotate_left(13) ^ word).wrapping_mul(GOLDEN);
    }
    (hash ^ hash >> 15).wrapping_mul(GOLDEN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn neighbouring_ports_spread_over_the_table() {
        let slots: HashSet<u32> = (0..4096u16)
            .map(|port| {
                let key =
                    FlowKey { source: [10, 0, 0, 1], source_port: port, ..FlowKey::default() };
                flow(&key, u32::from_ne_bytes) & 0x3fff
            })
            .collect();
        assert!(slots.len() > 3000, "{} slots for 4096 flows", slots.len());
    }

    #[test]
    fn sockets_of_a_cluster_seldom_share_a_bit() {
        // Addresses of pods and VIPs differ in their last bytes, which are the upper ones of a word.
        let sockets = (0..65_536_u32).map(|index| {
            let [.., high, low] = index.to_be_bytes();
            socket(&[u32::from_ne_bytes([10, 96, high, low])], 80, 6) >> 12
        });
        let bits: HashSet<u32> = sockets.collect();
        // At random 63,500 of 2^20 are different.
        assert!(bits.len() > 60_000, "{} bits for 65536 sockets", bits.len());
        let ports: HashSet<u32> =
            (0..4096).map(|port| socket(&[0x0a00_0001], port, 17) >> 12).collect();
        assert!(ports.len() > 4000, "{} bits for 4096 ports", ports.len());
    }
}
