//! What the node holds, as far as plans depend on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;

use super::{Action, Destinations, IdMap, ids::Numbered};
use crate::model::{
    Backend, Destination, DestinationKey, Element, FastPath, Frontend, Protocol, RuleOptions,
    VirtualServer,
};

/// An entry of the frontend map.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct FrontendEntry {
    /// Names the frontend in flow entries and counters; at least 1.
    pub id: u32,
    /// What flows of the frontend may do.
    pub fast_path: FastPath,
}

impl FrontendEntry {
    /// Says whether flows of the frontend may be learned.
    pub fn learns(&self) -> bool {
        self.fast_path != FastPath::Off
    }
}

impl Numbered for FrontendEntry {
    fn id(&self) -> u32 {
        self.id
    }
}

/// A virtual server in IPVS.
#[derive(Clone, Debug)]
pub struct ObservedServer {
    /// Its settings.
    pub virtual_server: VirtualServer,
    /// Its destinations.
    pub destinations: Destinations,
    /// Their keys, the newest last: the kernel lists them the other way round.
    pub order: Vec<DestinationKey>,
    /// The ledger says that we made it. What we did not make is never changed.
    pub owned: bool,
}

/// The order counts only where the scheduler goes by it.
impl PartialEq for ObservedServer {
    fn eq(&self, other: &Self) -> bool {
        let scheduler = self.virtual_server.scheduler;
        self.virtual_server == other.virtual_server
            && self.destinations == other.destinations
            && self.owned == other.owned
            && (!scheduler.depends_on_order() || self.order == other.order)
    }
}

impl Eq for ObservedServer {}

impl ObservedServer {
    fn put(&mut self, destination: Destination) {
        if self.destinations.insert(destination).is_none() {
            self.order.push(destination.key);
        }
    }

    fn remove(&mut self, key: &DestinationKey) {
        if self.destinations.remove(key).is_some() {
            self.order.retain(|held| held != key);
        }
    }
}

/// Our nft table.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ObservedTable {
    /// Which of the fixed rules it has.
    pub rules: RuleOptions,
    /// Its elements.
    pub elements: BTreeSet<Element>,
}

/// The state of the node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// The device that carries the VIPs exists and is set up.
    pub device: bool,
    /// Addresses that we make local to this node, in the configured way.
    pub vips: BTreeSet<IpAddr>,
    /// Addresses that the device has from somebody else: they serve, and are left alone.
    pub foreign_vips: BTreeSet<IpAddr>,
    /// Addresses that we made local in the way that was configured before.
    pub outdated_vips: BTreeSet<IpAddr>,
    /// All virtual servers in IPVS, ours and others'.
    pub servers: BTreeMap<Frontend, ObservedServer>,
    /// Our nft table; `None` when it is missing or of another version.
    pub table: Option<ObservedTable>,
    /// The frontend map.
    pub frontends: IdMap<Frontend, FrontendEntry>,
    /// The backend map: ids.
    pub backends: IdMap<Backend, u32>,
    /// Where node ports at loopback addresses lead; `None` where nothing serves them, and then a plan
    /// holds no action on them.
    pub local_ports: Option<BTreeMap<Frontend, Frontend>>,
    /// The BPF maps exist; without them a plan holds no action on them.
    pub fast_path: bool,
}

impl Observed {
    /// Takes up the effect of an action that succeeded.
    pub fn apply(&mut self, action: &Action) {
        match action {
            Action::PutDevice => self.put_device(),
            Action::PutVip(addr) => {
                self.vips.insert(*addr);
            }
            Action::RemoveVip(addr) => {
                self.vips.remove(addr);
            }
            Action::RetireVip(addr) => {
                self.outdated_vips.remove(addr);
            }
            Action::InstallTable { rules, elements } => {
                let (rules, elements) = (rules.clone(), elements.clone());
                self.table = Some(ObservedTable { rules, elements });
            }
            Action::ChangeElements { added, removed } => {
                if let Some(table) = &mut self.table {
                    removed.iter().for_each(|element| {
                        table.elements.remove(element);
                    });
                    table.elements.extend(added);
                }
            }
            Action::PutBackend { backend, id } => {
                self.backends.insert(*backend, *id);
            }
            Action::RemoveBackend { backend, .. } => {
                self.backends.remove(backend);
            }
            Action::PutFrontend { frontend, entry } => {
                self.frontends.insert(*frontend, *entry);
            }
            Action::RemoveFrontend(frontend) => {
                self.frontends.remove(frontend);
            }
            Action::PutLocalPort { frontend, to } => {
                self.local_ports.get_or_insert_default().insert(*frontend, *to);
            }
            Action::RemoveLocalPort(frontend) => {
                self.local_ports.get_or_insert_default().remove(frontend);
            }
            Action::Invalidate { .. } | Action::Flush { .. } => {}
            Action::PutVirtualServer(virtual_server) => self.put_virtual_server(*virtual_server),
            Action::RemoveVirtualServer(frontend) => {
                self.servers.remove(frontend);
            }
            Action::PutDestination { frontend, destination } => {
                if let Some(server) = self.servers.get_mut(frontend) {
                    server.put(*destination);
                }
            }
            Action::RemoveDestination { frontend, key } => {
                if let Some(server) = self.servers.get_mut(frontend) {
                    server.remove(key);
                }
            }
            Action::OrderDestinations { frontend, destinations } => {
                if let Some(server) = self.servers.get_mut(frontend) {
                    destinations.iter().for_each(|destination| {
                        server.remove(&destination.key);
                        server.put(*destination);
                    });
                }
            }
        }
    }

    /// Returns the id in the backend map of a destination of a virtual server.
    pub(super) fn backend_id(&self, key: DestinationKey, protocol: Protocol) -> Option<u32> {
        self.backends.get(&Backend::new(key, protocol)).copied()
    }

    /// A new device carries nothing, whatever an old one carried.
    fn put_device(&mut self) {
        if !self.device {
            self.vips.clear();
            self.foreign_vips.clear();
            self.outdated_vips.clear();
        }
        self.device = true;
    }

    fn put_virtual_server(&mut self, virtual_server: VirtualServer) {
        self.servers
            .entry(virtual_server.frontend)
            .and_modify(|server| server.virtual_server = virtual_server)
            .or_insert_with(|| ObservedServer {
                virtual_server,
                destinations: Destinations::default(),
                owned: true,
                order: Vec::new(),
            });
    }
}
