//! What IPv4 and IPv6 differ in. Everything else is written once, over this trait.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use proxy_common::abi::{
    self, Addr, Backend, Flow, FlowKey, Frontend, Pending, ServiceKey, Transform, capacity,
};

use crate::{
    ctx::{Headers, Skb},
    learn::Draft,
};

pub type Flows<A> = LruHashMap<FlowKey<A>, Flow<A>, { capacity::FLOWS as usize }>;
pub type PendingPackets<A> = Array<Pending<A>, { abi::IPV4.pending.max_entries as usize }>;
pub type Drafts<A> = PerCpuArray<Draft<A>, 1>;
pub type Frontends<A> = HashMap<ServiceKey<A>, Frontend, { capacity::FRONTENDS as usize }>;
pub type Backends<A> = HashMap<ServiceKey<A>, Backend, { capacity::BACKENDS as usize }>;

/// An IP header with nothing between it and the L4 header.
pub struct IpHeader<W> {
    /// Addresses by words, as they lie in the packet.
    pub source: W,
    pub destination: W,
    /// IP protocol number of what follows.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Bytes from this header on, as it says itself; host order.
    pub len: u16,
    /// The first word as it is in the packet: nothing in it changes on the way.
    pub first: u32,
}

/// An address family.
pub trait Family {
    type Addr: Addr;
    /// An address by words.
    type Words: AsRef<[u32]> + Copy;

    /// Bytes of a frame before the L4 header.
    const L4: usize;
    /// Bytes of the IP header.
    const HEADER: u32;

    fn flows() -> &'static Flows<Self::Addr>;
    fn draft() -> &'static Drafts<Self::Addr>;
    fn pending() -> &'static PendingPackets<Self::Addr>;
    fn frontends() -> &'static Frontends<Self::Addr>;
    fn backends() -> &'static Backends<Self::Addr>;

    /// Reads the IP header. `None`: options, extension headers, fragments, another version.
    fn ip_header<const N: usize>(headers: &Headers<Self, N>) -> Option<IpHeader<Self::Words>>
    where
        Self: Sized;

    /// Writes addresses and TTL, and what depends on them in this header.
    fn rewrite<const N: usize>(headers: &Headers<Self, N>, to: &Transform<Self::Addr>, ttl: u8)
    where
        Self: Sized;

    /// Corrects what the skb knows about the sum of the packet, after everything was written.
    fn correct_sum(skb: &Skb<'_>, to: &Transform<Self::Addr>);

    /// Returns the difference that another address makes to a sum.
    fn replace(from: Self::Addr, to: Self::Addr) -> u32;

    /// Returns the difference that a lower TTL makes to the sum of the header.
    fn lower_ttl(delta: u8) -> u32;

    /// Folds an address into a word, for a hash.
    fn word(addr: Self::Addr) -> u32;
}
