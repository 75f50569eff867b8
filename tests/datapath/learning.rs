//! Random packets through a real kernel that translates them with nft, between two links whose other
//! ends are this process. Nothing is put into the flow map: what is fast was learned from packets
//! like these, and leaves as a second implementation would have it.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::checksum::Sum16BitWords;
use proxy_common::abi::Interface;
use proxy_common::reason::Reason;
use proxy_tests::netns::Namespace;
use proxy_tests::tap::{Offload, Tap};
use proxy_tests::{process, residue};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::fuzz::{Arrived, packets, same};
use crate::packets::{ACK, L4, Net, Plain, difference};
use crate::stage::{BACKEND, Stage};

type End<A> = (A, u16);

/// Packets of a run, and of how many one at least must be fast.
const PACKETS: u32 = 60_000;
const ONE_FAST_OF: u32 = 4;
/// Short, so that many end while it runs.
const SOFT: Duration = Duration::from_millis(20);
const HARD: Duration = Duration::from_millis(60);

const NODE_MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 2, 1]];
const PEER_MAC: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 2, 2]];
const CLIENTS: usize = 0;
const POD: usize = 1;
const MTU: u32 = 1500;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 1;
const SYN: u8 = 2;
const PUSH: u8 = 8;
const ACKED: u8 = 16;
const URGENT: u8 = 32;

/// Says why this machine cannot run it.
pub(crate) fn missing() -> Option<String> {
    if !std::path::Path::new("/dev/net/tun").exists() {
        return Some("this kernel has no TAP devices".into());
    }
    (!process::exists("nft")).then(|| "nft is not installed".into())
}

