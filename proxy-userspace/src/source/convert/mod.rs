//! Manifests to model values, with every problem named.

mod address;
mod annotation;
mod exposure;
mod node;
mod port;
mod scope;
mod service;
mod service_cidr;
mod slice;
mod stored;
#[cfg(test)]
mod tests;
mod timestamp;
mod watching;

use std::{collections::BTreeSet, fmt, path::Path, sync::Arc};

use ipnet::IpNet;
use serde_saphyr::Location;

pub use self::stored::{Stored, StoredOutcome};

use self::scope::Scope;
use super::{
    Fault, Place, Problem, document,
    manifest::{Manifest, Metadata, Object},
};
use crate::model::{EndpointSlice, Node, Notice, Service};

/// The supported kinds of objects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Node.
    Node,
    /// `networking.k8s.io/v1` ServiceCIDR.
    ServiceCidr,
}

/// What makes an object unique.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty when the kind has none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// An object with forwarding state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Converted {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    Slice(EndpointSlice),
    /// A Node.
    Node(Node),
    /// The ranges of one ServiceCIDR; there may be several of the kind.
    ServiceCidr(BTreeSet<IpNet>),
}

/// How an object is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strictness {
    /// From a file: nobody else has checked it, so everything that an API server refuses, and
    /// everything that two programs may read differently, is a problem.
    Strict,
    /// From the API server, which took it years ago, perhaps by laxer rules. What has one clear
    /// reading is read, and what cannot be read takes nothing else with it.
    Stored,
}

/// What holds for all objects of a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// How objects are read.
    pub(super) strictness: Strictness,
    /// Where the objects are; empty when they are in no file.
    pub(super) file: &'a Path,
    /// The name in the label `service.kubernetes.io/service-proxy-name` of the Services that are
    /// ours. `None`: those without the label are.
    pub(super) proxy_name: Option<&'a str>,
}

/// An object that could be named.
pub(super) struct Outcome {
    pub(super) identity: Identity,
    /// Where its name is.
    pub(super) place: Place,
    /// `None` for an object without forwarding state, and for one with problems; among stored
    /// ones only for one that no forwarding state can be made of.
    pub(super) converted: Option<Converted>,
    pub(super) notices: Vec<Notice>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind.label(), self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind.label(), self.name),
        }
    }
}

impl Kind {
    const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];

    /// Returns the kind of this name.
    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
            Self::Node => "node",
            Self::ServiceCidr => "servicecidr",
        }
    }

    /// Returns the supported `apiVersion`, and what to do when there is none.
    fn api_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Service | Self::Node => ("v1", "write apiVersion: v1"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "write apiVersion: discovery.k8s.io/v1"),
            Self::ServiceCidr => ("networking.k8s.io/v1", "write apiVersion: networking.k8s.io/v1"),
        }
    }

    fn has_namespace(self) -> bool {
        matches!(self, Self::Service | Self::EndpointSlice)
    }
}

/// Converts an object of a file, or all objects of a List. What is wrong goes to `problems`.
pub(super) fn convert(
    rules: Rules<'_>,
    manifest: &Object<Manifest>,
    problems: &mut Vec<Problem>,
) -> Vec<Outcome> {
    let at = manifest.referenced;
    let mut scope = Scope::new(rules, String::new(), problems);
    let Some(fields) = scope.object(Some(manifest), "") else { return Vec::new() };
    scope.name(|| nameless("object", fields));
    let Some(name) = scope.required_text(&fields.kind, at, "kind", "write kind: Service") else {
        return Vec::new();
    };
    if name == "List" {
        scope.name(|| nameless(name, fields));
        check_version(&mut scope, at, fields, "v1", "write apiVersion: v1");
        let items = scope.array(&fields.items, "items").unwrap_or_default();
        return items.iter().flat_map(|item| convert(rules, item, problems)).collect();
    }
    let Some(kind) = Kind::of(name) else {
        let at = fields.kind.as_ref().map_or(at, |kind| kind.referenced);
        scope.name(|| nameless(name, fields));
        scope.report(at, "kind", Fault::UnknownKind { found: name.to_owned() });
        return Vec::new();
    };
    convert_one(rules, kind, at, fields, problems).into_iter().collect()
}

