//! Frames through `tc_lb` where it is attached: in by one link and out by another. So they have what a
//! test run cannot give them: a VLAN tag beside them, segments to be cut, checksums to be filled in.

use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader, checksum::Sum16BitWords};
use proxy_common::{
    abi::{HashBackend, HashMethod, HashVlan, Uplink},
    hash_reason::{HashClass, HashReason},
};
use proxy_tests::{
    netns::Namespace,
    process, residue,
    tap::{Offload, Tap},
};
use proxy_userspace::model::HashMode;

use super::{
    Cases, carried,
    frames::{ACK, Packet, wrap},
    row::{self, Row},
    stage::{BACKEND, LOOPBACK, Side, Stage, backend, entry, key},
};
use crate::packets::difference;

/// The MAC address of the link that frames come in by.
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Bytes of payload of all segments, more than fit in one piece; and of one.
const ALL: usize = 6000;
const ONE: u16 = 1200;
/// Where the checksum is in a TCP header.
const CHECK: u16 = 16;
/// The sequence number that packets begin with.
const SEQUENCE: u32 = 1000;

/// Adds the cases of a family.
pub(super) fn cases<A: Side>(cases: &mut Cases) {
    let mut add = |name: &str, case: fn() -> Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(case)));
    };
    add("frames_leave_by_the_wire_from_tc_as_from_xdp", rows::<A>);
    add("segments_that_tc_sends_on_are_cut_as_they_should_be", segments::<A>);
    add("checksums_that_tc_leaves_to_others_are_filled_in", checksums::<A>);
}

/// A namespace with two links; it goes with them.
pub(super) struct Wire {
    pub(super) node: Namespace,
    pub(super) front: (Tap, u32),
    pub(super) back: (Tap, u32),
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Err(error) = process::run("ip", &["netns", "del", self.node.name()]) {
            eprintln!("wire: {error:#}");
        }
    }
}

impl Wire {
    pub(super) fn new(case: &str) -> Result<Self> {
        let node = Namespace::named(format!("{}-{case}", residue::own_name(0)));
        process::run("ip", &["netns", "add", node.name()])?;
        let taps = [Tap::open(&node, "front")?, Tap::open(&node, "back")?];
        for name in ["front", "back"] {
            node.set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        }
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        let script = format!("link set front address {mac}\nlink set front up\nlink set back up\n");
        node.feed("ip", &["-batch", "-"], &script)?;
        let index = |name: &str| -> Result<u32> {
            let text = node.run("ip", &["-j", "link", "show", name])?;
            let links: serde_json::Value = serde_json::from_str(&text)?;
            Ok(links[0]["ifindex"].as_u64().context("no ifindex")? as u32)
        };
        let indexes = [index("front")?, index("back")?];
        let [front, back] = taps;
        Ok(Self { node, front: (front, indexes[0]), back: (back, indexes[1]) })
    }

    /// Makes a stage one of this link, and attaches its program.
    pub(super) fn attach(&self, stage: &mut Stage) -> Result<()> {
        let interface = self.front.1;
        stage.plane.maps.put_uplink(Uplink { interface, mac: MAC, ..Uplink::default() })?;
        for HashVlan { vlan, .. } in stage.plane.maps.vlans()? {
            stage.plane.maps.put_vlan(HashVlan { interface, vlan })?;
        }
        let stage = Mutex::new(stage);
        self.node.enter(|| {
            let mut stage = stage.lock().map_err(|_| anyhow!("the stage broke"))?;
            Ok(stage.plane.attach("front", interface)?)
        })
    }

    /// Sends a frame in; returns those that came out, by the way back or the other way.
    pub(super) fn pass(
        &mut self,
        frame: &[u8],
        offload: Offload,
        is_back: bool,
    ) -> Result<Vec<Vec<u8>>> {
        self.front.0.send(frame, offload)?;
        let tap = if is_back { &mut self.front.0 } else { &mut self.back.0 };
        let mut out = Vec::new();
        while let Some(frame) = tap.receive()? {
            out.push(frame);
        }
        Ok(out)
    }
}

/// All frames that are carried, tags and all.
fn rows<A: Side>() -> Result<()> {
    let mut wire = Wire::new(&format!("rows{}", A::PROTOCOL))?;
    for row in carried::rows::<A>() {
        ensure!(row.reason.class() == HashClass::Carried);
        one(&mut wire, &row).context(row.name)?;
    }
    Ok(())
}

fn one<A: Side>(wire: &mut Wire, row: &Row<A>) -> Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Tc)?;
    let packet = Packet { to_mac: MAC, ..(row.packet)() };
    let mut to = backend::<A>();
    (row.backend)(&mut to);
    let is_back = to.interface == LOOPBACK;
    to.interface = if is_back { wire.front.1 } else { wire.back.1 };
    stage.plane.maps.put_backend(BACKEND, to)?;
    if let Some(change) = row.flow {
        let mut flow = entry();
        change(&mut flow);
        A::put_flow(&mut stage.plane, key(&packet), flow)?;
    }
    (row.stage)(&mut stage)?;
    wire.attach(&mut stage)?;
    let mut frame = packet.frame();
    (row.frame)(&mut frame);
    let out = wire.pass(&frame, Offload::None, is_back)?;
    let reasons = stage.reasons();
    stage.plane.detach(wire.front.1)?;
    ensure!(reasons == [(row.reason.name(), 1)], "{reasons:?}");
    ensure!(out.len() == 1, "{} frames came out", out.len());
    row::check(&packet, &to, &out[0])
}

