//! `passlane stats`: packets and bytes by reason, by Service and by backend, of both planes.

mod hash_plane;

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use comfy_table::Table;
use proxy_common::{
    abi::Counter,
    reason::{Class, Reason},
};
use serde::Serialize;

use hash_plane::OfHashReason;

use super::{
    Failure, dump,
    output::{self, Style, View},
    repeat::Repeat,
    servers::{self, Servers},
};
use crate::{
    audit::{
        hashed::Hashed,
        traffic::{FastTraffic, Traffic},
    },
    config::Paths,
    kernel::bpf::Maps,
    ledger::Owned,
    model::Backend,
};

/// The flags of `passlane stats`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// What to add up by; all three by default
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<By>,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: super::FormatFlag,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum By {
    /// Why packets took the plane they took
    Reason,
    /// Service ports and what clients dial
    Service,
    /// Where traffic goes
    Backend,
}

/// Everything `stats` says. What was not asked for is left out.
#[derive(Clone, Debug, Default, Serialize)]
struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    reasons: Option<Vec<OfReason>>,
    /// What XDP did with packets to frontends of the hash plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash_plane: Option<Vec<OfHashReason>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<OfService>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backends: Option<Vec<OfBackend>>,
}

#[derive(Clone, Debug, Serialize)]
struct OfReason {
    reason: &'static str,
    /// `fast`, `slow`, `other` or `learn`.
    class: &'static str,
    packets: u64,
    bytes: u64,
    /// Of the packets of known Services; absent for packets that are none, or were counted already.
    share: Option<f64>,
}

/// A Service port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct OfService {
    service: String,
    #[serde(flatten)]
    planes: Planes,
    frontends: Vec<OfFrontend>,
}

/// What clients dial.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct OfFrontend {
    frontend: String,
    connections: u64,
    #[serde(flatten)]
    planes: Planes,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct OfBackend {
    backend: String,
    #[serde(flatten)]
    planes: Planes,
}

/// What each plane carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Planes {
    /// Carried by the kernel, as IPVS counts it: up to 2 seconds old.
    slow: Traffic,
    /// Carried by the fast path.
    fast: Traffic,
    total: Traffic,
    /// Of the packets, those on the fast path; absent before the first.
    fast_share: Option<f64>,
}

impl Planes {
    fn of(slow: Traffic, fast: Traffic) -> Self {
        let total = slow + fast;
        Self { slow, fast, total, fast_share: share(fast.packets(), total.packets()) }
    }

    fn plus(self, slow: Traffic, fast: Traffic) -> Self {
        Self::of(self.slow + slow, self.fast + fast)
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

/// Prints the counters.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    flags.repeat.show(&flags.format, || gather(&flags.paths, flags.by))?;
    Ok(())
}

/// Adds up by what is asked for, or by everything.
fn gather(paths: &Paths, by: Option<By>) -> Result<Stats, Failure> {
    let asked = |this| by.is_none_or(|only| only == this);
    let maps = dump::maps(paths)?;
    let mut stats = Stats::default();
    if asked(By::Reason) {
        stats.reasons = Some(maps.as_ref().map(reasons).transpose()?.unwrap_or_default());
        stats.hash_plane = Hashed::read(&paths.state_dir, &paths.bpffs)?.map(hash_plane::rows);
    }
    if asked(By::Service) || asked(By::Backend) {
        let fast = dump::traffic(paths, maps.as_ref())?;
        let owned = Owned::read(&paths.state_dir)?;
        let servers = super::block_on(servers::ours(&owned))?;
        stats.services = asked(By::Service).then(|| services(&servers, &owned, &fast));
        stats.backends = asked(By::Backend).then(|| backends(&servers, &fast));
    }
    Ok(stats)
}

/// Everything at once.
pub(super) fn all(paths: &Paths) -> Result<impl View, Failure> {
    gather(paths, None)
}

impl View for Stats {
    const KIND: &'static str = "Stats";

    fn text(&self, style: Style) -> String {
        let wide = style.wide;
        let tables = [
            self.reasons.as_deref().map(|reasons| reason_table(reasons, wide)),
            self.hash_plane.as_deref().map(|reasons| hash_plane::table(reasons, wide)),
            self.services.as_deref().map(|services| service_table(services, wide)),
            self.backends.as_deref().map(|backends| backend_table(backends, wide)),
        ];
        let rendered = tables.iter().flatten().map(|table| output::render(table, style.headers));
        rendered.collect::<Vec<String>>().join("\n")
    }

