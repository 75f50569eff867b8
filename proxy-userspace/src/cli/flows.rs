//! `passlane flows`: the flow entries, from the pinned maps. Needs no agent.

use std::{collections::BTreeMap, net::SocketAddr};

use clap::Args;
use serde::Serialize;

use super::{
    Failure, FormatFlag,
    output::{self, Style, View},
    repeat::Repeat,
    selection::{AddressFilter, ServiceFilter},
};
use crate::{
    audit,
    config::Paths,
    explain::{
        self, Standing,
        dump::{FastPath, FrontendEntry, Maps},
    },
    kernel::{
        bpf::{self, PinDirectory},
        link,
    },
    ledger::Owned,
    status::Report,
};

/// The flags of `passlane flows`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    /// Flows of this Service, or of one port of it
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    service: Option<ServiceFilter>,
    /// Flows to and from this backend
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    backend: Option<AddressFilter>,
    /// Flows of this client
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    client: Option<AddressFilter>,
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    format: FormatFlag,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Clone, Debug, Serialize)]
struct Flows {
    items: Vec<Flow>,
}

/// One direction of a connection.
#[derive(Clone, Debug, Serialize)]
struct Flow {
    source: SocketAddr,
    destination: SocketAddr,
    protocol: &'static str,
    /// Interface it comes in by.
    interface: String,
    new_source: SocketAddr,
    new_destination: SocketAddr,
    /// Interface it leaves by.
    out_interface: String,
    /// `learning`, `active` or `closing`.
    state: &'static str,
    /// `request` or `reply`.
    direction: &'static str,
    /// Who asks, as the client knows itself.
    client: SocketAddr,
    /// The Service port, as far as the ledger knows it.
    service: Option<String>,
    /// Carried by the fast path with this entry.
    packets: u64,
    /// Carried by the fast path with this entry, from the IP header on.
    bytes: u64,
    /// Where it is served.
    backend: SocketAddr,
    /// What a packet of the flow would be counted under now.
    next: &'static str,
    /// Milliseconds since the kernel's path last carried a packet.
    age_ms: Option<u64>,
    /// Milliseconds until the lease ends.
    lease_left_ms: Option<u64>,
    epoch_current: bool,
    generation_current: Option<bool>,
}

/// Prints the flow entries.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    flags.repeat.show(&flags.format, || gather(flags))?;
    Ok(())
}

fn gather(flags: &Flags) -> Result<Flows, Failure> {
    let Flags { service, backend, client, paths, .. } = flags;
    let maps = bpf::Maps::open(&PinDirectory::at(&paths.bpffs))?;
    let owned = Owned::read(&paths.state_dir)?;
    let report = Report::read(&paths.state_dir)?;
    let fast_path = audit::dump::fast_path(report.as_ref());
    let maps = audit::dump::read_maps(&maps)?;
    let known = Known::of(&maps, fast_path, &owned);
    let mut flows: Vec<Flow> = maps.flows.iter().map(|flow| known.describe(flow)).collect();
    flows.retain(|flow| {
        service.as_ref().is_none_or(|filter| filter.matches(flow.service.as_deref()))
            && backend.is_none_or(|filter| filter.matches(flow.backend))
            && client.is_none_or(|filter| filter.matches(flow.client))
    });
    Ok(Flows { items: flows })
}

impl View for Flows {
    const KIND: &'static str = "FlowList";

    fn text(&self, style: Style) -> String {
        output::render(&table(&self.items, style.wide), style.headers)
    }

    fn names(&self) -> Option<Vec<String>> {
        let name = |flow: &Flow| {
            let Flow { protocol, source, destination, .. } = flow;
            format!("flow/{protocol}/{source}/{destination}")
        };
        Some(self.items.iter().map(name).collect())
    }
}

/// What flow entries name by numbers.
struct Known<'a> {
    maps: &'a Maps,
    fast_path: FastPath,
    services: BTreeMap<u32, &'a String>,
    generations: BTreeMap<u32, u32>,
    interfaces: BTreeMap<u32, String>,
}

