//! The audit: a cheap look at the whole node every few seconds, a full reading of what is not as it
//! was left, a name for each drift, and an ordinary pass that undoes it.
//!
//! The look is taken in another thread. It counts only when no pass changed the node meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{
    Agent,
    attachments::Detached,
    pass::{Scope, forget_absent},
    quiet::{Quiet, Reading},
    sysctls::{Need, Setting},
    witness::Witnesses,
};
use crate::{
    audit::{
        counters::AuditCounters,
        look::{Dear, Expected, Look, Looker, Pace},
        observe::{Parts, observe, observe_parts},
    },
    chain::chain,
    config::Settings,
    kernel::{
        bpf::{MapReader, Moment, Part},
        cpu,
        node::Node,
        sysctl::{self, Key},
    },
    model::Notice,
    plan::{
        Action, Drift, Observed, Plan, drift,
        drift::{Kind, Object, Subsystem},
    },
    status::AuditReport,
};

/// How often it is asked whether a look is due.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// Between two looks, at least: what changed right after one is found and undone within 5 s.
/// A little less than six ticks, which come when they may.
const PERIOD: Duration = Duration::from_millis(2_900);
/// Drifts of one look that get a log line and an Event; the others are counted.
const MOST_TOLD: usize = 20;
/// So long a drift that comes again and again is not told again, and its Event stays.
const TOLD_FOR: Duration = Duration::from_secs(60);

/// Thousandths of a processor that each part may take.
mod share {
    /// With `MAPS`, `FLAGS`, `EVERYTHING` and virtual servers at most 1 % while nothing changes.
    pub(super) const LOOK: u32 = 4;
    pub(super) const MAPS: u32 = 3;
    pub(super) const FLAGS: u32 = 1;
    pub(super) const EVERYTHING: u32 = 1;
    /// Only while somebody changes the ruleset.
    pub(super) const TABLE: u32 = 10;
    /// Only while somebody changes addresses.
    pub(super) const ADDRESSES: u32 = 20;
}

/// What was seen, and which pass it followed.
pub(super) struct Seen {
    begun: Instant,
    serial: u64,
    moment: Moment,
    reading: Reading,
    look: Look,
}

/// What the audit knows.
pub(super) struct Audit {
    looker: Option<Arc<Looker>>,
    sender: mpsc::Sender<Seen>,
    looking: bool,
    /// Raised by each pass that changes the node.
    serial: u64,
    /// What a look should see.
    expected: Option<Expected>,
    /// A pass failed in part: what is known of the node may be wrong, until it is read as a whole.
    doubt: bool,
    /// Somebody may have changed the device or what makes VIPs local.
    addresses: bool,
    /// The generation of the ruleset in which our table was as it was left.
    generation: Option<u32>,
    /// Settings that held when they were looked at last.
    settings: BTreeMap<&'static str, Setting>,
    paces: Paces,
    quiet: Quiet,
    told: BTreeMap<(Object, Kind), Instant>,
    notices: Vec<(Instant, Notice)>,
    last: Vec<String>,
    witnesses: Witnesses,
    counters: Arc<AuditCounters>,
}

struct Paces {
    look: Pace,
    maps: Pace,
    table: Pace,
    addresses: Pace,
    flags: Pace,
    everything: Pace,
}

impl Audit {
    /// Returns the audit, and where what was seen comes out.
    pub(super) fn open(
        settings: &Settings,
        node: &Node,
        counters: Arc<AuditCounters>,
        witnesses: Witnesses,
    ) -> (Self, mpsc::Receiver<Seen>) {
        let (sender, seen) = mpsc::channel(1);
        let held = in_force(settings, node);
        let reader = node.datapath.as_ref().map(|datapath| datapath.reader()).transpose();
        let maps = reader.as_ref().ok().and_then(Option::as_ref);
        if let Some(error) = maps.and_then(MapReader::refusal) {
            let error = chain(error);
            info!(event = "digest_off", error, "the BPF maps are looked at by reading them");
        }
        let looker = reader.and_then(|maps| Looker::new(maps, held.keys().copied().collect()));
        let looker = looker
            .inspect_err(|error| {
                let error = chain(error);
                warn!(event = "audit_off", error, "drift is found by the periodic reading only");
            })
            .ok();
        let pace = |share| Pace::new(share, PERIOD, settings.sync_period);
        let audit = Self {
            looker: looker.map(Arc::new),
            sender,
            looking: false,
            serial: 0,
            expected: None,
            doubt: false,
            addresses: false,
            generation: None,
            settings: held,
            paces: Paces {
                look: pace(share::LOOK),
                maps: pace(share::MAPS),
                table: pace(share::TABLE),
                addresses: pace(share::ADDRESSES),
                flags: pace(share::FLAGS),
                everything: Pace::new(
                    share::EVERYTHING,
                    // Asked once in a sync period.
                    settings.sync_period / 2,
                    settings.sync_period * 20,
                ),
            },
            quiet: Quiet::new(PERIOD, settings.sync_period),
            told: BTreeMap::new(),
            notices: Vec::new(),
            last: Vec::new(),
            witnesses,
            counters,
        };
        (audit, seen)
    }

