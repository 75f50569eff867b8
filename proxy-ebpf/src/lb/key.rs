//! Keys of hash maps, put together from whole words: `key.rs` of the datapath says why.

use proxy_common::abi::{HashFlowKey, ServiceKey};

use crate::family::Family;

/// A flow key by words; little-endian, as BPF is here.
#[repr(C)]
pub struct FlowWords<W> {
    /// Addresses, as they lie in the packet.
    pub source: W,
    pub destination: W,
    /// Ports in host order, the source's in the lower half.
    pub ports: u32,
    pub protocol: u32,
}

/// A service key by words.
#[repr(C)]
pub struct ServiceWords<W> {
    addr: W,
    port_and_protocol: u32,
}

/// Turns both ports from the order of the packet into that of the key.
#[inline(always)]
pub fn ports(in_packet: u32) -> u32 {
    (in_packet & 0x00ff_00ff) << 8 | (in_packet >> 8) & 0x00ff_00ff
}

impl<W: Copy> FlowWords<W> {
    /// Returns the key.
    #[inline(always)]
    pub fn key<F: Family<Words = W>>(&self) -> &HashFlowKey<F::Addr> {
        const {
            assert!(size_of::<Self>() == size_of::<HashFlowKey<F::Addr>>());
            assert!(align_of::<Self>() >= align_of::<HashFlowKey<F::Addr>>());
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

    /// Returns the client's port, in host order.
    #[inline(always)]
    pub fn client_port(&self) -> u16 {
        self.ports as u16
    }
}

impl<W: Copy> ServiceWords<W> {
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
