//! Programs one by one, natively.

mod bench;
mod clock;
mod hash_plane;
mod report;
mod rows;
mod shape;
mod times;
mod transit;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use self::bench::Bench;
use crate::stage;

/// Measures every row `rounds` times, one after the other in each round, so that the machine's
/// moods hit all alike.
pub(crate) fn run(ladder: &Path, rounds: usize) -> Result<()> {
    if let Some(missing) = stage::missing() {
        anyhow::bail!("{missing}: BPF programs need root");
    }
    stage::sweep();
    pin()?;
    let rows = rows::all();
    let mut bench = Bench::new(ladder, &rows)?;
    let mut transit = transit::Transit::new()?;
    let mut hash_plane = hash_plane::HashPlane::new(ladder)?;
    let mut times = vec![Vec::with_capacity(rounds); rows.len()];
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        for (row, times) in rows.iter().zip(&mut times) {
            times.push(bench.measure(row).with_context(|| row.to_string())?);
        }
        transit.measure()?;
        hash_plane.measure()?;
    }
    let measured = report::Measured::new(&rows, times, &bench)?;
    let (lines, xdp_hit) = transit.lines();
    let (tables, of_hash_plane) = hash_plane.report()?;
    print!("{}{lines}{tables}", measured.table());
    let mut summary = measured.summary(xdp_hit);
    for (name, number) in of_hash_plane.as_object().into_iter().flatten() {
        summary[name] = number.clone();
    }
    println!("{summary}");
    Ok(())
}

/// Keeps this thread on one CPU, the last one it may run on.
fn pin() -> Result<()> {
    let allowed = sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    ensure!(last.is_some(), "no CPU to run on");
    let mut one = CpuSet::new();
    one.set(last.unwrap_or_default());
    sched_setaffinity(None, &one).context("stay on one CPU")
}
