//! The table: what `tc_in` does with a packet, given the flow map.

use anyhow::{Context, ensure};
use proxy_common::{
    abi::{Flow, FlowFlags, FlowKey, FlowState},
    reason::Reason,
};
use proxy_userspace::kernel::bpf::Hook;
use proxy_userspace::model::Protocol;

use crate::{
    fuzz::random_packets,
    packets::{ACK, FIN, L4, Net, Plain, RST, SYN, difference},
    stage::{self, Stage, entry, key, translated},
};

pub(crate) const NEXT: i32 = -1;
pub(crate) const REDIRECT: i32 = 7;

pub(crate) type Case = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// One packet against one entry.
struct Row<A> {
    name: &'static str,
    packet: fn() -> Plain<A>,
    /// Changes the active entry that fits the packet.
    entry: fn(&mut Flow<A>),
    /// Changes the frame before it goes in.
    frame: fn(&mut Vec<u8>),
    reason: Reason,
    /// State of the entry afterwards; 0 when it is gone.
    state: u32,
}

fn nothing<A>(_: &mut Flow<A>) {}
fn as_it_is(_: &mut Vec<u8>) {}
pub(crate) fn tcp<A: Net>() -> Plain<A> {
    Plain::request(ACK)
}
pub(crate) fn udp<A: Net>() -> Plain<A> {
    Plain::request(L4::Udp)
}

const ACTIVE: u32 = FlowState::ACTIVE;

/// A TCP packet of the flow against its active entry.
fn row<A: Net>(name: &'static str, reason: Reason, state: u32) -> Row<A> {
    Row { name, packet: tcp, entry: nothing, frame: as_it_is, reason, state }
}

/// Packets that the fast path takes, and states that keep them from it.
fn by_state<A: Net>() -> Vec<Row<A>> {
    let active = ACTIVE;
    vec![
        row("an_established_tcp_packet_is_rewritten_and_redirected", Reason::Hit, active),
        Row {
            packet: udp,
            ..row("an_established_udp_packet_is_rewritten_and_redirected", Reason::Hit, active)
        },
        Row {
            packet: udp,
            frame: |frame| frame[udp_check::<A>()].fill(0),
            ..row("a_udp_packet_without_checksum_keeps_none", Reason::Hit, active)
        },
        Row {
            entry: |flow| flow.transform.flags = FlowFlags::PEER,
            ..row("a_flow_to_a_peer_is_redirected_too", Reason::Hit, active)
        },
        Row {
            entry: |flow| flow.state = FlowState::LEARNING,
            ..row("a_flow_with_one_direction_known_is_slow", Reason::Learning, FlowState::LEARNING)
        },
        Row {
            entry: |flow| flow.state = FlowState::CLOSING,
            ..row("a_closing_flow_is_slow", Reason::Closing, FlowState::CLOSING)
        },
        Row {
            packet: || Plain::request(FIN),
            ..row("a_fin_is_slow_and_closes_the_flow", Reason::FinRst, FlowState::CLOSING)
        },
        Row {
            packet: || Plain::request(RST),
            ..row("a_rst_is_slow_and_closes_the_flow", Reason::FinRst, FlowState::CLOSING)
        },
        Row {
            packet: || Plain::request(SYN),
            ..row("a_syn_is_slow_and_drops_the_entry", Reason::Syn, 0)
        },
    ]
}

