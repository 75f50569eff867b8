//! What the audit did, counted for whoever shows it. Kinds of drift are counted apart, for
//! `/metrics`.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Counters since the start of the agent. Sharing them needs no lock.
#[derive(Debug, Default)]
pub struct AuditCounters {
    looks: AtomicU64,
    readings: AtomicU64,
    cost_micros: AtomicU64,
    drifts: AtomicU64,
}

impl AuditCounters {
    /// Counts a look at the node.
    pub fn looked(&self, cost: Duration) {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.cost_micros.fetch_add(cost.as_micros() as u64, Ordering::Relaxed);
    }

    /// Counts a look that led to a reading of some part in full.
    pub fn read(&self) {
        self.readings.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts changes that others made.
    pub fn found(&self, drifts: usize) {
        self.drifts.fetch_add(drifts as u64, Ordering::Relaxed);
    }

    /// Returns how often the whole node was looked at.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    /// Returns how often some part was read in full because of a look.
    pub fn readings(&self) -> u64 {
        self.readings.load(Ordering::Relaxed)
    }

    /// Returns the processor time of all looks.
    pub fn cost(&self) -> Duration {
        Duration::from_micros(self.cost_micros.load(Ordering::Relaxed))
    }

    /// Returns how many changes by others were found.
    pub fn drifts(&self) -> u64 {
        self.drifts.load(Ordering::Relaxed)
    }
}
