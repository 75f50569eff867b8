//! What load balancers and kubelet ask: the servers, and what they answer.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::Settings,
    health::{Claim, HealthServer, ProxyHealth, ServiceHealth, ServiceState, assign},
    model::ServiceName,
    plan::HealthCheck,
};

/// The servers, and what they know.
#[derive(Debug)]
pub(super) struct Health {
    proxy: Arc<ProxyHealth>,
    node: Option<HealthServer>,
    services: ServiceHealth,
    /// Services whose port another one has.
    taken: Vec<String>,
}

impl Health {
    /// Opens the server of `/healthz` and `/livez`; those of Services come with them.
    pub(super) fn open(settings: &Settings) -> Self {
        let proxy = Arc::new(ProxyHealth::default());
        let addr = settings.healthz_bind_address;
        let node = addr.map(|addr| HealthServer::open(addr, Arc::clone(&proxy)));
        let services = ServiceHealth::new(Default::default(), Arc::clone(&proxy));
        Self { proxy, node, services, taken: Vec::new() }
    }

    /// Returns what the node's own answers come from.
    pub(super) fn proxy(&self) -> Arc<ProxyHealth> {
        Arc::clone(&self.proxy)
    }

    /// A change came that is not in the kernel yet.
    pub(super) fn changed(&self) {
        self.proxy.changed();
    }

    /// The kernel holds everything.
    pub(super) fn synced(&self) {
        self.proxy.synced();
    }

    /// Everything that is wanted was brought into the kernel once, or was not.
    pub(super) fn set_ready(&self, ready: bool) {
        self.proxy.set_ready(ready);
    }

    pub(super) fn set_node_leaving(&self, leaving: bool) {
        self.proxy.set_node_leaving(leaving);
    }

    /// Answers for these Services from now on.
    pub(super) fn answer(&mut self, checks: &BTreeMap<ServiceName, HealthCheck>) {
        let claims = checks.iter().map(|(service, check)| Claim {
            port: check.port,
            state: ServiceState {
                service: service.clone(),
                local_endpoints: check.local_endpoints,
            },
        });
        let (ports, problems) = assign(claims.collect());
        self.taken = problems.iter().map(ToString::to_string).collect();
        self.services.update(ports);
    }

    /// Returns what is not answered, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let node = self.node.iter().filter_map(HealthServer::problem);
        let services = self.services.problems();
        let failures = node.chain(services).map(|problem| problem.to_string());
        failures.chain(self.taken.iter().cloned()).collect()
    }
}
