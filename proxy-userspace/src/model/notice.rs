//! What an operator should know and nothing else depends on: no notice stops a Service that is
//! not named in it.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use super::{Forwarding, Frontend, Protocol, Scheduler, ServiceName, ServicePortName, SliceName};

/// Something that was asked for and is not done, with what is done instead.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Notice {
    /// The annotation `passlane.io/scheduler` names no in-tree scheduler; the default is used.
    UnknownScheduler {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation's value.
        value: String,
    },
    /// The annotation `passlane.io/scheduler` names a flag that its scheduler does not have; the
    /// default scheduler is used, without flags.
    UnknownSchedulerFlag {
        /// The annotated Service.
        service: ServiceName,
        /// The scheduler that the annotation names.
        scheduler: Scheduler,
        /// The annotation's value.
        value: String,
    },
    /// The annotation `passlane.io/weights` has an entry that is no weight of an endpoint or a
    /// node; all endpoints have weight 1.
    UnknownWeight {
        /// The annotated Service.
        service: ServiceName,
        /// The entry.
        entry: String,
    },
    /// The annotation `passlane.io/forwarding` names no way to forward; masquerading is used.
    UnknownForwarding {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation's value.
        value: String,
    },
    /// The annotation `passlane.io/connection-limits` is not understood; there are none.
    UnknownLimits {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation's value.
        value: String,
    },
    /// The annotation `passlane.io/forwarding` asks for a way that cannot change the port, and a
    /// port leads to another one; masquerading is used there.
    PortKept {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation's value.
        forwarding: Forwarding,
        /// The port that clients dial, host order.
        port: u16,
        /// It is a node port.
        node_port: bool,
        /// A port that an endpoint listens on, host order.
        target: u16,
    },
    /// The annotation `passlane.io/fast-path` is no mode; `auto` is used.
    UnknownFastPath {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation's value.
        value: String,
    },
    /// An annotation about health checks is not understood, or not allowed; its default is used.
    UnknownWatching {
        /// The annotated Service.
        service: ServiceName,
        /// The annotation, without `passlane.io/`.
        annotation: &'static str,
        /// The annotation's value.
        value: String,
        /// What is wrong with it, what holds instead, and what is taken.
        why: String,
    },
    /// An EndpointSlice has no label `kubernetes.io/service-name`; it is ignored.
    SliceWithoutService {
        /// The slice.
        slice: SliceName,
    },
    /// An EndpointSlice of address type FQDN, which no proxy serves; it is ignored.
    SliceOfNames {
        /// The slice.
        slice: SliceName,
    },
    /// An object of the API server has a field that cannot be read; it is left out.
    Unreadable {
        /// The object by kind, namespace and name, such as `service default/web`.
        object: String,
        /// The Service, when the object is one.
        service: Option<ServiceName>,
        /// The field, what is wrong with it, and the cure.
        problem: String,
    },
    /// The agent reaches the API server by an address that it is itself to serve.
    ApiServerIsVip {
        /// The Service that has the address.
        service: ServiceName,
        /// The address.
        addr: IpAddr,
    },
    /// An IPv6 address of a Service, on a node without IPv6.
    Ipv6NotServed {
        /// The Service.
        service: ServiceName,
        /// Its IPv6 address.
        addr: IpAddr,
    },
    /// An external IP or load-balancer IP is of a family in which the Service has no cluster IP.
    FamilyWithoutClusterIp {
        /// The Service.
        service: ServiceName,
        /// The address that is not served.
        addr: IpAddr,
    },
    /// An external IP that the operator does not allow.
    ExternalIpRefused {
        /// The Service.
        service: ServiceName,
        /// The address that is not served.
        addr: IpAddr,
    },
    /// An address of a Service lies in `ipvs.excludeCIDRs`; it is not served.
    AddressExcluded {
        /// The Service.
        service: ServiceName,
        /// The address that is not served.
        addr: IpAddr,
    },
    /// Two Services claim one address, port and protocol; the older one has it, and of two of
    /// the same age the first by namespace and name.
    FrontendTaken {
        /// What both claim.
        frontend: Frontend,
        /// Who has it.
        winner: ServicePortName,
        /// Who does not.
        loser: ServicePortName,
    },
    /// Two Services claim one NodePort; the winner is found as in [`Notice::FrontendTaken`].
    NodePortTaken {
        /// Transport protocol of the port.
        protocol: Protocol,
        /// The port, host order.
        port: u16,
        /// Who has it.
        winner: ServicePortName,
        /// Who does not.
        loser: ServicePortName,
    },
    /// IPVS holds a virtual server at our frontend that someone else made; it is left alone.
    ForeignVirtualServer {
        /// Its key.
        frontend: Frontend,
        /// The Service that is not served there.
        service: ServicePortName,
    },
    /// Somebody else changed what is ours; it was put back.
    Drift {
        /// The Service that it serves, if it serves one.
        service: Option<ServiceName>,
        /// What was changed, in words.
        text: String,
    },
    /// The frontend map is full; what is left out is served by the slow path only.
    FrontendsFull {
        /// Capacity in entries.
        limit: u32,
        /// Number of frontends without an entry.
        left_out: usize,
        /// The first of them, in the order of the plan.
        first: ServicePortName,
    },
    /// The backend map is full; flows to what is left out take the slow path.
    BackendsFull {
        /// Capacity in entries.
        limit: u32,
        /// Number of backends without an entry.
        left_out: usize,
        /// A Service that uses the first of them.
        first: ServicePortName,
    },
}

