//! VIPs as local routes.

use std::{net::IpAddr, time::Instant};

use anyhow::ensure;
use proxy_userspace::kernel::{route, route::Routes};

use crate::{
    Case,
    namespace::{sh, vip_device},
    needs::Need,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root];
        a_vip_route_makes_the_address_local_until_it_is_removed,
        putting_and_removing_vips_twice_succeeds,
        routes_of_others_are_neither_listed_nor_removed,
        fifty_thousand_vips_take_seconds,
        a_vip_on_a_device_that_is_gone_is_explained,
        removing_vips_after_the_device_is_gone_succeeds,
        spare_routes_keep_vips_local_while_the_last_address_goes,
    ]
}

async fn stage() -> anyhow::Result<(u32, Routes)> {
    Ok((vip_device().await?, Routes::open()?))
}

async fn a_vip_route_makes_the_address_local_until_it_is_removed() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    let vips: [IpAddr; 2] = [[10, 96, 0, 1].into(), "fd00:96::1".parse()?];
    routes.put_vips(index, &vips).await?;
    ensure!(routes.vips(index).await?.into_iter().eq(vips));
    let shown = sh("ip route show table local 10.96.0.1")?;
    ensure!(shown.trim() == "local 10.96.0.1 dev kube-ipvs0 proto 112 scope host", "{shown}");
    ensure!(sh("ip route get 10.96.0.1")?.starts_with("local 10.96.0.1 dev lo"));
    ensure!(sh("ip -6 route get fd00:96::1")?.starts_with("local fd00:96::1 "));
    routes.remove_vips(index, &vips).await?;
    ensure!(routes.vips(index).await?.is_empty());
    ensure!(sh("ip route get 10.96.0.1").is_err());
    Ok(())
}

async fn putting_and_removing_vips_twice_succeeds() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    let vips: [IpAddr; 2] = [[10, 96, 0, 1].into(), "fd00:96::1".parse()?];
    routes.put_vips(index, &vips).await?;
    routes.put_vips(index, &vips).await?;
    ensure!(routes.vips(index).await?.len() == 2);
    ensure!(sh("ip route show table local 10.96.0.1")?.lines().count() == 1);
    ensure!(sh("ip -6 route show table local fd00:96::1")?.lines().count() == 1);
    routes.remove_vips(index, &vips).await?;
    routes.remove_vips(index, &vips).await?;
    Ok(())
}

async fn routes_of_others_are_neither_listed_nor_removed() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    sh("ip addr add 10.96.0.1/32 dev kube-ipvs0
        ip route add local 10.96.0.2/32 dev kube-ipvs0 table local proto static
        ip route add 10.96.0.3/32 dev kube-ipvs0 proto 112")?;
    ensure!(routes.vips(index).await?.is_empty());
    let others: Vec<IpAddr> = (1..=3).map(|last| [10, 96, 0, last].into()).collect();
    routes.remove_vips(index, &others).await?;
    ensure!(sh("ip route show table local")?.contains("local 10.96.0.2 dev kube-ipvs0"));
    ensure!(sh("ip route show")?.contains("10.96.0.3 dev kube-ipvs0"));
    Ok(())
}

async fn fifty_thousand_vips_take_seconds() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    let vips: Vec<IpAddr> =
        (0..50_000u32).map(|n| std::net::Ipv4Addr::from(0x0a60_0000 + n).into()).collect();
    let start = Instant::now();
    routes.put_vips(index, &vips).await?;
    let put = start.elapsed();
    ensure!(routes.vips(index).await?.len() == vips.len());
    let listed = start.elapsed();
    routes.remove_vips(index, &vips).await?;
    let removed = start.elapsed();
    ensure!(routes.vips(index).await?.is_empty());
    println!(
        "50,000 vips: put {put:.2?}, listed {:.2?}, removed {:.2?}",
        listed - put,
        removed - listed
    );
    // Addresses would take minutes here; an emulated guest under load takes ten seconds.
    ensure!(put.as_secs() < 60 && (removed - listed).as_secs() < 60);
    Ok(())
}

async fn a_vip_on_a_device_that_is_gone_is_explained() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    sh("ip link delete kube-ipvs0")?;
    let result = routes.put_vips(index, &[[10, 96, 0, 1].into()]).await;
    let Err(error @ route::Error::Refused { hint: Some(route::Hint::NoDevice), .. }) = result
    else {
        anyhow::bail!("{result:?}");
    };
    ensure!(error.to_string().starts_with("put route of vip 10.96.0.1: "), "{error}");
    Ok(())
}

async fn removing_vips_after_the_device_is_gone_succeeds() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    routes.put_vips(index, &[[10, 96, 0, 1].into()]).await?;
    sh("ip link delete kube-ipvs0")?;
    routes.remove_vips(index, &[[10, 96, 0, 1].into()]).await?;
    Ok(())
}

async fn spare_routes_keep_vips_local_while_the_last_address_goes() -> anyhow::Result<()> {
    let (index, routes) = stage().await?;
    let vip: IpAddr = [10, 96, 0, 1].into();
    sh("ip addr add 10.250.0.9/32 dev kube-ipvs0; ip link set lo up")?;
    routes.put_vips(index, &[vip]).await?;
    let loopback = 1;
    routes.put_spares(loopback, &[vip]).await?;
    routes.put_spares(loopback, &[vip]).await?;
    ensure!(sh("ip route show table local 10.96.0.1")?.lines().count() == 2);

    sh("ip addr del 10.250.0.9/32 dev kube-ipvs0")?;
    let left = sh("ip route show table local 10.96.0.1")?;
    ensure!(left.trim() == "local 10.96.0.1 dev lo proto 112 scope host metric 112", "{left}");
    ensure!(sh("ip route get 10.96.0.1")?.starts_with("local 10.96.0.1 dev lo"));

    routes.put_vips(index, &[vip]).await?;
    routes.remove_spares(loopback).await?;
    routes.remove_spares(loopback).await?;
    let left = sh("ip route show table local 10.96.0.1")?;
    ensure!(left.trim() == "local 10.96.0.1 dev kube-ipvs0 proto 112 scope host", "{left}");
    Ok(())
}