    fn names(&self) -> Option<Vec<String>> {
        let reasons = self.reasons.iter().flatten().map(|row| format!("reason/{}", row.reason));
        let services = self.services.iter().flatten().map(|row| format!("service/{}", row.service));
        let backends = self.backends.iter().flatten().map(|row| format!("backend/{}", row.backend));
        Some(reasons.chain(services).chain(backends).collect())
    }
}

fn reasons(maps: &Maps) -> Result<Vec<OfReason>, Failure> {
    let mut counters = Vec::new();
    for reason in Reason::ALL {
        counters.push((*reason, maps.counter(*reason)?));
    }
    Ok(shares(&counters))
}

/// Every reason, also those that nothing was counted under: what is not there did not happen.
fn shares(counters: &[(Reason, Counter)]) -> Vec<OfReason> {
    let of_services = |reason: &Reason| matches!(reason.class(), Class::Fast | Class::Slow);
    let known = counters.iter().filter(|(reason, _)| of_services(reason));
    let all: u64 = known.map(|(_, counter)| counter.packets).sum();
    counters
        .iter()
        .map(|(reason, counter)| OfReason {
            reason: reason.name(),
            class: class(*reason),
            packets: counter.packets,
            bytes: counter.bytes,
            share: share(counter.packets, all).filter(|_| of_services(reason)),
        })
        .collect()
}

fn class(reason: Reason) -> &'static str {
    match reason.class() {
        Class::Fast => "fast",
        Class::Slow => "slow",
        Class::Other => "other",
        Class::Learn => "learn",
    }
}

fn services(servers: &Servers, owned: &Owned, fast: &FastTraffic) -> Vec<OfService> {
    let mut services = BTreeMap::<&String, OfService>::new();
    for (server, _) in servers {
        let frontend = server.virtual_server.frontend;
        let Some(name) = owned.virtual_servers.get(&frontend) else { continue };
        let (slow, fast) = (Traffic::from(&server.stats), fast.frontend(&frontend));
        let service = services.entry(name).or_default();
        service.service.clone_from(name);
        service.planes = service.planes.plus(slow, fast);
        service.frontends.push(OfFrontend {
            frontend: frontend.to_string(),
            connections: server.stats.connections,
            planes: Planes::of(slow, fast),
        });
    }
    services.into_values().collect()
}

/// A backend may stand behind several virtual servers.
fn backends(servers: &Servers, fast: &FastTraffic) -> Vec<OfBackend> {
    let mut slow = BTreeMap::<Backend, Traffic>::new();
    for (server, destinations) in servers {
        let protocol = server.virtual_server.frontend.protocol;
        for state in destinations {
            let backend = Backend::new(state.destination.key, protocol);
            let sum = slow.entry(backend).or_default();
            *sum = *sum + Traffic::from(&state.stats);
        }
    }
    let row = |(backend, slow): (Backend, Traffic)| OfBackend {
        backend: backend.to_string(),
        planes: Planes::of(slow, fast.backend(&backend)),
    };
    slow.into_iter().map(row).collect()
}

pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2}%", share * 100.0))
}

/// Narrow, only what was counted.
fn reason_table(reasons: &[OfReason], wide: bool) -> Table {
    let mut table = output::table(["REASON", "CLASS", "PACKETS", "BYTES", "SHARE"]);
    for OfReason { reason, class, packets, bytes, share } in reasons {
        if wide || *packets > 0 {
            let numbers = [packets.to_string(), bytes.to_string(), percent(*share)];
            let [packets, bytes, share] = numbers;
            table.add_row([*reason, *class, &packets, &bytes, &share]);
        }
    }
    table
}

const PLANES: [&str; 7] =
    ["PACKETS", "SLOW", "FAST", "FAST-SHARE", "BYTES", "SLOW-BYTES", "FAST-BYTES"];
const DIRECTIONS: [&str; 8] = [
    "SLOW-IN",
    "SLOW-OUT",
    "FAST-IN",
    "FAST-OUT",
    "SLOW-IN-BYTES",
    "SLOW-OUT-BYTES",
    "FAST-IN-BYTES",
    "FAST-OUT-BYTES",
];