impl Notice {
    /// Returns the Service that the notice is about: the one an Event belongs on.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::UnknownScheduler { service, .. }
            | Self::UnknownSchedulerFlag { service, .. }
            | Self::UnknownWeight { service, .. }
            | Self::UnknownForwarding { service, .. }
            | Self::UnknownLimits { service, .. }
            | Self::PortKept { service, .. }
            | Self::UnknownFastPath { service, .. }
            | Self::UnknownWatching { service, .. }
            | Self::ApiServerIsVip { service, .. }
            | Self::FamilyWithoutClusterIp { service, .. }
            | Self::ExternalIpRefused { service, .. }
            | Self::AddressExcluded { service, .. }
            | Self::Ipv6NotServed { service, .. } => Some(service),
            Self::Unreadable { service, .. } | Self::Drift { service, .. } => service.as_ref(),
            Self::FrontendTaken { loser, .. } | Self::NodePortTaken { loser, .. } => {
                Some(&loser.service)
            }
            Self::ForeignVirtualServer { service, .. } => Some(&service.service),
            Self::SliceWithoutService { .. }
            | Self::SliceOfNames { .. }
            | Self::FrontendsFull { .. }
            | Self::BackendsFull { .. } => None,
        }
    }

    /// Returns a stable CamelCase reason, fit for an Event and a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownScheduler { .. } => "UnknownScheduler",
            Self::UnknownSchedulerFlag { .. } => "UnknownSchedulerFlag",
            Self::UnknownWeight { .. } => "UnknownWeight",
            Self::UnknownForwarding { .. } => "UnknownForwarding",
            Self::UnknownLimits { .. } => "UnknownLimits",
            Self::PortKept { .. } => "PortKept",
            Self::UnknownFastPath { .. } => "UnknownFastPath",
            Self::UnknownWatching { .. } => "UnknownHealthCheck",
            Self::SliceWithoutService { .. } => "SliceWithoutService",
            Self::SliceOfNames { .. } => "SliceOfNames",
            Self::Unreadable { .. } => "Unreadable",
            Self::ApiServerIsVip { .. } => "ApiServerIsVip",
            Self::Ipv6NotServed { .. } => "Ipv6NotServed",
            Self::FamilyWithoutClusterIp { .. } => "FamilyWithoutClusterIp",
            Self::ExternalIpRefused { .. } => "ExternalIpRefused",
            Self::AddressExcluded { .. } => "AddressExcluded",
            Self::FrontendTaken { .. } => "FrontendTaken",
            Self::NodePortTaken { .. } => "NodePortTaken",
            Self::ForeignVirtualServer { .. } => "ForeignVirtualServer",
            Self::Drift { .. } => "Drift",
            Self::FrontendsFull { .. } => "FrontendsFull",
            Self::BackendsFull { .. } => "BackendsFull",
        }
    }
}

