//! Fields of Services.

use super::{problems, problems_of, read, read_for, service, service_of, service_text, texts};
use crate::model::{ServiceKind, Sources, TrafficPolicy};

const ONLY_LOAD_BALANCER: &str = "only a service of type LoadBalancer has a load-balancer address; \
                                  write type: LoadBalancer or remove it";

fn with_status(kind: &str, spec: &str, ingress: &str) -> String {
    service_text(kind, spec, "") + &format!("status: {{loadBalancer: {{ingress: [{ingress}]}}}}\n")
}

fn load_balancer_ips(text: &str) -> Vec<String> {
    texts(service_of(text).load_balancer_ips)
}

fn ranges(sources: &Sources) -> Vec<String> {
    match sources {
        Sources::Any => vec!["any".to_owned()],
        Sources::Only(ranges) => texts(ranges),
    }
}

#[test]
fn what_is_not_written_has_the_defaults_of_the_api_server() {
    let service = service("ClusterIP", "");
    assert_eq!(service.kind, ServiceKind::ClusterIP);
    assert!(service.external_ips.is_empty() && service.load_balancer_ips.is_empty());
    assert_eq!(service.sources, Sources::Any);
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
    assert_eq!((service.affinity_secs, service.health_check_port), (None, None));
}

#[test]
fn empty_texts_are_what_is_not_written() {
    let spec = ", externalTrafficPolicy: '', internalTrafficPolicy: '', sessionAffinity: '', \
                loadBalancerIP: ''";
    assert_eq!(service("ClusterIP", spec), service("ClusterIP", ""));
    assert_eq!(service("LoadBalancer", spec), service("LoadBalancer", ""));
}

#[test]
fn a_service_has_one_cluster_ip_of_each_family() {
    let dual = service("ClusterIP", ", clusterIPs: [10.96.0.10, 'fd00::10']");
    assert_eq!(texts(dual.cluster_ips), ["10.96.0.10", "fd00::10"]);
    assert_eq!(
        problems("ClusterIP", ", clusterIPs: [10.96.0.10, 'fd00::10', 10.96.0.11]"),
        [
            "spec.clusterIPs[2]: a service has one cluster IP of each family at most; write the others \
          as externalIPs"
        ]
    );
}

#[test]
fn external_ips_are_read_of_both_families_and_once_each() {
    let service = service("ClusterIP", ", externalIPs: [192.0.2.7, '2001:db8::7', 192.0.2.7]");
    assert_eq!(texts(service.external_ips), ["192.0.2.7", "2001:db8::7"]);
}