    /// Takes up that a pass was carried out, and how many of its changes failed.
    pub(super) fn passed(&mut self, plan: &Plan, failed: usize) {
        if plan.actions.is_empty() {
            return;
        }
        self.serial += 1;
        self.expected = None;
        self.doubt |= failed > 0;
        let changes_ipvs = |action: &Action| {
            use Action::{
                PutDestination, PutVirtualServer, RemoveDestination, RemoveVirtualServer,
            };
            matches!(
                action,
                PutVirtualServer(_)
                    | RemoveVirtualServer(_)
                    | PutDestination { .. }
                    | RemoveDestination { .. }
            )
        };
        if failed == 0 && plan.actions.iter().any(changes_ipvs) {
            self.witnesses.agent_changed_ipvs();
        }
        let writes = |action: &&Action| {
            matches!(action, Action::InstallTable { .. } | Action::ChangeElements { .. })
        };
        // Each is one transaction, which raises the generation by one.
        let writes = plan.actions.iter().filter(writes).count() as u32;
        self.generation = self.generation.map(|generation| generation.wrapping_add(writes));
    }

    /// Takes up that everything was read anew.
    pub(super) fn refreshed(&mut self, begun: Instant) {
        self.expected = None;
        self.doubt = false;
        self.paces.everything.took(begun, begun.elapsed());
    }

    /// Takes up that the filter was made anew.
    pub(super) fn refiltered(&mut self) {
        self.serial += 1;
        self.expected = None;
    }

    /// Says whether everything may be read anew: the looks have left nothing out meanwhile, but
    /// what they cannot see.
    pub(super) fn may_read_everything(&self) -> bool {
        self.looker.is_none() || self.doubt || self.paces.everything.is_due(Instant::now())
    }

    /// Says whether what is known of the node is what it was left with.
    pub(super) fn is_sure(&self) -> bool {
        !self.doubt
    }

    /// Returns what was found lately, as Events say it.
    pub(super) fn notices(&self) -> impl Iterator<Item = &Notice> {
        self.notices.iter().map(|(_, notice)| notice)
    }

    pub(super) fn report(&self) -> AuditReport {
        AuditReport {
            looks: self.counters.looks(),
            readings: self.counters.readings(),
            cost_us: self.counters.cost().as_micros() as u64,
            drifts: self.counters.drifts(),
            last: self.last.clone(),
        }
    }

    /// Notes what the dear parts took, which have paces of their own, and returns what the rest of the
    /// look did.
    fn paid(&mut self, begun: Instant, look: &Look) -> Duration {
        let mut rest = look.cost;
        if let Some((_, cost)) = &look.maps {
            self.paces.maps.took(begun, *cost);
            rest = rest.saturating_sub(*cost);
        }
        if let Some((_, cost)) = &look.servers {
            self.quiet.took(begun, *cost);
            rest = rest.saturating_sub(*cost);
        }
        rest
    }

    /// Forgets what was told long ago; says whether a notice went.
    fn forget_old(&mut self) -> bool {
        let now = Instant::now();
        let is_fresh = |at: &Instant| now.duration_since(*at) < TOLD_FOR;
        self.told.retain(|_, at| is_fresh(at));
        let before = self.notices.len();
        self.notices.retain(|(at, _)| is_fresh(at));
        self.notices.len() != before
    }
}

