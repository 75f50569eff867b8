//! IPv4.

use core::mem::offset_of;

use network_types::ip::{IpProto, Ipv4Hdr};
use proxy_common::{hash_reason::HashReason, packet::checksum};

use crate::{
    family::{Family, Inherited, IpHeader},
    frame::Frame,
    maps::{FLOWS4, FRONTENDS4, Flows, Frontends, TAGS4, Tags},
    settings::MASK4,
};

const PLAIN_VERSION_AND_LENGTH: u8 = 0x45;
const VERSION: u8 = 4;
const MORE_FRAGMENTS_OR_OFFSET: u16 = 0x3fff_u16.to_be();
const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();

/// ICMP types.
const DEST_UNREACH: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const TIME_EXCEEDED: u8 = 11;

/// Offsets from the start of the header.
pub mod at {
    use super::*;

    pub const TOS: usize = offset_of!(Ipv4Hdr, tos);
    pub const TOTAL_LENGTH: usize = offset_of!(Ipv4Hdr, tot_len);
    pub const FRAGMENT: usize = offset_of!(Ipv4Hdr, frags);
    pub const TTL: usize = offset_of!(Ipv4Hdr, ttl);
    pub const PROTOCOL: usize = offset_of!(Ipv4Hdr, proto);
    pub const CHECK: usize = offset_of!(Ipv4Hdr, check);
    pub const SOURCE: usize = offset_of!(Ipv4Hdr, src_addr);
    pub const DESTINATION: usize = offset_of!(Ipv4Hdr, dst_addr);
}

pub struct Ipv4;

impl Family for Ipv4 {
    type Addr = [u8; 4];
    type Words = [u32; 1];

    const HEADER: usize = Ipv4Hdr::LEN;
    const ETHER_TYPE: u16 = 0x0800_u16.to_be();
    const IN_IP: u8 = IpProto::Ipv4 as u8;
    const ICMP: u8 = IpProto::Icmp as u8;

    #[inline(always)]
    fn flows() -> &'static Flows<[u8; 4]> {
        &FLOWS4
    }

    #[inline(always)]
    fn tags() -> &'static Tags {
        &TAGS4
    }

    #[inline(always)]
    fn mask() -> u32 {
        MASK4.load()
    }

    #[inline(always)]
    fn frontends() -> &'static Frontends<[u8; 4]> {
        &FRONTENDS4
    }

    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, DEST_UNREACH | SOURCE_QUENCH | TIME_EXCEEDED)
    }

    #[inline(always)]
    fn header(frame: &impl Frame, at: usize) -> Result<IpHeader<[u32; 1]>, HashReason> {
        let header = frame.window::<{ Ipv4Hdr::LEN }>(at).ok_or(HashReason::Unparsed)?;
        let version_and_length = header.load::<u8, 0>();
        if version_and_length != PLAIN_VERSION_AND_LENGTH {
            let has_options =
                version_and_length >> 4 == VERSION && version_and_length > PLAIN_VERSION_AND_LENGTH;
            return Err(if has_options { HashReason::Options } else { HashReason::Unparsed });
        }
        if header.load::<u16, { at::FRAGMENT }>() & MORE_FRAGMENTS_OR_OFFSET != 0 {
            return Err(HashReason::Fragment);
        }
        Ok(IpHeader {
            source: [header.load::<u32, { at::SOURCE }>()],
            destination: [header.load::<u32, { at::DESTINATION }>()],
            protocol: header.load::<u8, { at::PROTOCOL }>(),
            ttl: header.load::<u8, { at::TTL }>(),
            len: u16::from_be(header.load::<u16, { at::TOTAL_LENGTH }>()).into(),
        })
    }

    /// With `pmtu_disc`, which is IPVS's default, an outer header of IPv4 has the DF bit of this one.
    #[inline(always)]
    fn lower_ttl(frame: &impl Frame, at: usize) -> Option<Inherited> {
        let header = frame.window::<{ Ipv4Hdr::LEN }>(at)?;
        let ttl = header.load::<u8, { at::TTL }>().wrapping_sub(1);
        header.store::<u8, { at::TTL }>(ttl);
        let check = header.load::<u16, { at::CHECK }>();
        header.store::<u16, { at::CHECK }>(checksum::apply(check, checksum::lower_ttl(1)));
        Some(Inherited {
            ds: header.load::<u8, { at::TOS }>(),
            ttl,
            fragment: header.load::<u16, { at::FRAGMENT }>() & DONT_FRAGMENT,
        })
    }
}
