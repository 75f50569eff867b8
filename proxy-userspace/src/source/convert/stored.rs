//! Objects as the API server stores them.

use std::{path::Path, time::SystemTime};

use serde::Deserialize;

use super::{
    Converted, Identity, Kind, Rules, Strictness, convert_one,
    scope::{Scope, object_of, text_of},
    timestamp,
};
use crate::{
    model::Notice,
    source::{
        Problem,
        manifest::{Leaf, Manifest, Metadata, Object},
    },
};

/// One object of the API server, with the fields that are used and nothing else. It is
/// deserialized from the object's JSON, whole or as an item of a list; it need not name its kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Stored(Object<Manifest>);

/// What became of a [`Stored`] object.
#[derive(Debug)]
pub struct StoredOutcome {
    /// Which object it is; `None` for one without a name, which no API server has.
    pub identity: Option<Identity>,
    /// `None` for an object without forwarding state (headless, ExternalName, another proxy's),
    /// and for one that lacks what every forwarding state needs: a cluster IP and a port, the
    /// Service of a slice.
    pub converted: Option<Converted>,
    /// When what the object tells of happened, as far as it says so.
    pub triggered_at: Option<SystemTime>,
    /// What could not be read and is left out. Source ranges are never left out so that the
    /// Service opens: then it is closed to everyone else.
    pub problems: Vec<Problem>,
    /// What an operator should know.
    pub notices: Vec<Notice>,
}

impl Stored {
    /// Returns `metadata.name`.
    pub fn name(&self) -> Option<&str> {
        self.metadata(|metadata| &metadata.name)
    }

    /// Returns `metadata.namespace`.
    pub fn namespace(&self) -> Option<&str> {
        self.metadata(|metadata| &metadata.namespace)
    }

    /// Returns `metadata.uid`.
    pub fn uid(&self) -> Option<&str> {
        self.metadata(|metadata| &metadata.uid)
    }

    /// Returns `metadata.resourceVersion`.
    pub fn resource_version(&self) -> Option<&str> {
        self.metadata(|metadata| &metadata.resource_version)
    }

    /// Converts the object, which is of this kind. `proxy_name` is the value of the label
    /// `service.kubernetes.io/service-proxy-name` that makes a Service ours; with `None` those
    /// without the label are.
    pub fn convert(&self, kind: Kind, proxy_name: Option<&str>) -> StoredOutcome {
        let mut problems = Vec::new();
        let rules = Rules { strictness: Strictness::Stored, file: Path::new(""), proxy_name };
        let mut scope = Scope::new(rules, kind.label().to_owned(), &mut problems);
        let fields = scope.object(Some(&self.0), "");
        let outcome = fields
            .and_then(|fields| convert_one(rules, kind, self.0.referenced, fields, &mut problems));
        let (identity, converted, notices) = match outcome {
            Some(outcome) => (Some(outcome.identity), outcome.converted, outcome.notices),
            None => (None, None, Vec::new()),
        };
        let triggered_at = self.triggered_at();
        StoredOutcome { identity, converted, triggered_at, problems, notices }
    }

    /// Returns when the Pods or the Service changed that an EndpointSlice was written for.
    fn triggered_at(&self) -> Option<SystemTime> {
        let metadata = object_of(&self.0)?.metadata.as_ref().and_then(object_of)?;
        let annotations = metadata.annotations.as_ref().and_then(object_of)?;
        timestamp::moment(text_of(&annotations.trigger_time)?)
    }

    fn metadata(&self, field: fn(&Metadata) -> &Option<Leaf>) -> Option<&str> {
        let metadata = object_of(&self.0)?.metadata.as_ref().and_then(object_of)?;
        text_of(field(metadata))
    }
}
