//! Scheduler `mh`: Maglev's table, as `ip_vs_mh.c` fills it.
//!
//! Each destination has its own order of all slots. In turns, and by weight, each takes its first slot
//! that nobody has, until none is left.

#[cfg(feature = "user")]
mod table;

use super::siphash::hsiphash;
#[cfg(feature = "user")]
pub use table::{Destination, Table, TooMany};

/// The key that a slot is found with, of a client as of a destination.
pub(super) const FIRST_KEY: [u64; 2] = [2_654_435_761; 2];
/// The key of the step from slot to slot.
#[cfg(any(feature = "user", test))]
pub(super) const SECOND_KEY: [u64; 2] = [2_654_446_892; 2];

/// The size of the kernel's table, which it was built with: `CONFIG_IP_VS_MH_TAB_INDEX`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Size {
    index: u8,
}

impl Size {
    /// The smallest index.
    pub const LEAST_INDEX: u8 = 8;
    /// The largest index.
    pub const MOST_INDEX: u8 = 17;
    /// What kernels have unless somebody chose another: index 12.
    pub const DEFAULT: Self = Self { index: 12 };

    /// Returns the size of an index; `None` when no kernel has it.
    pub const fn of_index(index: u8) -> Option<Self> {
        match index {
            Self::LEAST_INDEX..=Self::MOST_INDEX => Some(Self { index }),
            _ => None,
        }
    }

    /// Returns all sizes, the smallest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (Self::LEAST_INDEX..=Self::MOST_INDEX).map(|index| Self { index })
    }

    /// Returns the value of `CONFIG_IP_VS_MH_TAB_INDEX`.
    pub const fn index(self) -> u8 {
        self.index
    }

    /// Returns the number of slots, a prime.
    #[inline(always)]
    pub const fn slots(self) -> u32 {
        match self.index {
            8 => 251,
            9 => 509,
            10 => 1021,
            11 => 2039,
            12 => 4093,
            13 => 8191,
            14 => 16_381,
            15 => 32_749,
            16 => 65_521,
            _ => 131_071,
        }
    }

    /// Returns the slot of a client: the word of its address and, with `mh-port`, its port added.
    /// `offset` is 0, but in a search for another destination.
    #[inline(always)]
    pub fn slot(self, client: u32, offset: u32) -> u32 {
        slot_of(client, offset, self.slots())
    }
}

/// Returns the slot of a client in a table of so many slots: [`Size::slot`] for who has the number and
/// not the size. A table without slots has slot 0.
#[inline(always)]
pub fn slot_of(client: u32, offset: u32, slots: u32) -> u32 {
    hsiphash(offset.wrapping_add(client), FIRST_KEY).checked_rem(slots).unwrap_or(0)
}
