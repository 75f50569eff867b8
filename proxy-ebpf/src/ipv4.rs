//! IPv4.

use core::mem::offset_of;

use network_types::{eth::EthHdr, ip::Ipv4Hdr};
use proxy_common::{abi::Transform, packet::checksum};

use crate::{
    ctx::{Headers, Skb},
    family::{Backends, Drafts, Family, Flows, Frontends, IpHeader, PendingPackets},
    maps::{BACKENDS4, DRAFT4, FLOWS4, FRONTENDS4, PENDING4},
};

const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff;
const PLAIN_VERSION_AND_LENGTH: u8 = 0x45;

/// Offsets from the start of the frame.
mod at {
    use super::*;

    pub const IP: usize = EthHdr::LEN;
    pub const TOTAL_LENGTH: usize = IP + offset_of!(Ipv4Hdr, tot_len);
    pub const FRAGMENT: usize = IP + offset_of!(Ipv4Hdr, frags);
    pub const TTL: usize = IP + offset_of!(Ipv4Hdr, ttl);
    pub const PROTOCOL: usize = IP + offset_of!(Ipv4Hdr, proto);
    pub const CHECK: usize = IP + offset_of!(Ipv4Hdr, check);
    pub const SOURCE: usize = IP + offset_of!(Ipv4Hdr, src_addr);
    pub const DESTINATION: usize = IP + offset_of!(Ipv4Hdr, dst_addr);
}

pub struct Ipv4;

impl Family for Ipv4 {
    type Addr = [u8; 4];
    type Words = [u32; 1];

    const L4: usize = EthHdr::LEN + Ipv4Hdr::LEN;
    const HEADER: u32 = Ipv4Hdr::LEN as u32;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 4]> {
        &FLOWS4
    }

    #[inline(always)]
    fn draft() -> &'static Drafts<[u8; 4]> {
        &DRAFT4
    }

    #[inline(always)]
    fn pending() -> &'static PendingPackets<[u8; 4]> {
        &PENDING4
    }

    #[inline(always)]
    fn frontends() -> &'static Frontends<[u8; 4]> {
        &FRONTENDS4
    }

    #[inline(always)]
    fn backends() -> &'static Backends<[u8; 4]> {
        &BACKENDS4
    }

    #[inline(always)]
    fn ip_header<const N: usize>(headers: &Headers<Self, N>) -> Option<IpHeader<[u32; 1]>> {
        let version_and_length = headers.frame::<u8, { at::IP }>();
        let fragment = headers.frame::<u16, { at::FRAGMENT }>();
        if version_and_length != PLAIN_VERSION_AND_LENGTH
            || fragment & MORE_FRAGMENTS_OR_OFFSET.to_be() != 0
        {
            return None;
        }
        Some(IpHeader {
            source: [headers.frame::<u32, { at::SOURCE }>()],
            destination: [headers.frame::<u32, { at::DESTINATION }>()],
            protocol: headers.frame::<u8, { at::PROTOCOL }>(),
            ttl: headers.frame::<u8, { at::TTL }>(),
            len: u16::from_be(headers.frame::<u16, { at::TOTAL_LENGTH }>()),
            first: headers.frame::<u32, { at::IP }>(),
        })
    }

    #[inline(always)]
    fn rewrite<const N: usize>(headers: &Headers<Self, N>, to: &Transform<[u8; 4]>, ttl: u8) {
        let check = headers.frame::<u16, { at::CHECK }>();
        headers.store_frame::<u16, { at::CHECK }>(checksum::apply(check, to.ip_delta));
        headers.store_frame::<u8, { at::TTL }>(ttl);
        headers.store_frame::<u32, { at::SOURCE }>(u32::from_ne_bytes(to.source));
        headers.store_frame::<u32, { at::DESTINATION }>(u32::from_ne_bytes(to.destination));
    }

    /// The header's own checksum keeps its sum constant.
    #[inline(always)]
    fn correct_sum(_: &Skb<'_>, _: &Transform<[u8; 4]>) {}

    #[inline(always)]
    fn replace(from: [u8; 4], to: [u8; 4]) -> u32 {
        checksum::replace(u32::from_ne_bytes(from), u32::from_ne_bytes(to))
    }

    #[inline(always)]
    fn lower_ttl(delta: u8) -> u32 {
        checksum::lower_ttl(delta)
    }

    #[inline(always)]
    fn word(addr: [u8; 4]) -> u32 {
        u32::from_ne_bytes(addr)
    }
}
