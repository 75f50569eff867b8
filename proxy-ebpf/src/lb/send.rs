//! The way to a backend: the frame is given what the way out wants in front of it, and leaves.

use core::mem::offset_of;

use network_types::eth::EthHdr;
use proxy_common::{
    abi::{HashBackend, HashBackendFlags, HashMethod},
    hash_reason::HashReason,
};

use crate::{
    family::{Family, Inherited},
    frame::{self, Frame},
    outer::{self, GRE, GUE, Outer},
    parse::Packet,
    uplink::{self, TAG, VLAN},
    verdict::{TX, Verdict},
};

/// A way that a packet can take.
pub struct Way {
    backend: *const HashBackend,
    interface: u32,
    /// VLAN tag, host order; 0 for none.
    vlan: u16,
    method: u8,
    outer: Outer,
    /// Bytes of all outer headers.
    outer_len: usize,
}

impl Way {
    /// Returns the way of a packet to a backend, or says why it cannot take it.
    #[inline(always)]
    pub fn of<F: Family>(
        packet: &Packet<F>,
        backend: *const HashBackend,
        now: u32,
    ) -> Result<Self, HashReason> {
        // SAFETY: an element of an array map. The agent takes REACHABLE away before it writes
        // anything else, and gives it back after that.
        let HashBackend { flags, until, interface, mtu, vlan, method, family, .. } =
            unsafe { &*backend };
        if flags & HashBackendFlags::REACHABLE == 0 || until.wrapping_sub(now) as i32 <= 0 {
            return Err(HashReason::NoNextHop);
        }
        if packet.ttl <= 1 {
            return Err(HashReason::TtlExpired);
        }
        if packet.len > *mtu {
            return Err(HashReason::TooBig);
        }
        let (outer, ip) =
            if *family == 6 { (Outer::V6, outer::V6) } else { (Outer::V4, outer::V4) };
        let outer_len = match *method {
            HashMethod::ROUTE => 0,
            HashMethod::IPIP => ip,
            HashMethod::GUE => ip + GUE,
            HashMethod::GRE => ip + GRE,
            _ => return Err(HashReason::NoNextHop),
        };
        let (interface, vlan, method) = (*interface, *vlan, *method);
        Ok(Self { backend, interface, vlan, method, outer, outer_len })
    }

    /// Returns by how many bytes a frame grows whose IP header is at this place.
    #[inline(always)]
    pub fn growth(&self, ip: usize) -> i32 {
        (self.link() + self.outer_len) as i32 - ip as i32
    }

    /// Writes what goes in front of the packet, and sends the frame. It has grown before.
    #[inline(always)]
    pub fn send<F: Family>(
        &self,
        frame: &Frame<'_>,
        packet: &Packet<F>,
        reason: HashReason,
    ) -> Verdict {
        if self.write(frame, packet).is_none() {
            return Verdict::Broken(reason);
        }
        let is_way_back = self.interface == frame.interface();
        let code = if is_way_back { TX } else { frame::redirect(self.interface) };
        Verdict::Sent { reason, code, bytes: packet.len }
    }

    #[inline(always)]
    fn write<F: Family>(&self, frame: &Frame<'_>, packet: &Packet<F>) -> Option<()> {
        let link = self.link();
        let inherited = F::lower_ttl(frame, link + self.outer_len)?;
        self.write_link(frame)?;
        if self.method == HashMethod::ROUTE {
            return Some(());
        }
        self.write_outer(frame, link, packet, inherited)
    }

    /// Bytes of the frame before IP.
    #[inline(always)]
    fn link(&self) -> usize {
        if self.vlan == 0 { EthHdr::LEN } else { EthHdr::LEN + TAG }
    }

    #[inline(always)]
    fn write_link(&self, frame: &Frame<'_>) -> Option<()> {
        const { assert!(offset_of!(HashBackend, ethernet).is_multiple_of(4)) }
        // SAFETY: as in `of`. The 14 bytes of the header, each in one load only, aligned as the
        // element is.
        let (macs, ether_type) = unsafe {
            let bytes = (&raw const (*self.backend).ethernet).cast::<u8>();
            (bytes.cast::<[u32; 3]>().read(), bytes.add(12).cast::<u16>().read())
        };
        let header = frame.window::<{ EthHdr::LEN }>(0)?;
        header.store::<u32, 0>(macs[0]);
        header.store::<u32, 4>(macs[1]);
        header.store::<u32, 8>(macs[2]);
        if self.vlan == 0 {
            header.store::<u16, { uplink::at::ETHER_TYPE }>(ether_type);
            return Some(());
        }
        let header = frame.window::<{ EthHdr::LEN + TAG }>(0)?;
        header.store::<u16, { uplink::at::ETHER_TYPE }>(VLAN);
        header.store::<u16, { uplink::at::TAG }>(self.vlan.to_be());
        header.store::<u16, { uplink::at::TAGGED_ETHER_TYPE }>(ether_type);
        Some(())
    }

    #[inline(always)]
    fn write_outer<F: Family>(
        &self,
        frame: &Frame<'_>,
        at: usize,
        packet: &Packet<F>,
        inherited: Inherited,
    ) -> Option<()> {
        let (protocol, extra) = match self.method {
            HashMethod::GUE => (outer::UDP, GUE),
            HashMethod::GRE => (outer::GRE_PROTOCOL, GRE),
            _ => (F::IN_IP, 0),
        };
        // SAFETY: as in `of`.
        let backend = unsafe { &*self.backend };
        let payload = packet.len as u16 + extra as u16;
        let next = match self.outer {
            Outer::V4 => outer::write_v4(frame, at, backend, inherited, payload, protocol)?,
            Outer::V6 => outer::write_v6(frame, at, backend, inherited, payload, protocol)?,
        };
        match self.method {
            HashMethod::GUE => outer::write_gue(frame, next, backend.port, payload, packet),
            HashMethod::GRE => outer::write_gre::<F>(frame, next),
            _ => Some(()),
        }
    }
}
