//! Reads everything that plans depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    kernel::{
        bpf::{self, Maps},
        ipvs, link, nft,
        node::Node,
        route,
    },
    ledger::Owned,
    model::{Backend, Frontend, RuleOptions},
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

/// Which parts of the node are read anew.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    /// The device and what makes VIPs local.
    pub addresses: bool,
    /// The nft table.
    pub table: bool,
    /// All virtual servers, and the destinations of these and of unknown ones.
    pub servers: Option<BTreeSet<Frontend>>,
    /// Frontends and backends of the maps.
    pub maps: bool,
    /// Node ports at loopback addresses.
    pub local_ports: bool,
}

impl Parts {
    /// Says whether nothing is to be read.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Reads parts of the node; the rest is taken to be as it was.
///
/// # Errors
///
/// As of [`observe`].
pub async fn observe_parts(
    node: &Node,
    owned: &Owned,
    rules: &RuleOptions,
    before: &Observed,
    parts: &Parts,
) -> Result<Observed, Error> {
    let mut observed = before.clone();
    if parts.addresses {
        let device = node.links.running_index_of(&node.device).await?;
        let vips = match device {
            Some(index) => vips(node, owned, index).await?,
            None => Vips::default(),
        };
        observed.device = device.is_some();
        observed.vips = vips.held;
        observed.foreign_vips = vips.foreign;
        observed.outdated_vips = vips.outdated;
    }
    if parts.table {
        observed.table = table(node, rules).await?;
    }
    if let Some(suspects) = &parts.servers {
        let known = |frontend: &Frontend| match suspects.contains(frontend) {
            true => None,
            false => before.servers.get(frontend).filter(|server| server.owned),
        };
        observed.servers = servers(node, owned, known).await?;
    }
    if let Some(datapath) = node.datapath.as_ref().filter(|_| parts.maps) {
        observed.frontends = frontends(&datapath.maps)?;
        observed.backends = backends(&datapath.maps)?;
    }
    if parts.local_ports {
        observed.local_ports = node.localhost.as_ref().map(bpf::Localhost::ports).transpose()?;
    }
    Ok(observed)
}

async fn table(node: &Node, rules: &RuleOptions) -> Result<Option<ObservedTable>, Error> {
    let table = node.nat.observe(rules).await?.filter(|table| table.current);
    Ok(table.map(|table| ObservedTable { rules: rules.clone(), elements: table.elements }))
}

/// Reads the node; `rules` are those that our table should have. Destinations are read of our
/// virtual servers only: those of others are none of our business.
///
/// # Errors
///
/// The first subsystem that cannot be read; a plan on half a view would undo what it did not see.
pub async fn observe(node: &Node, owned: &Owned, rules: &RuleOptions) -> Result<Observed, Error> {
    let nothing = Observed { fast_path: node.datapath.is_some(), ..Observed::default() };
    let parts = Parts {
        addresses: true,
        table: true,
        servers: Some(BTreeSet::new()),
        maps: true,
        local_ports: true,
    };
    observe_parts(node, owned, rules, &nothing, &parts).await
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

/// `known` are those whose destinations are known.
async fn servers<'a>(
    node: &Node,
    owned: &Owned,
    known: impl Fn(&Frontend) -> Option<&'a ObservedServer>,
) -> Result<BTreeMap<Frontend, ObservedServer>, Error> {
    let mut servers = BTreeMap::new();
    for state in node.ipvs.virtual_servers().await? {
        let virtual_server = state.virtual_server;
        let frontend = virtual_server.frontend;
        let owned = owned.virtual_servers.contains_key(&frontend);
        if let Some(known) = known(&frontend).filter(|_| owned) {
            servers.insert(frontend, ObservedServer { virtual_server, ..known.clone() });
            continue;
        }
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
        (frontend, FrontendEntry { id: value.id, fast_path: bpf::mode(value.flags) })
    });
    Ok(entries.collect())
}

fn backends(maps: &Maps) -> Result<IdMap<Backend, u32>, Error> {
    Ok(maps.backends()?.into_iter().map(|(backend, value)| (backend, value.id)).collect())
}
