//! `passlane status`: the agent's last report, and what the kernel says now.

mod observed;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use proxy_common::reason::{Class, Reason};
use serde::Serialize;

use super::{
    Failure, FormatFlag,
    output::{self, Style, View},
    repeat::Repeat,
    version,
};
use crate::{
    config::Paths,
    kernel::bpf::{Maps, PinDirectory},
    ledger::Owned,
    status::{FastPathReport, HashInterface, HashPlaneReport, InterfaceReport, Lock, Pass, Report},
};

/// The flags of `passlane status`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
    #[command(flatten)]
    repeat: Repeat,
}

/// Everything `status` says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    kernel: String,
    agent: Agent,
    ready: bool,
    source: String,
    source_error: Option<String>,
    /// What is served was saved then, in seconds since 1970: the API server has not answered yet.
    source_stale_since: Option<u64>,
    services: usize,
    frontends: usize,
    last_reconcile: Pass,
    notices: Vec<String>,
    fast_path: FastPathReport,
    /// What XDP sends to backends by itself; absent where nobody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_plane: Option<HashPlaneReport>,
    interfaces: Vec<InterfaceReport>,
    /// What would have been fast, where the fast path only observes.
    observed: Vec<observed::Observed>,
    /// Packets by reason.
    counters: BTreeMap<&'static str, u64>,
    /// Of the packets of known Services, those on the fast path; absent before the first.
    fast_path_share: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct Agent {
    running: bool,
    pid: Option<u32>,
    version: Option<String>,
}

/// Prints the status. Fails when no agent runs or it is not ready: fit for a probe.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let status = flags.repeat.show(&flags.format, || gather(&flags.paths))?;
    if status.agent.running && status.ready { Ok(()) } else { Err(Failure::Degraded) }
}

impl View for Status {
    const KIND: &'static str = "Status";

    fn text(&self, style: Style) -> String {
        describe(self, style.headers)
    }
}

/// Reads everything.
pub(super) fn gather(paths: &Paths) -> Result<Status, Failure> {
    let report = Report::read(&paths.state_dir)?;
    let running = Lock::is_taken(&paths.state_dir);
    let maps = Maps::open(&PinDirectory::at(&paths.bpffs)).ok();
    let counters = maps.as_ref().map(counters).unwrap_or_default();
    let owned = Owned::read(&paths.state_dir)?;
    let agent = Agent {
        running,
        pid: report.as_ref().filter(|_| running).map(|report| report.pid),
        version: report.as_ref().map(|report| report.version.clone()),
    };
    let report = report.unwrap_or_default();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        kernel: version::kernel(),
        agent,
        ready: running && report.ready,
        source: report.source,
        source_error: report.source_error,
        source_stale_since: report.source_stale_since,
        services: report.services,
        frontends: report.frontends,
        last_reconcile: report.last_reconcile,
        notices: report.notices,
        fast_path: report.fast_path,
        hash_plane: report.hash_plane,
        interfaces: report.interfaces,
        observed: maps.map(|maps| observed::gather(&maps, &owned)).unwrap_or_default(),
        fast_path_share: share(&counters),
        counters,
    })
}

/// Returns the packets by reason.
fn counters(maps: &Maps) -> BTreeMap<&'static str, u64> {
    Reason::ALL
        .iter()
        .filter_map(|reason| Some((reason.name(), maps.counter(*reason).ok()?.packets)))
        .collect()
}

fn share(counters: &BTreeMap<&'static str, u64>) -> Option<f64> {
    let sum = |class| -> u64 {
        Reason::ALL
            .iter()
            .filter(|reason| reason.class() == class)
            .filter_map(|reason| counters.get(reason.name()))
            .sum()
    };
    let (fast, slow) = (sum(Class::Fast), sum(Class::Slow));
    (fast + slow > 0).then(|| fast as f64 / (fast + slow) as f64)
}

