//! Next hops: where frames to a destination go, and who is asked about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use proxy_userspace::{
    kernel::next_hop::{Found, Neighbour, NextHops},
    model::{NextHop, Unusable, Way},
};

use crate::{
    Case,
    namespace::{Peer, sh},
    needs::Need,
};

/// How long the kernel may take to ask a neighbour, with the haste of [`HASTE`].
const PATIENCE: Duration = Duration::from_secs(60);
/// Neighbours go stale at once, and are asked without much delay.
const HASTE: &str = "for family in 4 6; do
        cd /proc/sys/net/ipv$family/neigh/pod1
        echo 500 > base_reachable_time_ms
        echo 1 > delay_first_probe_time
        echo 200 > retrans_time_ms
    done";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        &[Need::Root];
        a_neighbour_on_the_link_is_known_once_it_was_asked,
        behind_a_gateway_frames_go_to_its_mac_address,
        an_ipv6_gateway_of_the_link_serves_both_families,
        an_own_address_is_local,
        without_a_route_no_way_is_usable,
        a_route_by_a_bridge_is_unusable,
        a_route_that_wraps_packets_is_unusable,
        the_mtu_is_of_the_route_and_never_above_the_devices,
        the_source_is_the_one_that_the_route_prefers,
        of_two_paths_one_is_taken,
        a_stale_neighbour_is_used_and_asked_again,
        a_permanent_neighbour_is_not_asked_and_stays_so,
        a_new_mac_address_is_seen_after_the_neighbour_was_asked,
        a_neighbour_that_is_gone_is_unresolved_after_it_was_asked,
        a_neighbour_of_a_device_that_is_gone_is_not_asked,
        thousands_of_destinations_are_resolved_together,
    ];
    cases.extend(crate::cases![
        &[Need::Root, Need::Vlan];
        a_vlan_device_leads_to_the_one_below_it_and_its_tag,
        a_vlan_inside_another_is_unusable,
        a_vlan_of_a_bridge_is_unusable,
    ]);
    cases.extend(crate::cases![&[Need::Root, Need::Tunnel]; a_route_by_a_tunnel_is_unusable]);
    cases
}

/// A peer at 10.1.0.2 and fe80::2 behind pod1, which has 10.1.0.1 and fd00:1::1.
fn stage() -> anyhow::Result<(Peer, NextHops)> {
    let peer = Peer::join("pod1", "10.1.0.1", "10.1.0.2")?;
    peer.sh("ip addr add fe80::2/64 dev eth0 nodad; ip addr add fd00:1::2/64 dev eth0 nodad")?;
    sh("ip link set lo up; ip addr add fd00:1::1/64 dev pod1 nodad")?;
    Ok((peer, NextHops::open()?))
}

fn v4(addr: [u8; 4]) -> IpAddr {
    addr.into()
}

/// Returns index and MAC address of a device, as `ip -o link show` prints them.
fn shown(line: &str) -> anyhow::Result<(u32, [u8; 6])> {
    let index = line.split(':').next().context("no index")?.parse()?;
    let mut words = line.split_whitespace();
    words.by_ref().find(|word| *word == "link/ether").context("no Ethernet")?;
    let mac = words.next().context("no address")?.split(':');
    let mac: Vec<u8> = mac.map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    Ok((index, mac.try_into().ok().context("an address of another length")?))
}

fn own(device: &str) -> anyhow::Result<(u32, [u8; 6])> {
    shown(&sh(&format!("ip -o link show {device}"))?)
}

fn theirs(peer: &Peer) -> anyhow::Result<[u8; 6]> {
    Ok(shown(&peer.sh("ip -o link show eth0")?)?.1)
}

async fn look(hops: &NextHops, destination: IpAddr) -> anyhow::Result<Found> {
    let found = hops.resolve(&BTreeSet::from([destination])).await?;
    let [(key, found)] = <[_; 1]>::try_from(Vec::from_iter(found)).ok().context("not one way")?;
    ensure!(key == destination);
    Ok(found)
}

async fn way(hops: &NextHops, destination: &str) -> anyhow::Result<Way> {
    Ok(look(hops, destination.parse()?).await?.way)
}

/// Confirms what is unsure, until the way is as wanted.
async fn until(
    hops: &NextHops,
    destination: IpAddr,
    wanted: impl Fn(&Found) -> bool,
) -> anyhow::Result<Way> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = look(hops, destination).await?;
        if wanted(&found) {
            return Ok(found.way);
        }
        ensure!(Instant::now() < deadline, "gave up on {destination}: {found:?}");
        hops.confirm(&found.unsure.into_iter().collect()).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn known(hops: &NextHops, destination: &str) -> anyhow::Result<NextHop> {
    let way = until(hops, destination.parse()?, |found| matches!(found.way, Way::Known(_))).await?;
    let Way::Known(hop) = way else { bail!("{way}") };
    Ok(hop)
}

