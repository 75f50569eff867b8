//! A destination of the hash plane as the BPF map has it.

use std::net::IpAddr;

use proxy_common::abi::{HashBackend, HashBackendFlags, HashMethod};

use crate::model::{Destination, Forwarding, NextHop, Tunnel, Way};

const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
/// Without options.
const GUE_HEADER: u32 = 4;
/// Without options.
const GRE_HEADER: u32 = 4;
/// IPVS sends nothing by a tunnel that leaves less: `__ip_vs_get_out_rt`.
const LEAST_MTU4: u32 = 68;
/// The same of IPv6, `IPV6_MIN_MTU`: `__ip_vs_get_out_rt_v6`.
const LEAST_MTU6: u32 = 1280;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Returns the entry of a destination that has this generation, and whose next hop holds until then,
/// in jiffies. Without a way that frames can take, all its packets are the kernel's; so they are
/// where IPVS would translate them.
///
/// The address family of a frontend is its destinations', but for tunnels, where the outer header
/// counts: it is the destination's in either case.
pub fn backend(way: &Way, destination: &Destination, generation: u32, until: u32) -> HashBackend {
    let addr = destination.key.addr;
    let mut backend = HashBackend {
        generation,
        flags: if destination.weight > 0 { HashBackendFlags::TAKES_NEW } else { 0 },
        method: method(destination.forwarding).unwrap_or_default(),
        family: if addr.is_ipv4() { 4 } else { 6 },
        port: match destination.forwarding {
            Forwarding::Tunnel(Tunnel::Gue { port }) => port,
            _ => 0,
        },
        ..HashBackend::default()
    };
    let Way::Known(hop) = way else { return backend };
    let Some(mtu) = mtu(hop.mtu, destination.forwarding, addr) else { return backend };
    if let Forwarding::Tunnel(_) = destination.forwarding {
        let Some(addrs) = outer(hop.source, addr) else { return backend };
        backend.addrs = addrs;
    }
    backend.flags |= HashBackendFlags::REACHABLE;
    backend.until = until;
    backend.interface = hop.interface;
    backend.mtu = mtu;
    backend.ethernet = ethernet(hop, addr);
    backend.vlan = hop.vlan;
    backend
}

/// `None` for what IPVS translates, or hands to this host.
fn method(forwarding: Forwarding) -> Option<u8> {
    match forwarding {
        Forwarding::Masq | Forwarding::Local => None,
        Forwarding::Route => Some(HashMethod::ROUTE),
        Forwarding::Tunnel(Tunnel::Ipip) => Some(HashMethod::IPIP),
        Forwarding::Tunnel(Tunnel::Gue { .. }) => Some(HashMethod::GUE),
        Forwarding::Tunnel(Tunnel::Gre) => Some(HashMethod::GRE),
    }
}

/// Returns what the route leaves for a client's packet. `None`: IPVS would send nothing.
fn mtu(of_route: u32, forwarding: Forwarding, outer: IpAddr) -> Option<u32> {
    let inner = match forwarding {
        Forwarding::Masq | Forwarding::Local => return None,
        Forwarding::Route => return Some(of_route),
        Forwarding::Tunnel(Tunnel::Ipip) => 0,
        Forwarding::Tunnel(Tunnel::Gue { .. }) => UDP_HEADER + GUE_HEADER,
        Forwarding::Tunnel(Tunnel::Gre) => GRE_HEADER,
    };
    let (header, least) = match outer {
        IpAddr::V4(_) => (IPV4_HEADER, LEAST_MTU4),
        IpAddr::V6(_) => (IPV6_HEADER, LEAST_MTU6),
    };
    of_route.checked_sub(header + inner).filter(|mtu| *mtu >= least)
}

/// Returns the addresses of the outer header. `None` when they are of different families.
fn outer(source: IpAddr, destination: IpAddr) -> Option<[u8; 32]> {
    let mut addrs = [0; 32];
    let mut fill = |bytes: &mut dyn Iterator<Item = u8>| {
        addrs.iter_mut().zip(bytes).for_each(|(at, byte)| *at = byte);
    };
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            fill(&mut source.octets().into_iter().chain(destination.octets()));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            fill(&mut source.octets().into_iter().chain(destination.octets()));
        }
        _ => return None,
    }
    Some(addrs)
}

