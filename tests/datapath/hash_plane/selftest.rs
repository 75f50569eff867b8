//! The self-test that comes before the program is attached.

use anyhow::ensure;
use proxy_common::abi::{HashBackend, HashCount, Uplink};
use proxy_userspace::{kernel::bpf::Fault, model::HashMode};

use super::{
    Cases,
    stage::{LOOPBACK, PASS, Stage},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// Three ways, two protocols, two families.
const PROBES: u64 = 12;

/// Returns the cases of the self-test.
pub(super) fn cases(cases: &mut Cases, mode: HashMode) {
    let mut add = |name: &str, case: fn(HashMode) -> anyhow::Result<()>| {
        cases.push((name.to_owned(), Box::new(move || case(mode))));
    };
    add("the_hash_plane_proves_itself_and_leaves_no_entry", proven);
    add("a_hash_plane_that_takes_no_frame_fails_its_self_test", refused);
}

fn stage(mode: HashMode) -> anyhow::Result<Stage> {
    let mut stage = Stage::new::<[u8; 4]>(mode)?;
    let uplink = Uplink { interface: LOOPBACK, mac: MAC, ..Uplink::default() };
    stage.plane.maps.put_uplink(uplink)?;
    Ok(stage)
}

fn leaves_nothing(stage: &Stage) -> anyhow::Result<()> {
    let flows = (stage.flows::<[u8; 4]>()?, stage.flows::<[u8; 16]>()?);
    ensure!(flows == (0, 0), "{flows:?} flows");
    ensure!(stage.plane.maps.backend(0)? == HashBackend::default());
    ensure!(stage.count(0)? == HashCount::default());
    Ok(())
}

fn proven(mode: HashMode) -> anyhow::Result<()> {
    let mut stage = stage(mode)?;
    stage.plane.self_test(LOOPBACK, MAC)?;
    ensure!(stage.reasons() == [("cached", PROBES)], "{:?}", stage.reasons());
    leaves_nothing(&stage)
}

fn refused(mode: HashMode) -> anyhow::Result<()> {
    let mut stage = stage(mode)?;
    stage.plane.maps.remove_uplink(LOOPBACK)?;
    let passed = if mode == HashMode::Tc { -1 } else { PASS };
    let fault = stage.plane.self_test(LOOPBACK, MAC);
    ensure!(matches!(fault, Err(Fault::Action(_, action)) if action == passed), "{fault:?}");
    leaves_nothing(&stage)
}
