//! Which endpoints a Service port sends traffic to, and with what weight.

use std::collections::BTreeMap;

use crate::model::{Destination, DestinationKey, Endpoint, EndpointSlice, Forwarding, ServicePort};

/// What an endpoint is good for; the better one wins when several slices list one endpoint.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Standing {
    /// Serves what it has, and is going away.
    Terminating,
    /// Takes new connections.
    Ready,
}

impl Standing {
    /// Returns the standing of an endpoint, `None` for one that must get nothing at all.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        match (endpoint.terminating, endpoint.ready, endpoint.serving) {
            (false, true, _) => Some(Self::Ready),
            (true, _, true) => Some(Self::Terminating),
            _ => None,
        }
    }
}

/// Returns the IPv4 destinations of a Service port, out of the slices of its Service.
///
/// New connections go to the endpoints that are ready and not terminating; only if there are none,
/// to those that are terminating and still serve (KEP-1669). While there are ready ones, serving
/// and terminating ones keep weight 0 for as long as a slice lists them: their connections go on.
/// The weight is derived anew every time and never remembered, so no drain outlives its reason.
pub(super) fn destinations(
    port: &ServicePort,
    slices: &[&EndpointSlice],
) -> BTreeMap<DestinationKey, Destination> {
    let standings = standings(port, slices);
    let best = standings.values().max().copied();
    standings
        .into_iter()
        .map(|(key, standing)| {
            let weight = u32::from(Some(standing) == best);
            (key, Destination { key, weight, forwarding: Forwarding::Masq })
        })
        .collect()
}

fn standings(port: &ServicePort, slices: &[&EndpointSlice]) -> BTreeMap<DestinationKey, Standing> {
    let mut standings = BTreeMap::new();
    for slice in slices {
        for served in &slice.ports {
            if served.name != port.name || served.protocol != port.protocol {
                continue;
            }
            for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.addr.is_ipv4()) {
                let Some(standing) = Standing::of(endpoint) else { continue };
                standings
                    .entry(DestinationKey { addr: endpoint.addr, port: served.port })
                    .and_modify(|held: &mut Standing| *held = standing.max(*held))
                    .or_insert(standing);
            }
        }
    }
    standings
}