/// Returns the settings that are needed and hold.
fn in_force(settings: &Settings, node: &Node) -> BTreeMap<&'static str, Setting> {
    let all = Setting::of(settings, cpu::online());
    let needed = |setting: &Setting| setting.need != Need::FastPath || node.datapath.is_some();
    let holds = |setting: &Setting| {
        sysctl::read(&Key::dotted(setting.key)).is_ok_and(|value| setting.holds(&value))
    };
    all.into_iter().filter(needed).filter(holds).map(|setting| (setting.key, setting)).collect()
}

impl Agent {
    /// Begins a look when one is due.
    pub(super) async fn begin_audit(&mut self) {
        self.audit.witnesses.arrive(&self.node.ipvs).await;
        if self.audit.forget_old() {
            self.publish();
        }
        let (begun, moment) = (Instant::now(), Moment::now());
        let due = self.audit.paces.look.is_due(begun) && !self.audit.looking;
        let Some(looker) = self.audit.looker.as_ref().filter(|_| due && self.has_snapshot) else {
            return;
        };
        let (looker, sender) = (Arc::clone(looker), self.audit.sender.clone());
        let serial = self.audit.serial;
        let reading = self.audit.quiet.reading(self.audit.witnesses.ipvs_change(), begun, moment);
        let entries = self.observed.frontends.len() + self.observed.backends.len();
        let maps = self.audit.paces.maps.is_due(begun);
        let dear = Dear { servers: reading == Reading::Due, entries: maps.then_some(entries) };
        self.audit.looking = true;
        tokio::task::spawn_blocking(move || {
            let look = looker.look(dear);
            // Nobody waits for it any more when the agent ends.
            let _ = sender.blocking_send(Seen { begun, serial, moment, reading, look });
        });
    }

    /// Takes up what was seen; says whether something had drifted.
    pub(super) async fn audited(&mut self, seen: Seen, vips_changed: bool) -> bool {
        let Seen { begun, serial, moment, reading, look } = seen;
        self.audit.looking = false;
        self.audit.addresses |= vips_changed;
        self.audit.counters.looked(look.cost);
        let cost = self.audit.paid(begun, &look);
        if serial != self.audit.serial || self.audit.doubt {
            // A pass came between: another look, with the next tick.
            self.audit.paces.look.took(begun, Duration::ZERO);
            return false;
        }
        self.audit.paces.look.took(begun, cost);
        let (parts, filter, generation) = self.suspected(&look).await;
        let mut drifts = Vec::new();
        if !parts.is_empty() {
            match self.read_again(&parts).await {
                Some(found) => drifts = found,
                None => return false,
            }
        }
        if parts.table {
            // Read before the table: what changed in between is found by the next look.
            self.audit.generation = generation;
        }
        // Whoever changed what is to be read later is still to be named then.
        let flags = parts.servers.is_some() || !has_flags(&self.observed);
        let well = [
            (Part::Ipvs, flags && reading != Reading::Postponed),
            (Part::Nft, generation.is_none() || generation == self.audit.generation),
            (Part::Address, !self.audit.addresses),
            (Part::Sysctl, true),
        ];
        if filter {
            drifts.push(Drift::changed(Object::Filter, Kind::Value, "ours", "another one"));
            self.refilter();
        }
        let of_ipvs = |drift: &Drift| drift.object.subsystem() == Subsystem::Ipvs;
        let changed = drifts.iter().any(of_ipvs);
        let detached = self.detached().await;
        let healed = self.heal(drifts, &detached, &look.sysctls).await;
        if let Some((Ok(_), _)) = &look.servers {
            self.audit.quiet.read(moment, changed);
        }
        for (part, _) in well.into_iter().filter(|(_, is_well)| *is_well) {
            self.audit.witnesses.well(part, moment);
        }
        healed
    }

    /// Returns which parts have to be read, whether the filter was changed, and the generation of the
    /// ruleset at this moment.
    async fn suspected(&mut self, look: &Look) -> (Parts, bool, Option<u32>) {
        let now = Instant::now();
        let observed = &self.observed;
        let audit = &mut self.audit;
        let datapath = self.node.datapath.as_ref();
        let filter = || datapath.and_then(|datapath| datapath.maps.filter.left());
        let expected = audit.expected.get_or_insert_with(|| Expected::of(observed, filter()));
        let suspects = expected.suspects(look);
        let mut parts = Parts { maps: suspects.maps, ..Parts::default() };
        if !suspects.servers.is_empty() {
            parts.servers = Some(suspects.servers);
        } else if audit.paces.flags.is_due(now) && has_flags(observed) {
            // The look does not show flags.
            parts.servers = Some(BTreeSet::new());
        }
        parts.addresses = audit.addresses && audit.paces.addresses.is_due(now);
        let generation = self.node.ruleset.generation().await.ok();
        parts.table =
            generation.is_some() && generation != audit.generation && audit.paces.table.is_due(now);
        if let Some(localhost) = &self.node.localhost {
            parts.local_ports = localhost.ports().is_ok_and(|ports| {
                observed.local_ports.as_ref().is_some_and(|left| *left != ports)
            });
        }
        (parts, suspects.filter, generation)
    }

