//! Frames that go to a backend.

use proxy_common::{
    abi::{HashBackend, HashMethod, HashVlan},
    hash_reason::HashReason::{Cached, IcmpError, New},
};

use super::{
    frames::{ACK, FIN, L4, Packet, RST, SYN},
    row::{Row, row},
    stage::{LOOPBACK, Side},
};

/// Tags of what comes in and what goes out.
const IN_TAG: u16 = 0x2005;
const OUT_TAG: u16 = 0x600a;

/// Turns a backend into one behind a tunnel over IPv4.
pub(super) fn tunnel4(backend: &mut HashBackend, method: u8) {
    backend.method = method;
    backend.family = 4;
    backend.port = 6080;
    backend.addrs[..8].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 9]);
    backend.ethernet[12..].copy_from_slice(&[8, 0]);
}

/// The same over IPv6.
pub(super) fn tunnel6(backend: &mut HashBackend, method: u8) {
    backend.method = method;
    backend.family = 6;
    backend.port = 6080;
    for (at, byte) in backend.addrs.iter_mut().enumerate() {
        *byte = 0x20 + at as u8;
    }
    backend.ethernet[12..].copy_from_slice(&[0x86, 0xdd]);
}

fn tcp<A: Side>() -> Packet<A> {
    Packet::new(ACK)
}

fn udp<A: Side>() -> Packet<A> {
    Packet::new(L4::Udp)
}

/// A packet that wants something of the network.
fn marked<A: Side>() -> Packet<A> {
    Packet { ds: 0xb9, dont_fragment: false, ttl: 3, ..udp() }
}

fn tagged<A: Side>() -> Packet<A> {
    Packet { vlan: Some(IN_TAG), ..tcp() }
}

/// A packet that met congestion on its way.
fn congested<A: Side>() -> Packet<A> {
    Packet { ds: 0x2b, ..tcp() }
}

/// Frames that are carried, by direct routing and by each tunnel.
pub(super) fn rows<A: Side>() -> Vec<Row<A>> {
    let mut rows = plain();
    rows.extend(tunnels());
    rows.extend(vlans());
    rows.extend(errors());
    rows
}

fn plain<A: Side>() -> Vec<Row<A>> {
    vec![
        row("a_syn_goes_to_the_next_hop_and_makes_an_entry", || Packet::new(SYN), New),
        row("a_segment_without_entry_goes_where_its_client_hashes_to", tcp, New),
        row("a_datagram_goes_to_the_next_hop_and_makes_an_entry", udp, New),
        Row {
            flow: Some(|_| {}),
            ..row("a_segment_of_a_known_flow_goes_to_its_backend", tcp, Cached)
        },
        Row {
            flow: Some(|_| {}),
            ..row("a_datagram_of_a_known_flow_goes_to_its_backend", udp, Cached)
        },
        Row {
            flow: Some(|_| {}),
            ..row("a_fin_of_a_known_flow_goes_to_its_backend", || Packet::new(FIN), Cached)
        },
        Row {
            flow: Some(|_| {}),
            ..row("a_rst_of_a_known_flow_goes_to_its_backend", || Packet::new(RST), Cached)
        },
        Row {
            backend: |to| to.interface = LOOPBACK,
            ..row("what_goes_out_where_it_came_in_is_transmitted", tcp, New)
        },
        row("padding_stays_behind_the_packet", || Packet { padding: 9, ..tcp() }, New),
        row("the_last_but_one_hop_is_enough", || Packet { ttl: 2, ..tcp() }, New),
        row(
            "a_datagram_without_payload_is_large_enough",
            || Packet { payload: Vec::new(), ..udp() },
            New,
        ),
        row(
            "all_bits_of_services_and_congestion_stay",
            || Packet { ds: 0xff, dont_fragment: false, ..tcp() },
            New,
        ),
        Row {
            backend: |to| to.mtu = Packet::<A>::new(ACK).len() as u32,
            ..row("a_packet_as_large_as_the_way_out_is_carried", tcp, New)
        },
    ]
}