async fn a_neighbour_on_the_link_is_known_once_it_was_asked() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    let (interface, own_mac) = own("pod1")?;
    for (addr, source) in
        [(v4([10, 1, 0, 2]), v4([10, 1, 0, 1])), ("fd00:1::2".parse()?, "fd00:1::1".parse()?)]
    {
        let neighbour = Neighbour { device: interface, addr };
        let found = look(&hops, addr).await?;
        ensure!(found == Found { way: Way::Unresolved, unsure: Some(neighbour) }, "{found:?}");
        let sure = |found: &Found| matches!(found.way, Way::Known(_)) && found.unsure.is_none();
        let way = until(&hops, addr, sure).await?;
        let mac = theirs(&peer)?;
        let hop = NextHop { interface, vlan: 0, mac, own_mac, source, mtu: 1500 };
        ensure!(way == Way::Known(hop), "{way:?} is not {hop:?}");
    }
    Ok(())
}

async fn behind_a_gateway_frames_go_to_its_mac_address() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh("ip route add 10.9.0.0/16 via 10.1.0.2")?;
    let destination = v4([10, 9, 0, 7]);
    let gateway = Neighbour { device: own("pod1")?.0, addr: v4([10, 1, 0, 2]) };
    let found = look(&hops, destination).await?;
    ensure!(found == Found { way: Way::Unresolved, unsure: Some(gateway) }, "{found:?}");
    let hop = known(&hops, "10.9.0.7").await?;
    ensure!(hop.mac == theirs(&peer)? && hop.source == v4([10, 1, 0, 1]), "{hop:?}");
    Ok(())
}

async fn an_ipv6_gateway_of_the_link_serves_both_families() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh("ip -6 route add fd00:9::/64 via fe80::2 dev pod1
        ip route add 10.9.0.0/16 via inet6 fe80::2 dev pod1")?;
    let mac = theirs(&peer)?;
    let hop = known(&hops, "fd00:9::7").await?;
    ensure!(hop.mac == mac && hop.source == "fd00:1::1".parse::<IpAddr>()?, "{hop:?}");
    let hop = known(&hops, "10.9.0.7").await?;
    ensure!(hop.mac == mac && hop.source == v4([10, 1, 0, 1]), "{hop:?}");
    Ok(())
}

async fn a_vlan_device_leads_to_the_one_below_it_and_its_tag() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh("ip link add link pod1 name pod1.100 type vlan id 100
        ip link set pod1.100 address 02:00:00:00:01:00 mtu 1480
        ip addr add 10.2.0.1/24 dev pod1.100; ip link set pod1.100 up
        ip link add link pod1 name pod1.101 type vlan id 101 egress-qos-map 0:3
        ip addr add 10.3.0.1/24 dev pod1.101; ip link set pod1.101 up")?;
    peer.sh("for vlan in 100 101; do
            ip link add link eth0 name eth0.$vlan type vlan id $vlan
            ip link set eth0.$vlan up
        done
        ip addr add 10.2.0.2/24 dev eth0.100; ip addr add 10.3.0.2/24 dev eth0.101")?;
    let hop = known(&hops, "10.2.0.2").await?;
    let expected = NextHop {
        interface: own("pod1")?.0,
        vlan: 100,
        mac: theirs(&peer)?,
        own_mac: [2, 0, 0, 0, 1, 0],
        source: v4([10, 2, 0, 1]),
        mtu: 1480,
    };
    ensure!(hop == expected, "{hop:?}");
    let hop = known(&hops, "10.3.0.2").await?;
    ensure!(hop.vlan == 3 << 13 | 101, "{hop:?}");
    Ok(())
}

async fn a_vlan_inside_another_is_unusable() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip link add link pod1 name outer type vlan id 100
        ip link add link outer name inner type vlan id 7
        ip link add link pod1 name service type vlan protocol 802.1ad id 9
        ip link set outer up; ip link set inner up; ip link set service up
        ip addr add 10.2.0.1/24 dev inner; ip addr add 10.3.0.1/24 dev service")?;
    for (destination, name) in [("10.2.0.2", "inner"), ("10.3.0.2", "service")] {
        let way = way(&hops, destination).await?;
        ensure!(way == Way::Unusable(Unusable::NestedVlan(name.to_owned())), "{way:?}");
    }
    Ok(())
}

async fn an_own_address_is_local() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip route add local 10.96.0.1 dev lo table local")?;
    for destination in ["10.1.0.1", "127.0.0.1", "10.96.0.1", "fd00:1::1"] {
        let found = look(&hops, destination.parse()?).await?;
        ensure!(found == Way::Local.into(), "{destination}: {found:?}");
    }
    Ok(())
}

