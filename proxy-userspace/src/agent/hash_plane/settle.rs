//! After a pass: the hash plane follows what IPVS is now.

use std::collections::{BTreeMap, BTreeSet};

use proxy_common::{abi::HashBackend, hash::mh::Size};
use tracing::{error, info};

use super::{Agent, HashPlane, write::Taken};
use crate::{
    chain::chain,
    kernel::ipvs,
    model::{Destination, FastPath, Frontend, Scheduler, VirtualServer},
    plan::{
        Observed, ObservedServer,
        hash_plane::{Carried, HashPlane as Offer, Plane, Settled, WhyIpvs, plane},
    },
};

impl Agent {
    /// Makes the hash plane follow what IPVS is now.
    pub(in crate::agent) async fn settle_hash_plane(&mut self) {
        let Some(size) = self.hash_plane.on().map(|state| state.size) else { return };
        let (wanted, mut refused) = self.judge_frontends(size);
        let present = self.present.clone();
        self.claim_qdiscs_of_hash_plane(&present).await;
        let Some(state) = self.hash_plane.on() else { return };
        // Next hops are of use only where the program runs. It passes on what no map names.
        state.settle_uplinks(&self.settings.hash_plane, &present);
        state.withdraw_all_but(&wanted);
        let mut taken = Vec::new();
        for frontend in wanted {
            match state.follow(&self.node.ipvs, &self.observed, frontend).await {
                Ok(Followed::Same) => {}
                Ok(Followed::Changed(server)) => taken.push(server),
                Ok(Followed::Refused(why)) => {
                    // XDP may not go on by what IPVS is no more.
                    state.withdraw(&frontend);
                    refused.insert(frontend, why);
                }
                Err(error) => {
                    refused.insert(frontend, state.give_up(&frontend, chain(&error)));
                }
            }
        }
        for (frontend, why) in state.write(&taken) {
            refused.insert(frontend, state.give_up(&frontend, why));
        }
        state.refused = refused;
        state.listed = None;
        if !taken.is_empty() {
            let changed = taken.iter().map(|each| each.carried.frontend).collect();
            state.refresh_next_hops().await;
            state.hand_over(&changed);
            info!(
                event = "hash_plane_changed",
                frontends = changed.len(),
                "the hash plane follows"
            );
        }
    }

    /// Returns the frontends with scheduler `mh` that are the hash plane's, and why others are not.
    fn judge_frontends(&mut self, size: Size) -> (BTreeSet<Frontend>, BTreeMap<Frontend, String>) {
        let offer = Offer { on: true, size: Some(size) };
        let servers = self.planner.desired().servers.iter();
        let judged: Vec<_> = servers
            .filter(|(_, server)| server.virtual_server.scheduler == Scheduler::Mh)
            .map(|(frontend, server)| {
                (*frontend, plane(server, offer), server.service.service.clone())
            })
            .collect();
        let (mut wanted, mut refused) = (BTreeSet::new(), BTreeMap::new());
        for (frontend, plane, service) in judged {
            let service = self.planner.snapshot().services.get(&service);
            let off = service.is_some_and(|service| service.fast_path == FastPath::Off);
            let why = match plane {
                Plane::Ipvs(why) => why,
                Plane::Hash if off => WhyIpvs::Off,
                Plane::Hash => {
                    wanted.insert(frontend);
                    continue;
                }
            };
            refused.insert(frontend, why.to_string());
        }
        (wanted, refused)
    }
}

/// What became of a frontend.
enum Followed {
    Same,
    Changed(Taken),
    Refused(String),
}

