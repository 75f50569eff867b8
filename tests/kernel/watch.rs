//! Changes are reported, and flapping is not.

use std::{
    net::{IpAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, ensure};
use proxy_userspace::kernel::{
    link::{Event, Links, Watch},
    route::Routes,
    tc,
};

use crate::{
    Case,
    namespace::{Peer, sh, vip_device, wait_for},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root];
        a_new_and_a_deleted_link_are_reported,
        a_port_that_leaves_its_bridge_is_not_gone,
        an_address_is_reported_when_it_comes_and_goes_but_not_when_renewed,
        routes_of_the_agent_are_not_reported,
        a_rule_is_reported_as_a_change_of_routes,
        queueing_filters_and_next_hops_are_reported_by_kind,
        a_neighbour_is_reported_when_its_address_changes,
        a_stalled_reader_is_told_of_the_overrun,
    ]
}

/// Collects events until the marker link has appeared: everything before it has been seen then.
async fn events(watch: &mut Watch) -> anyhow::Result<Vec<Event>> {
    sh("ip link add marker type veth peer name marker1")?;
    let index = Links::open()?.index_of("marker").await?.context("no marker")?;
    let mut events = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await?;
        let event = event.context("the watch ended")?;
        if event == Event::LinkChanged(index) {
            break;
        }
        events.push(event);
    }
    sh("ip link delete marker")?;
    while watch.next().await.context("the watch ended")? != Event::LinkGone(index) {}
    Ok(events)
}

async fn a_new_and_a_deleted_link_are_reported() -> anyhow::Result<()> {
    let mut watch = Watch::open("kube-ipvs0").await?;
    sh("ip link add v0 type veth peer name v1")?;
    let index = Links::open()?.index_of("v0").await?.context("no v0")?;
    ensure!(events(&mut watch).await?.contains(&Event::LinkChanged(index)));
    sh("ip link delete v0")?;
    ensure!(events(&mut watch).await?.contains(&Event::LinkGone(index)));
    Ok(())
}

