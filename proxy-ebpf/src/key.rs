//! Keys of hash maps, put together from whole words.
//!
//! The kernel hashes a key word by word. A word that was stored in parts cannot be loaded before all
//! parts have left the store buffer, which takes longer than the hash itself.

use proxy_common::abi::{FlowKey, ServiceKey};

use crate::family::Family;

/// A flow key by words; little-endian, as BPF is here.
#[repr(C)]
pub struct FlowWords<W> {
    /// Addresses, as they lie in the packet.
    pub source: W,
    pub destination: W,
    /// See [`ports`].
    pub ports: u32,
    pub interface: u32,
    pub protocol: u32,
}

/// A service key by words.
#[repr(C)]
pub struct ServiceWords<W> {
    /// As it lies in the packet.
    pub addr: W,
    port_and_protocol: u32,
}

/// Turns both ports from the order of the packet into that of the key: each into host order, and the
/// source port first in memory.
#[inline(always)]
pub fn ports(in_packet: u32) -> u32 {
    (in_packet & 0x00ff_00ff) << 8 | (in_packet >> 8) & 0x00ff_00ff
}

impl<W: Copy> FlowWords<W> {
    /// Returns the key.
    #[inline(always)]
    pub fn key<F: Family<Words = W>>(&self) -> &FlowKey<F::Addr> {
        const {
            assert!(size_of::<Self>() == size_of::<FlowKey<F::Addr>>());
            assert!(align_of::<Self>() >= align_of::<FlowKey<F::Addr>>());
        }
        // SAFETY: both have the same fields at the same offsets, the last one with its padding, and
        // every pattern of bits is a key.
        unsafe { &*(&raw const *self).cast() }
    }

    /// Returns the service that the packet goes to.
    #[inline(always)]
    pub fn dialled(&self) -> ServiceWords<W> {
        let port_and_protocol = self.ports >> 16 | self.protocol << 16;
        ServiceWords { addr: self.destination, port_and_protocol }
    }

    /// Returns the service that the packet comes from.
    #[inline(always)]
    pub fn answering(&self) -> ServiceWords<W> {
        let port_and_protocol = self.ports & 0xffff | self.protocol << 16;
        ServiceWords { addr: self.source, port_and_protocol }
    }
}

impl<W: Copy> ServiceWords<W> {
    /// Returns the port, in host order.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.port_and_protocol as u16
    }

    /// Returns the protocol's number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.port_and_protocol >> 16) as u8
    }

    /// Returns the key.
    #[inline(always)]
    pub fn key<F: Family<Words = W>>(&self) -> &ServiceKey<F::Addr> {
        const {
            assert!(size_of::<Self>() == size_of::<ServiceKey<F::Addr>>());
            assert!(align_of::<Self>() >= align_of::<ServiceKey<F::Addr>>());
        }
        // SAFETY: as for flows; the padding is zero, as in every key.
        unsafe { &*(&raw const *self).cast() }
    }
}
