//! The loaded program with one frontend and its backend, for one case.

use std::time::Duration;

use anyhow::{Context, bail};
use proxy_common::{
    abi::{
        HashBackend, HashBackendFlags, HashCount, HashFlow, HashFlowKey, HashFrontend, HashMethod,
        Uplink,
    },
    hash::mh::Size,
    hash_reason::HashReason,
};
use proxy_userspace::{
    kernel::bpf::{Entries, Error, HashMaps, HashPlane, HashPlaneOptions, Merged, RunOutput},
    model::{self, HashMode, Protocol},
};

use super::frames::{NEXT_HOP, OUT_MAC, Packet};
use crate::{
    packets::Net,
    stage::{self, Pins},
};

/// The index of the loopback device, whose MAC address is all zero: where test runs come in.
pub(super) const LOOPBACK: u32 = 1;
/// The way out. No such interface needs to exist: a redirect is decided, not carried out.
pub(super) const OUT: u32 = 77;
/// The table of the frontend.
pub(super) const TABLE: u32 = 5;
/// Its backend, which has all slots.
pub(super) const BACKEND: u32 = 7;
/// The generation of its backends.
pub(super) const GENERATION: u32 = 3;
const SIZE: Size = Size::DEFAULT;

pub(super) const PASS: i32 = 2;
pub(super) const TX: i32 = 3;
pub(super) const REDIRECT: i32 = 4;

/// An address family, and its flow map.
pub(super) trait Side: Net {
    fn flows(maps: &HashMaps) -> Result<Entries<HashFlowKey<Self>, HashFlow>, Error>;
    fn put_flow(plane: &mut HashPlane, key: HashFlowKey<Self>, flow: HashFlow)
    -> Result<(), Error>;
}

impl Side for [u8; 4] {
    fn flows(maps: &HashMaps) -> Result<Entries<HashFlowKey<Self>, HashFlow>, Error> {
        maps.flows4()
    }

    fn put_flow(
        plane: &mut HashPlane,
        key: HashFlowKey<Self>,
        flow: HashFlow,
    ) -> Result<(), Error> {
        plane.put_flow4(key, flow)
    }
}

impl Side for [u8; 16] {
    fn flows(maps: &HashMaps) -> Result<Entries<HashFlowKey<Self>, HashFlow>, Error> {
        maps.flows6()
    }

    fn put_flow(
        plane: &mut HashPlane,
        key: HashFlowKey<Self>,
        flow: HashFlow,
    ) -> Result<(), Error> {
        plane.put_flow6(key, flow)
    }
}

/// The program, its maps and their pins; the pins go with it.
pub(super) struct Stage {
    pub(super) plane: HashPlane,
    pub(super) options: HashPlaneOptions,
    _pins: Pins,
}

impl Stage {
    pub(super) fn new<A: Side>(mode: HashMode) -> anyhow::Result<Self> {
        Self::with::<A>(mode, |_| {})
    }

    pub(super) fn with<A: Side>(
        mode: HashMode,
        change: impl FnOnce(&mut HashPlaneOptions),
    ) -> anyhow::Result<Self> {
        let pins = Pins::new();
        let mut options = HashPlaneOptions {
            bpffs: pins.path().to_owned(),
            mode,
            flow_entries: 4096,
            ipv6: true,
            size: SIZE,
            tcp_timeout: Duration::from_secs(900),
            closing_timeout: Duration::from_secs(120),
            udp_timeout: Duration::from_secs(300),
            new_flows: u32::MAX,
        };
        change(&mut options);
        let plane = HashPlane::load(&options).context("load the hash plane")?;
        let mut stage = Self { plane, options, _pins: pins };
        stage.plane.maps.put_uplink(Uplink { interface: LOOPBACK, ..Uplink::default() })?;
        stage.put_frontend::<A>(0)?;
        stage.plane.maps.put_table(TABLE, &[BACKEND; SIZE.slots() as usize])?;
        stage.plane.maps.put_backend(BACKEND, backend::<A>())?;
        Ok(stage)
    }

