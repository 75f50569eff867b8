//! What was measured, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::measure::Measured;

/// The size whose cold sync counts.
const COLD: &str = "50000x5";
/// The size whose memory counts.
const MEMORY: &str = "30000x4";

/// Returns a table, a line for each size.
pub(crate) fn table(all: &[Measured]) -> String {
    let mut text = format!(
        "{:>9}  {:>8}  {:>8}  {:>8}  {:>9}  {:>8}  {:>7}  {:>8}  {:>8}  {:>8}  {:>9}  {:>8}  {:>8}  {:>8}\n",
        "size",
        "plan s",
        "apply s",
        "actions",
        "requests",
        "MiB sent",
        "changes",
        "p50 ms",
        "p99 ms",
        "max ms",
        "allocs",
        "audit ms",
        "RSS MiB",
        "peak MiB"
    );
    for one in all {
        let _ = writeln!(
            text,
            "{:>9}  {:>8.3}  {:>8.3}  {:>8}  {:>9}  {:>8}  {:>7}  {:>8.3}  {:>8.3}  {:>8.3}  {:>9}  \
             {:>8.1}  {:>8.1}  {:>8.1}",
            one.size,
            one.cold_plan_s,
            one.cold_apply_s,
            one.cold_actions,
            one.cold_requests,
            mib(one.cold_bytes),
            one.changes,
            one.change_ms_p50,
            one.change_ms_p99,
            one.change_ms_max,
            one.change_allocations,
            one.audit_ms,
            one.rss_mib,
            one.peak_mib
        );
    }
    text
}

fn mib(bytes: usize) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes => format!("{:.1}", bytes as f64 / f64::from(1 << 20)),
    }
}

/// Returns one line of JSON: null is what was not measured.
pub(crate) fn summary(all: &[Measured]) -> Value {
    let of = |size: &str| all.iter().find(|one| one.size == size);
    json!({
        "cold_sync_s": of(COLD).map(|one| rounded(one.cold_plan_s + one.cold_apply_s)),
        "cold_sync_size": COLD,
        "change_ms_p99": of(COLD).map(|one| rounded(one.change_ms_p99)),
        "rss_mib_30k_x4": of(MEMORY).map(|one| rounded(one.rss_mib)),
        "sizes": all,
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
