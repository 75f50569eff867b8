//! `passlane services`: virtual servers and destinations as IPVS has them. Needs no agent.

mod connections;
mod ipvsadm;
mod plane;
mod save;

use std::{thread, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use plane::Served;

use super::{
    Failure, FormatFlag, dump,
    output::{self, Style, View},
    repeat::Repeat,
    selection::ServiceFilter,
    servers::{self, Servers},
};
use crate::{
    audit::traffic::FastTraffic,
    config::Paths,
    kernel::ipvs::{self, Client, DestinationState, listing},
    ledger::Owned,
    model::Forwarding,
    status::{HashPlaneReport, Report},
};

/// The flags of `passlane services`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// This Service, or one port of it
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    service: Option<ServiceFilter>,
    #[command(flatten)]
    paths: Paths,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Tables without their first line
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    list: List,
    #[command(flatten)]
    repeat: Repeat,
}

/// Which list of ipvsadm.
#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
struct List {
    /// With -o ipvsadm: connections, packets and bytes, those of the fast path included
    #[arg(long)]
    stats: bool,
    /// With -o ipvsadm: the same per second; the fast path's are measured for 2 seconds
    #[arg(long)]
    rate: bool,
    /// With -o ipvsadm: the connection table, as `ipvsadm -Lnc` prints it
    #[arg(short, long)]
    connection: bool,
    /// With -o ipvsadm: commands that make all this again, as `ipvsadm -Sn` prints them
    #[arg(short = 'S', long)]
    save: bool,
}

/// As long as the estimator of IPVS takes between two looks.
const SAMPLE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Columns for people: our virtual servers
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// The same as YAML
    Yaml,
    /// Names of Service ports
    Name,
    /// As `ipvsadm -Ln` prints it: all virtual servers, also those of others
    Ipvsadm,
}

impl Format {
    /// Returns the format of a document; `None` for what ipvsadm prints.
    fn of_document(self) -> Option<output::Format> {
        Some(match self {
            Self::Table => output::Format::Table,
            Self::Wide => output::Format::Wide,
            Self::Json => output::Format::Json,
            Self::Yaml => output::Format::Yaml,
            Self::Name => output::Format::Name,
            Self::Ipvsadm => return None,
        })
    }
}

/// Everything `services` says.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Services {
    items: Vec<Service>,
}

#[derive(Clone, Debug, Serialize)]
struct Service {
    frontend: String,
    service: String,
    scheduler: &'static str,
    /// How long a client keeps its destination; 0 without session affinity.
    persistent_secs: u32,
    /// Who chooses destinations: `ipvs`, or `hash` where XDP does.
    plane: &'static str,
    /// Why IPVS does what XDP could do.
    #[serde(skip_serializing_if = "String::is_empty")]
    plane_reason: String,
    /// Scheduled since the virtual server was made.
    connections: u64,
    destinations: Vec<Destination>,
}

#[derive(Clone, Debug, Serialize)]
struct Destination {
    destination: String,
    forwarding: &'static str,
    weight: u32,
    active: u32,
    inactive: u32,
}

/// Prints the virtual servers.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let Flags { service, output, no_headers, list, repeat, .. } = flags;
    let List { stats, rate, connection, save } = *list;
    let Some(output) = output.of_document() else {
        if service.is_some() {
            let cure = "-o ipvsadm prints all virtual servers; --service goes with other formats";
            return Err(Failure::Usage(cure.to_owned()));
        }
        return repeat.text(|| ipvsadm_text(flags));
    };
    if stats || rate || connection || save {
        let cure = "--stats, --rate, -c and -S go with -o ipvsadm; passlane stats has more";
        return Err(Failure::Usage(cure.to_owned()));
    }
    let format = FormatFlag { output, no_headers: *no_headers };
    repeat.show(&format, || gather(&flags.paths, service.as_ref()))?;
    Ok(())
}

/// Returns the list of `ipvsadm -Ln`, without the tool.
pub(super) fn whole() -> Result<String, Failure> {
    super::block_on(async {
        let client = Client::open().await?;
        Ok(ipvsadm::list(&client.info().await?, listed(&client).await?))
    })
}

/// Returns our virtual servers, of one Service or of all.
pub(super) fn gather(paths: &Paths, filter: Option<&ServiceFilter>) -> Result<Services, Failure> {
    let owned = Owned::read(&paths.state_dir)?;
    let servers = super::block_on(servers::ours(&owned))?;
    let planes = Report::read(&paths.state_dir)?.and_then(|report| report.hash_plane);
    let mut items = ours(&servers, &owned, planes.as_ref());
    items.retain(|each| filter.is_none_or(|filter| filter.matches(Some(&each.service))));
    Ok(Services { items })
}

impl View for Services {
    const KIND: &'static str = "ServiceList";

    fn text(&self, style: Style) -> String {
        output::render(&table(&self.items, style.wide), style.headers)
    }

    /// A Service port once, also with several frontends.
    fn names(&self) -> Option<Vec<String>> {
        let mut names: Vec<_> =
            self.items.iter().map(|each| format!("service/{}", each.service)).collect();
        names.sort();
        names.dedup();
        Some(names)
    }
}

