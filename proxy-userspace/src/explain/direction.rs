//! One direction of a flow: its entry, what that is still good for, and what becomes of a packet.

use proxy_common::reason::Reason;
use serde::Serialize;

use super::dump::{Clock, Dump, Flow, FlowState, Lease, Maps};

/// What the entry of a direction is good for now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// What is counted for a packet of the flow that is plain, small enough and of enough TTL.
    #[serde(serialize_with = "by_name")]
    pub reason: Reason,
    /// Milliseconds since the kernel's path last carried a packet; absent without a clock.
    pub age_ms: Option<u64>,
    /// Milliseconds until the lease ends, 0 when it has; absent without clock or lease.
    pub left_ms: Option<u64>,
    /// It was learned in the present epoch.
    pub epoch_current: bool,
    /// It was learned in the present generation of its backend; absent when that is gone.
    pub generation_current: Option<bool>,
}

/// One direction of the connection that is asked about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Direction {
    /// `request` or `reply`.
    pub direction: &'static str,
    /// Its entry; absent when there is none.
    pub flow: Option<Flow>,
    /// What that is good for.
    pub standing: Option<Standing>,
}

fn by_name<S: serde::Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}

impl Standing {
    /// Judges an entry as the datapath does, in its order; `generation` is that of its backend now,
    /// unless that is gone.
    pub fn of(flow: &Flow, maps: &Maps, generation: Option<u32>, lease: Option<Lease>) -> Self {
        let age_ms = maps.clock.map(|clock| age(flow, clock));
        let left_ms = age_ms.zip(lease).map(|(age, lease)| lease.hard_ms.saturating_sub(age));
        let epoch_current = flow.epoch == maps.epoch;
        let generation_current = generation.map(|generation| generation == flow.generation);
        let reason = match flow.state {
            FlowState::Closing => Reason::Closing,
            FlowState::Learning | FlowState::Unknown => Reason::Learning,
            FlowState::Active if !epoch_current => Reason::StaleEpoch,
            FlowState::Active if generation_current != Some(true) => Reason::StaleGeneration,
            FlowState::Active if left_ms == Some(0) => Reason::LeaseEnded,
            FlowState::Active => Reason::Hit,
        };
        Self { reason, age_ms, left_ms, epoch_current, generation_current }
    }

    /// Says it in words.
    pub(super) fn words(&self, lease: Option<Lease>) -> String {
        let epoch = if self.epoch_current { "current" } else { "stale" };
        let generation = match self.generation_current {
            Some(true) => "current",
            Some(false) => "stale",
            None => "gone",
        };
        let lease = match (self.age_ms, lease) {
            (None, _) => "lease unknown, the kernel's time could not be read".to_owned(),
            (Some(age), None) => format!("the kernel saw a packet {} ago", seconds(age)),
            (Some(age), Some(lease)) if age >= lease.hard_ms => {
                format!("lease ended {} ago", seconds(age - lease.hard_ms))
            }
            (Some(age), Some(lease)) => {
                format!("lease {} of {} left", seconds(lease.hard_ms - age), seconds(lease.hard_ms))
            }
        };
        format!("{lease}, epoch {epoch}, generation {generation}")
    }
}

/// Jiffies wrap, and a packet may have renewed the entry after the clock was read.
fn age(flow: &Flow, clock: Clock) -> u64 {
    let ticks = clock.jiffies.wrapping_sub(flow.renewed_at);
    let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
    u64::from(ticks) * u64::from(clock.tick_us) / 1000
}

pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// Judges one entry of a dump.
pub(super) fn standing(dump: &Dump, maps: &Maps, flow: &Flow) -> Standing {
    let backend = maps.backends.iter().find(|entry| entry.id == flow.backend);
    Standing::of(flow, maps, backend.map(|entry| entry.generation), dump.fast_path.lease)
}

impl Direction {
    pub(super) fn new(dump: &Dump, maps: &Maps, flow: Option<&Flow>, reply: bool) -> Self {
        Self {
            direction: if reply { "reply" } else { "request" },
            flow: flow.cloned(),
            standing: flow.map(|flow| standing(dump, maps, flow)),
        }
    }

    /// Says in words what the entry is.
    pub(super) fn words(&self, dump: &Dump) -> String {
        let (Some(flow), Some(standing)) = (&self.flow, &self.standing) else {
            return "no flow entry".to_owned();
        };
        format!(
            "{}, {}; {} packets, {} bytes on the fast path; {} to {} becomes {} to {} by {}",
            flow.state.name(),
            standing.words(dump.fast_path.lease),
            flow.packets,
            flow.bytes,
            flow.source,
            flow.destination,
            flow.new_source,
            flow.new_destination,
            dump.interface_name(flow.out_interface),
        )
    }
}

/// Says in words why a packet with an entry takes the slow path.
pub(super) fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Closing => "a FIN or RST was seen; nothing is learned before the next SYN",
        Reason::Learning => "the other direction is not known yet",
        Reason::StaleEpoch => "a link, route, address or neighbour changed since it was learned",
        Reason::StaleGeneration => "the backend changed or went since it was learned",
        Reason::LeaseEnded => {
            "no packet was seen on the kernel's path for a whole lease; the next one renews it"
        }
        Reason::NoFlow => "no flow entry yet: the first three packets of each direction teach it",
        _ => "the packet is not one of the fast path",
    }
}

/// The entries that a packet would meet, and the entries of their replies.
pub(super) fn matching<'a>(
    maps: &'a Maps,
    matches: impl Fn(&Flow) -> bool + 'a,
) -> impl Iterator<Item = &'a Flow> {
    maps.flows.iter().filter(move |flow| matches(flow))
}

/// Returns the entry of the way back: what the datapath looks up to activate both.
pub(super) fn reverse<'a>(maps: &'a Maps, of: &Flow) -> Option<&'a Flow> {
    let of = of.clone();
    matching(maps, move |flow| {
        flow.protocol == of.protocol
            && flow.source == of.new_destination
            && flow.destination == of.new_source
            && flow.interface == of.out_interface
    })
    .next()
}