#[test]
fn external_ips_that_belong_to_the_node_are_refused() {
    for addr in ["127.0.0.1", "0.0.0.0", "169.254.169.254", "'fe80::1'", "224.0.0.1", "192.0.2"] {
        let problems = problems("NodePort", &format!(", externalIPs: [192.0.2.7, {addr}]"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("spec.externalIPs[1]: "), "{problems:?}");
    }
}

#[test]
fn a_service_has_the_load_balancer_ips_of_its_status() {
    let ingress = "{ip: 192.0.2.7}, {ip: '2001:db8::7', ipMode: VIP}, {ip: 192.0.2.7}, \
                   {hostname: lb.example.com, ip: 192.0.2.8}";
    let text = with_status("LoadBalancer", "", ingress);
    assert_eq!(load_balancer_ips(&text), ["192.0.2.7", "2001:db8::7", "192.0.2.8"]);
}

#[test]
fn a_load_balancer_that_is_a_proxy_or_a_name_is_not_captured() {
    let ingress = "{ip: 192.0.2.7, ipMode: Proxy}, {hostname: lb.example.com}, {}";
    assert_eq!(load_balancer_ips(&with_status("LoadBalancer", "", ingress)), [""; 0]);
}

#[test]
fn the_wanted_load_balancer_ip_stands_in_while_the_status_has_none() {
    let spec = ", loadBalancerIP: 192.0.2.9";
    assert_eq!(load_balancer_ips(&service_text("LoadBalancer", spec, "")), ["192.0.2.9"]);
    assert_eq!(load_balancer_ips(&with_status("LoadBalancer", spec, "")), ["192.0.2.9"]);
    let pending = service_text("LoadBalancer", spec, "") + "status: {loadBalancer: {}}\n";
    assert_eq!(load_balancer_ips(&pending), ["192.0.2.9"]);
    let allocated = with_status("LoadBalancer", spec, "{ip: 192.0.2.7}");
    assert_eq!(load_balancer_ips(&allocated), ["192.0.2.7"]);
    let proxied = with_status("LoadBalancer", spec, "{ip: 192.0.2.9, ipMode: Proxy}");
    assert_eq!(load_balancer_ips(&proxied), [""; 0]);
}

#[test]
fn load_balancer_ips_of_other_types_are_refused() {
    for kind in ["ClusterIP", "NodePort"] {
        let text = with_status(kind, ", loadBalancerIP: 192.0.2.9", "{ip: 192.0.2.7}");
        assert_eq!(
            problems_of(&text),
            [
                format!("status.loadBalancer.ingress[0]: {ONLY_LOAD_BALANCER}"),
                format!("spec.loadBalancerIP: {ONLY_LOAD_BALANCER}"),
            ]
        );
    }
}

#[test]
fn load_balancer_ingress_is_checked() {
    for (ingress, problem) in [
        (
            "{ip: 127.0.0.1}",
            "ip: 127.0.0.1 is a loopback address; write an address of a single host",
        ),
        ("{ipMode: VIP}", "ipMode: an ipMode belongs to an ip; write the ip, or remove the ipMode"),
        ("{ip: 192.0.2.7, ipMode: vip}", "ipMode: unknown value \"vip\"; write VIP or Proxy"),
        ("{hostname: 192.0.2.7}", "hostname: an address where a host name belongs; write it as ip"),
    ] {
        let problems = problems_of(&with_status("LoadBalancer", "", ingress));
        assert_eq!(problems, [format!("status.loadBalancer.ingress[0].{problem}")]);
    }
    let text = service_text("LoadBalancer", ", loadBalancerIP: 192.0.02.9", "");
    assert_eq!(
        problems_of(&text),
        ["spec.loadBalancerIP: \"192.0.02.9\" has leading zeros; write 192.0.2.9"]
    );
}

#[test]
fn a_load_balancer_without_node_ports_is_read() {
    let text = service_text("LoadBalancer", "", "").replace(", nodePort: 30080", "");
    assert_eq!(service_of(&text).ports[0].node_port, None);
}

#[test]
fn source_ranges_are_read_with_space_around_them() {
    let spec = ", loadBalancerSourceRanges: [' 10.0.0.0/8 ', 'fd00::/8', 10.0.0.0/8]";
    assert_eq!(ranges(&service("LoadBalancer", spec).sources), ["10.0.0.0/8", "fd00::/8"]);
}

#[test]
fn source_ranges_come_from_the_old_annotation_where_the_field_has_none() {
    let annotated = |spec, ranges| {
        let annotation = "service.beta.kubernetes.io/load-balancer-source-ranges";
        let rest = format!(", annotations: {{{annotation}: '{ranges}'}}");
        service_of(&service_text("LoadBalancer", spec, &rest)).sources
    };
    let both = "10.0.0.0/8, 192.0.2.0/24";
    assert_eq!(ranges(&annotated("", both)), ["10.0.0.0/8", "192.0.2.0/24"]);
    let empty = ", loadBalancerSourceRanges: []";
    assert_eq!(ranges(&annotated(empty, both)), ["10.0.0.0/8", "192.0.2.0/24"]);
    let field = ", loadBalancerSourceRanges: [172.16.0.0/12]";
    assert_eq!(ranges(&annotated(field, both)), ["172.16.0.0/12"]);
    assert_eq!(annotated("", " "), Sources::Any);
}

#[test]
fn source_ranges_that_are_none_and_those_of_other_types_are_refused() {
    let problem =
        |range| problems("LoadBalancer", &format!(", loadBalancerSourceRanges: [{range}]"));
    let field = "spec.loadBalancerSourceRanges[0]";
    let example = "write one such as 10.0.0.0/8 or fd00::/8";
    for text in ["10.0.0.1", "10.0.0.0/33", "all"] {
        assert_eq!(
            problem(text),
            [format!("{field}: {text:?} is not an address range; {example}")]
        );
    }
    assert_eq!(
        problem("10.1.2.3/8"),
        [format!("{field}: \"10.1.2.3/8\" can be read in several ways; write 10.0.0.0/8")]
    );
    assert_eq!(
        problems("NodePort", ", loadBalancerSourceRanges: [10.0.0.0/8]"),
        ["spec.loadBalancerSourceRanges: only a service of type LoadBalancer has source ranges; \
          write type: LoadBalancer or remove it"]
    );
}

#[test]
fn traffic_policies_are_read() {
    let spec = ", internalTrafficPolicy: Local, externalTrafficPolicy: Local";
    for service in [service("NodePort", spec), service("LoadBalancer", spec)] {
        assert_eq!(service.internal_policy, TrafficPolicy::Local);
        assert_eq!(service.external_policy, TrafficPolicy::Local);
    }
    let service = service("ClusterIP", ", internalTrafficPolicy: Local");
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    assert_eq!(service.external_policy, TrafficPolicy::Cluster);
}

#[test]
fn an_external_policy_needs_a_way_in_from_outside() {
    let policy = ", externalTrafficPolicy: Local";
    assert_eq!(
        problems("ClusterIP", policy),
        ["spec.externalTrafficPolicy: only a service of type NodePort or LoadBalancer, or with \
          externalIPs, has it; remove it"]
    );
    let service = service("ClusterIP", &format!("{policy}, externalIPs: [192.0.2.7]"));
    assert_eq!(service.external_policy, TrafficPolicy::Local);
}

#[test]
fn unknown_policies_are_refused() {
    for field in ["internalTrafficPolicy", "externalTrafficPolicy"] {
        assert_eq!(
            problems("NodePort", &format!(", {field}: local")),
            [format!("spec.{field}: unknown value \"local\"; write Cluster or Local")]
        );
    }
}

#[test]
fn session_affinity_has_the_timeout_that_is_written_or_three_hours() {
    let timeout = |config: &str| service("ClusterIP", config).affinity_secs;
    assert_eq!(timeout(", sessionAffinity: None"), None);
    assert_eq!(timeout(", sessionAffinity: ClientIP"), Some(10_800));
    for (config, secs) in [
        ("{}", 10_800),
        ("{clientIP: {}}", 10_800),
        ("{clientIP: {timeoutSeconds: 1}}", 1),
        ("{clientIP: {timeoutSeconds: 86400}}", 86_400),
    ] {
        let config = format!(", sessionAffinity: ClientIP, sessionAffinityConfig: {config}");
        assert_eq!(timeout(&config), Some(secs), "{config}");
    }
}

#[test]
fn session_affinity_out_of_range_unknown_or_without_its_type_is_refused() {
    let field = "spec.sessionAffinityConfig";
    for secs in [0, -1, 86_401] {
        let config = format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {secs}}}}}");
        assert_eq!(
            problems("ClusterIP", &format!(", sessionAffinity: ClientIP, {config}")),
            [format!(
                "{field}.clientIP.timeoutSeconds: {secs} is out of range; write a number from 1 to \
                 86400"
            )]
        );
    }
    for affinity in ["", ", sessionAffinity: None"] {
        assert_eq!(
            problems(
                "ClusterIP",
                &format!("{affinity}, sessionAffinityConfig: {{clientIP: {{}}}}")
            ),
            [format!(
                "{field}: only a service with sessionAffinity ClientIP has it; write \
                 sessionAffinity: ClientIP or remove it"
            )]
        );
    }
    assert_eq!(
        problems("ClusterIP", ", sessionAffinity: clientIP, sessionAffinityConfig: {}"),
        ["spec.sessionAffinity: unknown value \"clientIP\"; write None or ClientIP"]
    );
}

