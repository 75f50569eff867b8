//! The fields of Kubernetes objects that are used, and nothing else.
//!
//! Every value keeps its position and any type: a value of a wrong type is found by `convert`,
//! which can name the object and the field, and goes on to find the next one. The only errors of
//! parsing are those of syntax.
//!
//! The same types read what the API server sends: `Spanned` takes any deserializer, and one that
//! knows no positions, such as `serde_json`, leaves [`serde_saphyr::Location::UNKNOWN`].

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        IgnoredAny, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};
use serde_saphyr::Spanned;

use super::Found;

/// A value that should be a scalar.
pub(super) type Leaf = Spanned<Loose<IgnoredAny, IgnoredAny>>;
/// A value that should be an object with the fields of `T`.
pub(super) type Object<T> = Spanned<Loose<T, IgnoredAny>>;
/// A value that should be a list of `T`.
pub(super) type Array<T> = Spanned<Loose<IgnoredAny, Vec<T>>>;

/// A value of any type: objects are read as `M`, lists as `S`.
#[derive(Clone, Debug)]
pub(super) enum Loose<M, S> {
    Scalar(Found),
    Object(M),
    Array(S),
}

/// Any of the supported kinds: their fields do not collide.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) api_version: Option<Leaf>,
    pub(super) kind: Option<Leaf>,
    pub(super) metadata: Option<Object<Metadata>>,
    pub(super) spec: Option<Object<Spec>>,
    pub(super) status: Option<Object<Status>>,
    /// Of an EndpointSlice.
    pub(super) address_type: Option<Leaf>,
    /// Of an EndpointSlice.
    pub(super) endpoints: Option<Array<Object<EndpointFields>>>,
    /// Of an EndpointSlice.
    pub(super) ports: Option<Array<Object<PortFields>>>,
    /// Of a List.
    pub(super) items: Option<Array<Object<Manifest>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Option<Leaf>,
    pub(super) namespace: Option<Leaf>,
    pub(super) uid: Option<Leaf>,
    pub(super) resource_version: Option<Leaf>,
    pub(super) creation_timestamp: Option<Leaf>,
    pub(super) deletion_timestamp: Option<Leaf>,
    pub(super) labels: Option<Object<Labels>>,
    pub(super) annotations: Option<Object<Annotations>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Labels {
    #[serde(rename = "kubernetes.io/service-name")]
    pub(super) service_name: Option<Leaf>,
    #[serde(rename = "service.kubernetes.io/service-proxy-name")]
    pub(super) proxy_name: Option<Leaf>,
    #[serde(rename = "service.kubernetes.io/headless")]
    pub(super) headless: Option<Leaf>,
    #[serde(rename = "topology.kubernetes.io/zone")]
    pub(super) zone: Option<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Annotations {
    #[serde(rename = "passlane.io/scheduler")]
    pub(super) scheduler: Option<Leaf>,
    #[serde(rename = "passlane.io/fast-path")]
    pub(super) fast_path: Option<Leaf>,
    #[serde(rename = "passlane.io/weights")]
    pub(super) weights: Option<Leaf>,
    #[serde(rename = "passlane.io/forwarding")]
    pub(super) forwarding: Option<Leaf>,
    #[serde(rename = "passlane.io/connection-limits")]
    pub(super) limits: Option<Leaf>,
    #[serde(rename = "passlane.io/health-check")]
    pub(super) health_check: Option<Leaf>,
    #[serde(rename = "passlane.io/health-quorum")]
    pub(super) health_quorum: Option<Leaf>,
    #[serde(rename = "passlane.io/on-failure")]
    pub(super) on_failure: Option<Leaf>,
    #[serde(rename = "passlane.io/sorry-server")]
    pub(super) sorry_server: Option<Leaf>,
    #[serde(rename = "service.beta.kubernetes.io/load-balancer-source-ranges")]
    pub(super) source_ranges: Option<Leaf>,
    #[serde(rename = "endpoints.kubernetes.io/last-change-trigger-time")]
    pub(super) trigger_time: Option<Leaf>,
}

/// `spec` of any kind that has one: their fields do not collide either.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(rename = "type")]
    pub(super) kind: Option<Leaf>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<Leaf>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Option<Array<Leaf>>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: Option<Array<Leaf>>,
    #[serde(rename = "loadBalancerIP")]
    pub(super) load_balancer_ip: Option<Leaf>,
    pub(super) load_balancer_source_ranges: Option<Array<Leaf>>,
    pub(super) ports: Option<Array<Object<PortFields>>>,
    pub(super) internal_traffic_policy: Option<Leaf>,
    pub(super) external_traffic_policy: Option<Leaf>,
    pub(super) session_affinity: Option<Leaf>,
    pub(super) session_affinity_config: Option<Object<SessionAffinityConfig>>,
    pub(super) health_check_node_port: Option<Leaf>,
    /// Of a Node, as the two after it.
    #[serde(rename = "podCIDR")]
    pub(super) pod_cidr: Option<Leaf>,
    #[serde(rename = "podCIDRs")]
    pub(super) pod_cidrs: Option<Array<Leaf>>,
    pub(super) taints: Option<Array<Object<Taint>>>,
    /// Of a ServiceCIDR.
    pub(super) cidrs: Option<Array<Leaf>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct SessionAffinityConfig {
    #[serde(rename = "clientIP")]
    pub(super) client_ip: Option<Object<ClientIpConfig>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClientIpConfig {
    pub(super) timeout_seconds: Option<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Taint {
    pub(super) key: Option<Leaf>,
}

/// `status` of any kind that has one.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// Of a Service.
    pub(super) load_balancer: Option<Object<LoadBalancerStatus>>,
    /// Of a Node.
    pub(super) addresses: Option<Array<Object<NodeAddress>>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct LoadBalancerStatus {
    pub(super) ingress: Option<Array<Object<Ingress>>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ingress {
    pub(super) ip: Option<Leaf>,
    pub(super) hostname: Option<Leaf>,
    pub(super) ip_mode: Option<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: Option<Leaf>,
    pub(super) address: Option<Leaf>,
}

/// A port of a Service or of an EndpointSlice; the latter has no `nodePort`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortFields {
    pub(super) name: Option<Leaf>,
    pub(super) protocol: Option<Leaf>,
    pub(super) port: Option<Leaf>,
    pub(super) node_port: Option<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointFields {
    pub(super) addresses: Option<Array<Leaf>>,
    pub(super) conditions: Option<Object<Conditions>>,
    pub(super) node_name: Option<Leaf>,
    pub(super) zone: Option<Leaf>,
    pub(super) hints: Option<Object<Hints>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hints {
    pub(super) for_zones: Option<Array<Object<Hint>>>,
    pub(super) for_nodes: Option<Array<Object<Hint>>>,
}

/// A zone or a node that a hint names.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Hint {
    pub(super) name: Option<Leaf>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Conditions {
    pub(super) ready: Option<Leaf>,
    pub(super) serving: Option<Leaf>,
    pub(super) terminating: Option<Leaf>,
}

impl<M, S> Loose<M, S> {
    /// Returns the value for a message.
    pub(super) fn found(&self) -> Found {
        match self {
            Self::Scalar(found) => found.clone(),
            Self::Object(_) => Found::Object,
            Self::Array(_) => Found::Array,
        }
    }
}

impl<'de, M: Deserialize<'de>, S: Deserialize<'de>> Deserialize<'de> for Loose<M, S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<M, S>(PhantomData<(M, S)>);

impl<'de, M: Deserialize<'de>, S: Deserialize<'de>> Visitor<'de> for LooseVisitor<M, S> {
    type Value = Loose<M, S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(Loose::Object)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        S::deserialize(SeqAccessDeserializer::new(seq)).map(Loose::Array)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Text(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Text(text)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Number(number.into())))
    }

    fn visit_i128<E>(self, number: i128) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Number(number)))
    }

    fn visit_u128<E>(self, number: u128) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Number(number.try_into().unwrap_or(i128::MAX))))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Fraction(number)))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Flag(flag)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Null))
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Loose::Scalar(Found::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}
