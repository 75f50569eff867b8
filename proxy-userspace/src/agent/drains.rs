//! How long an endpoint that left its Service keeps its connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    kernel::ipvs,
    model::{DestinationKey, Frontend},
    plan::{Desired, Plan},
};

/// A destination of a virtual server.
pub(super) type Key = (Frontend, DestinationKey);

/// Destinations at weight 0 whose connections are waited for. Nothing here outlives the agent: the
/// next one finds them in IPVS, and gives them a whole term again.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Since when; `None` for those that may take as long as they like.
    since: BTreeMap<Key, Option<Instant>>,
}

impl Waiting {
    /// Takes up what a plan left to drain.
    pub(super) fn take(&mut self, plan: &Plan) {
        for key in &plan.draining {
            self.since.entry(*key).or_default().get_or_insert_with(Instant::now);
        }
        for key in &plan.lingering {
            self.since.insert(*key, None);
        }
    }

    /// Forgets all of them: the next plan names those that are left.
    pub(super) fn clear_but(&mut self, plan: &Plan) {
        self.since.retain(|key, _| plan.draining.contains(key) || plan.lingering.contains(key));
        self.take(plan);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// Returns those that are waited for.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        self.since.keys().copied().collect()
    }

    /// Returns those whose connections have ended, or whose time is over, and forgets them with
    /// those that are wanted again. `used` are those that the hash plane has flows of.
    pub(super) async fn over(
        &mut self,
        ipvs: &ipvs::Client,
        desired: &Desired,
        timeout: Duration,
        used: &BTreeSet<Key>,
    ) -> BTreeSet<Key> {
        let wanted = |(frontend, key): &Key| {
            let server = desired.servers.get(frontend);
            server.is_none_or(|server| server.destinations.contains_key(key))
        };
        self.since.retain(|key, _| !wanted(key));
        let mut over = BTreeSet::new();
        let frontends: BTreeSet<Frontend> = self.since.keys().map(|(key, _)| *key).collect();
        for frontend in frontends {
            // What cannot be read now is asked again; its time runs out all the same.
            let states = ipvs.destinations(&frontend).await.unwrap_or_default();
            let idle = states
                .iter()
                .filter(|state| state.active_connections == 0 && state.inactive_connections == 0);
            over.extend(idle.map(|state| (frontend, state.destination.key)));
        }
        over.retain(|key| self.since.contains_key(key) && !used.contains(key));
        let late = |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() >= timeout);
        let late = self.since.iter().filter(|(_, since)| late(since));
        over.extend(late.map(|(key, _)| *key));
        self.since.retain(|key, _| !over.contains(key));
        over
    }
}