    /// Reads parts of the node, and names what others changed there; `None` when it cannot be read.
    async fn read_again(&mut self, parts: &Parts) -> Option<Vec<Drift>> {
        let begun = Instant::now();
        let (owned, rules) = (self.ledger.owned(), self.planner.rules());
        let found = match observe_parts(&self.node, owned, &rules, &self.observed, parts).await {
            Ok(found) => found,
            Err(error) => {
                error!(event = "observe_failed", error = chain(&error), "the node cannot be read");
                return None;
            }
        };
        let drifts = self.take_up(found);
        let audit = &mut self.audit;
        audit.counters.read();
        audit.expected = None;
        let cost = if drifts.is_empty() { begun.elapsed() } else { Duration::ZERO };
        let paces = &mut audit.paces;
        for (read, pace) in [
            (parts.table, &mut paces.table),
            (parts.addresses, &mut paces.addresses),
            (parts.servers.is_some(), &mut paces.flags),
        ] {
            if read {
                pace.took(begun, cost);
            }
        }
        audit.addresses &= !parts.addresses;
        Some(drifts)
    }

    /// Takes the node to be as it was found, and names what others changed.
    pub(super) fn take_up(&mut self, found: Observed) -> Vec<Drift> {
        let drifts = match self.audit.is_sure() && self.has_snapshot {
            true => drift(&self.observed, &found),
            false => Vec::new(),
        };
        if let Err(error) = forget_absent(&mut self.ledger, &self.node, &found) {
            warn!(event = "ledger_failed", error = chain(&error), "the ledger is behind");
        }
        self.observed = found;
        drifts
    }

