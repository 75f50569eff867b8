//! VIPs as addresses, with iproute2 as the second opinion.

use std::net::IpAddr;

use anyhow::ensure;
use proxy_userspace::kernel::{link::Links, route::Routes};

use crate::{
    Case,
    namespace::{sh, vip_device},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root];
        an_address_makes_a_vip_local_until_it_is_removed,
        addresses_that_were_there_are_told_and_others_stay,
        route_and_address_of_a_vip_come_and_go_without_a_gap,
        the_last_address_of_a_device_takes_its_routes_along,
        removing_addresses_after_the_device_is_gone_succeeds,
    ]
}

fn vips() -> anyhow::Result<[IpAddr; 2]> {
    Ok([[10, 96, 0, 1].into(), "fd00:96::1".parse()?])
}

fn is_local() -> anyhow::Result<bool> {
    let v4 = sh("ip route get 10.96.0.1").is_ok_and(|route| route.starts_with("local "));
    let v6 = sh("ip -6 route get fd00:96::1").is_ok_and(|route| route.starts_with("local "));
    ensure!(v4 == v6, "IPv4: {v4}, IPv6: {v6}");
    Ok(v4)
}

async fn an_address_makes_a_vip_local_until_it_is_removed() -> anyhow::Result<()> {
    let (index, links) = (vip_device().await?, Links::open()?);
    let there = links.put_addresses(index, &vips()?).await?;
    ensure!(there.is_empty(), "{there:?}");
    let shown = sh("ip -o addr show dev kube-ipvs0")?;
    ensure!(shown.contains("inet 10.96.0.1/32 scope global kube-ipvs0"), "{shown}");
    ensure!(shown.contains("inet6 fd00:96::1/128 scope global nodad"), "{shown}");
    ensure!(!shown.contains("tentative"), "{shown}");
    ensure!(is_local()?);
    let held = links.addresses(index).await?;
    ensure!(vips()?.iter().all(|vip| held.contains(vip)), "{held:?}");
    for _ in 0..2 {
        links.remove_addresses(index, &vips()?).await?;
    }
    ensure!(!is_local()?);
    let held = links.addresses(index).await?;
    ensure!(!vips()?.iter().any(|vip| held.contains(vip)), "{held:?}");
    Ok(())
}

async fn addresses_that_were_there_are_told_and_others_stay() -> anyhow::Result<()> {
    let (index, links) = (vip_device().await?, Links::open()?);
    sh("ip addr add 10.96.0.1/32 dev kube-ipvs0
        ip addr add 10.96.0.7/32 dev kube-ipvs0
        ip addr add 10.96.0.8/24 dev kube-ipvs0
        ip link add other type dummy
        ip addr add 10.96.0.9/32 dev other")?;
    let [v4, v6] = vips()?;
    let there = links.put_addresses(index, &[v4, v6]).await?;
    ensure!(there == [v4], "{there:?}");
    let held = links.addresses(index).await?;
    ensure!(held.contains(&[10, 96, 0, 7].into()), "{held:?}");
    ensure!(!held.contains(&[10, 96, 0, 8].into()), "an address with its net: {held:?}");
    ensure!(!held.contains(&[10, 96, 0, 9].into()), "an address of another device: {held:?}");
    links.remove_addresses(index, &[v6]).await?;
    let shown = sh("ip -o addr")?;
    for addr in ["10.96.0.1/32", "10.96.0.7/32", "10.96.0.8/24", "10.96.0.9/32"] {
        ensure!(shown.contains(addr), "{addr} is gone: {shown}");
    }
    Ok(())
}

async fn route_and_address_of_a_vip_come_and_go_without_a_gap() -> anyhow::Result<()> {
    let (index, links, routes) = (vip_device().await?, Links::open()?, Routes::open()?);
    sh("ip addr add 10.250.0.9/32 dev kube-ipvs0")?;
    routes.put_vips(index, &vips()?).await?;
    links.put_addresses(index, &vips()?).await?;
    routes.remove_vips(index, &vips()?).await?;
    ensure!(is_local()?, "from routes to addresses");
    ensure!(routes.vips(index).await?.is_empty());
    routes.put_vips(index, &vips()?).await?;
    links.remove_addresses(index, &vips()?).await?;
    ensure!(is_local()?, "from addresses to routes");
    ensure!(routes.vips(index).await?.into_iter().eq(vips()?));
    routes.remove_vips(index, &vips()?).await?;
    ensure!(!is_local()?, "something is left");
    Ok(())
}

/// Why the executor puts routes again: the kernel takes them away.
async fn the_last_address_of_a_device_takes_its_routes_along() -> anyhow::Result<()> {
    let (index, links, routes) = (vip_device().await?, Links::open()?, Routes::open()?);
    let [v4, _] = vips()?;
    links.put_addresses(index, &[v4]).await?;
    routes.put_vips(index, &[v4]).await?;
    links.remove_addresses(index, &[v4]).await?;
    ensure!(routes.vips(index).await?.is_empty(), "routes stay: no need to put them again");
    routes.put_vips(index, &[v4]).await?;
    ensure!(sh("ip route get 10.96.0.1")?.starts_with("local "));
    Ok(())
}

async fn removing_addresses_after_the_device_is_gone_succeeds() -> anyhow::Result<()> {
    let (index, links) = (vip_device().await?, Links::open()?);
    sh("ip link del kube-ipvs0")?;
    links.remove_addresses(index, &vips()?).await?;
    Ok(())
}
