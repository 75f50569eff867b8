//! Random packets against random entries. Whatever comes in, it goes on unchanged, or it leaves as a
//! second implementation would have it, which takes the packet apart with a library.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::checksum::Sum16BitWords;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use proxy_common::abi::FlowKey;
use proxy_userspace::kernel::bpf::Hook;

use crate::packets::{ACK, L4, Net, Plain, difference};
use crate::stage::{Stage, entry, key};
use crate::table::{NEXT, REDIRECT};

/// Packets of a run; `PASSLANE_FUZZ` names another number.
const PACKETS: u32 = 4000;
/// Of so many packets one at least must be fast: the run shows nothing otherwise.
const ONE_FAST_OF: u32 = 8;

/// A packet, what its flow's entry makes of it, and what happened to it before it came.
#[derive(Clone, Debug)]
struct Trial<A> {
    packet: Plain<A>,
    /// Where it leads; the ports and the TTL count too.
    to: Plain<A>,
    damage: Vec<Damage>,
}

/// What may be done to a frame.
#[derive(Clone, Debug)]
enum Damage {
    /// Another byte, this far into the frame.
    Byte(usize, u8),
    /// Cut after so many bytes.
    Cut(usize),
    /// Bytes behind it.
    Pad(u8),
}

impl Damage {
    fn befall(&self, frame: &mut Vec<u8>) {
        match *self {
            Self::Byte(at, value) => {
                let at = at % frame.len();
                frame[at] = value;
            }
            Self::Cut(len) => frame.truncate(len.max(15)),
            Self::Pad(len) => frame.extend(std::iter::repeat_n(0xa5, len.into())),
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    // Offsets into the headers more often than into the payload; values that mean something.
    let byte = (0..74_usize, prop_oneof![any::<u8>(), select(vec![0, 1, 4, 5, 6, 17, 0x45, 0x60])])
        .prop_map(|(at, value)| Damage::Byte(at, value));
    let one = prop_oneof![
        4 => byte,
        1 => (0..90_usize).prop_map(Damage::Cut),
        1 => (1..20_u8).prop_map(Damage::Pad),
    ];
    prop_oneof![1 => Just(Vec::new()), 2 => vec(one, 1..4)]
}

fn address<A: Net>() -> impl Strategy<Value = A> {
    prop_oneof![(0..6_u16).prop_map(A::client), Just(A::VIP), Just(A::POD)]
}

fn trial<A: Net>() -> impl Strategy<Value = Trial<A>> {
    let l4 = prop_oneof![
        4 => Just(L4::Udp),
        4 => Just(ACK),
        1 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(syn, fin, rst)| L4::Tcp { syn, fin, rst }),
    ];
    (
        (address::<A>(), any::<u16>(), address::<A>(), any::<u16>()),
        (address::<A>(), any::<u16>(), address::<A>(), any::<u16>()),
        (prop_oneof![1..4_u8, any::<u8>()], 0..2_u8, l4),
        vec(any::<u8>(), 0..40),
        (any::<[u8; 6]>(), any::<[u8; 6]>()),
        damage(),
    )
        .prop_map(|(from, to, (ttl, lowered, l4), payload, ethernet, damage)| {
            let packet = Plain {
                ethernet: ([2, 0, 0, 0, 0, 5], [0; 6]),
                source: (from.0, from.1),
                destination: (from.2, from.3),
                ttl,
                payload,
                l4,
            };
            let to = Plain {
                ethernet,
                source: (to.0, to.1),
                destination: (to.2, to.3),
                ttl: ttl.saturating_sub(lowered),
                ..packet.clone()
            };
            Trial { packet, to, damage }
        })
}

/// Returns how many packets a run has.
pub(crate) fn packets(default: u32) -> Result<u32> {
    let packets = std::env::var("PASSLANE_FUZZ").ok().map(|text| text.parse()).transpose();
    Ok(packets.context("PASSLANE_FUZZ is a number of packets")?.unwrap_or(default))
}

/// Runs the property; the case that fails is made as small as it can be.
pub(crate) fn random_packets<A: Net>() -> Result<()> {
    let packets = packets(PACKETS)?;
    let stage = RefCell::new(Stage::new()?);
    let fast = Cell::new(0);
    let config = Config { cases: packets, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&trial::<A>(), |trial| {
        let hit = check(&mut stage.borrow_mut(), &trial)
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        fast.set(fast.get() + u32::from(hit));
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, trial)) => bail!("{reason}\n{trial:?}"),
        Err(error) => bail!("{error}"),
    }
    let fast = fast.get();
    ensure!(fast * ONE_FAST_OF >= packets, "only {fast} of {packets} packets were fast");
    Ok(())
}

