//! Frames at XDP: as they were received, a VLAN tag in them.

use aya_ebpf::{bindings::xdp_md, helpers, programs::XdpContext};
use network_types::eth::EthHdr;

use crate::{
    frame::{self, Frame},
    outer::Headers,
    uplink::TAG,
};

/// `XDP_ABORTED`: the frame is dropped, and the tracepoint `xdp_exception` tells.
const ABORTED: u32 = 0;
/// `XDP_PASS`: the kernel gets the frame.
const PASS: u32 = 2;
/// `XDP_TX`: out of the interface that it came in by.
const TX: u32 = 3;

/// A frame at XDP.
pub struct XdpFrame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn raw(&self) -> *mut xdp_md {
        self.ctx.ctx
    }
}

impl Frame for XdpFrame<'_> {
    const TAG_INSIDE: bool = true;
    const PASS: u32 = PASS;
    const DROP: u32 = ABORTED;

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        frame::bounds!(self.raw())
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        end.wrapping_sub(start) as u32
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: the kernel passes a valid context; the verifier rewrites the access.
        unsafe { (*self.raw()).ingress_ifindex }
    }

    /// A frame is what came over the wire: drivers aggregate nothing below XDP.
    #[inline(always)]
    fn gso_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn vlan_beside(&self) -> Option<u32> {
        None
    }

    /// A frame lies in one piece.
    #[inline(always)]
    fn pull(&self) -> bool {
        true
    }

    #[inline(always)]
    fn grow(&self, headers: &Headers, ip: usize) -> bool {
        let link = if headers.vlan == 0 { EthHdr::LEN } else { EthHdr::LEN + TAG };
        let bytes = (link + headers.len) as i32 - ip as i32;
        // SAFETY: a plain helper call on the program's own context.
        bytes == 0 || unsafe { helpers::bpf_xdp_adjust_head(self.raw(), -bytes) } == 0
    }

    #[inline(always)]
    fn retag(&self, _: u16) -> bool {
        true
    }

    #[inline(always)]
    fn send(&self, interface: u32) -> u32 {
        if interface == self.interface() { TX } else { frame::redirect(interface) }
    }
}