async fn a_port_that_leaves_its_bridge_is_not_gone() -> anyhow::Result<()> {
    sh("ip link add br0 type bridge; ip link add v0 type veth peer name v1
        ip link set v0 master br0")?;
    let index = Links::open()?.index_of("v0").await?.context("no v0")?;
    let mut watch = Watch::open("kube-ipvs0").await?;
    sh("ip link set v0 nomaster")?;
    let events = events(&mut watch).await?;
    ensure!(events.contains(&Event::LinkChanged(index)), "{events:?}");
    ensure!(!events.contains(&Event::LinkGone(index)), "{events:?}");
    Ok(())
}

async fn an_address_is_reported_when_it_comes_and_goes_but_not_when_renewed() -> anyhow::Result<()>
{
    sh("ip link set lo up")?;
    let mut watch = Watch::open("kube-ipvs0").await?;
    let count = |events: Vec<Event>| {
        events.into_iter().filter(|event| *event == Event::AddressChanged).count()
    };
    sh("ip addr add fd00::7/128 dev lo valid_lft 100 preferred_lft 100")?;
    ensure!(count(events(&mut watch).await?) == 1);
    sh("ip addr change fd00::7/128 dev lo valid_lft 200 preferred_lft 200")?;
    ensure!(count(events(&mut watch).await?) == 0);
    sh("ip addr del fd00::7/128 dev lo")?;
    ensure!(count(events(&mut watch).await?) == 1);
    Ok(())
}

async fn routes_of_the_agent_are_not_reported() -> anyhow::Result<()> {
    let index = vip_device().await?;
    let mut watch = Watch::open("kube-ipvs0").await?;
    let routes = Routes::open()?;
    let vips: Vec<IpAddr> = (1..=250).map(|last| [10, 96, 0, last].into()).collect();
    routes.put_vips(index, &vips).await?;
    routes.remove_vips(index, &vips).await?;
    sh("ip route add 10.7.0.0/16 dev kube-ipvs0")?;
    let seen = events(&mut watch).await?;
    ensure!(!seen.contains(&Event::RouteChanged), "{seen:?}");
    sh("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up
        ip route add 10.8.0.0/16 dev v0")?;
    ensure!(events(&mut watch).await?.contains(&Event::RouteChanged));
    Ok(())
}

async fn a_rule_is_reported_as_a_change_of_routes() -> anyhow::Result<()> {
    let mut watch = Watch::open("kube-ipvs0").await?;
    for rule in ["ip rule add pref 7 to 10.9.0.0/16 blackhole", "ip rule del pref 7"] {
        sh(rule)?;
        ensure!(events(&mut watch).await?.contains(&Event::RouteChanged), "{rule}");
    }
    Ok(())
}

async fn queueing_filters_and_next_hops_are_reported_by_kind() -> anyhow::Result<()> {
    sh("ip link set lo up
        ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up")?;
    let mut watch = tc::Watch::open()?;
    let filter = "bpf da bytecode '1,6 0 0 4294967295,'";
    for (command, expected) in [
        ("tc qdisc add dev v0 root pfifo".to_owned(), tc::Change::Queueing),
        ("tc qdisc add dev v0 clsact".to_owned(), tc::Change::Queueing),
        (format!("tc filter add dev v0 ingress {filter}"), tc::Change::Queueing),
        ("ip nexthop add id 7 blackhole".to_owned(), tc::Change::NextHop),
        ("ip nexthop del id 7".to_owned(), tc::Change::NextHop),
        ("tc qdisc del dev v0 clsact".to_owned(), tc::Change::Queueing),
    ] {
        sh(&command)?;
        let change = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
        let change = change.with_context(|| format!("nobody told of `{command}`"))?;
        ensure!(change == Some(expected), "{command}: {change:?}");
        // Several messages of one command may be told apart.
        while tokio::time::timeout(Duration::from_millis(100), watch.next()).await.is_ok() {}
    }
    Ok(())
}

/// Makes the kernel ask for the neighbour's address, and waits for the answer.
fn resolve(addr: &str) -> anyhow::Result<()> {
    UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", (addr, 9))?;
    wait_for("the neighbour", || Ok(sh("ip neigh show nud reachable")?.contains(addr)))
}

async fn a_neighbour_is_reported_when_its_address_changes() -> anyhow::Result<()> {
    let peer = Peer::join("pod1", "10.1.0.1", "10.1.0.2")?;
    peer.sh("ip link set eth0 address 02:00:00:00:00:01")?;
    resolve("10.1.0.2")?;
    let index = Links::open()?.index_of("pod1").await?.context("no pod1")?;
    let mut watch = Watch::open("kube-ipvs0").await?;
    let neighbour = |events: Vec<Event>| -> Vec<Option<[u8; 6]>> {
        let of_peer = |event| match event {
            Event::NeighbourChanged { index: i, addr, mac }
                if i == index && addr == IpAddr::from([10, 1, 0, 2]) =>
            {
                Some(mac)
            }
            _ => None,
        };
        events.into_iter().filter_map(of_peer).collect()
    };
    sh("ip neigh change 10.1.0.2 dev pod1 nud stale
        ip neigh change 10.1.0.2 dev pod1 nud reachable")?;
    ensure!(neighbour(events(&mut watch).await?).is_empty());
    sh("ip neigh change 10.1.0.2 dev pod1 lladdr 02:00:00:00:00:02 nud reachable")?;
    ensure!(neighbour(events(&mut watch).await?) == [Some([2, 0, 0, 0, 0, 2])]);
    sh("ip neigh del 10.1.0.2 dev pod1")?;
    // Whoever still talks to it may bring it back, or the kernel say twice that it is gone.
    let told = neighbour(events(&mut watch).await?);
    ensure!(told.first() == Some(&None), "{told:?}");
    Ok(())
}

async fn a_stalled_reader_is_told_of_the_overrun() -> anyhow::Result<()> {
    sh("ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up")?;
    let mut watch = Watch::open("kube-ipvs0").await?;
    let routes: String =
        (0..3000).map(|n| format!("route add 10.{}.{}.0/24 dev v0\n", n / 250, n % 250)).collect();
    sh(&format!("ip -batch - <<END\n{routes}END"))?;
    let mut events = 0;
    loop {
        match tokio::time::timeout(Duration::from_secs(10), watch.next()).await? {
            Some(Event::Overrun) => break,
            Some(_) => events += 1,
            None => anyhow::bail!("the watch ended after {events} events"),
        }
        // More changes make room for the notice.
        if events % 100 == 0 {
            sh("ip route add 10.99.0.0/24 dev v0; ip route del 10.99.0.0/24 dev v0")?;
        }
    }
    Ok(())
}
