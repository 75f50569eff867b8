//! Whether the backend sees the client.

use super::*;
use crate::model::{Element, Inside, Masquerade, RuleOptions};

const POD: &str = "10.1.1.32:50000";
const OUTSIDE: &str = "172.20.0.2:50000";
const HOST: &str = "172.20.0.1:50000";

fn check(change: Change, packet: Packet, masqueraded: Option<bool>, words: &str) {
    let trace = ask(change, &packet);
    assert_eq!(says(&trace, "Masquerade"), words);
    assert_eq!(trace.masqueraded, masqueraded, "{words}");
}

fn cluster_ip(dump: &mut Dump, masquerade: Masquerade, inside: Inside) {
    put(dump, Element::ClusterIp([10, 96, 0, 10].into()));
    put(dump, Element::PodCidr("10.1.0.0/16".parse().unwrap()));
    let rules = RuleOptions { masquerade, inside, reject_unassigned: false };
    dump.table.as_mut().unwrap().rules = rules;
}

fn by_cidr(dump: &mut Dump) {
    cluster_ip(dump, Masquerade::OffCluster, Inside::Cidrs);
}

fn by_interface(dump: &mut Dump) {
    cluster_ip(dump, Masquerade::OffCluster, Inside::Interface("v-*".to_owned()));
}

#[test]
fn a_pod_is_seen_as_itself() {
    check(as_it_is, packet(POD, VIP), Some(false), "no, the backend sees 10.1.1.32");
    check(by_cidr, packet(POD, VIP), Some(false), "no, the backend sees 10.1.1.32");
}

#[test]
fn a_backend_that_dials_itself_is_masqueraded() {
    fn hairpin(dump: &mut Dump) {
        put(dump, Element::Hairpin([10, 1, 1, 11].into()));
    }
    let hairpin_yes = "yes, the backend sees an address of this node: the client is the backend itself (rule hairpin)";
    check(
        |dump| {
            hairpin(dump);
            dump.connections.push(connection("10.1.1.11:50000", VIP, WEB_A));
        },
        packet("10.1.1.11:50000", VIP),
        Some(true),
        hairpin_yes,
    );
    check(
        |dump| {
            hairpin(dump);
            dump.connections.push(connection("10.1.1.11:50000", VIP, WEB_B));
        },
        packet("10.1.1.11:50000", VIP),
        Some(false),
        "no, the backend sees 10.1.1.11",
    );
    check(
        hairpin,
        packet("10.1.1.11:50000", VIP),
        None,
        "only if the choice falls on the client itself (rule hairpin)",
    );
}

#[test]
fn frontends_for_outside_masquerade_everybody() {
    check(
        |dump| put(dump, Element::Masquerade(frontend(LB))),
        packet(OUTSIDE, LB),
        Some(true),
        "yes, the backend sees an address of this node: connections to this frontend come from anywhere, and must come back here (rule external)",
    );
}

#[test]
fn a_process_of_the_node_that_sends_from_a_vip_is_masqueraded() {
    check(
        |dump| put(dump, Element::Vip([10, 96, 0, 10].into())),
        packet("10.96.0.10:50000", VIP),
        Some(true),
        "yes, the backend sees an address of this node: a process of this node sends from an address of a Service (rule host process to vip)",
    );
}

#[test]
fn connections_to_cluster_ips_are_masqueraded_as_configured() {
    let outside = "yes, the backend sees an address of this node: the source is outside the cluster (rule cluster ip)";
    check(
        |dump| cluster_ip(dump, Masquerade::All, Inside::Unknown),
        packet(POD, VIP),
        Some(true),
        "yes, the backend sees an address of this node: all connections to cluster IPs are masqueraded (rule cluster ip)",
    );
    check(
        |dump| cluster_ip(dump, Masquerade::Needed, Inside::Cidrs),
        packet(OUTSIDE, VIP),
        Some(false),
        "no, the backend sees 172.20.0.2",
    );
    check(by_cidr, packet(OUTSIDE, VIP), Some(true), outside);
    // By its address the node is no pod either; by its interface it has none.
    check(by_cidr, packet(HOST, VIP), Some(true), outside);
    check(by_interface, packet(HOST, VIP), Some(false), "no, the backend sees 172.20.0.1");
    let from = |interface: &str, source| Packet {
        interface: Some(interface.to_owned()),
        ..packet(source, VIP)
    };
    check(by_interface, from("eth0", OUTSIDE), Some(true), outside);
    check(by_interface, from("v-client", POD), Some(false), "no, the backend sees 10.1.1.32");
    check(
        by_interface,
        packet(POD, VIP),
        None,
        "only if the source is outside the cluster; say by which interface it comes in",
    );
}
