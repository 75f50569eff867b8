//! Programs that somebody took off, and what the datapath knows of interfaces.

use std::{collections::BTreeSet, path::Path};

use super::{Agent, interfaces::Interfaces, localhost};
use crate::{
    kernel::{
        bpf::{self, Hook},
        link,
        tc::Filter,
    },
    plan::{
        Drift,
        drift::{Kind, Object},
    },
};

/// What is missing where.
#[derive(Debug, Default)]
pub(super) struct Detached {
    /// Indexes of interfaces, and what is wrong there.
    interfaces: Vec<(u32, Drift)>,
    /// Uplinks without their XDP program.
    uplinks: Vec<(u32, Drift)>,
    /// Programs on the root cgroup.
    localhost: Vec<Drift>,
}

impl Detached {
    pub(super) fn drifts(&self) -> impl Iterator<Item = Drift> {
        let here = self.interfaces.iter().chain(&self.uplinks).map(|(_, drift)| drift);
        here.chain(&self.localhost).cloned()
    }
}

/// The name that programs on the root cgroup have instead of an interface's.
const ROOT_CGROUP: &str = "the root cgroup";

fn gone(interface: &str, program: &'static str) -> Drift {
    let object = Object::Program(interface.to_owned(), program);
    Drift::missing(object, "attached")
}

impl Agent {
    /// Looks for programs of ours that are attached no more.
    pub(super) async fn detached(&self) -> Detached {
        let mut detached = Detached::default();
        if self.node.localhost.is_some() {
            let pins = missing_pins(&self.settings.paths.bpffs);
            detached.localhost.extend(pins.into_iter().map(|name| gone(ROOT_CGROUP, name)));
        }
        if self.node.datapath.is_none() {
            return detached;
        }
        self.look_at_programs(&mut detached).await;
        self.look_at_uplinks(&mut detached).await;
        self.look_at_entries(&mut detached);
        detached
    }

    async fn look_at_programs(&self, detached: &mut Detached) {
        let Some(datapath) = &self.node.datapath else { return };
        let ours: BTreeSet<u32> = datapath.program_ids().into_iter().collect();
        let mut qdiscs = None;
        for (index, name) in self.interfaces.attached_to() {
            // Another interface may have got the name, or the index, since the last event.
            if link::name(index).as_deref() != Some(name) {
                continue;
            }
            for hook in Hook::BOTH {
                let attached = match bpf::is_attached(index, hook, &ours) {
                    Some(attached) => attached,
                    None => {
                        if qdiscs.is_none() {
                            qdiscs = self.node.traffic.all_qdiscs().await.ok();
                        }
                        let Some(qdiscs) = &qdiscs else { continue };
                        let filters = self.node.traffic.filters_of(index, qdiscs).await;
                        filters.map_or(true, |filters| has_filter(&filters, hook, &ours))
                    }
                };
                if !attached {
                    detached.interfaces.push((index, gone(name, hook.program())));
                }
            }
        }
    }

    async fn look_at_uplinks(&self, detached: &mut Detached) {
        let Some(datapath) = self.node.datapath.as_ref().filter(|_| self.interfaces.has_uplinks())
        else {
            return;
        };
        let Ok(present) = self.node.links.interfaces().await else { return };
        let ours: BTreeSet<u32> = datapath.program_ids().into_iter().collect();
        let uplinks = present.iter().filter(|each| self.interfaces.is_uplink(each.index));
        let bare = uplinks.filter(|each| !each.xdp_program.is_some_and(|id| ours.contains(&id)));
        detached.uplinks.extend(bare.map(|each| (each.index, gone(&each.name, "xdp_up"))));
    }

    fn look_at_entries(&self, detached: &mut Detached) {
        let Some(datapath) = &self.node.datapath else { return };
        let Ok(found) = datapath.maps.interfaces() else { return };
        for (index, name, value) in self.interfaces.entries() {
            let object = || Object::InterfaceEntry(name.to_owned());
            let shown = |value: &proxy_common::abi::Interface| {
                format!("mtu {}, flags {:#x}", value.mtu, value.flags)
            };
            let drift = match found.iter().find(|(held, _)| *held == index) {
                Some((_, held)) if *held == value => continue,
                Some((_, held)) => {
                    Drift::changed(object(), Kind::Value, shown(&value), shown(held))
                }
                None => Drift::missing(object(), shown(&value)),
            };
            detached.interfaces.push((index, drift));
        }
    }

    /// Attaches again what somebody took off.
    pub(super) async fn attach_again(&mut self, detached: &Detached) {
        if !detached.localhost.is_empty() {
            self.no_localhost = localhost::load(&self.settings, &mut self.node, &mut self.ledger);
            let ports = self.node.localhost.as_ref().and_then(|localhost| localhost.ports().ok());
            self.observed.local_ports = ports;
            self.whole_next = true;
            self.reconcile(super::pass::Scope::All).await;
        }
        if detached.interfaces.is_empty() && detached.uplinks.is_empty() {
            return;
        }
        for (index, _) in &detached.interfaces {
            self.interfaces.forget_attached(*index);
        }
        if let Some(datapath) = &mut self.node.datapath {
            for (index, _) in &detached.uplinks {
                self.interfaces.forget_uplink(datapath, *index);
            }
        }
        self.settle_interfaces().await;
    }
}

fn has_filter(filters: &[Filter], hook: Hook, ours: &BTreeSet<u32>) -> bool {
    let direction = match hook {
        Hook::Ingress => "ingress",
        Hook::Egress => "egress",
    };
    filters.iter().any(|filter| {
        filter.direction.to_string() == direction
            && filter.bpf_id.is_some_and(|id| ours.contains(&id))
    })
}

/// Returns the programs whose pinned link is gone, and with it they.
fn missing_pins(bpffs: &Path) -> Vec<&'static str> {
    let directory = bpf::PinDirectory::at(bpffs).localhost();
    let missing = |name: &&&'static str| !directory.join(name).exists();
    bpf::LOCALHOST_PROGRAMS.iter().filter(missing).copied().collect()
}

impl Interfaces {
    /// Returns the interfaces that programs are attached to.
    fn attached_to(&self) -> impl Iterator<Item = (u32, &str)> {
        self.entries().map(|(index, name, _)| (index, name))
    }
}
