//! The frames that IPVS itself sent, in `kernel_frames.hex`: the program must send the same.

use std::{collections::BTreeMap, net::Ipv6Addr};

use anyhow::{Context, bail, ensure};
use proxy_common::{
    abi::{HashBackend, HashFrontend, HashMethod, Uplink},
    hash_reason::HashReason,
};
use proxy_userspace::model::{Frontend, HashMode, Protocol};

use super::{
    Cases,
    row::GUE_PORTS,
    stage::{BACKEND, LOOPBACK, REDIRECT, Stage, TABLE, backend},
};
use crate::packets::difference;

/// Written by `tests/kernel/frames.rs`, which says what is masked.
const GOLDEN: &str = include_str!("kernel_frames.hex");
/// What the gateway of that test had.
const PORT: u16 = 443;
const GUE_PORT: u16 = 6080;
const VIP4: [u8; 4] = [203, 0, 113, 1];
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
const OUTER4: [[u8; 4]; 2] = [[10, 1, 0, 1], [10, 1, 0, 5]];
const OUTER6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 5)];
const ETHERNET: usize = 14;

/// A frame, and what IPVS made of it.
struct Line {
    name: &'static str,
    given: Vec<u8>,
    sent: Vec<u8>,
}

/// How a frame gets to a backend: the first words of the name of a line.
#[derive(Clone, Copy)]
struct Kind {
    method: u8,
    /// The family of the client's packet is IPv6.
    inner6: bool,
    /// That of the frame to the backend.
    outer6: bool,
}

/// Adds a case for each kind of way. Lines that cannot be read are a case that fails.
pub(super) fn cases(cases: &mut Cases, mode: HashMode) {
    let mut kinds: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let words = line.match_indices('-').nth(3).map_or(line.len(), |(at, _)| at);
        kinds.entry(&line[..words]).or_default().push(line);
    }
    for (kind, lines) in kinds {
        let name = format!("the_hash_plane_sends_{}_as_ipvs_does", kind.replace('-', "_"));
        cases.push((name, Box::new(move || run(kind, &lines, mode))));
    }
}

fn run(kind: &str, lines: &[&'static str], mode: HashMode) -> anyhow::Result<()> {
    ensure!(lines.len() == 6, "{} lines", lines.len());
    let kind = Kind::parse(kind)?;
    for line in lines {
        let line = Line::parse(line)?;
        let mut stage = stage(kind, &line, mode).context(line.name)?;
        // Of a flow without an entry, then of one that has one.
        for reason in [HashReason::New, HashReason::Cached] {
            let output = stage.run(&line.given)?;
            let reasons = stage.reasons();
            let is_counted = reasons.contains(&(reason.name(), 1));
            ensure!(is_counted && output.action == REDIRECT, "{}: {reasons:?}", line.name);
            let sent = masked(kind, output.packet).context(line.name)?;
            ensure!(sent == line.sent, "{}: {}", line.name, difference(&sent, &line.sent));
        }
    }
    Ok(())
}

impl Line {
    fn parse(line: &'static str) -> anyhow::Result<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| line.to_owned());
        Ok(Self { name: word()?, given: bytes(word()?)?, sent: bytes(word()?)? })
    }
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16);
    Ok((0..hex.len()).step_by(2).map(byte).collect::<Result<_, _>>()?)
}

impl Kind {
    fn parse(name: &str) -> anyhow::Result<Self> {
        let words: Vec<_> = name.split('-').collect();
        let &[method, inner, "over", outer] = &words[..] else { bail!("not a kind: {name}") };
        let method = match method {
            "dr" => HashMethod::ROUTE,
            "ipip" => HashMethod::IPIP,
            "gue" => HashMethod::GUE,
            "gre" => HashMethod::GRE,
            _ => bail!("method {method}"),
        };
        Ok(Self { method, inner6: inner == "v6", outer6: outer == "v6" })
    }

    /// Bytes of a frame before what follows the outer IP header.
    fn behind_outer(self) -> usize {
        ETHERNET + if self.outer6 { 40 } else { 20 }
    }

    /// The backend; its MAC addresses are those of the gateway's way out.
    fn backend(self, line: &Line) -> HashBackend {
        let mut to = HashBackend {
            method: self.method,
            family: if self.outer6 { 6 } else { 4 },
            port: if self.method == HashMethod::GUE { GUE_PORT } else { 0 },
            ..backend::<[u8; 4]>()
        };
        to.ethernet[..12].copy_from_slice(&line.sent[..12]);
        to.ethernet[12..].copy_from_slice(if self.outer6 { &[0x86, 0xdd] } else { &[8, 0] });
        if self.method == HashMethod::ROUTE {
            return to;
        }
        if self.outer6 {
            to.addrs[..16].copy_from_slice(&OUTER6[0].octets());
            to.addrs[16..].copy_from_slice(&OUTER6[1].octets());
        } else {
            to.addrs[..4].copy_from_slice(&OUTER4[0]);
            to.addrs[4..8].copy_from_slice(&OUTER4[1]);
        }
        to
    }
}

/// The gateway as the program sees it.
fn stage(kind: Kind, line: &Line, mode: HashMode) -> anyhow::Result<Stage> {
    let mut stage = Stage::new::<[u8; 4]>(mode)?;
    let maps = &mut stage.plane.maps;
    let mac = line.given[..6].try_into()?;
    maps.put_uplink(Uplink { interface: LOOPBACK, mac, ..Uplink::default() })?;
    maps.put_backend(BACKEND, kind.backend(line))?;
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let addr = if kind.inner6 { VIP6.into() } else { VIP4.into() };
        let frontend = Frontend { addr, port: PORT, protocol };
        maps.put_frontend(&frontend, HashFrontend { table: TABLE, flags: 0 })?;
    }
    Ok(stage)
}

/// Puts the constants of the file where packets differ, once it is seen that what was there is right.
fn masked(kind: Kind, mut frame: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let next = kind.behind_outer();
    ensure!(frame.len() > next + 8, "{} bytes", frame.len());
    if kind.method == HashMethod::ROUTE {
        return Ok(frame);
    }
    if !kind.outer6 {
        let words = frame[ETHERNET..next].chunks(2);
        let sum: u32 = words.map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
        ensure!((sum & 0xffff) + (sum >> 16) == 0xffff, "header checksum");
        frame[ETHERNET + 4..ETHERNET + 6].fill(0);
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    }
    if kind.method == HashMethod::GUE {
        let port = u16::from_be_bytes([frame[next], frame[next + 1]]);
        ensure!(GUE_PORTS.contains(&port), "source port {port}");
        frame[next..next + 2].fill(0);
    }
    Ok(frame)
}
