//! Fields of EndpointSlices.

use super::{problems_of, read, slice_of, texts};

fn text(address_type: &str, rest: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {address_type}\n\
         metadata: {{name: web-1, namespace: shop, labels: {{kubernetes.io/service-name: web}}}}\n\
         endpoints: [{endpoints}]\n{rest}"
    )
}

#[test]
fn hints_are_read() {
    let slice = slice_of(&text(
        "IPv4",
        "",
        "{addresses: [10.1.0.1], zone: a, nodeName: node-a, \
          hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: node-a}]}}, \
         {addresses: [10.1.0.2], hints: {}}, {addresses: [10.1.0.3]}",
    ));
    let [hinted, empty, plain] = &slice.endpoints[..] else { panic!("{slice:?}") };
    assert_eq!(
        (texts(&hinted.zone_hints), texts(&hinted.node_hints)),
        (vec!["a".to_owned(), "b".to_owned()], vec!["node-a".to_owned()],)
    );
    for endpoint in [empty, plain] {
        assert!(endpoint.zone_hints.is_empty() && endpoint.node_hints.is_empty());
    }
}

#[test]
fn hints_without_a_name_are_refused() {
    for (hints, problem) in [
        ("forZones: [{}]", "forZones[0].name: missing; write the name"),
        ("forNodes: [{name: ''}]", "forNodes[0].name: missing; write the name"),
        ("forNodes: [a]", "forNodes[0]: the string \"a\" where an object belongs; write an object"),
        ("forZones: a", "forZones: the string \"a\" where a list belongs; write a list"),
    ] {
        let endpoints = format!("{{addresses: [10.1.0.1], hints: {{{hints}}}}}");
        assert_eq!(
            problems_of(&text("IPv4", "", &endpoints)),
            [format!("endpoints[0].hints.{problem}")]
        );
    }
}

#[test]
fn ipv6_slices_are_read() {
    let slice = slice_of(&text("IPv6", "ports: [{port: 8080}]\n", "{addresses: ['fd00:1::1']}"));
    assert_eq!(slice.endpoints[0].addr.to_string(), "fd00:1::1");
    assert_eq!(
        problems_of(&text("IPv6", "", "{addresses: [10.1.0.1]}")),
        ["endpoints[0].addresses[0]: 10.1.0.1 is not of addressType IPv6; put it into a slice of \
          its own type"]
    );
}

#[test]
fn ports_without_a_number_are_left_out() {
    let ports = "ports: [{name: all, port: null}, {name: any}, {name: web, port: 8080}]\n";
    let slice = slice_of(&text("IPv4", ports, ""));
    assert_eq!(slice.ports.iter().map(|port| port.port).collect::<Vec<_>>(), [8080]);
    assert!(slice_of(&text("IPv4", "ports: null\n", "")).ports.is_empty());
}

#[test]
fn addresses_on_the_local_link_are_refused() {
    for (address_type, addr) in [("IPv4", "169.254.169.254"), ("IPv6", "'fe80::1'")] {
        let problems = problems_of(&text(address_type, "", &format!("{{addresses: [{addr}]}}")));
        assert!(problems[0].contains("is a link-local address"), "{problems:?}");
    }
}

#[test]
fn slices_of_headless_services_are_skipped() {
    let headless =
        text("IPv4", "", "").replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    let read = read(&headless);
    assert!(read.converted.is_empty() && read.problems.is_empty() && read.notices.is_empty());
}

#[test]
fn fields_of_older_versions_are_ignored() {
    let endpoints = "{addresses: [10.1.0.1], topology: {kubernetes.io/hostname: a}, \
                      deprecatedTopology: [1]}";
    assert_eq!(
        slice_of(&text("IPv4", "", endpoints)),
        slice_of(&text("IPv4", "", "{addresses: [10.1.0.1]}"))
    );
}