/// Runs one trial; says whether the packet was fast.
fn check<A: Net>(stage: &mut Stage, trial: &Trial<A>) -> Result<bool> {
    let Trial { packet, to, damage } = trial;
    let flow = entry(packet, to);
    stage.put(key(packet), flow)?;
    let mut frame = packet.frame();
    damage.iter().for_each(|damage| damage.befall(&mut frame));
    if !runs(&frame) {
        return Ok(false);
    }
    let output = stage.datapath.run(Hook::Ingress, &frame)?;
    match output.action {
        NEXT => {
            ensure!(output.packet == frame, "changed\n{}", difference(&output.packet, &frame));
            Ok(false)
        }
        REDIRECT => {
            let lowered = flow.transform.ttl_delta;
            let arrived = Arrived::<A>::of(&frame).context("this is not for the fast path")?;
            ensure!(frame[..6] == [0; 6], "for another host");
            ensure!(arrived.key == key(packet), "another flow: {:?}", arrived.key);
            let wanted = arrived.translated(&frame, to, lowered)?;
            same(&arrived, &frame, &output.packet, &wanted)?;
            Ok(true)
        }
        action => bail!("action {action}"),
    }
}

/// The kernel runs no program on a frame without all of its IP header.
fn runs(frame: &[u8]) -> bool {
    match frame[12..14] {
        [8, 0] => frame.len() >= 34,
        [0x86, 0xdd] => frame.len() >= 54,
        _ => true,
    }
}

/// A packet as a library reads it.
pub(crate) struct Arrived<A> {
    key: FlowKey<A>,
    /// Where the packet ends in its frame.
    end: usize,
    tcp: bool,
}

