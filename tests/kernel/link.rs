//! Interfaces and the dummy device.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use proxy_userspace::{
    kernel::link::{Error, Links},
    model::interface::{Interface, InterfaceKind},
};

use crate::{
    Case,
    namespace::{Peer, sh},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        &[Need::Root];
        a_veth_with_its_peer_elsewhere_is_described,
        a_bridge_port_names_its_master,
        the_loopback_is_no_ethernet,
        a_queueing_discipline_is_named,
        a_device_of_another_kind_is_refused_and_left_alone,
    ];
    cases.extend(crate::cases![
        &[Need::Root, Need::Dummy];
        the_dummy_device_is_created_once_and_removed_twice,
        a_dummy_device_that_is_down_is_brought_up,
    ]);
    cases
}

async fn interface(name: &str) -> anyhow::Result<Interface> {
    let interfaces = Links::open()?.interfaces().await?;
    interfaces.into_iter().find(|interface| interface.name == name).context("no such interface")
}

async fn a_veth_with_its_peer_elsewhere_is_described() -> anyhow::Result<()> {
    let _peer = Peer::join("pod1", "10.1.0.1", "10.1.0.2")?;
    sh("ip link set pod1 mtu 1400 address 02:00:00:00:00:07; ip addr add 10.1.9.1/32 dev pod1")?;
    let mut pod = interface("pod1").await?;
    // The kernel gives it an address of its own in its own time.
    pod.addrs.retain(IpAddr::is_ipv4);
    ensure!(
        pod == Interface {
            index: sh("ip -o link show pod1")?.split(':').next().context("no index")?.parse()?,
            name: "pod1".to_owned(),
            kind: InterfaceKind::Veth,
            up: true,
            mtu: 1400,
            ethernet: true,
            mac: [2, 0, 0, 0, 0, 7],
            master: None,
            lower: None,
            peer_elsewhere: true,
            qdisc: "noqueue".to_owned(),
            xdp_program: None,
            vlan: None,
            addrs: vec![[10, 1, 0, 1].into(), [10, 1, 9, 1].into()],
        },
        "{pod:?}"
    );
    Ok(())
}

async fn a_bridge_port_names_its_master() -> anyhow::Result<()> {
    sh("ip link add br0 type bridge
        ip link add v0 type veth peer name v1
        ip link set v0 master br0")?;
    let (bridge, port, other) =
        (interface("br0").await?, interface("v0").await?, interface("v1").await?);
    ensure!(bridge.kind == InterfaceKind::Other("bridge".to_owned()));
    ensure!(port.master == Some(bridge.index) && other.master.is_none());
    ensure!(!port.peer_elsewhere && !port.up);
    Ok(())
}

async fn the_loopback_is_no_ethernet() -> anyhow::Result<()> {
    let lo = interface("lo").await?;
    ensure!(lo.kind == InterfaceKind::Loopback && !lo.ethernet && lo.mac == [0; 6], "{lo:?}");
    Ok(())
}

async fn a_queueing_discipline_is_named() -> anyhow::Result<()> {
    sh("ip link add v0 type veth peer name v1
        tc qdisc add dev v0 root pfifo limit 7
        ip link set v0 up")?;
    ensure!(interface("v0").await?.qdisc == "pfifo");
    Ok(())
}

async fn the_dummy_device_is_created_once_and_removed_twice() -> anyhow::Result<()> {
    let links = Links::open()?;
    let first = links.put_dummy("kube-ipvs0").await?;
    let second = links.put_dummy("kube-ipvs0").await?;
    ensure!(first.created && !second.created && first.index == second.index);
    let shown = sh("ip -d link show kube-ipvs0")?;
    ensure!(shown.contains("NOARP,UP") && shown.contains("dummy"), "{shown}");
    links.remove_dummy("kube-ipvs0").await?;
    links.remove_dummy("kube-ipvs0").await?;
    ensure!(links.index_of("kube-ipvs0").await?.is_none());
    Ok(())
}

async fn a_dummy_device_that_is_down_is_brought_up() -> anyhow::Result<()> {
    sh("ip link add kube-ipvs0 type dummy")?;
    let dummy = Links::open()?.put_dummy("kube-ipvs0").await?;
    ensure!(!dummy.created && interface("kube-ipvs0").await?.up);
    Ok(())
}

async fn a_device_of_another_kind_is_refused_and_left_alone() -> anyhow::Result<()> {
    sh("ip link add kube-ipvs0 type bridge")?;
    let links = Links::open()?;
    for result in
        [links.put_dummy("kube-ipvs0").await.map(drop), links.remove_dummy("kube-ipvs0").await]
    {
        let Err(error @ Error::OtherKind { .. }) = result else { anyhow::bail!("{result:?}") };
        ensure!(
            error.to_string().contains("kind bridge")
                && error.to_string().contains("`ip link delete kube-ipvs0`"),
            "{error}"
        );
    }
    ensure!(!interface("kube-ipvs0").await?.up);
    Ok(())
}