/// Entries that hold no more, or need renewal.
fn by_lease<A: Net>() -> Vec<Row<A>> {
    let active = ACTIVE;
    vec![
        Row {
            entry: |flow| flow.epoch = 9,
            ..row("an_entry_of_another_epoch_is_stale", Reason::StaleEpoch, active)
        },
        Row {
            entry: |flow| flow.generation = 9,
            ..row("an_entry_of_another_generation_is_stale", Reason::StaleGeneration, active)
        },
        Row {
            entry: |flow| flow.renewed_at = flow.renewed_at.wrapping_sub(1_000_000),
            ..row("an_entry_past_its_hard_lease_is_slow", Reason::LeaseEnded, active)
        },
        Row {
            packet: || Plain { payload: Vec::new(), ..tcp() },
            entry: past_soft_lease,
            ..row("past_the_soft_lease_a_pure_ack_is_elected", Reason::Elected, active)
        },
        Row {
            entry: past_soft_lease,
            ..row("just_past_the_soft_lease_payload_stays_fast", Reason::Hit, active)
        },
        Row {
            packet: || Plain { payload: Vec::new(), ..tcp() },
            entry: |flow| {
                past_soft_lease(flow);
                flow.elected_at = stage::jiffies_now();
            },
            ..row("one_packet_a_period_is_elected", Reason::Hit, active)
        },
    ]
}

