//! Reads the kernel for scrapes, on a thread of its own: not oftener than it may, and however many
//! ask.

use std::{
    future::Future,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{names::LEAST_INTERVAL, scrape::Samples};
use crate::tally::{Counter, Table};

/// A scrape waits for a reading for at most this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Reading takes at most one part in this many of the time.
const SHARE: u32 = 10;

/// What was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) samples: Samples,
    /// Everything could be read.
    pub(super) whole: bool,
    pub(super) at: Instant,
    pub(super) took: Duration,
}

impl Reading {
    /// Returns whether it is too early for another one.
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < LEAST_INTERVAL.max(self.took * SHARE)
    }
}

/// The reader. Its thread ends with it, after the reading that is under way.
#[derive(Debug)]
pub(super) struct Reader {
    ask: mpsc::Sender<()>,
    latest: watch::Receiver<Option<Arc<Reading>>>,
    /// Readings, by outcome.
    pub(super) readings: Arc<Table<&'static str>>,
    /// Scrapes, by what they got.
    pub(super) scrapes: Table<&'static str>,
}

/// What a reader reads. It is made in the reader's thread.
pub(super) trait Read {
    /// Reads; says whether that was everything.
    fn read(&mut self) -> impl Future<Output = (Samples, bool)>;
}

impl Reader {
    /// Starts the thread, in the network namespace of the calling one.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn start<R: Read>(make: impl FnOnce() -> R + Send + 'static) -> io::Result<Self> {
        let (ask, asked) = mpsc::channel(1);
        let (tell, latest) = watch::channel(None);
        let readings = Arc::new(Table::new(Counter::default));
        let counted = Arc::clone(&readings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("metrics-read".into()).spawn(move || {
            runtime.block_on(run(make(), asked, tell, &counted));
        })?;
        Ok(Self { ask, latest, readings, scrapes: Table::new(Counter::default) })
    }

    /// Returns a reading: the last one if it is fresh, a new one if it comes in time, or else an old
    /// one, if there is any.
    pub(super) async fn reading(&self) -> Option<Arc<Reading>> {
        let mut latest = self.latest.clone();
        let last = latest.borrow_and_update().clone();
        if let Some(fresh) = last.clone().filter(|reading| reading.is_fresh()) {
            self.scrapes.add(&"shared", 1);
            return Some(fresh);
        }
        // A full channel says that somebody has asked already.
        let _ = self.ask.try_send(());
        if let Ok(Ok(())) = timeout(PATIENCE, latest.changed()).await {
            self.scrapes.add(&"fresh", 1);
            return latest.borrow().clone();
        }
        self.scrapes.add(&"late", 1);
        last
    }
}

async fn run(
    mut source: impl Read,
    mut asked: mpsc::Receiver<()>,
    tell: watch::Sender<Option<Arc<Reading>>>,
    readings: &Table<&'static str>,
) {
    while asked.recv().await.is_some() {
        // Somebody asked while the last reading was under way, and got that.
        if tell.borrow().as_ref().is_some_and(|reading| reading.is_fresh()) {
            continue;
        }
        let started = Instant::now();
        let (samples, whole) = source.read().await;
        let at = Instant::now();
        let reading = Reading { samples, whole, at, took: at - started };
        readings.add(&if whole { "done" } else { "partial" }, 1);
        if tell.send(Some(Arc::new(reading))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    struct Slow(Arc<AtomicU32>, Duration);

    impl Read for Slow {
        async fn read(&mut self) -> (Samples, bool) {
            self.0.fetch_add(1, SeqCst);
            tokio::time::sleep(self.1).await;
            (Samples::default(), true)
        }
    }

    fn reader(takes: Duration) -> (Arc<Reader>, Arc<AtomicU32>) {
        let readings = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&readings);
        (Arc::new(Reader::start(move || Slow(counted, takes)).unwrap()), readings)
    }

    #[tokio::test]
    async fn a_storm_of_scrapes_reads_once() {
        let (reader, readings) = reader(Duration::from_millis(50));
        let storm: Vec<_> = (0..200)
            .map(|_| {
                let reader = Arc::clone(&reader);
                tokio::spawn(async move { reader.reading().await.is_some() })
            })
            .collect();
        for scrape in storm {
            assert!(scrape.await.unwrap());
        }
        for _ in 0..200 {
            assert!(reader.reading().await.is_some());
        }
        assert_eq!(readings.load(SeqCst), 1);
        let scrapes = reader.scrapes.entries();
        assert_eq!((scrapes["fresh"].value(), scrapes["shared"].value()), (200, 200));
    }

    #[tokio::test]
    async fn a_reading_that_takes_too_long_is_not_waited_for() {
        let (reader, _) = reader(PATIENCE * 3);
        let started = Instant::now();
        assert!(reader.reading().await.is_none());
        assert!(started.elapsed() < PATIENCE * 2, "{:?}", started.elapsed());
        assert_eq!(reader.scrapes.entries()["late"].value(), 1);
    }
}
