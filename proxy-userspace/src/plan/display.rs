//! One stable line a value: what `passlane plan` prints and the script tests compare.

use std::fmt::{self, Display, Formatter};

use super::{Action, Desired, DesiredServer, Origin, Plan};
use crate::model::{Destination, Forwarding, NatElements};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.actions.iter().try_for_each(|action| writeln!(f, "{action}"))
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutDevice => f.write_str("put-device"),
            Self::PutVip(addr) => write!(f, "put-vip {addr}"),
            Self::RemoveVip(addr) => write!(f, "remove-vip {addr}"),
            Self::InstallNat(elements) => {
                f.write_str("install-nat")?;
                write_elements(f, "", elements)
            }
            Self::ChangeNat { added, removed } => {
                f.write_str("change-nat")?;
                write_elements(f, "+", added)?;
                write_elements(f, "-", removed)
            }
            Self::PutBackend { backend, id } => write!(f, "put-backend {backend} id={id}"),
            Self::RemoveBackend { backend, id } => write!(f, "remove-backend {backend} id={id}"),
            Self::PutFrontend { frontend, entry } => {
                let learn = on_off(entry.learn);
                write!(f, "put-frontend {frontend} id={} learn={learn}", entry.id)
            }
            Self::RemoveFrontend(frontend) => write!(f, "remove-frontend {frontend}"),
            Self::Invalidate { backends } => {
                f.write_str("invalidate")?;
                write_list(f, "", "backends", backends.iter())
            }
            Self::PutVirtualServer(server) => write!(
                f,
                "put-virtual-server {} {} flags={:#x} persistent={}s",
                server.frontend, server.scheduler, server.flags.0, server.persistent_secs
            ),
            Self::RemoveVirtualServer(frontend) => write!(f, "remove-virtual-server {frontend}"),
            Self::PutDestination { frontend, destination } => {
                write!(f, "put-destination {frontend} ")?;
                write_destination(f, destination)
            }
            Self::RemoveDestination { frontend, key } => {
                write!(f, "remove-destination {frontend} {key}")
            }
        }
    }
}

impl Display for Desired {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for server in self.servers.values() {
            write_server(f, server)?;
        }
        f.write_str("vips")?;
        self.vips.iter().try_for_each(|addr| write!(f, " {addr}"))?;
        f.write_str("\nnat")?;
        write_elements(f, "", &self.nat)?;
        writeln!(f)
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
        })
    }
}

fn write_server(f: &mut Formatter<'_>, server: &DesiredServer) -> fmt::Result {
    let DesiredServer { virtual_server, destinations, service, origin, fast_path } = server;
    writeln!(
        f,
        "{} {} {service} {origin} fast-path={}",
        virtual_server.frontend,
        virtual_server.scheduler,
        on_off(*fast_path)
    )?;
    for destination in destinations.values() {
        f.write_str("  ")?;
        write_destination(f, destination)?;
        writeln!(f)?;
    }
    Ok(())
}

fn write_destination(f: &mut Formatter<'_>, destination: &Destination) -> fmt::Result {
    let forwarding = match destination.forwarding {
        Forwarding::Masq => "masq",
        Forwarding::Local => "local",
        Forwarding::Tunnel => "tunnel",
        Forwarding::Route => "route",
    };
    write!(f, "{} weight={} {forwarding}", destination.key, destination.weight)
}

fn write_elements(f: &mut Formatter<'_>, sign: &str, elements: &NatElements) -> fmt::Result {
    let ports = elements.node_ports.iter().map(|(protocol, port)| format!("{port}/{protocol}"));
    write_list(f, sign, "vips", elements.vips.iter())?;
    write_list(f, sign, "nodes", elements.node_addrs.iter())?;
    write_list(f, sign, "node-ports", ports)?;
    write_list(f, sign, "backends", elements.backends.iter())
}

/// Writes ` sign name=a,b,c`, or nothing for an empty list.
fn write_list<T: Display>(
    f: &mut Formatter<'_>,
    sign: &str,
    name: &str,
    values: impl Iterator<Item = T>,
) -> fmt::Result {
    let mut separator = "=";
    for value in values {
        if separator == "=" {
            write!(f, " {sign}{name}")?;
        }
        write!(f, "{separator}{value}")?;
        separator = ",";
    }
    Ok(())
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}
