//! The hash plane: keeps the maps of `xdp_lb` or `tc_lb` what IPVS is, and IPVS told of the flows that its
//! tables do not explain.
//!
//! ```text
//! pass ──▶ IPVS edited ──▶ settle: members, next hops, table, frontend ──▶ hand over: exceptions
//! ticks ─▶ next hops confirmed, leases renewed; exceptions told again; marks taken away
//! ```
//!
//! Whatever stands in the way, IPVS serves: the plane is taken off a frontend, an interface or the
//! node, and the status says why.

mod adopt;
mod attached;
mod flows;
mod hand_over;
mod next_hops;
mod open;
mod settle;
mod uplinks;
mod write;

pub(super) use open::open;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use proxy_common::hash::mh::Size;
use tracing::warn;

use super::Agent;
use crate::{
    kernel::{
        bpf,
        ipvs::{Timeouts, connections::Connection, sync::SyncSender},
        next_hop::NextHops,
    },
    model::{DestinationKey, Frontend, Way},
    plan::{
        Action,
        hash_plane::{Layout, Slots},
    },
    status::{HashInterface, HashPlaneReport},
};

/// How often it is asked whether something is due.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// Between two looks at next hops. A third of what they hold for would do; what the kernel finds
/// out by itself comes with an event, but for neighbours that it did not know before.
const LOOK: Duration = Duration::from_secs(5);
/// How long a next hop holds that nobody confirms: an agent that starts anew takes less. From then
/// on the kernel has all packets.
const HOLD: Duration = Duration::from_secs(60);
/// Between two messages on a flow that IPVS would send elsewhere: a part of the shortest time for
/// which it remembers one.
const RETELL: Duration = Duration::from_secs(60);
/// Between two looks at which backends flows are left of: each goes through all flows.
const RECOUNT: Duration = Duration::from_secs(5);

/// The hash plane of a node.
pub(super) struct HashPlane {
    plane: bpf::HashPlane,
    size: Size,
    next_hops: NextHops,
    /// Tells IPVS of flows; or why it cannot be told.
    sender: Result<SyncSender, String>,
    timeouts: Timeouts,
    /// Where the layout is kept.
    path: PathBuf,
    layout: Layout,
    slots: BTreeMap<Frontend, Slots>,
    /// When slots of a table were marked last.
    marked_at: BTreeMap<Frontend, Instant>,
    /// Virtual servers that were there before this agent looked at them: what it has not seen is not
    /// known of them.
    found: BTreeSet<Frontend>,
    ways: BTreeMap<IpAddr, Way>,
    /// When next hops are looked up again, and how long after the last time: soon, while one is
    /// being resolved.
    look: (Instant, Duration),
    /// Frontends with scheduler `mh` that IPVS serves, and why.
    refused: BTreeMap<Frontend, String>,
    /// Interfaces that the program runs on, by index.
    running: BTreeMap<u32, String>,
    /// Where it was tried in vain, and why.
    failed: BTreeMap<u32, (uplinks::Tried, String)>,
    /// The modes in which an earlier agent attached it, by interface name.
    modes_before: BTreeMap<String, String>,
    interfaces: Vec<HashInterface>,
    told_at: Instant,
    /// The connections of IPVS, while a pass goes on.
    listed: Option<Vec<Connection>>,
    /// Draining destinations that flows were found of.
    used: Option<flows::Used>,
}

/// What the node has instead of a hash plane that was asked for.
pub(super) enum State {
    /// Nobody asked for it.
    Unwanted,
    /// It runs.
    On(Box<HashPlane>),
    /// It does not, for this reason.
    Off(String),
}

impl State {
    /// Says whether it runs.
    pub(super) fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Tells IPVS of the flows that it would send elsewhere once these actions are carried out.
    pub(super) fn foretell(&mut self, actions: &[Action]) {
        if let Some(plane) = self.on() {
            plane.foretell(actions);
        }
    }

    fn on(&mut self) -> Option<&mut HashPlane> {
        match self {
            Self::On(plane) => Some(plane),
            _ => None,
        }
    }

    /// Returns what the status says of it; `None` where nobody asked for it.
    pub(super) fn report(&self) -> Option<HashPlaneReport> {
        match self {
            Self::Unwanted => None,
            Self::Off(reason) => Some(HashPlaneReport {
                mode: "off".into(),
                reason: reason.clone(),
                ..HashPlaneReport::default()
            }),
            Self::On(plane) => Some(plane.report()),
        }
    }

    /// Returns the program's id, to tell it from foreign ones.
    pub(super) fn program_id(&self) -> Option<u32> {
        match self {
            Self::On(plane) => plane.plane.program_id(),
            _ => None,
        }
    }
}

impl HashPlane {
    fn report(&self) -> HashPlaneReport {
        let carried = self.layout.carried().keys();
        HashPlaneReport {
            mode: "on".into(),
            reason: String::new(),
            slots: self.size.slots(),
            untold: self.sender.as_ref().err().cloned().unwrap_or_default(),
            interfaces: self.interfaces.clone(),
            carried: carried
                .map(|frontend| (frontend.to_string(), self.unreached(frontend)))
                .collect(),
            refused: self.refused.iter().map(|(key, why)| (key.to_string(), why.clone())).collect(),
        }
    }

    /// Returns which backends of a frontend cannot be sent to now, and why: IPVS sends to them.
    fn unreached(&self, frontend: &Frontend) -> Vec<String> {
        let members = self.layout.carried().get(frontend).map(|carried| &carried.members);
        let unreached = members.into_iter().flatten().filter_map(|member| {
            let key = member.destination.key;
            match self.ways.get(&key.addr) {
                Some(Way::Known(_)) => None,
                Some(way) => Some(format!("{key}: {way}")),
                None => Some(format!("{key}: next hop not looked up yet")),
            }
        });
        unreached.collect()
    }
}

impl Agent {
    /// What is done from time to time; says whether anything was.
    pub(super) async fn tend_hash_plane(&mut self) -> bool {
        let Some(plane) = self.hash_plane.on() else { return false };
        if Instant::now() < plane.look.0 {
            return false;
        }
        plane.refresh_next_hops().await;
        plane.tell_at_times();
        plane.take_marks_away();
        match self.node.links.interfaces().await {
            Ok(present) => {
                let mode = self.settings.hash_plane.mode;
                let attached = plane.still_attached(&present, &self.node.traffic, mode).await;
                plane.forget_detached(&attached);
                self.claim_qdiscs_of_hash_plane(&present).await;
                if let Some(plane) = self.hash_plane.on() {
                    plane.settle_uplinks(&self.settings.hash_plane, &present);
                }
            }
            Err(error) => warn!(event = "interfaces_failed", %error, "interfaces cannot be read"),
        }
        true
    }

    /// Returns those of the destinations that the hash plane has flows of, as of a moment ago.
    pub(super) fn used_by_hash_plane(&mut self) -> BTreeSet<(Frontend, DestinationKey)> {
        let Some(plane) = self.hash_plane.on() else { return BTreeSet::new() };
        plane.used_lately(&self.waiting.keys())
    }

    /// Forgets an interface that is gone.
    pub(super) fn forget_hash_interface(&mut self, index: u32) {
        if let Some(plane) = self.hash_plane.on() {
            plane.forget_interface(index);
        }
    }

    /// Takes up changes of routes, neighbours and links at once.
    pub(super) async fn follow_next_hops(&mut self) {
        if let Some(plane) = self.hash_plane.on() {
            plane.refresh_next_hops().await;
        }
    }
}
