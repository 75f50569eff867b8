//! One frame against one state of the maps, and what must become of both.

use anyhow::ensure;
use proxy_common::{
    abi::{HashBackend, HashCount, HashFlow, HashFlowState},
    hash_reason::{HashClass, HashReason},
};
use proxy_userspace::model::HashMode;

use super::{
    frames::Packet,
    stage::{BACKEND, PASS, Side, Stage, backend, entry, is_refused_at_tc, key},
};
use crate::{packets::difference, stage::jiffies_now};

/// A frame and what it meets.
pub(super) struct Row<A> {
    pub(super) name: &'static str,
    pub(super) packet: fn() -> Packet<A>,
    /// Changes the backend of all slots.
    pub(super) backend: fn(&mut HashBackend),
    /// Makes the flow's entry, out of one of just now.
    pub(super) flow: Option<fn(&mut HashFlow)>,
    /// Changes maps.
    pub(super) stage: fn(&mut Stage) -> anyhow::Result<()>,
    /// Changes the frame before it goes in.
    pub(super) frame: fn(&mut Vec<u8>),
    pub(super) reason: HashReason,
}

/// A row that changes nothing.
pub(super) fn row<A: Side>(
    name: &'static str,
    packet: fn() -> Packet<A>,
    reason: HashReason,
) -> Row<A> {
    Row { name, packet, backend: |_| {}, flow: None, stage: |_| Ok(()), frame: |_| {}, reason }
}

/// Source ports of GUE.
pub(super) const GUE_PORTS: std::ops::Range<u16> = 32_768..61_000;

impl<A: Side> Row<A> {
    /// Says whether a test run can show it: at tc, a tag is beside the frame, which none can have.
    pub(super) fn is_shown(&self, mode: HashMode) -> bool {
        let packet = (self.packet)();
        let mut frame = packet.frame();
        (self.frame)(&mut frame);
        let is_beside = packet.vlan.is_some() && self.reason.class() == HashClass::Carried;
        mode != HashMode::Tc || !is_beside && !is_refused_at_tc(&frame)
    }
}

/// Runs a row.
pub(super) fn run<A: Side>(row: &Row<A>, mode: HashMode) -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(mode)?;
    let packet = (row.packet)();
    let mut to = backend::<A>();
    (row.backend)(&mut to);
    stage.plane.maps.put_backend(BACKEND, to)?;
    if let Some(change) = row.flow {
        let mut flow = entry();
        change(&mut flow);
        A::put_flow(&mut stage.plane, key(&packet), flow)?;
    }
    (row.stage)(&mut stage)?;
    let before = stage.flow(&packet)?;
    let mut frame = packet.frame();
    (row.frame)(&mut frame);
    let from = jiffies_now();
    let output = stage.run(&frame)?;
    let reasons = stage.reasons();
    ensure!(reasons == [(row.reason.name(), 1)], "{reasons:?}, action {}", output.action);
    let is_carried = row.reason.class() == HashClass::Carried;
    let bytes = stage.plane.maps.reason(row.reason)?.bytes;
    let wanted = if is_carried { packet.len() } else { frame.len().saturating_sub(14) };
    ensure!(bytes == wanted as u64, "{bytes} bytes counted");
    let count = stage.count(BACKEND)?;
    if !is_carried {
        ensure!(output.action == PASS, "action {}", output.action);
        ensure!(output.packet == frame, "{}", difference(&output.packet, &frame));
        ensure!(count == HashCount::default(), "{count:?}");
        return check_noted(&packet, before, stage.flow(&packet)?, from);
    }
    ensure!(output.action == stage.action(to.interface), "action {}", output.action);
    check(&packet, &stage.seen(to), &output.packet)?;
    let flows = u64::from(row.reason == HashReason::New);
    let expected = HashCount { packets: 1, bytes: packet.len() as u64, flows };
    ensure!(count == expected, "{count:?}");
    let recorded = stage.flow(&packet)?.is_some_and(|flow| flow.backend == BACKEND);
    let expected = matches!(row.reason, HashReason::New | HashReason::Cached) || before.is_some();
    ensure!(recorded == expected, "{:?}", stage.flow(&packet)?);
    Ok(())
}

/// Checks that the packet was noted for its flow, if that was known, since `from`.
fn check_noted<A: Side>(
    packet: &Packet<A>,
    before: Option<HashFlow>,
    after: Option<HashFlow>,
    from: u32,
) -> anyhow::Result<()> {
    let (Some(before), Some(after)) = (before, after) else {
        ensure!(before == after, "{after:?}");
        return Ok(());
    };
    let since = after.seen.wrapping_sub(from);
    ensure!(since <= jiffies_now().wrapping_sub(from), "{after:?}, it was {from}");
    let state = if packet.closes() { HashFlowState::CLOSING } else { before.state };
    ensure!(after == HashFlow { seen: after.seen, state, ..before }, "{after:?}");
    Ok(())
}

/// Compares a frame that was sent with what the backend shall get.
pub(super) fn check<A: Side>(
    packet: &Packet<A>,
    to: &HashBackend,
    sent: &[u8],
) -> anyhow::Result<()> {
    let at = 14 + if to.vlan == 0 { 0 } else { 4 } + if to.family == 6 { 40 } else { 20 };
    let port = match sent.get(at..at + 2) {
        Some(bytes) => u16::from_be_bytes([bytes[0], bytes[1]]),
        None => 0,
    };
    let wanted = packet.sent(to, port);
    ensure!(sent == wanted, "{}", difference(sent, &wanted));
    if to.method == proxy_common::abi::HashMethod::GUE {
        ensure!(GUE_PORTS.contains(&port), "source port {port}");
    }
    Ok(())
}
