//! The loaded program with a frontend for each way that frames can go on.

use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::{ProgramFd, loaded_programs};
use proxy_common::{
    abi::{HashBackend, HashBackendFlags, HashFrontend, HashMethod, Uplink, hash_capacity},
    hash::{
        self,
        mh::{Destination, Size, Table},
    },
    hash_reason::HashReason,
};
use proxy_userspace::{
    kernel::bpf::{HashPlane, HashPlaneOptions},
    model::{Frontend, HashMode, Protocol},
};

use super::rows::Way;
use crate::{
    frames::{NEXT_HOP, OUT_MAC, Packet},
    packets::Net,
    stage::{self, Pins},
};

/// The index of the loopback device, whose MAC address is all zero: where test runs come in.
const LOOPBACK: u32 = 1;
/// Backends of a frontend, as many as Katran was measured with.
const BACKENDS: u32 = 100;
/// No entry and no next hop may grow old during the bench.
const LONG: Duration = Duration::from_hours(24);
const LONG_JIFFIES: u32 = 1 << 30;

/// The program, its maps and their pins; the pins go with it.
pub(super) struct Scene {
    pub(super) plane: HashPlane,
    table: Table,
    _pins: Pins,
}

impl Scene {
    /// Loads the program, so many new flows a second on a CPU.
    pub(super) fn new(new_flows: u32) -> Result<Self> {
        let pins = Pins::new();
        let options = HashPlaneOptions {
            bpffs: pins.path().to_owned(),
            mode: HashMode::Native,
            flow_entries: hash_capacity::FLOWS,
            ipv6: true,
            size: Size::DEFAULT,
            tcp_timeout: LONG,
            closing_timeout: LONG,
            udp_timeout: LONG,
            new_flows,
        };
        let plane = HashPlane::load(&options).context("load the hash plane")?;
        let destinations: Vec<_> = (1..=BACKENDS)
            .map(|number| Destination { place: 0x0a02_0000 + (number << 8), last_weight: 1 })
            .collect();
        let table = Table::build(Size::DEFAULT, &destinations)?;
        let mut scene = Self { plane, table, _pins: pins };
        scene.plane.maps.put_uplink(Uplink { interface: LOOPBACK, ..Uplink::default() })?;
        for way in Way::ALL {
            scene.put::<[u8; 4]>(way)?;
            scene.put::<[u8; 16]>(way)?;
        }
        Ok(scene)
    }

    fn put<A: Net>(&mut self, way: Way) -> Result<()> {
        let maps = &mut self.plane.maps;
        let table = number::<A>(way);
        let frontend = Frontend { addr: A::VIP.into(), port: way.port(), protocol: Protocol::Tcp };
        maps.put_frontend(&frontend, HashFrontend { table, flags: 0 })?;
        for position in 0..BACKENDS {
            maps.put_backend(index::<A>(way, position), backend::<A>(way, position))?;
        }
        let slots: Vec<_> =
            self.table.owners().iter().map(|&position| index::<A>(way, position)).collect();
        Ok(maps.put_table(table, &slots)?)
    }

    /// The frame that a packet leaves as.
    pub(super) fn sent<A: Net>(&self, way: Way, packet: &Packet<A>) -> Result<Vec<u8>> {
        let family = if A::SUFFIX.is_empty() { hash::Family::Ipv4 } else { hash::Family::Ipv6 };
        let client = hash::word(packet.source.0.into(), family);
        let position = self.table.choose(client, false, |_| true).context("nobody has the slot")?;
        Ok(packet.sent(&backend::<A>(way, position), 0))
    }

    /// Packets that were counted under a reason.
    pub(super) fn counted(&self, reason: HashReason) -> Result<u64> {
        Ok(self.plane.maps.reason(reason)?.packets)
    }

    /// The program, its instructions and its bytes of machine code.
    pub(super) fn program(&self) -> Result<(ProgramFd, (u32, u32))> {
        let id = self.plane.program_id().context("the program has no id")?;
        for info in loaded_programs() {
            let info = info?;
            if info.id() == id {
                let instructions = info.size_translated().unwrap_or(0) / 8;
                return Ok((info.fd()?, (instructions, info.size_jitted())));
            }
        }
        anyhow::bail!("no program has the id {id}")
    }
}

/// A number that no other way of either family has.
fn number<A: Net>(way: Way) -> u32 {
    let family = if A::SUFFIX.is_empty() { 0 } else { Way::ALL.len() as u32 };
    family + way as u32
}

fn index<A: Net>(way: Way, position: u32) -> u32 {
    1 + number::<A>(way) * BACKENDS + position
}

fn backend<A: Net>(way: Way, position: u32) -> HashBackend {
    let mut addrs = [0; 32];
    for (at, byte) in addrs.iter_mut().enumerate() {
        *byte = at as u8 + position as u8;
    }
    let mut ethernet = [0; 14];
    let bytes = NEXT_HOP.into_iter().chain(OUT_MAC).chain(A::ETHER_TYPE);
    for (to, byte) in ethernet.iter_mut().zip(bytes) {
        *to = byte;
    }
    HashBackend {
        generation: 1,
        flags: HashBackendFlags::TAKES_NEW | HashBackendFlags::REACHABLE,
        until: stage::jiffies_now().wrapping_add(LONG_JIFFIES),
        interface: if way == Way::Redirect { stage::OUT } else { LOOPBACK },
        mtu: 1500,
        ethernet,
        method: if way == Way::Ipip { HashMethod::IPIP } else { HashMethod::ROUTE },
        family: if A::SUFFIX.is_empty() { 4 } else { 6 },
        addrs,
        ..HashBackend::default()
    }
}
