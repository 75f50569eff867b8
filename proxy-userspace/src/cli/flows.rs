//! `passlane flows`: the flow entries, from the pinned maps. Needs no agent.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use proxy_common::abi::{self, Addr, FlowFlags, FlowKey, FlowState};
use serde::Serialize;

use super::{Failure, output};
use crate::{
    config::Paths,
    kernel::bpf::{Maps, PinDirectory},
    ledger::Owned,
    model::Protocol,
};

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
    /// The Service port, as far as the ledger knows it.
    service: Option<String>,
    /// Carried by the fast path.
    packets: u64,
    /// Carried by the fast path, at L3.
    bytes: u64,
    backend: u32,
}

/// Prints the flow entries.
pub(super) fn run(paths: &Paths, format: output::Format) -> Result<(), Failure> {
    let maps = Maps::open(&PinDirectory::at(&paths.bpffs))?;
    let names = frontend_names(&maps, &Owned::read(&paths.state_dir)?)?;
    let (ipv4, ipv6) = (maps.ipv4.flows()?, maps.ipv6.flows()?);
    let ipv4 = ipv4.iter().map(|(key, flow)| describe(key, flow, &names));
    let ipv6 = ipv6.iter().map(|(key, flow)| describe(key, flow, &names));
    let mut flows: Vec<Flow> = ipv4.chain(ipv6).collect();
    flows.sort_by_key(|flow| (flow.destination, flow.source));
    output::value(&flows, format, |wide| table(&flows, wide))?;
    Ok(())
}

/// Returns the Service port of each frontend id.
fn frontend_names(maps: &Maps, owned: &Owned) -> Result<BTreeMap<u32, String>, Failure> {
    let mut names = BTreeMap::new();
    for (frontend, value) in maps.frontends()? {
        if let Some(service) = owned.virtual_servers.get(&frontend) {
            names.insert(value.id, service.clone());
        }
    }
    Ok(names)
}

fn describe<A: Addr + Into<IpAddr>>(
    key: &FlowKey<A>,
    flow: &abi::Flow<A>,
    names: &BTreeMap<u32, String>,
) -> Flow {
    let to = &flow.transform;
    let addr = |addr: A, port| SocketAddr::new(addr.into(), port);
    Flow {
        source: addr(key.source, key.source_port),
        destination: addr(key.destination, key.destination_port),
        protocol: Protocol::from_number(key.protocol).map_or("?", Protocol::name),
        interface: interface_name(key.interface),
        new_source: addr(to.source, to.source_port),
        new_destination: addr(to.destination, to.destination_port),
        out_interface: interface_name(to.interface),
        state: match flow.state {
            FlowState::LEARNING => "learning",
            FlowState::ACTIVE => "active",
            FlowState::CLOSING => "closing",
            _ => "?",
        },
        direction: if to.flags & FlowFlags::REPLY == 0 { "request" } else { "reply" },
        service: names.get(&flow.frontend).cloned(),
        packets: flow.packets,
        bytes: flow.bytes,
        backend: flow.backend,
    }
}

/// Returns the name of an interface, or its number when it is gone.
fn interface_name(index: u32) -> String {
    crate::kernel::link::name(index).unwrap_or_else(|| format!("#{index}"))
}

fn table(flows: &[Flow], wide: bool) -> comfy_table::Table {
    let mut table = if wide {
        output::table([
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            "STATE",
            "PACKETS",
            "BYTES",
            "SERVICE",
            "DIRECTION",
            "IN",
            "OUT",
            "NEW-SOURCE",
            "NEW-DESTINATION",
            "BACKEND",
        ])
    } else {
        output::table([
            "PROTOCOL",
            "SOURCE",
            "DESTINATION",
            "NEW-DESTINATION",
            "STATE",
            "PACKETS",
            "BYTES",
            "SERVICE",
        ])
    };
    for flow in flows {
        let service = flow.service.clone().unwrap_or_else(|| "<unknown>".into());
        let (packets, bytes) = (flow.packets.to_string(), flow.bytes.to_string());
        let (source, destination) = (flow.source.to_string(), flow.destination.to_string());
        let to = flow.new_destination.to_string();
        if wide {
            table.add_row([
                flow.protocol.into(),
                source,
                destination,
                flow.state.into(),
                packets,
                bytes,
                service,
                flow.direction.into(),
                flow.interface.clone(),
                flow.out_interface.clone(),
                flow.new_source.to_string(),
                to,
                flow.backend.to_string(),
            ]);
        } else {
            table.add_row([
                flow.protocol.into(),
                source,
                destination,
                to,
                flow.state.into(),
                packets,
                bytes,
                service,
            ]);
        }
    }
    table
}
