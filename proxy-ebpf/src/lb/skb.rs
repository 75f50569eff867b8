//! Frames at tc: what the kernel made of one or several that were received. Their VLAN tag is kept
//! beside them, only a part may be in one piece, and checksums may be a device's to fill in.
//!
//! A sum of the whole packet that a device supplied (`CHECKSUM_COMPLETE`) is not kept up: on the wire
//! nobody has it, and the peer of a veth computes it anew.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L4_GRE, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers,
    programs::TcContext,
};
use network_types::{eth::EthHdr, icmp::Icmpv4Hdr, ip::Ipv6Hdr};
use proxy_common::abi::HashMethod;

use crate::{
    frame::{self, Frame},
    outer::{Headers, Outer},
    parse::QUOTED,
    uplink::VLAN,
};

/// `TC_ACT_UNSPEC`, also `TCX_NEXT`: go on as if the program were not there.
const NEXT: u32 = -1_i32 as u32;
/// `TC_ACT_SHOT`.
const SHOT: u32 = 2;
/// More than any VLAN's number.
const NO_VLAN: u32 = 1 << 16;
/// Bits of a tag that are the VLAN.
const ID: u32 = 0x0fff;
/// The farthest that parsing looks: the ports of a packet over IPv6 that an ICMP error is about.
const FARTHEST: u32 = (EthHdr::LEN + Ipv6Hdr::LEN + Icmpv4Hdr::LEN + Ipv6Hdr::LEN + QUOTED) as u32;

/// A frame at tc ingress.
pub struct Skb<'a> {
    ctx: &'a TcContext,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }
}

/// Reads a field of `__sk_buff`.
macro_rules! field {
    ($skb:expr, $name:ident) => {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*$skb.raw()).$name }
    };
}

impl Frame for Skb<'_> {
    const TAG_INSIDE: bool = false;
    const PASS: u32 = NEXT;
    const DROP: u32 = SHOT;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        frame::bounds!(self.raw())
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        field!(self, len)
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        field!(self, ifindex)
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        field!(self, gso_size)
    }

    #[inline(always)]
    fn vlan_beside(&self) -> Option<u32> {
        if field!(self, vlan_present) == 0 {
            return None;
        }
        let is_plain = field!(self, vlan_proto) == u32::from(VLAN);
        Some(if is_plain { field!(self, vlan_tci) & ID } else { NO_VLAN })
    }

    #[inline(always)]
    fn pull(&self) -> bool {
        let (start, end) = self.bounds();
        let all = self.len();
        let wanted = if all < FARTHEST { all } else { FARTHEST };
        // Of most packets the kernel has looked as far already.
        end.wrapping_sub(start) as u32 >= wanted || self.ctx.pull_data(wanted).is_ok()
    }

    /// The kernel has to know what it gets, for devices that cut or checksum it: a tunnel, and of
    /// which kind. Segments stay as long as they are: it was seen that they fit.
    #[inline(always)]
    fn grow(&self, headers: &Headers, _: usize) -> bool {
        if headers.len == 0 {
            return true;
        }
        let family = match headers.outer {
            Outer::V4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            Outer::V6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
        };
        let kind = match headers.method {
            HashMethod::GUE => BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            HashMethod::GRE => BPF_F_ADJ_ROOM_ENCAP_L4_GRE,
            _ => 0,
        };
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | family | kind);
        // SAFETY: a plain helper call on the program's own packet.
        let result = unsafe {
            helpers::bpf_skb_adjust_room(self.raw(), headers.len as i32, BPF_ADJ_ROOM_MAC, flags)
        };
        result == 0
    }

    #[inline(always)]
    fn retag(&self, vlan: u16) -> bool {
        if field!(self, vlan_present) != 0 {
            // SAFETY: a plain helper call on the program's own packet.
            if unsafe { helpers::bpf_skb_vlan_pop(self.raw()) } != 0 {
                return false;
            }
        }
        // SAFETY: as above.
        vlan == 0 || unsafe { helpers::bpf_skb_vlan_push(self.raw(), VLAN, vlan) } == 0
    }

    #[inline(always)]
    fn send(&self, interface: u32) -> u32 {
        frame::redirect(interface)
    }
}
