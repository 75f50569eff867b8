//! One size, measured: everything from nothing, then one change after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxy_userspace::plan::Limits;
use serde::{Deserialize, Serialize};

use crate::{
    allocations::Mark,
    fleet::{self, Size},
    kernel::Kernel,
    memory::Resident,
    percentile::Times,
    planner::Planner,
};

/// Of the BPF maps; larger than any size, so that no id runs out.
const LIMITS: Limits = Limits { frontends: 1 << 20, backends: 1 << 20 };
/// More changes than this say nothing new.
const MOST_CHANGES: u32 = 2000;

/// What a size took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// As in [`Size`].
    pub(crate) size: String,
    /// Seconds to decide everything, from a snapshot and an empty node.
    pub(crate) cold_plan_s: f64,
    /// Seconds to encode everything and take it up.
    pub(crate) cold_apply_s: f64,
    /// Actions of the first plan.
    pub(crate) cold_actions: usize,
    /// Requests to IPVS.
    pub(crate) cold_requests: usize,
    /// Their bytes; 0 where they are not counted.
    pub(crate) cold_bytes: usize,
    /// Allocations of the cold sync.
    pub(crate) cold_allocations: u64,
    /// Changes measured.
    pub(crate) changes: usize,
    /// From a change to its requests encoded and taken up, in milliseconds.
    pub(crate) change_ms_p50: f64,
    /// The same.
    pub(crate) change_ms_p99: f64,
    /// The same.
    pub(crate) change_ms_max: f64,
    /// Allocations of a change, on average.
    pub(crate) change_allocations: u64,
    /// Bytes allocated in a change, on average.
    pub(crate) change_bytes: u64,
    /// Milliseconds of processor time of one look of the audit at IPVS; 0 where there is none.
    pub(crate) audit_ms: f64,
    /// Resident memory at the end.
    pub(crate) rss_mib: f64,
    /// The most resident memory there was.
    pub(crate) peak_mib: f64,
}

/// Measures one size on an empty node; changes for at most `change_time`, but one at least.
pub(crate) fn run(size: Size, change_time: Duration, kernel: &mut impl Kernel) -> Result<Measured> {
    let mut planner = Planner::new(fleet::snapshot(size), fleet::node(), LIMITS);
    let mark = Mark::now();
    let start = Instant::now();
    let plan = planner.all(kernel.observed());
    let planned = start.elapsed();
    let sent = kernel.apply(&plan, planner.servers())?;
    let applied = start.elapsed() - planned;
    let (cold_allocations, _) = mark.since();
    let cold_actions = plan.actions.len();
    drop(plan);
    ensure!(
        planner.all(kernel.observed()).actions.is_empty(),
        "{size}: a second plan does something"
    );

    let changes = changes(size, &mut planner, kernel, change_time)?;
    kernel.check()?;
    let audit = kernel.look()?.unwrap_or_default();
    let resident = Resident::read()?;
    let count = changes.times.count() as u64;
    Ok(Measured {
        size: size.to_string(),
        cold_plan_s: planned.as_secs_f64(),
        cold_apply_s: applied.as_secs_f64(),
        cold_actions,
        cold_requests: sent.requests,
        cold_bytes: sent.bytes,
        cold_allocations,
        changes: changes.times.count(),
        change_ms_p50: changes.times.percentile_ms(50),
        change_ms_p99: changes.times.percentile_ms(99),
        change_ms_max: changes.times.percentile_ms(100),
        change_allocations: changes.allocations / count,
        change_bytes: changes.bytes / count,
        audit_ms: audit.as_secs_f64() * 1e3,
        rss_mib: resident.now_kib as f64 / 1024.0,
        peak_mib: resident.peak_kib as f64 / 1024.0,
    })
}

struct Changes {
    times: Times,
    allocations: u64,
    bytes: u64,
}

fn changes(
    size: Size,
    planner: &mut Planner,
    kernel: &mut impl Kernel,
    change_time: Duration,
) -> Result<Changes> {
    let (mut times, mut allocations, mut bytes) = (Vec::new(), 0, 0);
    let until = Instant::now() + change_time;
    for turn in 0..MOST_CHANGES {
        if turn > 0 && Instant::now() > until {
            break;
        }
        let change = fleet::change(size, turn);
        let (mark, start) = (Mark::now(), Instant::now());
        let plan = planner.change(change, kernel.observed());
        let sent = kernel.apply(&plan, planner.servers())?;
        times.push(start.elapsed());
        let used = mark.since();
        (allocations, bytes) = (allocations + used.0, bytes + used.1);
        ensure!(sent.requests > 0, "{size}: change {turn} reaches no kernel");
    }
    Ok(Changes { times: Times::new(times), allocations, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_size_is_measured_as_a_whole() {
        let size = Size { services: 100, endpoints: 3 };
        let measured =
            run(size, Duration::from_millis(200), &mut crate::fake::Fake::new()).unwrap();
        // 100 cluster IPs, 5 NodePorts; SET and NEW for each server and destination.
        let frontends = 100 + 5;
        assert!(measured.cold_requests >= 2 * frontends * (1 + 3), "{measured:?}");
        assert!(measured.cold_bytes > measured.cold_requests * 20);
        assert!((1..=2000).contains(&measured.changes));
        assert!(measured.change_ms_p50 <= measured.change_ms_p99);
        assert!(measured.change_ms_p99 <= measured.change_ms_max);
        assert!(measured.change_allocations > 0 && measured.peak_mib >= measured.rss_mib);
    }
}
