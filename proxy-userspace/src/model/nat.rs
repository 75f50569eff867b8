//! What the one nft table holds besides its fixed rules.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde::Serialize;

use super::Protocol;

/// The elements of the sets of table `inet passlane`. Rules are fixed; only elements change.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct NatElements {
    /// Addresses that carry frontends and belong to no interface: set `vips4`.
    pub vips: BTreeSet<Ipv4Addr>,
    /// Addresses of the node that answer NodePorts: set `nodes4`.
    pub node_addrs: BTreeSet<Ipv4Addr>,
    /// Ports that are NodePorts, host order: set `nodeports`.
    pub node_ports: BTreeSet<(Protocol, u16)>,
    /// Backend addresses, which a hairpin connects to themselves: pairs in set `hairpin4`.
    pub backends: BTreeSet<Ipv4Addr>,
}

impl NatElements {
    /// Returns whether every set is empty.
    pub fn is_empty(&self) -> bool {
        self.vips.is_empty()
            && self.node_addrs.is_empty()
            && self.node_ports.is_empty()
            && self.backends.is_empty()
    }

    /// Returns the elements of `self` that `other` lacks, set by set.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            vips: &self.vips - &other.vips,
            node_addrs: &self.node_addrs - &other.node_addrs,
            node_ports: &self.node_ports - &other.node_ports,
            backends: &self.backends - &other.backends,
        }
    }

    /// Returns the elements of either, set by set.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            vips: &self.vips | &other.vips,
            node_addrs: &self.node_addrs | &other.node_addrs,
            node_ports: &self.node_ports | &other.node_ports,
            backends: &self.backends | &other.backends,
        }
    }
}
