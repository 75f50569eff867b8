//! The flows that the hash plane remembers.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proxy_common::abi::{HashFlow, HashFlowKey, HashFlowState};

use tracing::warn;

use super::{HashPlane, RECOUNT};
use crate::{
    chain::chain,
    kernel::bpf::{self, jiffy},
    model::{DestinationKey, Frontend, Protocol},
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
        let mut see = |frontend: Option<Frontend>, client: SocketAddr, flow: HashFlow| {
            let Some(frontend) = frontend.filter(|frontend| wanted(frontend)) else { return };
            let Some(carried) = self.layout.carried().get(&frontend) else { return };
            let member = carried.members.iter().find(|member| {
                (member.index, member.generation) == (flow.backend, flow.generation)
            });
            let Some(member) = member else { return };
            let closing = flow.state == HashFlowState::CLOSING;
            let idle = tick * idle_jiffies(now, flow.seen);
            if idle < self.timeout(frontend.protocol, closing) {
                tell(carried, Living { frontend, client, member, closing, idle });
            }
        };
        for (key, flow) in self.plane.maps.flows4()? {
            see(dialled(&key), (key.source, key.source_port).into(), flow);
        }
        for (key, flow) in self.plane.maps.flows6()? {
            see(dialled(&key), (key.source, key.source_port).into(), flow);
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

    /// Returns the destinations of these frontends that have flows here, as of a moment ago.
    pub(super) fn used_lately(
        &mut self,
        frontends: &BTreeSet<Frontend>,
    ) -> BTreeSet<(Frontend, DestinationKey)> {
        let carried = self.layout.carried();
        if !frontends.iter().any(|frontend| carried.contains_key(frontend)) {
            return BTreeSet::new();
        }
        if self.used.0.is_none_or(|at| at.elapsed() >= RECOUNT) {
            match self.used(frontends) {
                Ok(used) => self.used = (Some(Instant::now()), used),
                Err(error) => {
                    warn!(event = "flows_unread", error = chain(&error), "drains may end early");
                }
            }
        }
        self.used.1.clone()
    }

    fn used(
        &mut self,
        frontends: &BTreeSet<Frontend>,
    ) -> Result<BTreeSet<(Frontend, DestinationKey)>, bpf::Error> {
        let mut used = BTreeSet::new();
        let now = self.plane.jiffies()?;
        self.each_flow(
            now,
            |frontend| frontends.contains(frontend),
            |_, flow| {
                used.insert((flow.frontend, flow.member.destination.key));
            },
        )?;
        Ok(used)
    }
}

/// How long ago a packet was seen. One may come between the reading of the clock and that of the
/// flow: it is not one of long ago.
fn idle_jiffies(now: u32, seen: u32) -> u32 {
    let since = now.wrapping_sub(seen);
    if since > u32::MAX / 2 { 0 } else { since }
}

fn dialled<A: Into<std::net::IpAddr> + Copy>(key: &HashFlowKey<A>) -> Option<Frontend> {
    Some(Frontend {
        addr: key.destination.into(),
        port: key.destination_port,
        protocol: Protocol::from_number(key.protocol)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_whose_packet_came_after_the_clock_was_read_is_not_idle() {
        assert_eq!(idle_jiffies(1000, 1003), 0);
        assert_eq!(idle_jiffies(u32::MAX, 2), 0);
        assert_eq!(idle_jiffies(2, u32::MAX), 3);
        assert_eq!(idle_jiffies(1000, 900), 100);
    }
}
