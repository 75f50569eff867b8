//! Where flows are remembered: sets that fill up, and entries that nobody finished.

use std::{collections::BTreeSet, ops::Range, path::Path};

use anyhow::{Context as _, bail, ensure};
use aya::maps::{Array, Map, MapData};
use proxy_common::{
    abi::{HASH_FLOWS4, HASH_FLOWS6, HASH_TAGS4, HASH_TAGS6, HashFlow, HashFlowKey, hash_capacity},
    hash_reason::HashReason,
};
use proxy_userspace::{
    kernel::bpf::{HashPlaneOptions, PinDirectory},
    model::HashMode,
};

use super::{
    Cases,
    flows::{age, later},
    frames::{ACK, Packet, SYN},
    stage::{BACKEND, REDIRECT, Side, Stage, entry, key},
};

/// A map with as few sets as can be, and all of its entries.
const FLOWS: u32 = hash_capacity::LEAST_FLOWS;
const ENTRIES: u32 = 2 * FLOWS;
/// Flows of so many for each entry leave none unused.
const CROWD: u32 = 6;
/// Of many flows, so few may find no room: places are chosen by chance.
const UNLUCKY: usize = 10;
/// A backend that no table names.
const OTHER: u32 = 9;

/// Returns the cases of a family.
pub(super) fn cases<A: Side>(cases: &mut Cases) {
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(case)));
    };
    add("as_many_flows_as_were_asked_for_have_room", all_have_room::<A>);
    add("a_flow_without_room_takes_the_place_of_one_not_seen_for_long", oldest::<A>);
    add("a_flow_takes_the_place_of_one_that_is_over", over::<A>);
    add("a_flow_that_is_put_again_has_one_entry", once::<A>);
    add("a_flow_that_is_removed_is_chosen_for_anew", removed::<A>);
    add("each_flow_that_has_an_entry_is_found", found::<A>);
    add("an_entry_without_its_proof_is_no_entry", torn::<A>);
    add("an_entry_with_the_tag_of_another_is_written_again", mistagged::<A>);
}

fn small(options: &mut HashPlaneOptions) {
    options.flow_entries = FLOWS;
}

/// Another flow for each number.
fn client<A: Side>(number: u32) -> Packet<A> {
    let source = (A::client((number / 1000) as u16), 20_000 + (number % 1000) as u16);
    Packet { source, ..Packet::new(SYN) }
}

/// Puts flows whose last packet was so many seconds ago; 0 for one that another CPU saw after us.
fn put<A: Side>(stage: &mut Stage, numbers: Range<u32>, idle: u64) -> anyhow::Result<()> {
    for number in numbers {
        let mut flow = entry();
        match idle {
            0 => later(&mut flow),
            _ => age(&mut flow, idle),
        }
        A::put_flow(&mut stage.plane, key(&client::<A>(number)), flow)?;
    }
    Ok(())
}

/// Returns how many of these flows have an entry.
fn known<A: Side>(stage: &Stage, numbers: Range<u32>) -> anyhow::Result<usize> {
    let flows = A::flows(&stage.plane.maps)?;
    let found: BTreeSet<_> =
        flows.iter().map(|(key, _)| (key.source.into(), key.source_port)).collect();
    let sources = numbers.map(|number| client::<A>(number).source);
    Ok(sources.filter(|(addr, port)| found.contains(&((*addr).into(), *port))).count())
}

fn all_have_room<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    for number in 0..FLOWS {
        ensure!(stage.run(&client::<A>(number).frame())?.action == REDIRECT);
    }
    let known = known::<A>(&stage, 0..FLOWS)?;
    ensure!(known + UNLUCKY >= FLOWS as usize, "{known} of {FLOWS} flows");
    ensure!(stage.flows::<A>()? == known);
    Ok(())
}

fn oldest<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    let old = 0..CROWD * ENTRIES;
    put::<A>(&mut stage, old.clone(), 10)?;
    ensure!(stage.flows::<A>()? == ENTRIES as usize, "{}", stage.flows::<A>()?);
    let young = old.end..old.end + ENTRIES / 8;
    for number in young.clone() {
        ensure!(stage.run(&client::<A>(number).frame())?.action == REDIRECT);
    }
    let left = known::<A>(&stage, young.clone())?;
    ensure!(left + UNLUCKY >= young.len(), "{left} of {} that came last", young.len());
    ensure!(stage.flows::<A>()? == ENTRIES as usize);
    Ok(())
}

/// Those that are over go first, even if a flow that lives was not seen for as long.
fn over<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    let living = 0..ENTRIES / 4;
    put::<A>(&mut stage, 0..ENTRIES / 8, 300)?;
    put::<A>(&mut stage, ENTRIES / 8..ENTRIES / 4, 0)?;
    let before = known::<A>(&stage, living.clone())?;
    let past = living.end..CROWD * ENTRIES;
    put::<A>(&mut stage, past.clone(), 1000)?;
    let next = past.end..past.end + ENTRIES / 4;
    for number in next.clone() {
        ensure!(stage.run(&client::<A>(number).frame())?.action == REDIRECT);
    }
    for flows in [living, next] {
        let left = known::<A>(&stage, flows.clone())?;
        ensure!(left + UNLUCKY >= before.min(flows.len()), "{left} of {}", flows.len());
    }
    Ok(())
}

fn once<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    put::<A>(&mut stage, 0..CROWD * ENTRIES, 10)?;
    let packet = client::<A>(CROWD * ENTRIES);
    for backend in 1..20 {
        A::put_flow(&mut stage.plane, key(&packet), HashFlow { backend, ..entry() })?;
        let flows = A::flows(&stage.plane.maps)?;
        let own: Vec<_> = flows.iter().filter(|(found, _)| *found == key(&packet)).collect();
        ensure!(own.len() == 1 && own[0].1.backend == backend, "{own:?}");
    }
    Ok(())
}

