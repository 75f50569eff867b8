//! `passlane services`: virtual servers and destinations as IPVS has them. Needs no agent.

mod ipvsadm;

use std::{thread, time::Duration};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Failure, dump, output};
use crate::{
    audit::traffic::FastTraffic,
    config::Paths,
    kernel::ipvs::{Client, DestinationState, VirtualServerState},
    ledger::Owned,
    model::Forwarding,
};

/// The flags of `passlane services`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    paths: Paths,
    /// How to print
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// With -o ipvsadm: connections, packets and bytes, those of the fast path included
    #[arg(long)]
    stats: bool,
    /// With -o ipvsadm: the same per second; the fast path's are measured for 2 seconds
    #[arg(long, conflicts_with = "stats")]
    rate: bool,
}

/// As long as the estimator of IPVS takes between two looks.
const SAMPLE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Format {
    /// Columns for people: our virtual servers
    Table,
    /// More columns
    Wide,
    /// One JSON value
    Json,
    /// The same as YAML
    Yaml,
    /// As `ipvsadm -Ln` prints it: all virtual servers, also those of others
    Ipvsadm,
}

#[derive(Clone, Debug, Serialize)]
struct Service {
    frontend: String,
    service: String,
    scheduler: &'static str,
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
    if (flags.stats || flags.rate) && flags.output != Format::Ipvsadm {
        let cure = "--stats and --rate go with -o ipvsadm; passlane stats has more";
        return Err(Failure::Usage(cure.to_owned()));
    }
    let fast = fast_numbers(flags)?;
    super::block_on(async {
        let client = Client::open().await?;
        let mut servers = Vec::new();
        for server in client.virtual_servers().await? {
            let destinations = client.destinations(&server.virtual_server.frontend).await?;
            servers.push((server, destinations));
        }
        let format = match flags.output {
            Format::Ipvsadm => {
                let info = client.info().await?;
                let text = match fast {
                    Some(fast) => ipvsadm::numbers(&info, servers, &fast),
                    None => ipvsadm::list(&info, servers),
                };
                output::text(&text)?;
                return Ok(());
            }
            Format::Table => output::Format::Table,
            Format::Wide => output::Format::Wide,
            Format::Json => output::Format::Json,
            Format::Yaml => output::Format::Yaml,
        };
        let services = ours(&servers, &Owned::read(&flags.paths.state_dir)?);
        output::value(&services, format, |wide| table(&services, wide))?;
        Ok(())
    })
}

/// Reads what the fast path adds to the numbers of IPVS, if they are asked for.
fn fast_numbers(flags: &Flags) -> Result<Option<ipvsadm::Fast>, Failure> {
    if !flags.stats && !flags.rate {
        return Ok(None);
    }
    let maps = dump::maps(&flags.paths)?;
    let read = || maps.as_ref().map(FastTraffic::read).transpose();
    let before = read()?.unwrap_or_default();
    if flags.stats {
        return Ok(Some(ipvsadm::Fast::Sum(before)));
    }
    if maps.is_some() {
        thread::sleep(SAMPLE);
    }
    let after = read()?.unwrap_or_default();
    Ok(Some(ipvsadm::Fast::Rate { before, after, secs: SAMPLE.as_secs() }))
}

fn ours(servers: &[(VirtualServerState, Vec<DestinationState>)], owned: &Owned) -> Vec<Service> {
    let mut services: Vec<_> = servers
        .iter()
        .filter_map(|(server, destinations)| {
            let frontend = server.virtual_server.frontend;
            let service = owned.virtual_servers.get(&frontend)?;
            Some((
                frontend,
                Service {
                    frontend: frontend.to_string(),
                    service: service.clone(),
                    scheduler: server.virtual_server.scheduler.name(),
                    connections: server.stats.connections,
                    destinations: destinations.iter().map(describe).collect(),
                },
            ))
        })
        .collect();
    services.sort_by_key(|(frontend, _)| *frontend);
    services.into_iter().map(|(_, service)| service).collect()
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
fn forwarding(forwarding: Forwarding) -> &'static str {
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
            "CONNECTIONS",
            "DESTINATION",
            "FORWARD",
            "WEIGHT",
            "ACTIVE",
            "INACTIVE",
        ])
    } else {
        output::table(["FRONTEND", "SERVICE", "SCHEDULER", "DESTINATIONS"])
    };
    for service in services {
        let Service { frontend, service: name, scheduler, connections, destinations } = service;
        if !wide {
            let list: Vec<&str> =
                destinations.iter().map(|each| each.destination.as_str()).collect();
            let list = if list.is_empty() { "<none>".to_owned() } else { list.join(",") };
            table.add_row([frontend, name, *scheduler, list.as_str()]);
            continue;
        }
        if destinations.is_empty() {
            table.add_row([frontend, name, *scheduler, &connections.to_string(), "<none>"]);
        }
        for destination in destinations {
            table.add_row([
                frontend.clone(),
                name.clone(),
                (*scheduler).to_owned(),
                connections.to_string(),
                destination.destination.clone(),
                destination.forwarding.to_owned(),
                destination.weight.to_string(),
                destination.active.to_string(),
                destination.inactive.to_string(),
            ]);
        }
    }
    table
}
