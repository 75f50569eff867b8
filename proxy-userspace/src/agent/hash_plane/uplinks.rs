//! Where the program runs.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::abi::{HashVlan, Uplink};
use tracing::{info, warn};

use super::HashPlane;
use crate::{
    chain::chain,
    config,
    kernel::bpf,
    model::{HashMode, interface::Interface},
    plan::interfaces::matches,
    status::HashInterface,
};

impl HashPlane {
    /// Attaches the program where it is wanted, and detaches it elsewhere.
    pub(super) fn settle_uplinks(&mut self, wanted: &config::HashPlane, present: &[Interface]) {
        let selected: Vec<&Interface> = present
            .iter()
            .filter(|each| wanted.interfaces.iter().any(|pattern| matches(pattern, &each.name)))
            .collect();
        self.end_elsewhere(&selected);
        let mut reports = Vec::new();
        let mut slots = BTreeMap::new();
        for interface in selected {
            let Interface { index, name, .. } = interface;
            let result = match slots.insert(Uplink::slot(*index), name.clone()) {
                Some(other) => Err(format!("its index collides with that of {other}")),
                None if !interface.ethernet => Err("no Ethernet".to_owned()),
                None => self.begin(wanted, interface, present),
            };
            let (mode, reason) = match result {
                Ok(()) => (wanted.mode.word(), String::new()),
                Err(reason) => ("off", reason),
            };
            reports.push(HashInterface { name: name.clone(), mode: mode.into(), reason });
        }
        log_changes(&self.interfaces, &reports);
        self.interfaces = reports;
    }

    /// Forgets an interface that is gone, before another one comes by its index.
    pub(in crate::agent) fn forget_interface(&mut self, index: u32) {
        self.failed.remove(&index);
        if self.running.remove(&index).is_some() {
            self.end(index);
        }
    }

    /// Attaches again, with the next settlement, where somebody or a reset of the driver took the
    /// program off.
    pub(super) fn forget_detached(&mut self, attached: &BTreeSet<u32>) {
        let gone: Vec<u32> =
            self.running.keys().filter(|index| !attached.contains(index)).copied().collect();
        for index in gone {
            if let Some(interface) = self.running.remove(&index) {
                warn!(
                    event = "hash_plane_detached",
                    interface, "the program was taken off, and comes again"
                );
            }
        }
    }

    /// What an earlier agent left goes, too.
    fn end_elsewhere(&mut self, selected: &[&Interface]) {
        let is_selected = |index: &u32| selected.iter().any(|each| each.index == *index);
        let pinned = self.plane.attached().unwrap_or_default();
        let ended: BTreeSet<u32> = self.running.keys().copied().chain(pinned).collect();
        for index in ended.into_iter().filter(|index| !is_selected(index)) {
            self.running.remove(&index);
            self.end(index);
        }
    }

    fn end(&mut self, index: u32) {
        let detached = self.plane.detach(index);
        let removed = self.plane.maps.remove_uplink(index);
        for error in [detached, removed].into_iter().filter_map(Result::err) {
            warn!(event = "hash_plane_stays", index, error = chain(&error), "the program stays");
        }
    }

    /// Begins on an interface, unless it runs there or failed before: attaching interrupts some
    /// links, so what failed is left alone until the interface is another one.
    fn begin(
        &mut self,
        wanted: &config::HashPlane,
        interface: &Interface,
        present: &[Interface],
    ) -> Result<(), String> {
        let Interface { index, mac, .. } = *interface;
        let tried = Tried::of(interface);
        if let Some((before, why)) = self.failed.get(&index)
            && *before == tried
        {
            return Err(why.clone());
        }
        let uplink = Uplink { interface: index, mac, _pad: [0; 2] };
        let known = self.plane.maps.put_uplink(uplink);
        known.and_then(|()| self.put_vlans(index, present)).map_err(|error| chain(&error))?;
        if self.running.contains_key(&index) {
            return Ok(());
        }
        match self.prove_and_attach(wanted.mode, interface) {
            Ok(()) => {
                self.failed.remove(&index);
                self.running.insert(index, interface.name.clone());
                Ok(())
            }
            Err(fault) => {
                // What an earlier agent left attached finds the same maps, and goes as well.
                self.end(index);
                let why = told(&fault, wanted.mode);
                self.failed.insert(index, (tried, why.clone()));
                Err(why)
            }
        }
    }

    fn prove_and_attach(
        &mut self,
        mode: HashMode,
        interface: &Interface,
    ) -> Result<(), bpf::Fault> {
        let Interface { index, name, mac, .. } = interface;
        self.plane.self_test(*index, *mac)?;
        // A link that an earlier agent pinned keeps its mode.
        if self.modes_before.remove(name).is_some_and(|before| before != mode.word()) {
            self.plane.detach(*index)?;
        }
        Ok(self.plane.attach(name, *index)?)
    }

    fn put_vlans(&mut self, interface: u32, present: &[Interface]) -> Result<(), bpf::Error> {
        let above = present.iter().filter(|each| each.lower == Some(interface) && each.up);
        let ids: BTreeSet<u32> = above.filter_map(|each| each.vlan.map(u32::from)).collect();
        for held in self.plane.maps.vlans()? {
            if held.interface == interface && !ids.contains(&held.vlan) {
                self.plane.maps.remove_vlan(held)?;
            }
        }
        for vlan in ids {
            self.plane.maps.put_vlan(HashVlan { interface, vlan })?;
        }
        Ok(())
    }
}

/// Says why the program does not run, and what helps.
fn told(fault: &bpf::Fault, mode: HashMode) -> String {
    let why = chain(fault);
    match fault {
        bpf::Fault::Datapath(bpf::Error::Program { operation: "attach", .. })
            if mode == HashMode::Native =>
        {
            format!("{why}; passlane.hashPlane.mode tc needs no XDP of the driver")
        }
        _ => why,
    }
}

/// What another attempt may depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Tried {
    name: String,
    mac: [u8; 6],
    mtu: u32,
    /// Who else is there.
    program: Option<u32>,
}

impl Tried {
    fn of(interface: &Interface) -> Self {
        let Interface { name, mac, mtu, xdp_program, .. } = interface;
        Self { name: name.clone(), mac: *mac, mtu: *mtu, program: *xdp_program }
    }
}

fn log_changes(before: &[HashInterface], after: &[HashInterface]) {
    for HashInterface { name, mode, reason } in after.iter().filter(|each| !before.contains(each)) {
        if reason.is_empty() {
            info!(event = "hash_plane_on", interface = name, mode, "the hash plane runs here");
        } else {
            warn!(event = "hash_plane_off", interface = name, reason, "no hash plane here");
        }
    }
}