/// Numbers from a seed.
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    fn next(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.set(state);
        state >> 16
    }

    fn below(&self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn bytes(&self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// A connection of a client, and as whom the pod sees it.
struct Flow<A> {
    protocol: u8,
    client: End<A>,
    seen: Option<End<A>>,
}

/// What differs by family beside the places of fields.
pub(crate) trait Family: Net {
    /// The table of nft and the command line of `ip`.
    const NFT: &'static str;
    const IP: &'static str;
    /// The node on both links, and the clients that are masqueraded.
    const NODE: [&'static str; 2];
    const MASQUERADED: &'static str;
    /// Where addresses are in a frame.
    const ADDRESSES: usize;
    /// Bytes of the IP header that each segment has for itself.
    const OWN: &'static [usize];

    /// The IP header of a packet with so many bytes behind it; with options, if wanted.
    fn header(protocol: u8, ttl: u8, ends: (Self, Self), options: bool, length: usize) -> Vec<u8>;
    /// Puts random values where routers leave them.
    fn vary(dice: &Dice, frame: &mut [u8]);
    /// Fills in the checksum of the IP header.
    fn seal(frame: &mut [u8]);
}

impl Family for [u8; 4] {
    const NFT: &'static str = "ip";
    const IP: &'static str = "-4";
    const NODE: [&'static str; 2] = ["10.1.255.1/16", "10.2.0.1/16"];
    const MASQUERADED: &'static str = "10.1.1.0/24";
    const ADDRESSES: usize = 26;
    const OWN: &'static [usize] = &[16, 17, 18, 19, 24, 25];

    fn header(protocol: u8, ttl: u8, ends: (Self, Self), options: bool, length: usize) -> Vec<u8> {
        let options: &[u8] = if options { &[1; 8] } else { &[] };
        let length = (20 + options.len() + length) as u16;
        let mut bytes = vec![0x45 + options.len() as u8 / 4, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([0, 0, 0, 0, ttl, protocol, 0, 0]);
        bytes.extend(ends.0.into_iter().chain(ends.1).chain(options.iter().copied()));
        bytes
    }

    fn vary(dice: &Dice, frame: &mut [u8]) {
        frame[15] = dice.next() as u8;
        frame[18] = dice.next() as u8;
        frame[20] = if dice.once_in(2) { 0x40 } else { 0 };
    }

    fn seal(frame: &mut [u8]) {
        frame[24..26].fill(0);
        let end = 14 + usize::from(frame[14] & 0xf) * 4;
        let sum = Sum16BitWords::new().add_slice(&frame[14..end]).ones_complement();
        frame[24..26].copy_from_slice(&sum.to_ne_bytes());
    }
}

impl Family for [u8; 16] {
    const NFT: &'static str = "ip6";
    const IP: &'static str = "-6";
    const NODE: [&'static str; 2] =
        ["fd00:1:102:304:506:708:90a:fff1/112", "fd00:2:6:7:8:9:a:1/112"];
    const MASQUERADED: &'static str = "fd00:1:102:304:506:708:90a:100/120";
    const ADDRESSES: usize = 22;
    const OWN: &'static [usize] = &[18, 19];

    fn header(protocol: u8, ttl: u8, ends: (Self, Self), options: bool, length: usize) -> Vec<u8> {
        // Options for each hop, which are padding.
        let options: &[u8] = if options { &[protocol, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
        let length = (options.len() + length) as u16;
        let next = if options.is_empty() { protocol } else { 0 };
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, ttl]);
        bytes.extend(ends.0.into_iter().chain(ends.1).chain(options.iter().copied()));
        bytes
    }

    fn vary(dice: &Dice, frame: &mut [u8]) {
        // Traffic class and flow label.
        frame[14] = 0x60 | (dice.next() as u8 & 0xf);
        frame[15..18].copy_from_slice(&dice.bytes(3));
    }

    fn seal(_: &mut [u8]) {}
}

/// A packet as it is sent, and what is known of it.
struct Sent {
    frame: Vec<u8>,
    offload: Offload,
    /// The same with every checksum filled in.
    whole: Vec<u8>,
    /// Its checksum is as it should be.
    sound: bool,
    flags: u8,
}

/// The node: programs and their maps, and the links.
struct Bench {
    stage: Stage,
    taps: [Tap; 2],
    node: Node,
}

/// The namespace of the node; it goes with it.
struct Node(Namespace);

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = process::run("ip", &["netns", "del", self.0.name()]) {
            eprintln!("learning: {error:#}");
        }
    }
}

impl Bench {
    fn new<A: Family>() -> Result<Self> {
        let namespace = Namespace::named(format!("{}-learning{}", residue::own_name(0), A::NFT));
        process::run("ip", &["netns", "add", namespace.name()])?;
        let node = Node(namespace);
        let taps = [Tap::open(&node.0, "clients")?, Tap::open(&node.0, "pod")?];
        configure::<A>(&node.0).context("the node")?;
        let mut stage = Stage::with(|options| {
            options.soft_lease = SOFT;
            options.hard_lease = HARD;
        })?;
        for name in ["clients", "pod"] {
            let text = node.0.run("ip", &["-j", "link", "show", name])?;
            let links: serde_json::Value = serde_json::from_str(&text)?;
            let index = links[0]["ifindex"].as_u64().context("no ifindex")? as u32;
            node.0.enter(|| Ok(stage.datapath.attach(name, index)?))?;
            stage.datapath.maps.put_interface(index, Interface { mtu: MTU, flags: 0 })?;
        }
        Ok(Self { stage, taps, node })
    }

    /// Sends a packet in by one link; returns what came out of the other, and whether it was fast.
    fn pass<A: Family>(&mut self, by: usize, packet: &Sent) -> Result<(Vec<Vec<u8>>, bool)> {
        let before = self.stage.count(Reason::Hit);
        self.taps[by].send(&packet.frame, packet.offload)?;
        let mut out = Vec::new();
        while let Some(frame) = self.taps[1 - by].receive()? {
            // Not what the node itself has to say.
            if is_ours::<A>(&frame) {
                out.push(frame);
            }
        }
        // What the node itself answers.
        while self.taps[by].receive()?.is_some() {}
        Ok((out, self.stage.count(Reason::Hit) > before))
    }
}

/// A datagram or a segment; with options for each hop, if it has such.
fn is_ours<A: Family>(frame: &[u8]) -> bool {
    if frame.len() <= A::L4 || frame[12..14] != A::ETHER_TYPE {
        return false;
    }
    let next = frame[A::PROTOCOL];
    [TCP, UDP].contains(if next == 0 { &frame[A::L4] } else { &next })
}

fn configure<A: Family>(node: &Namespace) -> Result<()> {
    let shown = |address: A| -> String {
        let address: std::net::IpAddr = address.into();
        address.to_string()
    };
    let (pod, vip) = (shown(A::POD), shown(A::VIP));
    let mac = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut lines =
        format!("neigh add {pod} lladdr {} dev pod nud permanent\n", mac(PEER_MAC[POD]));
    for flow in flows::<A>() {
        let client = shown(flow.client.0);
        let peer = mac(PEER_MAC[CLIENTS]);
        lines += &format!("neigh replace {client} lladdr {peer} dev clients nud permanent\n");
    }
    for name in ["clients", "pod"] {
        let off = if A::NFT == "ip" { "1" } else { "0" };
        node.set_sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), off)?;
        node.set_sysctl(&format!("net/ipv6/conf/{name}/accept_dad"), "0")?;
    }
    node.feed(
        "ip",
        &[A::IP, "-batch", "-"],
        &format!(
            "link set clients address {}\nlink set pod address {}\n\
             addr add {} dev clients\naddr add {} dev pod\n\
             link set clients up\nlink set pod up\n{lines}",
            mac(NODE_MAC[CLIENTS]),
            mac(NODE_MAC[POD]),
            A::NODE[CLIENTS],
            A::NODE[POD]
        ),
    )?;
    let (ip, to) = (A::NFT, std::net::SocketAddr::new(A::POD.into(), 8080));
    node.nft(&format!(
        "table {ip} service {{\n\
         chain to {{ type nat hook prerouting priority -100;\n\
         {ip} daddr {vip} tcp dport 80 dnat to {to}\n\
         {ip} daddr {vip} udp dport 80 dnat to {to}\n}}\n\
         chain as {{ type nat hook postrouting priority 100;\n\
         {ip} saddr {} masquerade\n}}\n}}\n",
        A::MASQUERADED
    ))?;
    node.set_sysctl("net/ipv4/ip_forward", "1")?;
    node.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    node.set_sysctl("net/netfilter/nf_conntrack_tcp_be_liberal", "1")
}

/// Some are masqueraded.
fn flows<A: Family>() -> Vec<Flow<A>> {
    let flow = |protocol, net: u16, number: u16| Flow {
        protocol,
        client: (A::client(net * 256 + number), 40_000 + number),
        seen: None,
    };
    let of = |protocol| [(0, 5), (0, 6), (1, 7), (1, 8)].map(|(net, it)| flow(protocol, net, it));
    [of(TCP), of(UDP)].into_iter().flatten().collect()
}

/// Runs the property. `PASSLANE_SEED` repeats a run.
pub(crate) fn random_packets<A: Family>() -> Result<()> {
    let seed = std::env::var("PASSLANE_SEED").ok().map(|text| text.parse()).transpose()?;
    let seed =
        seed.unwrap_or_else(|| u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    run::<A>(seed, packets(PACKETS)?).with_context(|| format!("PASSLANE_SEED={seed}"))
}

fn run<A: Family>(seed: u64, count: u32) -> Result<()> {
    // A packet is learned from on the processor that saw it come in.
    let mut here = CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &here)?;
    let dice = Dice(Cell::new(seed | 1));
    let mut bench = Bench::new::<A>()?;
    let mut flows = flows::<A>();
    let (mut fast, mut lost) = (0, 0);
    for number in 0..count {
        let flow = &mut flows[dice.below(8)];
        let replies = flow.seen.is_some() && dice.once_in(2);
        let (packet, arrived, hit) =
            exchange(&mut bench, &dice, flow, replies).with_context(|| number.to_string())?;
        fast += u32::from(hit);
        lost += u32::from(arrived == 0 && packet.sound && packet.is_plain::<A>());
        if dice.once_in(4000) {
            bench.stage.datapath.maps.generations.raise_epoch()?;
        }
        if dice.once_in(4000) {
            bench.stage.datapath.maps.generations.raise_backend(BACKEND)?;
        }
    }
    ensure!(fast * ONE_FAST_OF >= count, "only {fast} of {count} packets were fast");
    // A TTL that ends, and little else.
    ensure!(lost * 10 <= count, "{lost} of {count} packets did not arrive");
    for reason in [Reason::Installed, Reason::Activated, Reason::Renewed, Reason::Elected] {
        ensure!(bench.stage.count(reason) > 0, "nothing was counted as {}", reason.name());
    }
    ensure!(bench.node.0.path().exists());
    Ok(())
}

/// One random packet of a flow; a new connection is begun in order.
fn exchange<A: Family>(
    bench: &mut Bench,
    dice: &Dice,
    flow: &mut Flow<A>,
    replies: bool,
) -> Result<(Sent, usize, bool)> {
    let pod = (A::POD, 8080);
    let vip = (A::VIP, 80);
    let seen = flow.seen.unwrap_or(flow.client);
    let (by, from, to) = if replies { (POD, pod, seen) } else { (CLIENTS, flow.client, vip) };
    let packet = craft(dice, flow.protocol, by, (from, to));
    let (arrived, hit) = bench.pass::<A>(by, &packet)?;
    let opens = flow.protocol == TCP && packet.flags & SYN != 0;
    if !replies
        && (flow.seen.is_none() || opens)
        && let Some(first) = arrived.first()
    {
        ensure!(!hit, "the first packet was fast");
        flow.seen = Some(source::<A>(first)?);
    }
    if opens && flow.seen.is_some() {
        answer(bench, flow)?;
        return Ok((packet, arrived.len(), hit));
    }
    let wanted = Plain {
        ethernet: (NODE_MAC[1 - by], PEER_MAC[1 - by]),
        source: if replies { vip } else { flow.seen.unwrap_or(from) },
        destination: if replies { flow.client } else { pod },
        ttl: 0,
        payload: Vec::new(),
        l4: if flow.protocol == TCP { ACK } else { L4::Udp },
    };
    judge(&packet, &arrived, hit, &wanted).with_context(|| {
        format!("{from:?} to {to:?}, fast: {hit}, {:?}\n{:02x?}", packet.offload, packet.frame)
    })?;
    Ok((packet, arrived.len(), hit))
}

/// Goes on with a connection that has begun, as conntrack wants it.
fn answer<A: Family>(bench: &mut Bench, flow: &Flow<A>) -> Result<()> {
    let seen = flow.seen.context("it was not seen")?;
    let plain = |by, ends, flags, numbers| {
        let frame = segment(by, ends, TCP, 64, (flags, numbers), false, &[0; 4]);
        Sent { whole: frame.clone(), frame, offload: Offload::None, sound: true, flags }
    };
    let back = plain(POD, ((A::POD, 8080), seen), SYN | ACKED, [7000, 1]);
    bench.pass::<A>(POD, &back)?;
    let on = plain(CLIENTS, (flow.client, (A::VIP, 80)), ACKED, [1, 7001]);
    bench.pass::<A>(CLIENTS, &on).map(drop)
}

/// Compares what came out with what should have.
fn judge<A: Family>(
    packet: &Sent,
    arrived: &[Vec<u8>],
    hit: bool,
    wanted: &Plain<A>,
) -> Result<()> {
    let read = Arrived::<A>::of(&packet.whole);
    if hit {
        read.as_ref().map_err(|why| anyhow::anyhow!("fast, although {why:#}"))?;
        ensure!(!arrived.is_empty(), "it was fast, and did not arrive");
    }
    let Ok(read) = read else { return Ok(()) };
    if !hit && !packet.sound {
        // conntrack does not look at it, and so nobody translates it.
        return Ok(());
    }
    if let Offload::Segments(.., [headers, size]) = packet.offload {
        return segments(packet, (headers.into(), size.into()), arrived, wanted);
    }
    let [frame] = arrived else {
        ensure!(arrived.is_empty(), "{} frames arrived", arrived.len());
        return Ok(());
    };
    let mut expected = read.translated(&packet.whole, wanted, 1)?;
    let mut whole = packet.whole.clone();
    if frame.len() < expected.len() {
        // The slow path takes off what pads a frame.
        expected.truncate(read.end());
        whole.truncate(read.end());
    }
    same(&read, &whole, frame, &expected)
}

/// What comes out in segments is what went in as one.
fn segments<A: Family>(
    packet: &Sent,
    (headers, size): (usize, usize),
    arrived: &[Vec<u8>],
    wanted: &Plain<A>,
) -> Result<()> {
    if arrived.is_empty() {
        return Ok(());
    }
    let mut payload: Vec<u8> = Vec::new();
    for frame in arrived {
        let read = Arrived::<A>::of(frame)?;
        ensure!(read.faults(frame) == [0, 0], "a checksum is wrong\n{frame:02x?}");
        let mut expected = packet.whole[..headers].to_vec();
        let first = read.translated(&expected, wanted, 1)?;
        expected.copy_from_slice(&first);
        let sequence = A::L4 + 4..A::L4 + 8;
        let here = u32::from_be_bytes(expected[sequence.clone()].try_into()?);
        let here = here.wrapping_add(payload.len() as u32);
        expected[sequence].copy_from_slice(&here.to_be_bytes());
        let mut got = frame[..headers].to_vec();
        // Length, number and checksums are each segment's own, and so is the end of a push.
        for bytes in [&mut got, &mut expected] {
            for own in A::OWN.iter().copied().chain([A::L4 + 16, A::L4 + 17]) {
                bytes[own] = 0;
            }
            bytes[A::L4 + 13] &= !PUSH;
        }
        ensure!(got == expected, "another header\n{}", difference(&got, &expected));
        ensure!(frame.len() <= headers + size, "a segment of {} bytes", frame.len() - headers);
        payload.extend(&frame[headers..]);
    }
    ensure!(payload == packet.whole[headers..], "another payload");
    Ok(())
}

/// Who sent a frame without options.
fn source<A: Family>(frame: &[u8]) -> Result<End<A>> {
    let address = &frame[A::ADDRESSES..A::ADDRESSES + size_of::<A>()];
    let l4 = l4_of::<A>(frame);
    let port = u16::from_be_bytes(frame[l4..l4 + 2].try_into()?);
    Ok((A::read(address).context("another family")?, port))
}

/// Where the L4 header of a frame of ours begins.
fn l4_of<A: Family>(frame: &[u8]) -> usize {
    match (size_of::<A>(), frame[A::PROTOCOL]) {
        (4, _) => 14 + usize::from(frame[14] & 0xf) * 4,
        (_, 0) => A::L4 + 8,
        _ => A::L4,
    }
}

impl Sent {
    fn is_plain<A: Family>(&self) -> bool {
        self.frame[12..14] == A::ETHER_TYPE && l4_of::<A>(&self.frame) == A::L4
    }
}

/// A packet with random fields that a network might carry.
fn craft<A: Family>(dice: &Dice, protocol: u8, by: usize, ends: (End<A>, End<A>)) -> Sent {
    let tcp = protocol == TCP;
    let options = dice.once_in(25);
    let ttl = if dice.once_in(40) { 1 } else { 3 + dice.below(253) as u8 };
    let flags = match dice.below(120) {
        0 if by == CLIENTS => SYN,
        1 => FIN | ACKED,
        2..8 => ACKED | URGENT,
        8..60 => ACKED | PUSH,
        _ => ACKED,
    };
    let large = tcp && flags & (SYN | FIN) == 0 && !options && dice.once_in(12);
    let length = match dice.below(4) {
        _ if large => 2000 + dice.below(6000),
        0 => 0,
        1 => dice.below(40),
        _ => dice.below(1360),
    };
    let payload = dice.bytes(length);
    let numbers = [dice.next() as u32, dice.next() as u32];
    let mut whole = segment(by, ends, protocol, ttl, (flags, numbers), options, &payload);
    let l4 = l4_of::<A>(&whole);
    A::vary(dice, &mut whole);
    A::seal(&mut whole);
    let check = l4 + if tcp { 16 } else { 6 };
    let headers = l4 + if tcp { usize::from(whole[l4 + 12] >> 4) * 4 } else { 8 };
    let (start, offset) = (l4 as u16, (check - l4) as u16);
    // Over IPv6 there has to be one.
    let none = !tcp && size_of::<A>() == 4 && dice.once_in(4);
    if none {
        whole[check..check + 2].fill(0);
    }
    let partial = large || (!none && dice.once_in(5));
    let damaged = !partial && !none && dice.once_in(30);
    if damaged {
        whole[check] ^= 1 + dice.below(200) as u8;
    }
    let mut frame = whole.clone();
    if partial {
        let sum = pseudo::<A>(&whole, protocol).ones_complement();
        frame[check..check + 2].copy_from_slice(&(!sum).to_ne_bytes());
    } else if dice.once_in(60) {
        return tagged(frame);
    } else if dice.once_in(10) {
        let pad = 1 + dice.below(18);
        frame.extend(vec![0xa5; pad]);
        whole = frame.clone();
    }
    let offload = match (large, partial) {
        (true, _) => {
            let sizes = [headers as u16, 500 + dice.below(900) as u16];
            Offload::Segments(size_of::<A>() == 16, start, offset, sizes)
        }
        (false, true) => Offload::Checksum(start, offset),
        (false, false) => Offload::None,
    };
    Sent { frame, offload, whole, sound: !damaged && ttl > 1, flags: if tcp { flags } else { 0 } }
}

/// A frame of a VLAN that the node does not have. The kernel takes the tag off the frame and keeps it
/// beside it.
fn tagged(frame: Vec<u8>) -> Sent {
    let frame = [&frame[..12], &[0x81, 0, 0, 7], &frame[12..]].concat();
    Sent { whole: frame.clone(), frame, offload: Offload::None, sound: false, flags: 0 }
}

/// Puts a packet together, with its checksums.
fn segment<A: Family>(
    by: usize,
    (from, to): (End<A>, End<A>),
    protocol: u8,
    ttl: u8,
    (flags, numbers): (u8, [u32; 2]),
    options: bool,
    payload: &[u8],
) -> Vec<u8> {
    let timestamps = numbers[0].is_multiple_of(2) && protocol == TCP;
    let header = if protocol == UDP { 8 } else { 20 + 12 * usize::from(timestamps) };
    let mut bytes = [&NODE_MAC[by][..], &PEER_MAC[by], &A::ETHER_TYPE].concat();
    bytes.extend(A::header(protocol, ttl, (from.0, to.0), options, header + payload.len()));
    bytes.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    if protocol == UDP {
        bytes.extend(((header + payload.len()) as u16).to_be_bytes());
        bytes.extend([0, 0]);
    } else {
        bytes.extend(numbers.map(u32::to_be_bytes).concat());
        bytes.extend([(header as u8 / 4) << 4, flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        if timestamps {
            bytes.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        }
    }
    bytes.extend(payload);
    A::seal(&mut bytes);
    let l4 = l4_of::<A>(&bytes);
    let sum = pseudo::<A>(&bytes, protocol).add_slice(&bytes[l4..]).ones_complement();
    // A UDP checksum of 0 would mean that there is none.
    let sum = if sum == 0 && protocol == UDP { 0xffff } else { sum };
    let check = l4 + if protocol == TCP { 16 } else { 6 };
    bytes[check..check + 2].copy_from_slice(&sum.to_ne_bytes());
    bytes
}

/// The sum of the pseudo header of a packet that has no padding.
fn pseudo<A: Family>(bytes: &[u8], protocol: u8) -> Sum16BitWords {
    let length = bytes.len() - l4_of::<A>(bytes);
    Sum16BitWords::new()
        .add_slice(&bytes[A::ADDRESSES..A::ADDRESSES + 2 * size_of::<A>()])
        .add_2bytes([0, protocol])
        .add_4bytes((length as u32).to_be_bytes())
}
