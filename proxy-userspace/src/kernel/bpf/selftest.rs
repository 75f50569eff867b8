//! Probe frames through the program for uplinks, before it may take packets: it must turn each into
//! the frame that is expected, to the byte. The kernel that runs it has the verifier, the JIT and the
//! helpers that the device will run it with; what the device itself does with the frame afterwards,
//! it does not show.

use std::{fmt, net::IpAddr};

use proxy_common::{
    abi::{Addr, EPOCH_INDEX, Flow, FlowFlags, FlowKey, FlowState, Transform},
    packet::checksum,
};

use super::{Datapath, Error, Maps, RunOutput, ServiceMaps};
use crate::model::Protocol;

/// `XDP_TX`.
const TX: i32 = 3;
pub(super) const TTL: u8 = 64;
pub(super) const SOURCE_PORT: u16 = 49_152;
pub(super) const PORTS: (u16, u16) = (80, 8080);
/// MAC addresses for documentation (RFC 9542).
pub(super) const PEER: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 1];
const PAYLOAD: &[u8] = b"probe of transit";

/// What was wrong with a probe.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The probe could not be made.
    #[error(transparent)]
    Datapath(#[from] Error),
    /// The program did not send this probe back, but did something else with it.
    #[error("self-test: the {0} probe was not sent back: action {1}")]
    Action(String, i32),
    /// The program made another frame of this probe.
    #[error("self-test: the {0} probe came out wrong: {1:02x?}")]
    Frame(String, Vec<u8>),
}

/// A probe frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Probe {
    ipv6: bool,
    protocol: Protocol,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Udp { "UDP" } else { "TCP" };
        write!(f, "{protocol} over IPv{}", if self.ipv6 { 6 } else { 4 })
    }
}

/// The addresses of the probes of a family, all for documentation: client, VIP, node and backend.
pub(super) trait Family: Addr + Into<IpAddr> + AsRef<[u8]> {
    const IPV6: bool;
    const ROUTE: [Self; 4];

    fn maps(maps: &mut Maps) -> &mut ServiceMaps<Self>;
}

impl Family for [u8; 4] {
    const IPV6: bool = false;
    const ROUTE: [Self; 4] =
        [[192, 0, 2, 1], [198, 51, 100, 10], [203, 0, 113, 2], [203, 0, 113, 77]];

    fn maps(maps: &mut Maps) -> &mut ServiceMaps<Self> {
        &mut maps.ipv4
    }
}

impl Family for [u8; 16] {
    const IPV6: bool = true;
    const ROUTE: [Self; 4] =
        [documentation(1), documentation(0x10), documentation(2), documentation(0x77)];

    fn maps(maps: &mut Maps) -> &mut ServiceMaps<Self> {
        &mut maps.ipv6
    }
}

/// Returns an address of 2001:db8::/32.
const fn documentation(last: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

impl Datapath {
    /// Runs probes of either family and protocol as if they came in by this uplink, which must be in
    /// the map `uplinks` with this MAC address. Their entries go again at once.
    ///
    /// # Errors
    ///
    /// [`Fault`], the first.
    pub fn test_transit(&mut self, index: u32, mac: [u8; 6]) -> Result<(), Fault> {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            self.probe::<[u8; 4]>(index, mac, protocol)?;
            self.probe::<[u8; 16]>(index, mac, protocol)?;
        }
        Ok(())
    }

    fn probe<A: Family>(
        &mut self,
        index: u32,
        mac: [u8; 6],
        protocol: Protocol,
    ) -> Result<(), Fault> {
        let [client, vip, node, backend] = A::ROUTE;
        let number = protocol.number();
        let sent = frame((PEER, mac), (client, SOURCE_PORT), (vip, PORTS.0), TTL, number);
        let wanted = frame((mac, PEER), (node, SOURCE_PORT), (backend, PORTS.1), TTL - 1, number);
        let key = FlowKey {
            source: client,
            destination: vip,
            source_port: SOURCE_PORT,
            destination_port: PORTS.0,
            interface: index,
            protocol: number,
            _pad: [0; 3],
        };
        let now = self.jiffies()?;
        let epoch = self.maps.generations.epoch().map_err(Fault::Datapath)?;
        let transform = transform(&key, (node, backend), &wanted);
        // It belongs to no backend: its generation is the epoch.
        let flow = Flow {
            state: FlowState::ACTIVE,
            renewed_at: now,
            elected_at: now,
            epoch,
            generation: epoch,
            backend: EPOCH_INDEX,
            transform,
            ..Flow::default()
        };
        let maps = A::maps(&mut self.maps);
        maps.put_flow(key, flow)?;
        let output = self.run_transit(index, &sent);
        A::maps(&mut self.maps).remove_flow(key)?;
        judge(Probe { ipv6: A::IPV6, protocol }, output?, &wanted)
    }
}

