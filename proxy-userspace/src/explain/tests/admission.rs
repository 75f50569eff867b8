//! Which Service, and whether a new connection is let in.

use super::{super::Verdict, *};
use crate::model::{Element, Inside, RuleOptions};

const OTHER: &str = "10.1.1.32:50000";
const OUTSIDE: &str = "172.20.0.2:50000";
const HOST: &str = "172.20.0.1:50000";
/// Where sources inside are sent that dial the load-balancer IP.
const SHADOW: &str = "10.96.0.10:65535";

struct Row {
    name: &'static str,
    change: Change,
    packet: Packet,
    verdict: Verdict,
    topic: &'static str,
    words: &'static str,
}

fn row(name: &'static str, packet: Packet, verdict: Verdict) -> Row {
    Row { name, change: as_it_is, packet, verdict, topic: "Admission", words: "" }
}

fn check(rows: Vec<Row>) {
    for Row { name, change, packet, verdict, topic, words } in rows {
        let trace = ask(change, &packet);
        assert_eq!(says(&trace, topic), words, "{name}");
        assert_eq!(trace.verdict, verdict, "{name}");
        let goes = verdict == Verdict::Forwarded;
        assert_eq!(trace.plane.is_some(), goes, "{name}: {trace:#?}");
        assert_eq!(trace.backend.is_some() || !trace.candidates.is_empty(), goes, "{name}");
    }
}

fn udp(source: &str, destination: &str) -> Packet {
    Packet::parse("udp", source, destination).unwrap()
}

fn by(inside: Inside) -> RuleOptions {
    RuleOptions { inside, ..RuleOptions::default() }
}

/// The load-balancer IP is of policy Local: sources inside are sent to the cluster IP.
fn split(dump: &mut Dump) {
    let vip = frontend(VIP);
    put(dump, Element::Inside(frontend(LB), vip.addr, vip.port));
    put(dump, Element::PodCidr("10.1.0.0/16".parse().unwrap()));
    dump.table.as_mut().unwrap().rules = by(Inside::Cidrs);
}

fn split_by_interface(dump: &mut Dump) {
    split(dump);
    dump.table.as_mut().unwrap().rules = by(Inside::Interface("v-*".to_owned()));
}

fn ranged(dump: &mut Dump) {
    put(dump, Element::Ranged(frontend(LB)));
    put(dump, Element::RangedHost(frontend(LB)));
    put(dump, Element::Source(frontend(LB), "198.51.100.0/24".parse().unwrap()));
    put(dump, Element::InterimSource(frontend(LB), "192.0.2.0/24".parse().unwrap()));
}

#[test]
fn what_no_service_has_is_left_alone_or_refused() {
    check(vec![
        Row {
            topic: "Frontend",
            words: "none: 192.0.2.7:443/TCP is no frontend of a Service",
            ..row("elsewhere", packet(OTHER, "192.0.2.7:443"), Verdict::NotService)
        },
        Row {
            topic: "Path",
            words: "the kernel routes it as any other packet",
            ..row("the way elsewhere", packet(OTHER, "192.0.2.7:443"), Verdict::NotService)
        },
        Row {
            change: |dump| put(dump, Element::Vip([10, 96, 0, 10].into())),
            words: "refused (TCP reset): 10.96.0.10 is an address of Services, and none has port 81/TCP",
            ..row("a port of a VIP", packet(OTHER, "10.96.0.10:81"), Verdict::Refused)
        },
        Row {
            change: |dump| put(dump, Element::Vip([10, 96, 0, 10].into())),
            words: "refused (ICMP port unreachable): 10.96.0.10 is an address of Services, and none has port 80/UDP",
            ..row("another protocol", udp(OTHER, VIP), Verdict::Refused)
        },
        Row {
            change: |dump| {
                put(dump, Element::ServiceCidr("10.96.0.0/12".parse().unwrap()));
                dump.table.as_mut().unwrap().rules.reject_unassigned = true;
            },
            words: "refused (TCP reset): no Service has this address of 10.96.0.0/12",
            ..row("an address nobody has", packet(OTHER, "10.96.7.7:80"), Verdict::Refused)
        },
        Row {
            change: |dump| put(dump, Element::ServiceCidr("10.96.0.0/12".parse().unwrap())),
            topic: "Frontend",
            words: "none: 10.96.7.7:80/TCP is no frontend of a Service",
            ..row("the same, not asked for", packet(OTHER, "10.96.7.7:80"), Verdict::NotService)
        },
        Row {
            change: |dump| put(dump, Element::Reject(frontend("10.96.0.11:80"))),
            words: "refused (TCP reset): the Service has no endpoint that could serve",
            ..row("guarded before it is live", packet(OTHER, "10.96.0.11:80"), Verdict::Refused)
        },
        Row {
            change: |dump| put(dump, Element::Drop(frontend("10.96.0.11:80"))),
            words: "dropped: the traffic policy is Local and no endpoint of this node serves; others elsewhere do",
            ..row("dropped before it is live", packet(OTHER, "10.96.0.11:80"), Verdict::Dropped)
        },
    ]);
}

