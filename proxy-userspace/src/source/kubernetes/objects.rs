//! The watched kinds, as kube's watcher wants them: only the fields that are used are kept.

use std::{borrow::Cow, fmt::Debug, marker::PhantomData};

use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::{Resource, api::ObjectMeta, runtime::watcher};
use serde::{Deserialize, Deserializer};

use super::super::convert::{Kind, Stored};

/// All watched kinds.
pub(super) const KINDS: [Kind; 4] =
    [Kind::Service, Kind::EndpointSlice, Kind::Node, Kind::ServiceCidr];

/// Which objects of a kind the proxy wants, by the labels that every proxy of Kubernetes obeys.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The node that this agent serves.
    pub(super) node: String,
    /// The value of `service.kubernetes.io/service-proxy-name` of our Services; `None` means
    /// those without the label.
    pub(super) proxy_name: Option<String>,
}

impl Wanted {
    /// Returns the selectors of a kind.
    pub(super) fn selector(&self, kind: Kind) -> watcher::Config {
        const HEADLESS: &str = "!service.kubernetes.io/headless";
        const PROXY: &str = "service.kubernetes.io/service-proxy-name";
        let config = watcher::Config::default();
        // Most headless Services lack the label: the field tells them all.
        let service = |proxy: String| {
            let config = watcher::Config::default().fields("spec.clusterIP!=None");
            config.labels(&format!("{HEADLESS},{proxy}"))
        };
        match (kind, &self.proxy_name) {
            (Kind::Service, None) => service(format!("!{PROXY}")),
            (Kind::Service, Some(name)) => service(format!("{PROXY}={name}")),
            (Kind::EndpointSlice, _) => config.labels(HEADLESS),
            (Kind::Node, _) => config.fields(&format!("metadata.name={}", self.node)),
            (Kind::ServiceCidr, _) => config,
        }
    }
}

/// A watched kind, as a type.
pub(super) trait Watched: Clone + Debug + Send + Sync + 'static {
    /// Of namespaces or of the cluster.
    type Scope;
    /// The kind.
    const KIND: Kind;
    /// Its name in manifests.
    const NAME: &'static str;
    /// Its group; empty for the core group.
    const GROUP: &'static str;
    /// Its name in paths.
    const PLURAL: &'static str;
}

/// Declares a watched kind.
macro_rules! watched {
    ($name:ident = $manifest:literal, $scope:ty, $group:literal, $plural:literal) => {
        #[derive(Clone, Copy, Debug)]
        pub(super) struct $name;

        impl Watched for $name {
            type Scope = $scope;
            const KIND: Kind = Kind::$name;
            const NAME: &'static str = $manifest;
            const GROUP: &'static str = $group;
            const PLURAL: &'static str = $plural;
        }
    };
}

watched!(Service = "Service", NamespaceResourceScope, "", "services");
watched!(
    EndpointSlice = "EndpointSlice",
    NamespaceResourceScope,
    "discovery.k8s.io",
    "endpointslices"
);
watched!(Node = "Node", ClusterResourceScope, "", "nodes");
watched!(ServiceCidr = "ServiceCIDR", ClusterResourceScope, "networking.k8s.io", "servicecidrs");

/// Returns the name of a kind as RBAC rules and `kubectl` have it.
pub(super) fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => Service::PLURAL,
        Kind::EndpointSlice => "endpointslices.discovery.k8s.io",
        Kind::Node => Node::PLURAL,
        Kind::ServiceCidr => "servicecidrs.networking.k8s.io",
    }
}

/// An object of a watched kind.
#[derive(Clone, Debug)]
pub(super) struct Object<W> {
    pub(super) stored: Stored,
    /// Name, namespace and resource version; the watcher goes on from the last.
    meta: ObjectMeta,
    kind: PhantomData<W>,
}

impl<'de, W> Deserialize<'de> for Object<W> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Stored::deserialize(deserializer)?;
        let meta = ObjectMeta {
            name: stored.name().map(str::to_owned),
            namespace: stored.namespace().map(str::to_owned),
            resource_version: stored.resource_version().map(str::to_owned),
            ..ObjectMeta::default()
        };
        Ok(Self { stored, meta, kind: PhantomData })
    }
}

impl<W: Watched> Resource for Object<W> {
    type DynamicType = ();
    type Scope = W::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Cow::Borrowed(W::NAME)
    }

    fn group((): &()) -> Cow<'_, str> {
        Cow::Borrowed(W::GROUP)
    }

    fn version((): &()) -> Cow<'_, str> {
        Cow::Borrowed("v1")
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cow::Borrowed(W::PLURAL)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