/// Packets that only the kernel can treat.
fn by_packet<A: Net>() -> Vec<Row<A>> {
    let active = ACTIVE;
    vec![
        Row {
            packet: || Plain { ttl: 1, ..tcp() },
            entry: nothing,
            ..row("a_packet_whose_ttl_ends_here_is_slow", Reason::TtlExpired, active)
        },
        Row {
            entry: |flow| flow.transform.mtu = length::<A>() - 1,
            ..row("a_packet_larger_than_the_way_out_is_slow", Reason::TooBig, active)
        },
        Row {
            entry: |flow| flow.transform.mtu = length::<A>(),
            ..row("a_packet_as_large_as_the_way_out_is_fast", Reason::Hit, active)
        },
        Row {
            frame: |frame| frame[A::PROTOCOL] = 132,
            ..row("sctp_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[12..14].copy_from_slice(&[0x88, 0xcc]),
            ..row("another_protocol_than_ip_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[14] ^= 0x20,
            ..row("a_packet_of_another_ip_version_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[0] = 2,
            ..row("a_packet_for_another_mac_address_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[A::LENGTH] += 1,
            ..row("a_packet_shorter_than_its_header_says_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[A::LENGTH] -= 15,
            ..row("a_packet_without_room_for_its_headers_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            packet: udp,
            frame: |frame| frame[A::LENGTH] -= 15,
            ..row("a_datagram_without_room_for_its_header_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[A::L4 + 12] = 0x40,
            ..row("a_tcp_header_shorter_than_any_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame.truncate(A::L4 + 6),
            ..row("a_truncated_packet_is_left_alone", Reason::Unparsed, active)
        },
    ]
}

/// Headers that only IPv4 has.
fn by_ipv4_header() -> Vec<Row<[u8; 4]>> {
    let active = ACTIVE;
    vec![
        Row {
            frame: |frame| frame[20] = 0x20,
            ..row("a_first_fragment_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[21] = 1,
            ..row("a_later_fragment_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[14] = 0x46,
            ..row("a_packet_with_ip_options_is_left_alone", Reason::Unparsed, active)
        },
    ]
}

/// Headers that only IPv6 has.
fn by_ipv6_header() -> Vec<Row<[u8; 16]>> {
    let active = ACTIVE;
    vec![
        Row {
            frame: |frame| frame[20] = 44,
            ..row("a_packet_with_a_fragment_header_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[20] = 0,
            ..row("a_packet_with_hop_by_hop_options_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[14..18].copy_from_slice(&[0x6a, 0xb1, 0x23, 0x45]),
            ..row("a_packet_keeps_its_traffic_class_and_flow_label", Reason::Hit, active)
        },
    ]
}

/// Bytes of the table's TCP packet from the IP header on.
pub(crate) fn length<A: Net>() -> u32 {
    tcp::<A>().frame().len() as u32 - 14
}

pub(crate) fn udp_check<A: Net>() -> std::ops::Range<usize> {
    A::L4 + 6..A::L4 + 8
}

/// Half a soft lease past its end: within the time in which pure ACKs go first.
pub(crate) fn past_soft_lease<A>(flow: &mut Flow<A>) {
    let tick = proxy_userspace::kernel::bpf::jiffy().map_or(1, |tick| tick.as_millis()) as u32;
    let soft = 60_000 / tick;
    flow.renewed_at = flow.renewed_at.wrapping_sub(soft + soft / 60);
    flow.elected_at = flow.renewed_at;
}

fn run<A: Net>(row: &Row<A>) -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = (row.packet)();
    let wanted = translated(&Plain { ttl: packet.ttl.max(2), ..packet.clone() });
    let mut flow = entry(&Plain { ttl: packet.ttl.max(2), ..packet.clone() }, &wanted);
    (row.entry)(&mut flow);
    let key = key(&packet);
    stage.put(key, flow)?;
    let mut frame = packet.frame();
    (row.frame)(&mut frame);
    let output = stage.datapath.run(Hook::Ingress, &frame)?;
    let fast = row.reason == Reason::Hit;
    ensure!(
        output.action == if fast { REDIRECT } else { NEXT },
        "action {}; counters {:?}",
        output.action,
        counters(&stage)
    );
    let mut expected = if fast { wanted.frame() } else { frame.clone() };
    if fast && frame[A::PROTOCOL] == 17 && frame[udp_check::<A>()] == [0, 0] {
        expected[udp_check::<A>()].fill(0);
    }
    if fast && A::L4 == <[u8; 16]>::L4 {
        // What the builder does not set: traffic class and flow label.
        expected[14..18].copy_from_slice(&frame[14..18]);
    }
    ensure!(output.packet == expected, "{}", difference(&output.packet, &expected));
    ensure!(stage.count(row.reason) == 1, "counters {:?}", counters(&stage));
    let state = stage.flow(&key).map_or(0, |flow| flow.state);
    ensure!(state == row.state, "state {state}, wanted {}", row.state);
    Ok(())
}

pub(crate) fn counters(stage: &Stage) -> Vec<(&'static str, u64)> {
    Reason::ALL
        .iter()
        .map(|reason| (reason.name(), stage.count(*reason)))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// Returns every case of the level.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for row in by_ipv4_header() {
        cases.push((row.name.to_owned(), Box::new(move || run(&row)) as Case));
    }
    for row in by_ipv6_header() {
        cases.push((row.name.to_owned(), Box::new(move || run(&row)) as Case));
    }
    of_family::<[u8; 4]>(&mut cases);
    of_family::<[u8; 16]>(&mut cases);
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((name.to_owned(), Box::new(case)));
    };
    add("a_pinned_map_of_another_size_is_refused_with_its_path", other_layout);
    add("programs_stay_within_the_verifier_budget", budget);
    cases
}

/// Adds the cases that each family has.
fn of_family<A: Net>(cases: &mut Vec<(String, Case)>) {
    for row in [by_state::<A>(), by_lease(), by_packet()].into_iter().flatten() {
        cases.push((format!("{}{}", row.name, A::SUFFIX), Box::new(move || run(&row))));
    }
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(case)));
    };
    add("a_packet_of_no_service_is_left_alone", no_service::<A>);
    add("a_packet_that_only_shares_a_bit_with_services_is_left_alone", shared_bit::<A>);
    add("a_service_whose_bits_were_cleared_is_slow_and_nothing_else", cleared_bits::<A>);
    add("a_packet_to_a_frontend_without_entry_is_stamped_and_slow", first_packet::<A>);
    add("a_packet_of_a_flow_that_comes_in_elsewhere_is_slow", other_interface::<A>);
    add("a_fin_closes_the_reverse_direction_too", fin_closes_both::<A>);
    add("a_syn_drops_the_reverse_direction_too", syn_drops_both::<A>);
    add("raising_the_epoch_makes_every_entry_stale", epoch::<A>);
    add("raising_a_generation_makes_the_backends_entries_stale", generation::<A>);
    add("an_observed_flow_is_counted_by_frontend_and_interface_and_stays_slow", observe::<A>);
    add("a_frame_padded_by_ethernet_is_fast", padded::<A>);
    add("a_hit_is_counted_in_the_entry", hit_counts::<A>);
    add("a_full_flow_map_evicts_and_never_fails", full_map::<A>);
    add("random_packets_go_on_unchanged_or_leave_as_a_library_has_them", random_packets::<A>);
}

fn no_service<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = Plain { destination: (A::VIP, 81), ..tcp() };
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == NEXT && output.packet == packet.frame());
    ensure!(stage.count(Reason::NotService) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn shared_bit<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = Plain { destination: (A::VIP, 81), ..tcp() };
    let sockets = [
        (A::VIP.into(), 81, Protocol::Tcp),
        (packet.source.0.into(), packet.source.1, Protocol::Tcp),
    ];
    stage.datapath.maps.filter.rebuild(sockets)?;
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == NEXT && output.packet == packet.frame());
    ensure!(stage.count(Reason::NotService) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn cleared_bits<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    ensure!(stage.datapath.maps.filter.rebuild([])? > 0, "there were no bits");
    let output = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
    ensure!(output.action == NEXT && output.packet == tcp::<A>().frame());
    ensure!(stage.count(Reason::NotService) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn other_interface<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = tcp::<A>();
    let elsewhere = FlowKey { interface: 2, ..key(&packet) };
    stage.put(elsewhere, entry(&packet, &translated(&packet)))?;
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == NEXT && output.packet == packet.frame());
    ensure!(stage.count(Reason::NoFlow) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn first_packet<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let output = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
    ensure!(output.action == NEXT && output.packet == tcp::<A>().frame());
    ensure!(stage.count(Reason::NoFlow) == 1, "{:?}", counters(&stage));
    ensure!(stage.flow(&key(&tcp::<A>())).is_none(), "an entry without a sight of the egress");
    Ok(())
}

/// Puts the entries of both directions; returns the key of the reverse one.
fn put_pair<A: Net>(stage: &mut Stage) -> anyhow::Result<FlowKey<A>> {
    let request = tcp::<A>();
    let flow = entry(&request, &translated(&request));
    let reply = Plain {
        source: flow_destination(&flow),
        destination: request.source,
        ..translated(&request)
    };
    let back = Plain { source: request.destination, ttl: reply.ttl - 1, ..reply.clone() };
    let mut reverse = key(&reply);
    reverse.interface = stage::OUT;
    let mut other = entry(&reply, &back);
    other.transform.interface = 1;
    stage.put(key(&request), flow)?;
    stage.put(reverse, other)?;
    Ok(reverse)
}

fn flow_destination<A: Net>(flow: &Flow<A>) -> (A, u16) {
    (flow.transform.destination, flow.transform.destination_port)
}

fn fin_closes_both<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let reverse = put_pair::<A>(&mut stage)?;
    let _ = stage.datapath.run(Hook::Ingress, &Plain::<A>::request(FIN).frame())?;
    for key in [key(&tcp::<A>()), reverse] {
        let state = stage.flow(&key).map(|flow| flow.state);
        ensure!(state == Some(FlowState::CLOSING), "{key:?} is in state {state:?}");
    }
    Ok(())
}

fn syn_drops_both<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let reverse = put_pair::<A>(&mut stage)?;
    let _ = stage.datapath.run(Hook::Ingress, &Plain::<A>::request(SYN).frame())?;
    ensure!(stage.flow(&key(&tcp::<A>())).is_none() && stage.flow(&reverse).is_none());
    Ok(())
}

fn stale_after<A: Net>(
    raise: fn(&mut Stage) -> anyhow::Result<()>,
    reason: Reason,
) -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair::<A>(&mut stage)?;
    let before = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
    ensure!(before.action == REDIRECT);
    raise(&mut stage)?;
    let after = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
    ensure!(after.action == NEXT && stage.count(reason) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn epoch<A: Net>() -> anyhow::Result<()> {
    stale_after::<A>(|stage| Ok(stage.datapath.maps.generations.raise_epoch()?), Reason::StaleEpoch)
}

fn generation<A: Net>() -> anyhow::Result<()> {
    stale_after::<A>(
        |stage| Ok(stage.datapath.maps.generations.raise_backend(stage::BACKEND)?),
        Reason::StaleGeneration,
    )
}

fn observe<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair::<A>(&mut stage)?;
    let key = key(&tcp::<A>());
    let mut flow = stage.flow(&key).context("the entry is there")?;
    flow.transform.flags |= FlowFlags::OBSERVE;
    stage.put(key, flow)?;
    for _ in 0..3 {
        let output = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
        ensure!(output.action == NEXT && output.packet == tcp::<A>().frame());
    }
    ensure!(stage.count(Reason::Observed) == 3 && stage.count(Reason::Hit) == 0);
    let observed = stage.datapath.maps.observed()?;
    let [(found, counter)] = observed.as_slice() else { anyhow::bail!("{observed:?}") };
    ensure!((found.frontend, found.interface) == (1, 1), "{found:?}");
    let l3 = tcp::<A>().frame().len() as u64 - 14;
    ensure!((counter.packets, counter.bytes) == (3, 3 * l3), "{counter:?}");
    let flow = stage.flow(&key).context("the entry is there")?;
    ensure!(flow.packets == 0, "counted as carried by the fast path");
    Ok(())
}

fn padded<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair::<A>(&mut stage)?;
    let mut frame = tcp::<A>().frame();
    frame.extend([0; 6]);
    let output = stage.datapath.run(Hook::Ingress, &frame)?;
    ensure!(output.action == REDIRECT, "{:?}", counters(&stage));
    Ok(())
}

fn hit_counts<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair::<A>(&mut stage)?;
    for _ in 0..3 {
        let _ = stage.datapath.run(Hook::Ingress, &tcp::<A>().frame())?;
    }
    let flow = stage.flow(&key(&tcp::<A>())).context("the entry is there")?;
    let l3 = tcp::<A>().frame().len() as u64 - 14;
    ensure!((flow.packets, flow.bytes) == (3, 3 * l3), "{} {}", flow.packets, flow.bytes);
    Ok(())
}

fn other_layout() -> anyhow::Result<()> {
    let mut kept = None;
    let first = Stage::with(|options| kept = Some(options.clone()))?;
    let options = kept.context("the stage took options")?;
    let again = proxy_userspace::kernel::bpf::LoadOptions { flow_entries: 8192, ..options };
    let error = match proxy_userspace::kernel::bpf::Datapath::load(&again) {
        Ok(_) => anyhow::bail!("a map of 4096 entries was taken for one of 8192"),
        Err(error) => error.to_string(),
    };
    for part in ["flows4", "4096 entries", "8192 entries"] {
        ensure!(error.contains(part), "{error}");
    }
    drop(first);
    Ok(())
}

fn full_map<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::with(|options| options.flow_entries = 1024)?;
    for number in 0..8192 {
        let packet = Plain { source: (A::client(number), 40000), ..tcp() };
        stage.put(key(&packet), entry(&packet, &translated(&packet)))?;
    }
    let packet = Plain { source: (A::client(u16::MAX), 40000), ..tcp() };
    stage.put(key(&packet), entry(&packet, &translated(&packet)))?;
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == REDIRECT, "the newest flow is the one to keep");
    let entries = A::maps(&stage.datapath.maps).flows()?.len();
    ensure!(entries <= 1024, "{entries} entries in a map of 1024");
    Ok(())
}

/// Instructions the verifier went through. A program past its budget is close to being refused by
/// some kernel: split it or simplify it, then raise the number with the reason.
fn budget() -> anyhow::Result<()> {
    let stage = Stage::new()?;
    for (program, instructions) in stage.datapath.verified_instructions() {
        ensure!(instructions < 12_000, "{program}: {instructions} instructions");
    }
    Ok(())
}