#[test]
fn a_virtual_server_of_others_is_said_to_be_theirs() {
    check(vec![Row {
        change: |dump| dump.servers[0].service = None,
        topic: "Frontend",
        words: "10.96.0.10:80/TCP, a virtual server that somebody else made",
        ..row("foreign", packet(OTHER, VIP), Verdict::Forwarded)
    }]);
}

#[test]
fn a_connection_that_is_there_is_not_judged_again() {
    check(vec![Row {
        change: |dump| {
            put(dump, Element::Reject(frontend(VIP)));
            put(dump, Element::Ranged(frontend(VIP)));
        },
        words: "the connection was let in when it began",
        ..row("established", packet(CLIENT, VIP), Verdict::Forwarded)
    }]);
}

#[test]
fn source_ranges_let_in_whom_they_name() {
    check(vec![
        Row {
            change: ranged,
            words: "dropped: 172.20.0.2 is in none of the Service's source ranges (198.51.100.0/24, 192.0.2.0/24)",
            ..row("outside the ranges", packet(OUTSIDE, LB), Verdict::Dropped)
        },
        Row {
            change: |dump| put(dump, Element::Ranged(frontend(LB))),
            words: "dropped: 172.20.0.2 is in none of the Service's source ranges (nobody of this family)",
            ..row("no range", packet(OUTSIDE, LB), Verdict::Dropped)
        },
        Row {
            change: ranged,
            words: "served",
            ..row("in a range", packet("198.51.100.4:1", LB), Verdict::Forwarded)
        },
        Row {
            change: ranged,
            words: "served",
            ..row("in an interim range", packet("192.0.2.4:1", LB), Verdict::Forwarded)
        },
        Row {
            change: ranged,
            words: "dropped: the Service names source ranges, and none has an address of this node",
            ..row("a process of the node", packet(HOST, LB), Verdict::Dropped)
        },
        Row {
            change: ranged,
            words: "served",
            ..row("another frontend", packet(OUTSIDE, VIP), Verdict::Forwarded)
        },
    ]);
}

