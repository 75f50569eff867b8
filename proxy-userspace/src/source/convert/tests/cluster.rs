//! Nodes and ServiceCIDRs.

use super::{Converted, problems_of, read, texts};
use crate::model::Node;

const NODE: &str = "apiVersion: v1\nkind: Node\n";
const CIDR: &str = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: main}\n";

fn node(rest: &str) -> Node {
    let mut read = read(&format!("{NODE}{rest}"));
    assert!(read.problems.is_empty(), "{rest}: {:?}", read.problems);
    match read.converted.pop() {
        Some(Converted::Node(node)) => node,
        other => panic!("{rest}: {other:?}"),
    }
}

#[test]
fn a_node_is_read() {
    let node = node(
        "metadata: {name: node-a, labels: {topology.kubernetes.io/zone: a}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, 'fd00:244:1::/64']}
status:
  addresses:
    - {type: Hostname, address: node-a}
    - {type: InternalIP, address: 192.168.1.10}
    - {type: ExternalIP, address: 192.0.2.7}
    - {type: InternalIP, address: 'fd00:1::10'}
    - {type: InternalIP, address: 192.168.1.11}
    - {type: InternalIP, address: 192.168.1.10}
",
    );
    assert_eq!(
        (node.name.as_str(), node.zone.as_deref(), node.leaving),
        ("node-a", Some("a"), false)
    );
    assert_eq!(texts(node.pod_cidrs), ["10.244.1.0/24", "fd00:244:1::/64"]);
    assert_eq!(texts(node.addrs), ["192.168.1.10", "fd00:1::10", "192.168.1.11"]);
}

#[test]
fn a_node_needs_nothing_but_a_name() {
    assert_eq!(
        node("metadata: {name: node-a}\n"),
        Node { name: "node-a".to_owned(), ..Node::default() }
    );
}

#[test]
fn the_single_pod_cidr_of_old_is_read() {
    let node = node("metadata: {name: node-a}\nspec: {podCIDR: 10.244.1.0/24}\n");
    assert_eq!(texts(node.pod_cidrs), ["10.244.1.0/24"]);
}

#[test]
fn a_node_that_is_being_deleted_is_leaving() {
    let metadata = "metadata: {name: node-a}\n";
    let deleted = "metadata: {name: node-a, deletionTimestamp: '2026-01-31T12:00:00Z'}\n";
    assert!(node(deleted).leaving);
    let taints = |key| {
        node(&format!(
            "{metadata}spec: {{taints: [{{key: a}}, {{key: {key}, effect: NoSchedule}}]}}\n"
        ))
    };
    assert!(taints("ToBeDeletedByClusterAutoscaler").leaving);
    assert!(!taints("node.kubernetes.io/unschedulable").leaving);
}

#[test]
fn what_is_wrong_with_a_node_is_told() {
    let problems = problems_of(&format!(
        "{NODE}metadata: {{name: node-a, namespace: shop}}
spec: {{podCIDR: 10.244.1.0/24, podCIDRs: [10.244.2.0/24, 10.244.3.1/24, x]}}
status:
  addresses: [{{type: InternalIP, address: 127.0.0.1}}, {{type: InternalIP}}, {{type: InternalIP, address: a}}]
"
    ));
    assert_eq!(
        problems,
        [
            "metadata.namespace: an object of this kind has no namespace; remove it",
            "status.addresses[0].address: 127.0.0.1 is a loopback address; write an address of a \
             single host",
            "status.addresses[1].address: missing; write the node's address",
            "status.addresses[2].address: \"a\" is not an IP address; write one such as 10.96.0.10 \
             or fd00::10",
            "spec.podCIDRs[0]: 10.244.2.0/24 is not the podCIDR 10.244.1.0/24; write 10.244.1.0/24 \
             first",
            "spec.podCIDRs[1]: \"10.244.3.1/24\" can be read in several ways; write 10.244.3.0/24",
            "spec.podCIDRs[2]: \"x\" is not an address range; write one such as 10.0.0.0/8 or \
             fd00::/8",
        ]
    );
}

#[test]
fn a_service_cidr_is_read() {
    let read = read(&format!("{CIDR}spec: {{cidrs: [10.96.0.0/16, 'fd00:96::/112']}}\n"));
    assert!(read.problems.is_empty(), "{:?}", read.problems);
    let [Converted::ServiceCidr(cidrs)] = &read.converted[..] else {
        panic!("{:?}", read.converted)
    };
    assert_eq!(texts(cidrs), ["10.96.0.0/16", "fd00:96::/112"]);
}

#[test]
fn what_is_wrong_with_a_service_cidr_is_told() {
    let missing = "missing; write spec: {cidrs: [...]}";
    for (spec, problem) in [
        ("", format!("spec: {missing}")),
        ("spec: {}\n", format!("spec.cidrs: {missing}")),
        ("spec: {cidrs: []}\n", format!("spec.cidrs: {missing}")),
        (
            "spec: {cidrs: [10.96.0.0/16, 10.97.0.0/16]}\n",
            "spec.cidrs[1]: a servicecidr has one range of each family at most; put it into a \
             servicecidr of its own"
                .to_owned(),
        ),
        (
            "spec: {cidrs: [10.96.0.1/16]}\n",
            "spec.cidrs[0]: \"10.96.0.1/16\" can be read in several ways; write 10.96.0.0/16"
                .to_owned(),
        ),
    ] {
        assert_eq!(problems_of(&format!("{CIDR}{spec}")), [problem]);
    }
}
