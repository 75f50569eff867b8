//! What clients dial.

use super::layout::abi_struct;

abi_struct! {
    /// Address, port and protocol of a frontend or a backend.
    pub struct ServiceKey<A> (8, 20) {
        /// Address, network order.
        pub addr: A,
        /// Port, host order.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// Zero.
        pub _pad: u8,
    }

    /// A frontend.
    pub struct Frontend (8) {
        /// Id, from 1. Flow entries name it.
        pub id: u32,
        /// Bits of `FrontendFlags`.
        pub flags: u32,
    }
}

/// Bits of `Frontend::flags`.
pub struct FrontendFlags;

impl FrontendFlags {
    /// Flows of the frontend may be learned.
    pub const LEARN: u32 = 1;
    /// Its flows are learned, counted as what would have been fast, and sent the slow way.
    pub const OBSERVE: u32 = 2;
    /// Its flows are learned where programs of others are as well.
    pub const FORCE: u32 = 4;

    /// Returns those of the flags that have an effect beside the others: none without `LEARN`, and no
    /// `FORCE` beside `OBSERVE`.
    pub const fn in_force(flags: u32) -> u32 {
        if flags & Self::LEARN == 0 {
            return 0;
        }
        match flags & Self::OBSERVE {
            0 => flags & (Self::LEARN | Self::FORCE),
            _ => Self::LEARN | Self::OBSERVE,
        }
    }
}
