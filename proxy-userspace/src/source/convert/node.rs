//! Nodes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Identity, address,
    scope::{Scope, object_of, text_of},
};
use crate::{
    model::Node,
    source::{
        Fault,
        manifest::{Leaf, Manifest, NodeAddress, Object, Spec},
    },
};

/// The cluster autoscaler puts this taint on a node that it is about to delete (KEP-3836).
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// Converts a Node. Returns `None` for one with problems.
pub(super) fn convert(
    scope: &mut Scope<'_>,
    identity: &Identity,
    fields: &Manifest,
) -> Option<Node> {
    let metadata = fields.metadata.as_ref().and_then(object_of)?;
    let labels = scope.object(metadata.labels.as_ref(), "metadata.labels");
    let zone = labels.and_then(|labels| {
        scope.text(&labels.zone, "metadata.labels[topology.kubernetes.io/zone]")
    });
    let spec = scope.object(fields.spec.as_ref(), "spec");
    let status = scope.object(fields.status.as_ref(), "status");
    let addresses = status.and_then(|status| scope.array(&status.addresses, "status.addresses"));
    let addresses = addresses.unwrap_or_default().iter().enumerate();
    let mut addrs = Vec::new();
    for addr in addresses.filter_map(|(index, node)| internal_ip(scope, node, index)) {
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    Some(Node {
        name: identity.name.to_string(),
        zone: zone.filter(|zone| !zone.is_empty()).map(str::to_owned),
        pod_cidrs: spec.map(|spec| pod_cidrs(scope, spec)).unwrap_or_default(),
        addrs,
        leaving: metadata.deletion_timestamp.is_some()
            || spec.is_some_and(|spec| is_tainted(scope, spec)),
    })
}

/// Reads `podCIDRs`, or `podCIDR` when there is only that: the two say the same.
fn pod_cidrs(scope: &mut Scope<'_>, spec: &Spec) -> Vec<IpNet> {
    let mut read = |node: &Leaf, field: &str| {
        let text = scope.leaf_text(node, field).filter(|text| !text.is_empty())?;
        address::range(scope, node.referenced, text, field)
    };
    let single = spec.pod_cidr.as_ref().and_then(|node| read(node, "spec.podCIDR"));
    let Some(nodes) = scope.array(&spec.pod_cidrs, "spec.podCIDRs") else { return Vec::new() };
    let mut cidrs = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("spec.podCIDRs[{index}]");
        let Some(text) = scope.leaf_text(node, &field) else { continue };
        let Some(found) = address::range(scope, node.referenced, text, &field) else { continue };
        if let (0, Some(expected)) = (index, single)
            && found != expected
        {
            scope.report(node.referenced, field, Fault::OtherPodCidr { found, expected });
        }
        cidrs.push(found);
    }
    if nodes.is_empty() {
        cidrs.extend(single);
    }
    cidrs
}

fn is_tainted(scope: &mut Scope<'_>, spec: &Spec) -> bool {
    let taints = scope.array(&spec.taints, "spec.taints").unwrap_or_default();
    taints.iter().enumerate().any(|(index, taint)| {
        let taint = scope.object(Some(taint), format_args!("spec.taints[{index}]"));
        taint.is_some_and(|taint| text_of(&taint.key) == Some(LEAVING))
    })
}

fn internal_ip(scope: &mut Scope<'_>, node: &Object<NodeAddress>, index: usize) -> Option<IpAddr> {
    let path = format!("status.addresses[{index}]");
    let fields = scope.object(Some(node), &path)?;
    if scope.text(&fields.kind, format_args!("{path}.type"))? != "InternalIP" {
        return None;
    }
    let field = format!("{path}.address");
    let cure = "write the node's address";
    let text = scope.required_text(&fields.address, node.referenced, &field, cure)?;
    address::host(scope, fields.address.as_ref()?, text, field)
}