fn describe(status: &Status, headers: bool) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let key = if key.is_empty() { String::new() } else { format!("{key}:") };
        text += &format!("{key:16}{value}\n");
    };
    line(
        "Agent",
        match status.agent.pid {
            Some(pid) => format!("running (pid {pid}, version {})", status.version),
            None => "not running; forwarding goes on with what is in the kernel".into(),
        },
    );
    line("Kernel", status.kernel.clone());
    line("Ready", if status.ready { "yes" } else { "no" }.into());
    line("Source", status.source.clone());
    if let Some(error) = &status.source_error {
        line("Source error", format!("{error} (the last good state stays)"));
    }
    if let Some(saved) = status.source_stale_since {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let age = now.saturating_sub(saved);
        line(
            "Snapshot",
            format!("saved {age} s ago; the API server has not answered since the start"),
        );
    }
    line("Services", format!("{} ({} frontends)", status.services, status.frontends));
    let pass = &status.last_reconcile;
    line("Last pass", format!("{} changes in {} ms", pass.actions, pass.duration_ms));
    for error in &pass.errors {
        line("Error", error.clone());
    }
    for notice in &status.notices {
        line("Notice", notice.clone());
    }
    let reason = match status.fast_path.reason.as_str() {
        "" => String::new(),
        reason => format!(" ({reason})"),
    };
    line("Fast path", format!("{}{reason}", status.fast_path.mode));
    if let Some(plane) = &status.hash_plane {
        hash_plane(plane, &mut line);
    }
    let forced = status.interfaces.iter().filter(|each| each.mode == "forced").count();
    if forced > 0 {
        line("FORCED", format!("on {forced} interfaces: packets pass programs of others by"));
    }
    if let Some(share) = status.fast_path_share {
        line("Fast share", format!("{:.1} % of the packets of known Services", share * 100.0));
    }
    text += &interfaces(&status.interfaces, headers);
    text += &observed::describe(&status.observed, headers);
    text
}

fn hash_plane(plane: &HashPlaneReport, mut line: impl FnMut(&str, String)) {
    let HashPlaneReport { mode, reason, carried, refused, untold, .. } = plane;
    let frontends = match mode.as_str() {
        "on" => format!("{} frontends; {} with mh are IPVS's", carried.len(), refused.len()),
        _ => reason.clone(),
    };
    line("Hash plane", format!("{mode} ({frontends})"));
    for HashInterface { name, mode, reason } in &plane.interfaces {
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        line("", format!("{name}: {mode}{reason}"));
    }
    if !untold.is_empty() {
        line("", format!("IPVS cannot be told of flows: {untold}"));
    }
}

fn interfaces(interfaces: &[InterfaceReport], headers: bool) -> String {
    if interfaces.is_empty() {
        return String::new();
    }
    let mut table = output::table(["INTERFACE", "INDEX", "MODE", "REASON", "XDP"]);
    for interface in interfaces {
        let InterfaceReport { name, index, mode, reason, xdp } = interface;
        table.add_row([name, &index.to_string(), mode, reason, xdp]);
    }
    format!("\n{}", output::render(&table, headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_printed_as_it_always_was() {
        let status = Status {
            version: "0.0.0",
            kernel: "6.12.0".into(),
            agent: Agent { running: true, pid: Some(7), version: Some("0.0.0".into()) },
            ready: true,
            source: "file:/etc/passlane".into(),
            source_error: Some("web.yaml: no such port".into()),
            source_stale_since: None,
            services: 2,
            frontends: 3,
            last_reconcile: Pass { at: 1, duration_ms: 12, actions: 5, errors: vec!["no".into()] },
            notices: vec!["default/web: something".into()],
            fast_path: FastPathReport { mode: "on".into(), ..FastPathReport::default() },
            hash_plane: Some(HashPlaneReport {
                mode: "on".into(),
                slots: 4093,
                untold: "no such interface".into(),
                interfaces: vec![HashInterface {
                    name: "eth1".into(),
                    mode: "off".into(),
                    reason: "device or resource busy".into(),
                }],
                ..HashPlaneReport::default()
            }),
            interfaces: vec![InterfaceReport {
                name: "eth0".into(),
                index: 2,
                mode: "fast".into(),
                reason: String::new(),
                xdp: String::new(),
            }],
            observed: Vec::new(),
            counters: BTreeMap::from([("hit", 99), ("syn", 1)]),
            fast_path_share: Some(0.99),
        };
        crate::cli::snapshot::check("status", &status);
    }
}
