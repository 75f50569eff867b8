//! Probe frames through the program, before it is attached: it must send each as IPVS would, to the
//! byte, by direct routing and in IP. The kernel that runs it has the verifier, the JIT and the helpers
//! that the device will run it with; what the device does with the frame afterwards, it does not show.
//! Nor does it show whom the tables name: each probe is of a flow that has an entry.

use std::fmt;

use proxy_common::abi::{HashBackend, HashBackendFlags, HashFlow, HashFlowKey, HashMethod};

use super::{
    super::{
        Error, Fault, RunOutput,
        selftest::{self, Family, PEER, PORTS, SOURCE_PORT, TTL},
    },
    HashPlane,
};
use crate::model::{HashMode, Protocol};

/// `XDP_TX`.
const TX: i32 = 3;
/// `TC_ACT_REDIRECT`.
const REDIRECT: i32 = 7;
/// The index in `hash_backends` that no destination has: a slot of 0 is nobody's.
const BACKEND: u32 = 0;
/// Any but 0, which says that there is no backend.
const GENERATION: u32 = u32::MAX;
/// Jiffies for which the next hop holds, should the entry not go again.
const PATIENCE: u32 = 1000;
/// IPv4 and IPv6 in IP.
const IN_IP: [u8; 2] = [4, 41];

/// A probe frame of the hash plane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::kernel::bpf) struct Probe {
    ipv6: bool,
    protocol: Protocol,
    tunnel: Tunnel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tunnel {
    No,
    Ipv4,
    Ipv6,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.tunnel {
            Tunnel::No => "by direct routing",
            Tunnel::Ipv4 => "in IPv4",
            Tunnel::Ipv6 => "in IPv6",
        };
        write!(f, "{} over IPv{} {way}", self.protocol.name(), if self.ipv6 { 6 } else { 4 })
    }
}

/// A family, and its flow map.
trait Flows: Family {
    fn put(plane: &mut HashPlane, key: HashFlowKey<Self>, flow: HashFlow) -> Result<(), Error>;
    fn remove(plane: &mut HashPlane, key: HashFlowKey<Self>) -> Result<(), Error>;
}

impl Flows for [u8; 4] {
    fn put(plane: &mut HashPlane, key: HashFlowKey<Self>, flow: HashFlow) -> Result<(), Error> {
        plane.put_flow4(key, flow)
    }

    fn remove(plane: &mut HashPlane, key: HashFlowKey<Self>) -> Result<(), Error> {
        plane.remove_flow4(key)
    }
}

impl Flows for [u8; 16] {
    fn put(plane: &mut HashPlane, key: HashFlowKey<Self>, flow: HashFlow) -> Result<(), Error> {
        plane.put_flow6(key, flow)
    }

    fn remove(plane: &mut HashPlane, key: HashFlowKey<Self>) -> Result<(), Error> {
        plane.remove_flow6(key)
    }
}

impl HashPlane {
    /// Runs probes of either family and protocol, by each way, as if they came in by this interface,
    /// which must be in the map `hash_uplinks` with this MAC address. Their entries go again at once;
    /// the counters of reasons keep them.
    ///
    /// # Errors
    ///
    /// [`Fault`], the first.
    pub fn self_test(&mut self, index: u32, mac: [u8; 6]) -> Result<(), Fault> {
        let tested = self.probes(index, mac);
        self.maps.put_backend(BACKEND, HashBackend::default())?;
        self.maps.zero_count(BACKEND)?;
        tested
    }

