//! VIPs as local routes: `local VIP dev kube-ipvs0 table local proto 112 scope host`.
//!
//! ip_vs serves a packet only when its destination is local. An address on the device would do,
//! but costs the kernel a walk over all addresses of the device for each: 30,000 take minutes, as
//! many routes less than a second.

mod error;

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_ROUTE};
use rustix::io::Errno;

pub use error::{Error, Hint, Operation};

use super::netlink::{self, REQUESTS_PER_SEND};

/// Marks our routes (`rtm_protocol`): routes of other protocols are never touched.
pub const ROUTE_PROTOCOL: u8 = 112;
/// Metric of the routes that stand in for others: the kernel prefers those without one.
const SPARE_METRIC: u32 = 112;
/// `RT_TABLE_LOCAL`: the table whose routes make an address local.
const TABLE_LOCAL: u8 = 255;

/// A connection to the routes of one network namespace: that of the thread that opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct Routes {
    handle: ConnectionHandle<RouteNetlinkMessage>,
}

impl Routes {
    /// Connects. Must be called within a tokio runtime, which runs the connection until the last
    /// clone is dropped.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { handle: netlink::open(NETLINK_ROUTE).map_err(Error::Open)? })
    }

    /// Returns the VIPs whose routes point to the device with this index.
    pub async fn vips(&self, device: u32) -> Result<BTreeSet<IpAddr>, Error> {
        let mut vips = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let operation = Operation::List;
            let replies =
                netlink::ask(&self.handle, netlink::dump(RouteNetlinkMessage::GetRoute(request)))
                    .await
                    .map_err(|cause| Error::Netlink { operation, cause })?
                    .map_err(|errno| Error::refused(operation, errno))?;
            vips.extend(replies.iter().filter_map(|reply| match reply {
                RouteNetlinkMessage::NewRoute(route) => vip(route, device),
                _ => None,
            }));
        }
        Ok(vips)
    }

    /// Makes the addresses local by routes to the device, which must be up. Stops at the first
    /// failure; what was put before it stays.
    pub async fn put_vips(&self, device: u32, vips: &[IpAddr]) -> Result<(), Error> {
        let message = |vip: &IpAddr| {
            let message = RouteNetlinkMessage::NewRoute(route(device, *vip));
            netlink::write(message, NLM_F_CREATE | NLM_F_REPLACE)
        };
        // An IPv6 replace of an equal route says EEXIST (`fib6_add_rt2node`).
        self.send(vips, message, Operation::Put, Errno::EXIST).await
    }

    /// Makes the addresses local by the loopback device as well, for as long as the routes of the
    /// other one come and go.
    pub async fn put_spares(&self, loopback: u32, vips: &[IpAddr]) -> Result<(), Error> {
        let message = |vip: &IpAddr| {
            let message = RouteNetlinkMessage::NewRoute(spare(loopback, *vip));
            netlink::write(message, NLM_F_CREATE | NLM_F_REPLACE)
        };
        self.send(vips, message, Operation::Put, Errno::EXIST).await
    }

    /// Removes what [`Self::put_spares`] put, by this process or one that ended before it could.
    pub async fn remove_spares(&self, loopback: u32) -> Result<(), Error> {
        let left: Vec<IpAddr> = self.vips(loopback).await?.into_iter().collect();
        let message =
            |vip: &IpAddr| netlink::write(RouteNetlinkMessage::DelRoute(spare(loopback, *vip)), 0);
        self.send(&left, message, Operation::Remove, Errno::SRCH).await
    }

    /// Removes the routes of the addresses. Removing the absent succeeds, also when the device is
    /// gone with all its routes. Stops at the first failure.
    pub async fn remove_vips(&self, device: u32, vips: &[IpAddr]) -> Result<(), Error> {
        let message =
            |vip: &IpAddr| netlink::write(RouteNetlinkMessage::DelRoute(route(device, *vip)), 0);
        self.send(vips, message, Operation::Remove, Errno::SRCH).await
    }

    async fn send(
        &self,
        vips: &[IpAddr],
        message: impl Fn(&IpAddr) -> netlink_packet_core::NetlinkMessage<RouteNetlinkMessage>,
        operation: fn(IpAddr) -> Operation,
        harmless: Errno,
    ) -> Result<(), Error> {
        for chunk in vips.chunks(REQUESTS_PER_SEND) {
            let Some(first) = chunk.first() else { continue };
            let replies = netlink::exchange(&self.handle, chunk.iter().map(&message).collect())
                .await
                .map_err(|cause| Error::Netlink { operation: operation(*first), cause })?;
            for (vip, answer) in chunk.iter().zip(replies.answers) {
                match answer {
                    Ok(()) => {}
                    Err(errno) if errno == harmless => {}
                    Err(errno) => return Err(Error::refused(operation(*vip), errno)),
                }
            }
        }
        Ok(())
    }
}

fn route(device: u32, vip: IpAddr) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: match vip {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        },
        destination_prefix_length: host_prefix(vip),
        table: TABLE_LOCAL,
        protocol: RouteProtocol::Other(ROUTE_PROTOCOL),
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![RouteAttribute::Destination(vip.into()), RouteAttribute::Oif(device)];
    route
}

fn spare(loopback: u32, vip: IpAddr) -> RouteMessage {
    let mut route = route(loopback, vip);
    route.attributes.push(RouteAttribute::Priority(SPARE_METRIC));
    route
}

fn host_prefix(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn vip(route: &RouteMessage, device: u32) -> Option<IpAddr> {
    let header = &route.header;
    let ours = header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
        && header.table == TABLE_LOCAL
        && header.kind == RouteType::Local
        && route.attributes.contains(&RouteAttribute::Oif(device));
    let addr = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(addr)) => Some(IpAddr::V4(*addr)),
        RouteAttribute::Destination(RouteAddress::Inet6(addr)) => Some(IpAddr::V6(*addr)),
        _ => None,
    })?;
    (ours && header.destination_prefix_length == host_prefix(addr)).then_some(addr)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_route_of_a_vip_is_recognised_on_its_device_only(addr: IpAddr, device in 2..99u32) {
            let route = route(device, addr);
            prop_assert_eq!(vip(&route, device), Some(addr));
            prop_assert_eq!(vip(&route, device - 1), None);
        }
    }

    #[test]
    fn a_route_of_another_protocol_is_not_ours() {
        let mut route = route(3, [10, 96, 0, 1].into());
        route.header.protocol = RouteProtocol::Kernel;
        assert_eq!(vip(&route, 3), None);
    }
}
