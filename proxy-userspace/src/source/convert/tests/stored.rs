//! Objects of the API server: JSON, without places, and older than its rules.

use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{read, texts};
use crate::{
    model::{Service, Sources, TrafficPolicy},
    source::{Converted, Kind, Stored, StoredOutcome},
};

fn convert(kind: Kind, object: &Value) -> StoredOutcome {
    let from_text: Stored = serde_json::from_str(&object.to_string()).unwrap();
    let from_value: Stored = serde_json::from_value(object.clone()).unwrap();
    let outcome = from_text.convert(kind, None);
    assert_eq!(from_value.convert(kind, None).converted, outcome.converted);
    outcome
}

/// A Service as in a list: it does not name its kind.
fn service(spec: Value) -> Value {
    let mut whole = json!({"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
        "type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
    for (field, value) in spec.as_object().unwrap() {
        whole[field] = value.clone();
    }
    json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": whole})
}

fn converted(object: &Value) -> (Service, Vec<String>) {
    let outcome = convert(Kind::Service, object);
    assert_eq!(outcome.identity.unwrap().to_string(), "service shop/web");
    let Some(Converted::Service(service)) = outcome.converted else { panic!("{object}") };
    (service, texts(outcome.problems))
}

#[test]
fn a_stored_service_is_the_same_as_in_a_file() {
    let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}});
    let mut object = service(
        json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "internalTrafficPolicy": "Cluster", "selector": {"app": "web"}, "ipFamilies": ["IPv4"]}),
    );
    object["status"] = status;
    object["metadata"]["managedFields"] =
        json!([{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}]);
    let (stored, problems) = converted(&object);
    assert_eq!(problems, [""; 0]);
    object["apiVersion"] = json!("v1");
    object["kind"] = json!("Service");
    let file = read(&object.to_string());
    assert_eq!(file.problems, [""; 0]);
    assert_eq!(file.converted, [Converted::Service(stored)]);
}

#[test]
fn old_spellings_of_addresses_and_ranges_are_read() {
    let mut object =
        service(json!({"clusterIP": "010.096.0.010", "clusterIPs": ["::ffff:10.96.0.10"],
        "externalIPs": ["192.000.002.007"],
        "loadBalancerSourceRanges": ["010.0.0.0/08", " 172.16.3.4/12", "::ffff:192.0.2.0/120"]}));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.010"}]}});
    let (service, problems) = converted(&object);
    assert_eq!(problems, [""; 0]);
    assert_eq!(texts(service.cluster_ips), ["10.96.0.10"]);
    assert_eq!(texts(service.external_ips), ["192.0.2.7"]);
    assert_eq!(texts(service.load_balancer_ips), ["192.0.2.10"]);
    let Sources::Only(ranges) = service.sources else { panic!("{:?}", service.sources) };
    assert_eq!(texts(ranges), ["10.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24"]);
}

#[test]
fn source_ranges_that_cannot_be_read_never_open_the_service() {
    for (ranges, read, problems) in [
        (json!(["all", "10.0.0.0/8"]), &["10.0.0.0/8"][..], 1),
        (json!(["all"]), &[], 1),
        (json!([7, null]), &[], 2),
        (json!("10.0.0.0/8"), &[], 1),
    ] {
        let (service, told) = converted(&service(json!({"loadBalancerSourceRanges": ranges})));
        let Sources::Only(sources) = service.sources else { panic!("{ranges}") };
        assert_eq!(texts(sources), read, "{ranges}");
        assert_eq!(told.len(), problems, "{told:?}");
    }
    let mut object = service(json!({}));
    let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
    for value in [json!("all"), json!(["10.0.0.0/8"])] {
        object["metadata"]["annotations"] = json!({annotation: value});
        let (service, told) = converted(&object);
        assert_eq!(service.sources, Sources::Only(Vec::new()), "{value}");
        assert_eq!(told.len(), 1);
    }
}

