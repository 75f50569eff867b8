//! Keys of hash maps, put together from whole words: `key.rs` of the datapath says why.

use proxy_common::{abi::ServiceKey, flow_place::Place};

use crate::family::Family;

/// A flow key by words; little-endian, as BPF is here.
#[repr(C)]
pub struct FlowWords<W> {
    /// Addresses, as they lie in the packet.
    pub source: W,
    pub destination: W,
    /// Ports in host order, the source's in the lower half.
    pub ports: u32,
    /// In an entry, with its proof behind it.
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

impl<W: AsRef<[u32]> + Copy> FlowWords<W> {
    /// Returns where the flow is remembered.
    #[inline(always)]
    pub fn place(&self, seed: u64) -> Place {
        let (source, destination) = (self.source.as_ref(), self.destination.as_ref());
        Place::of(source, destination, self.ports, self.protocol, seed)
    }

    /// Returns 0 for the same flow.
    #[inline(always)]
    pub fn differs(&self, other: &Self) -> u32 {
        let addrs = self.source.as_ref().iter().chain(self.destination.as_ref());
        let others = other.source.as_ref().iter().chain(other.destination.as_ref());
        let differ = addrs.zip(others).fold(0, |differ, (one, other)| differ | one ^ other);
        differ | self.ports ^ other.ports | (self.protocol ^ other.protocol) & 0xff
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
