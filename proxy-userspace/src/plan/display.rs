//! One stable line a value: what `passlane plan` prints and the script tests compare.

use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
};

use super::{Action, Admission, Desired, DesiredServer, HealthCheck, Origin, Plan};
use crate::model::{
    Destination, Element, FastPath, Inside, Masquerade, RuleOptions, SchedulerFlags, Thresholds,
    VirtualServer,
};

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
            Self::RetireVip(addr) => write!(f, "retire-vip {addr}"),
            Self::InstallTable { rules, elements } => {
                f.write_str("install-table")?;
                write_rules(f, rules)?;
                write_elements(f, "", elements)
            }
            Self::ChangeElements { added, removed } => {
                f.write_str("change-elements")?;
                write_elements(f, " +", added)?;
                write_elements(f, " -", removed)
            }
            Self::PutBackend { backend, id } => write!(f, "put-backend {backend} id={id}"),
            Self::RemoveBackend { backend, id } => write!(f, "remove-backend {backend} id={id}"),
            Self::PutFrontend { frontend, entry } => {
                let learn = on_off(entry.fast_path);
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
            Self::OrderDestinations { frontend, destinations } => {
                write!(f, "order-destinations {frontend}")?;
                write_list(f, "", "again", destinations.iter().map(|again| again.key))
            }
            Self::PutLocalPort { frontend, to } => write!(f, "put-local-port {frontend} to {to}"),
            Self::RemoveLocalPort(frontend) => write!(f, "remove-local-port {frontend}"),
            Self::Flush { frontend, to: None } => write!(f, "flush {frontend}"),
            Self::Flush { frontend, to: Some(key) } => write!(f, "flush {frontend} to {key}"),
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
        writeln!(f)?;
        self.elements.iter().try_for_each(|element| writeln!(f, "{element}"))?;
        self.health.iter().try_for_each(|(service, health)| {
            let HealthCheck { port, local_endpoints } = health;
            writeln!(f, "health {port} {service} local-endpoints={local_endpoints}")
        })?;
        self.checked.iter().try_for_each(|(service, checked)| {
            write!(f, "check {service} {}", checked.check)?;
            checked.backends.iter().try_for_each(|backend| write!(f, " {backend}"))?;
            writeln!(f)
        })
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ClusterIp => "ClusterIP",
            Self::LoadBalancerIp => "LoadBalancerIP",
            Self::ExternalIp => "ExternalIP",
            Self::NodePort => "NodePort",
            Self::Inside => "inside",
            Self::Loopback => "loopback",
        })
    }
}

fn write_server(f: &mut Formatter<'_>, server: &DesiredServer) -> fmt::Result {
    let VirtualServer { frontend, scheduler, flags, persistent_secs } = server.virtual_server;
    if let Some(to) = server.leads_to {
        return writeln!(f, "{frontend} {} {} to {to}", server.service, server.origin);
    }
    write!(f, "{frontend} {scheduler}{} {} {}", flags_of(flags), server.service, server.origin)?;
    if persistent_secs > 0 {
        write!(f, " affinity={persistent_secs}s")?;
    }
    match server.admission {
        Admission::Serve => {}
        Admission::Drop => f.write_str(" drop")?,
        Admission::Reject => f.write_str(" reject")?,
    }
    writeln!(f, " fast-path={}", on_off(server.fast_path))?;
    for destination in server.destinations.iter() {
        f.write_str("  ")?;
        write_destination(f, destination)?;
        writeln!(f)?;
    }
    server
        .cut
        .iter()
        .flat_map(|cut| cut.iter())
        .try_for_each(|key| writeln!(f, "  ({key} failed)"))?;
    server.lingering.iter().try_for_each(|key| writeln!(f, "  ({key} gets nothing)"))
}

fn flags_of(flags: SchedulerFlags) -> String {
    if flags == SchedulerFlags::default() { String::new() } else { format!(",{:#x}", flags.0) }
}

fn write_destination(f: &mut Formatter<'_>, destination: &Destination) -> fmt::Result {
    let Destination { key, weight, forwarding, limits } = destination;
    write!(f, "{key} weight={weight} {forwarding}")?;
    if *limits != Thresholds::default() {
        write!(f, " limits={limits}")?;
    }
    Ok(())
}

/// Writes what differs from a table without settings.
fn write_rules(f: &mut Formatter<'_>, rules: &RuleOptions) -> fmt::Result {
    match rules.masquerade {
        Masquerade::Needed => {}
        Masquerade::OffCluster => f.write_str(" masquerade=off-cluster")?,
        Masquerade::All => f.write_str(" masquerade=all")?,
    }
    match &rules.inside {
        Inside::Unknown => {}
        Inside::Cidrs => f.write_str(" inside=pods")?,
        Inside::Interface(name) => write!(f, " inside=interface:{name}")?,
    }
    if rules.reject_unassigned { f.write_str(" reject-unassigned") } else { Ok(()) }
}

fn write_elements(f: &mut Formatter<'_>, sign: &str, elements: &BTreeSet<Element>) -> fmt::Result {
    elements.iter().try_for_each(|element| write!(f, "\n   {sign} {element}"))
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

/// The mode that nobody asked for is just on.
fn on_off(mode: FastPath) -> &'static str {
    if mode == FastPath::Auto { "on" } else { mode.word() }
}