    /// Puts the frontend, of TCP and of UDP, with these flags.
    pub(super) fn put_frontend<A: Side>(&mut self, flags: u32) -> anyhow::Result<()> {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let frontend = model::Frontend { addr: A::VIP.into(), port: 80, protocol };
            self.plane.maps.put_frontend(&frontend, HashFrontend { table: TABLE, flags })?;
        }
        Ok(())
    }

    /// Runs the program on a frame; at tc, the action is the one of the same meaning at XDP.
    pub(super) fn run(&mut self, frame: &[u8]) -> anyhow::Result<RunOutput> {
        let output = self.plane.run(LOOPBACK, frame)?;
        self.as_of_xdp(output)
    }

    /// The same on a frame that was made of several.
    pub(super) fn run_merged(&mut self, merged: Merged, frame: &[u8]) -> anyhow::Result<RunOutput> {
        let output = self.plane.run_merged(merged, LOOPBACK, frame, 1)?;
        self.as_of_xdp(output)
    }

    fn as_of_xdp(&self, output: RunOutput) -> anyhow::Result<RunOutput> {
        let action = match (self.options.mode, output.action) {
            (HashMode::Tc, -1) => PASS,
            (HashMode::Tc, 7) => REDIRECT,
            (HashMode::Tc, action) => bail!("action {action} at tc"),
            (_, action) => action,
        };
        Ok(RunOutput { action, ..output })
    }

    /// What becomes of a frame that leaves by this interface.
    pub(super) fn action(&self, interface: u32) -> i32 {
        let is_back = interface == LOOPBACK && self.options.mode != HashMode::Tc;
        if is_back { TX } else { REDIRECT }
    }

    /// A backend as what the program made of a frame shows it: at tc, a tag is beside it.
    pub(super) fn seen(&self, to: HashBackend) -> HashBackend {
        let vlan = if self.options.mode == HashMode::Tc { 0 } else { to.vlan };
        HashBackend { vlan, ..to }
    }

    /// Returns the entry of a flow.
    pub(super) fn flow<A: Side>(&self, packet: &Packet<A>) -> anyhow::Result<Option<HashFlow>> {
        let key = key(packet);
        let flows = A::flows(&self.plane.maps)?;
        Ok(flows.into_iter().find_map(|(found, flow)| (found == key).then_some(flow)))
    }

    /// Returns the number of flow entries of a family.
    pub(super) fn flows<A: Side>(&self) -> anyhow::Result<usize> {
        Ok(A::flows(&self.plane.maps)?.len())
    }

    pub(super) fn count(&self, backend: u32) -> anyhow::Result<HashCount> {
        Ok(self.plane.maps.count(backend)?)
    }

    /// Returns how many packets were counted, by reason.
    pub(super) fn reasons(&self) -> Vec<(&'static str, u64)> {
        let count = |reason: &HashReason| {
            let counter = self.plane.maps.reason(*reason);
            (reason.name(), counter.map_or(u64::MAX, |counter| counter.packets))
        };
        HashReason::ALL.iter().map(count).filter(|(_, packets)| *packets > 0).collect()
    }
}

/// Says whether the kernel runs no program for tc on a frame: one that ends before its IP header does.
pub(super) fn is_refused_at_tc(frame: &[u8]) -> bool {
    let header = match frame.get(12..14) {
        Some([8, 0]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 0,
    };
    frame.len() < 14 + header
}

/// The key of a packet's flow.
pub(super) fn key<A: Side>(packet: &Packet<A>) -> HashFlowKey<A> {
    HashFlowKey {
        source: packet.source.0,
        destination: packet.destination.0,
        source_port: packet.source.1,
        destination_port: packet.destination.1,
        protocol: packet.protocol(),
        _pad: [0; 3],
    }
}

/// A backend that is reached by direct routing.
pub(super) fn backend<A: Net>() -> HashBackend {
    let mut ethernet = [0; 14];
    ethernet[..6].copy_from_slice(&NEXT_HOP);
    ethernet[6..12].copy_from_slice(&OUT_MAC);
    ethernet[12..].copy_from_slice(&A::ETHER_TYPE);
    HashBackend {
        generation: GENERATION,
        flags: HashBackendFlags::TAKES_NEW | HashBackendFlags::REACHABLE,
        until: stage::jiffies_now().wrapping_add(1_000_000),
        interface: OUT,
        mtu: 1500,
        ethernet,
        method: HashMethod::ROUTE,
        family: if A::SUFFIX.is_empty() { 4 } else { 6 },
        ..HashBackend::default()
    }
}

/// An entry of a flow whose last packet was just now.
pub(super) fn entry() -> HashFlow {
    HashFlow { backend: BACKEND, generation: GENERATION, seen: stage::jiffies_now(), state: 0 }
}
