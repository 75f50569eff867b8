//! Where frames to a destination go: the kernel's routes and neighbours, for who sends past it.
//!
//! ```text
//! destination ──RTM_GETROUTE──▶ device, gateway, source, MTU
//!                                 │        └──neighbours──▶ MAC address, and whether it is sure
//!                                 └──RTM_GETLINK──▶ interface, VLAN tag, own MAC address
//! ```
//!
//! Frames that the kernel does not see do not keep its neighbours fresh, so they go stale, and a
//! neighbour that is gone or has moved would not be noticed: [`NextHops::confirm`] has the kernel
//! ask again.

mod device;
mod error;
mod neighbour;
mod route;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use netlink_packet_core::{NLM_F_CREATE, NetlinkMessage};
use netlink_packet_route::{RouteNetlinkMessage, neighbour::NeighbourMessage};
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_ROUTE};
use rustix::io::Errno;

pub use error::{Error, Hint, Operation};
pub use neighbour::Neighbour;

use self::{device::Device, neighbour::Held, route::Route};
use super::netlink::{self, REQUESTS_PER_SEND};
use crate::model::{NextHop, Unusable, Way};

/// A connection to the routes and neighbours of one network namespace: that of the thread that
/// opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct NextHops {
    handle: ConnectionHandle<RouteNetlinkMessage>,
}

/// The way to a destination, and who is to be asked about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// The way.
    pub way: Way,
    /// The next hop, where the kernel is not sure of it: [`NextHops::confirm`] it. Always so where
    /// the way is unresolved.
    pub unsure: Option<Neighbour>,
}

impl From<Way> for Found {
    fn from(way: Way) -> Self {
        Self { way, unsure: None }
    }
}