#[test]
fn a_field_that_cannot_be_read_takes_nothing_else_with_it() {
    let mut object = service(json!({
        "clusterIPs": ["10.96.0.10", "x"], "externalIPs": ["127.0.0.1", "192.0.2.7", 5],
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 0}, {"name": "c", "port": 82,
            "nodePort": 70000}, {"name": "d", "port": 80}, {"name": "e", "port": 84, "protocol": "X"}],
        "externalTrafficPolicy": "Nearby", "internalTrafficPolicy": "Local",
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}));
    object["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "0.0.0.0"}, {"ip": "192.0.2.8"}, {"ip": "192.0.2.9", "ipMode": "Later"}]}});
    object["metadata"]["creationTimestamp"] = json!("yesterday");
    let (service, problems) = converted(&object);
    assert_eq!(texts(service.cluster_ips), ["10.96.0.10"]);
    assert_eq!(texts(service.external_ips), ["192.0.2.7"]);
    assert_eq!(texts(service.load_balancer_ips), ["192.0.2.8"]);
    let ports: Vec<_> = service.ports.iter().map(|port| (port.port, port.node_port)).collect();
    assert_eq!(ports, [(80, None), (82, None)]);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    assert_eq!((service.affinity_secs, service.created_at), (Some(10_800), None));
    let fields: Vec<_> = problems.iter().filter_map(|problem| problem.split(": ").nth(1)).collect();
    assert_eq!(
        fields,
        [
            "spec.clusterIPs[1]",
            "spec.ports[1].port",
            "spec.ports[2].nodePort",
            "spec.ports[3].port",
            "spec.ports[4].protocol",
            "spec.externalTrafficPolicy",
            "spec.externalIPs[0]",
            "spec.externalIPs[2]",
            "status.loadBalancer.ingress[0].ip",
            "status.loadBalancer.ingress[2].ipMode",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "metadata.creationTimestamp",
        ]
    );
    assert!(problems.iter().all(|problem| problem.starts_with("service shop/web: ")));
}

#[test]
fn without_a_cluster_ip_or_a_port_there_is_nothing_to_serve() {
    for spec in [
        json!({"clusterIP": "x", "clusterIPs": ["x"]}),
        json!({"ports": [{"port": 0}]}),
        json!({"type": "Else"}),
    ] {
        let outcome = convert(Kind::Service, &service(spec));
        assert!(outcome.converted.is_none() && !outcome.problems.is_empty());
    }
}

#[test]
fn a_stored_service_that_changed_its_type_keeps_no_field_of_the_other() {
    let mut object = service(json!({"type": "ClusterIP", "ports": [{"port": 80}],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        "loadBalancerSourceRanges": ["10.0.0.0/8"], "loadBalancerIP": "192.0.2.9"}));
    object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}});
    let (service, problems) = converted(&object);
    assert_eq!(problems, [""; 0]);
    assert!(service.load_balancer_ips.is_empty());
    assert_eq!(
        (service.external_policy, service.health_check_port),
        (TrafficPolicy::Cluster, None)
    );
}

#[test]
fn in_a_cluster_the_wanted_load_balancer_ip_is_only_a_wish() {
    let (service, problems) = converted(&service(json!({"loadBalancerIP": "192.0.2.9"})));
    assert_eq!(problems, [""; 0]);
    assert!(service.load_balancer_ips.is_empty());
}

#[test]
fn the_label_of_a_proxy_decides_about_stored_services_too() {
    let mut object = service(json!({}));
    object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "passlane"});
    let stored: Stored = serde_json::from_value(object).unwrap();
    let is_served = |name| stored.convert(Kind::Service, name).converted.is_some();
    assert_eq!([None, Some("passlane"), Some("other")].map(is_served), [false, true, false]);
}

