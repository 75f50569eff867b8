//! Where frames to a destination go: what the kernel's routes and neighbours say of it.

use std::{fmt, net::IpAddr};

/// The next hop of a destination, as a frame needs it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NextHop {
    /// Index of the interface that a frame leaves by: of a VLAN device the one below it.
    pub interface: u32,
    /// VLAN tag, id and priority; 0 for none.
    pub vlan: u16,
    /// MAC address of the next hop.
    pub mac: [u8; 6],
    /// MAC address of the route's device.
    pub own_mac: [u8; 6],
    /// Source address that the route prefers, of the destination's family.
    pub source: IpAddr,
    /// Bytes of the largest packet, from its IP header on: the route's MTU, and never more than the
    /// device's.
    pub mtu: u32,
}

/// The way to a destination.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Way {
    /// Frames can be sent.
    Known(NextHop),
    /// There is a route; the MAC address of the next hop is not known, or not yet.
    Unresolved,
    /// The destination is this host.
    Local,
    /// No frame can be sent there without the kernel.
    Unusable(Unusable),
}

/// Why a way is of no use to who sends frames himself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unusable {
    /// No route.
    NoRoute,
    /// The route is a `blackhole`, `prohibit`, `unreachable`, `throw`, `broadcast`, ...: its type.
    Kind(&'static str),
    /// The kernel does not route to it: its error.
    Refused(String),
    /// The route wraps packets: MPLS, SRv6, a tunnel of its own.
    Encapsulated,
    /// The device of the route is not one that frames are put on: its name, and its kind.
    Device(String, String),
    /// The device of the route is gone, or below it is one of another network namespace: its index.
    NoDevice(u32),
    /// XDP does not run on the interface that frames would leave by: its index.
    NotServed(u32),
    /// The device of the route is a VLAN of 802.1ad, or one inside another: its name.
    NestedVlan(String),
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(hop) => hop.fmt(f),
            Self::Unresolved => f.write_str("next hop does not answer"),
            Self::Local => f.write_str("on this host"),
            Self::Unusable(reason) => reason.fmt(f),
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.mac;
        write!(
            f,
            "interface {} to {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}",
            self.interface
        )?;
        match self.vlan & 0xfff {
            0 => {}
            vlan => write!(f, " vlan {vlan}")?,
        }
        write!(f, " mtu {}", self.mtu)
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoute => f.write_str("no route"),
            Self::Kind(kind) => write!(f, "route is {kind}"),
            Self::Refused(error) => write!(f, "no way: {error}"),
            Self::Encapsulated => f.write_str("route wraps packets"),
            Self::Device(name, kind) => write!(f, "route by {name}, a {kind} device"),
            Self::NoDevice(index) => write!(f, "device {index} of the route is not here"),
            Self::NotServed(index) => {
                write!(f, "route by interface {index}, where the hash plane does not run")
            }
            Self::NestedVlan(name) => write!(f, "route by {name}, a VLAN inside another"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_told_in_a_few_words() {
        let mut hop = NextHop {
            interface: 3,
            vlan: 0,
            mac: [2, 0, 0, 0, 0, 0xab],
            own_mac: [2, 0, 0, 0, 0, 1],
            source: [10, 0, 0, 1].into(),
            mtu: 1500,
        };
        assert_eq!(Way::Known(hop).to_string(), "interface 3 to 02:00:00:00:00:ab mtu 1500");
        hop.vlan = 0x2064;
        assert_eq!(
            Way::Known(hop).to_string(),
            "interface 3 to 02:00:00:00:00:ab vlan 100 mtu 1500"
        );
        let unusable = |reason| Way::Unusable(reason).to_string();
        assert_eq!(Way::Unresolved.to_string(), "next hop does not answer");
        assert_eq!(Way::Local.to_string(), "on this host");
        assert_eq!(unusable(Unusable::NoRoute), "no route");
        assert_eq!(unusable(Unusable::Kind("blackhole")), "route is blackhole");
        assert_eq!(
            unusable(Unusable::Device("wg0".into(), "wireguard".into())),
            "route by wg0, a wireguard device"
        );
    }
}
