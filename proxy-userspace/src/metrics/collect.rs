//! The samples of what the loop told.

use std::collections::BTreeMap;

use super::{
    names,
    recorder::{Recorder, State},
    scrape::Samples,
};
use crate::{
    checks::BackendCheck,
    health::Answers,
    source::kubernetes::Requests,
    status::{InterfaceReport, Report},
    tally::Counter,
};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const CODES: [&str; 2] = ["200", "503"];

/// Puts everything that the loop told.
pub(super) fn collect(recorder: &Recorder, samples: &mut Samples) {
    let state = recorder.state.load_full();
    let families = if state.has_ipv6 { &FAMILIES[..] } else { &FAMILIES[..1] };
    passes(recorder, families, samples);
    for (index, family) in families.iter().enumerate() {
        let programming = recorder.programming[index].distribution();
        samples.put(&names::NETWORK_PROGRAMMING, [*family], programming);
        let conntrack = recorder.conntrack[index].distribution();
        samples.put(&names::CONNTRACK_DURATION, [*family], conntrack);
        let deleted = recorder.conntrack_deleted[index].value();
        samples.put(&names::CONNTRACK_DELETED, [*family], deleted);
        for (external, policy) in ["internal", "external"].into_iter().enumerate() {
            let services = state.no_local_endpoints[index][external] as u64;
            samples.put(&names::NO_LOCAL_ENDPOINTS, [family, policy], services);
        }
    }
    operations(recorder, samples);
    answers(recorder.health.answers(), samples);
    if let Some(requests) = &recorder.requests {
        rest(requests, samples);
    }
    drift(recorder, samples);
    build(&state, samples);
    standing(&state, samples);
    interfaces(&state.report, samples);
    for BackendCheck { service, backend, state, .. } in state.checks.iter() {
        let labels = [&*service.to_string(), &*backend.to_string()];
        samples.put(&names::CHECK_UP, labels, state.up);
        samples.put(&names::CHECK_TRANSITIONS, labels, state.changes);
    }
}

fn passes(recorder: &Recorder, families: &[&str], samples: &mut Samples) {
    for family in families.iter().copied() {
        samples.put(&names::SYNC_DURATION, [family], recorder.sync.distribution());
        samples.put(&names::SYNC_FULL_DURATION, [family], recorder.sync_full.distribution());
        samples.put(&names::SYNC_PARTIAL_DURATION, [family], recorder.sync_partial.distribution());
        samples.put(&names::SYNC_LAST, [family], recorder.synced_at.value());
        samples.put(&names::SYNC_LAST_QUEUED, [family], recorder.queued_at.value());
    }
    let (services, endpoints) = (&recorder.services, &recorder.endpoints);
    samples.put(&names::SERVICE_CHANGES, [], services.total.value());
    samples.put(&names::SERVICE_CHANGES_PENDING, [], services.pending.value());
    samples.put(&names::ENDPOINT_CHANGES, [], endpoints.total.value());
    samples.put(&names::ENDPOINT_CHANGES_PENDING, [], endpoints.pending.value());
}

fn operations(recorder: &Recorder, samples: &mut Samples) {
    for (metric, table) in [
        (&names::PASSES, &recorder.passes),
        (&names::ACTIONS, &recorder.actions),
        (&names::IPVS_OPERATIONS, &recorder.ipvs),
    ] {
        for ((name, outcome), count) in table.entries().iter() {
            samples.put(metric, [name, outcome], count.value());
        }
    }
    for (outcome, count) in recorder.nft.entries().iter() {
        samples.put(&names::NFT_TRANSACTIONS, [outcome], count.value());
    }
}

fn answers(answers: &Answers, samples: &mut Samples) {
    let mut each = |metric, counters: &[Counter; 2]| {
        for (code, counter) in CODES.into_iter().zip(counters) {
            samples.put(metric, [code], counter.value());
        }
    };
    each(&names::HEALTHZ, &answers.healthz);
    each(&names::LIVEZ, &answers.livez);
}

fn rest(requests: &Requests, samples: &mut Samples) {
    for ((code, method, host), count) in requests.answers.entries().iter() {
        samples.put(&names::REST_REQUESTS, [code, method, host], count.value());
    }
    for ((verb, host), durations) in requests.durations.entries().iter() {
        samples.put(&names::REST_DURATION, [verb, host], durations.distribution());
    }
}

fn drift(recorder: &Recorder, samples: &mut Samples) {
    for ((subsystem, kind), objects) in recorder.drift.objects().iter() {
        samples.put(&names::DRIFT, [subsystem, kind], *objects);
    }
    for ((subsystem, kind), objects) in recorder.drift.healed_so_far() {
        samples.put(&names::DRIFT_HEALED, [subsystem, kind], objects);
    }
    let audit = &recorder.audit;
    samples.put(&names::AUDIT_LOOKS, [], audit.looks());
    samples.put(&names::AUDIT_READINGS, [], audit.readings());
    samples.put(&names::AUDIT_CPU, [], audit.cost().as_secs_f64());
}

fn build(state: &State, samples: &mut Samples) {
    let version = env!("CARGO_PKG_VERSION");
    let mut numbers = version.split('.');
    let mut number = || numbers.next().unwrap_or_default();
    let (major, minor) = (number(), number());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let (version_text, platform) = (format!("v{version}"), format!("linux/{arch}"));
    let labels = ["", "rustc", "", "", &version_text, "", major, minor, &platform];
    samples.put(&names::BUILD_INFO, labels, 1.0);
    let kernel = crate::cli::version::kernel();
    samples.put(&names::INFO, [version, &state.report.fast_path.mode, &kernel], 1.0);
}

fn standing(state: &State, samples: &mut Samples) {
    let report = &state.report;
    samples.put(&names::READY, ["source"], state.has_snapshot);
    samples.put(&names::READY, ["slow_path"], report.ready);
    let off = "--fast-path off";
    let fast = report.fast_path.mode != "off" || report.fast_path.reason == off;
    samples.put(&names::READY, ["fast_path"], fast);
    samples.put(&names::SERVICES, [], report.services as u64);
    samples.put(&names::FRONTENDS, [], report.frontends as u64);
    for (reason, count) in count(state.notices.iter().copied()) {
        samples.put(&names::NOTICES, [reason], count);
    }
    samples.put(&names::PASS_FAILURES, [], report.last_reconcile.errors.len() as u64);
    let connected =
        state.has_snapshot && report.source_error.is_none() && report.source_stale_since.is_none();
    samples.put(&names::SOURCE_CONNECTED, [], connected);
    samples.put(&names::SOURCE_STALE_SINCE, [], report.source_stale_since.unwrap_or(0));
    samples.put(&names::SOURCE_RELISTS, [], state.relists);
    if let Some(lease) = report.lease {
        samples.put(&names::LEASE, ["soft"], lease.soft_ms as f64 / 1000.0);
        samples.put(&names::LEASE, ["hard"], lease.hard_ms as f64 / 1000.0);
    }
}

fn interfaces(report: &Report, samples: &mut Samples) {
    let modes = report.interfaces.iter().map(|interface| interface.mode.as_str());
    for (mode, count) in count(modes) {
        samples.put(&names::INTERFACES, [mode], count);
    }
    for InterfaceReport { name, mode, xdp, .. } in &report.interfaces {
        if mode != "off" {
            for hook in ["tc_ingress", "tc_egress"] {
                samples.put(&names::ATTACHED, [name, hook, mode], 1.0);
            }
        }
        if xdp == "on" {
            samples.put(&names::ATTACHED, [name, "xdp", "native"], 1.0);
        }
    }
}

fn count<'a>(words: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    counts
}
