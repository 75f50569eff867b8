//! Numbers that some part of the agent counts and anybody may read: no lock is behind them, so that
//! who reads them never makes the writer wait.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// Returns the sum.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Returns it.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// How often durations were at most so long.
#[derive(Debug)]
pub struct Histogram {
    /// Upper ends in seconds, rising; whatever is above all of them has the last slot.
    bounds: &'static [f64],
    counts: Box<[AtomicU64]>,
    nanoseconds: AtomicU64,
}

/// The numbers of a [`Histogram`] at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// All durations together, in seconds.
    pub sum: f64,
    /// Upper end in seconds and how many were between it and the one before; the last end is
    /// infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Distribution {
    /// Returns how many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Histogram {
    /// Makes one with these upper ends in seconds.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanoseconds: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let slot = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get(slot) {
            count.fetch_add(1, Relaxed);
        }
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// Returns the numbers. What is observed meanwhile may be in the count and not yet in the sum.
    pub fn distribution(&self) -> Distribution {
        let sum = Duration::from_nanos(self.nanoseconds.load(Relaxed)).as_secs_f64();
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets = ends.zip(&self.counts).map(|(end, count)| (end, count.load(Relaxed)));
        Distribution { sum, buckets: buckets.collect() }
    }
}

/// Numbers by key. A key that was seen once stays, so there must be few.
pub struct Table<K, V = Counter> {
    entries: ArcSwap<BTreeMap<K, Arc<V>>>,
    make: fn() -> V,
}

impl<K: Clone + Ord, V> Table<K, V> {
    /// Makes an empty one.
    pub fn new(make: fn() -> V) -> Self {
        Self { entries: ArcSwap::default(), make }
    }

    /// Returns the number of a key, which is made when it is new.
    pub fn of(&self, key: &K) -> Arc<V> {
        if let Some(known) = self.entries.load().get(key) {
            return Arc::clone(known);
        }
        let made = Arc::new((self.make)());
        self.entries.rcu(|entries| {
            let mut entries = BTreeMap::clone(entries);
            entries.entry(key.clone()).or_insert_with(|| Arc::clone(&made));
            entries
        });
        self.entries.load().get(key).map_or(made, Arc::clone)
    }

    /// Returns keys and numbers, sorted.
    pub fn entries(&self) -> Arc<BTreeMap<K, Arc<V>>> {
        self.entries.load_full()
    }
}

impl<K: Clone + Ord> Table<K> {
    /// Adds to the number of a key.
    pub fn add(&self, key: &K, more: u64) {
        self.of(key).add(more);
    }
}

impl<K: Clone + Ord> Default for Table<K> {
    fn default() -> Self {
        Self::new(Counter::default)
    }
}

impl<K, V> fmt::Debug for Table<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_where_its_end_is_the_first_not_below_it() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for milliseconds in [499, 500, 501, 1000, 1001, 90_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let found = histogram.distribution();
        assert_eq!(found.buckets, [(0.5, 2), (1.0, 2), (f64::INFINITY, 2)]);
        assert_eq!(found.count(), 6);
        assert!((found.sum - 93.501).abs() < 1e-9, "{}", found.sum);
    }

    #[test]
    fn writers_of_one_table_lose_nothing() {
        let table = Arc::new(Table::<u8>::default());
        let writers = (0..4u8).map(|writer| {
            let table = Arc::clone(&table);
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    table.add(&writer, 1);
                    table.add(&100, 1);
                }
            })
        });
        writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
        let entries = table.entries();
        assert_eq!(entries[&100].value(), 4000);
        assert!((0..4).all(|writer| entries[&writer].value() == 1000));
    }
}
