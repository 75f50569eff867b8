//! IPVS is told of the flows that it would send elsewhere: those that began before a backend came or
//! went. Then any packet may reach it at any time, here or at another gateway, and finds its backend.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use tracing::{debug, error, warn};

use super::{HashPlane, RETELL, flows::Living};
use crate::{
    chain::chain,
    kernel::ipvs::{
        connections,
        sync::{SyncState, SyncedConnection},
    },
    model::{Frontend, Protocol, Scheduler, VirtualServer},
    plan::{
        Action,
        hash_plane::{Carried, Slots, foresee},
    },
};

/// Which flows IPVS is told of.
enum Told {
    All,
    /// Those that it would send elsewhere.
    Elsewhere,
    /// Those that it would send elsewhere by these tables.
    Foreseen(BTreeMap<Frontend, (Carried, Slots)>),
}

impl HashPlane {
    /// Tells of the flows of these frontends that live elsewhere than their table says.
    pub(super) fn hand_over(&mut self, frontends: &BTreeSet<Frontend>) {
        self.tell(|frontend| frontends.contains(frontend), &Told::Elsewhere);
    }

    /// Tells of all flows of a frontend.
    pub(super) fn hand_over_all(&mut self, frontend: &Frontend) {
        self.tell(|each| each == frontend, &Told::All);
    }

    /// Tells of the flows that the tables will move which IPVS has when these actions are carried out. It
    /// is foresight: what became of it is read back afterwards, and told of again.
    pub(super) fn foretell(&mut self, actions: &[Action]) {
        let foreseen = foresee(self.layout.carried(), actions);
        if foreseen.is_empty() {
            return;
        }
        let mut layout = self.layout.clone();
        let mut next = BTreeMap::new();
        for (frontend, destinations) in foreseen {
            let Some(Carried { flags, .. }) = layout.carried().get(&frontend) else { continue };
            let (scheduler, flags) = (Scheduler::Mh, *flags);
            let server = VirtualServer { frontend, scheduler, flags, persistent_secs: 0 };
            layout.settle(&server, &destinations, true);
            let Some(carried) = layout.carried().get(&frontend).cloned() else { continue };
            if let Ok(slots) = Slots::build(self.size, &carried, &[]) {
                next.insert(frontend, (carried, slots));
            }
        }
        let wanted: BTreeSet<Frontend> = next.keys().copied().collect();
        self.tell(|frontend| wanted.contains(frontend), &Told::Foreseen(next));
    }

    /// Tells again of those that still live elsewhere: IPVS forgets what it hears nothing of.
    pub(super) fn tell_at_times(&mut self) {
        if self.told_at.elapsed() >= RETELL {
            self.told_at = Instant::now();
            self.tell(|_| true, &Told::Elsewhere);
        }
    }

    fn tell(&mut self, wanted: impl Fn(&Frontend) -> bool, which: &Told) {
        let now = self.plane.jiffies();
        let Ok(sender) = &self.sender else { return };
        let mut told = Vec::new();
        let seen = now.and_then(|now| {
            self.each_flow(now, wanted, |carried, flow| {
                // A message has addresses of one family only.
                let told_of = flow.client.is_ipv4() == flow.member.destination.key.addr.is_ipv4();
                if told_of && self.is_told(which, carried, &flow) {
                    told.push(self.connection(&flow));
                }
            })
        });
        if let Err(error) = seen {
            error!(event = "flows_unread", error = chain(&error), "IPVS is not told of flows");
            return;
        }
        match sender.send(&told) {
            Ok(()) if told.is_empty() => {}
            Ok(()) => debug!(event = "flows_told", flows = told.len(), "IPVS is told of flows"),
            Err(error) => error!(event = "flows_untold", error = chain(&error), "IPVS is not told"),
        }
    }

    fn is_told(&self, which: &Told, carried: &Carried, flow: &Living<'_>) -> bool {
        match which {
            Told::All => true,
            Told::Elsewhere => {
                self.slots.get(&flow.frontend).is_none_or(|slots| is_moved(slots, carried, flow))
            }
            // Flows of a destination that goes at once move, and need no connection to it.
            Told::Foreseen(next) => next.get(&flow.frontend).is_some_and(|(carried, slots)| {
                let stays = carried.member(&flow.member.destination.key).is_some();
                stays && is_moved(slots, carried, flow)
            }),
        }
    }

    fn connection(&self, flow: &Living<'_>) -> SyncedConnection {
        let state = match (flow.frontend.protocol, flow.closing) {
            (Protocol::Udp, _) => SyncState::Udp,
            (_, true) => SyncState::FinWait,
            (_, false) => SyncState::Established,
        };
        let whole = self.timeout(flow.frontend.protocol, flow.closing);
        SyncedConnection {
            frontend: flow.frontend,
            client: flow.client,
            destination: flow.member.destination.key,
            forwarding: flow.member.destination.forwarding,
            state,
            timeout: whole.saturating_sub(flow.idle).max(Duration::from_secs(1)),
        }
    }

    /// Takes the marks off tables that have not changed for as long as a flow may be idle, unless IPVS
    /// has flows of theirs that their table does not explain.
    pub(super) fn take_marks_away(&mut self) {
        let longest =
            Duration::from_secs(self.timeouts.tcp_secs.max(self.timeouts.udp_secs).into());
        let due: Vec<Frontend> = self
            .marked_at
            .iter()
            .filter(|(_, since)| since.elapsed() >= longest)
            .map(|(frontend, _)| *frontend)
            .collect();
        if due.is_empty() {
            return;
        }
        let known = match connections::read() {
            Ok(known) => known,
            Err(error) => {
                warn!(
                    event = "marks_stay",
                    error = chain(&error),
                    "IPVS goes on with marked slots"
                );
                due.iter().for_each(|key| {
                    self.marked_at.insert(*key, Instant::now());
                });
                return;
            }
        };
        for frontend in due {
            let (Some(carried), Some(slots)) =
                (self.layout.carried().get(&frontend), self.slots.get_mut(&frontend))
            else {
                continue;
            };
            let unexplained = known.iter().filter(|each| each.frontend == frontend).any(|each| {
                let chosen = slots.choice(carried, (each.client_addr, each.client_port));
                chosen.is_none_or(|chosen| chosen.destination.key != each.destination)
            });
            if unexplained {
                self.marked_at.insert(frontend, Instant::now());
                continue;
            }
            slots.unmark(carried);
            match self.plane.maps.put_table(carried.table, slots.values()) {
                Ok(()) => {
                    self.marked_at.remove(&frontend);
                }
                Err(error) => {
                    warn!(
                        event = "marks_stay",
                        error = chain(&error),
                        "IPVS goes on with marked slots"
                    );
                }
            }
        }
    }
}

/// Says whether IPVS would send a flow elsewhere by this table, if it had not been told.
fn is_moved(slots: &Slots, carried: &Carried, flow: &Living<'_>) -> bool {
    let chosen = slots.choice(carried, (flow.client.ip(), flow.client.port()));
    chosen.is_none_or(|chosen| chosen.index != flow.member.index)
}
