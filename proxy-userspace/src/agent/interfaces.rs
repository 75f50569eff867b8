//! Attaches the fast path where it is decided to run, and detaches it elsewhere.

use std::collections::BTreeMap;

use proxy_common::abi::{self, InterfaceFlags};
use tracing::{error, info, warn};

use super::{Agent, transit::Uplinks};
use crate::{
    audit::guard::{Found, Guard},
    chain::chain,
    kernel::{bpf::Datapath, tc::TrafficControl},
    ledger::{Ledger, Record},
    model::interface::Interface,
    plan::interfaces::{Decision, Foreign, Manner, Policy, interfaces, matches},
    status::InterfaceReport,
};

/// Where the fast path runs.
#[derive(Default)]
pub(super) struct Interfaces {
    decisions: BTreeMap<u32, Decision>,
    attached: BTreeMap<u32, Attached>,
    guard: Guard,
    found: Found,
    /// A Service was forced when it was decided last.
    forced_services: bool,
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
                let (mode, reason) = words(self.decisions.get(&interface.index)?);
                Some(InterfaceReport {
                    name: interface.name.clone(),
                    index: interface.index,
                    mode: mode.into(),
                    reason,
                    xdp: self.uplinks.report(interface.index).to_owned(),
                })
            })
            .collect()
    }

    /// Returns the interfaces that programs are attached to, and what the datapath knows of each.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &str, abi::Interface)> {
        self.attached.iter().map(|(index, held)| (*index, held.name.as_str(), held.value))
    }

    /// Returns what others have that the fast path would skip.
    pub(super) fn foreign(&self) -> &Foreign {
        &self.found.foreign
    }

    /// Attaches anew with the next settlement.
    pub(super) fn forget_attached(&mut self, index: u32) {
        self.attached.remove(&index);
    }

    pub(super) fn has_uplinks(&self) -> bool {
        self.uplinks.any()
    }

    pub(super) fn is_uplink(&self, index: u32) -> bool {
        self.uplinks.runs_on(index)
    }

    /// Begins transit anew with the next settlement.
    pub(super) fn forget_uplink(&mut self, datapath: &mut Datapath, index: u32) {
        self.uplinks.forget(datapath, index);
    }

    /// Returns what does not see the packets on the fast path, a sentence each.
    pub(super) fn losing(&self) -> impl Iterator<Item = String> {
        self.found.losing.iter().cloned()
    }
}

/// Mode and reason, as the status has them.
fn words(decision: &Decision) -> (&'static str, String) {
    match decision {
        Decision::On { manner: Manner::Fast, .. } => ("fast", String::new()),
        Decision::On { manner: Manner::Observe, .. } => {
            ("observe", "counts what would be fast".into())
        }
        Decision::On { manner: Manner::Forced(skipped), .. } => {
            ("forced", format!("in spite of: {skipped}"))
        }
        Decision::On { manner: Manner::ForcedServices(skipped), .. } => {
            ("forced", format!("for Services with mode force, in spite of: {skipped}"))
        }
        Decision::Off(reason) => ("off", reason.clone()),
    }
}

impl Agent {
    /// Looks at the interfaces anew, and lets the fast path run where it may.
    pub(super) async fn refresh_interfaces(&mut self) {
        if self.look().await {
            self.settle_interfaces().await;
        }
    }

    /// Looks for what others did to our interfaces, also without an event.
    pub(super) async fn look_for_foreign(&mut self) {
        if self.node.datapath.is_none() {
            return;
        }
        let before = (self.present.clone(), self.interfaces.found.clone());
        if self.look().await && before != (self.present.clone(), self.interfaces.found.clone()) {
            self.settle_interfaces().await;
        }
    }

    /// Takes up that a Service is forced, or none any more.
    pub(super) async fn follow_forced_services(&mut self) {
        if self.node.datapath.is_some()
            && self.interfaces.forced_services != (self.planner.desired().forced > 0)
        {
            self.settle_interfaces().await;
        }
    }

    /// Forgets an interface that is gone: another one may come by its index, even before the
    /// interfaces are read again.
    pub(super) fn forget_interface(&mut self, index: u32) {
        self.interfaces.decisions.remove(&index);
        self.forget_hash_interface(index);
        if let Some(datapath) = &mut self.node.datapath {
            self.interfaces.uplinks.forget(datapath, index);
            detach(datapath, &mut self.interfaces, index);
        }
    }

    /// Reads interfaces and what others have on them; says whether they could be read.
    async fn look(&mut self) -> bool {
        match self.node.links.interfaces().await {
            Ok(present) => self.present = present,
            Err(error) => {
                error!(event = "interfaces_failed", %error, "interfaces cannot be read");
                return false;
            }
        }
        if self.node.datapath.is_some() {
            let found = self.interfaces.guard.look(&self.node, &self.present).await;
            for sentence in
                found.losing.iter().filter(|s| !self.interfaces.found.losing.contains(s))
            {
                warn!(event = "packets_unseen", "{sentence}");
            }
            self.interfaces.found = found;
        }
        true
    }

