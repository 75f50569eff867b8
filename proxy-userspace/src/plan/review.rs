//! What is wanted, what the kernel's tables hold, and what the BPF maps hold, side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    Action, Desired, DesiredServer, Drift, Observed, Plan,
    drift::{Object, Shown, Subsystem, objects, settings, way},
};
use crate::model::{Backend, DestinationKey, FastPath, Frontend};

/// How the three sides of an object stand.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Somebody changed it behind the agent's back.
    Drift,
    /// The agent has still to change it: a pass waits or failed.
    Pending,
    /// Nobody wants it any more; its connections are waited for.
    Draining,
    /// Somebody else has what a Service wants.
    Foreign,
    /// All sides agree.
    Same,
}

/// One object on its three sides.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub object: String,
    /// The Service port it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What Kubernetes or the file calls for.
    pub wanted: String,
    /// What IPVS, nft, routes, sysctls and interfaces hold.
    pub kernel: String,
    /// What the BPF maps hold.
    pub bpf: String,
    /// How they stand.
    pub state: State,
}

/// How a side is written that has nothing.
const NOTHING: &str = "nothing";
/// How a side is written that has no say.
const NO_SAY: &str = "-";

/// Returns a row for each virtual server and destination, and for everything else that is not as it
/// should be: `plan` is what would be done about `found`, `drifts` what others did.
pub fn rows(desired: &Desired, found: &Observed, plan: &Plan, drifts: &[Drift]) -> Vec<Row> {
    let pending: BTreeSet<Object> = plan.actions.iter().flat_map(touched).collect();
    let mut review =
        Review { desired, found, plan, drifted: objects(drifts), pending, told: BTreeSet::new() };
    let mut rows = Vec::new();
    for (frontend, server) in &desired.servers {
        if server.leads_to.is_none() {
            review.server(*frontend, server, &mut rows);
        }
    }
    review.others(drifts, &mut rows);
    rows
}

struct Review<'a> {
    desired: &'a Desired,
    found: &'a Observed,
    plan: &'a Plan,
    drifted: BTreeSet<&'a Object>,
    pending: BTreeSet<Object>,
    /// Objects that have a row.
    told: BTreeSet<Object>,
}

