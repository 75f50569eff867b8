//! The device, the VIP routes and the nft elements.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::Changes;
use crate::{
    model::NatElements,
    plan::{
        Action, Desired,
        order::{Rank, Step, urgent},
    },
};

pub(super) fn compare(changes: &mut Changes<'_>, desired: &Desired) {
    let none = BTreeSet::new();
    let held = if changes.observed.device { &changes.observed.vips } else { &none };
    let wanted = vips(changes, desired);
    if !changes.observed.device {
        changes.push(Rank::Device, Action::PutDevice);
    }
    for (&addr, &urgent) in wanted.iter().filter(|(addr, _)| !held.contains(addr)) {
        changes.steps.push(Step { rank: Rank::Vip, urgent, action: Action::PutVip(addr) });
    }
    for &addr in held.iter().filter(|addr| !wanted.contains_key(addr)) {
        changes.push(Rank::RemoveVip, Action::RemoveVip(addr));
    }
    let mut elements = desired.nat.clone();
    elements.vips.retain(|addr| wanted.contains_key(&IpAddr::V4(*addr)));
    compare_nat(changes, elements);
}

/// Returns the VIPs that have a virtual server of ours, and whether an urgent Service needs them.
/// A VIP whose only virtual servers are foreign belongs to whoever made those.
fn vips(changes: &Changes<'_>, desired: &Desired) -> BTreeMap<IpAddr, bool> {
    let mut vips = BTreeMap::new();
    for (frontend, server) in &changes.servers {
        if desired.vips.contains(&frontend.addr) {
            *vips.entry(frontend.addr).or_default() |= urgent(&server.service.service);
        }
    }
    vips
}

fn compare_nat(changes: &mut Changes<'_>, wanted: NatElements) {
    let Some(held) = &changes.observed.nat else {
        changes.push(Rank::Guard, Action::InstallNat(wanted));
        return;
    };
    let added = wanted.minus(held);
    let removed = held.minus(&wanted);
    if !added.is_empty() {
        let removed = NatElements::default();
        changes.push(Rank::Guard, Action::ChangeNat { added, removed });
    }
    if !removed.is_empty() {
        let added = NatElements::default();
        changes.push(Rank::Unguard, Action::ChangeNat { added, removed });
    }
}
