//! Which guests run, and how many at once.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, anyhow};

use super::level::{Level, Outcome, Setting};
use crate::command::progress;
use crate::vm::kernels::Kernel;

/// As many keep two cores busy; with more, each has too little to react in time. Each takes 2 or 3 GiB.
const AT_ONCE: usize = 2;

/// A share of a level's tests, for a guest of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: usize,
    /// How many there are.
    pub(super) of: usize,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

/// What one guest runs.
pub(super) struct Job<'a> {
    pub(super) level: Level,
    pub(super) binary: &'a Path,
    pub(super) series: &'a str,
    pub(super) kernel: &'a Kernel,
    pub(super) part: Part,
}

/// Runs the levels on every kernel, and returns an outcome for each level on each kernel.
pub(super) fn run(
    setting: &Setting,
    binaries: &[(Level, PathBuf)],
    kernels: &[(Kernel, String)],
) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(jobs(setting, binaries, kernels));
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let ended = thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut ended = Vec::new();
                    while let Some(job) = next() {
                        progress(&format!("{:?} on {}, part {}", job.level, job.series, job.part));
                        ended.push(setting.in_guest(&job));
                    }
                    ended
                })
            })
            .collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Vec<Outcome>>| {
            worker.join().map_err(|_| anyhow!("running a guest panicked"))
        };
        workers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let mut ended: Vec<Outcome> = ended.into_iter().flatten().collect();
    let mut outcomes = Vec::new();
    for (_, series) in kernels {
        for (level, _) in binaries {
            let of_both =
                |outcome: &mut Outcome| outcome.kernel == *series && outcome.level == *level;
            outcomes.extend(ended.extract_if(.., of_both).reduce(Outcome::join));
        }
    }
    Ok(outcomes)
}

/// The longest guests first, so that no long one is left alone at the end: a node of a cluster takes
/// longer than a part of L4, and L3 is short.
fn jobs<'a>(
    setting: &Setting,
    binaries: &'a [(Level, PathBuf)],
    kernels: &'a [(Kernel, String)],
) -> VecDeque<Job<'a>> {
    let mut jobs = VecDeque::new();
    let mut binaries: Vec<_> = binaries.iter().collect();
    binaries.sort_by_key(|(level, _)| match level {
        Level::L5 => 0,
        Level::L4 => 1,
        _ => 2,
    });
    for (level, binary) in binaries {
        // A name is in one part only.
        let of = if setting.filter.is_none() { level.parts() } else { 1 };
        for number in 1..=of {
            for (kernel, series) in level.kernels(kernels) {
                let part = Part { number, of };
                jobs.push_back(Job { level: *level, binary, series, kernel, part });
            }
        }
    }
    jobs
}
