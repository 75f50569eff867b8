//! `tc_lb` beside the programs of the other datapath, and where it is attached.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context as _, Result, anyhow, ensure};
use proxy_common::{abi::HashBackend, hash_reason::HashReason, reason::Reason};
use proxy_tests::{tap::Offload, wait};
use proxy_userspace::{
    kernel::bpf::{HashPlane, Hook, is_attached},
    model::HashMode,
};

use super::{
    Cases,
    frames::{ACK, Packet},
    stage::{BACKEND, Stage, backend},
    wire::{MAC, Wire},
};
use crate::stage;

type A = [u8; 4];

/// Adds the cases.
pub(super) fn cases(cases: &mut Cases) {
    let mut add = |name: &str, case: fn() -> Result<()>| {
        cases.push((name.to_owned(), Box::new(case)));
    };
    add("others_at_tc_see_what_the_hash_plane_passes_and_nothing_else", others);
    add("the_hash_plane_is_attached_replaced_and_detached_at_tc", attachment);
}

/// Whichever was there first.
fn others() -> Result<()> {
    for comes_first in [true, false] {
        let mut wire = Wire::new(&format!("others{comes_first}"))?;
        let (front, back) = (wire.front.1, wire.back.1);
        let other = Mutex::new(stage::Stage::new()?);
        let bpffs = locked(&other)?.options.bpffs.clone();
        let attach_other =
            || wire.node.enter(|| Ok(locked(&other)?.datapath.attach("front", front)?));
        let mut stage = Stage::with::<A>(HashMode::Tc, |options| options.bpffs = bpffs)?;
        if comes_first {
            attach_other()?;
        }
        wire.attach(&mut stage)?;
        if !comes_first {
            attach_other()?;
        }
        let foreign = wire.node.enter(|| Ok(locked(&other)?.datapath.foreign_programs(front)))?;
        ensure!(foreign.is_empty(), "{foreign:?}");
        let to = HashBackend { interface: back, ..backend::<A>() };
        stage.plane.maps.put_backend(BACKEND, to)?;
        let packet = Packet::<A> { to_mac: MAC, ..Packet::new(ACK) };
        let out = wire.pass(&packet.frame(), Offload::None, false)?;
        ensure!(out == [packet.sent(&to, 0)], "{} frames came out", out.len());
        ensure!(seen(&other)? == 0, "others saw what was sent on");
        let packet = Packet { ttl: 1, ..packet };
        let out = wire.pass(&packet.frame(), Offload::None, false)?;
        ensure!(out.is_empty(), "{} frames came out", out.len());
        let expected = [(HashReason::New.name(), 1), (HashReason::TtlExpired.name(), 1)];
        ensure!(stage.reasons() == expected, "{:?}", stage.reasons());
        ensure!(seen(&other)? == 1, "others saw {} packets", seen(&other)?);
    }
    Ok(())
}

fn locked<T>(stage: &Mutex<T>) -> Result<std::sync::MutexGuard<'_, T>> {
    stage.lock().map_err(|_| anyhow!("the stage broke"))
}

/// Packets that the other datapath counted.
fn seen(other: &Mutex<stage::Stage>) -> Result<u64> {
    let other = locked(other)?;
    Ok(Reason::ALL.iter().map(|reason| other.count(*reason)).sum())
}

fn attachment() -> Result<()> {
    let wire = Wire::new("attached")?;
    let index = wire.front.1;
    let mut stage = Stage::new::<A>(HashMode::Tc)?;
    wire.attach(&mut stage)?;
    ensure!(stage.plane.attached()? == [index]);
    let is_on = |plane: &HashPlane| -> Result<bool> {
        let id = plane.program_id().context("a program that is loaded has an id")?;
        wire.node.enter(|| {
            is_attached(index, Hook::Ingress, &BTreeSet::from([id])).context("no TCX here")
        })
    };
    ensure!(is_on(&stage.plane)?, "it is not attached");
    // Another agent: its program takes the place of the first, in the same link.
    let next = Mutex::new(HashPlane::load(&stage.options)?);
    wire.node.enter(|| Ok(locked(&next)?.attach("front", index)?))?;
    ensure!(is_on(&*locked(&next)?)? && !is_on(&stage.plane)?, "it was not replaced");
    stage.plane.detach(index)?;
    let gone = || Ok(!is_on(&*locked(&next)?)?);
    wait::until_true("the program is gone", wait::PATIENCE, gone)?;
    ensure!(stage.plane.attached()?.is_empty());
    Ok(stage.plane.detach(index)?)
}
