//! What becomes ours of what kube-proxy made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Desired, Observed};
use crate::model::{Estate, Frontend};

/// What is taken over: it goes into the ledger, and from there on plans treat it as ours. So what a
/// Service wants stays as it is, with its connections, and what none wants goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Adoption {
    /// Virtual servers, and the Service port that each serves; an empty one where none does.
    pub servers: BTreeMap<Frontend, String>,
    /// Addresses of the device that carries the VIPs.
    pub addrs: BTreeSet<IpAddr>,
}

impl Adoption {
    /// Says whether nothing is taken over.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Decides it on a node that kube-proxy is known to have served. `held` are addresses on the device
/// that are not ours, `node` those of the node itself.
///
/// kube-proxy deletes every virtual server that is not its own, but for those in `excludeCIDRs`, and
/// so there is nobody else's where a Service wants one. Elsewhere its sets or its addresses have to
/// name it.
pub fn adoption(
    desired: &Desired,
    observed: &Observed,
    estate: &Estate,
    held: &BTreeSet<IpAddr>,
    node: &BTreeSet<IpAddr>,
) -> Adoption {
    let wanted = |frontend: &Frontend| {
        desired.servers.get(frontend).filter(|server| server.leads_to.is_none())
    };
    let is_known = |frontend: &Frontend| {
        estate.frontends.contains(frontend)
            || estate.addrs.contains(&frontend.addr)
            || held.contains(&frontend.addr)
            || (node.contains(&frontend.addr)
                && estate.node_ports.contains(&(frontend.protocol, frontend.port)))
    };
    let foreign = observed.servers.iter().filter(|(_, server)| !server.owned);
    let servers: BTreeMap<Frontend, String> = foreign
        .map(|(frontend, _)| *frontend)
        .filter(|frontend| !desired.excludes(frontend.addr))
        .filter_map(|frontend| match wanted(&frontend) {
            Some(server) => Some((frontend, server.service.to_string())),
            None => is_known(&frontend).then(|| (frontend, String::new())),
        })
        .collect();
    let serve: BTreeSet<IpAddr> = observed
        .servers
        .iter()
        .filter(|(frontend, server)| server.owned || servers.contains_key(frontend))
        .map(|(frontend, _)| frontend.addr)
        .collect();
    let addrs = held.iter().copied().filter(|addr| {
        let known =
            estate.addrs.contains(addr) || desired.vips.contains(addr) || serve.contains(addr);
        known && !desired.excludes(*addr)
    });
    Adoption { addrs: addrs.collect(), servers }
}