#[test]
fn sources_inside_the_cluster_get_all_endpoints() {
    let by_interface = |name: &str, source| {
        let interface = Some(name.to_owned());
        Packet { interface, ..packet(source, LB) }
    };
    let redirected =
        "served at 10.96.0.10:80/TCP, where sources inside the cluster get all endpoints";
    check(vec![
        Row {
            change: split,
            words: redirected,
            ..row("a pod", packet(OTHER, LB), Verdict::Forwarded)
        },
        Row {
            change: split,
            words: "served",
            ..row("outside", packet(OUTSIDE, LB), Verdict::Forwarded)
        },
        Row {
            change: split,
            words: redirected,
            ..row("the node", packet(HOST, LB), Verdict::Forwarded)
        },
        Row {
            change: split_by_interface,
            words: redirected,
            ..row("a pod's interface", by_interface("v-client", OTHER), Verdict::Forwarded)
        },
        Row {
            change: split_by_interface,
            words: "served",
            ..row("the uplink", by_interface("eth0", OUTSIDE), Verdict::Forwarded)
        },
        Row {
            change: |dump| {
                split(dump);
                dump.table.as_mut().unwrap().rules = by(Inside::Interface("v-client".to_owned()));
            },
            words: redirected,
            ..row("that interface", by_interface("v-client", OTHER), Verdict::Forwarded)
        },
        Row {
            change: split_by_interface,
            words: "served at 203.0.113.9:80/TCP, unless the source is inside the cluster: then at 10.96.0.10:80/TCP; say by which interface it comes in",
            ..row("an interface that is not said", packet(OTHER, LB), Verdict::Forwarded)
        },
        Row {
            change: |dump| {
                split(dump);
                put(dump, Element::Drop(frontend(VIP)));
            },
            words: "dropped: the traffic policy is Local and no endpoint of this node serves; others elsewhere do",
            ..row("sent where nobody serves", packet(OTHER, LB), Verdict::Dropped)
        },
    ]);
}

/// Both policies are Local, so the endpoints of all nodes are at a port of their own.
#[test]
fn the_port_for_sources_inside_is_reached_by_redirection_only() {
    fn shadow(dump: &mut Dump) {
        split(dump);
        let shadow = frontend(SHADOW);
        let table = dump.table.as_mut().unwrap();
        table.elements = vec![
            Element::Inside(frontend(LB), shadow.addr, shadow.port),
            Element::PodCidr("10.1.0.0/16".parse().unwrap()),
            Element::Shadow(shadow),
        ];
        dump.servers.push(server(SHADOW, Some("default/web:http"), vec![target(WEB_B, 1, 0, 0)]));
    }
    check(vec![
        Row {
            change: shadow,
            words: "served at 10.96.0.10:65535/TCP, where sources inside the cluster get all endpoints",
            ..row("redirected", packet(OTHER, LB), Verdict::Forwarded)
        },
        Row {
            change: shadow,
            words: "refused (TCP reset): this port is only for what is sent there from another address of the Service",
            ..row("dialled", packet(OTHER, SHADOW), Verdict::Refused)
        },
        Row {
            change: |dump| {
                shadow(dump);
                dump.servers.pop();
            },
            topic: "Backend",
            words: "none: IPVS has no virtual server 10.96.0.10:65535/TCP",
            ..row("redirected to nowhere", packet(OTHER, LB), Verdict::Refused)
        },
        Row {
            change: |dump| {
                shadow(dump);
                dump.connections.push(connection(OTHER, SHADOW, WEB_B));
            },
            topic: "Backend",
            words: "10.1.1.12:8080, because IPVS has this connection (ESTABLISHED, expires in 899 s without a packet on its path)",
            ..row("connected", packet(OTHER, LB), Verdict::Forwarded)
        },
    ]);
}

#[test]
fn frontends_without_endpoints_refuse_or_drop() {
    check(vec![
        Row {
            change: |dump| put(dump, Element::Reject(frontend(VIP))),
            words: "refused (TCP reset): the Service has no endpoint that could serve",
            ..row("none anywhere", packet(OTHER, VIP), Verdict::Refused)
        },
        Row {
            change: |dump| put(dump, Element::Drop(frontend(VIP))),
            words: "dropped: the traffic policy is Local and no endpoint of this node serves; others elsewhere do",
            ..row("none here", packet(OTHER, VIP), Verdict::Dropped)
        },
        Row { words: "served", ..row("some", packet(OTHER, VIP), Verdict::Forwarded) },
    ]);
}
