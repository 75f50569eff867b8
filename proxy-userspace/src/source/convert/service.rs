//! Services.

use std::{fmt::Display, net::IpAddr};

use serde_saphyr::Location;

use super::{
    Identity, address, annotation, exposure, port,
    scope::{Scope, object_of, text_of},
    timestamp,
};
use crate::{
    model::{Notice, Service, ServiceKind, ServiceName},
    source::{
        Fault, Found,
        manifest::{Labels, Leaf, Loose, Manifest, Metadata, Spec},
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
    if !is_ours(labels, scope.proxy_name()) {
        return None;
    }
    let Some(node) = &fields.spec else {
        scope.report(at, "spec", Fault::Missing { cure: "write the clusterIP and ports there" });
        return None;
    };
    let spec = scope.object(Some(node), "spec")?;
    let kind = kind(scope, spec)?;
    let cluster_ips = match cluster_ips(scope, spec, kind, node.referenced) {
        Some(ClusterIps::Headless) => return None,
        Some(ClusterIps::Addrs(addrs)) => Some(addrs),
        None => None,
    };
    let name = ServiceName { namespace: identity.namespace.clone(), name: identity.name.clone() };
    let annotations = scope.object(metadata.annotations.as_ref(), "metadata.annotations");
    let wishes = annotations
        .map(|annotations| annotation::wishes(annotations, &name, scope.strictness(), notices));
    let wishes = wishes.unwrap_or_default();
    let ports = port::ports(scope, spec, kind, node.referenced);
    let external_policy = exposure::external_policy(scope, spec, kind);
    let external_ips = exposure::external_ips(scope, spec);
    let load_balancer_ips = exposure::load_balancer_ips(scope, fields, spec, kind);
    let sources = exposure::sources(scope, spec, annotations, kind);
    let internal_policy = exposure::internal_policy(scope, spec);
    let affinity_secs = exposure::affinity_secs(scope, spec);
    let health_check_port = exposure::health_check_port(scope, spec, kind, external_policy);
    let created_at = created_at(scope, metadata);
    let (cluster_ips, ports) = (cluster_ips?, ports?);
    Some(Service {
        name,
        kind,
        cluster_ips,
        external_ips,
        load_balancer_ips,
        sources,
        ports,
        internal_policy,
        external_policy,
        affinity_secs,
        health_check_port,
        scheduler: wishes.scheduler,
        weights: wishes.weights,
        forwarding: wishes.forwarding,
        limits: wishes.limits,
        fast_path: wishes.fast_path,
        watching: wishes.watching,
        created_at,
    })
}

/// Returns whether the Service is for this proxy (KEP-2447).
fn is_ours(labels: Option<&Labels>, proxy_name: Option<&str>) -> bool {
    let Some(labels) = labels else { return proxy_name.is_none() };
    labels.headless.is_none()
        && match proxy_name {
            None => labels.proxy_name.is_none(),
            Some(own) => text_of(&labels.proxy_name) == Some(own),
        }
}

fn kind(scope: &mut Scope<'_>, spec: &Spec) -> Option<ServiceKind> {
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

fn cluster_ips(
    scope: &mut Scope<'_>,
    spec: &Spec,
    kind: ServiceKind,
    at: Location,
) -> Option<ClusterIps> {
    let listed = scope.array(&spec.cluster_ips, "spec.clusterIPs")?;
    let single = spec.cluster_ip.as_ref().filter(|node| !is_text(node, ""));
    let Some(first) = single.or(listed.first()) else {
        let cure = "write a free address, since none is allocated here, or None for headless";
        scope.report(at, "spec.clusterIP", Fault::Missing { cure });
        return None;
    };
    if is_text(first, "None") {
        if kind != ServiceKind::ClusterIP {
            let why = "only a service of type ClusterIP can be headless";
            let fault = Fault::Misplaced { why, cure: "write a free address" };
            scope.refuse(first.referenced, "spec.clusterIP", fault);
        }
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
            scope.report(node.referenced, &field, Fault::OtherClusterIp { found, expected });
        }
        if addrs.iter().any(|other: &IpAddr| other.is_ipv4() == found.is_ipv4()) {
            let why = "a service has one cluster IP of each family at most";
            let fault = Fault::Misplaced { why, cure: "write the others as externalIPs" };
            scope.refuse(node.referenced, field, fault);
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