fn ipvsadm_text(flags: &Flags) -> Result<String, Failure> {
    if flags.list.connection {
        return Ok(connections::list(&ipvs::connections::lines()?));
    }
    let fast = fast_numbers(flags)?;
    super::block_on(async {
        let client = Client::open().await?;
        let servers = listed(&client).await?;
        if flags.list.save {
            return Ok(save::list(servers));
        }
        let info = client.info().await?;
        Ok(match fast {
            Some(fast) => ipvsadm::numbers(&info, servers, &fast),
            None => ipvsadm::list(&info, servers),
        })
    })
}

/// A virtual server of anybody, and its destinations.
type Listed = (listing::ListedServer, Vec<listing::ListedDestination>);

async fn listed(client: &Client) -> Result<Vec<Listed>, ipvs::Error> {
    let mut servers = Vec::new();
    for server in client.list().await? {
        let destinations = client.list_destinations(&server.key).await?;
        servers.push((server, destinations));
    }
    Ok(servers)
}

/// Reads what the fast path adds to the numbers of IPVS, if they are asked for.
fn fast_numbers(flags: &Flags) -> Result<Option<ipvsadm::Fast>, Failure> {
    let List { stats, rate, .. } = flags.list;
    if !stats && !rate {
        return Ok(None);
    }
    let maps = dump::maps(&flags.paths)?;
    let read = || dump::traffic(&flags.paths, maps.as_ref());
    let before = read()?;
    if stats {
        return Ok(Some(ipvsadm::Fast::Sum(before)));
    }
    if before != FastTraffic::default() {
        thread::sleep(SAMPLE);
    }
    let after = read()?;
    Ok(Some(ipvsadm::Fast::Rate { before, after, secs: SAMPLE.as_secs() }))
}

fn ours(servers: &Servers, owned: &Owned, planes: Option<&HashPlaneReport>) -> Vec<Service> {
    let services = servers.iter().filter_map(|(server, destinations)| {
        let frontend = server.virtual_server.frontend;
        let service = owned.virtual_servers.get(&frontend)?;
        let scheduler = server.virtual_server.scheduler;
        let Served { plane, reason } = plane::served(planes, &frontend.to_string(), scheduler);
        Some(Service {
            frontend: frontend.to_string(),
            service: service.clone(),
            scheduler: scheduler.name(),
            plane,
            plane_reason: reason,
            persistent_secs: server.virtual_server.persistent_secs,
            connections: server.stats.connections,
            destinations: destinations.iter().map(describe).collect(),
        })
    });
    services.collect()
}

fn describe(state: &DestinationState) -> Destination {
    Destination {
        destination: state.destination.key.to_string(),
        forwarding: forwarding(state.destination.forwarding),
        weight: state.destination.weight,
        active: state.active_connections,
        inactive: state.inactive_connections,
    }
}

/// Returns ipvsadm's word for a forwarding method.
pub(super) fn forwarding(forwarding: Forwarding) -> &'static str {
    match forwarding {
        Forwarding::Masq => "Masq",
        Forwarding::Local => "Local",
        Forwarding::Tunnel(_) => "Tunnel",
        Forwarding::Route => "Route",
    }
}

fn table(services: &[Service], wide: bool) -> comfy_table::Table {
    let mut table = if wide {
        output::table([
            "FRONTEND",
            "SERVICE",
            "SCHEDULER",
            "PLANE",
            "CONNECTIONS",
            "DESTINATION",
            "FORWARD",
            "WEIGHT",
            "ACTIVE",
            "INACTIVE",
            "REASON",
        ])
    } else {
        output::table(["FRONTEND", "SERVICE", "SCHEDULER", "DESTINATIONS"])
    };
    for service in services {
        let Service { frontend, service: name, scheduler, connections, .. } = service;
        let Service { plane, plane_reason: reason, destinations, .. } = service;
        if !wide {
            let list: Vec<&str> =
                destinations.iter().map(|each| each.destination.as_str()).collect();
            let list = if list.is_empty() { "<none>".to_owned() } else { list.join(",") };
            table.add_row([frontend, name, *scheduler, list.as_str()]);
            continue;
        }
        if destinations.is_empty() {
            let connections = connections.to_string();
            let row: [&str; 11] =
                [frontend, name, scheduler, plane, &connections, "<none>", "", "", "", "", reason];
            table.add_row(row);
        }
        for destination in destinations {
            table.add_row([
                frontend.clone(),
                name.clone(),
                (*scheduler).to_owned(),
                (*plane).to_owned(),
                connections.to_string(),
                destination.destination.clone(),
                destination.forwarding.to_owned(),
                destination.weight.to_string(),
                destination.active.to_string(),
                destination.inactive.to_string(),
                reason.clone(),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_printed_as_they_always_were() {
        let destination = |last: u8, weight| Destination {
            destination: format!("10.1.1.{last}:8080"),
            forwarding: "Masq",
            weight,
            active: 3,
            inactive: 1,
        };
        let service = |frontend: &str, destinations| Service {
            frontend: frontend.into(),
            service: "default/web:http".into(),
            scheduler: "wrr",
            plane: "ipvs",
            plane_reason: "scheduler wrr is IPVS's".into(),
            persistent_secs: 10_800,
            connections: 7,
            destinations,
        };
        let items = vec![
            service("10.96.0.10:80/TCP", vec![destination(11, 1), destination(12, 0)]),
            service("172.20.0.1:30080/TCP", Vec::new()),
        ];
        crate::cli::snapshot::check("services", &Services { items });
    }
}