    pub(super) async fn settle_interfaces(&mut self) {
        let forced_services = self.planner.desired().forced > 0;
        let policy = Policy {
            selection: &self.settings.interfaces,
            mode: self.settings.fast_path,
            rules: &self.settings.interface_modes,
            only_observe: self.fast_path.only_observe,
            forced_services,
            device: &self.settings.dummy_device,
        };
        let decisions = interfaces(&self.present, &policy, &self.interfaces.found.foreign);
        let xdp = (self.settings.xdp, &self.settings.uplinks);
        let wanted = self.hash_plane.is_on().then_some(&self.settings.hash_plane.interfaces);
        let hashing = |each: &Interface| {
            wanted.is_some_and(|patterns| patterns.iter().any(|one| matches(one, &each.name)))
        };
        let Self { node, interfaces: state, present, ledger, .. } = self;
        let Some(datapath) = &mut node.datapath else { return };
        state.forced_services = forced_services;
        let before = std::mem::replace(&mut state.decisions, decisions);
        // One program only can be at a driver.
        let free: Vec<_> = present.iter().filter(|each| !hashing(each)).cloned().collect();
        state.uplinks.settle(datapath, &free, &state.decisions, xdp);
        if !state.swept {
            sweep(datapath, &state.decisions);
            state.swept = true;
        }
        let mut changed = detach_refused(datapath, state);
        for interface in present.iter() {
            let Some(Decision::On { peer, manner }) = state.decisions.get(&interface.index) else {
                continue;
            };
            let mut value = value_of(interface, *peer, manner);
            value.flags |= state.uplinks.flags(interface.index);
            let needed = datapath.needs_clsact(interface.index);
            changed |= match claim_clsact(&node.traffic, ledger, needed, interface).await {
                Ok(()) => attach(datapath, state, interface, value),
                Err(reason) => {
                    state.decisions.insert(interface.index, Decision::Off(reason));
                    false
                }
            };
        }
        log_changes(present, &before, &state.decisions);
        if changed {
            self.raise_epoch();
        }
    }
}

/// What the datapath must know of an interface.
fn value_of(interface: &Interface, peer: bool, manner: &Manner) -> abi::Interface {
    let manner = match manner {
        Manner::Fast | Manner::Forced(_) => 0,
        Manner::Observe => InterfaceFlags::OBSERVE,
        Manner::ForcedServices(_) => InterfaceFlags::FORCED_ONLY,
    };
    let peer = if peer { InterfaceFlags::PEER } else { 0 };
    abi::Interface { mtu: interface.mtu, flags: peer | manner }
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
    refused.iter().for_each(|index| detach(datapath, state, *index));
    !refused.is_empty()
}

fn detach(datapath: &mut Datapath, state: &mut Interfaces, index: u32) {
    let Some(attached) = state.attached.remove(&index) else { return };
    let removed = datapath.maps.remove_interface(index);
    let detached = datapath.detach(&attached.name, index);
    for error in [removed.err(), detached.err()].into_iter().flatten() {
        warn!(event = "detach_failed", interface = attached.name, %error, "detach");
    }
}

/// Records the clsact qdisc that attaching will make, before it is made. Where the kernel has TCX,
/// or the qdisc is there, there is nothing to make.
pub(super) async fn claim_clsact(
    traffic: &TrafficControl,
    ledger: &mut Ledger,
    needed: bool,
    interface: &Interface,
) -> Result<(), String> {
    if !needed {
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
    value: abi::Interface,
) -> bool {
    let wanted = Attached { name: interface.name.clone(), value };
    if state.attached.get(&interface.index) == Some(&wanted) {
        return false;
    }
    let before = state.attached.get(&interface.index);
    let attached = if before.is_some_and(|before| before.name == wanted.name) {
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
            Some(Decision::On { peer, manner: Manner::Fast }) => {
                info!(event = "interface_fast", interface = name, peer, "the fast path runs");
            }
            Some(Decision::On { manner: Manner::Observe, .. }) => {
                info!(event = "interface_observed", interface = name, "the fast path only counts");
            }
            Some(decision @ Decision::On { .. }) => warn!(
                event = "interface_forced",
                interface = name,
                "the fast path runs {}: established packets do not pass it any more",
                words(decision).1
            ),
            Some(Decision::Off(reason)) => {
                info!(event = "interface_off", interface = name, reason, "no fast path here");
            }
            None => {}
        }
    }
}