async fn without_a_route_no_way_is_usable() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("for kind in blackhole unreachable prohibit; do
            host=${#kind}
            ip route add $kind 10.9.0.$host; ip -6 route add $kind fd00:9::$host
        done")?;
    for (destination, text) in [
        ("10.8.0.1", "no route"),
        ("fd00:8::1", "no route"),
        ("10.9.0.9", "route is blackhole"),
        ("fd00:9::9", "route is blackhole"),
        ("10.9.0.11", "route is unreachable"),
        ("fd00:9::11", "route is unreachable"),
        ("10.9.0.8", "route is prohibit"),
        ("fd00:9::8", "route is prohibit"),
        ("10.1.0.255", "route is broadcast"),
        ("224.0.0.9", "no route"),
    ] {
        let way = way(&hops, destination).await?;
        ensure!(matches!(way, Way::Unusable(_)), "{destination}: {way:?}");
        ensure!(way.to_string() == text, "{destination}: {way}");
    }
    Ok(())
}

async fn a_route_by_a_bridge_is_unusable() -> anyhow::Result<()> {
    let hops = NextHops::open()?;
    sh("ip link add br0 type bridge; ip addr add 10.2.0.1/24 dev br0; ip link set br0 up")?;
    let way = way(&hops, "10.2.0.2").await?;
    ensure!(way.to_string() == "route by br0, a bridge device", "{way:?}");
    Ok(())
}

async fn a_vlan_of_a_bridge_is_unusable() -> anyhow::Result<()> {
    let hops = NextHops::open()?;
    sh("ip link add br0 type bridge; ip link set br0 up
        ip link add link br0 name br0.7 type vlan id 7; ip link set br0.7 up
        ip addr add 10.3.0.1/24 dev br0.7")?;
    let way = way(&hops, "10.3.0.2").await?;
    ensure!(way.to_string() == "route by br0, a bridge device", "{way:?}");
    Ok(())
}

async fn a_route_by_a_tunnel_is_unusable() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip link add tunnel type ipip local 10.1.0.1 remote 10.1.0.2
        ip link set tunnel up; ip route add 10.9.0.0/16 dev tunnel")?;
    let way = way(&hops, "10.9.0.7").await?;
    ensure!(way.to_string() == "route by tunnel, a ipip device", "{way}");
    Ok(())
}

async fn a_route_that_wraps_packets_is_unusable() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip route add 10.9.0.0/16 encap ip id 7 dst 10.1.0.2 via 10.1.0.2 dev pod1")?;
    let way = way(&hops, "10.9.0.7").await?;
    ensure!(way == Way::Unusable(Unusable::Encapsulated), "{way:?}");
    Ok(())
}

async fn the_mtu_is_of_the_route_and_never_above_the_devices() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip route add 10.9.0.0/16 via 10.1.0.2 mtu 1400
        ip -6 route add fd00:9::/64 via fe80::2 dev pod1 mtu 1390")?;
    for (destination, mtu) in [("10.1.0.2", 1500), ("10.9.0.7", 1400), ("fd00:9::7", 1390)] {
        let hop = known(&hops, destination).await?;
        ensure!(hop.mtu == mtu, "{destination}: {hop:?}");
    }
    sh("ip link set pod1 mtu 1380")?;
    for destination in ["10.1.0.2", "10.9.0.7"] {
        let hop = known(&hops, destination).await?;
        ensure!(hop.mtu == 1380, "{destination}: {hop:?}");
    }
    // As announced by a router.
    sh("echo 1300 > /proc/sys/net/ipv6/conf/pod1/mtu")?;
    let hop = known(&hops, "fd00:1::2").await?;
    ensure!(hop.mtu == 1300, "{hop:?}");
    Ok(())
}

async fn the_source_is_the_one_that_the_route_prefers() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip addr add 10.1.0.77/32 dev pod1; ip addr add fd00:1::77/128 dev pod1 nodad
        ip route add 10.9.0.0/16 via 10.1.0.2 src 10.1.0.77
        ip -6 route add fd00:9::/64 via fe80::2 dev pod1 src fd00:1::77")?;
    for (destination, source) in [("10.9.0.7", "10.1.0.77"), ("fd00:9::7", "fd00:1::77")] {
        let hop = known(&hops, destination).await?;
        ensure!(hop.source == source.parse::<IpAddr>()?, "{hop:?}");
    }
    Ok(())
}

