//! `spec.healthCheckNodePort`: whether this node has endpoints of a Service whose external traffic
//! stays on the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Extension, Router, extract::State, http::HeaderValue, response::Response};
use serde::Serialize;

use super::{
    Problem, ProxyHealth,
    answer::answer,
    gate::{Budget, Gate, OverIpv6},
};
use crate::model::{LocalEndpoints, ServiceName};

/// The header that tells a load balancer how much of the traffic a node should get.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// What is answered at one port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceState {
    /// The Service.
    pub service: ServiceName,
    /// Its endpoints on this node that are ready and not terminating.
    pub local_endpoints: LocalEndpoints,
}

/// A Service that asks for a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// `spec.healthCheckNodePort`, host order.
    pub port: u16,
    /// What to answer there.
    pub state: ServiceState,
}

/// Gives each port to the first Service, by namespace and name, that asks for it.
pub fn assign(mut claims: Vec<Claim>) -> (BTreeMap<u16, ServiceState>, Vec<Problem>) {
    claims.sort_by(|one, other| one.state.service.cmp(&other.state.service));
    let (mut ports, mut problems) = (BTreeMap::<u16, ServiceState>::new(), Vec::new());
    for Claim { port, state } in claims {
        match ports.get(&port) {
            Some(winner) => {
                let (winner, loser) = (winner.service.clone(), state.service);
                problems.push(Problem::PortTaken { port, winner, loser });
            }
            None => {
                ports.insert(port, state);
            }
        }
    }
    (ports, problems)
}

/// The servers of all ports. They end with this value.
#[derive(Debug)]
pub struct ServiceHealth {
    addrs: BTreeSet<IpAddr>,
    proxy: Arc<ProxyHealth>,
    budget: Budget,
    ports: BTreeMap<u16, Port>,
}

#[derive(Debug)]
struct Port {
    state: Arc<Mutex<ServiceState>>,
    gates: Vec<Gate>,
}

impl ServiceHealth {
    /// Will listen on these addresses, which are those of NodePorts; on all of the node, of both
    /// families, when there are none.
    pub fn new(addrs: BTreeSet<IpAddr>, proxy: Arc<ProxyHealth>) -> Self {
        let any = BTreeSet::from([Ipv6Addr::UNSPECIFIED.into()]);
        let addrs = if addrs.is_empty() { any } else { addrs };
        Self { addrs, proxy, budget: Budget::new(), ports: BTreeMap::new() }
    }

    /// Answers exactly these ports from now on. Returns at once; needs a tokio runtime.
    pub fn update(&mut self, desired: BTreeMap<u16, ServiceState>) {
        self.ports.retain(|port, _| desired.contains_key(port));
        for (port, state) in desired {
            match self.ports.get(&port) {
                Some(open) => *lock(&open.state) = state,
                None => {
                    let opened = self.open(port, state);
                    self.ports.insert(port, opened);
                }
            }
        }
    }

    /// Returns the ports that are not answered at this moment, and why.
    pub fn problems(&self) -> Vec<Problem> {
        let failures = self.ports.iter().flat_map(|(port, open)| {
            open.gates.iter().filter_map(|gate| {
                let (addr, cause) = gate.failure()?;
                let service = lock(&open.state).service.clone();
                Some(Problem::ServiceNotListening { service, port: *port, addr, cause })
            })
        });
        failures.collect()
    }

    fn open(&self, port: u16, state: ServiceState) -> Port {
        let purpose = format!("health checks of Service {}", state.service);
        let state = Arc::new(Mutex::new(state));
        let asked = Asked { state: Arc::clone(&state), proxy: Arc::clone(&self.proxy) };
        let router = Router::new().fallback(respond).with_state(asked);
        let gates = self.addrs.iter().map(|addr| {
            let addr = SocketAddr::new(*addr, port);
            Gate::open(addr, &purpose, router.clone(), self.budget.clone())
        });
        Port { state, gates: gates.collect() }
    }
}

fn lock(state: &Mutex<ServiceState>) -> std::sync::MutexGuard<'_, ServiceState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Asked {
    state: Arc<Mutex<ServiceState>>,
    proxy: Arc<ProxyHealth>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: u32,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

async fn respond(
    State(asked): State<Asked>,
    Extension(OverIpv6(ipv6)): Extension<OverIpv6>,
) -> Response {
    let state = lock(&asked.state).clone();
    let local_endpoints = state.local_endpoints.asked_over(ipv6);
    let healthy = asked.proxy.is_healthy();
    let body = Body {
        service: Name { namespace: &state.service.namespace, name: &state.service.name },
        local_endpoints,
        service_proxy_healthy: healthy,
    };
    let mut response = answer(healthy && local_endpoints > 0, &body);
    response.headers_mut().insert(WEIGHT, HeaderValue::from(local_endpoints));
    response
}
