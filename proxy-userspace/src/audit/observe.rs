//! Reads everything that plans depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy_common::abi::FrontendFlags;

use crate::{
    kernel::{
        bpf::{self, Maps},
        ipvs, link, nft,
        node::Node,
        route,
    },
    ledger::Owned,
    model::{Backend, FastPath, Frontend, RuleOptions},
    plan::{FrontendEntry, IdMap, Observed, ObservedServer, ObservedTable},
};

/// An error of reading the node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// IPVS.
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    /// nft.
    #[error(transparent)]
    Nat(#[from] nft::Error),
    /// Links.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// Routes.
    #[error(transparent)]
    Route(#[from] route::Error),
    /// Connections of IPVS.
    #[error(transparent)]
    Connections(#[from] ipvs::connections::Error),
    /// BPF maps.
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
}

/// Reads the node; `rules` are those that our table should have. Destinations are read of our virtual servers only: those of others are none of
/// our business.
///
/// # Errors
///
/// The first subsystem that cannot be read; a plan on half a view would undo what it did not see.
pub async fn observe(node: &Node, owned: &Owned, rules: &RuleOptions) -> Result<Observed, Error> {
    let device = node.links.index_of(&node.device).await?;
    let vips = match device {
        Some(index) => vips(node, owned, index).await?,
        None => Vips::default(),
    };
    let table = node.nat.observe(rules).await?.filter(|table| table.current);
    let mut observed = Observed {
        device: device.is_some(),
        vips: vips.held,
        foreign_vips: vips.foreign,
        outdated_vips: vips.outdated,
        servers: servers(node, owned).await?,
        table: table.map(|table| ObservedTable { rules: rules.clone(), elements: table.elements }),
        fast_path: node.datapath.is_some(),
        local_ports: node.localhost.as_ref().map(bpf::Localhost::ports).transpose()?,
        ..Observed::default()
    };
    if let Some(datapath) = &node.datapath {
        read_entries(&datapath.maps, &mut observed)?;
    }
    Ok(observed)
}

/// Reads what plans have to know of the maps.
///
/// # Errors
///
/// [`Error::Bpf`].
pub fn read_entries(maps: &Maps, observed: &mut Observed) -> Result<(), Error> {
    observed.frontends = frontends(maps)?;
    observed.backends = backends(maps)?;
    Ok(())
}

/// What makes addresses local on the device that carries the VIPs.
#[derive(Default)]
struct Vips {
    held: BTreeSet<IpAddr>,
    foreign: BTreeSet<IpAddr>,
    outdated: BTreeSet<IpAddr>,
}

async fn vips(node: &Node, owned: &Owned, device: u32) -> Result<Vips, Error> {
    let routes = node.routes.vips(device).await?;
    let ours = owned.addresses.get(&node.device);
    // Most nodes have no address there and never had.
    if ours.is_none() && !node.vips_are_addresses {
        return Ok(Vips { held: routes, ..Vips::default() });
    }
    let (addresses, others): (BTreeSet<_>, BTreeSet<_>) = node
        .links
        .addresses(device)
        .await?
        .into_iter()
        .partition(|addr| ours.is_some_and(|ours| ours.contains(addr)));
    Ok(if node.vips_are_addresses {
        Vips { held: addresses, foreign: others, outdated: routes }
    } else {
        Vips { held: routes, foreign: BTreeSet::new(), outdated: addresses }
    })
}

async fn servers(node: &Node, owned: &Owned) -> Result<BTreeMap<Frontend, ObservedServer>, Error> {
    let mut servers = BTreeMap::new();
    for state in node.ipvs.virtual_servers().await? {
        let virtual_server = state.virtual_server;
        let frontend = virtual_server.frontend;
        let owned = owned.virtual_servers.contains_key(&frontend);
        let held = if owned { node.ipvs.destinations(&frontend).await? } else { Vec::new() };
        // The kernel lists the newest first.
        let order = held.iter().rev().map(|state| state.destination.key).collect();
        let destinations = held.iter().map(|state| state.destination).collect();
        let server = ObservedServer { virtual_server, destinations, order, owned };
        servers.insert(frontend, server);
    }
    Ok(servers)
}

fn frontends(maps: &Maps) -> Result<IdMap<Frontend, FrontendEntry>, Error> {
    let entries = maps.frontends()?.into_iter().map(|(frontend, value)| {
        (frontend, FrontendEntry { id: value.id, fast_path: mode(value.flags) })
    });
    Ok(entries.collect())
}

/// The inverse of what is written: see `apply::executor`.
fn mode(flags: u32) -> FastPath {
    match flags {
        flags if flags & FrontendFlags::LEARN == 0 => FastPath::Off,
        flags if flags & FrontendFlags::OBSERVE != 0 => FastPath::Observe,
        flags if flags & FrontendFlags::FORCE != 0 => FastPath::Force,
        _ => FastPath::Auto,
    }
}

fn backends(maps: &Maps) -> Result<IdMap<Backend, u32>, Error> {
    Ok(maps.backends()?.into_iter().map(|(backend, value)| (backend, value.id)).collect())
}
