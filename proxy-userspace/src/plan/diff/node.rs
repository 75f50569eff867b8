//! The device and the VIP routes.

use std::{collections::BTreeSet, net::IpAddr};

use super::Changes;
use crate::plan::{
    Action,
    order::{Rank, Step, urgent},
};

pub(super) fn compare(changes: &mut Changes<'_>) {
    if !changes.observed.device {
        changes.push(Rank::Device, Action::PutDevice);
        // A new device carries nothing, whatever the old one carried.
        changes.touched.vips = changes.desired.vips.iter().copied().collect();
    }
    let none = BTreeSet::new();
    let observed = changes.observed;
    let (held, foreign, outdated) = if observed.device {
        (&observed.vips, &observed.foreign_vips, &observed.outdated_vips)
    } else {
        (&none, &none, &none)
    };
    for addr in std::mem::take(&mut changes.touched.vips) {
        match (served(changes, addr), held.contains(&addr)) {
            (Some(urgent), false) if !foreign.contains(&addr) => {
                changes.steps.push(Step { rank: Rank::Vip, urgent, action: Action::PutVip(addr) });
            }
            // Somebody else's virtual servers may stand on it.
            (None, true) if changes.desired.excludes(addr) => {}
            (None, true) => changes.push(Rank::RemoveVip, Action::RemoveVip(addr)),
            _ => {}
        }
    }
    for &addr in outdated {
        changes.push(Rank::RemoveVip, Action::RetireVip(addr));
    }
}

/// Returns whether an address has to be routed here, and if so, whether an urgent Service needs
/// it. A VIP whose only virtual servers are foreign belongs to whoever made those.
pub(super) fn served(changes: &Changes<'_>, addr: IpAddr) -> Option<bool> {
    if !changes.desired.vips.contains(&addr) {
        return None;
    }
    let ours = changes
        .desired
        .servers_at(addr)
        .filter(|(frontend, server)| server.vip && !changes.is_foreign(frontend));
    let urgents: Vec<bool> = ours.map(|(_, server)| urgent(&server.service.service)).collect();
    (!urgents.is_empty()).then(|| urgents.contains(&true))
}
