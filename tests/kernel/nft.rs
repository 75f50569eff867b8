//! The nft table.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Instant};

use anyhow::{Context, ensure};
use proxy_userspace::{
    kernel::{nft::Table, route::Routes},
    model::{Protocol, nat::NatElements},
};

use crate::{
    Case,
    actor::Actor,
    namespace::{Peer, sh, start, vip_device},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = crate::cases![
        &[Need::Root, Need::Nft];
        an_installed_table_is_observed_as_current_with_its_elements,
        installing_again_replaces_every_element,
        a_change_adds_and_removes_and_repeats_without_harm,
        removing_the_table_twice_succeeds,
        a_table_that_somebody_edited_is_not_current,
        ten_thousand_elements_are_one_transaction,
        a_node_port_connection_is_masqueraded_and_others_are_not,
        a_hairpin_connection_is_masqueraded,
        a_port_of_a_vip_never_reaches_a_host_process,
    ];
    cases.extend(crate::cases![
        &[Need::Root, Need::Nft, Need::Flowtables];
        foreign_flowtables_are_named
    ]);
    cases
}

fn elements() -> NatElements {
    NatElements {
        vips: [[10, 96, 0, 1].into(), [10, 96, 0, 10].into()].into(),
        node_addrs: [[172, 18, 0, 2].into()].into(),
        node_ports: [(Protocol::Tcp, 30080), (Protocol::Udp, 30053), (Protocol::Sctp, 30999)]
            .into(),
        backends: [[10, 1, 0, 5].into(), [10, 1, 0, 6].into()].into(),
    }
}

async fn an_installed_table_is_observed_as_current_with_its_elements() -> anyhow::Result<()> {
    let table = Table::open().await?;
    ensure!(table.observe().await?.is_none());
    for wanted in [elements(), NatElements::default()] {
        table.install(&wanted).await?;
        let observed = table.observe().await?.context("no table")?;
        ensure!(observed.current && observed.elements == wanted, "{observed:?}");
    }
    Ok(())
}

async fn installing_again_replaces_every_element() -> anyhow::Result<()> {
    let table = Table::open().await?;
    table.install(&elements()).await?;
    let other = NatElements { vips: [[10, 96, 0, 99].into()].into(), ..NatElements::default() };
    table.install(&other).await?;
    ensure!(table.observe().await?.context("no table")?.elements == other);
    Ok(())
}

async fn a_change_adds_and_removes_and_repeats_without_harm() -> anyhow::Result<()> {
    let table = Table::open().await?;
    table.install(&elements()).await?;
    let added = NatElements {
        vips: [[10, 96, 0, 77].into()].into(),
        node_ports: [(Protocol::Udp, 31000)].into(),
        ..NatElements::default()
    };
    let removed = NatElements {
        vips: [[10, 96, 0, 1].into()].into(),
        backends: [[10, 1, 0, 5].into()].into(),
        ..NatElements::default()
    };
    let mut wanted = elements();
    wanted.vips = [[10, 96, 0, 10].into(), [10, 96, 0, 77].into()].into();
    wanted.node_ports.insert((Protocol::Udp, 31000));
    wanted.backends.remove(&Ipv4Addr::new(10, 1, 0, 5));
    for _ in 0..2 {
        table.change(&added, &removed).await?;
        let observed = table.observe().await?.context("no table")?;
        ensure!(observed.current && observed.elements == wanted, "{observed:?}");
    }
    table.change(&NatElements::default(), &NatElements::default()).await?;
    Ok(())
}

async fn removing_the_table_twice_succeeds() -> anyhow::Result<()> {
    let table = Table::open().await?;
    sh("nft add table inet other")?;
    table.install(&elements()).await?;
    table.remove().await?;
    table.remove().await?;
    ensure!(table.observe().await?.is_none());
    ensure!(sh("nft list tables")?.trim() == "table inet other");
    Ok(())
}

async fn a_table_that_somebody_edited_is_not_current() -> anyhow::Result<()> {
    let table = Table::open().await?;
    for edit in [
        "nft flush chain inet passlane input",
        "nft add rule inet passlane postrouting accept",
        "nft add chain inet passlane mine",
        "nft add set inet passlane mine '{ type mark; }'",
        "nft add element inet passlane hairpin4 '{ 10.0.0.1 . 10.0.0.2 }'",
        "nft insert rule inet passlane input tcp dport 22 accept",
    ] {
        table.install(&elements()).await?;
        ensure!(table.observe().await?.context("no table")?.current);
        sh(edit)?;
        ensure!(!table.observe().await?.context("no table")?.current, "{edit}");
    }
    Ok(())
}

