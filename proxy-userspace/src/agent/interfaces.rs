//! Attaches the fast path where it is decided to run, and detaches it elsewhere.

use std::collections::BTreeMap;

use proxy_common::abi::{self, InterfaceFlags};
use tracing::{error, info, warn};

use super::{Agent, transit::Uplinks};
use crate::{
    audit::guard,
    chain::chain,
    kernel::{bpf::Datapath, tc::TrafficControl},
    ledger::{Ledger, Record},
    model::interface::Interface,
    plan::{
        interfaces::{Decision, Foreign, interfaces},
        uplinks::XdpMode,
    },
    status::InterfaceReport,
};

/// Where the fast path runs.
#[derive(Default)]
pub(super) struct Interfaces {
    decisions: BTreeMap<u32, Decision>,
    attached: BTreeMap<u32, Attached>,
    foreign: Foreign,
    uplinks: Uplinks,
    /// The pins that an earlier agent left were looked through.
    swept: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Attached {
    name: String,
    value: abi::Interface,
}

impl Interfaces {
    pub(super) fn reports(&self, present: &[Interface]) -> Vec<InterfaceReport> {
        present
            .iter()
            .filter_map(|interface| {
                let (mode, reason) = match self.decisions.get(&interface.index)? {
                    Decision::On { .. } => ("fast", ""),
                    Decision::Off(reason) => ("off", reason.as_str()),
                };
                Some(InterfaceReport {
                    name: interface.name.clone(),
                    index: interface.index,
                    mode: mode.into(),
                    reason: reason.into(),
                    xdp: self.uplinks.report(interface.index).to_owned(),
                })
            })
            .collect()
    }
}

impl Agent {
    /// Looks at the interfaces anew, and lets the fast path run where it may.
    pub(super) async fn refresh_interfaces(&mut self) {
        match self.node.links.interfaces().await {
            Ok(present) => self.present = present,
            Err(error) => {
                error!(event = "interfaces_failed", %error, "interfaces cannot be read");
                return;
            }
        }
        if self.node.datapath.is_some() {
            self.interfaces.foreign = guard::foreign(&self.node, &self.present).await;
            self.settle_interfaces().await;
        }
    }

    /// Looks for programs of others that came to our interfaces without an event.
    pub(super) async fn look_for_foreign(&mut self) {
        if self.node.datapath.is_none() {
            return;
        }
        let foreign = guard::foreign(&self.node, &self.present).await;
        if foreign != self.interfaces.foreign {
            self.interfaces.foreign = foreign;
            self.settle_interfaces().await;
        }
    }

