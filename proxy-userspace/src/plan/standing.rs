//! What health checks do to the endpoints of a class of traffic: those that failed stand aside, and
//! when too few are left, somebody else stands in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{
    Backend, Check, Destination, DestinationKey, Forwarding, OnFailure, Protocol, Service,
    ServiceName, ServicePort, Thresholds, Watching,
};

/// Backends that are down by their health check, by Service. What is not named here is up.
pub type Failed = BTreeMap<ServiceName, BTreeSet<Backend>>;

/// The backends of a Service that are to be checked, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// How.
    pub check: Check,
    /// Whom.
    pub backends: BTreeSet<Backend>,
}

/// How the endpoints of one port of a Service stand, in one address family.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    watching: Option<&'a Watching>,
    failed: Option<&'a BTreeSet<Backend>>,
    protocol: Protocol,
    stand_in: Option<DestinationKey>,
}

/// What a failed check leaves to an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rest {
    /// Everything: it did not fail.
    All,
    /// Its connections.
    Connections,
    /// Nothing.
    Nothing,
}

impl<'a> Standing<'a> {
    pub(super) fn of(
        service: &'a Service,
        port: &ServicePort,
        ipv6: bool,
        failed: &'a Failed,
    ) -> Self {
        let watching = service.watching.as_deref();
        let sorry = watching.and_then(|watching| {
            let of_family = |addr: IpAddr| addr.is_ipv6() == ipv6;
            watching.sorry_servers.iter().find(|server| of_family(server.addr))
        });
        Self {
            watching,
            // Where nothing is checked any more, nothing is down.
            failed: watching
                .and_then(|watching| watching.check.as_ref())
                .and_then(|_| failed.get(&service.name)),
            protocol: port.protocol,
            stand_in: sorry.map(|server| DestinationKey {
                addr: server.addr,
                port: server.port.unwrap_or(port.port),
            }),
        }
    }

    /// Returns the port of the sorry server. It counts for the way to forward also while it is not
    /// needed: that way does not change with who lives.
    pub(super) fn port_of_stand_in(&self) -> Option<u16> {
        self.stand_in.map(|key| key.port)
    }

    /// Returns what an endpoint may keep.
    pub(super) fn rest(&self, key: DestinationKey) -> Rest {
        let backend = Backend::new(key, self.protocol);
        match (self.watching, self.failed) {
            (Some(watching), Some(failed)) if failed.contains(&backend) => {
                match watching.on_failure {
                    OnFailure::Inhibit => Rest::Connections,
                    OnFailure::Remove => Rest::Nothing,
                }
            }
            _ => Rest::All,
        }
    }

    /// Puts the sorry server in where the weights of those that get new connections add up to less
    /// than the quorum: then it gets all new ones, and theirs go on. Says whether it did.
    pub(super) fn stand_in(
        &self,
        destinations: &mut Vec<Destination>,
        (forwarding, limits): (Forwarding, Thresholds),
    ) -> bool {
        let (Some(watching), Some(key)) = (self.watching, self.stand_in) else { return false };
        let live: u64 = destinations.iter().map(|each| u64::from(each.weight)).sum();
        if live >= u64::from(watching.quorum) {
            return false;
        }
        destinations.iter_mut().for_each(|each| each.weight = 0);
        // The last of one key is kept.
        destinations.push(Destination { key, weight: 1, forwarding, limits });
        true
    }
}