impl Review<'_> {
    fn server(&mut self, frontend: Frontend, server: &DesiredServer, rows: &mut Vec<Row>) {
        let held = self.found.servers.get(&frontend);
        let service = Some(server.service.to_string());
        let learns = server.fast_path != FastPath::Off;
        let foreign = held.is_some_and(|held| !held.owned);
        let row = Row {
            object: Object::VirtualServer(frontend).to_string(),
            service: service.clone(),
            wanted: settings(&server.virtual_server),
            kernel: held.map_or(NOTHING.into(), |held| settings(&held.virtual_server)),
            bpf: self.entry(self.found.frontends.get(&frontend), !foreign),
            state: if foreign {
                State::Foreign
            } else {
                self.state([Object::VirtualServer(frontend), Object::FrontendEntry(frontend)])
            },
        };
        rows.push(row);
        let Some(held) = held.filter(|held| held.owned) else { return };
        let keys: BTreeSet<DestinationKey> =
            server.destinations.keys().chain(held.destinations.keys()).copied().collect();
        for key in keys {
            let backend = Backend::new(key, frontend.protocol);
            let mut state =
                self.state([Object::Destination(frontend, key), Object::BackendEntry(backend)]);
            let kept = (frontend, key);
            let drains = self.plan.draining.contains(&kept) || self.plan.lingering.contains(&kept);
            if state == State::Same && drains {
                state = State::Draining;
            }
            let wanted = server.destinations.get(&key);
            rows.push(Row {
                object: Object::Destination(frontend, key).to_string(),
                service: service.clone(),
                wanted: wanted.map_or(NOTHING.into(), way),
                kernel: held.destinations.get(&key).map_or(NOTHING.into(), way),
                bpf: self.entry(self.found.backends.get(&backend), learns && wanted.is_some()),
                state,
            });
        }
    }

    fn entry<V: Shown>(&self, entry: Option<&V>, wanted: bool) -> String {
        match entry {
            _ if !self.found.fast_path => NO_SAY.into(),
            Some(entry) => entry.shown(),
            None if wanted => NOTHING.into(),
            None => NO_SAY.into(),
        }
    }

    fn state(&mut self, objects: [Object; 2]) -> State {
        let state = if objects.iter().any(|object| self.drifted.contains(object)) {
            State::Drift
        } else if objects.iter().any(|object| self.pending.contains(object)) {
            State::Pending
        } else {
            State::Same
        };
        self.told.extend(objects);
        state
    }

    /// What is no virtual server and no destination has a row only when something is wrong.
    fn others(&self, drifts: &[Drift], rows: &mut Vec<Row>) {
        let mut others = BTreeMap::new();
        for drift in drifts.iter().filter(|drift| !self.told.contains(&drift.object)) {
            others.insert(&drift.object, (drift.expected.clone(), drift.found.clone()));
        }
        for (object, (wanted, found)) in others {
            rows.push(self.other(object, wanted, found, State::Drift));
        }
        let waiting = self
            .pending
            .iter()
            .filter(|object| !self.told.contains(object) && !self.drifted.contains(object));
        for object in waiting {
            let (wanted, found) = self.sides(object);
            rows.push(self.other(object, wanted.into(), found.into(), State::Pending));
        }
    }

    fn other(&self, object: &Object, wanted: String, found: String, state: State) -> Row {
        let (kernel, bpf) = match object.subsystem() {
            Subsystem::Bpf | Subsystem::Program => (NO_SAY.into(), found),
            _ => (found, NO_SAY.into()),
        };
        let service = object.service(self.desired).map(|service| service.to_string());
        Row { object: object.to_string(), service, wanted, kernel, bpf, state }
    }

    fn sides(&self, object: &Object) -> (&'static str, &'static str) {
        let there = match object {
            Object::Vip(addr) => self.found.vips.contains(addr),
            Object::Element(element) => {
                self.found.table.as_ref().is_some_and(|table| table.elements.contains(element))
            }
            Object::VirtualServer(frontend) | Object::Destination(frontend, _) => {
                self.found.servers.contains_key(frontend)
            }
            Object::FrontendEntry(frontend) => self.found.frontends.contains_key(frontend),
            Object::BackendEntry(backend) => self.found.backends.contains_key(backend),
            Object::LocalPort(frontend) => {
                self.found.local_ports.as_ref().is_some_and(|ports| ports.contains_key(frontend))
            }
            _ => false,
        };
        if there { (NOTHING, "there") } else { ("there", NOTHING) }
    }
}

/// Returns the objects that an action changes. What only ends leases or connections has none.
fn touched(action: &Action) -> Vec<Object> {
    match action {
        Action::PutDevice => vec![Object::Device],
        Action::PutVip(addr) | Action::RemoveVip(addr) | Action::RetireVip(addr) => {
            vec![Object::Vip(*addr)]
        }
        Action::InstallTable { .. } => vec![Object::Table],
        Action::ChangeElements { added, removed } => {
            added.union(removed).map(|element| Object::Element(*element)).collect()
        }
        Action::PutBackend { backend, .. } | Action::RemoveBackend { backend, .. } => {
            vec![Object::BackendEntry(*backend)]
        }
        Action::PutFrontend { frontend, .. } | Action::RemoveFrontend(frontend) => {
            vec![Object::FrontendEntry(*frontend)]
        }
        Action::PutVirtualServer(server) => vec![Object::VirtualServer(server.frontend)],
        Action::RemoveVirtualServer(frontend) | Action::OrderDestinations { frontend, .. } => {
            vec![Object::VirtualServer(*frontend)]
        }
        Action::PutDestination { frontend, destination } => {
            vec![Object::Destination(*frontend, destination.key)]
        }
        Action::RemoveDestination { frontend, key } => vec![Object::Destination(*frontend, *key)],
        Action::PutLocalPort { frontend, .. } | Action::RemoveLocalPort(frontend) => {
            vec![Object::LocalPort(*frontend)]
        }
        Action::Invalidate { .. } | Action::Flush { .. } => Vec::new(),
    }
}
