//! The nft table.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use anyhow::{Context, ensure};
use ipnet::IpNet;
use proxy_userspace::{
    kernel::{
        nft::{Ruleset, Table},
        route::Routes,
    },
    model::{Element, Frontend, Inside, Masquerade, Protocol, RuleOptions},
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
        every_set_of_rules_is_observed_as_current_with_its_elements,
        rules_of_other_options_are_not_current,
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

fn frontend(addr: &str, port: u16, protocol: Protocol) -> Frontend {
    Frontend { addr: addr.parse().unwrap_or([0, 0, 0, 0].into()), port, protocol }
}

fn addr(text: &str) -> IpAddr {
    frontend(text, 0, Protocol::Tcp).addr
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_default()
}

/// Every kind of element, in both families.
fn elements() -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for (vip, pod, lb, ranges) in [
        ("10.96.0.10", "10.1.0.5", "192.0.2.7", ["203.0.113.0/24", "198.51.100.9/32"]),
        ("fd00:96::10", "fd00:1::5", "2001:db8::7", ["2001:db8:1::/48", "2001:db8:2::9/128"]),
    ] {
        let lb = frontend(lb, 443, Protocol::Tcp);
        elements.extend([
            Element::Vip(addr(vip)),
            Element::ClusterIp(addr(vip)),
            Element::Hairpin(addr(pod)),
            Element::Masquerade(frontend(vip, 30080, Protocol::Tcp)),
            Element::Masquerade(frontend(vip, 30053, Protocol::Udp)),
            Element::Masquerade(frontend(vip, 30999, Protocol::Sctp)),
            Element::Reject(frontend(vip, 81, Protocol::Tcp)),
            Element::Drop(frontend(vip, 82, Protocol::Udp)),
            Element::Ranged(lb),
            Element::RangedHost(lb),
            Element::Inside(lb, addr(vip), 8443),
            Element::Shadow(frontend(vip, 65535, Protocol::Tcp)),
            Element::PodCidr(net(ranges[0])),
            Element::ServiceCidr(net(ranges[0])),
        ]);
        elements.extend(ranges.map(|range| Element::Source(lb, net(range))));
        elements.extend(ranges.map(|range| Element::InterimSource(lb, net(range))));
    }
    elements.extend([
        Element::Vip(addr("10.96.0.1")),
        Element::Masquerade(frontend("172.18.0.2", 30080, Protocol::Tcp)),
        Element::Hairpin(addr("10.1.0.6")),
    ]);
    elements
}

/// Every set of rules there can be.
fn every_option() -> Vec<RuleOptions> {
    let insides = [Inside::Unknown, Inside::Cidrs, Inside::Interface("cali*".into())];
    let masquerades = [Masquerade::Needed, Masquerade::OffCluster, Masquerade::All];
    let mut options = Vec::new();
    for inside in insides {
        for masquerade in masquerades {
            for reject_unassigned in [false, true] {
                let inside = inside.clone();
                options.push(RuleOptions { masquerade, inside, reject_unassigned });
            }
        }
    }
    options
}

async fn every_set_of_rules_is_observed_as_current_with_its_elements() -> anyhow::Result<()> {
    let table = Table::open().await?;
    ensure!(table.observe(&RuleOptions::default()).await?.is_none());
    for options in every_option() {
        for wanted in [elements(), BTreeSet::new()] {
            table.install(&options, &wanted).await?;
            let observed = table.observe(&options).await?.context("no table")?;
            ensure!(observed.current, "{options:?}: {observed:?}");
            ensure!(observed.elements == wanted, "{options:?}: {observed:?}");
        }
    }
    Ok(())
}

async fn rules_of_other_options_are_not_current() -> anyhow::Result<()> {
    let table = Table::open().await?;
    let all = every_option();
    for installed in &all {
        table.install(installed, &BTreeSet::new()).await?;
        for options in &all {
            let observed = table.observe(options).await?.context("no table")?;
            // Without a way to tell what is inside, nothing is off the cluster.
            let same = |options: &RuleOptions| match (options.masquerade, &options.inside) {
                (Masquerade::OffCluster, Inside::Unknown) => {
                    RuleOptions { masquerade: Masquerade::Needed, ..options.clone() }
                }
                _ => options.clone(),
            };
            let expected = same(options) == same(installed);
            ensure!(observed.current == expected, "{installed:?} seen as {options:?}");
        }
    }
    Ok(())
}

async fn installing_again_replaces_every_element() -> anyhow::Result<()> {
    let table = Table::open().await?;
    install(&table, &elements()).await?;
    let other = [Element::Vip(addr("10.96.0.99"))].into();
    install(&table, &other).await?;
    ensure!(observed(&table).await? == other);
    Ok(())
}

