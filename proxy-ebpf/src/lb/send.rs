//! The way to a backend: the frame is given what the way out wants in front of it, and leaves.

use core::mem::offset_of;

use network_types::eth::EthHdr;
use proxy_common::{
    abi::{HashBackend, HashBackendFlags, HashMethod},
    hash_reason::HashReason,
};

use crate::{
    family::{Family, Inherited},
    frame::Frame,
    outer::{self, GRE, GUE, Headers, Outer},
    parse::Packet,
    uplink::{self, TAG, VLAN},
};

/// A way that a packet can take.
pub struct Way {
    backend: *const HashBackend,
    interface: u32,
    /// What goes in front of the packet.
    pub headers: Headers,
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
        if packet.is_datagrams() {
            return Err(HashReason::Datagrams);
        }
        if packet.longest > *mtu {
            return Err(HashReason::TooBig);
        }
        let (outer, ip) =
            if *family == 6 { (Outer::V6, outer::V6) } else { (Outer::V4, outer::V4) };
        let len = match *method {
            HashMethod::ROUTE => 0,
            HashMethod::IPIP => ip,
            HashMethod::GUE => ip + GUE,
            HashMethod::GRE => ip + GRE,
            _ => return Err(HashReason::NoNextHop),
        };
        // Several segments in one packet may be as long as any.
        if packet.len + len as u32 > u16::MAX.into() {
            return Err(HashReason::TooBig);
        }
        let (interface, vlan, method) = (*interface, *vlan, *method);
        Ok(Self { backend, interface, headers: Headers { outer, method, len, vlan } })
    }

    /// Writes what goes in front of the packet, and sends the frame, which has grown before; returns the
    /// action code: `DROP` if a window that was in the frame is not any more.
    #[inline(always)]
    pub fn send<F: Family, P: Frame>(&self, frame: &P, packet: &Packet<F>) -> u32 {
        if !frame.retag(self.headers.vlan) || self.write(frame, packet).is_none() {
            return P::DROP;
        }
        frame.send(self.interface)
    }

    #[inline(always)]
    fn write<F: Family>(&self, frame: &impl Frame, packet: &Packet<F>) -> Option<()> {
        let link = self.headers.link(frame);
        let inherited = F::lower_ttl(frame, link + self.headers.len)?;
        self.write_link(frame)?;
        if self.headers.method == HashMethod::ROUTE {
            return Some(());
        }
        self.write_outer(frame, link, packet, inherited)
    }

    #[inline(always)]
    fn write_link<P: Frame>(&self, frame: &P) -> Option<()> {
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
        if self.headers.vlan == 0 || !P::TAG_INSIDE {
            header.store::<u16, { uplink::at::ETHER_TYPE }>(ether_type);
            return Some(());
        }
        let header = frame.window::<{ EthHdr::LEN + TAG }>(0)?;
        header.store::<u16, { uplink::at::ETHER_TYPE }>(VLAN);
        header.store::<u16, { uplink::at::TAG }>(self.headers.vlan.to_be());
        header.store::<u16, { uplink::at::TAGGED_ETHER_TYPE }>(ether_type);
        Some(())
    }

    #[inline(always)]
    fn write_outer<F: Family>(
        &self,
        frame: &impl Frame,
        at: usize,
        packet: &Packet<F>,
        inherited: Inherited,
    ) -> Option<()> {
        let Headers { outer, method, .. } = self.headers;
        let (protocol, extra) = match method {
            HashMethod::GUE => (outer::UDP, GUE),
            HashMethod::GRE => (outer::GRE_PROTOCOL, GRE),
            _ => (F::IN_IP, 0),
        };
        // SAFETY: as in `of`.
        let backend = unsafe { &*self.backend };
        let payload = packet.len as u16 + extra as u16;
        let next = match outer {
            Outer::V4 => outer::write_v4(frame, at, backend, inherited, payload, protocol)?,
            Outer::V6 => outer::write_v6(frame, at, backend, inherited, payload, protocol)?,
        };
        match method {
            HashMethod::GUE => outer::write_gue(frame, next, backend.port, payload, packet),
            HashMethod::GRE => outer::write_gre::<F>(frame, next),
            _ => Some(()),
        }
    }
}
