//! What plans did, counted for the metrics.

use std::{collections::BTreeMap, time::Duration};

/// How often something was done, and how often it failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tries {
    /// It was done.
    pub done: u64,
    /// It failed.
    pub failed: u64,
}

impl Tries {
    fn add(&mut self, done: u64, failed: u64) {
        self.done += done;
        self.failed += failed;
    }
}

/// A search of conntrack for stale flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Search {
    /// The address family.
    pub ipv6: bool,
    /// What it took.
    pub took: Duration,
    /// Entries that it deleted.
    pub deleted: u64,
}

/// What was done for plans.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Actions, by name.
    pub actions: BTreeMap<&'static str, Tries>,
    /// Commands to IPVS, by name.
    pub ipvs: BTreeMap<&'static str, Tries>,
    /// Transactions of the nft table.
    pub nft: Tries,
    /// Searches of conntrack.
    pub searches: Vec<Search>,
}

impl Tally {
    pub(super) fn count_action(&mut self, name: &'static str, done: u64, failed: u64) {
        self.actions.entry(name).or_default().add(done, failed);
    }

    pub(super) fn count_command(&mut self, name: &'static str, done: bool) {
        let (done, failed) = if done { (1, 0) } else { (0, 1) };
        self.ipvs.entry(name).or_default().add(done, failed);
    }

    pub(super) fn count_transaction(&mut self, done: bool) {
        let (done, failed) = if done { (1, 0) } else { (0, 1) };
        self.nft.add(done, failed);
    }
}