async fn install(table: &Table, elements: &BTreeSet<Element>) -> anyhow::Result<()> {
    Ok(table.install(&RuleOptions::default(), elements).await?)
}

async fn observed(table: &Table) -> anyhow::Result<BTreeSet<Element>> {
    let observed = table.observe(&RuleOptions::default()).await?.context("no table")?;
    ensure!(observed.current, "{observed:?}");
    Ok(observed.elements)
}

async fn a_change_adds_and_removes_and_repeats_without_harm() -> anyhow::Result<()> {
    let table = Table::open().await?;
    install(&table, &elements()).await?;
    let lb = frontend("192.0.2.7", 443, Protocol::Tcp);
    let added: BTreeSet<Element> = [
        Element::Vip(addr("10.96.0.77")),
        Element::Masquerade(frontend("172.18.0.2", 31000, Protocol::Udp)),
        // These take the place of others: another value of a map, an overlapping range.
        Element::Inside(lb, addr("10.96.0.77"), 9443),
        Element::Source(lb, net("203.0.0.0/16")),
        Element::PodCidr(net("203.0.0.0/16")),
    ]
    .into();
    let removed: BTreeSet<Element> = [
        Element::Vip(addr("10.96.0.1")),
        Element::Hairpin(addr("10.1.0.6")),
        Element::Inside(lb, addr("10.96.0.10"), 8443),
        Element::Source(lb, net("203.0.113.0/24")),
        Element::PodCidr(net("203.0.113.0/24")),
    ]
    .into();
    let mut wanted = &elements() - &removed;
    wanted.extend(&added);
    table.change(&added, &removed).await?;
    ensure!(observed(&table).await? == wanted);
    // The same once more, but for what cannot be there beside its successor.
    let harmless =
        removed.iter().filter(|element| matches!(element, Element::Vip(_) | Element::Hairpin(_)));
    table.change(&added, &harmless.copied().collect()).await?;
    ensure!(observed(&table).await? == wanted);
    table.change(&BTreeSet::new(), &BTreeSet::new()).await?;
    Ok(())
}

async fn removing_the_table_twice_succeeds() -> anyhow::Result<()> {
    let table = Table::open().await?;
    sh("nft add table inet other")?;
    install(&table, &elements()).await?;
    table.remove().await?;
    table.remove().await?;
    ensure!(table.observe(&RuleOptions::default()).await?.is_none());
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
        install(&table, &elements()).await?;
        observed(&table).await?;
        sh(edit)?;
        ensure!(observed(&table).await.is_err(), "{edit}");
    }
    Ok(())
}

async fn ten_thousand_elements_are_one_transaction() -> anyhow::Result<()> {
    let table = Table::open().await?;
    let addrs = |base: u32| (0..10_000_u32).map(move |n| IpAddr::V4((base + n).into()));
    let mut many = elements();
    many.extend(addrs(0x0a61_0000).map(Element::Vip));
    many.extend(addrs(0x0a02_0000).map(Element::Hairpin));
    let start = Instant::now();
    install(&table, &many).await?;
    let installed = start.elapsed();
    ensure!(observed(&table).await? == many);
    let observed = start.elapsed();
    let one = [Element::Vip(addr("10.99.0.1"))].into();
    table.change(&one, &BTreeSet::new()).await?;
    let added = start.elapsed();
    table.change(&BTreeSet::new(), &one).await?;
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
    install(&table, &elements()).await?;
    let ruleset = Ruleset::open()?;
    ensure!(ruleset.flowtables().await?.is_empty());
    let before = ruleset.generation().await?;
    sh("nft add table ip other
        nft add flowtable ip other ft '{ hook ingress priority -5; devices = { lo }; }'")?;
    ensure!(ruleset.flowtables().await? == ["ip other ft"]);
    ensure!(ruleset.generation().await? != before, "nobody would look again");
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
    install(&Table::open().await?, &elements()).await?;
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
    install(&Table::open().await?, &elements()).await?;
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
    install(&Table::open().await?, &elements()).await?;
    ensure!(client.play(dial([10, 96, 0, 10], 22))? == "refused");
    ensure!(client.play(Actor::Send([10, 96, 0, 10].into(), 9999))? == "refused");
    let counted = sh("nft list chain inet passlane input")?;
    ensure!(
        counted.matches("packets 0 ").count() == 4,
        "only sctp and IPv6 saw nothing: {counted}"
    );
    let seen = client.play(dial([172, 18, 0, 2], 22))?;
    ensure!(seen == "172.18.0.9", "the node's own address is not guarded: {seen}");
    Ok(())
}