    /// Tells of what drifted and undoes it; says whether there was something.
    async fn heal(
        &mut self,
        mut drifts: Vec<Drift>,
        detached: &Detached,
        sysctls: &[(&'static str, String)],
    ) -> bool {
        let by_plan = !drifts.is_empty();
        drifts.extend(detached.drifts());
        let changed: Vec<Drift> = self.changed_sysctls(sysctls);
        drifts.extend(changed.iter().cloned());
        if drifts.is_empty() {
            self.metrics.recorder().drift().found([]);
            return false;
        }
        self.tell_drifts(&drifts);
        self.put_sysctls(&changed);
        self.attach_again(detached).await;
        if by_plan {
            self.reconcile(Scope::All).await;
        }
        self.count_healed(&drifts);
        self.publish();
        true
    }

    /// Counts as mended what was found, when nothing of it failed.
    fn count_healed(&self, drifts: &[Drift]) {
        if !self.pass.errors.is_empty() {
            return;
        }
        let counters = self.metrics.recorder().drift();
        for (subsystem, kind) in drifts.iter().map(labels) {
            counters.healed(subsystem, kind, 1);
        }
        counters.found([]);
    }

    fn changed_sysctls(&self, found: &[(&'static str, String)]) -> Vec<Drift> {
        let changed = |(key, value): &(&'static str, String)| {
            let setting = self.audit.settings.get(key).filter(|setting| !setting.holds(value))?;
            let object = Object::Sysctl((*key).to_owned());
            Some(Drift::changed(object, Kind::Value, setting.value, value))
        };
        found.iter().filter_map(changed).collect()
    }

    /// Sets them again. What can no longer be set is not looked at any more.
    fn put_sysctls(&mut self, drifts: &[Drift]) {
        for drift in drifts {
            let Object::Sysctl(key) = &drift.object else { continue };
            let Some(setting) = self.audit.settings.get(key.as_str()) else { continue };
            if let Err(error) = setting.put(&mut self.ledger) {
                let error = chain(&error);
                error!(event = "sysctl_failed", key, error, "it stays as somebody set it");
                self.audit.settings.remove(key.as_str());
            }
        }
    }

    /// Tells of each drift once in a while: by the log, by Events and by counters.
    pub(super) fn tell_drifts(&mut self, drifts: &[Drift]) {
        let now = Instant::now();
        let mut told = 0;
        let differs = drifts.iter().map(|drift| (labels(drift), 1));
        self.metrics.recorder().drift().found(differs);
        self.audit.counters.found(drifts.len());
        for drift in drifts {
            let key = (drift.object.clone(), drift.kind);
            if told == MOST_TOLD || self.audit.told.contains_key(&key) {
                continue;
            }
            told += 1;
            self.audit.told.insert(key, now);
            let service = drift.object.service(self.planner.desired());
            let by = self.audit.witnesses.suspects(drift.object.subsystem());
            warn!(
                event = "drift",
                subsystem = drift.object.subsystem().word(),
                kind = drift.kind.word(),
                object = %drift.object,
                expected = drift.expected,
                found = drift.found,
                service = service.as_ref().map(ToString::to_string),
                by,
                "somebody else changed what is ours: it is put back"
            );
            let notice = Notice::Drift {
                service: service.map(|service| service.service),
                text: sentence(drift, by.as_deref()),
            };
            self.audit.notices.retain(|(_, known)| *known != notice);
            self.audit.notices.push((now, notice));
        }
        let more = drifts.len() - told;
        if more > 0 {
            warn!(event = "drift_more", more, "so many drifts besides were counted, and not told");
        }
        let last = drifts.iter().take(MOST_TOLD).map(|drift| {
            let by = self.audit.witnesses.suspects(drift.object.subsystem());
            sentence(drift, by.as_deref())
        });
        self.audit.last = last.collect();
    }

    /// Reads everything now, tells what drifted and undoes it; returns what had drifted.
    pub(super) async fn fix(&mut self) -> Result<Vec<Drift>, String> {
        let begun = Instant::now();
        let (owned, rules) = (self.ledger.owned(), self.planner.rules());
        let found = observe(&self.node, owned, &rules).await.map_err(|error| chain(&error))?;
        let mut drifts = self.take_up(found);
        self.audit.refreshed(begun);
        let detached = self.detached().await;
        let sysctls = self.read_sysctls();
        drifts.extend(detached.drifts());
        let changed = self.changed_sysctls(&sysctls);
        drifts.extend(changed.iter().cloned());
        self.tell_drifts(&drifts);
        self.put_sysctls(&changed);
        self.attach_again(&detached).await;
        self.refresh_interfaces().await;
        self.reconcile(Scope::All).await;
        self.count_healed(&drifts);
        self.publish();
        Ok(drifts)
    }

    /// Reads everything now and names what drifted, and changes nothing.
    pub(super) async fn look_now(&mut self) -> Result<(Observed, Vec<Drift>), String> {
        let (owned, rules) = (self.ledger.owned(), self.planner.rules());
        let found = observe(&self.node, owned, &rules).await.map_err(|error| chain(&error))?;
        let mut drifts = match self.audit.is_sure() {
            true => drift(&self.observed, &found),
            false => Vec::new(),
        };
        drifts.extend(self.detached().await.drifts());
        drifts.extend(self.changed_sysctls(&self.read_sysctls()));
        Ok((found, drifts))
    }

    fn read_sysctls(&self) -> Vec<(&'static str, String)> {
        let value = |key: &&'static str| Some((*key, sysctl::read(&Key::dotted(key)).ok()?));
        self.audit.settings.keys().filter_map(value).collect()
    }
}

/// Says whether a virtual server of ours may have flags.
fn has_flags(observed: &Observed) -> bool {
    use crate::model::Scheduler::{Mh, Sh};
    let mut ours = observed.servers.values().filter(|server| server.owned);
    ours.any(|server| matches!(server.virtual_server.scheduler, Sh | Mh))
}

/// Returns what happened, and who may have done it.
fn sentence(drift: &Drift, by: Option<&str>) -> String {
    by.map_or_else(|| drift.to_string(), |by| format!("{drift}, by {by}"))
}

/// What metrics call a drift.
fn labels(drift: &Drift) -> (&'static str, &'static str) {
    (drift.object.subsystem().word(), drift.kind.word())
}
