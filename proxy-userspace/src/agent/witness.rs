//! Says who changed the node, where the kernel tells.

use std::{collections::BTreeMap, thread};

use tokio::sync::oneshot;
use tracing::info;

use super::quiet::Change;
use crate::{
    chain::chain,
    kernel::{
        bpf::{Blindness, By, Doer, Moment, Part, Witness},
        ipvs,
    },
    plan::drift::Subsystem,
};

/// So many are named at most.
const MOST_NAMED: usize = 4;

/// The probes, once they are attached, and since when a change is news.
pub struct Witnesses {
    opening: Option<oneshot::Receiver<Result<Box<Witness>, Blindness>>>,
    witness: Option<Box<Witness>>,
    /// When each part was last seen to be as it was left; since the probes where it is not here.
    well_at: BTreeMap<Part, Moment>,
    /// When there were probes.
    attached_at: Moment,
    /// When the agent was last seen to change a virtual server.
    agent_at: Option<Moment>,
    /// It changed one and was not seen: the module was loaded anew, and the probes went with it.
    blind: bool,
}

impl Witnesses {
    /// Begins to attach the probes, beside everything else: nothing waits for them. To be called
    /// before privileges are given up: distributions may let only CAP_SYS_ADMIN probe
    /// (`kernel.perf_event_paranoid` above 2). The thread that has them ends with its work.
    pub fn open() -> Self {
        let (sender, opening) = oneshot::channel();
        let attach = move || {
            // Nobody waits for it any more when the agent ends.
            let _ = sender.send(Witness::attach().map(Box::new));
        };
        let started = thread::Builder::new().name("witness".into()).spawn(attach);
        let opening = started.is_ok().then_some(opening);
        let (well_at, attached_at) = (BTreeMap::new(), Moment::now());
        Self { opening, witness: None, well_at, attached_at, agent_at: None, blind: false }
    }

    /// Takes up probes that were attached meanwhile.
    pub(super) async fn arrive(&mut self, ipvs: &ipvs::Client) {
        let Some(result) = self.opening.as_mut().and_then(|opening| opening.try_recv().ok()) else {
            return;
        };
        self.opening = None;
        match result {
            Ok(witness) => {
                // The probes see the agent do this, and know it from then on.
                let _ = ipvs.info().await;
                self.attached_at = Moment::now();
                self.witness = Some(witness);
                info!(event = "witness_on", "drift is named with who caused it from now on");
            }
            Err(error) => {
                let error = chain(&error);
                info!(event = "witness_off", error, "drift is named without who caused it");
            }
        }
    }

    /// Takes up that a part was as it was left at that moment, or was put back since.
    pub(super) fn well(&mut self, part: Part, at: Moment) {
        self.well_at.insert(part, at);
    }

    /// Returns when others last changed a virtual server.
    pub(super) fn ipvs_change(&self) -> Change {
        let witness = self.witness.as_ref().filter(|witness| witness.sees_all_of(Part::Ipvs));
        let last = witness.filter(|_| !self.blind).map(|each| each.last(Part::Ipvs, By::Others));
        match last {
            Some(Ok(Some(at))) => Change::At(at),
            // What came before the probes was seen by nobody.
            Some(Ok(None)) => Change::At(self.attached_at),
            Some(Err(_)) | None => Change::Unseen,
        }
    }

    /// Takes up that the agent has changed a virtual server since it was asked last: it must have been
    /// seen.
    pub(super) fn agent_changed_ipvs(&mut self) {
        let Some(witness) = &self.witness else { return };
        let before = self.agent_at;
        self.agent_at = witness.last(Part::Ipvs, By::Agent).ok().flatten();
        let blind = self.agent_at <= before;
        if blind && !self.blind {
            info!(
                event = "witness_lost",
                "changes of virtual servers are not seen any more: ip_vs was loaded anew; drift is \
                 named without who caused it"
            );
        }
        self.blind = blind;
    }

    /// Names who changed a part of the node since all was well: those who may have caused a drift.
    pub(super) fn suspects(&self, subsystem: Subsystem) -> Option<String> {
        let part = match subsystem {
            Subsystem::Ipvs => Part::Ipvs,
            Subsystem::Nft => Part::Nft,
            Subsystem::Address => Part::Address,
            Subsystem::Sysctl => Part::Sysctl,
            // Their system call is everybody's, and too frequent to be probed.
            Subsystem::Bpf | Subsystem::Program => return None,
        };
        let since =
            self.well_at.get(&part).map_or(self.attached_at, |at| self.attached_at.max(*at));
        let doers = self.witness.as_ref()?.doers(part, since).ok()?;
        named(&doers)
    }
}

fn named(doers: &[Doer]) -> Option<String> {
    let shown = |doer: &Doer| format!("{}[{}] uid {}", doer.command, doer.process, doer.user);
    let mut text = doers.iter().take(MOST_NAMED).map(shown).collect::<Vec<_>>().join(", ");
    let more = doers.len().saturating_sub(MOST_NAMED);
    if more > 0 {
        text += &format!(" and {more} more");
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changed_something_is_named_and_a_crowd_is_counted() {
        let doer = |process| Doer { command: "ipvsadm".into(), process, user: 0 };
        assert_eq!(named(&[]), None);
        assert_eq!(named(&[doer(7)]).unwrap(), "ipvsadm[7] uid 0");
        let crowd: Vec<Doer> = (1..=6).map(doer).collect();
        assert!(named(&crowd).unwrap().ends_with("ipvsadm[4] uid 0 and 2 more"));
    }
}
