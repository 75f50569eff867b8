//! IPv6.

use core::mem::offset_of;

use network_types::{eth::EthHdr, ip::Ipv6Hdr};
use proxy_common::{abi::Transform, packet::checksum};

use crate::{
    ctx::{Headers, Skb},
    family::{Backends, Drafts, Family, Flows, Frontends, IpHeader, PendingPackets},
    maps::{BACKENDS6, DRAFT6, FLOWS6, FRONTENDS6, PENDING6},
};

const VERSION: u8 = 6;

/// Offsets from the start of the frame.
mod at {
    use super::*;

    pub const IP: usize = EthHdr::LEN;
    pub const PAYLOAD_LENGTH: usize = IP + offset_of!(Ipv6Hdr, payload_len);
    pub const NEXT_HEADER: usize = IP + offset_of!(Ipv6Hdr, next_hdr);
    pub const HOP_LIMIT: usize = IP + offset_of!(Ipv6Hdr, hop_limit);
    pub const SOURCE: usize = IP + offset_of!(Ipv6Hdr, src_addr);
    pub const DESTINATION: usize = IP + offset_of!(Ipv6Hdr, dst_addr);
}

pub struct Ipv6;

/// Loads an address by words: the BPF target has no wider unaligned load.
macro_rules! load_addr {
    ($headers:expr, $at:expr) => {
        [
            $headers.frame::<u32, { $at }>(),
            $headers.frame::<u32, { $at + 4 }>(),
            $headers.frame::<u32, { $at + 8 }>(),
            $headers.frame::<u32, { $at + 12 }>(),
        ]
    };
}

macro_rules! store_addr {
    ($headers:expr, $at:expr, $addr:expr) => {
        let words = words($addr);
        $headers.store_frame::<u32, { $at }>(words[0]);
        $headers.store_frame::<u32, { $at + 4 }>(words[1]);
        $headers.store_frame::<u32, { $at + 8 }>(words[2]);
        $headers.store_frame::<u32, { $at + 12 }>(words[3]);
    };
}

impl Family for Ipv6 {
    type Addr = [u8; 16];
    type Words = [u32; 4];

    const L4: usize = EthHdr::LEN + Ipv6Hdr::LEN;
    const HEADER: u32 = Ipv6Hdr::LEN as u32;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 16]> {
        &FLOWS6
    }

    #[inline(always)]
    fn draft() -> &'static Drafts<[u8; 16]> {
        &DRAFT6
    }

    #[inline(always)]
    fn pending() -> &'static PendingPackets<[u8; 16]> {
        &PENDING6
    }

    #[inline(always)]
    fn frontends() -> &'static Frontends<[u8; 16]> {
        &FRONTENDS6
    }

    #[inline(always)]
    fn backends() -> &'static Backends<[u8; 16]> {
        &BACKENDS6
    }

    #[inline(always)]
    fn ip_header<const N: usize>(headers: &Headers<Self, N>) -> Option<IpHeader<[u32; 4]>> {
        if headers.frame::<u8, { at::IP }>() >> 4 != VERSION {
            return None;
        }
        let payload = u16::from_be(headers.frame::<u16, { at::PAYLOAD_LENGTH }>());
        Some(IpHeader {
            source: load_addr!(headers, at::SOURCE),
            destination: load_addr!(headers, at::DESTINATION),
            // An extension header is no L4 protocol that anybody asks for.
            protocol: headers.frame::<u8, { at::NEXT_HEADER }>(),
            ttl: headers.frame::<u8, { at::HOP_LIMIT }>(),
            // A jumbogram says 0, which leaves no room for its L4 header.
            len: payload.saturating_add(Ipv6Hdr::LEN as u16),
            first: headers.frame::<u32, { at::IP }>(),
        })
    }

    #[inline(always)]
    fn rewrite<const N: usize>(headers: &Headers<Self, N>, to: &Transform<[u8; 16]>, ttl: u8) {
        headers.store_frame::<u8, { at::HOP_LIMIT }>(ttl);
        store_addr!(headers, at::SOURCE, to.source);
        store_addr!(headers, at::DESTINATION, to.destination);
    }

    /// No header checksum makes up for the new addresses, and `bpf_l4_csum_replace` takes every
    /// pseudo header for one of IPv4 (`inet_proto_csum_replace_by_diff`, `net/core/utils.c`).
    #[inline(always)]
    fn correct_sum(skb: &Skb<'_>, to: &Transform<[u8; 16]>) {
        skb.add_to_sum(to.ip_delta);
    }

    #[inline(always)]
    fn replace(from: [u8; 16], to: [u8; 16]) -> u32 {
        let (from, to) = (words(from), words(to));
        let high =
            checksum::add(checksum::replace(from[0], to[0]), checksum::replace(from[1], to[1]));
        let low =
            checksum::add(checksum::replace(from[2], to[2]), checksum::replace(from[3], to[3]));
        checksum::add(high, low)
    }

    /// The hop limit is the second byte of its 16-bit word.
    #[inline(always)]
    fn lower_ttl(delta: u8) -> u32 {
        u32::from(!u16::from_ne_bytes([0, delta]))
    }

    #[inline(always)]
    fn word(addr: [u8; 16]) -> u32 {
        let words = words(addr);
        words[0] ^ words[1].rotate_left(7) ^ words[2].rotate_left(14) ^ words[3].rotate_left(21)
    }
}

#[inline(always)]
fn words(addr: [u8; 16]) -> [u32; 4] {
    let word = |at: usize| u32::from_ne_bytes([addr[at], addr[at + 1], addr[at + 2], addr[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}
