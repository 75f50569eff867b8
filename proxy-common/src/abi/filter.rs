//! What is certainly no Service: most packets of a node, which are told from the others by two bits
//! instead of two look-ups.

use super::{MapSpec, layout::abi_struct};
use crate::packet::hash;

abi_struct! {
    /// Bits of the filter.
    pub struct FilterBlock (256) {
        /// 64 bits each.
        pub words: [u64; 32],
    }
}

/// A bit for each frontend and backend, of both families; many more bits than there are of these. A
/// bit that is not set says that there is none; one that is set says nothing.
pub const FILTER: MapSpec = MapSpec {
    name: "filter",
    kind: super::ARRAY,
    key_size: 4,
    value_size: size_of::<FilterBlock>() as u32,
    max_entries: 512,
};

/// The place of a bit in the filter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FilterBit {
    /// Index of the block.
    pub block: u32,
    /// Index of the word in it.
    pub word: u32,
    /// Index of the bit in that, from the lowest.
    pub bit: u32,
}

impl FilterBit {
    /// Returns the bit of a frontend or backend: an address by words as they lie in a packet, a port in
    /// host order, the protocol's number.
    #[inline(always)]
    pub fn of(addr: &[u32], port: u16, protocol: u8) -> Self {
        let hash = hash::socket(addr, port, protocol);
        Self { block: hash >> 23, word: hash >> 18 & 31, bit: hash >> 12 & 63 }
    }
}

const _: () = assert!(FILTER.max_entries == 1 << 9, "nine bits of the hash are the block");
