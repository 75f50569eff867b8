//! What others changed of ours: what the node held after our own last change, compared with what
//! it holds now.
//!
//! What we left is the measure, and not what is wanted: a drain that we began, an action that
//! failed, or a change that still waits for its pass is nobody's drift.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::Serialize;

use super::{Desired, FrontendEntry, IdMap, Observed, ObservedServer, ids::Numbered};
use crate::model::{
    Backend, Destination, DestinationKey, Element, Forwarding, Frontend, ServicePortName,
    VirtualServer,
};

/// A thing of ours that others can change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Object {
    /// The device that carries the VIPs.
    Device,
    /// An address that is local to this node.
    Vip(IpAddr),
    /// The nft table with its rules.
    Table,
    /// An element of the nft table.
    Element(Element),
    /// A virtual server of IPVS.
    VirtualServer(Frontend),
    /// A destination of a virtual server.
    Destination(Frontend, DestinationKey),
    /// An entry of the frontend map.
    FrontendEntry(Frontend),
    /// An entry of the backend map.
    BackendEntry(Backend),
    /// The bits that tell what is no Service.
    Filter,
    /// Where a node port at a loopback address leads.
    LocalPort(Frontend),
    /// A program, by name, on an interface or on the root cgroup (`-`).
    Program(String, &'static str),
    /// What the datapath knows of an interface.
    InterfaceEntry(String),
    /// A sysctl, by dotted name.
    Sysctl(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device of the VIPs"),
            Self::Vip(addr) => write!(f, "vip {addr}"),
            Self::Table => f.write_str("table inet passlane"),
            Self::Element(element) => write!(f, "element {element}"),
            Self::VirtualServer(frontend) => write!(f, "virtual server {frontend}"),
            Self::Destination(frontend, key) => write!(f, "destination {frontend} to {key}"),
            Self::FrontendEntry(frontend) => write!(f, "frontend entry {frontend}"),
            Self::BackendEntry(backend) => write!(f, "backend entry {backend}"),
            Self::Filter => f.write_str("filter of Services"),
            Self::LocalPort(frontend) => write!(f, "local port {frontend}"),
            Self::Program(interface, program) => write!(f, "program {program} on {interface}"),
            Self::InterfaceEntry(interface) => write!(f, "interface entry {interface}"),
            Self::Sysctl(key) => write!(f, "sysctl {key}"),
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// It is gone.
    Missing,
    /// It is there, and we did not put it there.
    Added,
    /// Its scheduler is another one.
    Scheduler,
    /// The flags of its scheduler are others.
    Flags,
    /// Its session affinity is another one.
    Persistence,
    /// Its weight is another one.
    Weight,
    /// Packets are handed to it in another way.
    Forwarding,
    /// Its destinations are in another order, and the scheduler goes by that.
    Order,
    /// Its value is another one.
    Value,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Missing,
        Self::Added,
        Self::Scheduler,
        Self::Flags,
        Self::Persistence,
        Self::Weight,
        Self::Forwarding,
        Self::Order,
        Self::Value,
    ];

    /// Returns the word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Added => "added",
            Self::Scheduler => "scheduler",
            Self::Flags => "flags",
            Self::Persistence => "persistence",
            Self::Weight => "weight",
            Self::Forwarding => "forwarding",
            Self::Order => "order",
            Self::Value => "value",
        }
    }
}

/// Which part of the node was changed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subsystem {
    /// Virtual servers and destinations.
    Ipvs,
    /// The device and what makes VIPs local.
    Address,
    /// The nft table.
    Nft,
    /// Maps.
    Bpf,
    /// Attached programs.
    Program,
    /// Sysctls.
    Sysctl,
}

impl Subsystem {
    /// Every subsystem.
    pub const ALL: [Self; 6] =
        [Self::Ipvs, Self::Address, Self::Nft, Self::Bpf, Self::Program, Self::Sysctl];

    /// Returns the word for logs and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ipvs => "ipvs",
            Self::Address => "address",
            Self::Nft => "nft",
            Self::Bpf => "bpf",
            Self::Program => "program",
            Self::Sysctl => "sysctl",
        }
    }
}

impl Object {
    /// Returns the part of the node it belongs to.
    pub fn subsystem(&self) -> Subsystem {
        match self {
            Self::VirtualServer(_) | Self::Destination(..) => Subsystem::Ipvs,
            Self::Device | Self::Vip(_) => Subsystem::Address,
            Self::Table | Self::Element(_) => Subsystem::Nft,
            Self::FrontendEntry(_)
            | Self::BackendEntry(_)
            | Self::Filter
            | Self::LocalPort(_)
            | Self::InterfaceEntry(_) => Subsystem::Bpf,
            Self::Program(..) => Subsystem::Program,
            Self::Sysctl(_) => Subsystem::Sysctl,
        }
    }
}

