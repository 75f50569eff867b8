//! Who has which frontend: of those who claim it the first by seniority.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use super::{DesiredServer, Origin};
use crate::model::{Frontend, Notice, ServiceName, ServicePortName};

/// Who comes first: whose cluster IP it is, since that is allocated to one Service alone, and an
/// external IP is whatever a user writes (CVE-2020-8554); then the older Service (one without an
/// age is the youngest), then the first by namespace, name and port, then by the kind of address.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Seniority {
    outside: bool,
    created_at: i64,
    service: ServicePortName,
    origin: Origin,
}

impl Seniority {
    fn of(server: &DesiredServer) -> Self {
        Self {
            outside: !matches!(server.origin, Origin::ClusterIp | Origin::Inside),
            created_at: server.created_at.unwrap_or(i64::MAX),
            service: server.service.clone(),
            origin: server.origin,
        }
    }
}

/// All claims: of each frontend those who do not have it, and of each Service what it claims.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Claims {
    waiting: BTreeMap<Frontend, BTreeMap<Seniority, DesiredServer>>,
    of_service: BTreeMap<ServiceName, Vec<Frontend>>,
}

impl Claims {
    /// Withdraws every claim of a Service. Returns the frontends.
    pub(super) fn withdraw(
        &mut self,
        service: &ServiceName,
        servers: &mut BTreeMap<Frontend, DesiredServer>,
    ) -> Vec<(Frontend, Option<DesiredServer>)> {
        let frontends = self.of_service.remove(service).unwrap_or_default();
        let mut withdrawn = Vec::new();
        for frontend in frontends {
            if let Entry::Occupied(mut entry) = self.waiting.entry(frontend) {
                entry.get_mut().retain(|seniority, _| seniority.service.service != *service);
                if entry.get().is_empty() {
                    entry.remove();
                }
            }
            let held = match servers.entry(frontend) {
                Entry::Occupied(entry) if entry.get().service.service == *service => {
                    Some(entry.remove())
                }
                _ => None,
            };
            withdrawn.push((frontend, held));
        }
        withdrawn
    }

    /// Lets a server wait for its frontend.
    pub(super) fn claim(&mut self, server: DesiredServer) {
        let frontend = server.virtual_server.frontend;
        let service = server.service.service.clone();
        let frontends = self.of_service.entry(service).or_default();
        if !frontends.contains(&frontend) {
            frontends.push(frontend);
        }
        let waiting = self.waiting.entry(frontend).or_default();
        waiting.entry(Seniority::of(&server)).or_insert(server);
    }

    /// Gives the frontend to the first by seniority. Returns who lost it and who got it.
    pub(super) fn settle(
        &mut self,
        frontend: Frontend,
        servers: &mut BTreeMap<Frontend, DesiredServer>,
    ) -> Settled {
        let Entry::Occupied(mut waiting) = self.waiting.entry(frontend) else {
            return Settled::default();
        };
        let Some(first) = waiting.get().keys().next().cloned() else { return Settled::default() };
        if servers.get(&frontend).is_some_and(|held| Seniority::of(held) <= first) {
            return Settled::default();
        }
        let gained = waiting.get_mut().remove(&first);
        let lost = servers.remove(&frontend);
        if let Some(lost) = &lost {
            waiting.get_mut().insert(Seniority::of(lost), lost.clone());
        }
        if waiting.get().is_empty() {
            waiting.remove();
        }
        if let Some(server) = &gained {
            servers.insert(frontend, server.clone());
        }
        Settled { lost, gained }
    }

    /// Returns who claims what another one has.
    pub(super) fn notices(&self, servers: &BTreeMap<Frontend, DesiredServer>) -> BTreeSet<Notice> {
        let mut notices = BTreeSet::new();
        for (frontend, waiting) in &self.waiting {
            let Some(holder) = servers.get(frontend) else { continue };
            // A Service that has one address in two ways has it.
            let losers = waiting.values().filter(|loser| loser.service != holder.service);
            notices.extend(losers.map(|loser| taken(*frontend, holder, loser)));
        }
        notices
    }
}

/// What [`Claims::settle`] changed.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) lost: Option<DesiredServer>,
    pub(super) gained: Option<DesiredServer>,
}

fn taken(frontend: Frontend, holder: &DesiredServer, loser: &DesiredServer) -> Notice {
    let (winner, loser_name) = (holder.service.clone(), loser.service.clone());
    let by_node_port =
        |server: &DesiredServer| matches!(server.origin, Origin::NodePort | Origin::Loopback);
    if by_node_port(holder) && by_node_port(loser) {
        let Frontend { protocol, port, .. } = frontend;
        return Notice::NodePortTaken { protocol, port, winner, loser: loser_name };
    }
    Notice::FrontendTaken { frontend, winner, loser: loser_name }
}