fn ethernet(hop: &NextHop, destination: IpAddr) -> [u8; 14] {
    let ethertype = if destination.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    let mut header = [0; 14];
    let bytes = hop.mac.into_iter().chain(hop.own_mac).chain(ethertype);
    header.iter_mut().zip(bytes).for_each(|(at, byte)| *at = byte);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DestinationKey, Unusable};

    const GENERATION: u32 = 7;
    const UNTIL: u32 = 9000;
    const GUE: Forwarding = Forwarding::Tunnel(Tunnel::Gue { port: 6080 });
    const IPIP: Forwarding = Forwarding::Tunnel(Tunnel::Ipip);
    const GRE: Forwarding = Forwarding::Tunnel(Tunnel::Gre);

    fn hop(source: &str, mtu: u32) -> Way {
        Way::Known(NextHop {
            interface: 3,
            vlan: 0x2064,
            mac: [2, 0, 0, 0, 0, 9],
            own_mac: [2, 0, 0, 0, 0, 1],
            source: source.parse().unwrap(),
            mtu,
        })
    }

    fn to(addr: &str, forwarding: Forwarding, weight: u32) -> Destination {
        let key = DestinationKey { addr: addr.parse().unwrap(), port: 80 };
        Destination { limits: Default::default(), key, weight, forwarding }
    }

    fn entry(way: &Way, destination: Destination) -> HashBackend {
        backend(way, &destination, GENERATION, UNTIL)
    }

    #[test]
    fn by_direct_routing_a_frame_has_other_mac_addresses_only() {
        let expected = HashBackend {
            generation: GENERATION,
            flags: HashBackendFlags::TAKES_NEW | HashBackendFlags::REACHABLE,
            until: UNTIL,
            interface: 3,
            mtu: 1500,
            ethernet: [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 8, 0],
            vlan: 0x2064,
            method: HashMethod::ROUTE,
            family: 4,
            port: 0,
            addrs: [0; 32],
        };
        let found = entry(&hop("10.0.0.1", 1500), to("10.0.0.7", Forwarding::Route, 1));
        assert_eq!(found, expected);
        let found = entry(&hop("fd00::1", 1500), to("fd00::7", Forwarding::Route, 1));
        assert_eq!((found.family, found.ethernet[12..].to_vec()), (6, vec![0x86, 0xdd]));
    }

    #[test]
    fn a_tunnel_leaves_less_of_the_mtu_as_in_ipvs() {
        for (forwarding, method, port, of_ipv4, of_ipv6) in [
            (IPIP, HashMethod::IPIP, 0, 1480, 1460),
            (GUE, HashMethod::GUE, 6080, 1468, 1448),
            (GRE, HashMethod::GRE, 0, 1476, 1456),
        ] {
            let found = entry(&hop("10.0.0.1", 1500), to("10.0.0.7", forwarding, 1));
            assert_eq!(
                (found.method, found.port, found.family, found.mtu),
                (method, port, 4, of_ipv4)
            );
            assert_eq!(found.addrs[..8], [10, 0, 0, 1, 10, 0, 0, 7]);
            assert_eq!(found.addrs[8..], [0; 24]);
            let found = entry(&hop("fd00::1", 1500), to("fd00::7", forwarding, 1));
            assert_eq!((found.method, found.family, found.mtu), (method, 6, of_ipv6));
            assert_eq!((found.addrs[15], found.addrs[31]), (1, 7));
        }
    }

    #[test]
    fn where_ipvs_sends_nothing_by_a_tunnel_nothing_is_reachable() {
        for (source, addr, forwarding, least) in [
            ("10.0.0.1", "10.0.0.7", IPIP, 88),
            ("10.0.0.1", "10.0.0.7", GUE, 100),
            ("10.0.0.1", "10.0.0.7", GRE, 92),
            ("fd00::1", "fd00::7", IPIP, 1320),
            ("fd00::1", "fd00::7", GUE, 1332),
            ("fd00::1", "fd00::7", GRE, 1324),
            ("fd00::1", "10.0.0.7", IPIP, u32::MAX),
        ] {
            let reachable = |mtu| {
                let found = entry(&hop(source, mtu), to(addr, forwarding, 1));
                found.flags & HashBackendFlags::REACHABLE != 0
            };
            assert_eq!(reachable(least), least != u32::MAX, "{addr} by {forwarding}");
            assert!(!reachable(least - 1) && !reachable(0), "{addr} by {forwarding}");
        }
    }

    #[test]
    fn without_a_next_hop_all_is_the_kernels() {
        for way in [Way::Unresolved, Way::Local, Way::Unusable(Unusable::NoRoute)] {
            let found = entry(&way, to("10.0.0.7", GUE, 3));
            assert_eq!(
                (found.flags, found.until, found.interface, found.mtu, found.addrs),
                (HashBackendFlags::TAKES_NEW, 0, 0, 0, [0; 32])
            );
            assert_eq!((found.generation, found.method), (GENERATION, HashMethod::GUE));
        }
    }

    #[test]
    fn what_ipvs_translates_is_never_reachable() {
        for forwarding in [Forwarding::Masq, Forwarding::Local] {
            let found = entry(&hop("10.0.0.1", 1500), to("10.0.0.7", forwarding, 1));
            assert_eq!((found.flags, found.method), (HashBackendFlags::TAKES_NEW, 0));
        }
    }

    #[test]
    fn of_weight_0_it_keeps_its_flows_and_takes_no_new_ones() {
        let found = entry(&hop("10.0.0.1", 1500), to("10.0.0.7", Forwarding::Route, 0));
        assert_eq!(found.flags, HashBackendFlags::REACHABLE);
    }
}
