//! Packets that the kernel made of several, which only tc sees.

use anyhow::ensure;
use proxy_common::{
    abi::{HashBackend, HashMethod},
    hash_reason::HashReason,
};
use proxy_userspace::{kernel::bpf::Merged, model::HashMode};

use super::{
    Cases, carried,
    frames::{ACK, L4, Packet},
    row,
    stage::{BACKEND, PASS, REDIRECT, Side, Stage, backend},
};

/// Bytes of payload of all segments, and of one.
const ALL: usize = 2800;
const ONE: u32 = 1400;
/// Bytes of a TCP header without options.
const TCP: u32 = 20;

/// Adds the cases of a family.
pub(super) fn cases<A: Side>(cases: &mut Cases) {
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(case)));
    };
    add("segments_received_as_one_are_carried_if_each_fits", fits::<A>);
    add("segments_received_as_one_are_the_kernels_if_one_does_not_fit", too_big::<A>);
    add("datagrams_received_as_one_are_the_kernels", datagrams::<A>);
    add("what_the_kernel_cannot_wrap_it_gets_untouched", unknown::<A>);
}

/// Runs the program on a packet of two; the way out takes so many bytes more or less than one needs.
fn run<A: Side>(
    l4: L4,
    slack: i32,
    change: fn(&mut HashBackend),
    reason: HashReason,
) -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Tc)?;
    let packet = Packet::<A> { payload: vec![7; ALL], ..Packet::new(l4) };
    let mut to = backend::<A>();
    let headers = (packet.len() - ALL) as u32;
    to.mtu = (headers + ONE).saturating_add_signed(slack);
    change(&mut to);
    stage.plane.maps.put_backend(BACKEND, to)?;
    let merged = Merged { segments: 2, segment: ONE };
    let frame = packet.frame();
    let output = stage.run_merged(merged, &frame)?;
    ensure!(stage.reasons() == [(reason.name(), 1)], "{:?}", stage.reasons());
    if reason == HashReason::New {
        ensure!(output.action == REDIRECT, "action {}", output.action);
        ensure!(stage.count(BACKEND)?.bytes == packet.len() as u64);
        return row::check(&packet, &to, &output.packet);
    }
    ensure!(output.action == PASS && output.packet == frame, "action {}", output.action);
    ensure!(stage.flows::<A>()? == 0 && stage.count(BACKEND)?.packets == 0);
    Ok(())
}

fn fits<A: Side>() -> anyhow::Result<()> {
    run::<A>(ACK, 0, |_| {}, HashReason::New)
}

fn too_big<A: Side>() -> anyhow::Result<()> {
    run::<A>(ACK, -1, |_| {}, HashReason::TooBig)
}

fn datagrams<A: Side>() -> anyhow::Result<()> {
    run::<A>(L4::Udp, TCP as i32, |_| {}, HashReason::Datagrams)
}

/// A test run has no kind of segments: the kernel refuses to put a header in front of them.
fn unknown<A: Side>() -> anyhow::Result<()> {
    run::<A>(ACK, 0, |to| carried::tunnel4(to, HashMethod::IPIP), HashReason::NoRoom)
}
