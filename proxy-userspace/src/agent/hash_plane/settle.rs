//! After a pass: the maps follow IPVS. Backends go before the table, the table before the frontend
//! that leads to it, and what is gone goes last.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use proxy_common::{
    abi::{HashBackend, HashFrontend},
    hash::mh::Size,
};
use tracing::{error, info};

use super::{Agent, HashPlane};
use crate::{
    chain::chain,
    kernel::{bpf, ipvs},
    model::{Destination, FastPath, Frontend, Scheduler, VirtualServer},
    plan::{
        Observed, ObservedServer,
        hash_plane::{Carried, HashPlane as Offer, Plane, Settled, Slots, WhyIpvs, plane},
    },
};

/// Why a frontend could not be taken up or kept.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Ipvs(#[from] ipvs::Error),
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    #[error("{0}")]
    TooMany(proxy_common::hash::mh::TooMany),
    #[error("keep {path}")]
    Keep { path: String, source: std::io::Error },
}

impl Agent {
    /// Makes the hash plane follow what IPVS is now.
    pub(in crate::agent) async fn settle_hash_plane(&mut self) {
        let Some(size) = self.hash_plane.on().map(|state| state.size) else { return };
        let (wanted, mut refused) = self.judge_frontends(size);
        let Some(state) = self.hash_plane.on() else { return };
        // Next hops are of use only where the program runs. It passes on what no map names.
        state.settle_uplinks(&self.settings.hash_plane, &self.present);
        state.withdraw_all_but(&wanted);
        let mut changed = BTreeSet::new();
        for frontend in wanted {
            match state.follow(&self.node.ipvs, &self.observed, frontend).await {
                Ok(Followed::Same) => {}
                Ok(Followed::Changed) => {
                    changed.insert(frontend);
                }
                Ok(Followed::Refused(why)) => {
                    // XDP may not go on by what IPVS is no more.
                    state.withdraw(&frontend);
                    refused.insert(frontend, why);
                }
                Err(error) => {
                    let error = chain(&error);
                    error!(event = "hash_frontend_failed", %frontend, error, "IPVS serves it");
                    state.withdraw(&frontend);
                    refused.insert(frontend, error);
                }
            }
        }
        state.refused = refused;
        state.listed = None;
        if !changed.is_empty() {
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
    Changed,
    Refused(String),
}

impl HashPlane {
    /// Takes a frontend up, if it is not what it was.
    async fn follow(
        &mut self,
        client: &ipvs::Client,
        observed: &Observed,
        frontend: Frontend,
    ) -> Result<Followed, Error> {
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
        self.take_up(&server.virtual_server, &destinations, connections)
    }

    fn take_up(
        &mut self,
        server: &VirtualServer,
        destinations: &[Destination],
        connections: u32,
    ) -> Result<Followed, Error> {
        let frontend = server.frontend;
        let seen_made = !self.found.contains(&frontend);
        let was_carried = self.layout.carried().contains_key(&frontend);
        let gone = match self.layout.settle(server, destinations, seen_made) {
            Settled::Same => Vec::new(),
            Settled::Changed { gone } => gone,
            Settled::UnknownWeight(key) => {
                return Ok(Followed::Refused(format!(
                    "{key} drained before anybody looked: which clients it has kept is not known"
                )));
            }
            Settled::Full => return Ok(Followed::Refused("the maps are full".into())),
        };
        let Some(carried) = self.layout.carried().get(&frontend).cloned() else {
            return Ok(Followed::Same);
        };
        let written = self.write(&carried, was_carried, connections);
        // Also where that failed: nobody else knows of them any more.
        for member in gone {
            self.plane.maps.put_backend(member.index, HashBackend::default())?;
        }
        let slots = written?;
        if slots.is_marked(&carried) {
            self.marked_at.insert(frontend, Instant::now());
        }
        self.slots.insert(frontend, slots);
        Ok(Followed::Changed)
    }

    fn write(
        &mut self,
        carried: &Carried,
        was_carried: bool,
        connections: u32,
    ) -> Result<Slots, Error> {
        // First on the disk: an index is never given out twice.
        self.keep()?;
        let until = self.holds_until()?;
        for member in &carried.members {
            if self.plane.maps.backend(member.index)?.generation != member.generation {
                self.plane.maps.zero_count(member.index)?;
            }
            self.put_backend(member, until)?;
        }
        let slots = self.build(carried, was_carried, connections)?;
        self.plane.maps.put_table(carried.table, slots.values())?;
        let value = HashFrontend { table: carried.table, flags: carried.flags.0 };
        self.plane.maps.put_frontend(&carried.frontend, value)?;
        Ok(slots)
    }

    /// Returns the table that the map shall have. `was_carried` says that clients were sent by one
    /// before.
    fn build(&mut self, carried: &Carried, was_carried: bool, known: u32) -> Result<Slots, Error> {
        let held = self.slots.get(&carried.frontend).map(|slots| slots.values().to_vec());
        let before = match held {
            Some(before) => Some(before),
            // What an earlier agent left in the map; it takes CAP_SYS_ADMIN to read it.
            None if was_carried => self.plane.maps.table(carried.table).ok(),
            None => None,
        };
        let values = before.as_deref().unwrap_or_default();
        let mut slots = Slots::build(self.size, carried, values).map_err(Error::TooMany)?;
        // Where IPVS served until now, it alone knows where flows live.
        let is_known = match (&before, was_carried) {
            (Some(_), _) => true,
            (None, true) => false,
            (None, false) => self.adopt(carried, &slots, known),
        };
        if !is_known {
            slots.mark_all();
        }
        Ok(slots)
    }

    fn keep(&self) -> Result<(), Error> {
        let failed = |source| Error::Keep { path: self.path.display().to_string(), source };
        let text =
            serde_json::to_vec(&self.layout).map_err(std::io::Error::from).map_err(failed)?;
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(failed)
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
