//! What the audit finds and mends, counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::tally::Table;

/// What differs: `subsystem` such as `ipvs`, `nft`, `bpf` or `route`, and `kind` such as `missing`,
/// `foreign` or `changed`. Both are words of the code, so there are few.
pub type Drift = (&'static str, &'static str);

/// Takes up what an audit finds. Clones count together; nothing here ever waits for a scrape.
///
/// ```
/// use proxy_userspace::metrics::DriftRecorder;
///
/// let recorder = DriftRecorder::default();
/// recorder.found([(("ipvs", "missing"), 2)]);
/// recorder.healed("ipvs", "missing", 2);
/// recorder.found([]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DriftRecorder {
    objects: Arc<ArcSwap<BTreeMap<Drift, u64>>>,
    healed: Arc<Table<Drift>>,
}

impl DriftRecorder {
    /// Replaces what differs at present: `passlane_drift_objects`. What was named before and is not
    /// any more is shown as 0.
    pub fn found(&self, drift: impl IntoIterator<Item = (Drift, u64)>) {
        let mut now: BTreeMap<Drift, u64> =
            self.objects.load().keys().map(|drift| (*drift, 0)).collect();
        for (drift, objects) in drift {
            *now.entry(drift).or_default() += objects;
        }
        self.objects.store(Arc::new(now));
    }

    /// Counts objects that were mended: `passlane_drift_healed_total`.
    pub fn healed(&self, subsystem: &'static str, kind: &'static str, objects: u64) {
        self.healed.add(&(subsystem, kind), objects);
    }

    /// Returns what differs.
    pub(super) fn objects(&self) -> Arc<BTreeMap<Drift, u64>> {
        self.objects.load_full()
    }

    /// Returns what was mended.
    pub(super) fn healed_so_far(&self) -> Vec<(Drift, u64)> {
        let entries = self.healed.entries();
        entries.iter().map(|(drift, count)| (*drift, count.value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_that_is_gone_is_zero_and_what_was_healed_stays() {
        let recorder = DriftRecorder::default();
        let audit = recorder.clone();
        audit.found([(("ipvs", "missing"), 2), (("nft", "changed"), 1), (("ipvs", "missing"), 1)]);
        audit.healed("ipvs", "missing", 3);
        assert_eq!(
            *recorder.objects(),
            BTreeMap::from([(("ipvs", "missing"), 3), (("nft", "changed"), 1)])
        );
        audit.found([(("nft", "changed"), 1)]);
        assert_eq!(recorder.objects()[&("ipvs", "missing")], 0);
        assert_eq!(recorder.healed_so_far(), [(("ipvs", "missing"), 3)]);
    }
}
