//! One change to one object.

use std::{collections::BTreeSet, net::IpAddr};

use serde::Serialize;

use super::FrontendEntry;
use crate::model::{
    Backend, Destination, DestinationKey, Element, Frontend, Notice, RuleOptions, VirtualServer,
};

/// One object, one verb, idempotent: putting what is there changes nothing, removing what is not
/// there succeeds. So an action may be tried again, and a plan may be applied twice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub enum Action {
    /// Make the device that carries the VIPs, and set it up.
    PutDevice,
    /// Route an address to this node.
    PutVip(IpAddr),
    /// Stop routing an address to this node.
    RemoveVip(IpAddr),
    /// Undo for an address what made it local in the way that was configured before.
    RetireVip(IpAddr),
    /// Replace our nft table as a whole, with these rules and elements.
    InstallTable {
        /// The fixed rules.
        rules: RuleOptions,
        /// The elements.
        elements: BTreeSet<Element>,
    },
    /// Change elements of our nft table, all at one moment.
    ChangeElements {
        /// Elements that come.
        added: BTreeSet<Element>,
        /// Elements that go.
        removed: BTreeSet<Element>,
    },
    /// Write an entry of the backend map. The generation at `id` keeps counting, so that what an
    /// earlier owner of the id left in the flow maps stays dead.
    PutBackend {
        /// The key.
        backend: Backend,
        /// Index in the generation array.
        id: u32,
    },
    /// Delete an entry of the backend map.
    RemoveBackend {
        /// The key.
        backend: Backend,
        /// The id it had.
        id: u32,
    },
    /// Write an entry of the frontend map.
    PutFrontend {
        /// The key.
        frontend: Frontend,
        /// The value.
        entry: FrontendEntry,
    },
    /// Delete an entry of the frontend map: its flows are learned and renewed no more.
    RemoveFrontend(Frontend),
    /// End every lease of the flows to and from these backends: raise the edit counter, which
    /// fails what is being learned at this moment, then the generation of each id.
    Invalidate {
        /// Ids of the backends.
        backends: BTreeSet<u32>,
    },
    /// Make a virtual server, or change its scheduler, flags and persistence.
    PutVirtualServer(VirtualServer),
    /// Delete a virtual server with its destinations.
    RemoveVirtualServer(Frontend),
    /// Make a destination, or change its weight.
    PutDestination {
        /// Its virtual server.
        frontend: Frontend,
        /// The destination.
        destination: Destination,
    },
    /// Delete a destination.
    RemoveDestination {
        /// Its virtual server.
        frontend: Frontend,
        /// Its key.
        key: DestinationKey,
    },
    /// Delete these destinations and make them again, in this order, without a loss to their
    /// connections: schedulers that hash depend on the order, and nodes have to agree.
    OrderDestinations {
        /// Their virtual server.
        frontend: Frontend,
        /// The destinations.
        destinations: Vec<Destination>,
    },
    /// Send sockets that dial a node port at a loopback address to another frontend.
    PutLocalPort {
        /// What they dial; 127.0.0.1 and ::1 stand for all loopback addresses.
        frontend: Frontend,
        /// Where they get.
        to: Frontend,
    },
    /// Leave sockets alone that dial a node port at a loopback address.
    RemoveLocalPort(Frontend),
    /// Forget what conntrack knows of the UDP connections to a frontend: they were made when
    /// something else, or nothing, was behind it (k8s#98305).
    Flush {
        /// What clients dial.
        frontend: Frontend,
        /// Only the connections to this destination.
        to: Option<DestinationKey>,
    },
}

impl Action {
    /// Returns what kind of change it is, as metrics name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PutDevice => "put_device",
            Self::PutVip(_) => "put_vip",
            Self::RemoveVip(_) => "remove_vip",
            Self::RetireVip(_) => "retire_vip",
            Self::InstallTable { .. } => "install_table",
            Self::ChangeElements { .. } => "change_elements",
            Self::PutBackend { .. } => "put_backend",
            Self::RemoveBackend { .. } => "remove_backend",
            Self::PutFrontend { .. } => "put_frontend",
            Self::RemoveFrontend(_) => "remove_frontend",
            Self::Invalidate { .. } => "invalidate",
            Self::PutVirtualServer(_) => "put_virtual_server",
            Self::RemoveVirtualServer(_) => "remove_virtual_server",
            Self::PutDestination { .. } => "put_destination",
            Self::RemoveDestination { .. } => "remove_destination",
            Self::OrderDestinations { .. } => "order_destinations",
            Self::PutLocalPort { .. } => "put_local_port",
            Self::RemoveLocalPort(_) => "remove_local_port",
            Self::Flush { .. } => "flush",
        }
    }
}

/// What to do, in the order to do it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// The changes, ordered by [`super::order::Rank`].
    pub actions: Vec<Action>,
    /// What stays undone because of what was observed: foreign virtual servers, full maps.
    pub conflicts: Vec<Notice>,
    /// Destinations that are kept at weight 0 until their connections have ended or their time is
    /// over.
    pub draining: BTreeSet<(Frontend, DestinationKey)>,
    /// Those that are kept until their connections have ended, however long that takes: their
    /// endpoints are still there.
    pub lingering: BTreeSet<(Frontend, DestinationKey)>,
}
