//! How much each Service and backend carried: IPVS's counters and ours.
//!
//! Both count packets and bytes from the IP header on, a GSO packet as one, and what comes from
//! clients apart from what goes to them; a packet is on one plane only, so they add up. IPVS's
//! estimator copies its counters every 2 seconds; ours are those of this moment.

use std::{collections::BTreeMap, ops::Add};

use proxy_common::abi::{HashCount, Served};
use serde::Serialize;

use super::hashed::Hashed;
use crate::{
    kernel::{
        bpf::{ByPair, Error, Maps},
        ipvs::Stats,
    },
    model::{Backend, DestinationKey, Frontend},
};

/// Packets and bytes, in and out as clients see it: `in` comes from them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Traffic {
    /// Packets from clients.
    pub in_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl Traffic {
    /// Returns the packets of both directions.
    pub fn packets(&self) -> u64 {
        self.in_packets.wrapping_add(self.out_packets)
    }

    /// Returns the bytes of both directions.
    pub fn bytes(&self) -> u64 {
        self.in_bytes.wrapping_add(self.out_bytes)
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            in_packets: self.in_packets.wrapping_add(other.in_packets),
            in_bytes: self.in_bytes.wrapping_add(other.in_bytes),
            out_packets: self.out_packets.wrapping_add(other.out_packets),
            out_bytes: self.out_bytes.wrapping_add(other.out_bytes),
        }
    }
}

impl From<Served> for Traffic {
    fn from(served: Served) -> Self {
        let Served { in_packets, in_bytes, out_packets, out_bytes } = served;
        Self { in_packets, in_bytes, out_packets, out_bytes }
    }
}

impl From<&Stats> for Traffic {
    fn from(stats: &Stats) -> Self {
        let Stats { in_packets, in_bytes, out_packets, out_bytes, .. } = *stats;
        Self { in_packets, in_bytes, out_packets, out_bytes }
    }
}

/// What the fast path carried, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FastTraffic {
    by_frontend: BTreeMap<Frontend, Traffic>,
    by_backend: BTreeMap<Backend, Traffic>,
    by_pair: BTreeMap<(Frontend, Backend), Traffic>,
}

impl FastTraffic {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn read(maps: &Maps) -> Result<Self, Error> {
        let frontends = maps.frontends()?.into_iter().map(|(key, value)| (value.id, key));
        let backends = maps.backends()?.into_iter().map(|(key, value)| (value.id, key));
        Ok(Self::named(&maps.carried.read()?, &frontends.collect(), &backends.collect()))
    }

    /// Adds what XDP sent: it sees packets from clients only.
    #[must_use]
    pub fn with(mut self, hashed: &Hashed) -> Self {
        for (frontend, key, HashCount { packets, bytes, .. }) in &hashed.destinations {
            let sent = Traffic { in_packets: *packets, in_bytes: *bytes, ..Traffic::default() };
            let backend = Backend::new(*key, frontend.protocol);
            add(&mut self.by_frontend, *frontend, sent);
            add(&mut self.by_backend, backend, sent);
            add(&mut self.by_pair, (*frontend, backend), sent);
        }
        self
    }

    /// Gives the sums their names. What went to backends that are gone counts for the frontend only.
    fn named(
        carried: &ByPair,
        frontends: &BTreeMap<u32, Frontend>,
        backends: &BTreeMap<u32, Backend>,
    ) -> Self {
        let mut traffic = Self::default();
        for ((frontend, backend), served) in carried {
            let served = Traffic::from(*served);
            let frontend = frontends.get(frontend);
            let backend = backends.get(backend);
            if let Some(frontend) = frontend {
                add(&mut traffic.by_frontend, *frontend, served);
            }
            if let Some(backend) = backend {
                add(&mut traffic.by_backend, *backend, served);
            }
            if let (Some(frontend), Some(backend)) = (frontend, backend) {
                add(&mut traffic.by_pair, (*frontend, *backend), served);
            }
        }
        traffic
    }

    /// Returns what a frontend carried, also to backends that are gone.
    pub fn frontend(&self, frontend: &Frontend) -> Traffic {
        self.by_frontend.get(frontend).copied().unwrap_or_default()
    }

    /// Returns what a backend carried, for all its frontends.
    pub fn backend(&self, backend: &Backend) -> Traffic {
        self.by_backend.get(backend).copied().unwrap_or_default()
    }

    /// Returns what a destination of a virtual server carried.
    pub fn destination(&self, frontend: &Frontend, key: DestinationKey) -> Traffic {
        let backend = Backend::new(key, frontend.protocol);
        self.by_pair.get(&(*frontend, backend)).copied().unwrap_or_default()
    }
}

fn add<K: Ord>(sums: &mut BTreeMap<K, Traffic>, key: K, more: Traffic) {
    let sum = sums.entry(key).or_default();
    *sum = *sum + more;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[test]
    fn pairs_add_up_to_frontends_and_backends_and_the_gone_count_for_their_frontend() {
        let protocol = Protocol::Tcp;
        let frontend = |last| Frontend { addr: [10, 96, 0, last].into(), port: 80, protocol };
        let backend = |last| Backend { addr: [10, 1, 1, last].into(), port: 8080, protocol };
        let served = |packets| Served { in_packets: packets, in_bytes: 40, ..Served::default() };
        let carried = ByPair::from([
            ((1, 2), served(1)),
            ((1, 3), served(10)),
            ((2, 3), served(100)),
            ((1, 0), served(1000)),
            // An id that nobody has any more.
            ((9, 3), served(10_000)),
        ]);
        let frontends = [(1, frontend(1)), (2, frontend(2))].into();
        let traffic =
            FastTraffic::named(&carried, &frontends, &[(2, backend(2)), (3, backend(3))].into());
        assert_eq!(traffic.frontend(&frontend(1)).in_packets, 1011);
        assert_eq!(traffic.frontend(&frontend(1)).bytes(), 120);
        assert_eq!(traffic.frontend(&frontend(2)).packets(), 100);
        assert_eq!(traffic.backend(&backend(3)).in_packets, 10_110);
        let key = DestinationKey { addr: [10, 1, 1, 3].into(), port: 8080 };
        assert_eq!(traffic.destination(&frontend(1), key).in_packets, 10);
        assert_eq!(traffic.destination(&frontend(9), key), Traffic::default());
    }
}
