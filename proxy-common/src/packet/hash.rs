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
}
