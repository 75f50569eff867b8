//! Routes to single destinations, as the kernel looks them up for packets of its own. No I/O.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
};
use rustix::io::Errno;

use crate::model::{Unusable, Way};

/// A way by a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Route {
    /// Index of the device.
    pub(super) device: u32,
    /// Whose MAC address is needed: the gateway, or the destination itself.
    pub(super) neighbour: IpAddr,
    /// Preferred source.
    pub(super) source: IpAddr,
    /// The route's own MTU: set on it, or learned from routers on the path.
    pub(super) mtu: Option<u32>,
}

/// Asks as `ip_route_output_key` and `ip6_route_output` do for IPVS: by the destination alone.
pub(super) fn request(destination: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    (message.header.address_family, message.header.destination_prefix_length) = match destination {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.attributes = vec![RouteAttribute::Destination(destination.into())];
    message
}

/// Returns the destination that was asked for.
pub(super) fn destination(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(found) => addr(found),
        _ => None,
    })
}

/// Reads the answer for the destination. The error is the way, where it needs no neighbour.
pub(super) fn read(message: &RouteMessage, destination: IpAddr) -> Result<Route, Way> {
    match message.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Way::Local),
        kind => return Err(Way::Unusable(Unusable::Kind(name(kind)))),
    }
    let (mut device, mut neighbour, mut source, mut mtu) = (None, destination, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::Gateway(gateway) => neighbour = addr(gateway).unwrap_or(neighbour),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => neighbour = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => neighbour = (*gateway).into(),
            RouteAttribute::PrefSource(found) => source = addr(found),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                return Err(Way::Unusable(Unusable::Encapsulated));
            }
            _ => {}
        }
    }
    // A route without a device or a source carries no packet.
    match (device, source) {
        (Some(device), Some(source)) => Ok(Route { device, neighbour, source, mtu }),
        _ => Err(Way::Unusable(Unusable::NoRoute)),
    }
}

/// Reads the error that stands for a route: `fib_props` of `net/ipv4/fib_semantics.c`, and
/// `fib6_prop` of `net/ipv6/route.c`.
pub(super) fn refusal(errno: Errno) -> Way {
    Way::Unusable(match errno {
        Errno::NETUNREACH => Unusable::NoRoute,
        Errno::INVAL => Unusable::Kind(name(RouteType::BlackHole)),
        Errno::HOSTUNREACH => Unusable::Kind(name(RouteType::Unreachable)),
        Errno::ACCESS => Unusable::Kind(name(RouteType::Prohibit)),
        errno => Unusable::Refused(errno.to_string()),
    })
}

fn addr(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

/// Names a type as `ip route` does.
fn name(kind: RouteType) -> &'static str {
    match kind {
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        _ => "of another type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESTINATION: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 0, 7));

    fn answer(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn by_device() -> Vec<RouteAttribute> {
        let source = IpAddr::from([10, 1, 0, 1]);
        vec![RouteAttribute::Oif(3), RouteAttribute::PrefSource(source.into())]
    }

    #[test]
    fn an_mtu_of_0_is_none_of_the_routes_own() {
        let mut attributes = by_device();
        let metrics = vec![RouteMetric::Window(9), RouteMetric::Mtu(0)];
        attributes.push(RouteAttribute::Metrics(metrics));
        let route = read(&answer(attributes), DESTINATION).unwrap();
        assert_eq!((route.device, route.neighbour, route.mtu), (3, DESTINATION, None));
    }

    #[test]
    fn without_a_device_or_a_source_there_is_no_route() {
        for kept in by_device() {
            let way = read(&answer(vec![kept]), DESTINATION).unwrap_err();
            assert_eq!(way, Way::Unusable(Unusable::NoRoute));
        }
    }

    #[test]
    fn an_error_that_stands_for_no_route_is_told() {
        let way = refusal(Errno::NOMEM);
        assert!(way.to_string().starts_with("no way: "), "{way}");
    }
}