impl<A: Net> Arrived<A> {
    /// Reads a frame; fails on all that the fast path has to leave to the kernel. The length in a UDP
    /// header is the receiver's to judge: routers forward any.
    pub(crate) fn of(frame: &[u8]) -> Result<Self> {
        let sliced = LaxSlicedPacket::from_ethernet(frame)?;
        ensure!(sliced.link_exts.is_empty(), "a VLAN tag");
        let (len, source, destination) = match sliced.net.as_ref().context("no IP")? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                ensure!(header.ihl() == 5 && !ip.payload().fragmented, "options or a fragment");
                ensure!(header.ttl() > 1, "its TTL ends here");
                let (source, destination) = (header.source(), header.destination());
                (header.total_len(), A::read(&source), A::read(&destination))
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                ensure!(ip.extensions().is_empty(), "extension headers");
                ensure!(header.hop_limit() > 1, "its hop limit ends here");
                let (source, destination) = (header.source(), header.destination());
                (40 + header.payload_length(), A::read(&source), A::read(&destination))
            }
            LaxNetSlice::Arp(_) => bail!("ARP"),
        };
        let (tcp, source_port, destination_port) = match &sliced.transport.context("no L4")? {
            TransportSlice::Tcp(tcp) => {
                ensure!(!(tcp.syn() || tcp.fin() || tcp.rst()), "it opens or ends a connection");
                (true, tcp.source_port(), tcp.destination_port())
            }
            TransportSlice::Udp(udp) => (false, udp.source_port(), udp.destination_port()),
            _ => bail!("neither TCP nor UDP"),
        };
        let key = FlowKey {
            source: source.context("another family")?,
            destination: destination.context("another family")?,
            source_port,
            destination_port,
            interface: 1,
            protocol: if tcp { 6 } else { 17 },
            _pad: [0; 3],
        };
        let end = 14 + usize::from(len);
        ensure!(end <= frame.len(), "shorter than it says");
        Ok(Self { key, end, tcp })
    }

    /// Returns the frame as it should leave, but for its checksums.
    pub(crate) fn translated(&self, frame: &[u8], to: &Plain<A>, lowered: u8) -> Result<Vec<u8>> {
        let mut wanted = frame.to_vec();
        wanted[..6].copy_from_slice(&to.ethernet.1);
        wanted[6..12].copy_from_slice(&to.ethernet.0);
        let size = size_of::<A>();
        let addresses = A::L4 - 2 * size;
        let ttl = if size == 4 { 22 } else { 21 };
        wanted[addresses..addresses + size].copy_from_slice(to.source.0.as_ref());
        wanted[addresses + size..A::L4].copy_from_slice(to.destination.0.as_ref());
        wanted[ttl] = wanted[ttl].checked_sub(lowered).context("a TTL below 0")?;
        wanted[A::L4..A::L4 + 2].copy_from_slice(&to.source.1.to_be_bytes());
        wanted[A::L4 + 2..A::L4 + 4].copy_from_slice(&to.destination.1.to_be_bytes());
        Ok(wanted)
    }

    /// Where the packet ends in its frame.
    pub(crate) fn end(&self) -> usize {
        self.end
    }

    /// Where the L4 checksum is.
    fn check(&self) -> Range<usize> {
        let at = A::L4 + if self.tcp { 16 } else { 6 };
        at..at + 2
    }

    /// What is wrong with the checksums of a frame, the header's and that of L4: nothing if they are
    /// 0. A UDP datagram without one has no fault.
    pub(crate) fn faults(&self, frame: &[u8]) -> [u16; 2] {
        let addresses = &frame[A::L4 - 2 * size_of::<A>()..A::L4];
        let header = if size_of::<A>() == 4 { &frame[14..A::L4] } else { &[] };
        let segment = &frame[A::L4..self.end];
        let none = !self.tcp && frame[self.check()] == [0, 0];
        let l4 = Sum16BitWords::new()
            .add_slice(addresses)
            .add_2bytes([0, self.key.protocol])
            .add_4bytes((segment.len() as u32).to_be_bytes())
            .add_slice(segment);
        let fault = |sum: Sum16BitWords| match sum.ones_complement() {
            // Both are zero.
            0xffff => 0,
            fault => fault,
        };
        let header =
            if header.is_empty() { 0 } else { fault(Sum16BitWords::new().add_slice(header)) };
        [header, if none { 0 } else { fault(l4) }]
    }
}

/// Compares what left with what should have: all bytes but the checksums are equal, and those are as
/// right or as wrong as they were.
pub(crate) fn same<A: Net>(
    arrived: &Arrived<A>,
    frame: &[u8],
    left: &[u8],
    wanted: &[u8],
) -> Result<()> {
    let mut without = [left.to_vec(), wanted.to_vec()];
    for frame in &mut without {
        ensure!(frame.len() == wanted.len(), "another length");
        if size_of::<A>() == 4 {
            frame[24..26].fill(0);
        }
        frame[arrived.check()].fill(0);
    }
    ensure!(without[0] == without[1], "another packet\n{}", difference(left, wanted));
    let none = |frame: &[u8]| !arrived.tcp && frame[arrived.check()] == [0, 0];
    ensure!(none(frame) == none(left), "a UDP checksum came or went");
    let (before, after) = (arrived.faults(frame), arrived.faults(left));
    ensure!(before == after, "checksums: {before:x?} before, {after:x?} after\n{left:x?}");
    Ok(())
}