impl<'a> Known<'a> {
    fn of(maps: &'a Maps, fast_path: FastPath, owned: &'a Owned) -> Self {
        let service =
            |entry: &FrontendEntry| Some((entry.id, owned.virtual_servers.get(&entry.frontend)?));
        let mut indexes: Vec<u32> =
            maps.flows.iter().flat_map(|flow| [flow.interface, flow.out_interface]).collect();
        indexes.sort_unstable();
        indexes.dedup();
        Self {
            services: maps.frontends.iter().filter_map(service).collect(),
            generations: maps.backends.iter().map(|entry| (entry.id, entry.generation)).collect(),
            interfaces: indexes.into_iter().map(|index| (index, interface_name(index))).collect(),
            maps,
            fast_path,
        }
    }

    fn describe(&self, flow: &explain::Flow) -> Flow {
        let generation = self.generations.get(&flow.backend).copied();
        let standing = Standing::of(flow, self.maps, generation, self.fast_path.lease);
        let (client, backend) = match flow.reply {
            false => (flow.source, flow.new_destination),
            true => (flow.new_destination, flow.source),
        };
        let interface = |index| self.interfaces.get(&index).cloned().unwrap_or_default();
        Flow {
            source: flow.source,
            destination: flow.destination,
            protocol: flow.protocol.name(),
            interface: interface(flow.interface),
            new_source: flow.new_source,
            new_destination: flow.new_destination,
            out_interface: interface(flow.out_interface),
            state: flow.state.name(),
            direction: if flow.reply { "reply" } else { "request" },
            client,
            service: self.services.get(&flow.frontend).copied().cloned(),
            packets: flow.packets,
            bytes: flow.bytes,
            backend,
            next: standing.reason.name(),
            age_ms: standing.age_ms,
            lease_left_ms: standing.left_ms,
            epoch_current: standing.epoch_current,
            generation_current: standing.generation_current,
        }
    }
}

/// Returns the name of an interface, or its number when it is gone.
fn interface_name(index: u32) -> String {
    link::name(index).unwrap_or_else(|| format!("#{index}"))
}

fn table(flows: &[Flow], wide: bool) -> comfy_table::Table {
    let mut header = vec![
        "PROTOCOL",
        "SOURCE",
        "DESTINATION",
        "NEW-DESTINATION",
        "STATE",
        "NEXT",
        "AGE",
        "LEASE",
        "PACKETS",
        "BYTES",
        "SERVICE",
    ];
    if wide {
        header.extend(["DIRECTION", "BACKEND", "NEW-SOURCE", "IN", "OUT", "EPOCH", "GENERATION"]);
    }
    let mut table = output::columns(&header);
    for flow in flows {
        let mut row = vec![
            flow.protocol.to_owned(),
            flow.source.to_string(),
            flow.destination.to_string(),
            flow.new_destination.to_string(),
            flow.state.to_owned(),
            flow.next.to_owned(),
            seconds(flow.age_ms),
            seconds(flow.lease_left_ms),
            flow.packets.to_string(),
            flow.bytes.to_string(),
            flow.service.clone().unwrap_or_else(|| "<unknown>".to_owned()),
        ];
        if wide {
            let current = |is: Option<bool>| match is {
                Some(true) => "current",
                Some(false) => "stale",
                None => "gone",
            };
            row.extend([
                flow.direction.to_owned(),
                flow.backend.to_string(),
                flow.new_source.to_string(),
                flow.interface.clone(),
                flow.out_interface.clone(),
                current(Some(flow.epoch_current)).to_owned(),
                current(flow.generation_current).to_owned(),
            ]);
        }
        table.add_row(row);
    }
    table
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or_else(|| "?".to_owned(), |ms| format!("{}.{}s", ms / 1000, ms % 1000 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_printed_as_they_always_were() {
        let socket = |text: &str| text.parse::<SocketAddr>().unwrap();
        let flow = Flow {
            source: socket("10.1.1.31:40000"),
            destination: socket("10.96.0.10:80"),
            protocol: "TCP",
            interface: "v-client".into(),
            new_source: socket("10.1.1.31:40000"),
            new_destination: socket("10.1.1.11:8080"),
            out_interface: "v-web-a".into(),
            state: "active",
            direction: "request",
            client: socket("10.1.1.31:40000"),
            service: Some("default/web:http".into()),
            packets: 12,
            bytes: 3456,
            backend: socket("10.1.1.11:8080"),
            next: "hit",
            age_ms: Some(1234),
            lease_left_ms: Some(3766),
            epoch_current: true,
            generation_current: None,
        };
        let unknown =
            Flow { service: None, age_ms: None, generation_current: Some(false), ..flow.clone() };
        crate::cli::snapshot::check("flows", &Flows { items: vec![flow, unknown] });
    }
}