impl Notice {
    /// Returns what is wrong with which annotation of which Service, if it is about one.
    fn annotation(&self) -> Option<(&dyn fmt::Display, &'static str, String)> {
        Some(match self {
            Self::UnknownScheduler { service, value } => {
                let names = Scheduler::NAMES.join(", ");
                let text = format!(
                    "unknown scheduler {value:?}: the default is used; write one of {names}"
                );
                (service as &dyn fmt::Display, "scheduler", text)
            }
            Self::UnknownSchedulerFlag { service, scheduler, value } => {
                let names = scheduler.flag_names();
                let text = format!("unknown flag in {value:?}: the default is used; write {names}");
                (service, "scheduler", text)
            }
            Self::UnknownWeight { service, entry } => {
                let text = format!(
                    "{entry:?} is not understood or there twice: all weights are 1; write \
                     ADDRESS=WEIGHT or NODE=WEIGHT, from 0 to 65535"
                );
                (service, "weights", text)
            }
            Self::UnknownForwarding { service, value } => {
                let text = format!(
                    "unknown value {value:?}: masq is used; write masq, route, tunnel, tunnel,gre \
                     or tunnel,gue:PORT"
                );
                (service, "forwarding", text)
            }
            Self::UnknownLimits { service, value } => {
                let text = format!(
                    "{value:?} is not understood: there are no limits; write UPPER or \
                     UPPER,LOWER, numbers of connections above 0, the lower one at most the upper"
                );
                (service, "connection-limits", text)
            }
            Self::PortKept { service, forwarding, port, node_port, target } => {
                let node = if *node_port { "node " } else { "" };
                let text = format!(
                    "{forwarding} cannot change the port, and {node}port {port} leads to port \
                     {target}: masq is used where ports differ; make them the same, or write masq"
                );
                (service, "forwarding", text)
            }
            Self::UnknownFastPath { service, value } => {
                let text = format!(
                    "unknown value {value:?}: auto is used; write off, observe, auto or force"
                );
                (service, "fast-path", text)
            }
            Self::UnknownWatching { service, annotation, value, why } => {
                (service, annotation, format!("{value:?}: {why}"))
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((service, annotation, text)) = self.annotation() {
            return write!(f, "service {service}: annotation passlane.io/{annotation}: {text}");
        }
        match self {
            // Said above.
            Self::UnknownScheduler { .. }
            | Self::UnknownSchedulerFlag { .. }
            | Self::UnknownWeight { .. }
            | Self::UnknownForwarding { .. }
            | Self::UnknownLimits { .. }
            | Self::PortKept { .. }
            | Self::UnknownFastPath { .. }
            | Self::UnknownWatching { .. } => Ok(()),
            Self::SliceWithoutService { slice } => write!(
                f,
                "endpointslice {slice}: no label kubernetes.io/service-name: it is ignored; \
                 set the label to the name of its service"
            ),
            Self::SliceOfNames { slice } => write!(
                f,
                "endpointslice {slice}: addressType FQDN is not served: it is ignored; \
                 write addressType IPv4 and addresses"
            ),
            Self::Unreadable { object, problem, .. } => write!(f, "{object}: {problem}"),
            Self::ApiServerIsVip { service, addr } => write!(
                f,
                "service {service}: the agent reaches the API server by {addr}, which it serves \
                 itself: a node that starts without it cannot come up; give the addresses of the \
                 API servers, by --kubeconfig or --master"
            ),
            Self::Ipv6NotServed { service, addr } => {
                write!(f, "service {service}: {addr}: this node has no IPv6: it is not served here")
            }
            Self::FamilyWithoutClusterIp { service, addr } => write!(
                f,
                "service {service}: {addr}: the service has no cluster IP of this family: it is not \
                 served; add the family to spec.ipFamilies"
            ),
            Self::ExternalIpRefused { service, addr } => write!(
                f,
                "service {service}: spec.externalIPs: {addr} is not allowed on this node: it is not \
                 served; allow it in the configuration of passlane"
            ),
            Self::AddressExcluded { service, addr } => write!(
                f,
                "service {service}: {addr} lies in ipvs.excludeCIDRs: it is not served by passlane; \
                 give the service another address, or exclude less"
            ),
            Self::FrontendTaken { frontend, winner, loser } => write!(
                f,
                "service {loser}: {frontend} is taken by service {winner}: it gets no traffic there; \
                 give one of them another address or port"
            ),
            Self::NodePortTaken { protocol, port, winner, loser } => write!(
                f,
                "service {loser}: node port {port}/{protocol} is taken by service {winner}: it gets \
                 no traffic there; give one of them another nodePort"
            ),
            Self::ForeignVirtualServer { frontend, service } => write!(
                f,
                "service {service}: IPVS holds a virtual server {frontend} that passlane did not \
                 make: it is left alone; remove it, or give the service another address or port"
            ),
            Self::Drift { text, .. } => write!(
                f,
                "somebody else changed what passlane made on this node: {text}: it is put back"
            ),
            Self::FrontendsFull { limit, left_out, first } => {
                write_full(f, "frontend", *limit, *left_out, first)
            }
            Self::BackendsFull { limit, left_out, first } => {
                write_full(f, "backend", *limit, *left_out, first)
            }
        }
    }
}

fn write_full(
    f: &mut fmt::Formatter<'_>,
    map: &str,
    limit: u32,
    left_out: usize,
    first: &ServicePortName,
) -> fmt::Result {
    write!(
        f,
        "{map} map is full: limit {limit}, left out {left_out}, first of service {first}: what is \
         left out is served by the slow path only; raise the limit"
    )
}