impl NextHops {
    /// Connects. Must be called within a tokio runtime, which runs the connection until the last
    /// clone is dropped.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { handle: netlink::open(NETLINK_ROUTE).map_err(Error::Open)? })
    }

    /// Returns the way to each destination. Of several paths it is the one that the kernel takes for
    /// packets of its own, as IPVS keeps one for a destination.
    pub async fn resolve(
        &self,
        destinations: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Found>, Error> {
        let routes = self.routes(destinations).await?;
        let found = || routes.values().filter_map(|route| route.as_ref().ok());
        let mut devices = self.devices(found().map(|route| route.device).collect()).await?;
        let below = devices.values().filter_map(Device::below).collect();
        devices.extend(self.devices(below).await?);
        let wanted: BTreeSet<Neighbour> = found().map(neighbour_of).collect();
        let neighbours = self.neighbours(&wanted).await?;
        Ok(routes
            .into_iter()
            .map(|(destination, route)| {
                (
                    destination,
                    route.map_or_else(Found::from, |route| way(&route, &devices, &neighbours)),
                )
            })
            .collect())
    }

    /// Has the kernel make sure of the neighbours, as if it had a packet for each; what comes of it
    /// is seen by [`Self::resolve`] some seconds later, and by the watch. A neighbour whose device is
    /// gone is skipped. All are tried; the first failure is returned.
    pub async fn confirm(&self, neighbours: &BTreeSet<Neighbour>) -> Result<(), Error> {
        let message = |neighbour: &Neighbour| {
            let message = neighbour::use_request(*neighbour);
            netlink::write(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE)
        };
        let operation = |neighbour: &Neighbour| Operation::Confirm(neighbour.addr);
        let mut first = Ok(());
        let visit = |neighbour: &Neighbour, answer: Result<(), Errno>| match answer {
            Ok(()) | Err(Errno::NODEV | Errno::NXIO) => {}
            Err(errno) if first.is_ok() => first = Err(Error::refused(operation(neighbour), errno)),
            Err(_) => {}
        };
        self.send(neighbours, message, operation, visit).await?;
        first
    }

    async fn routes(
        &self,
        destinations: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, Result<Route, Way>>, Error> {
        let message = |destination: &IpAddr| {
            netlink::read(RouteNetlinkMessage::GetRoute(route::request(*destination)))
        };
        let mut routes = BTreeMap::new();
        let refused = |destination: &IpAddr, answer: Result<(), Errno>| {
            let way = answer.map_or_else(route::refusal, |()| Way::Unusable(Unusable::NoRoute));
            routes.insert(*destination, Err(way));
        };
        let answers =
            self.send(destinations, message, |addr| Operation::Route(*addr), refused).await?;
        for answer in &answers {
            let RouteNetlinkMessage::NewRoute(message) = answer else { continue };
            if let Some(destination) = route::destination(message) {
                routes.insert(destination, route::read(message, destination));
            }
        }
        Ok(routes)
    }

    /// Returns those of the devices that are there.
    async fn devices(&self, indexes: BTreeSet<u32>) -> Result<BTreeMap<u32, Device>, Error> {
        let message =
            |index: &u32| netlink::read(RouteNetlinkMessage::GetLink(device::request(*index)));
        let operation = |index: &u32| Operation::Device(*index);
        let mut refused = Ok(());
        let visit = |index: &u32, answer: Result<(), Errno>| match answer {
            Ok(()) | Err(Errno::NODEV) => {}
            Err(errno) => refused = Err(Error::refused(operation(index), errno)),
        };
        let answers = self.send(&indexes, message, operation, visit).await?;
        refused?;
        let devices = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Device::read(link)),
            _ => None,
        });
        Ok(devices.map(|device| (device.index, device)).collect())
    }

    async fn neighbours(
        &self,
        wanted: &BTreeSet<Neighbour>,
    ) -> Result<BTreeMap<Neighbour, Held>, Error> {
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let request = netlink::dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
        let visit = |reply| {
            let RouteNetlinkMessage::NewNeighbour(message) = reply else { return };
            found.extend(neighbour::read(&message).filter(|(key, _)| wanted.contains(key)));
        };
        let operation = Operation::ListNeighbours;
        netlink::scan(&self.handle, request, visit)
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?
            .map_err(|errno| Error::refused(operation, errno))?;
        Ok(found)
    }

    /// Sends a message for each object, shows each answer to `visit`, and returns the messages that
    /// came back.
    async fn send<T: Copy>(
        &self,
        objects: &BTreeSet<T>,
        message: impl Fn(&T) -> NetlinkMessage<RouteNetlinkMessage>,
        operation: impl Fn(&T) -> Operation,
        mut visit: impl FnMut(&T, Result<(), Errno>),
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let objects: Vec<T> = objects.iter().copied().collect();
        let mut messages = Vec::new();
        for chunk in objects.chunks(REQUESTS_PER_SEND) {
            let Some(first) = chunk.first() else { continue };
            let replies = netlink::exchange(&self.handle, chunk.iter().map(&message).collect())
                .await
                .map_err(|cause| Error::Netlink { operation: operation(first), cause })?;
            for (object, answer) in chunk.iter().zip(replies.answers) {
                visit(object, answer);
            }
            messages.extend(replies.messages);
        }
        Ok(messages)
    }
}

fn neighbour_of(route: &Route) -> Neighbour {
    Neighbour { device: route.device, addr: route.neighbour }
}

fn way(
    route: &Route,
    devices: &BTreeMap<u32, Device>,
    neighbours: &BTreeMap<Neighbour, Held>,
) -> Found {
    let Some(device) = devices.get(&route.device) else {
        return Way::Unusable(Unusable::NoDevice(route.device)).into();
    };
    let below = device.below().and_then(|index| devices.get(&index));
    let exit = match device.exit(below) {
        Ok(exit) => exit,
        Err(reason) => return Way::Unusable(reason).into(),
    };
    let neighbour = neighbour_of(route);
    let held = neighbours.get(&neighbour).copied().unwrap_or_default();
    let own_mtu = device.mtu(route.source.is_ipv6());
    let way = held.mac.map_or(Way::Unresolved, |mac| {
        Way::Known(NextHop {
            interface: exit.interface,
            vlan: exit.vlan,
            mac,
            own_mac: device.mac,
            source: route.source,
            mtu: route.mtu.unwrap_or(own_mtu).min(device.mtu(false)),
        })
    });
    Found { way, unsure: (!held.sure).then_some(neighbour) }
}
