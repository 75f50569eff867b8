//! Random frames to random backends. Whatever comes in, it is passed on untouched, or it is a plain
//! packet to the frontend and its backend gets it whole.

use std::cell::{Cell, RefCell};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::checksum::Sum16BitWords;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use proxy_common::abi::{HashBackend, HashMethod, HashVlan};
use proxy_userspace::model::HashMode;

use super::{
    Cases, carried,
    frames::{ACK, FIN, L4, Packet, SYN, wrap},
    stage::{BACKEND, LOOPBACK, OUT, PASS, REDIRECT, Side, Stage, TX, backend, is_refused_at_tc},
};
use crate::packets::{Net, difference};

/// Frames of a run; `PASSLANE_FUZZ` names another number.
const FRAMES: u32 = 3000;
/// Of so many frames one at least must be carried: the run shows nothing otherwise.
const ONE_CARRIED_OF: u32 = 8;
/// The VLAN that is this host's.
const VLAN: u16 = 5;

/// A packet, what happened to its frame, and the way to its backend.
#[derive(Clone, Debug)]
struct Trial<A> {
    packet: Packet<A>,
    /// Bytes that are written over, this far into the frame.
    bytes: Vec<(usize, u8)>,
    /// The frame is cut after so many bytes.
    cut: Option<usize>,
    method: u8,
    over_ipv6: bool,
    vlan: u16,
    way_back: bool,
    mtu: u32,
}

fn trial<A: Side>() -> impl Strategy<Value = Trial<A>> {
    let kind = prop_oneof![Just(1), Just(3), Just(4), any::<u8>()];
    let l4 = prop_oneof![
        4 => select(vec![SYN, ACK, FIN]),
        4 => Just(L4::Udp),
        2 => (kind, any::<bool>()).prop_map(|(kind, udp)| L4::Icmp { kind, udp }),
    ];
    let port = prop_oneof![8 => any::<u16>(), 1 => Just(20)];
    let to = prop_oneof![8 => Just((A::VIP, 80)), 1 => Just((A::POD, 80)), 1 => Just((A::VIP, 81))];
    let vlan =
        prop_oneof![4 => Just(None), 2 => Just(Some(VLAN)), 1 => any::<u16>().prop_map(Some)];
    let ttl = prop_oneof![1..4_u8, any::<u8>()];
    let packet = (l4, 0..9_u16, port, to, vlan, ttl, any::<(u8, bool)>(), vec(any::<u8>(), 0..60))
        .prop_map(|(l4, client, port, destination, vlan, ttl, (ds, dont_fragment), payload)| {
            let padding = usize::from(ds) % 7;
            let source = (A::client(client), port);
            let packet = Packet { source, destination, vlan, ttl, ds, ..Packet::new(l4) };
            Packet { dont_fragment, payload, padding, ..packet }
        });
    let value = prop_oneof![any::<u8>(), select(vec![0, 1, 4, 6, 17, 41, 44, 58, 0x45, 0x60])];
    let damage = prop_oneof![2 => Just(0..1_usize), 1 => Just(1..4_usize)]
        .prop_flat_map(move |count| vec((0..120_usize, value.clone()), count));
    let cut = prop_oneof![6 => Just(None), 1 => (14..110_usize).prop_map(Some)];
    let way = (1..5_u8, any::<bool>(), select(vec![0, 0, 7, 0x6007]), any::<bool>(), 60..400_u32);
    (packet, damage, cut, way).prop_map(
        |(packet, bytes, cut, (method, over_ipv6, vlan, way_back, mtu))| Trial {
            packet,
            bytes,
            cut,
            method,
            over_ipv6,
            vlan,
            way_back,
            mtu,
        },
    )
}

impl<A: Side> Trial<A> {
    fn frame(&self) -> Vec<u8> {
        let mut frame = self.packet.frame();
        for (at, value) in &self.bytes {
            let at = at % frame.len();
            frame[at] = *value;
        }
        frame.truncate(self.cut.unwrap_or(frame.len()));
        frame
    }

    fn backend(&self) -> HashBackend {
        let mut to = backend::<A>();
        match (self.method, self.over_ipv6) {
            (HashMethod::ROUTE, _) => {}
            (method, false) => carried::tunnel4(&mut to, method),
            (method, true) => carried::tunnel6(&mut to, method),
        }
        let interface = if self.way_back { LOOPBACK } else { OUT };
        HashBackend { vlan: self.vlan, mtu: self.mtu, interface, ..to }
    }
}

/// Adds the cases of a family.
pub(super) fn cases<A: Side>(cases: &mut Cases, mode: HashMode) {
    let name = format!("random_frames_are_passed_untouched_or_carried_whole{}", A::SUFFIX);
    cases.push((name, Box::new(move || random::<A>(mode))));
}

