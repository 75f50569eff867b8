//! What the fast path carried, by frontend and backend: what IPVS would have counted.

use super::layout::abi_struct;

abi_struct! {
    /// A frontend and one of the backends behind it.
    pub struct Pair (8) {
        /// Frontend id; 0 in a slot that holds nothing.
        pub frontend: u32,
        /// Backend id; 0 stands for all that are gone.
        pub backend: u32,
    }

    /// Packets and bytes in the units of IPVS: bytes from the IP header on, without padding; a GSO
    /// packet is one. They wrap.
    pub struct Served (32) {
        /// Packets from clients.
        pub in_packets: u64,
        /// Bytes from clients.
        pub in_bytes: u64,
        /// Packets to clients.
        pub out_packets: u64,
        /// Bytes to clients.
        pub out_bytes: u64,
    }

    /// What one CPU counted of a pair since it took the slot; `served` has what went before.
    pub struct Recent (40) {
        /// Whose it is.
        pub pair: Pair,
        /// Not in `served` yet.
        pub served: Served,
    }
}

const SLOT_BITS: u32 = 10;

/// Slots of `recent`, one a pair that is busy on the CPU.
pub const RECENT_SLOTS: u32 = 1 << SLOT_BITS;

impl Pair {
    /// Returns the slot of the pair in `recent`.
    #[inline(always)]
    pub fn slot(self) -> u32 {
        // Two odd constants: ids are small and dense, and any bit of them may be the only one that
        // tells two pairs apart.
        let mixed = self
            .frontend
            .wrapping_mul(0x9e37_79b1)
            .wrapping_add(self.backend.wrapping_mul(0x85eb_ca77));
        mixed >> (u32::BITS - SLOT_BITS)
    }
}

impl Served {
    /// Returns the sum.
    pub fn plus(self, other: Self) -> Self {
        Self {
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }

    /// Returns what adds up to nothing with this.
    pub fn negative(self) -> Self {
        Self {
            in_packets: self.in_packets.wrapping_neg(),
            in_bytes: self.in_bytes.wrapping_neg(),
            out_packets: self.out_packets.wrapping_neg(),
            out_bytes: self.out_bytes.wrapping_neg(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_and_its_negative_add_up_to_nothing() {
        let served = Served { in_packets: 3, in_bytes: u64::MAX, out_packets: 0, out_bytes: 7 };
        assert_eq!(served.plus(served.negative()), Served::default());
    }

    #[test]
    fn the_backends_of_a_service_do_not_share_a_slot() {
        for frontend in 1..200 {
            let slots = (2..34).map(|backend| Pair { frontend, backend }.slot());
            let mut slots: std::vec::Vec<u32> = slots.collect();
            assert!(slots.iter().all(|slot| *slot < RECENT_SLOTS));
            slots.sort_unstable();
            slots.dedup();
            assert_eq!(slots.len(), 32, "frontend {frontend}");
        }
    }
}
