//! Connections that are held while proxies come and go, and what became of each question on them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use proxy_tests::{
    echo::{Answer, Caller, Dial, Outcome},
    netns::Namespace,
    wait,
};
use proxy_userspace::model::Protocol;

/// A question waits so long before the connection counts as broken.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
/// The shortest retransmission of TCP.
const SLOW: Duration = Duration::from_millis(200);

/// A connection whose client asks all the time. Questions have numbers, so an answer that is lost or
/// comes twice is noticed.
pub(crate) struct Held {
    name: &'static str,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<Record>>,
}

/// What became of the questions of one connection.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) first: Answer,
    pub(crate) last: Answer,
    pub(crate) answered: u64,
    /// Anything but an answer of the same backend: resets, silence.
    pub(crate) bad: Vec<String>,
    pub(crate) slowest: Duration,
    /// Those that took so long that a packet may have been lost, by number.
    pub(crate) slow: Vec<(u64, Duration)>,
}

impl Held {
    /// Opens it, and begins to ask.
    pub(crate) fn open(
        name: &'static str,
        namespace: &Namespace,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<Self> {
        let mut caller = Dial::new(namespace, protocol, to).caller()?;
        caller.set_patience(PATIENCE);
        let first = caller.answer()?;
        let (over, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let thread = std::thread::spawn({
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered));
            move || ask(caller, first, &over, &answered)
        });
        Ok(Self { name, over, answered, thread })
    }

    /// Returns how many questions were answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Waits until so many more questions are answered.
    pub(crate) fn go_on(&self, more: u64) -> Result<()> {
        let until = self.answered.load(Relaxed) + more;
        wait::until_true(&format!("{} goes on", self.name), PATIENCE * 2, || {
            ensure!(!self.thread.is_finished(), "{} has ended", self.name);
            Ok(self.answered.load(Relaxed) >= until)
        })
    }

    /// Ends it. Nothing may have gone wrong.
    pub(crate) fn end(self) -> Result<Record> {
        self.over.store(true, Relaxed);
        let record = self.thread.join().map_err(|_| anyhow!("{} panicked", self.name))??;
        eprintln!(
            "{}: {} answers of {}, {} resets or losses, the slowest took {:?}; it saw {} first, {} \
             last; slow: {:?}",
            self.name,
            record.answered,
            record.first.by,
            record.bad.len(),
            record.slowest,
            record.first.source,
            record.last.source,
            record.slow
        );
        ensure!(record.bad.is_empty(), "{}: {:?}", self.name, record.bad);
        Ok(record)
    }
}

fn ask(
    mut caller: Caller,
    first: Answer,
    over: &AtomicBool,
    answered: &AtomicU64,
) -> Result<Record> {
    let mut record = Record {
        last: first.clone(),
        answered: 0,
        bad: Vec::new(),
        slowest: Duration::ZERO,
        slow: Vec::new(),
        first,
    };
    while !over.load(Relaxed) {
        let asked = Instant::now();
        match caller.ask()? {
            Outcome::Answered(answer) => {
                if answer != record.first {
                    record.bad.push(format!("{} saw {}", answer.by, answer.source));
                }
                record.last = answer;
            }
            outcome => {
                record.bad.push(outcome.to_string());
                // A stream that is broken stays so.
                break;
            }
        }
        let took = asked.elapsed();
        if took > SLOW {
            record.slow.push((record.answered, took));
        }
        record.slowest = record.slowest.max(took);
        record.answered += 1;
        answered.store(record.answered, Relaxed);
        wait::pause(PAUSE);
    }
    Ok(record)
}