fn random<A: Side>(mode: HashMode) -> Result<()> {
    let frames = match std::env::var("PASSLANE_FUZZ") {
        Ok(number) => number.parse()?,
        Err(_) => FRAMES,
    };
    let mut stage = Stage::new::<A>(mode)?;
    stage.plane.maps.put_vlan(HashVlan { interface: LOOPBACK, vlan: VLAN.into() })?;
    let (stage, carried) = (RefCell::new(stage), Cell::new(0_u32));
    let config = Config { cases: frames, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&trial::<A>(), |trial| {
        match one(&mut stage.borrow_mut(), &trial) {
            Ok(is_carried) => carried.set(carried.get() + u32::from(is_carried)),
            Err(error) => return Err(TestCaseError::fail(format!("{error:#}"))),
        }
        Ok(())
    });
    result.map_err(|error| anyhow::anyhow!("{error}"))?;
    let carried = carried.get();
    ensure!(carried > frames / ONE_CARRIED_OF, "only {carried} of {frames} were carried");
    Ok(())
}

/// Runs the program on one frame; says whether it was carried.
fn one<A: Side>(stage: &mut Stage, trial: &Trial<A>) -> Result<bool> {
    let to = trial.backend();
    stage.plane.maps.put_backend(BACKEND, to)?;
    let frame = trial.frame();
    if stage.options.mode == HashMode::Tc && is_refused_at_tc(&frame) {
        return Ok(false);
    }
    let before = stage.count(BACKEND)?;
    let output = stage.run(&frame)?;
    let after = stage.count(BACKEND)?;
    match output.action {
        PASS => {
            ensure!(output.packet == frame, "{}", difference(&output.packet, &frame));
            ensure!(after == before, "{after:?}");
            return Ok(false);
        }
        TX | REDIRECT => ensure!(output.action == stage.action(to.interface), "another way"),
        action => bail!("action {action}"),
    }
    ensure!(after.packets == before.packets + 1, "{after:?}");
    let (inner, len) = plain::<A>(&frame, &to)?;
    ensure!(after.bytes == before.bytes + len as u64, "{after:?}");
    let to = stage.seen(to);
    let mut lowered = inner.to_vec();
    let ttl = if A::SUFFIX.is_empty() { 8 } else { 7 };
    lowered[ttl] -= 1;
    let head = output.packet.len().checked_sub(inner.len()).context("it was cut")?;
    let port = at(&output.packet, head.saturating_sub(12))?;
    let mut wanted = wrap::<A>(&lowered, len, &to, port);
    let (mut got, left) = (output.packet.clone(), &output.packet[head..]);
    ensure!(fault::<A>(left) == fault::<A>(inner), "its checksum became right or wrong");
    if A::SUFFIX.is_empty() && got.len() == wanted.len() {
        got[head + 10..head + 12].fill(0);
        wanted[head + 10..head + 12].fill(0);
    }
    ensure!(got == wanted, "{}", difference(&got, &wanted));
    Ok(true)
}

/// Returns the packet of a frame, with its padding, and its length: it must be one that can be carried.
fn plain<'a, A: Side>(frame: &'a [u8], to: &HashBackend) -> Result<(&'a [u8], usize)> {
    ensure!(frame[..6] == [0; 6], "it is for somebody else");
    let is_tagged = frame[12..14] == [0x81, 0];
    ensure!(!is_tagged || at(frame, 14)? & 0xfff == VLAN, "it is of another VLAN");
    let link = if is_tagged { 18 } else { 14 };
    ensure!(frame[link - 2..link] == A::ETHER_TYPE, "it is of another protocol");
    let ip = &frame[link..];
    let (header, len, ttl, protocol, icmp) = if A::SUFFIX.is_empty() {
        ensure!(ip[0] == 0x45 && at(ip, 6)? & 0x3fff == 0, "options or a fragment");
        (20, usize::from(at(ip, 2)?), ip[8], ip[9], 1)
    } else {
        ensure!(ip[0] >> 4 == 6, "another version");
        (40, 40 + usize::from(at(ip, 4)?), ip[7], ip[6], 58)
    };
    ensure!(ttl > 1 && len <= ip.len() && len <= to.mtu as usize, "the kernel must answer");
    ensure!(ip[header - size_of::<A>()..header] == *A::VIP.as_ref(), "it is to somebody else");
    ensure!([6, 17, icmp].contains(&protocol), "protocol {protocol}");
    if protocol != icmp {
        ensure!(at(ip, header + 2)? == 80 && at(ip, header)? != 20, "it is to another port");
    }
    Ok((ip, len))
}

/// Returns the number of two bytes.
fn at(bytes: &[u8], at: usize) -> Result<u16> {
    let bytes = bytes.get(at..at + 2).context("it ends before that")?;
    Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// What is wrong with the checksum of an IPv4 header: nothing if it is 0.
fn fault<A: Net>(ip: &[u8]) -> u16 {
    if !A::SUFFIX.is_empty() {
        return 0;
    }
    match Sum16BitWords::new().add_slice(&ip[..20]).ones_complement() {
        // Both are zero.
        0xffff => 0,
        fault => fault,
    }
}
