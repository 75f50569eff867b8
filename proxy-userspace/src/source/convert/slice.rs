//! EndpointSlices.

use std::net::IpAddr;

use serde_saphyr::Location;

use super::{
    Identity, address,
    port::protocol,
    scope::{Scope, object_of},
};
use crate::{
    model::{Endpoint, EndpointPort, EndpointSlice, Notice, ServiceName, SliceName},
    source::{
        Fault,
        manifest::{Array, Conditions, EndpointFields, Hint, Hints, Manifest, Object, PortFields},
    },
};

/// `addressType`.
#[derive(Clone, Copy, Eq, PartialEq)]
enum AddressType {
    Ipv4,
    Ipv6,
    Fqdn,
}

impl AddressType {
    fn has(self, addr: IpAddr) -> bool {
        match self {
            Self::Ipv4 => addr.is_ipv4(),
            Self::Ipv6 => addr.is_ipv6(),
            Self::Fqdn => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Fqdn => "FQDN",
        }
    }
}

/// Converts an EndpointSlice. Returns `None` for one that belongs to no Service or has host names
/// instead of addresses, with a notice, for one of a headless Service, and for one with problems.
pub(super) fn convert(
    scope: &mut Scope<'_>,
    identity: &Identity,
    at: Location,
    fields: &Manifest,
    notices: &mut Vec<Notice>,
) -> Option<EndpointSlice> {
    let slice = SliceName { namespace: identity.namespace.clone(), name: identity.name.clone() };
    let metadata = fields.metadata.as_ref().and_then(object_of)?;
    let labels = scope.object(metadata.labels.as_ref(), "metadata.labels");
    if labels.is_some_and(|labels| labels.headless.is_some()) {
        return None;
    }
    let service = labels.and_then(|labels| {
        scope.text(&labels.service_name, "metadata.labels[kubernetes.io/service-name]")
    });
    let Some(service) = service.filter(|service| !service.is_empty()) else {
        notices.push(Notice::SliceWithoutService { slice });
        return None;
    };
    let address_type = address_type(scope, fields, at);
    if address_type == Some(AddressType::Fqdn) {
        notices.push(Notice::SliceOfNames { slice });
        return None;
    }
    let service = ServiceName { namespace: identity.namespace.clone(), name: service.into() };
    let ports = scope.array(&fields.ports, "ports")?.iter().enumerate();
    let ports: Vec<_> = ports.filter_map(|(index, node)| port(scope, node, index)).collect();
    let endpoints = scope.array(&fields.endpoints, "endpoints")?.iter().enumerate();
    let endpoints: Vec<_> =
        endpoints.filter_map(|(index, node)| endpoint(scope, node, index, address_type)).collect();
    Some(EndpointSlice { name: slice, service, ports, endpoints })
}

fn address_type(scope: &mut Scope<'_>, fields: &Manifest, at: Location) -> Option<AddressType> {
    let cure = "write addressType: IPv4";
    let node_at = fields.address_type.as_ref().map_or(at, |node| node.referenced);
    let text = scope.required_text(&fields.address_type, at, "addressType", cure)?;
    let all = [AddressType::Ipv4, AddressType::Ipv6, AddressType::Fqdn];
    let found = all.into_iter().find(|address_type| address_type.name() == text);
    if found.is_none() {
        let (found, choices) = (text.to_owned(), "IPv4, IPv6 or FQDN");
        scope.report(node_at, "addressType", Fault::UnknownValue { found, choices });
    }
    found
}

/// Reads a port. One without a number means all ports, which nothing can be forwarded to.
fn port(scope: &mut Scope<'_>, node: &Object<PortFields>, index: usize) -> Option<EndpointPort> {
    let fields = scope.object(Some(node), format_args!("ports[{index}]"))?;
    let name = scope.text(&fields.name, format_args!("ports[{index}].name")).unwrap_or_default();
    let protocol = protocol(scope, &fields.protocol, format_args!("ports[{index}].protocol"));
    let port = scope.port(&fields.port, format_args!("ports[{index}].port"));
    Some(EndpointPort { name: name.to_owned(), protocol: protocol?, port: port? })
}

fn endpoint(
    scope: &mut Scope<'_>,
    node: &Object<EndpointFields>,
    index: usize,
    address_type: Option<AddressType>,
) -> Option<Endpoint> {
    let path = format!("endpoints[{index}]");
    let fields = scope.object(Some(node), &path)?;
    let addr = addr(scope, node, fields, &path, address_type);
    let node_name = scope.text(&fields.node_name, format_args!("{path}.nodeName"));
    let zone = scope.text(&fields.zone, format_args!("{path}.zone"));
    let hints = scope.object(fields.hints.as_ref(), format_args!("{path}.hints"));
    let mut hinted = |name: &str, of: fn(&Hints) -> &Option<_>| {
        hints.map(|hints| hint_names(scope, of(hints), &path, name)).unwrap_or_default()
    };
    let zone_hints = hinted("forZones", |hints| &hints.for_zones);
    let node_hints = hinted("forNodes", |hints| &hints.for_nodes);
    let path = format!("{path}.conditions");
    let conditions = scope.object(fields.conditions.as_ref(), &path);
    let mut condition = |name: &str, of: fn(&Conditions) -> &Option<_>| {
        scope.flag(of(conditions?), format_args!("{path}.{name}"))
    };
    let ready = condition("ready", |conditions| &conditions.ready).unwrap_or(true);
    let serving = condition("serving", |conditions| &conditions.serving).unwrap_or(ready);
    let terminating = condition("terminating", |conditions| &conditions.terminating);
    Some(Endpoint {
        addr: addr?,
        ready,
        serving,
        terminating: terminating.unwrap_or(false),
        node: node_name.map(Box::from),
        zone: zone.map(Box::from),
        zone_hints: zone_hints.into(),
        node_hints: node_hints.into(),
    })
}

/// Reads the zones or nodes that should use an endpoint.
fn hint_names(
    scope: &mut Scope<'_>,
    list: &Option<Array<Object<Hint>>>,
    path: &str,
    name: &str,
) -> Vec<String> {
    let path = format_args!("{path}.hints.{name}");
    let nodes = scope.array(list, path).unwrap_or_default();
    let mut names = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Some(hint) = scope.object(Some(node), &path) else { continue };
        let field = format_args!("{path}.name");
        let name = scope.required_text(&hint.name, node.referenced, field, "write the name");
        names.extend(name.map(str::to_owned));
    }
    names
}

/// Reads the addresses, and returns the first: the others are the same endpoint (KEP-752).
fn addr(
    scope: &mut Scope<'_>,
    node: &Object<EndpointFields>,
    fields: &EndpointFields,
    path: &str,
    address_type: Option<AddressType>,
) -> Option<IpAddr> {
    let nodes = scope.array(&fields.addresses, format_args!("{path}.addresses"))?;
    if nodes.is_empty() {
        let cure = "write one address";
        scope.report(node.referenced, format_args!("{path}.addresses"), Fault::Missing { cure });
    }
    let mut first = None;
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{path}.addresses[{index}]");
        let Some(text) = scope.leaf_text(node, &field) else { continue };
        let Some(addr) = address::remote_host(scope, node, text, &field) else { continue };
        if let Some(address_type) = address_type.filter(|address_type| !address_type.has(addr)) {
            let expected = address_type.name();
            scope.report(node.referenced, field, Fault::OtherFamily { addr, expected });
            continue;
        }
        first = first.or(Some(addr));
    }
    first
}
