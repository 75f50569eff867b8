//! What is pinned: maps that are kept, tables that take each other's place, links, and their end.

use std::{collections::BTreeSet, fs, sync::Mutex};

use anyhow::{Context, anyhow, ensure};
use proxy_common::{
    abi::{HashFrontend, HashVlan, Shown, Uplink},
    hash::mh::Size,
};
use proxy_tests::wait;
use proxy_userspace::{
    kernel::bpf::{Error, HashMaps, HashPlane, HashPlaneOptions, PinDirectory, pinned_maps},
    model::HashMode,
    model::{self, Protocol},
};

use super::{
    Cases,
    frames::{Packet, SYN},
    stage::{BACKEND, LOOPBACK, REDIRECT, Stage, TABLE, backend},
};
use crate::{stage::Pins, transit::Pair};

type A = [u8; 4];

/// Returns the cases of pins.
pub(super) fn cases(cases: &mut Cases) {
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((name.to_owned(), Box::new(case)));
    };
    add("the_maps_of_the_hash_plane_are_kept_by_the_next_agent", kept);
    add("a_map_of_the_hash_plane_of_another_shape_is_not_taken", mismatch);
    add("what_is_put_in_the_maps_of_the_hash_plane_is_read_back", read_back);
    add("the_maps_of_the_hash_plane_are_shown_with_what_is_in_them", shown);
    add("a_table_takes_the_place_of_another", tables);
    add("the_hash_plane_is_attached_replaced_and_detached_in_either_mode", attachment);
    add("the_pins_of_the_hash_plane_go_with_all_others", removal);
    add("the_hash_plane_of_another_version_is_removed", other_version);
}

fn kept() -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Native)?;
    let packet = Packet::<A>::new(SYN);
    ensure!(stage.run(&packet.frame())?.action == REDIRECT);
    stage.plane = HashPlane::load(&stage.options)?;
    ensure!(stage.run(&packet.frame())?.action == REDIRECT);
    ensure!(stage.reasons() == [("cached", 1), ("new", 1)], "{:?}", stage.reasons());
    let id = stage.plane.program_id().context("a program that is loaded has an id")?;
    ensure!(id != 0);
    Ok(())
}

fn mismatch() -> anyhow::Result<()> {
    let stage = Stage::new::<A>(HashMode::Native)?;
    let options = HashPlaneOptions { flow_entries: 8192, ..stage.options.clone() };
    match HashPlane::load(&options).map(drop) {
        Err(Error::PinMismatch(mismatch)) => {
            ensure!(mismatch.name == "hash_flows4" && mismatch.wanted.max_entries == 4096);
            Ok(())
        }
        other => Err(anyhow!("{other:?}")),
    }
}

fn read_back() -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Native)?;
    ensure!(stage.run(&Packet::<A>::new(SYN).frame())?.action == REDIRECT);
    let maps = &mut stage.plane.maps;
    let frontend = |addr: &str| -> anyhow::Result<_> {
        Ok(model::Frontend { addr: addr.parse()?, port: 443, protocol: Protocol::Udp })
    };
    let value = HashFrontend { table: 9, flags: 0x18 };
    for addr in ["192.0.2.7", "2001:db8::7"] {
        maps.put_frontend(&frontend(addr)?, value)?;
        ensure!(maps.frontends()?.contains(&(frontend(addr)?, value)));
        maps.remove_frontend(&frontend(addr)?)?;
        maps.remove_frontend(&frontend(addr)?)?;
    }
    ensure!(maps.frontends()?.len() == 2, "{:?}", maps.frontends()?);
    let vlan = HashVlan { interface: 3, vlan: 4 };
    maps.put_vlan(vlan)?;
    ensure!(maps.vlans()? == [vlan]);
    maps.remove_vlan(vlan)?;
    maps.remove_vlan(vlan)?;
    ensure!(maps.vlans()?.is_empty());
    let uplink = Uplink { interface: 300, mac: [2; 6], ..Uplink::default() };
    maps.put_uplink(uplink)?;
    ensure!(maps.uplinks()?.contains(&uplink) && maps.uplinks()?.len() == 2);
    maps.remove_uplink(300 - 256)?;
    ensure!(maps.uplinks()?.len() == 2, "another interface of that slot was removed");
    maps.remove_uplink(300)?;
    let mut other = backend::<A>();
    other.ethernet[0] ^= 2;
    maps.put_backend(BACKEND, other)?;
    ensure!(maps.backend(BACKEND)? == other);
    ensure!(maps.count(BACKEND)?.packets == 1);
    maps.zero_count(BACKEND)?;
    ensure!(maps.count(BACKEND)? == Default::default());
    ensure!(maps.backend(u32::MAX).is_err() && maps.count(u32::MAX).is_err());
    Ok(())
}