#[test]
fn a_stored_slice_loses_only_the_endpoints_that_cannot_be_read() {
    let outcome = convert(
        Kind::EndpointSlice,
        &json!({"metadata": {"name": "web-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"name": "x", "port": null}],
            "endpoints": [{"addresses": ["010.1.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.1.0"]}, {"addresses": ["fd00::1"]}, {"addresses": []}]}),
    );
    let Some(Converted::Slice(slice)) = outcome.converted else { panic!("{outcome:?}") };
    assert_eq!(texts(slice.endpoints.iter().map(|endpoint| endpoint.addr)), ["10.1.0.1"]);
    assert_eq!(slice.ports.len(), 1);
    assert_eq!(outcome.problems.len(), 3, "{:?}", outcome.problems);
}

#[test]
fn an_empty_slice_is_stored_as_null() {
    let outcome = convert(
        Kind::EndpointSlice,
        &json!({"metadata": {"name": "web-1", "namespace": "shop",
            "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": null, "endpoints": null}),
    );
    assert!(matches!(outcome.converted, Some(Converted::Slice(_))), "{outcome:?}");
    assert!(outcome.problems.is_empty());
}

#[test]
fn stored_nodes_and_ranges_are_read() {
    let node = convert(
        Kind::Node,
        &json!({"metadata": {"name": "node-a"}, "spec": {"podCIDRs": ["10.244.1.7/24", "x"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.001.10"}],
                "nodeInfo": {"bootID": "b"}}}),
    );
    let Some(Converted::Node(read)) = node.converted else { panic!("{node:?}") };
    assert_eq!(
        (texts(read.pod_cidrs), texts(read.addrs)),
        (vec!["10.244.1.0/24".to_owned()], vec!["192.168.1.10".to_owned()],)
    );
    assert_eq!(texts(&node.problems).len(), 1);
    let cidr = convert(
        Kind::ServiceCidr,
        &json!({"metadata": {"name": "main"}, "spec": {"cidrs": ["10.96.0.0/16"]}}),
    );
    let Some(Converted::ServiceCidr(cidrs)) = cidr.converted else { panic!("{cidr:?}") };
    assert_eq!(texts(cidrs), ["10.96.0.0/16"]);
}

#[test]
fn the_metadata_that_a_watch_needs_is_kept() {
    let metadata = json!({"name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7"});
    let stored: Stored = serde_json::from_value(json!({"metadata": metadata})).unwrap();
    let kept = [stored.name(), stored.namespace(), stored.uid(), stored.resource_version()];
    assert_eq!(kept, ["web", "shop", "u", "7"].map(Some));
    let bookmark: Stored = serde_json::from_str(
        r#"{"metadata": {"resourceVersion": "8", "creationTimestamp": null}}"#,
    )
    .unwrap();
    assert_eq!((bookmark.name(), bookmark.resource_version()), (None, Some("8")));
}

#[test]
fn what_is_no_object_is_a_problem_and_no_panic() {
    for text in ["[]", "7", "null", "{}", r#"{"metadata": []}"#] {
        let stored: Stored = serde_json::from_str(text).unwrap();
        let outcome = stored.convert(Kind::Service, None);
        assert!(outcome.identity.is_none() && outcome.converted.is_none(), "{text}");
        assert_eq!(outcome.problems.len(), 1, "{text}");
        assert!(outcome.problems[0].to_string().starts_with("service: "), "{text}");
    }
}

/// JSON that may or may not be what belongs where it stands.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[0-9.:/a-f]{0,12}".prop_map(Value::from),
        Just(json!("10.0.0.0/8")),
    ];
    leaf.prop_recursive(2, 12, 3, |inner| {
        let field = prop_oneof![Just("ip"), Just("clientIP"), Just("ingress"), Just("name")];
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec((field, inner), 0..3).prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_of_a_field_stops_the_rest_or_opens_what_has_source_ranges(
        ranges in any_value(),
        (external, affinity, config) in (any_value(), any_value(), any_value()),
        (policy, health, status) in (any_value(), any_value(), any_value()),
    ) {
        let mut object = service(json!({"loadBalancerSourceRanges": ranges,
            "externalIPs": external, "sessionAffinity": affinity, "sessionAffinityConfig": config,
            "externalTrafficPolicy": policy, "healthCheckNodePort": health}));
        object["status"] = json!({"loadBalancer": status});
        let (service, _) = converted(&object);
        prop_assert_eq!(texts(service.cluster_ips), ["10.96.0.10"]);
        prop_assert_eq!(service.ports.len(), 1);
        let open = ranges.is_null() || ranges.as_array().is_some_and(Vec::is_empty);
        prop_assert_eq!(service.sources == Sources::Any, open);
    }
}