/// One change that somebody else made to something of ours.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Drift {
    /// What was changed.
    pub object: Object,
    /// What became of it.
    pub kind: Kind,
    /// What we left, as people read it.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl Serialize for Drift {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Drift", 5)?;
        fields.serialize_field("subsystem", self.object.subsystem().word())?;
        fields.serialize_field("object", &self.object.to_string())?;
        fields.serialize_field("kind", self.kind.word())?;
        fields.serialize_field("expected", &self.expected)?;
        fields.serialize_field("found", &self.found)?;
        fields.end()
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, kind, expected, found } = self;
        match kind {
            Kind::Missing => write!(f, "{object} was removed ({expected})"),
            Kind::Added => write!(f, "{object} was added ({found})"),
            kind => write!(f, "{object}: {} was {expected}, is {found}", kind.word()),
        }
    }
}

/// How a missing side is written.
const NOTHING: &str = "nothing";

impl Drift {
    /// Something is gone.
    pub fn missing(object: Object, expected: impl fmt::Display) -> Self {
        let (expected, found) = (expected.to_string(), NOTHING.to_owned());
        Self { object, kind: Kind::Missing, expected, found }
    }

    /// Something is there that we did not put there.
    pub fn added(object: Object, found: impl fmt::Display) -> Self {
        let (expected, found) = (NOTHING.to_owned(), found.to_string());
        Self { object, kind: Kind::Added, expected, found }
    }

    /// Something is not as we left it.
    pub fn changed(
        object: Object,
        kind: Kind,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self { object, kind, expected: expected.to_string(), found: found.to_string() }
    }
}

/// Names every difference between what we left and what is found, of ours only. A removed thing is
/// named alone, without what went with it.
pub fn drift(left: &Observed, found: &Observed) -> Vec<Drift> {
    let mut drifts = Vec::new();
    addresses(left, found, &mut drifts);
    table(left, found, &mut drifts);
    for (frontend, held) in left.servers.iter().filter(|(_, held)| held.owned) {
        match found.servers.get(frontend).filter(|server| server.owned) {
            Some(server) => compare_server(held, server, &mut drifts),
            None => {
                let object = Object::VirtualServer(*frontend);
                drifts.push(Drift::missing(object, settings(&held.virtual_server)));
            }
        }
    }
    if left.fast_path && found.fast_path {
        entries(&left.frontends, &found.frontends, Object::FrontendEntry, &mut drifts);
        entries(&left.backends, &found.backends, Object::BackendEntry, &mut drifts);
    }
    if let (Some(left), Some(found)) = (&left.local_ports, &found.local_ports) {
        let shown = |to: &Frontend| format!("leads to {to}");
        maps(left, found, Object::LocalPort, shown, &mut drifts);
    }
    drifts.sort();
    drifts
}

fn addresses(left: &Observed, found: &Observed, drifts: &mut Vec<Drift>) {
    if left.device && !found.device {
        // Every VIP goes with it.
        drifts.push(Drift::missing(Object::Device, "there, and up"));
        return;
    }
    let gone = left.vips.difference(&found.vips);
    drifts.extend(gone.map(|addr| Drift::missing(Object::Vip(*addr), "local")));
    let new = found.vips.difference(&left.vips);
    drifts.extend(new.map(|addr| Drift::added(Object::Vip(*addr), "local")));
}

fn table(left: &Observed, found: &Observed, drifts: &mut Vec<Drift>) {
    let Some(held) = &left.table else { return };
    let Some(table) = found.table.as_ref().filter(|table| table.rules == held.rules) else {
        drifts.push(Drift::missing(Object::Table, "our sets, chains and rules"));
        return;
    };
    let gone = held.elements.difference(&table.elements);
    drifts.extend(gone.map(|element| Drift::missing(Object::Element(*element), "in its set")));
    let new = table.elements.difference(&held.elements);
    drifts.extend(new.map(|element| Drift::added(Object::Element(*element), "in its set")));
}

/// Describes a virtual server.
pub fn settings(server: &VirtualServer) -> String {
    let flags = match server.flags.0 {
        0 => String::new(),
        flags => format!(", flags {flags:#x}"),
    };
    let affinity = match server.persistent_secs {
        0 => String::new(),
        secs => format!(", persistent {secs} s"),
    };
    format!("{}{flags}{affinity}", server.scheduler.name())
}

/// Describes a destination.
pub fn way(destination: &Destination) -> String {
    format!("{}, weight {}", destination.forwarding, destination.weight)
}

fn compare_server(left: &ObservedServer, found: &ObservedServer, drifts: &mut Vec<Drift>) {
    let (was, is) = (&left.virtual_server, &found.virtual_server);
    let frontend = was.frontend;
    let mut changed = |kind, was: String, is: String| {
        if was != is {
            drifts.push(Drift::changed(Object::VirtualServer(frontend), kind, was, is));
        }
    };
    changed(Kind::Scheduler, was.scheduler.name().into(), is.scheduler.name().into());
    changed(Kind::Flags, format!("{:#x}", was.flags.0), format!("{:#x}", is.flags.0));
    let seconds = |secs: u32| format!("{secs} s");
    changed(Kind::Persistence, seconds(was.persistent_secs), seconds(is.persistent_secs));
    for held in &left.destinations {
        let object = Object::Destination(frontend, held.key);
        match found.destinations.get(&held.key) {
            Some(destination) => compare_destination(object, held, destination, drifts),
            None => drifts.push(Drift::missing(object, way(held))),
        }
    }
    for destination in &found.destinations {
        if !left.destinations.contains_key(&destination.key) {
            let object = Object::Destination(frontend, destination.key);
            drifts.push(Drift::added(object, way(destination)));
        }
    }
    compare_order(left, found, drifts);
}

