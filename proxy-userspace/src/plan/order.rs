//! The order of a plan: one table.
//!
//! | wave | ranks | why then |
//! |---|---|---|
//! | 1 | `Device`, `Guard` | everything else stands on them |
//! | 2 | `VirtualServer`, `Destination`, `Vip` of urgent Services | a cold node needs the API server and DNS before it has made 50,000 others |
//! | 3 | all ranks, in the order of [`Rank`]; urgent Services first in each | what comes, then what goes, then what is learned |
//!
//! Urgent are `default/kubernetes` and `kube-system/kube-dns`.

use super::Action;
use crate::model::ServiceName;

/// The position of an action in its plan. The order of the variants is the order of the actions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rank {
    /// The device that carries the VIPs: without it no VIP can be put.
    Device,
    /// nft elements that come: a VIP must never be live without the guard that refuses its
    /// unassigned ports, nor a node port without its masquerade.
    Guard,
    /// Virtual servers that come or change: a destination needs its virtual server.
    VirtualServer,
    /// Destinations that come or get weight, in sorted order on a fresh virtual server: the table
    /// of `mh` depends on the order of insertion, and all nodes must have the same one.
    Destination,
    /// VIP routes that come: after the virtual servers with their destinations, so that no packet
    /// finds a VIP without a server.
    Vip,
    /// Node ports at loopback addresses that come, lead elsewhere, or go: after the virtual server
    /// that one leads to has come, and before the one that it led to goes.
    LocalPort,
    /// Weights that become 0: before removals, so that nothing new is sent to what is about to go.
    Drain,
    /// Frontends whose flows are learned no more: before their state goes, or the invalidation
    /// that follows would be learned over.
    StopLearning,
    /// Generations of the backends that lose something: from here their flows go the slow way and
    /// see each IPVS edit at once.
    InvalidateBefore,
    /// Destinations that go.
    RemoveDestination,
    /// Virtual servers that go, with their destinations.
    RemoveVirtualServer,
    /// Destinations that are put into order: when it is known which are left.
    Order,
    /// The same generations again: what was learned while IPVS was being edited dies.
    InvalidateAfter,
    /// Conntrack entries of UDP connections: after IPVS holds what they should lead to.
    Flush,
    /// VIP routes that go: after their virtual servers, since without the route a packet for the
    /// VIP would leave by the default route, and the guard refuses it cleanly as long as it stays.
    /// What made VIPs local in another way goes here too: the configured way is there by now.
    RemoveVip,
    /// Backends that leave their map: after the invalidation, because the entry is what tells the
    /// next run, should this one end halfway, that its id has flows to invalidate.
    RemoveBackend,
    /// Backends that come: before the frontends that lead to them.
    PutBackend,
    /// Frontends whose flows may be learned: last of what comes, since this is what starts it.
    PutFrontend,
    /// nft elements that go: after everything they guarded.
    Unguard,
}

/// An action and what decides its position.
pub(super) struct Step {
    pub(super) rank: Rank,
    pub(super) urgent: bool,
    pub(super) action: Action,
}

/// Returns whether a node cannot do without this Service.
pub(super) fn urgent(service: &ServiceName) -> bool {
    matches!(
        (&*service.namespace, &*service.name),
        ("default", "kubernetes") | ("kube-system", "kube-dns")
    )
}

/// Returns the actions in order. Steps of the same position keep the order they were given in.
pub(super) fn ordered(mut steps: Vec<Step>) -> Vec<Action> {
    steps.sort_by_key(|step| (wave(step), step.rank, !step.urgent));
    steps.into_iter().map(|step| step.action).collect()
}

fn wave(step: &Step) -> u8 {
    match step.rank {
        Rank::Device | Rank::Guard => 1,
        Rank::VirtualServer | Rank::Destination | Rank::Vip if step.urgent => 2,
        _ => 3,
    }
}
