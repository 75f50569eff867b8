//! The agent's view of its fast path, as `passlane flows` and `passlane status` print it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_common::abi::LEARN_AFTER;
use proxy_common::reason::{Class, Reason};
use serde::Deserialize;
use serde_json::Value;

use crate::agent::Agent;
use crate::wait;

/// One entry of the flow table: one direction of a connection.
#[derive(Clone, Debug, Deserialize)]
pub struct Flow {
    /// Sender, as packets arrive.
    pub source: SocketAddr,
    /// Receiver, as packets arrive.
    pub destination: SocketAddr,
    /// `TCP` or `UDP`.
    pub protocol: String,
    /// The interface packets arrive on.
    pub interface: String,
    /// Sender, as packets leave.
    pub new_source: SocketAddr,
    /// Receiver, as packets leave.
    pub new_destination: SocketAddr,
    /// `learning`, `active` or `closing`.
    pub state: String,
    /// Packets the fast path forwarded.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Milliseconds until the hard lease ends; nothing without one.
    pub lease_left_ms: Option<u64>,
}

impl Flow {
    /// Whether packets of this flow take the fast path.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == "active"
    }
}

/// Returns all flows.
pub fn flows(agent: &Agent) -> Result<Vec<Flow>> {
    let json = agent.json("flows")?["items"].take();
    serde_json::from_value(json.clone()).with_context(|| format!("flows: {json}"))
}

/// Returns the flow from `source` to `destination`, if there is one.
pub fn flow(agent: &Agent, source: SocketAddr, destination: SocketAddr) -> Result<Option<Flow>> {
    let wanted = |flow: &Flow| flow.source == source && flow.destination == destination;
    Ok(flows(agent)?.into_iter().find(wanted))
}

/// Returns when the first of the hard leases of the flow `source` → `to` and of its answers ends;
/// nothing when one of them is not on the fast path.
pub fn lease_left(agent: &Agent, source: SocketAddr, to: SocketAddr) -> Result<Option<Duration>> {
    let flows = flows(agent)?;
    let forth = flows.iter().find(|flow| flow.source == source && flow.destination == to);
    let back = |forth: &&Flow| {
        flows.iter().find(|answer| {
            answer.source == forth.new_destination && answer.new_destination == source
        })
    };
    let left = |flow: &Flow| flow.lease_left_ms.filter(|_| flow.is_active());
    let both = forth.and_then(|flow| Some((left(flow)?, left(back(&flow)?)?)));
    Ok(both.map(|(forth, back)| Duration::from_millis(forth.min(back))))
}

/// Repeats `exchange` until the flow `source` → `to` and its answers are active.
pub fn drive(
    agent: &Agent,
    source: SocketAddr,
    to: SocketAddr,
    mut exchange: impl FnMut() -> Result<()>,
) -> Result<Flow> {
    // As many as it takes when nothing comes between.
    for _ in 0..LEARN_AFTER {
        exchange()?;
    }
    wait::until("the flow is on the fast path", wait::PATIENCE, || {
        exchange()?;
        let flows = flows(agent)?;
        let ours = |flow: &&Flow| flow.source == source && flow.destination == to;
        let Some(flow) = flows.iter().find(ours).filter(|flow| flow.is_active()) else {
            return Ok(None);
        };
        let back = flows.iter().find(|answer| {
            answer.source == flow.new_destination && answer.new_destination == source
        });
        Ok(back.filter(|back| back.is_active()).map(|_| flow.clone()))
    })
    .with_context(|| agent.text(&["flows"]).unwrap_or_else(|error| error.to_string()))
    .with_context(|| format!("{:?}", Counters::read(agent)))
}

/// Packets by what became of them: `hit`, and the reasons for the slow path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Reads them from `passlane status`.
    pub fn read(agent: &Agent) -> Result<Self> {
        Self::of_status(&agent.status()?)
    }

    /// Takes them from a status.
    pub fn of_status(status: &Value) -> Result<Self> {
        let counters = status["counters"].clone();
        Ok(Self(serde_json::from_value(counters).with_context(|| format!("counters: {status}"))?))
    }

    /// Packets since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let since =
            |(name, count): (&String, &u64)| (name.clone(), count.saturating_sub(before.of(name)));
        Self(self.0.iter().map(since).collect())
    }

    /// Packets counted under `name`.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Packets the fast path forwarded.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.of_class(Class::Fast)
    }

    /// Packets of known Services that took the slow path.
    #[must_use]
    pub fn slow(&self) -> u64 {
        self.of_class(Class::Slow)
    }

    /// The part of the packets of known Services that took the fast path, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let all = self.hits() + self.slow();
        if all == 0 { 0.0 } else { self.hits() as f64 / all as f64 }
    }

    fn of_class(&self, class: Class) -> u64 {
        let reasons = Reason::ALL.iter().filter(|reason| reason.class() == class);
        reasons.map(|reason| self.of(reason.name())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_no_service_does_not_lower_the_share() {
        let status = serde_json::json!(
            {"counters": {"hit": 90, "no_flow": 4, "elected": 6, "not_service": 1000}}
        );
        let counters = Counters::of_status(&status).unwrap();
        assert_eq!((counters.hits(), counters.slow()), (90, 10));
        assert!((counters.share() - 0.9).abs() < f64::EPSILON);
    }
}
