//! A made-up cluster of plain Services, as one manifest.

use std::net::Ipv4Addr;

use proxy_tests::size::Size;
use serde_json::{Value, json};

/// The most endpoints that a size has.
const STRIDE: u32 = 100;

/// The cluster IP of a Service.
pub(crate) fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 112, 0, 0)) + service)
}

/// An endpoint of a Service.
pub(crate) fn endpoint(service: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 160, 0, 0)) + service * STRIDE + number)
}

/// Services and slices as one list.
pub(crate) fn manifest(size: Size) -> String {
    let items = (0..size.services).flat_map(|number| [service(number), slice(number, size)]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() }).to_string()
}

fn service(number: u32) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("s{number}"), "namespace": "many" },
        "spec": {
            "clusterIP": cluster_ip(number),
            "ports": [{ "name": "http", "port": 80 }],
        },
    })
}

fn slice(number: u32, size: Size) -> Value {
    let endpoints =
        (0..size.endpoints).map(|each| json!({ "addresses": [endpoint(number, each)] }));
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("s{number}-1"),
            "namespace": "many",
            "labels": { "kubernetes.io/service-name": format!("s{number}") },
        },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}
