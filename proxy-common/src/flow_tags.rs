//! The tags of a set of flows: which of its entries a flow's can be, without a look at them. `flow_place`
//! says why they lie apart.

use crate::flow_place::WAYS;

const BITS: usize = u8::BITS as usize;
/// Of each byte, the lowest bit.
const EACH: u32 = 0x0101_0101;
/// Of each byte, the highest bit.
const HIGHEST: u32 = EACH << 7;
/// Of each byte, its number from the highest.
const NUMBERS: u32 = 0x0001_0203;

/// A byte for each entry, the first in the lowest; 0 where there was never a flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tags(pub u32);

/// Entries of a set.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// The highest bit of the byte of each that is left.
    left: u32,
}

impl Tags {
    /// Returns the entries that have this tag.
    #[inline(always)]
    pub fn of(self, tag: u8) -> Ways {
        const { assert!(WAYS == size_of::<u32>()) };
        let differs = self.0 ^ (u32::from(tag) * EACH);
        // The sum has the highest bit of a byte if one below it is set; none is carried over.
        let low = (differs & !HIGHEST) + !HIGHEST;
        Ways { left: !(low | differs) & HIGHEST }
    }

    /// Says whether there was never a flow in the entry.
    #[inline(always)]
    pub fn is_unused(self, way: usize) -> bool {
        self.0 & (0xff << (way * BITS)) == 0
    }
}

impl Ways {
    /// Returns the first that is left, and takes it away.
    #[inline(always)]
    pub fn take(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let lowest = self.left & self.left.wrapping_neg();
        self.left ^= lowest;
        // The number of its byte comes to lie in the highest byte.
        Some(((lowest >> 7).wrapping_mul(NUMBERS) >> 24) as usize)
    }
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_tag_names_the_entries_that_have_it(tags in any::<[u8; WAYS]>(), tag: u8, same: [bool; WAYS]) {
            let tags: [u8; WAYS] = std::array::from_fn(|way| if same[way] { tag } else { tags[way] });
            let mut ways = Tags(u32::from_le_bytes(tags)).of(tag);
            let named: Vec<_> = std::iter::from_fn(|| ways.take()).collect();
            let expected: Vec<_> = (0..WAYS).filter(|way| tags[*way] == tag).collect();
            prop_assert_eq!(named, expected);
        }

        #[test]
        fn an_entry_with_a_tag_is_used(mut tags in any::<[u8; WAYS]>(), way in 0..WAYS) {
            tags[way] = tags[way].max(1);
            prop_assert!(!Tags(u32::from_le_bytes(tags)).is_unused(way));
            tags[way] = 0;
            prop_assert!(Tags(u32::from_le_bytes(tags)).is_unused(way));
        }
    }
}