/// Reports another version, and returns whether it is one: then the fields are not ours to judge.
fn check_version(
    scope: &mut Scope<'_>,
    at: Location,
    fields: &Manifest,
    expected: &'static str,
    cure: &'static str,
) -> bool {
    let found = scope.required_text(&fields.api_version, at, "apiVersion", cure);
    let Some(found) = found.filter(|found| *found != expected) else { return false };
    let at = fields.api_version.as_ref().map_or(at, |node| node.referenced);
    let found = found.to_owned();
    scope.report(at, "apiVersion", Fault::UnknownVersion { found, expected });
    true
}

fn convert_one(
    rules: Rules<'_>,
    kind: Kind,
    at: Location,
    fields: &Manifest,
    problems: &mut Vec<Problem>,
) -> Option<Outcome> {
    let before = problems.len();
    let mut scope = Scope::new(rules, kind.label().to_owned(), problems);
    let (identity, named_at) = identify(&mut scope, kind, at, fields)?;
    scope.name(|| identity.to_string());
    let (version, cure) = kind.api_version();
    // The API server leaves kind and version out of the items of a list.
    let stored = rules.strictness == Strictness::Stored;
    if !stored && check_version(&mut scope, at, fields, version, cure) {
        return None;
    }
    let mut notices = Vec::new();
    let converted = match kind {
        Kind::Service => service::convert(&mut scope, &identity, at, fields, &mut notices)
            .map(Converted::Service),
        Kind::EndpointSlice => {
            slice::convert(&mut scope, &identity, at, fields, &mut notices).map(Converted::Slice)
        }
        Kind::Node => node::convert(&mut scope, &identity, fields).map(Converted::Node),
        Kind::ServiceCidr => {
            service_cidr::convert(&mut scope, at, fields).map(Converted::ServiceCidr)
        }
    };
    let converted = converted.filter(|_| stored || problems.len() == before);
    Some(Outcome { identity, place: document::place(rules.file, named_at), converted, notices })
}

fn identify(
    scope: &mut Scope<'_>,
    kind: Kind,
    at: Location,
    fields: &Manifest,
) -> Option<(Identity, Location)> {
    const CURE: &str = "write metadata: {name: ...}";
    let Some(node) = &fields.metadata else {
        scope.report(at, "metadata", Fault::Missing { cure: CURE });
        return None;
    };
    let metadata: &Metadata = scope.object(Some(node), "metadata")?;
    let name = scope.required_text(&metadata.name, node.referenced, "metadata.name", CURE)?;
    let named_at = metadata.name.as_ref().map_or(at, |name| name.referenced);
    let namespace = scope
        .text(&metadata.namespace, "metadata.namespace")
        .filter(|namespace| !namespace.is_empty());
    let namespace = match (kind.has_namespace(), namespace) {
        (true, namespace) => namespace.unwrap_or("default"),
        (false, None) => "",
        (false, Some(_)) => {
            let at = metadata.namespace.as_ref().map_or(at, |namespace| namespace.referenced);
            scope.name(|| format!("{} {name}", kind.label()));
            let why = "an object of this kind has no namespace";
            let fault = Fault::Misplaced { why, cure: "remove it" };
            scope.refuse(at, "metadata.namespace", fault);
            ""
        }
    };
    let identity = Identity { kind, namespace: namespace.into(), name: name.into() };
    Some((identity, named_at))
}

/// Names an object that is none of ours as well as its metadata allow.
fn nameless(kind: &str, fields: &Manifest) -> String {
    let kind = kind.to_lowercase();
    let text = |node: &Option<_>| scope::text_of(node).map(str::to_owned);
    let Some(metadata) = fields.metadata.as_ref().and_then(scope::object_of) else { return kind };
    match (text(&metadata.namespace), text(&metadata.name)) {
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
        (None, Some(name)) => format!("{kind} {name}"),
        (_, None) => kind,
    }
}