/// Every way to a backend.
fn ways<A: Side>() -> Vec<HashBackend> {
    let tunnels = [HashMethod::IPIP, HashMethod::GUE, HashMethod::GRE];
    let tunnels = tunnels.into_iter().flat_map(|method| {
        let (mut over4, mut over6) = (backend::<A>(), backend::<A>());
        carried::tunnel4(&mut over4, method);
        carried::tunnel6(&mut over6, method);
        [over4, over6]
    });
    [backend::<A>()].into_iter().chain(tunnels).collect()
}

fn segments<A: Side>() -> Result<()> {
    let is_ipv6 = !A::SUFFIX.is_empty();
    let start = A::L4 as u16;
    let headers = start + 20;
    let offload = Offload::Segments(is_ipv6, start, CHECK, [headers, ONE]);
    unfinished::<A>("segments", ALL, offload)
}

fn checksums<A: Side>() -> Result<()> {
    unfinished::<A>("checksums", 300, Offload::Checksum(A::L4 as u16, CHECK))
}

/// Sends a segment with so much payload that something else has to finish, by every way.
fn unfinished<A: Side>(case: &str, payload: usize, offload: Offload) -> Result<()> {
    let mut wire = Wire::new(&format!("{case}{}", A::PROTOCOL))?;
    let bytes: Vec<u8> = (0..payload).map(|at| (at % 251) as u8).collect();
    let packet = Packet::<A> { to_mac: MAC, payload: bytes, ..Packet::new(ACK) };
    let frame = open::<A>(packet.frame());
    for way in ways::<A>() {
        let mut stage = Stage::new::<A>(HashMode::Tc)?;
        let to = HashBackend { interface: wire.back.1, ..way };
        stage.plane.maps.put_backend(BACKEND, to)?;
        wire.attach(&mut stage)?;
        let out = wire.pass(&frame, offload, false)?;
        let reasons = stage.reasons();
        stage.plane.detach(wire.front.1)?;
        let way = format!("method {} over IPv{}", to.method, to.family);
        ensure!(reasons == [(HashReason::New.name(), 1)], "{way}: {reasons:?}");
        let wanted = payload.div_ceil(ONE.into());
        ensure!(out.len() == wanted, "{way}: {} frames came out", out.len());
        let mut got = Vec::new();
        for frame in &out {
            let segment = checked::<A>(frame, &to, got.len()).with_context(|| way.clone())?;
            got.extend(segment);
        }
        ensure!(got == packet.payload, "{way}: another payload came");
    }
    Ok(())
}

/// Leaves the checksum to somebody else, who adds to the sum of the pseudo header.
fn open<A: Side>(mut frame: Vec<u8>) -> Vec<u8> {
    let addresses = A::L4 - 2 * size_of::<A>();
    let length = (frame.len() - A::L4) as u16;
    let sum = Sum16BitWords::new()
        .add_slice(&frame[addresses..A::L4])
        .add_2bytes([0, 6])
        .add_2bytes(length.to_be_bytes())
        .ones_complement();
    let at = A::L4 + usize::from(CHECK);
    frame[at..at + 2].copy_from_slice(&(!sum).to_ne_bytes());
    frame
}

/// Checks all of a frame to a backend; returns its payload, which begins this far into that of all.
fn checked<A: Side>(frame: &[u8], to: &HashBackend, at: usize) -> Result<Vec<u8>> {
    let ip = if to.family == 6 { 40 } else { 20 };
    let head = match to.method {
        HashMethod::ROUTE => 14,
        HashMethod::IPIP => 14 + ip,
        HashMethod::GUE => 14 + ip + 12,
        _ => 14 + ip + 4,
    };
    let inner = frame.get(head..).context("a short frame")?;
    let port = frame.get(14 + ip..).context("a short frame")?;
    let mut wanted = wrap::<A>(inner, inner.len(), to, u16::from_be_bytes([port[0], port[1]]));
    let mut got = frame.to_vec();
    if to.method != HashMethod::ROUTE && to.family != 6 {
        // Who cuts counts the packets.
        let outer = Sum16BitWords::new().add_slice(&frame[14..34]).ones_complement();
        ensure!(outer == 0, "outer checksum");
        for bytes in [&mut got, &mut wanted] {
            bytes[18..20].fill(0);
            bytes[24..26].fill(0);
        }
    }
    ensure!(got == wanted, "{}", difference(&got, &wanted));
    payload(inner, at)
}

/// Returns the payload of a segment whose checksum is right.
fn payload(inner: &[u8], at: usize) -> Result<Vec<u8>> {
    let parsed = LaxPacketHeaders::from_ip(inner)?;
    let Some(TransportHeader::Tcp(tcp)) = parsed.transport else { anyhow::bail!("no TCP") };
    let payload = parsed.payload.slice();
    let check = match parsed.net {
        Some(NetHeaders::Ipv4(ip, _)) => {
            ensure!(ip.time_to_live == 63, "TTL {}", ip.time_to_live);
            ensure!(ip.header_checksum == ip.calc_header_checksum(), "IP checksum");
            tcp.calc_checksum_ipv4(&ip, payload)?
        }
        Some(NetHeaders::Ipv6(ip, _)) => {
            ensure!(ip.hop_limit == 63, "hop limit {}", ip.hop_limit);
            tcp.calc_checksum_ipv6(&ip, payload)?
        }
        _ => anyhow::bail!("no IP"),
    };
    ensure!(tcp.checksum == check, "TCP checksum {:#x}, not {check:#x}", tcp.checksum);
    ensure!(tcp.sequence_number == SEQUENCE + at as u32, "sequence {}", tcp.sequence_number);
    Ok(payload.to_vec())
}