    fn probes(&mut self, index: u32, mac: [u8; 6]) -> Result<(), Fault> {
        for tunnel in [Tunnel::No, Tunnel::Ipv4, Tunnel::Ipv6] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                self.probe::<[u8; 4]>(index, mac, Probe { ipv6: false, protocol, tunnel })?;
                self.probe::<[u8; 16]>(index, mac, Probe { ipv6: true, protocol, tunnel })?;
            }
        }
        Ok(())
    }

    fn probe<A: Flows>(&mut self, index: u32, mac: [u8; 6], probe: Probe) -> Result<(), Fault> {
        let [client, vip, ..] = A::ROUTE;
        let number = probe.protocol.number();
        let frame =
            |macs, ttl| selftest::frame(macs, (client, SOURCE_PORT), (vip, PORTS.0), ttl, number);
        let sent = frame((PEER, mac), TTL);
        let wanted = wrapped::<A>(&frame((mac, PEER), TTL - 1), probe.tunnel);
        let key = HashFlowKey {
            source: client,
            destination: vip,
            source_port: SOURCE_PORT,
            destination_port: PORTS.0,
            protocol: number,
            _pad: [0; 3],
        };
        let now = self.jiffies()?;
        let until = now.wrapping_add(PATIENCE);
        self.maps.put_backend(BACKEND, backend::<A>(index, until, probe.tunnel, &wanted))?;
        let flow = HashFlow { backend: BACKEND, generation: GENERATION, seen: now, state: 0 };
        A::put(self, key, flow)?;
        let output = self.run(index, &sent);
        A::remove(self, key)?;
        let sent = if self.mode == HashMode::Tc { REDIRECT } else { TX };
        judge(probe, output?, &wanted, sent)
    }
}

fn judge(probe: Probe, output: RunOutput, wanted: &[u8], sent: i32) -> Result<(), Fault> {
    if output.action != sent {
        return Err(Fault::Action(probe.to_string(), output.action));
    }
    if output.packet != wanted {
        return Err(Fault::Frame(probe.to_string(), output.packet));
    }
    Ok(())
}

/// Returns the backend behind the interface that probes come in by.
fn backend<A: Family>(interface: u32, until: u32, tunnel: Tunnel, wanted: &[u8]) -> HashBackend {
    let mut backend = HashBackend {
        generation: GENERATION,
        flags: HashBackendFlags::REACHABLE,
        until,
        interface,
        mtu: 1400,
        method: if tunnel == Tunnel::No { HashMethod::ROUTE } else { HashMethod::IPIP },
        family: if is_ipv6::<A>(tunnel) { 6 } else { 4 },
        ..HashBackend::default()
    };
    backend.ethernet.copy_from_slice(wanted.get(..14).unwrap_or(&[0; 14]));
    if let Some(part) = backend.addrs.get_mut(..ends(tunnel).len()) {
        part.copy_from_slice(&ends(tunnel));
    }
    backend
}

/// Says whether what is sent begins with a header of IPv6.
fn is_ipv6<A: Family>(tunnel: Tunnel) -> bool {
    match tunnel {
        Tunnel::No => A::IPV6,
        Tunnel::Ipv4 => false,
        Tunnel::Ipv6 => true,
    }
}

/// Returns both ends of a tunnel.
fn ends(tunnel: Tunnel) -> Vec<u8> {
    fn of<A: Family>() -> Vec<u8> {
        let [_, _, node, backend] = A::ROUTE;
        [node.as_ref(), backend.as_ref()].concat()
    }
    match tunnel {
        Tunnel::No => Vec::new(),
        Tunnel::Ipv4 => of::<[u8; 4]>(),
        Tunnel::Ipv6 => of::<[u8; 16]>(),
    }
}

/// Returns a frame with an outer header, which has what IPVS takes over: the TTL, and DF of IPv4.
fn wrapped<A: Family>(frame: &[u8], tunnel: Tunnel) -> Vec<u8> {
    let (link, packet) = frame.split_at_checked(14).unwrap_or_default();
    let macs = link.get(..12).unwrap_or_default();
    let [ipv4, ipv6] = IN_IP;
    let protocol = if A::IPV6 { ipv6 } else { ipv4 };
    let (ends, len, ttl) = (ends(tunnel), packet.len() as u16, TTL - 1);
    let (ether_type, outer) = match tunnel {
        Tunnel::No => return frame.to_vec(),
        Tunnel::Ipv4 => {
            ([8, 0], selftest::ip_header::<[u8; 4]>(&ends, ttl, protocol, len, !A::IPV6))
        }
        Tunnel::Ipv6 => {
            ([0x86, 0xdd], selftest::ip_header::<[u8; 16]>(&ends, ttl, protocol, len, false))
        }
    };
    [macs, &ether_type, &outer, packet].concat()
}
