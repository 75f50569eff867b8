//! How a Service is reached from outside, and by whom.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_saphyr::Location;

use super::{
    Strictness, address,
    scope::{Scope, text_of},
};
use crate::{
    model::{ServiceKind, Sources, TrafficPolicy},
    source::{
        Fault,
        manifest::{Annotations, Array, Ingress, Leaf, Manifest, Object, Spec},
    },
};

const POLICIES: [(&str, TrafficPolicy); 2] =
    [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
const POLICY_CHOICES: &str = "Cluster or Local";
/// The API server's default for `timeoutSeconds`.
const AFFINITY_SECS: u32 = 10_800;
const SOURCE_RANGES: &str =
    "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]";

/// Reads `spec.externalIPs`.
pub(super) fn external_ips(scope: &mut Scope<'_>, spec: &Spec) -> Vec<IpAddr> {
    let nodes = scope.array(&spec.external_ips, "spec.externalIPs").unwrap_or_default();
    let mut addrs = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        let Some(text) = scope.leaf_text(node, &field) else { continue };
        let addr = address::remote_host(scope, node, text, field);
        push_new(&mut addrs, addr);
    }
    addrs
}

/// Reads the addresses of a load balancer that this node is to answer.
///
/// In a cluster they come from whoever allocates them, in the status. Without a cluster nobody
/// does: in a file whose status has none, `spec.loadBalancerIP` is the address.
pub(super) fn load_balancer_ips(
    scope: &mut Scope<'_>,
    fields: &Manifest,
    spec: &Spec,
    kind: ServiceKind,
) -> Vec<IpAddr> {
    let status = scope.object(fields.status.as_ref(), "status");
    let balancer = status
        .and_then(|status| scope.object(status.load_balancer.as_ref(), "status.loadBalancer"));
    let list = balancer.map_or(&None, |balancer| &balancer.ingress);
    let ingress = scope.array(list, "status.loadBalancer.ingress").unwrap_or_default();
    let wanted = spec.load_balancer_ip.as_ref().filter(|_| {
        let text = scope.text(&spec.load_balancer_ip, "spec.loadBalancerIP");
        text.is_some_and(|text| !text.is_empty())
    });
    if kind != ServiceKind::LoadBalancer {
        let fault = || Fault::Misplaced {
            why: "only a service of type LoadBalancer has a load-balancer address",
            cure: "write type: LoadBalancer or remove it",
        };
        if let Some(node) = ingress.first() {
            scope.refuse(node.referenced, "status.loadBalancer.ingress[0]", fault());
        }
        if let Some(node) = wanted {
            scope.refuse(node.referenced, "spec.loadBalancerIP", fault());
        }
        return Vec::new();
    }
    let mut addrs = Vec::new();
    for (index, node) in ingress.iter().enumerate() {
        let addr = ingress_ip(scope, node, index);
        push_new(&mut addrs, addr);
    }
    if ingress.is_empty()
        && scope.strictness() == Strictness::Strict
        && let Some(node) = wanted
        && let Some(text) = text_of(&spec.load_balancer_ip)
    {
        addrs.extend(address::host(scope, node, text, "spec.loadBalancerIP"));
    }
    addrs
}

/// Reads an address of a load balancer. Returns `None` for a host name, and for an address that
/// traffic shall reach through the balancer only (KEP-1860).
fn ingress_ip(scope: &mut Scope<'_>, node: &Object<Ingress>, index: usize) -> Option<IpAddr> {
    let path = format!("status.loadBalancer.ingress[{index}]");
    let fields = scope.object(Some(node), &path)?;
    check_hostname(scope, fields, &path);
    let ip = scope.text(&fields.ip, format_args!("{path}.ip")).filter(|ip| !ip.is_empty());
    let mode_path = format!("{path}.ipMode");
    let mode = scope.choice(
        &fields.ip_mode,
        &mode_path,
        &[("VIP", true), ("Proxy", false)],
        "VIP or Proxy",
    );
    if let (None, Some(mode)) = (ip, &fields.ip_mode) {
        let why = "an ipMode belongs to an ip";
        let fault = Fault::Misplaced { why, cure: "write the ip, or remove the ipMode" };
        scope.refuse(mode.referenced, mode_path, fault);
    }
    // A mode that is unknown here is not the one that was known before there were modes.
    let unset = fields.ip_mode.is_none() || text_of(&fields.ip_mode) == Some("");
    let captured = mode.unwrap_or(unset);
    let addr = address::host(scope, fields.ip.as_ref()?, ip?, format_args!("{path}.ip"));
    addr.filter(|_| captured)
}

fn check_hostname(scope: &mut Scope<'_>, fields: &Ingress, path: &str) {
    let Some(node) = &fields.hostname else { return };
    let field = format!("{path}.hostname");
    let name = scope.text(&fields.hostname, &field);
    if name.is_some_and(|name| name.parse::<IpAddr>().is_ok()) {
        let why = "an address where a host name belongs";
        scope.refuse(node.referenced, field, Fault::Misplaced { why, cure: "write it as ip" });
    }
}