fn compare_destination(
    object: Object,
    was: &Destination,
    is: &Destination,
    drifts: &mut Vec<Drift>,
) {
    if was.weight != is.weight {
        drifts.push(Drift::changed(object.clone(), Kind::Weight, was.weight, is.weight));
    }
    // The kernel decides by itself which destinations are on this host.
    if was.limits != is.limits {
        let (was, is) = (format!("limits {}", was.limits), format!("limits {}", is.limits));
        drifts.push(Drift::changed(object.clone(), Kind::Value, was, is));
    }
    let local = [was, is].iter().any(|each| each.forwarding == Forwarding::Local);
    if !local && was.forwarding != is.forwarding {
        drifts.push(Drift::changed(object, Kind::Forwarding, was.forwarding, is.forwarding));
    }
}

/// Compares the order of those that are on both sides.
fn compare_order(left: &ObservedServer, found: &ObservedServer, drifts: &mut Vec<Drift>) {
    if !left.virtual_server.scheduler.depends_on_order() {
        return;
    }
    let both = |key: &&DestinationKey| {
        left.destinations.contains_key(key) && found.destinations.contains_key(key)
    };
    let (was, is) = (left.order.iter().filter(both), found.order.iter().filter(both));
    if !was.clone().eq(is.clone()) {
        let list = |keys: Vec<&DestinationKey>| {
            keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let object = Object::VirtualServer(left.virtual_server.frontend);
        let (was, is) = (list(was.collect()), list(is.collect()));
        drifts.push(Drift::changed(object, Kind::Order, was, is));
    }
}

/// How an entry of a map is written.
pub trait Shown {
    /// Describes it.
    fn shown(&self) -> String;
}

impl Shown for FrontendEntry {
    fn shown(&self) -> String {
        format!("id {}, {}", self.id, self.fast_path.word())
    }
}

impl Shown for u32 {
    fn shown(&self) -> String {
        format!("id {self}")
    }
}

fn entries<K: Copy + Ord, V: Numbered + PartialEq + Shown>(
    left: &IdMap<K, V>,
    found: &IdMap<K, V>,
    object: impl Fn(K) -> Object,
    drifts: &mut Vec<Drift>,
) {
    maps(left, found, object, V::shown, drifts);
}

fn maps<K: Copy + Ord, V: PartialEq>(
    left: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
    object: impl Fn(K) -> Object,
    shown: impl Fn(&V) -> String,
    drifts: &mut Vec<Drift>,
) {
    for (key, was) in left {
        match found.get(key) {
            Some(is) if is == was => {}
            Some(is) => {
                let (was, is) = (shown(was), shown(is));
                drifts.push(Drift::changed(object(*key), Kind::Value, was, is));
            }
            None => drifts.push(Drift::missing(object(*key), shown(was))),
        }
    }
    let new = found.iter().filter(|(key, _)| !left.contains_key(key));
    drifts.extend(new.map(|(key, is)| Drift::added(object(*key), shown(is))));
}

impl Object {
    /// Returns a Service port that the object serves, if it serves one.
    pub fn service(&self, desired: &Desired) -> Option<ServicePortName> {
        let of = |frontend: &Frontend| {
            desired.servers.get(frontend).map(|server| server.service.clone())
        };
        let at = |addr: &IpAddr| {
            desired.servers_at(*addr).next().map(|(_, server)| server.service.clone())
        };
        match self {
            Self::VirtualServer(frontend)
            | Self::Destination(frontend, _)
            | Self::FrontendEntry(frontend)
            | Self::LocalPort(frontend) => of(frontend),
            Self::Vip(addr) => at(addr),
            Self::Element(element) => match element {
                Element::Vip(addr) | Element::ClusterIp(addr) => at(addr),
                Element::Masquerade(frontend)
                | Element::Reject(frontend)
                | Element::Drop(frontend)
                | Element::Ranged(frontend)
                | Element::RangedHost(frontend)
                | Element::Source(frontend, _)
                | Element::InterimSource(frontend, _)
                | Element::Inside(frontend, ..)
                | Element::Shadow(frontend) => of(frontend),
                Element::Hairpin(_) | Element::PodCidr(_) | Element::ServiceCidr(_) => None,
            },
            Self::BackendEntry(backend) => {
                let server = desired
                    .servers
                    .values()
                    .find(|server| server.backends().any(|each| each == *backend));
                server.map(|server| server.service.clone())
            }
            Self::Device
            | Self::Table
            | Self::Program(..)
            | Self::InterfaceEntry(_)
            | Self::Filter
            | Self::Sysctl(_) => None,
        }
    }
}

/// Returns which objects drifted.
pub fn objects(drifts: &[Drift]) -> BTreeSet<&Object> {
    drifts.iter().map(|drift| &drift.object).collect()
}
