//! The flows that the hash plane remembers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use proxy_common::abi::{HashFlow, HashFlowState};
use tracing::warn;

use super::{HashPlane, RECOUNT};
use crate::{
    agent::drains::Key,
    chain::chain,
    kernel::bpf::{self, jiffy},
    model::{Frontend, Protocol},
    plan::hash_plane::{Carried, Member},
};

/// A flow that lives.
pub(super) struct Living<'a> {
    pub(super) frontend: Frontend,
    pub(super) client: SocketAddr,
    pub(super) member: &'a Member,
    pub(super) closing: bool,
    pub(super) idle: Duration,
}

impl HashPlane {
    /// Calls `tell` with each flow of the frontends that `wanted` names which lives `now`, in jiffies.
    pub(super) fn each_flow<'a>(
        &'a self,
        now: u32,
        wanted: impl Fn(&Frontend) -> bool,
        mut tell: impl FnMut(&'a Carried, Living<'a>),
    ) -> Result<(), bpf::Error> {
        let tick = jiffy()?;
        let carried = self.layout.carried().values().filter(|each| wanted(&each.frontend));
        let members =
            carried.flat_map(|carried| carried.members.iter().map(move |each| (carried, each)));
        // A backend is of one frontend: the flow need not be asked which.
        let members: BTreeMap<(u32, u32), (&Carried, &Member)> = members
            .map(|(carried, each)| ((each.index, each.generation), (carried, each)))
            .collect();
        let is_wanted = |of: fn(&IpAddr) -> bool| {
            members.values().any(|(carried, _)| of(&carried.frontend.addr))
        };
        let mut see = |client: SocketAddr, flow: HashFlow| {
            let Some((carried, member)) = members.get(&(flow.backend, flow.generation)) else {
                return;
            };
            let frontend = carried.frontend;
            let closing = flow.state == HashFlowState::CLOSING;
            let idle = tick * idle_jiffies(now, flow.seen);
            if idle < self.timeout(frontend.protocol, closing) {
                tell(carried, Living { frontend, client, member, closing, idle });
            }
        };
        // A map is read as a whole, however little is in it.
        if is_wanted(IpAddr::is_ipv4) {
            for (key, flow) in self.plane.maps.flows4()? {
                see((key.source, key.source_port).into(), flow);
            }
        }
        if is_wanted(IpAddr::is_ipv6) {
            for (key, flow) in self.plane.maps.flows6()? {
                see((key.source, key.source_port).into(), flow);
            }
        }
        Ok(())
    }

    /// After how long without a packet a flow is over.
    pub(super) fn timeout(&self, protocol: Protocol, closing: bool) -> Duration {
        let secs = match (protocol, closing) {
            (Protocol::Udp, _) => self.timeouts.udp_secs,
            (_, true) => self.timeouts.tcp_fin_secs,
            (_, false) => self.timeouts.tcp_secs,
        };
        Duration::from_secs(secs.into())
    }

    /// Returns those of the draining destinations that have flows here, as of a moment ago.
    pub(super) fn used_lately(&mut self, draining: &BTreeSet<Key>) -> BTreeSet<Key> {
        let carried = self.layout.carried();
        if !draining.iter().any(|(frontend, _)| carried.contains_key(frontend)) {
            return BTreeSet::new();
        }
        if !self.used.as_ref().is_some_and(|used| used.holds_for(draining, Instant::now())) {
            match self.look_for(draining) {
                Ok(used) => self.used = Some(used),
                Err(error) => {
                    // Their time runs out all the same.
                    warn!(event = "flows_unread", error = chain(&error), "drains go on");
                    return draining.clone();
                }
            }
        }
        self.used.as_ref().map(|used| used.found.clone()).unwrap_or_default()
    }

    fn look_for(&mut self, draining: &BTreeSet<Key>) -> Result<Used, bpf::Error> {
        let (at, now) = (Instant::now(), self.plane.jiffies()?);
        let frontends: BTreeSet<Frontend> =
            draining.iter().map(|(frontend, _)| *frontend).collect();
        let mut found = BTreeSet::new();
        self.each_flow(
            now,
            |frontend| frontends.contains(frontend),
            |_, flow| {
                found.insert((flow.frontend, flow.member.destination.key));
            },
        )?;
        found.retain(|key| draining.contains(key));
        Ok(Used { at, asked: draining.clone(), found })
    }
}

/// Which draining destinations had flows.
#[derive(Debug)]
pub(super) struct Used {
    at: Instant,
    /// Those that were looked for.
    asked: BTreeSet<Key>,
    /// Those that had any.
    found: BTreeSet<Key>,
}

impl Used {
    /// Says whether it still tells of all these: of one that came later it says nothing.
    fn holds_for(&self, draining: &BTreeSet<Key>, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < RECOUNT && draining.is_subset(&self.asked)
    }
}

/// How long ago a packet was seen. One may come between the reading of the clock and that of the
/// flow: it is not one of long ago.
fn idle_jiffies(now: u32, seen: u32) -> u32 {
    let since = now.wrapping_sub(seen);
    if since > u32::MAX / 2 { 0 } else { since }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DestinationKey;

    #[test]
    fn a_flow_whose_packet_came_after_the_clock_was_read_is_not_idle() {
        assert_eq!(idle_jiffies(1000, 1003), 0);
        assert_eq!(idle_jiffies(u32::MAX, 2), 0);
        assert_eq!(idle_jiffies(2, u32::MAX), 3);
        assert_eq!(idle_jiffies(1000, 900), 100);
    }

    #[test]
    fn a_destination_that_begins_to_drain_is_looked_for_at_once() {
        let key = |host: u8| {
            let addr = [192, 0, 2, 1].into();
            let frontend = Frontend { addr, port: 80, protocol: Protocol::Tcp };
            (frontend, DestinationKey { addr: [10, 0, 0, host].into(), port: 80 })
        };
        let at = Instant::now();
        let used = Used { at, asked: [key(1), key(2)].into(), found: [key(1)].into() };
        assert!(used.holds_for(&[key(2)].into(), at + RECOUNT / 2));
        assert!(!used.holds_for(&[key(2), key(3)].into(), at + RECOUNT / 2));
        assert!(!used.holds_for(&[key(2)].into(), at + RECOUNT));
    }
}
