//! The way to each backend: looked up when routes and neighbours change, confirmed and leased anew
//! from time to time.

use std::{collections::BTreeSet, net::IpAddr};

use proxy_common::abi::HashBackend;
use tracing::{error, info, warn};

use super::{HOLD, HashPlane};
use crate::{
    chain::chain,
    kernel::bpf::{self, jiffy},
    model::{Way, interface::Interface},
    plan::hash_plane::{Carried, Member, backend},
};

impl HashPlane {
    /// Looks all next hops up, and writes what came of it.
    pub(super) async fn refresh_next_hops(&mut self, present: &[Interface]) {
        let members = self.layout.carried().values().flat_map(|carried| &carried.members);
        let addrs: BTreeSet<IpAddr> = members.map(|member| member.destination.key.addr).collect();
        let addrs: Vec<IpAddr> = addrs.into_iter().collect();
        let ways = match self.next_hops.resolve(&addrs, present).await {
            Ok(ways) => ways,
            Err(error) => {
                // Those that are known hold until their time is over.
                error!(event = "next_hops_failed", error = chain(&error), "next hops are not renewed");
                return;
            }
        };
        for (addr, way) in &ways {
            match (self.ways.get(addr), way) {
                (Some(before), way) if before == way => {}
                (_, Way::Known(hop)) => {
                    info!(event = "next_hop", backend = %addr, interface = hop.interface, "a way to a backend");
                }
                (_, way) => warn!(event = "next_hop_unknown", backend = %addr, %way, "IPVS sends to it"),
            }
        }
        self.ways = ways;
        if let Err(error) = self.next_hops.confirm(&self.ways).await {
            warn!(event = "next_hops_unconfirmed", error = chain(&error), "neighbours are not asked");
        }
        if let Err(error) = self.put_backends() {
            error!(event = "next_hops_failed", error = chain(&error), "next hops are not renewed");
        }
    }

    fn put_backends(&mut self) -> Result<(), bpf::Error> {
        let carried: Vec<Carried> = self.layout.carried().values().cloned().collect();
        for carried in &carried {
            for member in &carried.members {
                self.put_backend(carried, member)?;
            }
        }
        Ok(())
    }

    /// Writes a backend and the way to it.
    pub(super) fn put_backend(
        &mut self,
        carried: &Carried,
        member: &Member,
    ) -> Result<(), bpf::Error> {
        let until = self.holds_until()?;
        let unknown = Way::Unresolved;
        let way = self.ways.get(&member.destination.key.addr).unwrap_or(&unknown);
        let value: HashBackend =
            backend(way, carried.family(), &member.destination, member.generation, until);
        self.plane.maps.put_backend(member.index, value)
    }

    fn holds_until(&mut self) -> Result<u32, bpf::Error> {
        let ticks = HOLD.as_nanos() / jiffy()?.as_nanos().max(1);
        Ok(self.plane.jiffies()?.wrapping_add(ticks as u32))
    }
}