fn judge(probe: Probe, output: RunOutput, wanted: &[u8]) -> Result<(), Fault> {
    if output.action != TX {
        return Err(Fault::Action(probe.to_string(), output.action));
    }
    if output.packet != wanted {
        return Err(Fault::Frame(probe.to_string(), output.packet));
    }
    Ok(())
}

/// Returns what turns packets of the flow into ones between these addresses, out of the interface
/// that they came in by.
fn transform<A: Family>(from: &FlowKey<A>, (node, backend): (A, A), wanted: &[u8]) -> Transform<A> {
    let sum = |addrs: [&A; 2]| {
        addrs.into_iter().fold(0, |sum, addr| checksum::add(sum, words(addr.as_ref())))
    };
    let address_delta =
        checksum::add(!sum([&from.source, &from.destination]), sum([&node, &backend]));
    let mut ethernet = [0; 14];
    ethernet.copy_from_slice(wanted.get(..14).unwrap_or(&[0; 14]));
    Transform {
        source: node,
        destination: backend,
        source_port: SOURCE_PORT,
        destination_port: PORTS.1,
        interface: from.interface,
        flags: FlowFlags::TRANSIT,
        mtu: 1500,
        ip_delta: checksum::add(address_delta, checksum::lower_ttl(1)),
        address_delta,
        port_delta: checksum::add(!u32::from(PORTS.0.to_be()), PORTS.1.to_be().into()),
        ethernet,
        ttl_delta: 1,
        ..Transform::default()
    }
}

/// Returns a frame between two MAC addresses and two sockets, with full checksums.
pub(super) fn frame<A: Family>(
    (from_mac, to_mac): ([u8; 6], [u8; 6]),
    (source, source_port): (A, u16),
    (destination, port): (A, u16),
    ttl: u8,
    protocol: u8,
) -> Vec<u8> {
    let addresses = [source.as_ref(), destination.as_ref()].concat();
    let ports = [source_port.to_be_bytes(), port.to_be_bytes()].concat();
    let mut l4 = match Protocol::from_number(protocol) {
        Some(Protocol::Udp) => {
            let len = 8 + PAYLOAD.len() as u16;
            [&ports[..], &len.to_be_bytes(), &[0, 0], PAYLOAD].concat()
        }
        // Sequence 1, acknowledgement 2, 20 bytes of header, ACK.
        _ => {
            let rest = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0];
            [&ports[..], &rest, PAYLOAD].concat()
        }
    };
    let len = l4.len() as u16;
    let pseudo = [&addresses[..], &[0, protocol], &len.to_be_bytes()].concat();
    let check = !checksum::fold(checksum::add(words(&pseudo), words(&l4)));
    let at = if protocol == Protocol::Udp.number() { 6 } else { 16 };
    if let Some(field) = l4.get_mut(at..at + 2) {
        field.copy_from_slice(&check.to_ne_bytes());
    }
    let ip = ip_header::<A>(&addresses, ttl, protocol, len, true);
    let ether_type = if A::IPV6 { [0x86, 0xdd] } else { [8, 0] };
    [&to_mac[..], &from_mac, &ether_type, &ip, &l4].concat()
}

/// Returns an IP header before so many bytes; `whole`: with the DF bit of IPv4.
pub(super) fn ip_header<A: Family>(
    addresses: &[u8],
    ttl: u8,
    protocol: u8,
    len: u16,
    whole: bool,
) -> Vec<u8> {
    if A::IPV6 {
        let [high, low] = len.to_be_bytes();
        return [&[0x60, 0, 0, 0, high, low, protocol, ttl], addresses].concat();
    }
    let [high, low] = (20 + len).to_be_bytes();
    let fragment = if whole { 0x40 } else { 0 };
    let mut header =
        [&[0x45, 0, high, low, 0, 0, fragment, 0, ttl, protocol, 0, 0], addresses].concat();
    let check = !checksum::fold(words(&header));
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&check.to_ne_bytes());
    }
    header
}

/// Returns the one's complement sum of 16-bit words, as they lie in memory.
fn words(bytes: &[u8]) -> u32 {
    let pairs = bytes.chunks(2).map(|pair| match pair {
        [first, second] => u16::from_ne_bytes([*first, *second]),
        [last] => u16::from_ne_bytes([*last, 0]),
        _ => 0,
    });
    pairs.fold(0, |sum, word| checksum::add(sum, word.into()))
}