fn shown() -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Native)?;
    ensure!(stage.run(&Packet::<A>::new(SYN).frame())?.action == REDIRECT);
    let pinned = pinned_maps(&PinDirectory::at(&stage.options.bpffs));
    let mut counts = Vec::new();
    for map in pinned.iter().filter(|map| map.spec.name.starts_with("hash_")) {
        let entries = map.entries(false)?;
        // A per-CPU map has an element for each CPU.
        let keys: BTreeSet<_> = entries.iter().map(|entry| format!("{:?}", entry.key)).collect();
        counts.push((map.spec.name, keys.len()));
        if map.spec.name == "hash_tables" {
            ensure!(entries[0].key == Shown::Number(TABLE.into()), "{entries:?}");
        }
    }
    let expected = [
        ("hash_flows4", 1),
        ("hash_flows6", 0),
        ("hash_tags4", 1),
        ("hash_tags6", 0),
        ("hash_seed", 1),
        ("hash_frontends4", 2),
        ("hash_frontends6", 0),
        ("hash_tables", 1),
        ("hash_backends", 1),
        ("hash_counts", 1),
        ("hash_stats", 1),
        ("hash_uplinks", 1),
        ("hash_vlans", 0),
    ];
    ensure!(counts == expected, "{counts:?}");
    Ok(())
}

fn tables() -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(HashMode::Native)?;
    for size in [Size::DEFAULT, Size::all().last().context("a size")?] {
        let slots: Vec<u32> = (0..size.slots()).map(|slot| slot * 3).collect();
        stage.plane.maps.put_table(TABLE, &slots)?;
        ensure!(stage.plane.maps.table(TABLE)? == slots, "another table is read back");
    }
    let slots: Vec<u32> = (0..Size::DEFAULT.slots()).collect();
    let many: Vec<_> = (100..200).map(|index| (index, &slots[..])).collect();
    stage.plane.maps.put_tables(&many)?;
    for (index, _) in many {
        ensure!(stage.plane.maps.table(index)? == slots, "another table {index} is read back");
    }
    stage.plane.maps.remove_table(TABLE)?;
    stage.plane.maps.remove_table(TABLE)?;
    ensure!(stage.plane.maps.table(TABLE)?.is_empty());
    ensure!(stage.plane.maps.put_table(u32::MAX, &[1]).is_err());
    Ok(())
}

fn attachment() -> anyhow::Result<()> {
    let pair = Pair::new("hash")?;
    for (mode, number) in [(HashMode::Native, 1), (HashMode::Generic, 2)] {
        let stage = Mutex::new(Stage::new::<A>(mode)?);
        pair.namespace.enter(|| {
            let mut stage = stage.lock().map_err(|_| anyhow!("the stage broke"))?;
            let index = pair.index()?;
            stage.plane.attach(Pair::UPLINK, index)?;
            ensure!(pair.mode()? == Some(number), "{:?}", pair.mode()?);
            ensure!(stage.plane.attached()? == [index]);
            // Another agent: its program takes the place of the first, in the same link.
            let mut next = HashPlane::load(&stage.options)?;
            next.attach(Pair::UPLINK, index)?;
            let id = next.program_id().map(u64::from);
            ensure!(pair.program()? == id, "{:?} and not {id:?}", pair.program()?);
            drop(next);
            ensure!(pair.program()? == id, "the program went with the agent");
            stage.plane.detach(index)?;
            let gone = || Ok(pair.program()?.is_none());
            wait::until_true("the program is gone", wait::PATIENCE, gone)?;
            ensure!(stage.plane.attached()?.is_empty());
            Ok(stage.plane.detach(index)?)
        })?;
    }
    Ok(())
}

fn removal() -> anyhow::Result<()> {
    let stage = Stage::new::<A>(HashMode::Native)?;
    let pins = PinDirectory::at(&stage.options.bpffs);
    ensure!(HashMaps::open(&pins)?.uplinks()?.len() == 1);
    pins.remove_pins()?;
    ensure!(!fs::exists(&stage.options.bpffs)?, "something is left");
    // The program still has its maps, and takes nothing any more.
    let uplinks = stage.plane.maps.uplinks()?;
    ensure!(!uplinks.iter().any(|uplink| uplink.interface == LOOPBACK), "{uplinks:?}");
    Ok(())
}

fn other_version() -> anyhow::Result<()> {
    let pins = Pins::new();
    let stage = Stage::new::<A>(HashMode::Native)?;
    let now = PinDirectory::at(&stage.options.bpffs);
    fs::rename(now.versioned(), stage.options.bpffs.join("v1"))?;
    ensure!(now.remove_other_versions()?);
    ensure!(fs::read_dir(&stage.options.bpffs)?.next().is_none(), "something is left");
    drop(pins);
    Ok(())
}