async fn ten_thousand_elements_are_one_transaction() -> anyhow::Result<()> {
    let table = Table::open().await?;
    let addrs = |base: u32| -> BTreeSet<Ipv4Addr> {
        (0..10_000u32).map(|n| Ipv4Addr::from(base + n)).collect()
    };
    let many = NatElements { vips: addrs(0x0a60_0000), backends: addrs(0x0a01_0000), ..elements() };
    let start = Instant::now();
    table.install(&many).await?;
    let installed = start.elapsed();
    ensure!(table.observe().await?.context("no table")?.elements == many);
    let observed = start.elapsed();
    let one = NatElements { vips: [[10, 97, 0, 1].into()].into(), ..NatElements::default() };
    table.change(&one, &NatElements::default()).await?;
    let added = start.elapsed();
    table.change(&NatElements::default(), &one).await?;
    let removed = start.elapsed();
    println!(
        "20,000 elements: install {installed:.2?}, observe {:.2?}, add one {:.2?}, remove one {:.2?}",
        observed - installed,
        added - observed,
        removed - added
    );
    Ok(())
}

async fn foreign_flowtables_are_named() -> anyhow::Result<()> {
    let table = Table::open().await?;
    table.install(&elements()).await?;
    ensure!(table.flowtables().await?.is_empty());
    sh("nft add table ip other
        nft add flowtable ip other ft '{ hook ingress priority -5; devices = { lo }; }'")?;
    ensure!(table.flowtables().await? == ["ip other ft"]);
    Ok(())
}

fn dial(addr: [u8; 4], port: u16) -> Actor {
    Actor::Dial(addr.into(), port)
}

async fn a_node_port_connection_is_masqueraded_and_others_are_not() -> anyhow::Result<()> {
    let client = Peer::join("client", "172.18.0.2", "172.18.0.9")?;
    let backend = Peer::join("backend", "10.1.0.1", "10.1.0.5")?;
    let _server = backend.start(Actor::Mirror(8080))?;
    // Destination NAT stands in for ip_vs, which keeps the original tuple in the same way.
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward
        nft add table ip other
        nft add chain ip other pre '{ type nat hook prerouting priority dstnat; }'
        nft add rule ip other pre tcp dport { 30080, 30081 } dnat to 10.1.0.5:8080")?;
    Table::open().await?.install(&elements()).await?;
    let seen = client.play(dial([172, 18, 0, 2], 30080))?;
    ensure!(seen == "10.1.0.1", "NodePort: the backend saw {seen}");
    let seen = client.play(dial([172, 18, 0, 2], 30081))?;
    ensure!(seen == "172.18.0.9", "no NodePort: the backend saw {seen}");
    let seen = client.play(dial([10, 1, 0, 5], 8080))?;
    ensure!(seen == "172.18.0.9", "plain forwarding: the backend saw {seen}");
    Ok(())
}

async fn a_hairpin_connection_is_masqueraded() -> anyhow::Result<()> {
    let backend = Peer::join("backend", "10.1.0.1", "10.1.0.5")?;
    let _server = backend.start(Actor::Mirror(8080))?;
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward
        nft add table ip other
        nft add chain ip other pre '{ type nat hook prerouting priority dstnat; }'
        nft add rule ip other pre ip daddr 10.96.0.10 dnat to 10.1.0.5")?;
    Table::open().await?.install(&elements()).await?;
    let seen = backend.play(dial([10, 96, 0, 10], 8080))?;
    ensure!(seen == "10.1.0.1", "the backend saw {seen}");
    Ok(())
}

async fn a_port_of_a_vip_never_reaches_a_host_process() -> anyhow::Result<()> {
    let client = Peer::join("client", "172.18.0.2", "172.18.0.9")?;
    Routes::open()?.put_vips(vip_device().await?, &[[10, 96, 0, 10].into()]).await?;
    let _server = start(Actor::Mirror(22))?;
    let seen = client.play(dial([10, 96, 0, 10], 22))?;
    ensure!(seen == "172.18.0.9", "without the guard the host answers: {seen}");
    Table::open().await?.install(&elements()).await?;
    ensure!(client.play(dial([10, 96, 0, 10], 22))? == "refused");
    ensure!(client.play(Actor::Send([10, 96, 0, 10].into(), 9999))? == "refused");
    let counted = sh("nft list chain inet passlane input")?;
    ensure!(counted.matches("packets 0 ").count() == 1, "only sctp saw nothing: {counted}");
    let seen = client.play(dial([172, 18, 0, 2], 22))?;
    ensure!(seen == "172.18.0.9", "the node's own address is not guarded: {seen}");
    Ok(())
}
