//! Services that this node drops the traffic of: their policy is Local and their endpoints are on
//! other nodes.

use std::collections::BTreeMap;

use super::desired::{Admission, DesiredServer, Origin};
use crate::model::ServiceName;

/// A Service, an address family, and whether it is about traffic from outside the cluster.
type Key = (ServiceName, bool, bool);

/// They, by how many of their frontends it is true, and how many there are of each sort.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unserved {
    frontends: BTreeMap<Key, u32>,
    services: [[usize; 2]; 2],
}

impl Unserved {
    /// Returns how many Services have no endpoint here for traffic of a family, from outside the
    /// cluster or from inside.
    pub fn services(&self, ipv6: bool, external: bool) -> usize {
        self.services[usize::from(ipv6)][usize::from(external)]
    }

    /// Takes a server up.
    pub(super) fn add(&mut self, server: &DesiredServer) {
        let Some(key) = key(server) else { return };
        let services = &mut self.services[usize::from(key.1)][usize::from(key.2)];
        let frontends = self.frontends.entry(key).or_default();
        *services += usize::from(*frontends == 0);
        *frontends += 1;
    }

    /// Takes a server back.
    pub(super) fn take(&mut self, server: &DesiredServer) {
        let Some(key) = key(server) else { return };
        let Some(frontends) = self.frontends.get_mut(&key) else { return };
        *frontends -= 1;
        if *frontends == 0 {
            self.services[usize::from(key.1)][usize::from(key.2)] -= 1;
            self.frontends.remove(&key);
        }
    }
}

fn key(server: &DesiredServer) -> Option<Key> {
    if server.admission != Admission::Drop {
        return None;
    }
    let external = match server.origin {
        Origin::ClusterIp => false,
        Origin::LoadBalancerIp | Origin::ExternalIp | Origin::NodePort => true,
        // They stand beside another frontend of the Service.
        Origin::Inside | Origin::Loopback => return None,
    };
    let ipv6 = server.virtual_server.frontend.addr.is_ipv6();
    Some((server.service.service.clone(), ipv6, external))
}
