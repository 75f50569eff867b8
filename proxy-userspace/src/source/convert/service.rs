//! Services.

use std::{fmt::Display, net::IpAddr};

use serde_saphyr::Location;

use super::{
    Identity, address,
    scope::{Scope, object_of},
    timestamp,
};
use crate::{
    model::{
        FastPath, Forwarding, Notice, Protocol, SchedulerFlags, Service, ServiceKind, ServiceName,
        ServicePort, Sources, TrafficPolicy, Weights,
    },
    source::{
        Fault, Found,
        manifest::{Leaf, Loose, Manifest, Metadata, Object, PortFields, ServiceSpec},
    },
};

/// Converts a Service. Returns `None` for one without forwarding state (ExternalName, headless,
/// served by another proxy), and for one with problems.
pub(super) fn convert(
    scope: &mut Scope<'_>,
    identity: &Identity,
    at: Location,
    fields: &Manifest,
    notices: &mut Vec<Notice>,
) -> Option<Service> {
    let metadata = fields.metadata.as_ref().and_then(object_of)?;
    let labels = scope.object(metadata.labels.as_ref(), "metadata.labels");
    if labels.is_some_and(|labels| labels.proxy_name.is_some()) {
        return None;
    }
    let Some(node) = &fields.spec else {
        scope.report(at, "spec", Fault::Missing { cure: "write the clusterIP and ports there" });
        return None;
    };
    let spec = scope.object(Some(node), "spec")?;
    let kind = kind(scope, spec)?;
    let cluster_ips = match cluster_ips(scope, spec, node.referenced) {
        Some(ClusterIps::Headless) => return None,
        Some(ClusterIps::Addrs(addrs)) => Some(addrs),
        None => None,
    };
    let name = ServiceName { namespace: identity.namespace.clone(), name: identity.name.clone() };
    let ports = ports(scope, spec, kind, node.referenced);
    let created_at = created_at(scope, metadata);
    let (scheduler, fast_path) = annotations(scope, metadata, &name, notices);
    let (cluster_ips, ports) = (cluster_ips?, ports?);
    Some(Service {
        name,
        kind,
        cluster_ips,
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        sources: Sources::Any,
        ports,
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_secs: None,
        health_check_port: None,
        scheduler: scheduler.map(|scheduler| (scheduler, SchedulerFlags::default())),
        weights: Weights::default(),
        forwarding: Forwarding::Masq,
        fast_path,
        created_at,
    })
}

fn kind(scope: &mut Scope<'_>, spec: &ServiceSpec) -> Option<ServiceKind> {
    let Some(node) = &spec.kind else { return Some(ServiceKind::ClusterIP) };
    match scope.text(&spec.kind, "spec.type")? {
        "ClusterIP" => Some(ServiceKind::ClusterIP),
        "NodePort" => Some(ServiceKind::NodePort),
        "LoadBalancer" => Some(ServiceKind::LoadBalancer),
        "ExternalName" => None,
        other => {
            let choices = "ClusterIP, NodePort, LoadBalancer or ExternalName";
            let found = other.to_owned();
            scope.report(node.referenced, "spec.type", Fault::UnknownValue { found, choices });
            None
        }
    }
}

enum ClusterIps {
    Headless,
    Addrs(Vec<IpAddr>),
}

fn cluster_ips(scope: &mut Scope<'_>, spec: &ServiceSpec, at: Location) -> Option<ClusterIps> {
    let listed = scope.array(&spec.cluster_ips, "spec.clusterIPs")?;
    let single = spec.cluster_ip.as_ref().filter(|node| !is_text(node, ""));
    let Some(first) = single.or(listed.first()) else {
        let cure = "write a free address, since none is allocated here, or None for headless";
        scope.report(at, "spec.clusterIP", Fault::Missing { cure });
        return None;
    };
    if is_text(first, "None") {
        return Some(ClusterIps::Headless);
    }
    let single = single.and_then(|node| cluster_ip(scope, node, "spec.clusterIP"));
    let mut addrs = Vec::new();
    for (index, node) in listed.iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        let Some(found) = cluster_ip(scope, node, &field) else { continue };
        if let (0, Some(expected)) = (index, single)
            && found != expected
        {
            scope.report(node.referenced, field, Fault::OtherClusterIp { found, expected });
        }
        addrs.push(found);
    }
    if listed.is_empty() {
        addrs.extend(single);
    }
    (!addrs.is_empty()).then_some(ClusterIps::Addrs(addrs))
}

fn is_text(node: &Leaf, expected: &str) -> bool {
    matches!(&node.value, Loose::Scalar(Found::Text(text)) if text == expected)
}

fn cluster_ip(scope: &mut Scope<'_>, node: &Leaf, field: impl Display) -> Option<IpAddr> {
    let text = scope.leaf_text(node, &field)?;
    address::host(scope, node, text, field)
}

fn ports(
    scope: &mut Scope<'_>,
    spec: &ServiceSpec,
    kind: ServiceKind,
    at: Location,
) -> Option<Vec<ServicePort>> {
    let nodes = scope.array(&spec.ports, "spec.ports")?;
    if nodes.is_empty() {
        let cure = "write at least one port";
        scope.report(at, "spec.ports", Fault::Missing { cure });
    }
    let mut ports = Vec::<ServicePort>::new();
    for (index, node) in nodes.iter().enumerate() {
        let several = nodes.len() > 1;
        let Some(port) = port(scope, node, index, kind, several) else { continue };
        check_unique(scope, node, index, &ports, &port);
        ports.push(port);
    }
    (!ports.is_empty()).then_some(ports)
}