/// Reads who may reach the load balancer's addresses: `spec.loadBalancerSourceRanges`, or where
/// that has no items the annotation that was there before it.
///
/// What cannot be read opens nothing: the Service is then closed to all that the rest does not
/// name.
pub(super) fn sources(
    scope: &mut Scope<'_>,
    spec: &Spec,
    annotations: Option<&Annotations>,
    kind: ServiceKind,
) -> Sources {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    if let Some(list) = &spec.load_balancer_source_ranges {
        let Some(nodes) = scope.array(&spec.load_balancer_source_ranges, FIELD) else {
            return Sources::Only(Vec::new());
        };
        if !nodes.is_empty() {
            check_has_sources(scope, list.referenced, FIELD, kind);
            return Sources::Only(listed_ranges(scope, nodes, FIELD));
        }
    }
    let Some(node) = annotations.and_then(|annotations| annotations.source_ranges.as_ref()) else {
        return Sources::Any;
    };
    check_has_sources(scope, node.referenced, SOURCE_RANGES, kind);
    let Some(text) = scope.leaf_text(node, SOURCE_RANGES) else {
        return Sources::Only(Vec::new());
    };
    if text.trim().is_empty() {
        return Sources::Any;
    }
    let mut ranges = Vec::new();
    for text in text.split(',') {
        let range = address::range(scope, node.referenced, text.trim(), SOURCE_RANGES);
        push_new(&mut ranges, range);
    }
    Sources::Only(ranges)
}

fn listed_ranges(scope: &mut Scope<'_>, nodes: &[Leaf], field: &str) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let Some(text) = scope.leaf_text(node, &field) else { continue };
        // Space around a range has been allowed since it was cut out of the annotation.
        let range = address::range(scope, node.referenced, text.trim(), field);
        push_new(&mut ranges, range);
    }
    ranges
}

fn check_has_sources(scope: &mut Scope<'_>, at: Location, field: &str, kind: ServiceKind) {
    if kind != ServiceKind::LoadBalancer {
        let why = "only a service of type LoadBalancer has source ranges";
        let cure = "write type: LoadBalancer or remove it";
        scope.refuse(at, field, Fault::Misplaced { why, cure });
    }
}

/// Reads `spec.internalTrafficPolicy`.
pub(super) fn internal_policy(scope: &mut Scope<'_>, spec: &Spec) -> TrafficPolicy {
    let field = "spec.internalTrafficPolicy";
    let policy = scope.choice(&spec.internal_traffic_policy, field, &POLICIES, POLICY_CHOICES);
    policy.unwrap_or_default()
}

/// Reads `spec.externalTrafficPolicy`, which only a Service has that can be reached from outside.
pub(super) fn external_policy(
    scope: &mut Scope<'_>,
    spec: &Spec,
    kind: ServiceKind,
) -> TrafficPolicy {
    let field = "spec.externalTrafficPolicy";
    let policy = scope.choice(&spec.external_traffic_policy, field, &POLICIES, POLICY_CHOICES);
    let reachable = kind != ServiceKind::ClusterIP || has_items(&spec.external_ips);
    match (policy, &spec.external_traffic_policy) {
        (Some(_), Some(node)) if !reachable => {
            let why =
                "only a service of type NodePort or LoadBalancer, or with externalIPs, has it";
            let fault = Fault::Misplaced { why, cure: "remove it" };
            scope.refuse(node.referenced, field, fault);
            TrafficPolicy::Cluster
        }
        (policy, _) => policy.unwrap_or_default(),
    }
}

fn has_items<T>(list: &Option<Array<T>>) -> bool {
    use crate::source::manifest::Loose;

    matches!(list.as_ref().map(|list| &list.value), Some(Loose::Array(items)) if !items.is_empty())
}

/// Reads `spec.healthCheckNodePort`. The API server allocates one to each Service that may have
/// one; in a file nobody does, and one that has none is not checked.
pub(super) fn health_check_port(
    scope: &mut Scope<'_>,
    spec: &Spec,
    kind: ServiceKind,
    policy: TrafficPolicy,
) -> Option<u16> {
    let field = "spec.healthCheckNodePort";
    let node = spec.health_check_node_port.as_ref()?;
    let port = scope.port(&spec.health_check_node_port, field)?;
    if (kind, policy) == (ServiceKind::LoadBalancer, TrafficPolicy::Local) {
        return Some(port);
    }
    let why = "only a service of type LoadBalancer with externalTrafficPolicy Local has it";
    scope.refuse(node.referenced, field, Fault::Misplaced { why, cure: "remove it" });
    None
}

/// Reads `spec.sessionAffinity` and its timeout in seconds.
pub(super) fn affinity_secs(scope: &mut Scope<'_>, spec: &Spec) -> Option<u32> {
    let by_client = scope.choice(
        &spec.session_affinity,
        "spec.sessionAffinity",
        &[("None", false), ("ClientIP", true)],
        "None or ClientIP",
    );
    let path = "spec.sessionAffinityConfig";
    let config = scope.object(spec.session_affinity_config.as_ref(), path);
    if by_client != Some(true) {
        let unknown = by_client.is_none() && spec.session_affinity.is_some();
        if let Some(node) = spec.session_affinity_config.as_ref().filter(|_| !unknown) {
            let why = "only a service with sessionAffinity ClientIP has it";
            let cure = "write sessionAffinity: ClientIP or remove it";
            scope.refuse(node.referenced, path, Fault::Misplaced { why, cure });
        }
        return None;
    }
    let path = "spec.sessionAffinityConfig.clientIP";
    let client = config.and_then(|config| scope.object(config.client_ip.as_ref(), path));
    let secs = client.and_then(|client| {
        scope.number(&client.timeout_seconds, format_args!("{path}.timeoutSeconds"), 1..=86_400)
    });
    Some(secs.unwrap_or(AFFINITY_SECS))
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: Option<T>) {
    if let Some(item) = item.filter(|item| !list.contains(item)) {
        list.push(item);
    }
}
