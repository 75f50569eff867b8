//! Which entries lead nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{entry::Entry, message::Scope};
use crate::model::{DestinationKey, Frontend};

/// The entries to delete, by what they are translated from and to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stale {
    /// Frontends that got their first endpoint, or went: all entries whose original destination
    /// this is.
    pub frontends: BTreeSet<Frontend>,
    /// Endpoints that went from behind a frontend: the entries whose original destination is the
    /// frontend and whose replies come from the endpoint.
    pub pairs: BTreeSet<(Frontend, DestinationKey)>,
}

impl Stale {
    /// Returns true when no entry can be stale.
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.pairs.is_empty()
    }

    /// Returns whether entries of an address family can be stale.
    pub fn has_family(&self, ipv6: bool) -> bool {
        let paired = self.pairs.iter().map(|(frontend, _)| frontend);
        self.frontends.iter().chain(paired).any(|frontend| frontend.addr.is_ipv6() == ipv6)
    }

    pub(super) fn contains(&self, entry: &Entry) -> bool {
        self.frontends.contains(&entry.frontend)
            || self.pairs.contains(&(entry.frontend, entry.destination))
    }

    /// Returns the parts of the table that hold every stale entry: one for each address family and
    /// protocol, and of one port alone when that is enough.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let paired = self.pairs.iter().map(|(frontend, _)| frontend);
        let mut ports = BTreeMap::<_, BTreeSet<u16>>::new();
        for frontend in self.frontends.iter().chain(paired) {
            let key = (frontend.addr.is_ipv6(), frontend.protocol);
            ports.entry(key).or_default().insert(frontend.port);
        }
        ports
            .into_iter()
            .map(|((ipv6, protocol), ports)| {
                let port = ports.first().copied().filter(|_| ports.len() == 1);
                Scope { ipv6, protocol, port }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn frontend(addr: &str, port: u16, protocol: Protocol) -> Frontend {
        Frontend { addr: addr.parse().unwrap(), port, protocol }
    }

    fn entry(frontend: Frontend, destination: &str) -> Entry {
        let destination: std::net::SocketAddr = destination.parse().unwrap();
        Entry {
            client: "192.0.2.9:40000".parse().unwrap(),
            frontend,
            destination: DestinationKey { addr: destination.ip(), port: destination.port() },
            id: None,
            zone: None,
            original_zone: None,
        }
    }

    #[test]
    fn a_frontend_makes_all_its_entries_stale_and_a_pair_those_of_one_endpoint() {
        let dns = frontend("10.96.0.10", 53, Protocol::Udp);
        let log = frontend("10.96.0.11", 514, Protocol::Udp);
        let gone = DestinationKey { addr: [10, 1, 0, 5].into(), port: 5514 };
        let stale = Stale { frontends: [dns].into(), pairs: [(log, gone)].into() };
        assert!(stale.contains(&entry(dns, "10.1.0.7:53")));
        assert!(stale.contains(&entry(log, "10.1.0.5:5514")));
        assert!(!stale.contains(&entry(log, "10.1.0.6:5514")), "another endpoint");
        assert!(!stale.contains(&entry(log, "10.1.0.5:5515")), "another port of the endpoint");
        let tcp = frontend("10.96.0.10", 53, Protocol::Tcp);
        assert!(!stale.contains(&entry(tcp, "10.1.0.7:53")), "another protocol");
    }

    #[test]
    fn one_dump_serves_all_frontends_of_a_family_and_protocol() {
        let dns4 = frontend("10.96.0.10", 53, Protocol::Udp);
        let dns6 = frontend("fd00:96::10", 53, Protocol::Udp);
        let gone = DestinationKey { addr: [10, 1, 0, 5].into(), port: 53 };
        let both = Stale { frontends: [dns4, dns6].into(), pairs: [(dns4, gone)].into() };
        let one_port = |ipv6| Scope { ipv6, protocol: Protocol::Udp, port: Some(53) };
        assert_eq!(both.scopes(), [one_port(false), one_port(true)]);
        let log = frontend("10.96.0.11", 514, Protocol::Udp);
        let two_ports = Stale { frontends: [dns4].into(), pairs: [(log, gone)].into() };
        let any_port = Scope { ipv6: false, protocol: Protocol::Udp, port: None };
        assert_eq!(two_ports.scopes(), [any_port]);
        assert!(Stale::default().scopes().is_empty());
    }
}
