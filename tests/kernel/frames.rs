//! What IPVS makes of packets with DR and tunnels, byte for byte: the frames that `datapath/hash_plane/
//! kernel_frames.hex` holds, on every kernel.
//!
//! With `PASSLANE_BLESS=1` the test prints the file instead of comparing it: a guest cannot write here.

use std::env;

use anyhow::{Context, Result, ensure};
use proxy_userspace::model::{Forwarding, Frontend, Protocol, Tunnel};

use crate::{
    Case,
    gateway::{Gateway, Net, Shape, frame, hex},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root, Need::Ipvs];
        frames_leave_as_the_golden_file_has_them,
        a_packet_that_ends_here_goes_to_no_backend,
    ]
}

const GOLDEN: &str = include_str!("../datapath/hash_plane/kernel_frames.hex");
const GUE_PORT: u16 = 6080;
const ETHERNET: usize = 14;
const OUTER_V4: usize = 20;
const OUTER_V6: usize = 40;

/// Comes before the lines when the file is printed.
const PREAMBLE: &str = "\
# What IPVS makes of packets, by DR and by each kind of tunnel: `name<space>frame in<space>frame out`.
# Read by tests/kernel/frames.rs, which also wrote it (PASSLANE_BLESS=1), on the kernels of tests/kernels.toml.
# name: method-inner-over-outer-protocol-shape. Shapes, as TOS/TTL/DF/payload: plain 00/64/DF/5,
# marked b9/7/no DF/6, last 03/2/DF/1. TCP is an acknowledgement with data in mid-stream.
# Not as they were, since they differ from packet to packet: identification and header checksum of an
# outer IPv4 header and the source port of GUE are 0; the UDP checksum of GUE is ffff, or 0 where none is used.";

/// A way to a backend.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    forwarding: Forwarding,
}

const WAYS: [Way; 4] = [
    Way { name: "dr", forwarding: Forwarding::Route },
    Way { name: "ipip", forwarding: Forwarding::Tunnel(Tunnel::Ipip) },
    Way { name: "gue", forwarding: Forwarding::Tunnel(Tunnel::Gue { port: GUE_PORT }) },
    Way { name: "gre", forwarding: Forwarding::Tunnel(Tunnel::Gre) },
];

const SHAPES: [(&str, Shape); 3] = [
    ("plain", Shape::PLAIN),
    // Expedited forwarding and ECT(1).
    ("marked", Shape { tos: 0xb9, ttl: 7, whole: false, payload: 6 }),
    // Congestion experienced; the last hop before the backend.
    ("last", Shape { tos: 0x03, ttl: 2, whole: true, payload: 1 }),
];

fn word(net: Net) -> &'static str {
    match net {
        Net::V4 => "v4",
        Net::V6 => "v6",
    }
}

/// Returns the lines of the file as this kernel has them.
async fn captured() -> Result<Vec<String>> {
    let mut gateway = Gateway::open().await?;
    let mut lines = Vec::new();
    for way in WAYS {
        for inner in Net::ALL {
            for outer in Net::ALL {
                if way.forwarding == Forwarding::Route && inner != outer {
                    continue;
                }
                lines.extend(capture(&mut gateway, way, inner, outer).await?);
            }
        }
    }
    Ok(lines)
}

async fn capture(gateway: &mut Gateway, way: Way, inner: Net, outer: Net) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let frontend = Frontend { addr: inner.vip(), port: 443, protocol };
        gateway.serve(frontend, way.forwarding, &[outer.backend(5)]).await?;
        for (shape_name, shape) in SHAPES {
            let frame = frame(gateway.client(inner)?, frontend, shape)?;
            let protocol = protocol.name().to_lowercase();
            let (method, inner) = (way.name, word(inner));
            let name = format!("{method}-{inner}-over-{}-{protocol}-{shape_name}", word(outer));
            let out = gateway.pass(&frame).with_context(|| name.clone())?;
            let out = masked(way, outer, out).with_context(|| name.clone())?;
            lines.push(format!("{name} {} {}", hex(&frame), hex(&out)));
        }
        gateway.ipvs.remove_virtual_server(&frontend).await?;
    }
    Ok(lines)
}

/// Puts constants where packets differ, once it is seen that the sums are right.
fn masked(way: Way, outer: Net, mut frame: Vec<u8>) -> Result<Vec<u8>> {
    if way.forwarding == Forwarding::Route {
        return Ok(frame);
    }
    let udp = ETHERNET + if outer == Net::V4 { OUTER_V4 } else { OUTER_V6 };
    if let Forwarding::Tunnel(Tunnel::Gue { .. }) = way.forwarding {
        let sum = [frame[udp + 6], frame[udp + 7]];
        if sum != [0, 0] {
            let ends = if outer == Net::V4 { ETHERNET + 12..udp } else { ETHERNET + 8..udp };
            let length = (frame.len() - udp) as u32;
            let pseudo = sum_of(&frame[ends]) + 17 + length;
            ensure!(folded(pseudo + sum_of(&frame[udp..])) == 0xffff, "UDP checksum");
            frame[udp + 6..udp + 8].fill(0xff);
        }
        frame[udp..udp + 2].fill(0);
    }
    if outer == Net::V4 {
        ensure!(folded(sum_of(&frame[ETHERNET..udp])) == 0xffff, "header checksum");
        frame[ETHERNET + 4..ETHERNET + 6].fill(0);
        frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    }
    Ok(frame)
}

fn sum_of(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2);
    words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u32) -> u32 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

async fn frames_leave_as_the_golden_file_has_them() -> Result<()> {
    let captured = captured().await?;
    if env::var_os("PASSLANE_BLESS").is_some_and(|bless| bless == "1") {
        println!("\n{PREAMBLE}\n{}", captured.join("\n"));
        return Ok(());
    }
    let golden: Vec<_> = GOLDEN.lines().filter(|line| !line.starts_with('#')).collect();
    for (line, expected) in captured.iter().zip(&golden) {
        ensure!(line == expected, "this kernel:\n{line}\nthe file:\n{expected}");
    }
    ensure!(captured.len() == golden.len(), "{} of {} lines", golden.len(), captured.len());
    Ok(())
}

async fn a_packet_that_ends_here_goes_to_no_backend() -> Result<()> {
    let mut gateway = Gateway::open().await?;
    for way in WAYS {
        for net in Net::ALL {
            let frontend = Frontend { addr: net.vip(), port: 443, protocol: Protocol::Udp };
            gateway.serve(frontend, way.forwarding, &[net.backend(5)]).await?;
            let client = gateway.client(net)?;
            let ends = Shape { ttl: 1, ..Shape::PLAIN };
            gateway.send(&frame(client, frontend, ends)?)?;
            ensure!(gateway.at_backend()?.is_none(), "{} {net:?}", way.name);
            let answer = gateway.at_client()?.context("no answer")?;
            // Time exceeded in transit.
            let (at, kind) = if net == Net::V4 { (OUTER_V4, 11) } else { (OUTER_V6, 3) };
            ensure!(answer[ETHERNET + at] == kind, "{} {net:?}: {}", way.name, hex(&answer));
            gateway.ipvs.remove_virtual_server(&frontend).await?;
        }
    }
    Ok(())
}