fn removed<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    let packet = Packet::<A>::new(ACK);
    A::put_flow(&mut stage.plane, key(&packet), HashFlow { backend: OTHER, ..entry() })?;
    A::put_flow(&mut stage.plane, key(&packet), HashFlow::default())?;
    ensure!(stage.flow(&packet)?.is_none() && stage.flows::<A>()? == 0);
    ensure!(stage.run(&packet.frame())?.action == REDIRECT);
    ensure!(stage.reasons() == [("new", 1)], "{:?}", stage.reasons());
    ensure!(stage.flow(&packet)?.is_some_and(|flow| flow.backend == BACKEND));
    Ok(())
}

/// As many as there are entries: a few of a set have the same tag, and many are in their second set.
fn found<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    put::<A>(&mut stage, 0..ENTRIES, 10)?;
    let flows = A::flows(&stage.plane.maps)?;
    let has_entry: BTreeSet<_> =
        flows.iter().map(|(key, _)| (key.source.into(), key.source_port)).collect();
    for packet in (0..ENTRIES).map(client::<A>) {
        let (addr, port) = packet.source;
        if has_entry.contains(&(addr.into(), port)) {
            stage.run(&packet.frame())?;
        }
    }
    let cached = has_entry.len() as u64;
    ensure!(cached > u64::from(ENTRIES - ENTRIES / 8), "{cached} flows");
    ensure!(stage.reasons() == [("cached", cached)], "{cached}: {:?}", stage.reasons());
    Ok(())
}

/// Two CPUs that write one entry at once can leave one's with the other's tag.
fn mistagged<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    let packet = Packet::<A>::new(ACK);
    A::put_flow(&mut stage.plane, key(&packet), HashFlow { backend: OTHER, ..entry() })?;
    let name = if A::SUFFIX.is_empty() { HASH_TAGS4.name } else { HASH_TAGS6.name };
    let pin = PinDirectory::at(&stage.options.bpffs).versioned().join("hash").join(name);
    let mut map: Array<MapData, [u8; 8]> = Map::Array(MapData::from_pin(&pin)?).try_into()?;
    let mut used = 0;
    for index in 0..map.len() {
        let mut tags = map.get(&index, 0)?;
        if let Some(tag) = tags.iter_mut().find(|tag| **tag != 0) {
            *tag ^= 1;
            map.set(index, tags, 0)?;
            used += 1;
        }
    }
    ensure!(used == 1, "{used} entries have a tag");
    for reason in ["new", "cached"] {
        ensure!(stage.run(&packet.frame())?.action == REDIRECT);
        ensure!(stage.reasons().iter().any(|(name, count)| *name == reason && *count == 1));
    }
    let flow = stage.flow(&packet)?.context("no entry")?;
    ensure!(flow.backend == BACKEND && stage.flows::<A>()? == 1, "{flow:?}");
    Ok(())
}

/// An entry that a CPU has not finished, or that two wrote at once, is of neither flow.
fn torn<A: Side>() -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(HashMode::Native, small)?;
    let packet = Packet::<A>::new(ACK);
    let flow = HashFlow { backend: OTHER, ..entry() };
    for part in [Part::Proof, Part::Backend, Part::Generation] {
        A::put_flow(&mut stage.plane, key(&packet), flow)?;
        ensure!(stage.flow(&packet)? == Some(flow), "{:?}", stage.flow(&packet)?);
        spoil::<A>(&stage, part)?;
        ensure!(stage.flow(&packet)?.is_none(), "{part:?}: {:?}", stage.flow(&packet)?);
        let before = stage.plane.maps.reason(HashReason::New)?.packets;
        ensure!(stage.run(&packet.frame())?.action == REDIRECT);
        ensure!(stage.plane.maps.reason(HashReason::New)?.packets == before + 1, "{part:?}");
        let chosen = stage.flow(&packet)?.context("no entry")?;
        ensure!(chosen.backend == BACKEND && stage.flows::<A>()? == 1, "{part:?}: {chosen:?}");
    }
    Ok(())
}

/// What another CPU wrote.
#[derive(Clone, Copy, Debug)]
enum Part {
    Proof,
    Backend,
    Generation,
}

/// Changes a part of the only entry of the map.
fn spoil<A: Side>(stage: &Stage, part: Part) -> anyhow::Result<()> {
    let name = if A::SUFFIX.is_empty() { HASH_FLOWS4.name } else { HASH_FLOWS6.name };
    let pin = PinDirectory::at(&stage.options.bpffs).versioned().join("hash").join(name);
    let key = size_of::<HashFlowKey<A>>();
    let at = match part {
        Part::Proof => key - 1,
        Part::Backend => key,
        Part::Generation => key + 4,
    };
    match key {
        16 => change::<128>(&pin, at),
        _ => change::<224>(&pin, at),
    }
}

/// Changes a byte of the first entry of the only set in which something is.
fn change<const SET: usize>(pin: &Path, at: usize) -> anyhow::Result<()> {
    let mut map: Array<MapData, [u8; SET]> = Map::Array(MapData::from_pin(pin)?).try_into()?;
    for index in 0..map.len() {
        let mut set = map.get(&index, 0)?;
        if set.iter().any(|byte| *byte != 0) {
            set[at] ^= 1;
            return Ok(map.set(index, set, 0)?);
        }
    }
    bail!("the map is empty")
}