fn plane_table(names: &[&str], wide: bool) -> Table {
    let directions = if wide { &DIRECTIONS[..] } else { &[] };
    output::columns(&[names, &PLANES[..], directions].concat())
}

fn plane_cells(planes: &Planes, wide: bool) -> Vec<String> {
    let Planes { slow, fast, total, fast_share } = planes;
    let text = |number: u64| number.to_string();
    let mut cells = vec![
        text(total.packets()),
        text(slow.packets()),
        text(fast.packets()),
        percent(*fast_share),
        text(total.bytes()),
        text(slow.bytes()),
        text(fast.bytes()),
    ];
    if wide {
        let packets = [slow.in_packets, slow.out_packets, fast.in_packets, fast.out_packets];
        let bytes = [slow.in_bytes, slow.out_bytes, fast.in_bytes, fast.out_bytes];
        cells.extend(packets.into_iter().chain(bytes).map(text));
    }
    cells
}

fn service_table(services: &[OfService], wide: bool) -> Table {
    let names: &[&str] = if wide { &["SERVICE", "FRONTEND"] } else { &["SERVICE"] };
    let mut table = plane_table(names, wide);
    for service in services {
        if !wide {
            table.add_row(
                [vec![service.service.clone()], plane_cells(&service.planes, wide)].concat(),
            );
            continue;
        }
        for OfFrontend { frontend, planes, .. } in &service.frontends {
            let names = vec![service.service.clone(), frontend.clone()];
            table.add_row([names, plane_cells(planes, wide)].concat());
        }
    }
    table
}

fn backend_table(backends: &[OfBackend], wide: bool) -> Table {
    let mut table = plane_table(&["BACKEND"], wide);
    for OfBackend { backend, planes } in backends {
        table.add_row([vec![backend.clone()], plane_cells(planes, wide)].concat());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_packets_of_known_services() {
        let counter = |packets| Counter { packets, bytes: packets * 100 };
        let reasons = shares(&[
            (Reason::Hit, counter(90)),
            (Reason::NoFlow, counter(10)),
            (Reason::NotService, counter(1000)),
            (Reason::Installed, counter(4)),
        ]);
        let shares: Vec<_> = reasons.iter().map(|reason| reason.share).collect();
        assert_eq!(shares, [Some(0.9), Some(0.1), None, None]);
        let printed = output::render(&reason_table(&reasons, false), true);
        let expected = "\
REASON        CLASS   PACKETS   BYTES    SHARE
hit           fast    90        9000     90.00%
no_flow       slow    10        1000     10.00%
not_service   other   1000      100000   -
installed     learn   4         400      -
";
        assert_eq!(printed, expected);
    }

    #[test]
    fn planes_add_up_and_say_nothing_of_a_share_before_the_first_packet() {
        let traffic = |packets| Traffic { in_packets: packets, in_bytes: 50, ..Traffic::default() };
        assert_eq!(Planes::default().fast_share, None);
        let planes = Planes::default().plus(traffic(1), traffic(2)).plus(traffic(0), traffic(1));
        assert_eq!(planes.total.in_packets, 4);
        assert_eq!(planes.total.bytes(), 200);
        assert_eq!(planes.fast_share, Some(0.75));
        let cells = plane_cells(&planes, false);
        assert_eq!(cells, ["4", "1", "3", "75.00%", "200", "100", "100"]);
    }

    #[test]
    fn statistics_are_printed_as_they_always_were() {
        let traffic = |packets| Traffic {
            in_packets: packets,
            in_bytes: packets * 60,
            out_packets: packets,
            out_bytes: packets * 1500,
        };
        let planes = Planes::of(traffic(10), traffic(90));
        let frontend = OfFrontend { frontend: "10.96.0.10:80/TCP".into(), connections: 4, planes };
        let stats = Stats {
            reasons: Some(shares(&[(Reason::Hit, Counter { packets: 180, bytes: 140_400 })])),
            hash_plane: None,
            services: Some(vec![OfService {
                service: "default/web:http".into(),
                planes,
                frontends: vec![frontend],
            }]),
            backends: Some(vec![OfBackend { backend: "10.1.1.11:8080/TCP".into(), planes }]),
        };
        crate::cli::snapshot::check("stats", &stats);
    }
}