#[test]
fn a_health_check_port_belongs_to_a_load_balancer_with_local_policy() {
    let both = ", externalTrafficPolicy: Local, healthCheckNodePort: 32000";
    assert_eq!(service("LoadBalancer", both).health_check_port, Some(32_000));
    let without = service("LoadBalancer", ", externalTrafficPolicy: Local");
    assert_eq!(without.health_check_port, None, "nobody allocates one here");
    let misplaced = ["spec.healthCheckNodePort: only a service of type LoadBalancer with \
                      externalTrafficPolicy Local has it; remove it"];
    assert_eq!(problems("NodePort", both), misplaced);
    assert_eq!(problems("LoadBalancer", ", healthCheckNodePort: 32000"), misplaced);
    assert_eq!(
        problems("LoadBalancer", ", externalTrafficPolicy: Local, healthCheckNodePort: 65536"),
        ["spec.healthCheckNodePort: 65536 is not a port; write a number from 1 to 65535"]
    );
}

#[test]
fn only_a_cluster_ip_service_can_be_headless() {
    let headless = |kind| service_text(kind, "", "").replace("10.96.0.10", "None");
    let read = read(&headless("ClusterIP"));
    assert!(read.converted.is_empty() && read.problems.is_empty());
    for kind in ["NodePort", "LoadBalancer"] {
        assert_eq!(
            problems_of(&headless(kind)),
            [
                "spec.clusterIP: only a service of type ClusterIP can be headless; write a free address"
            ]
        );
    }
}

#[test]
fn the_second_of_two_equal_ports_is_told_by_its_place_in_the_manifest() {
    let text = service_text("ClusterIP", "", "")
        .replace("{port: 80}", "{name: a, port: 0}, {name: b, port: 80}, {name: b, port: 81}");
    let problems = problems_of(&text);
    assert!(problems.contains(
        &"spec.ports[2].name: the same name as spec.ports[1]; write another one".to_owned()
    ));
}

#[test]
fn services_of_other_proxies_and_headless_ones_are_skipped() {
    let labelled = |label: &str| service_text("ClusterIP", "", &format!(", labels: {{{label}}}"));
    let other = labelled("service.kubernetes.io/service-proxy-name: other");
    let own = labelled("service.kubernetes.io/service-proxy-name: passlane");
    let headless = labelled("service.kubernetes.io/headless: ''");
    let plain = service_text("ClusterIP", "", "");
    let is_served = |name, text: &str| {
        let read = read_for(name, text);
        assert!(read.problems.is_empty(), "{:?}", read.problems);
        !read.converted.is_empty()
    };
    let named = Some("passlane");
    let served = |name| [&other, &own, &headless, &plain].map(|text| is_served(name, text));
    assert_eq!(served(None), [false, false, false, true]);
    assert_eq!(served(named), [false, true, false, false]);
    let both = own.replace("labels: {", "labels: {service.kubernetes.io/headless: '', ");
    assert!(!is_served(named, &both));
}