    async fn settle_interfaces(&mut self) {
        let decisions = interfaces(
            &self.present,
            &self.settings.interfaces,
            &self.settings.dummy_device,
            &self.interfaces.foreign,
        );
        // What is only observed stays slow, so there is nothing to take.
        let xdp = if self.fast_path.mode == "on" { self.settings.xdp } else { XdpMode::Off };
        let xdp = (xdp, &self.settings.uplinks);
        let Self { node, interfaces: state, present, ledger, .. } = self;
        let Some(datapath) = &mut node.datapath else { return };
        let before = state.decisions.clone();
        state.decisions = decisions;
        state.uplinks.settle(datapath, present, &state.decisions, xdp);
        if !state.swept {
            sweep(datapath, &state.decisions);
            state.swept = true;
        }
        let mut changed = detach_refused(datapath, state);
        for interface in present.iter() {
            if let Some(Decision::On { peer }) = state.decisions.get(&interface.index).cloned() {
                changed |= match claim_clsact(&node.traffic, ledger, datapath, interface).await {
                    Ok(()) => attach(datapath, state, interface, peer),
                    Err(reason) => {
                        state.decisions.insert(interface.index, Decision::Off(reason));
                        false
                    }
                };
            }
        }
        log_changes(present, &before, &state.decisions);
        if changed {
            self.raise_epoch();
        }
    }
}

/// Forgets links and entries of interfaces that are gone, or on which it no longer runs.
fn sweep(datapath: &mut Datapath, decisions: &BTreeMap<u32, Decision>) {
    let running = crate::plan::interfaces::running(decisions);
    let indexes: Vec<u32> = running.iter().copied().collect();
    if let Err(error) = datapath.sweep_links(&indexes) {
        warn!(event = "sweep_failed", %error, "old links stay pinned");
    }
    let stale: Vec<u32> = datapath
        .maps
        .interfaces()
        .map_or_else(|_| Vec::new(), |found| found.into_iter().map(|(index, _)| index).collect());
    for index in stale.into_iter().filter(|index| !running.contains(index)) {
        if let Err(error) = datapath.maps.remove_interface(index) {
            warn!(event = "sweep_failed", %error, "an old interface entry stays");
        }
    }
}

/// Detaches where it may run no more. Learning stops first.
fn detach_refused(datapath: &mut Datapath, state: &mut Interfaces) -> bool {
    let running = crate::plan::interfaces::running(&state.decisions);
    let refused: Vec<u32> =
        state.attached.keys().filter(|index| !running.contains(index)).copied().collect();
    for index in &refused {
        let Some(attached) = state.attached.remove(index) else { continue };
        let removed = datapath.maps.remove_interface(*index);
        let detached = datapath.detach(&attached.name, *index);
        for error in [removed.err(), detached.err()].into_iter().flatten() {
            warn!(event = "detach_failed", interface = attached.name, %error, "detach");
        }
    }
    !refused.is_empty()
}

/// Records the clsact qdisc that attaching will make, before it is made. Where the kernel has TCX,
/// or the qdisc is there, there is nothing to make.
async fn claim_clsact(
    traffic: &TrafficControl,
    ledger: &mut Ledger,
    datapath: &Datapath,
    interface: &Interface,
) -> Result<(), String> {
    if !datapath.needs_clsact(&interface.name) {
        return Ok(());
    }
    let qdiscs = traffic.qdiscs(interface.index).await.map_err(|error| chain(&error))?;
    if qdiscs.iter().any(|qdisc| qdisc.kind == "clsact") {
        return Ok(());
    }
    let record = Record::Clsact { interface: interface.name.clone(), owned: true };
    ledger.record([record]).map_err(|error| chain(&error))
}

/// Attaches where it may run and does not yet; says whether anything changed.
fn attach(
    datapath: &mut Datapath,
    state: &mut Interfaces,
    interface: &Interface,
    peer: bool,
) -> bool {
    let peer = if peer { InterfaceFlags::PEER } else { 0 };
    let flags = peer | state.uplinks.flags(interface.index);
    let value = abi::Interface { mtu: interface.mtu, flags };
    let wanted = Attached { name: interface.name.clone(), value };
    if state.attached.get(&interface.index) == Some(&wanted) {
        return false;
    }
    let attached = if state.attached.contains_key(&interface.index) {
        Ok(())
    } else {
        datapath.attach(&interface.name, interface.index)
    };
    match attached.and_then(|()| datapath.maps.put_interface(interface.index, value)) {
        Ok(()) => {
            state.attached.insert(interface.index, wanted);
        }
        Err(error) => {
            let reason = chain(&error);
            state.decisions.insert(interface.index, Decision::Off(reason));
        }
    }
    true
}

fn log_changes(
    present: &[Interface],
    before: &BTreeMap<u32, Decision>,
    after: &BTreeMap<u32, Decision>,
) {
    for interface in present {
        let decision = after.get(&interface.index);
        if before.get(&interface.index) == decision {
            continue;
        }
        let name = interface.name.as_str();
        match decision {
            Some(Decision::On { peer }) => {
                info!(event = "interface_fast", interface = name, peer, "the fast path runs");
            }
            Some(Decision::Off(reason)) => {
                info!(event = "interface_off", interface = name, reason, "no fast path here");
            }
            None => {}
        }
    }
}