impl HashPlane {
    /// Takes a frontend up, if it is not what it was.
    async fn follow(
        &mut self,
        client: &ipvs::Client,
        observed: &Observed,
        frontend: Frontend,
    ) -> Result<Followed, ipvs::Error> {
        let Some(server) = observed.servers.get(&frontend) else {
            self.withdraw(&frontend);
            // Who makes it next is seen.
            self.found.remove(&frontend);
            return Ok(Followed::Refused("not in IPVS yet".into()));
        };
        if !server.owned {
            return Ok(Followed::Refused("its virtual server is somebody else's".into()));
        }
        if self.layout.carried().get(&frontend).is_some_and(|carried| is_as(carried, server))
            && self.slots.contains_key(&frontend)
        {
            return Ok(Followed::Same);
        }
        // The kernel's own order counts, whatever was planned.
        let states = client.destinations(&frontend).await?;
        let destinations: Vec<Destination> = states.iter().map(|state| state.destination).collect();
        let connections = states
            .iter()
            .map(|state| state.active_connections.saturating_add(state.inactive_connections))
            .fold(0, u32::saturating_add);
        Ok(self.take_up(&server.virtual_server, &destinations, connections))
    }

    fn take_up(
        &mut self,
        server: &VirtualServer,
        destinations: &[Destination],
        connections: u32,
    ) -> Followed {
        let frontend = server.frontend;
        let seen_made = !self.found.contains(&frontend);
        let was_carried = self.layout.carried().contains_key(&frontend);
        let gone = match self.layout.settle(server, destinations, seen_made) {
            Settled::Same => Vec::new(),
            Settled::Changed { gone } => gone,
            Settled::UnknownWeight(key) => {
                return Followed::Refused(format!(
                    "{key} drained before anybody looked: which clients it has kept is not known"
                ));
            }
            Settled::Full => return Followed::Refused("the maps are full".into()),
        };
        match self.layout.carried().get(&frontend).cloned() {
            Some(carried) => Followed::Changed(Taken { carried, was_carried, connections, gone }),
            None => Followed::Same,
        }
    }

    /// Leaves a frontend to IPVS because of an error, and returns that.
    fn give_up(&mut self, frontend: &Frontend, error: String) -> String {
        error!(event = "hash_frontend_failed", %frontend, error, "IPVS serves it");
        self.withdraw(frontend);
        error
    }

    fn withdraw_all_but(&mut self, wanted: &BTreeSet<Frontend>) {
        let unwanted: Vec<Frontend> =
            self.layout.carried().keys().filter(|key| !wanted.contains(key)).copied().collect();
        unwanted.iter().for_each(|frontend| self.withdraw(frontend));
    }

    /// Leaves a frontend to IPVS, which is told of all its flows before they reach it.
    fn withdraw(&mut self, frontend: &Frontend) {
        if !self.layout.carried().contains_key(frontend) {
            return;
        }
        self.hand_over_all(frontend);
        let Some(carried) = self.layout.withdraw(frontend) else { return };
        // What happens to it from now on is not seen.
        self.found.insert(*frontend);
        self.slots.remove(frontend);
        self.marked_at.remove(frontend);
        let mut results = vec![self.plane.maps.remove_frontend(frontend)];
        let members = carried.members.iter();
        results.extend(
            members.map(|each| self.plane.maps.put_backend(each.index, HashBackend::default())),
        );
        results.push(self.plane.maps.remove_table(carried.table));
        for error in results.into_iter().filter_map(Result::err) {
            let error = chain(&error);
            error!(event = "hash_frontend_stays", %frontend, error, "XDP still serves it");
        }
        if let Err(error) = self.keep() {
            error!(event = "hash_layout_lost", error = chain(&error), "the layout is not kept");
        }
        info!(event = "hash_frontend_left", %frontend, "IPVS serves it");
    }
}

/// Says whether the members are what IPVS has.
fn is_as(carried: &Carried, server: &ObservedServer) -> bool {
    // The kernel lists the newest first.
    let order = server.order.iter().rev();
    carried.flags == server.virtual_server.flags
        && carried.members.len() == server.order.len()
        && carried
            .members
            .iter()
            .zip(order)
            .all(|(member, key)| server.destinations.get(key) == Some(&member.destination))
}
