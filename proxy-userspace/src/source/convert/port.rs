//! Ports of Services.

use std::fmt::Display;

use serde_saphyr::Location;

use super::scope::Scope;
use crate::{
    model::{Protocol, ServiceKind, ServicePort},
    source::{
        Fault,
        manifest::{Leaf, Object, PortFields, Spec},
    },
};

/// Reads the ports of a Service. Returns `None` if there is none that can be read.
pub(super) fn ports(
    scope: &mut Scope<'_>,
    spec: &Spec,
    kind: ServiceKind,
    at: Location,
) -> Option<Vec<ServicePort>> {
    let nodes = scope.array(&spec.ports, "spec.ports")?;
    if nodes.is_empty() {
        let cure = "write at least one port";
        scope.report(at, "spec.ports", Fault::Missing { cure });
    }
    // With their indices: what cannot be read is left out.
    let mut ports = Vec::<(usize, ServicePort)>::new();
    for (index, node) in nodes.iter().enumerate() {
        let several = nodes.len() > 1;
        let Some(port) = port(scope, node, index, kind, several) else { continue };
        if is_unique(scope, node, index, &ports, &port) {
            ports.push((index, port));
        }
    }
    (!ports.is_empty()).then(|| ports.into_iter().map(|(_, port)| port).collect())
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

fn is_unique(
    scope: &mut Scope<'_>,
    node: &Object<PortFields>,
    index: usize,
    earlier: &[(usize, ServicePort)],
    port: &ServicePort,
) -> bool {
    let mut unique = true;
    let mut check = |field: &str, what, same: &dyn Fn(&ServicePort) -> bool| {
        if let Some(&(first, _)) = earlier.iter().find(|(_, other)| same(other)) {
            let field = format_args!("spec.ports[{index}].{field}");
            scope.report(node.referenced, field, Fault::DuplicatePort { what, first });
            unique = false;
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
    unique
}
