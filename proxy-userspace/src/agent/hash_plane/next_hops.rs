//! The way to each backend: looked up when routes and neighbours change, confirmed and leased anew
//! from time to time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use proxy_common::abi::HashBackend;
use tracing::{error, info, warn};

use super::{HOLD, HashPlane, LOOK, TICK};
use crate::{
    chain::chain,
    kernel::bpf::{self, jiffy},
    model::{Unusable, Way},
    plan::hash_plane::{Carried, Member, backend},
};

impl HashPlane {
    /// Looks all next hops up, and writes what came of it.
    pub(super) async fn refresh_next_hops(&mut self) {
        let members = self.layout.carried().values().flat_map(|carried| &carried.members);
        let addrs: BTreeSet<IpAddr> = members.map(|member| member.destination.key.addr).collect();
        let found = match self.next_hops.resolve(&addrs).await {
            Ok(found) => found,
            Err(error) => {
                // Those that are known hold until their time is over.
                error!(
                    event = "next_hops_failed",
                    error = chain(&error),
                    "next hops are not renewed"
                );
                return;
            }
        };
        let unsure = found.values().filter_map(|found| found.unsure).collect();
        let ways =
            found.into_iter().map(|(addr, found)| (addr, self.within_reach(found.way))).collect();
        log_changes(&self.ways, &ways);
        let resolving = |way: &Way| *way == Way::Unresolved;
        let anew = ways
            .iter()
            .any(|(addr, way)| resolving(way) && !self.ways.get(addr).is_some_and(resolving));
        let after = match ways.values().any(resolving) {
            true if anew => TICK,
            true => (self.look.1 * 2).min(LOOK),
            false => LOOK,
        };
        self.look = (Instant::now() + after, after);
        self.ways = ways;
        if let Err(error) = self.next_hops.confirm(&unsure).await {
            warn!(
                event = "next_hops_unconfirmed",
                error = chain(&error),
                "neighbours are not asked"
            );
        }
        if let Err(error) = self.put_backends() {
            error!(event = "next_hops_failed", error = chain(&error), "next hops are not renewed");
        }
    }

    /// A frame may leave only where the program runs: other devices may drop what XDP sends them.
    fn within_reach(&self, way: Way) -> Way {
        match way {
            Way::Known(hop) if !self.running.contains_key(&hop.interface) => {
                Way::Unusable(Unusable::NotServed(hop.interface))
            }
            way => way,
        }
    }

    fn put_backends(&mut self) -> Result<(), bpf::Error> {
        let until = self.holds_until()?;
        let carried: Vec<Carried> = self.layout.carried().values().cloned().collect();
        let mut members = carried.iter().flat_map(|carried| &carried.members);
        members.try_for_each(|member| self.put_backend(member, until))
    }

    /// Writes a backend and the way to it, which holds until then.
    pub(super) fn put_backend(&mut self, member: &Member, until: u32) -> Result<(), bpf::Error> {
        let unknown = Way::Unresolved;
        let way = self.ways.get(&member.destination.key.addr).unwrap_or(&unknown);
        let value: HashBackend = backend(way, &member.destination, member.generation, until);
        self.plane.maps.put_backend(member.index, value)
    }

    /// Returns the jiffies until which a way holds that is written now.
    pub(super) fn holds_until(&mut self) -> Result<u32, bpf::Error> {
        let ticks = HOLD.as_nanos() / jiffy()?.as_nanos().max(1);
        Ok(self.plane.jiffies()?.wrapping_add(ticks as u32))
    }
}

fn log_changes(before: &BTreeMap<IpAddr, Way>, after: &BTreeMap<IpAddr, Way>) {
    for (addr, way) in after.iter().filter(|(addr, way)| before.get(addr) != Some(way)) {
        match way {
            Way::Known(_) => info!(event = "next_hop", backend = %addr, %way, "XDP can send to it"),
            _ => warn!(event = "next_hop_unknown", backend = %addr, %way, "IPVS sends to it"),
        }
    }
}
