//! Manifests to model values, with every problem named.

mod address;
mod scope;
mod service;
mod slice;
mod timestamp;

use std::{fmt, path::Path};

use serde_saphyr::Location;

use self::scope::Scope;
use super::{
    Fault, Place, Problem, document,
    manifest::{Manifest, Metadata, Object},
};
use crate::model::{EndpointSlice, Notice, Service};

/// The supported kinds of objects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Service,
    EndpointSlice,
}

/// What makes an object unique.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Identity {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// An object with forwarding state.
pub(super) enum Converted {
    Service(Service),
    Slice(EndpointSlice),
}

/// An object that could be named.
pub(super) struct Outcome {
    pub(super) identity: Identity,
    /// Where its name is.
    pub(super) place: Place,
    /// `None` for an object without forwarding state, and for one with problems.
    pub(super) converted: Option<Converted>,
    pub(super) notices: Vec<Notice>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.label(), self.namespace, self.name)
    }
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::EndpointSlice => "endpointslice",
        }
    }

    /// Returns the supported `apiVersion`, and what to do when there is none.
    fn api_version(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "write apiVersion: v1"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "write apiVersion: discovery.k8s.io/v1"),
        }
    }
}

/// Converts an object, or all objects of a List. What is wrong goes to `problems`.
pub(super) fn convert(
    file: &Path,
    manifest: &Object<Manifest>,
    problems: &mut Vec<Problem>,
) -> Vec<Outcome> {
    let at = manifest.referenced;
    let mut scope = Scope::new(file, String::new(), problems);
    let Some(fields) = scope.object(Some(manifest), "") else { return Vec::new() };
    scope.name(|| nameless("object", fields));
    let Some(kind) = scope.required_text(&fields.kind, at, "kind", "write kind: Service") else {
        return Vec::new();
    };
    match kind {
        "List" => {
            scope.name(|| nameless(kind, fields));
            check_version(&mut scope, at, fields, "v1", "write apiVersion: v1");
            let items = scope.array(&fields.items, "items");
            items.iter().flat_map(|item| convert(file, item, problems)).collect()
        }
        "Service" => convert_one(file, Kind::Service, at, fields, problems),
        "EndpointSlice" => convert_one(file, Kind::EndpointSlice, at, fields, problems),
        other => {
            let at = fields.kind.as_ref().map_or(at, |kind| kind.referenced);
            let found = other.to_owned();
            scope.name(|| nameless(other, fields));
            scope.report(at, "kind", Fault::UnknownKind { found });
            Vec::new()
        }
    }
}

fn check_version(
    scope: &mut Scope<'_>,
    at: Location,
    fields: &Manifest,
    expected: &'static str,
    cure: &'static str,
) {
    let Some(found) = scope.required_text(&fields.api_version, at, "apiVersion", cure) else {
        return;
    };
    if found != expected {
        let at = fields.api_version.as_ref().map_or(at, |node| node.referenced);
        let found = found.to_owned();
        scope.report(at, "apiVersion", Fault::UnknownVersion { found, expected });
    }
}

fn convert_one(
    file: &Path,
    kind: Kind,
    at: Location,
    fields: &Manifest,
    problems: &mut Vec<Problem>,
) -> Vec<Outcome> {
    let before = problems.len();
    let mut scope = Scope::new(file, kind.label().to_owned(), problems);
    let Some((identity, named_at)) = identify(&mut scope, kind, at, fields) else {
        return Vec::new();
    };
    scope.name(|| identity.to_string());
    let (version, cure) = kind.api_version();
    check_version(&mut scope, at, fields, version, cure);
    let mut notices = Vec::new();
    let converted = match kind {
        Kind::Service => service::convert(&mut scope, &identity, at, fields, &mut notices)
            .map(Converted::Service),
        Kind::EndpointSlice => {
            slice::convert(&mut scope, &identity, at, fields, &mut notices).map(Converted::Slice)
        }
    };
    let converted = converted.filter(|_| problems.len() == before);
    vec![Outcome { identity, place: document::place(file, named_at), converted, notices }]
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
        .filter(|namespace| !namespace.is_empty())
        .unwrap_or("default");
    let identity = Identity { kind, namespace: namespace.to_owned(), name: name.to_owned() };
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