fn tunnels<A: Side>() -> Vec<Row<A>> {
    vec![
        Row {
            backend: |to| tunnel4(to, HashMethod::IPIP),
            ..row("ipip_over_ipv4_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel4(to, HashMethod::GUE),
            ..row("gue_over_ipv4_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel4(to, HashMethod::GRE),
            ..row("gre_over_ipv4_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::IPIP),
            ..row("ipip_over_ipv6_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::GUE),
            ..row("gue_over_ipv6_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::GRE),
            ..row("gre_over_ipv6_wraps_a_segment", tcp, New)
        },
        Row {
            backend: |to| tunnel4(to, HashMethod::IPIP),
            flow: Some(|_| {}),
            ..row("an_outer_header_of_ipv4_has_services_ttl_and_df_of_the_packet", marked, Cached)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::IPIP),
            flow: Some(|_| {}),
            ..row("an_outer_header_of_ipv6_has_services_and_ttl_of_the_packet", marked, Cached)
        },
        Row {
            backend: |to| tunnel4(to, HashMethod::GUE),
            ..row("congestion_stays_inside_a_tunnel_over_ipv4", congested, New)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::GUE),
            ..row("congestion_stays_inside_a_tunnel_over_ipv6", congested, New)
        },
    ]
}

fn vlans<A: Side>() -> Vec<Row<A>> {
    fn known(stage: &mut super::stage::Stage) -> anyhow::Result<()> {
        let vlan = u32::from(IN_TAG & 0xfff);
        Ok(stage.plane.maps.put_vlan(HashVlan { interface: LOOPBACK, vlan })?)
    }
    vec![
        Row { stage: known, ..row("the_tag_of_a_vlan_is_taken_off", tagged, New) },
        Row {
            backend: |to| to.vlan = OUT_TAG,
            ..row("a_tag_is_put_on_for_a_way_out_that_wants_one", tcp, New)
        },
        Row {
            stage: known,
            backend: |to| to.vlan = OUT_TAG,
            ..row("a_tag_takes_the_place_of_another", tagged, New)
        },
        Row {
            stage: known,
            backend: |to| tunnel4(to, HashMethod::GUE),
            ..row("a_tunnel_takes_the_place_of_a_tag", tagged, New)
        },
        Row {
            backend: |to| {
                tunnel6(to, HashMethod::GUE);
                to.vlan = OUT_TAG;
            },
            ..row("a_tunnel_goes_out_by_a_vlan", tcp, New)
        },
        Row {
            stage: known,
            backend: |to| {
                tunnel4(to, HashMethod::GRE);
                to.vlan = OUT_TAG;
            },
            ..row("a_tunnel_leads_from_vlan_to_vlan", tagged, New)
        },
    ]
}

/// The first type of ICMP error of a family: the destination is unreachable.
fn error<A: Side>(udp: bool) -> Packet<A> {
    let kind = if A::SUFFIX.is_empty() { 3 } else { 1 };
    Packet::new(L4::Icmp { kind, udp })
}

/// ICMP errors about answers.
fn errors<A: Side>() -> Vec<Row<A>> {
    vec![
        row("an_icmp_error_goes_where_the_client_hashes_to", || error(false), IcmpError),
        row("an_icmp_error_about_a_datagram_goes_there_too", || error(true), IcmpError),
        Row {
            flow: Some(|_| {}),
            backend: |to| to.flags &= !1,
            ..row("an_icmp_error_goes_to_the_backend_of_its_flow", || error(false), IcmpError)
        },
        Row {
            backend: |to| tunnel6(to, HashMethod::GUE),
            ..row("an_icmp_error_goes_through_the_tunnel", || error(false), IcmpError)
        },
        row(
            "a_time_exceeded_goes_where_the_client_hashes_to",
            || {
                let kind = if A::SUFFIX.is_empty() { 11 } else { 3 };
                Packet::new(L4::Icmp { kind, udp: true })
            },
            IcmpError,
        ),
    ]
}
