//! Reads everything that explains what becomes of packets.

use std::{
    net::{IpAddr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use proxy_common::abi::{self, Addr, FlowFlags, FlowKey, FlowState, FrontendFlags};

use super::observe::Error;
use crate::{
    explain::{
        Dump, Flow, Packet,
        dump::{
            self, BackendEntry, Connection, FastPath, FrontendEntry, Interface, Server, Table,
            Target, VERSION,
        },
    },
    kernel::{
        bpf::{Clock, Maps},
        ipvs::{self, Client, connections, mh_table},
        link::Links,
        nft,
    },
    ledger::Owned,
    model::{Backend, Element, Frontend, Protocol, Scheduler},
    status::Report,
};

/// Reads the node. For one packet only what can say something of it is read: the destinations of
/// 50,000 virtual servers take a while.
///
/// # Errors
///
/// The first subsystem that cannot be read. That there is no nft table, no IPVS and no map is none.
pub async fn gather(
    owned: &Owned,
    report: Option<&Report>,
    maps: Option<&Maps>,
    only: Option<&Packet>,
) -> Result<Dump, Error> {
    let table = nft::Table::open().await?.read().await?.map(|reading| Table {
        rules: reading.rules,
        elements: reading.elements.into_iter().collect(),
        whole: reading.whole,
    });
    let elements = table.as_ref().map_or(&[][..], |table| &table.elements);
    // Whose backend it is, when it comes from one, can be told from all destinations only.
    let all = match only {
        Some(packet) => maps.map(|maps| is_from_backend(packet, maps)).transpose()? == Some(true),
        None => true,
    };
    let asked = |frontend: &Frontend| {
        all || only.is_some_and(|packet| leads_to(packet, frontend, elements))
    };
    let servers = servers(owned, asked).await?;
    let connections = match servers.is_empty() {
        true => Vec::new(),
        false => connections(only)?,
    };
    let uses_mh = servers.iter().any(|server| server.virtual_server.scheduler == Scheduler::Mh);
    let mh_index = uses_mh.then(mh_table::find).and_then(|found| Some(found.size()?.index()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    Ok(Dump {
        version: VERSION,
        taken_at: now.map_or(0, |time| time.as_secs()),
        passlane: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: crate::cli::version::kernel(),
        servers,
        connections,
        table,
        interfaces: interfaces(report).await?,
        fast_path: fast_path(report),
        maps: maps.map(read_maps).transpose()?,
        mh_index,
    })
}

fn is_from_backend(packet: &Packet, maps: &Maps) -> Result<bool, Error> {
    let sender =
        Backend { addr: packet.source.ip(), port: packet.source.port(), protocol: packet.protocol };
    Ok(maps.backends()?.iter().any(|(backend, _)| *backend == sender))
}

/// Says whether a packet may be scheduled by this virtual server, itself or by way of map `inside`.
fn leads_to(packet: &Packet, frontend: &Frontend, elements: &[Element]) -> bool {
    let dialled = Frontend {
        addr: packet.destination.ip(),
        port: packet.destination.port(),
        protocol: packet.protocol,
    };
    *frontend == dialled
        || elements.iter().any(|element| match element {
            Element::Inside(from, addr, port) => {
                *from == dialled && (*addr, *port) == (frontend.addr, frontend.port)
            }
            _ => false,
        })
}

async fn servers(
    owned: &Owned,
    with_destinations: impl Fn(&Frontend) -> bool,
) -> Result<Vec<Server>, Error> {
    let client = match Client::open().await {
        Err(ipvs::Error::IpvsMissing) => return Ok(Vec::new()),
        client => client?,
    };
    let mut servers = Vec::new();
    for state in client.virtual_servers().await? {
        let virtual_server = state.virtual_server;
        let frontend = virtual_server.frontend;
        let held = match with_destinations(&frontend) {
            true => client.destinations(&frontend).await?,
            false => Vec::new(),
        };
        let destinations = held.iter().map(|state| Target {
            destination: state.destination,
            active: state.active_connections,
            inactive: state.inactive_connections,
        });
        servers.push(Server {
            virtual_server,
            service: owned.virtual_servers.get(&frontend).cloned(),
            destinations: destinations.collect(),
        });
    }
    servers.sort_by_key(|server| server.virtual_server.frontend);
    Ok(servers)
}

fn connections(only: Option<&Packet>) -> Result<Vec<Connection>, Error> {
    let of_packet = |connection: &connections::Connection| {
        only.is_none_or(|packet| {
            [packet.source.ip(), packet.destination.ip()].contains(&connection.client_addr)
        })
    };
    let read = connections::read()?.into_iter().filter(of_packet);
    Ok(read
        .map(|connection| Connection {
            client: SocketAddr::new(connection.client_addr, connection.client_port),
            frontend: connection.frontend,
            destination: connection.destination,
            state: connection.state,
            expires_secs: connection.expires_secs,
        })
        .collect())
}

async fn interfaces(report: Option<&Report>) -> Result<Vec<Interface>, Error> {
    let reports = report.map_or(&[][..], |report| &report.interfaces);
    let present = Links::open()?.interfaces().await?;
    Ok(present
        .into_iter()
        .map(|interface| {
            let report = reports.iter().find(|report| report.index == interface.index);
            Interface {
                index: interface.index,
                name: interface.name,
                addrs: interface.addrs,
                mode: report.map(|report| report.mode.clone()),
                reason: report.map(|report| report.reason.clone()).unwrap_or_default(),
            }
        })
        .collect())
}

/// Returns what the agent reported of its fast path.
pub fn fast_path(report: Option<&Report>) -> FastPath {
    let Some(report) = report else { return FastPath::default() };
    FastPath {
        mode: report.fast_path.mode.clone(),
        reason: report.fast_path.reason.clone(),
        lease: report
            .lease
            .map(|lease| dump::Lease { soft_ms: lease.soft_ms, hard_ms: lease.hard_ms }),
    }
}

/// Reads the maps.
///
/// # Errors
///
/// [`Error::Bpf`] when one cannot be read.
pub fn read_maps(maps: &Maps) -> Result<dump::Maps, Error> {
    let clock = Clock::read()?;
    let mut flows: Vec<Flow> = maps.ipv4.flows()?.iter().filter_map(flow).collect();
    flows.extend(maps.ipv6.flows()?.iter().filter_map(flow));
    flows.sort_by_key(|flow| (flow.destination, flow.source, flow.protocol, flow.interface));
    let mut frontends: Vec<_> = maps
        .frontends()?
        .into_iter()
        .map(|(frontend, value)| FrontendEntry {
            frontend,
            id: value.id,
            learn: value.flags & FrontendFlags::LEARN != 0,
        })
        .collect();
    frontends.sort_by_key(|entry| entry.frontend);
    let mut backends = Vec::new();
    for (backend, value) in maps.backends()? {
        let generation = maps.generations.of_backend(value.id)?;
        backends.push(BackendEntry { backend, id: value.id, generation });
    }
    backends.sort_by_key(|entry| entry.backend);
    Ok(dump::Maps {
        clock: clock.map(|clock| dump::Clock { jiffies: clock.jiffies, tick_us: clock.tick_us }),
        epoch: maps.generations.epoch()?,
        frontends,
        backends,
        flows,
    })
}

/// Only TCP and UDP are ever learned.
fn flow<A: Addr + Into<IpAddr>>((key, flow): &(FlowKey<A>, abi::Flow<A>)) -> Option<Flow> {
    let to = &flow.transform;
    let socket = |addr: A, port| SocketAddr::new(addr.into(), port);
    Some(Flow {
        protocol: Protocol::from_number(key.protocol)?,
        source: socket(key.source, key.source_port),
        destination: socket(key.destination, key.destination_port),
        interface: key.interface,
        new_source: socket(to.source, to.source_port),
        new_destination: socket(to.destination, to.destination_port),
        out_interface: to.interface,
        peer: to.flags & FlowFlags::PEER != 0,
        reply: to.flags & FlowFlags::REPLY != 0,
        observed: to.flags & FlowFlags::OBSERVE != 0,
        state: match flow.state {
            FlowState::LEARNING => dump::FlowState::Learning,
            FlowState::ACTIVE => dump::FlowState::Active,
            FlowState::CLOSING => dump::FlowState::Closing,
            _ => dump::FlowState::Unknown,
        },
        renewed_at: flow.renewed_at,
        epoch: flow.epoch,
        generation: flow.generation,
        frontend: flow.frontend,
        backend: flow.backend,
        mtu: to.mtu,
        packets: flow.packets,
        bytes: flow.bytes,
    })
}
