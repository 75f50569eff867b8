//! Foreign filters are seen.

use anyhow::{Context, ensure};
use proxy_userspace::kernel::{
    link::Links,
    tc::{Direction, TrafficControl},
};

use crate::{Case, namespace::sh, needs::Need};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        &[Need::Root];
        filters_of_both_directions_are_listed,
        an_interface_without_clsact_has_no_filters,
        an_ingress_discipline_is_listed_once,
    ]
}

async fn index_of(name: &str) -> anyhow::Result<u32> {
    Links::open()?.index_of(name).await?.context("no such link")
}

async fn filters_of_both_directions_are_listed() -> anyhow::Result<()> {
    sh("ip link add v0 type veth peer name v1
        tc qdisc add dev v0 clsact
        tc filter add dev v0 ingress pref 7 bpf da bytecode '1,6 0 0 4294967295,'
        tc filter add dev v0 egress pref 9 bpf da bytecode '1,6 0 0 4294967295,'
        tc filter add dev v0 egress pref 3 bpf da bytecode '1,6 0 0 4294967295,'")?;
    let control = TrafficControl::open()?;
    let filters = control.filters(index_of("v0").await?).await?;
    let seen: Vec<_> =
        filters.iter().map(|filter| (filter.direction, filter.priority, filter.handle)).collect();
    ensure!(
        seen == [(Direction::Ingress, 7, 1), (Direction::Egress, 3, 1), (Direction::Egress, 9, 1)],
        "{filters:?}"
    );
    ensure!(filters.iter().all(|filter| filter.kind == "bpf"), "{filters:?}");
    Ok(())
}

async fn an_interface_without_clsact_has_no_filters() -> anyhow::Result<()> {
    sh("ip link add v0 type veth peer name v1; ip link set v0 up")?;
    let control = TrafficControl::open()?;
    let index = index_of("v0").await?;
    ensure!(control.filters(index).await?.is_empty());
    let qdiscs = control.qdiscs(index).await?;
    ensure!(qdiscs.iter().map(|qdisc| qdisc.kind.as_str()).eq(["noqueue"]), "{qdiscs:?}");
    Ok(())
}

async fn an_ingress_discipline_is_listed_once() -> anyhow::Result<()> {
    sh("ip link add v0 type veth peer name v1
        tc qdisc add dev v0 ingress
        tc filter add dev v0 parent ffff: pref 7 bpf da bytecode '1,6 0 0 4294967295,'")?;
    let filters = TrafficControl::open()?.filters(index_of("v0").await?).await?;
    ensure!(filters.len() == 1 && filters[0].direction == Direction::Ingress, "{filters:?}");
    Ok(())
}
