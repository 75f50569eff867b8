//! IPv6.

use core::mem::offset_of;

use network_types::ip::{IpProto, Ipv6Hdr};
use proxy_common::hash_reason::HashReason;

use crate::{
    family::{Family, Inherited, IpHeader},
    frame::{Frame, Window},
    maps::{FLOWS6, FRONTENDS6, Flows, Frontends, TAGS6, Tags},
    settings::MASK6,
};

const VERSION: u8 = 6;
/// The first ICMP type that is no error.
const FIRST_INFORMATIONAL: u8 = 128;

/// Extension headers that TCP, UDP or ICMP may come behind.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;

/// Offsets from the start of the header.
pub mod at {
    use super::*;

    pub const PAYLOAD_LENGTH: usize = offset_of!(Ipv6Hdr, payload_len);
    pub const NEXT_HEADER: usize = offset_of!(Ipv6Hdr, next_hdr);
    pub const HOP_LIMIT: usize = offset_of!(Ipv6Hdr, hop_limit);
    pub const SOURCE: usize = offset_of!(Ipv6Hdr, src_addr);
    pub const DESTINATION: usize = offset_of!(Ipv6Hdr, dst_addr);
}

pub struct Ipv6;

/// Loads an address by words: the BPF target has no wider unaligned load.
macro_rules! load_addr {
    ($header:expr, $at:expr) => {
        [
            $header.load::<u32, { $at }>(),
            $header.load::<u32, { $at + 4 }>(),
            $header.load::<u32, { $at + 8 }>(),
            $header.load::<u32, { $at + 12 }>(),
        ]
    };
}

impl Family for Ipv6 {
    type Addr = [u8; 16];
    type Words = [u32; 4];

    const HEADER: usize = Ipv6Hdr::LEN;
    const ETHER_TYPE: u16 = 0x86dd_u16.to_be();
    const IN_IP: u8 = IpProto::Ipv6 as u8;
    const ICMP: u8 = IpProto::Ipv6Icmp as u8;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 16]> {
        &FLOWS6
    }

    #[inline(always)]
    fn tags() -> &'static Tags {
        &TAGS6
    }

    #[inline(always)]
    fn mask() -> u32 {
        MASK6.load()
    }

    #[inline(always)]
    fn frontends() -> &'static Frontends<[u8; 16]> {
        &FRONTENDS6
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        kind < FIRST_INFORMATIONAL
    }

    #[inline(always)]
    fn header(frame: &impl Frame, at: usize) -> Result<IpHeader<[u32; 4]>, HashReason> {
        let header = frame.window::<{ Ipv6Hdr::LEN }>(at).ok_or(HashReason::Unparsed)?;
        if header.load::<u8, 0>() >> 4 != VERSION {
            return Err(HashReason::Unparsed);
        }
        let protocol = header.load::<u8, { at::NEXT_HEADER }>();
        match protocol {
            FRAGMENT => return Err(HashReason::Fragment),
            HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY => {
                return Err(HashReason::Options);
            }
            _ => {}
        }
        let payload = u16::from_be(header.load::<u16, { at::PAYLOAD_LENGTH }>());
        Ok(IpHeader {
            source: load_addr!(header, at::SOURCE),
            destination: load_addr!(header, at::DESTINATION),
            protocol,
            ttl: header.load::<u8, { at::HOP_LIMIT }>(),
            // A jumbogram says 0, which leaves no room for its L4 header.
            len: u32::from(payload) + Ipv6Hdr::LEN as u32,
        })
    }

    /// An outer header of IPv4 has no DF bit (`ip_vs_prepare_tunneled_skb`).
    #[inline(always)]
    fn lower_ttl(frame: &impl Frame, at: usize) -> Option<Inherited> {
        let header: Window<{ Ipv6Hdr::LEN }> = frame.window(at)?;
        let ttl = header.load::<u8, { at::HOP_LIMIT }>().wrapping_sub(1);
        header.store::<u8, { at::HOP_LIMIT }>(ttl);
        let ds = (u16::from_be(header.load::<u16, 0>()) >> 4) as u8;
        Some(Inherited { ds, ttl, fragment: 0 })
    }
}