async fn of_two_paths_one_is_taken() -> anyhow::Result<()> {
    let (first, hops) = stage()?;
    let second = Peer::join("pod2", "10.2.0.1", "10.2.0.2")?;
    sh("ip route add 10.9.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2")?;
    let paths =
        BTreeMap::from([(own("pod1")?.0, theirs(&first)?), (own("pod2")?.0, theirs(&second)?)]);
    let hop = known(&hops, "10.9.0.7").await?;
    ensure!(paths.get(&hop.interface) == Some(&hop.mac), "{hop:?} of {paths:?}");
    Ok(())
}

async fn a_stale_neighbour_is_used_and_asked_again() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    let (addr, mac) = (v4([10, 1, 0, 2]), theirs(&peer)?);
    known(&hops, "10.1.0.2").await?;
    sh("ip neigh change 10.1.0.2 dev pod1 nud stale")?;
    let found = look(&hops, addr).await?;
    let neighbour = Neighbour { device: own("pod1")?.0, addr };
    ensure!(matches!(found.way, Way::Known(hop) if hop.mac == mac), "{found:?}");
    ensure!(found.unsure == Some(neighbour), "{found:?}");
    until(&hops, addr, |found| found.unsure.is_none()).await?;
    let shown = sh("ip neigh show 10.1.0.2 dev pod1")?;
    ensure!(shown.contains("REACHABLE"), "{shown}");
    Ok(())
}

async fn a_permanent_neighbour_is_not_asked_and_stays_so() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    sh("ip neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev pod1 nud permanent")?;
    let way = until(&hops, v4([10, 1, 0, 9]), |found| found.unsure.is_none()).await?;
    ensure!(matches!(way, Way::Known(hop) if hop.mac == [2, 0, 0, 0, 0, 9]), "{way:?}");
    ensure!(sh("ip neigh show 10.1.0.9 dev pod1")?.contains("PERMANENT"));
    Ok(())
}

async fn a_new_mac_address_is_seen_after_the_neighbour_was_asked() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh(HASTE)?;
    for (addr, mac) in [("10.1.0.2", [2, 0, 0, 0, 7, 4]), ("fd00:1::2", [2, 0, 0, 0, 7, 6])] {
        known(&hops, addr).await?;
        peer.sh(&format!("ip link set eth0 address 02:00:00:00:07:{:02x}", mac[5]))?;
        let moved = |found: &Found| matches!(found.way, Way::Known(hop) if hop.mac == mac);
        until(&hops, addr.parse()?, moved).await?;
    }
    Ok(())
}

async fn a_neighbour_that_is_gone_is_unresolved_after_it_was_asked() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh(HASTE)?;
    for addr in ["10.1.0.2", "fd00:1::2"] {
        known(&hops, addr).await?;
        peer.sh(&format!("ip addr flush dev eth0 to {addr}"))?;
        until(&hops, addr.parse()?, |found| found.way == Way::Unresolved).await?;
    }
    Ok(())
}

async fn a_neighbour_of_a_device_that_is_gone_is_not_asked() -> anyhow::Result<()> {
    let (_peer, hops) = stage()?;
    let device = own("pod1")?.0;
    let neighbour = |device, addr: &str| anyhow::Ok(Neighbour { device, addr: addr.parse()? });
    let [old, new] = [(device, "10.1.0.2"), (4000, "10.1.0.2")];
    hops.confirm(&BTreeSet::from([neighbour(old.0, old.1)?, neighbour(new.0, new.1)?])).await?;
    sh("ip link delete pod1")?;
    hops.confirm(&BTreeSet::from([neighbour(device, "fe80::2")?])).await?;
    let way = way(&hops, "10.1.0.2").await?;
    ensure!(way == Way::Unusable(Unusable::NoRoute), "{way:?}");
    Ok(())
}

async fn thousands_of_destinations_are_resolved_together() -> anyhow::Result<()> {
    let (peer, hops) = stage()?;
    sh("ip route add 10.9.0.0/16 via 10.1.0.2; ip route add blackhole 10.9.1.0/24")?;
    known(&hops, "10.9.0.0").await?;
    let destinations: BTreeSet<IpAddr> =
        (0..5000u32).map(|n| Ipv4Addr::from(0x0a09_0000 + n).into()).collect();
    let found = hops.resolve(&destinations).await?;
    ensure!(found.keys().eq(&destinations));
    let mac = theirs(&peer)?;
    for (destination, found) in found {
        let swallowed = matches!(destination, IpAddr::V4(addr) if addr.octets()[2] == 1);
        let right = match found.way {
            Way::Known(hop) => hop.mac == mac && !swallowed,
            way => way == Way::Unusable(Unusable::Kind("blackhole")) && swallowed,
        };
        ensure!(right, "{destination} is not right");
    }
    Ok(())
}
