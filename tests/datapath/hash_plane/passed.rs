//! Frames that the kernel gets, untouched.

use proxy_common::{
    abi::{HashBackendFlags, HashFlowState, HashSlot, HashVlan, Uplink},
    hash::mh::Size,
    hash_reason::HashReason::{
        Asked, Cached, Fragment, New, NoBackend, NoFrontend, NoNextHop, NotOurs, Options, TooBig,
        TtlExpired, Unparsed, Unscheduled,
    },
};

use super::{
    frames::{ACK, L4, Packet, SYN, SYN_ACK},
    row::{Row, row},
    stage::{BACKEND, LOOPBACK, Side, Stage, TABLE},
};
use crate::{packets::Net, stage::jiffies_now};

const SCTP: u8 = 132;

fn tcp<A: Side>() -> Packet<A> {
    Packet::new(ACK)
}

fn udp<A: Side>() -> Packet<A> {
    Packet::new(L4::Udp)
}

/// An ICMP error about a TCP segment: the destination is unreachable.
fn error<A: Side>() -> Packet<A> {
    Packet::new(L4::Icmp { kind: if A::SUFFIX.is_empty() { 3 } else { 1 }, udp: false })
}

/// Frames that are left alone in either family.
pub(super) fn rows<A: Side>() -> Vec<Row<A>> {
    let mut rows = strangers();
    rows.extend(headers());
    rows.extend(ways());
    rows.extend(tables());
    rows.extend(asked());
    rows
}

/// Frames that are none of the hash plane's business.
fn strangers<A: Side>() -> Vec<Row<A>> {
    vec![
        row(
            "a_frame_for_another_mac_address_is_passed",
            || Packet { to_mac: [0, 0, 0, 0, 0, 2], ..tcp() },
            NotOurs,
        ),
        Row {
            stage: |stage| Ok(stage.plane.maps.remove_uplink(LOOPBACK)?),
            ..row("everything_is_passed_where_the_hash_plane_does_not_run", tcp, NotOurs)
        },
        Row {
            stage: |stage| {
                let uplink = Uplink { interface: 257, ..Uplink::default() };
                Ok(stage.plane.maps.put_uplink(uplink)?)
            },
            ..row("the_uplink_of_another_interface_is_not_taken_for_this_one", tcp, NotOurs)
        },
        row("an_unknown_vlan_is_passed", || Packet { vlan: Some(5), ..tcp() }, NotOurs),
        Row {
            stage: |stage| {
                Ok(stage.plane.maps.put_vlan(HashVlan { interface: LOOPBACK + 1, vlan: 5 })?)
            },
            ..row(
                "a_vlan_of_another_interface_is_passed",
                || Packet { vlan: Some(5), ..tcp() },
                NotOurs,
            )
        },
        Row {
            stage: |stage| {
                Ok(stage.plane.maps.put_vlan(HashVlan { interface: LOOPBACK, vlan: 5 })?)
            },
            frame: |frame| {
                frame.splice(12..12, [0x81, 0, 0, 5]);
            },
            ..row("a_second_tag_is_passed", || Packet { vlan: Some(5), ..tcp() }, NotOurs)
        },
        Row { frame: |frame| frame[13] = 0x06, ..row("arp_is_passed", tcp, NotOurs) },
        row(
            "a_packet_to_another_port_is_passed",
            || Packet { destination: (A::VIP, 81), ..tcp() },
            NoFrontend,
        ),
        row(
            "a_packet_to_another_address_is_passed",
            || Packet { destination: (A::POD, 80), ..udp() },
            NoFrontend,
        ),
    ]
}

