//! ServiceCIDRs: the ranges that cluster IPs are allocated from (KEP-1880).

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_saphyr::Location;

use super::{address, scope::Scope};
use crate::source::{Fault, manifest::Manifest};

/// Converts a ServiceCIDR. Returns `None` for one without a single range, and for one with
/// problems.
pub(super) fn convert(
    scope: &mut Scope<'_>,
    at: Location,
    fields: &Manifest,
) -> Option<BTreeSet<IpNet>> {
    let cure = "write spec: {cidrs: [...]}";
    let Some(node) = &fields.spec else {
        scope.report(at, "spec", Fault::Missing { cure });
        return None;
    };
    let spec = scope.object(Some(node), "spec")?;
    let nodes = scope.array(&spec.cidrs, "spec.cidrs")?;
    if nodes.is_empty() {
        scope.report(node.referenced, "spec.cidrs", Fault::Missing { cure });
    }
    let mut cidrs = Vec::<IpNet>::new();
    for (index, node) in nodes.iter().enumerate() {
        let field = format!("spec.cidrs[{index}]");
        let Some(text) = scope.leaf_text(node, &field) else { continue };
        let Some(cidr) = address::range(scope, node.referenced, text, &field) else { continue };
        if cidrs.iter().any(|other| other.addr().is_ipv4() == cidr.addr().is_ipv4()) {
            let why = "a servicecidr has one range of each family at most";
            let fault = Fault::Misplaced { why, cure: "put it into a servicecidr of its own" };
            scope.refuse(node.referenced, field, fault);
        }
        cidrs.push(cidr);
    }
    (!cidrs.is_empty()).then(|| cidrs.into_iter().collect())
}
