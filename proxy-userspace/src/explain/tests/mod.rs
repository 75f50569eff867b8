//! Dumps and the words for them: every path of a trace.

mod admission;
mod backend;
mod masquerade;
mod path;
mod whole;

use std::net::SocketAddr;

use super::{
    Dump, Flow, Packet, Trace,
    dump::{
        BackendEntry, Clock, Connection, FastPath, FlowState, FrontendEntry, Interface, Lease,
        Maps, Server, Table, Target, VERSION,
    },
    trace,
};
use crate::model::{
    Backend, Destination, DestinationKey, Forwarding, Frontend, Protocol, Scheduler,
    SchedulerFlags, VirtualServer,
};

pub(super) const CLIENT: &str = "10.1.1.31:40000";
pub(super) const VIP: &str = "10.96.0.10:80";
pub(super) const WEB_A: &str = "10.1.1.11:8080";
const WEB_B: &str = "10.1.1.12:8080";
const LB: &str = "203.0.113.9:80";

/// Interfaces of [`node`].
const UPLINK: u32 = 2;
const CLIENT_VETH: u32 = 5;
const BACKEND_VETH: u32 = 6;

/// What a row changes about [`node`].
type Change = fn(&mut Dump);

fn as_it_is(_: &mut Dump) {}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn frontend(text: &str) -> Frontend {
    let socket = socket(text);
    Frontend { addr: socket.ip(), port: socket.port(), protocol: Protocol::Tcp }
}

fn key(text: &str) -> DestinationKey {
    let socket = socket(text);
    DestinationKey { addr: socket.ip(), port: socket.port() }
}

fn target(at: &str, weight: u32, active: u32, inactive: u32) -> Target {
    let destination = Destination {
        limits: Default::default(),
        key: key(at),
        weight,
        forwarding: Forwarding::Masq,
    };
    Target { destination, active, inactive }
}

fn server(at: &str, service: Option<&str>, destinations: Vec<Target>) -> Server {
    Server {
        virtual_server: VirtualServer {
            frontend: frontend(at),
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags::default(),
            persistent_secs: 0,
        },
        service: service.map(str::to_owned),
        destinations,
    }
}

fn interface(index: u32, name: &str, addrs: &[&str]) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        addrs: addrs.iter().map(|addr| addr.parse().unwrap()).collect(),
        mode: Some("fast".to_owned()),
        reason: String::new(),
    }
}

fn connection(client: &str, at: &str, to: &str) -> Connection {
    Connection {
        client: socket(client),
        frontend: frontend(at),
        destination: key(to),
        state: "ESTABLISHED".to_owned(),
        expires_secs: 899,
    }
}

/// The request direction of the client's connection with web-a, renewed a second ago.
fn request() -> Flow {
    Flow {
        protocol: Protocol::Tcp,
        source: socket(CLIENT),
        destination: socket(VIP),
        interface: CLIENT_VETH,
        new_source: socket(CLIENT),
        new_destination: socket(WEB_A),
        out_interface: BACKEND_VETH,
        peer: true,
        reply: false,
        observed: false,
        state: FlowState::Active,
        renewed_at: 10_000 - 250,
        epoch: 7,
        generation: 3,
        frontend: 1,
        backend: 2,
        mtu: 1500,
        packets: 40,
        bytes: 2080,
    }
}

fn reply() -> Flow {
    Flow {
        source: socket(WEB_A),
        destination: socket(CLIENT),
        interface: BACKEND_VETH,
        new_source: socket(VIP),
        new_destination: socket(CLIENT),
        out_interface: CLIENT_VETH,
        reply: true,
        ..request()
    }
}

/// A node with one Service of two pods, and the client's connection with web-a on the fast path.
pub(super) fn node() -> Dump {
    let entry = |at, id| FrontendEntry { frontend: frontend(at), id, learn: true };
    let backend =
        |at, id| BackendEntry { backend: Backend::new(key(at), Protocol::Tcp), id, generation: 3 };
    let web = || vec![target(WEB_B, 1, 4, 0), target(WEB_A, 1, 2, 1)];
    Dump {
        version: VERSION,
        servers: vec![
            server(VIP, Some("default/web:http"), web()),
            server(LB, Some("default/web:http"), web()),
        ],
        connections: vec![connection(CLIENT, VIP, WEB_A)],
        table: Some(Table { whole: true, ..Table::default() }),
        interfaces: vec![
            interface(UPLINK, "eth0", &["172.20.0.1"]),
            interface(CLIENT_VETH, "v-client", &[]),
            interface(BACKEND_VETH, "v-web-a", &[]),
        ],
        fast_path: FastPath {
            mode: "on".to_owned(),
            reason: String::new(),
            lease: Some(Lease { soft_ms: 3000, hard_ms: 5000 }),
        },
        maps: Some(Maps {
            clock: Some(Clock { jiffies: 10_000, tick_us: 4000 }),
            epoch: 7,
            frontends: vec![entry(VIP, 1), entry(LB, 2)],
            backends: vec![backend(WEB_A, 2), backend(WEB_B, 3)],
            flows: vec![request(), reply()],
        }),
        ..Dump::default()
    }
}

pub(super) fn packet(source: &str, destination: &str) -> Packet {
    Packet::parse("tcp", source, destination).unwrap()
}

/// Traces a packet on a node that is changed first.
fn ask(change: Change, packet: &Packet) -> Trace {
    let mut dump = node();
    change(&mut dump);
    trace(&dump, packet)
}

/// Returns what a trace says of a topic.
fn says<'a>(trace: &'a Trace, topic: &str) -> &'a str {
    let step = trace.steps.iter().find(|step| step.topic == topic);
    step.map_or_else(|| panic!("nothing of {topic}: {:#?}", trace.steps), |step| step.says.as_str())
}

fn put(dump: &mut Dump, element: crate::model::Element) {
    dump.table.as_mut().unwrap().elements.push(element);
}

fn maps(dump: &mut Dump) -> &mut Maps {
    dump.maps.as_mut().unwrap()
}