/// Headers that are not plain.
fn headers<A: Side>() -> Vec<Row<A>> {
    vec![
        Row { frame: |frame| frame[A::PROTOCOL] = SCTP, ..row("sctp_is_passed", tcp, Unparsed) },
        Row {
            frame: |frame| frame[14] ^= 0x20,
            ..row("another_ip_version_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame[A::LENGTH] += 1,
            ..row("a_frame_shorter_than_its_header_says_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame[A::LENGTH] = 20 - frame[14] / 0x60 * 15,
            ..row("a_length_without_room_for_l4_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame.truncate(A::L4 + 12),
            ..row("a_truncated_tcp_header_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame.truncate(A::L4 - 1),
            ..row("a_truncated_ip_header_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame.truncate(14),
            ..row("a_frame_without_ip_is_passed", tcp, Unparsed)
        },
        row(
            "an_echo_request_is_the_kernels_to_answer",
            || {
                let kind = if A::SUFFIX.is_empty() { 8 } else { 128 };
                Packet::new(L4::Icmp { kind, udp: false })
            },
            Unparsed,
        ),
        Row {
            frame: |frame| frame[A::L4 + 8 + A::PROTOCOL - 14] = SCTP,
            ..row("an_icmp_error_about_sctp_is_passed", error, Unparsed)
        },
        Row {
            frame: |frame| frame[2 * A::L4 + 8 - 14 - 1 - size_of::<A>()] ^= 1,
            ..row("an_icmp_error_about_what_another_address_sent_is_passed", error, NoFrontend)
        },
        Row {
            frame: |frame| frame.truncate(2 * A::L4 - 14 + 8 + 7),
            ..row("an_icmp_error_that_is_cut_short_is_passed", error, Unparsed)
        },
        row(
            "a_client_of_the_port_that_ipvs_does_not_schedule_is_passed",
            || Packet { source: (A::client(5), 20), ..Packet::new(SYN) },
            Unscheduled,
        ),
    ]
}

/// Packets that cannot take the way to their backend. No flow is written down for them; one that is known
/// lives on, as it does in IPVS.
fn ways<A: Side>() -> Vec<Row<A>> {
    vec![
        row(
            "a_packet_whose_ttl_ends_here_is_passed",
            || Packet { ttl: 1, ..Packet::new(SYN) },
            TtlExpired,
        ),
        Row {
            flow: Some(|flow| flow.seen = flow.seen.wrapping_sub(50)),
            ..row(
                "a_packet_of_a_known_flow_whose_ttl_ends_here_renews_it",
                || Packet { ttl: 1, ..tcp() },
                TtlExpired,
            )
        },
        row("a_ttl_of_zero_is_passed", || Packet { ttl: 0, ..tcp() }, TtlExpired),
        Row {
            backend: |to| to.mtu = Packet::<A>::new(ACK).len() as u32 - 1,
            ..row("a_packet_larger_than_the_way_out_is_passed", tcp, TooBig)
        },
        Row {
            backend: |to| to.flags &= !HashBackendFlags::REACHABLE,
            ..row("a_packet_whose_next_hop_is_not_known_is_passed", tcp, NoNextHop)
        },
        Row {
            flow: Some(|_| {}),
            backend: |to| to.flags &= !HashBackendFlags::REACHABLE,
            ..row("so_is_one_that_ends_a_known_flow", || Packet::new(FIN_OF_FLOW), NoNextHop)
        },
        Row {
            backend: |to| to.until = jiffies_now(),
            ..row("a_next_hop_that_was_not_confirmed_in_time_is_not_used", tcp, NoNextHop)
        },
        Row {
            backend: |to| to.method = 9,
            ..row("a_method_that_is_not_known_is_not_used", tcp, NoNextHop)
        },
        Row {
            backend: |to| to.flags &= !HashBackendFlags::REACHABLE,
            ..row("an_icmp_error_whose_next_hop_is_not_known_is_passed", error, NoNextHop)
        },
    ]
}

const FIN_OF_FLOW: L4 = super::frames::FIN;

/// Slots that name nobody who takes new flows.
fn tables<A: Side>() -> Vec<Row<A>> {
    vec![
        Row {
            backend: |to| to.flags &= !HashBackendFlags::TAKES_NEW,
            ..row("a_drained_backend_gets_no_new_flows", || Packet::new(SYN), NoBackend)
        },
        Row {
            backend: |to| to.flags &= !HashBackendFlags::TAKES_NEW,
            flow: Some(|_| {}),
            ..row("a_drained_backend_keeps_its_flows", tcp, Cached)
        },
        Row {
            backend: |to| to.flags &= !HashBackendFlags::TAKES_NEW,
            stage: |stage| stage.put_frontend::<A>(8),
            ..row("a_fallback_to_nobody_is_the_kernels", || Packet::new(SYN), NoBackend)
        },
        Row {
            backend: |to| to.generation = 0,
            ..row("a_backend_that_is_gone_gets_nothing", tcp, NoBackend)
        },
        Row {
            backend: |to| to.generation = 0,
            flow: Some(|flow| flow.generation = 0),
            ..row("an_entry_without_generation_does_not_hold", tcp, NoBackend)
        },
        Row {
            stage: |stage| put_slots(stage, 0),
            ..row("a_slot_of_nobody_is_the_kernels", || Packet::new(SYN), NoBackend)
        },
        Row {
            stage: |stage| Ok(stage.plane.maps.remove_table(TABLE)?),
            ..row("a_frontend_without_a_table_is_the_kernels", || Packet::new(SYN), NoBackend)
        },
    ]
}

/// Gives all slots one value.
fn put_slots(stage: &mut Stage, slot: u32) -> anyhow::Result<()> {
    let slots = vec![slot; Size::DEFAULT.slots() as usize];
    Ok(stage.plane.maps.put_table(TABLE, &slots)?)
}

/// Slots that had another backend not long ago.
fn asked<A: Side>() -> Vec<Row<A>> {
    fn changed(stage: &mut Stage) -> anyhow::Result<()> {
        put_slots(stage, BACKEND | HashSlot::ASK)
    }
    vec![
        Row {
            stage: changed,
            ..row("a_syn_to_a_slot_that_changed_is_carried", || Packet::new(SYN), New)
        },
        Row {
            stage: changed,
            ..row("the_kernel_is_asked_about_a_segment_to_a_slot_that_changed", tcp, Asked)
        },
        Row { stage: changed, ..row("and_about_a_datagram", udp, Asked) },
        Row {
            stage: changed,
            ..row("and_about_a_syn_that_answers_one", || Packet::new(SYN_ACK), Asked)
        },
        Row { stage: changed, ..row("and_about_an_icmp_error", error, Asked) },
        Row {
            stage: changed,
            flow: Some(|_| {}),
            ..row("nobody_is_asked_about_a_known_flow", tcp, Cached)
        },
        Row {
            stage: changed,
            flow: Some(|flow| flow.state = HashFlowState::CLOSING),
            ..row("nor_about_the_last_packets_of_one", tcp, Cached)
        },
    ]
}

/// What only IPv4 has.
pub(super) fn of_ipv4() -> Vec<Row<[u8; 4]>> {
    vec![
        Row {
            frame: |frame| frame[20] = 0x20,
            ..row("the_first_fragment_is_the_kernels", tcp, Fragment)
        },
        Row {
            frame: |frame| frame[21] = 0x04,
            ..row("a_later_fragment_is_the_kernels", tcp, Fragment)
        },
        Row { frame: |frame| frame[14] = 0x46, ..row("ip_options_are_the_kernels", tcp, Options) },
        Row {
            frame: |frame| frame[14] = 0x44,
            ..row("a_header_shorter_than_any_is_passed", tcp, Unparsed)
        },
        Row {
            frame: |frame| frame[A4::L4 + 8] = 0x46,
            ..row("an_icmp_error_about_a_packet_with_options_is_passed", error, Options)
        },
        Row {
            frame: |frame| frame[A4::L4 + 8 + 6] = 0x20,
            ..row("an_icmp_error_about_a_fragment_is_passed", error, Fragment)
        },
        row(
            "an_icmp_redirect_is_passed",
            || Packet::new(L4::Icmp { kind: 5, udp: false }),
            Unparsed,
        ),
    ]
}

/// The family of IPv4, whose offsets are needed.
type A4 = [u8; 4];

/// What only IPv6 has.
pub(super) fn of_ipv6() -> Vec<Row<[u8; 16]>> {
    vec![
        Row {
            frame: |frame| frame[20] = 44,
            ..row("a_fragment_header_is_the_kernels", tcp, Fragment)
        },
        Row {
            frame: |frame| frame[20] = 0,
            ..row("hop_by_hop_options_are_the_kernels", tcp, Options)
        },
        Row {
            frame: |frame| frame[20] = 60,
            ..row("destination_options_are_the_kernels", tcp, Options)
        },
        Row {
            frame: |frame| frame[20] = 43,
            ..row("a_routing_header_is_the_kernels", tcp, Options)
        },
        Row {
            frame: |frame| frame[54 + 8 + 6] = 44,
            ..row("an_icmp_error_about_a_fragment_is_passed", error, Fragment)
        },
    ]
}