fn port(
    scope: &mut Scope<'_>,
    node: &Object<PortFields>,
    index: usize,
    kind: ServiceKind,
    several: bool,
) -> Option<ServicePort> {
    let path = format!("spec.ports[{index}]");
    let fields = scope.object(Some(node), &path)?;
    let name = scope.text(&fields.name, format_args!("{path}.name")).unwrap_or_default();
    if several && name.is_empty() {
        let cure = "write a name, since the service has several ports";
        scope.report(node.referenced, format_args!("{path}.name"), Fault::Missing { cure });
    }
    let protocol = protocol(scope, &fields.protocol, format_args!("{path}.protocol"));
    if fields.port.is_none() {
        let cure = "write a number from 1 to 65535";
        scope.report(node.referenced, format_args!("{path}.port"), Fault::Missing { cure });
    }
    let port = scope.port(&fields.port, format_args!("{path}.port"));
    let node_port = scope.port(&fields.node_port, format_args!("{path}.nodePort"));
    let node_port_path = format_args!("{path}.nodePort");
    match (kind, &fields.node_port) {
        (ServiceKind::ClusterIP, Some(node)) => {
            scope.report(node.referenced, node_port_path, Fault::StrayNodePort);
        }
        (ServiceKind::NodePort, None) => {
            let cure = "write a free port, since none is allocated here";
            scope.report(node.referenced, node_port_path, Fault::Missing { cure });
        }
        _ => {}
    }
    Some(ServicePort { name: name.to_owned(), protocol: protocol?, port: port?, node_port })
}

/// Reads a protocol; TCP when there is none.
pub(super) fn protocol(
    scope: &mut Scope<'_>,
    node: &Option<Leaf>,
    field: impl Display,
) -> Option<Protocol> {
    let Some(leaf) = node else { return Some(Protocol::Tcp) };
    match scope.text(node, &field)?.parse() {
        Ok(protocol) => Some(protocol),
        Err(error) => {
            scope.report(leaf.referenced, field, Fault::UnknownProtocol(error));
            None
        }
    }
}

fn check_unique(
    scope: &mut Scope<'_>,
    node: &Object<PortFields>,
    index: usize,
    earlier: &[ServicePort],
    port: &ServicePort,
) {
    let mut check = |field: &str, what, same: &dyn Fn(&ServicePort) -> bool| {
        if let Some(first) = earlier.iter().position(same) {
            let field = format_args!("spec.ports[{index}].{field}");
            scope.report(node.referenced, field, Fault::DuplicatePort { what, first });
        }
    };
    check("port", "port and protocol", &|other| {
        (other.port, other.protocol) == (port.port, port.protocol)
    });
    check("name", "name", &|other| !port.name.is_empty() && other.name == port.name);
    check("nodePort", "node port and protocol", &|other| {
        port.node_port.is_some()
            && (other.node_port, other.protocol) == (port.node_port, port.protocol)
    });
}

fn created_at(scope: &mut Scope<'_>, metadata: &Metadata) -> Option<i64> {
    let node = metadata.creation_timestamp.as_ref()?;
    let field = "metadata.creationTimestamp";
    let text = scope.text(&metadata.creation_timestamp, field)?;
    let seconds = timestamp::seconds(text);
    if seconds.is_none() {
        let found = text.to_owned();
        scope.report(node.referenced, field, Fault::NotATimestamp { found });
    }
    seconds
}

/// Reads our annotations. A value that is not understood is a notice: it stops nothing.
fn annotations(
    scope: &mut Scope<'_>,
    metadata: &Metadata,
    service: &ServiceName,
    notices: &mut Vec<Notice>,
) -> (Option<crate::model::Scheduler>, FastPath) {
    let annotations = scope.object(metadata.annotations.as_ref(), "metadata.annotations");
    let Some(annotations) = annotations else { return (None, FastPath::On) };
    let scheduler = annotations.scheduler.as_ref().and_then(|node| {
        let value = annotation(node);
        let parsed = value.parse().ok();
        if parsed.is_none() {
            let service = service.clone();
            notices.push(Notice::UnknownScheduler { service, value });
        }
        parsed
    });
    let fast_path = annotations.fast_path.as_ref().map(annotation);
    let fast_path = match fast_path.as_deref() {
        None | Some("on") => FastPath::On,
        Some("off") => FastPath::Off,
        Some(other) => {
            let (service, value) = (service.clone(), other.to_owned());
            notices.push(Notice::UnknownFastPath { service, value });
            FastPath::On
        }
    };
    (scheduler, fast_path)
}

/// Returns the text of an annotation. YAML 1.1 reads a bare `on` or `off` as a truth value.
fn annotation(node: &Leaf) -> String {
    match &node.value {
        Loose::Scalar(Found::Text(text)) => text.clone(),
        Loose::Scalar(Found::Flag(true)) => "on".to_owned(),
        Loose::Scalar(Found::Flag(false)) => "off".to_owned(),
        other => other.found().to_string(),
    }
}
