//! What the one nft table holds besides its fixed rules.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::Protocol;

/// The elements of the sets of table `inet passlane`. Rules are fixed; only elements change.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
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
