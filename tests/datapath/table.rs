//! The table: what `tc_in` does with a packet, given the flow map.

use anyhow::{Context, ensure};
use proxy_common::{
    abi::{Flow4, FlowFlags, FlowState},
    reason::Reason,
};
use proxy_userspace::kernel::bpf::Hook;

use crate::{
    packets::{ACK, FIN, L4, Plain, RST, SYN, difference},
    stage::{self, Stage, entry, key, translated},
};

const NEXT: i32 = -1;
const REDIRECT: i32 = 7;

type Case = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// One packet against one entry.
struct Row {
    name: &'static str,
    packet: fn() -> Plain,
    /// Changes the active entry that fits the packet.
    entry: fn(&mut Flow4),
    /// Changes the frame before it goes in.
    frame: fn(&mut Vec<u8>),
    reason: Reason,
    /// State of the entry afterwards; 0 when it is gone.
    state: u32,
}

fn nothing(_: &mut Flow4) {}
fn as_it_is(_: &mut Vec<u8>) {}
fn tcp() -> Plain {
    Plain::request(ACK)
}
fn udp() -> Plain {
    Plain::request(L4::Udp)
}

const ACTIVE: u32 = FlowState::ACTIVE;

/// A TCP packet of the flow against its active entry.
fn row(name: &'static str, reason: Reason, state: u32) -> Row {
    Row { name, packet: tcp, entry: nothing, frame: as_it_is, reason, state }
}

/// Packets that the fast path takes, and states that keep them from it.
fn by_state() -> Vec<Row> {
    let active = ACTIVE;
    vec![
        row("an_established_tcp_packet_is_rewritten_and_redirected", Reason::Hit, active),
        Row {
            packet: udp,
            ..row("an_established_udp_packet_is_rewritten_and_redirected", Reason::Hit, active)
        },
        Row {
            packet: udp,
            frame: |frame| frame[40..42].fill(0),
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
fn by_lease() -> Vec<Row> {
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
fn by_packet() -> Vec<Row> {
    let active = ACTIVE;
    vec![
        Row {
            packet: || Plain { ttl: 1, ..tcp() },
            entry: nothing,
            ..row("a_packet_whose_ttl_ends_here_is_slow", Reason::TtlExpired, active)
        },
        Row {
            entry: |flow| flow.transform.mtu = 53,
            ..row("a_packet_larger_than_the_way_out_is_slow", Reason::TooBig, active)
        },
        Row {
            entry: |flow| flow.transform.mtu = 54,
            ..row("a_packet_as_large_as_the_way_out_is_fast", Reason::Hit, active)
        },
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
        Row {
            frame: |frame| frame[23] = 132,
            ..row("sctp_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[12..14].copy_from_slice(&[0x86, 0xdd]),
            ..row("ipv6_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame[0] = 2,
            ..row("a_packet_for_another_mac_address_is_left_alone", Reason::Unparsed, active)
        },
        Row {
            frame: |frame| frame.truncate(40),
            ..row("a_truncated_packet_is_left_alone", Reason::Unparsed, active)
        },
    ]
}

/// Half a soft lease past its end: within the time in which pure ACKs go first.
fn past_soft_lease(flow: &mut Flow4) {
    let tick = proxy_userspace::kernel::bpf::jiffy().map_or(1, |tick| tick.as_millis()) as u32;
    let soft = 60_000 / tick;
    flow.renewed_at = flow.renewed_at.wrapping_sub(soft + soft / 60);
    flow.elected_at = flow.renewed_at;
}

fn run(row: &Row) -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = (row.packet)();
    let wanted = translated(&Plain { ttl: packet.ttl.max(2), ..packet.clone() });
    let mut flow = entry(&Plain { ttl: packet.ttl.max(2), ..packet.clone() }, &wanted);
    (row.entry)(&mut flow);
    let key = key(&packet);
    stage.datapath.maps.put_flow(key, flow)?;
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
    if fast && frame[23] == 17 && frame[40..42] == [0, 0] {
        expected[40..42].fill(0);
    }
    ensure!(output.packet == expected, "{}", difference(&output.packet, &expected));
    ensure!(stage.count(row.reason) == 1, "counters {:?}", counters(&stage));
    let state = stage.flow(&key).map_or(0, |flow| flow.state);
    ensure!(state == row.state, "state {state}, wanted {}", row.state);
    Ok(())
}

fn counters(stage: &Stage) -> Vec<(&'static str, u64)> {
    Reason::ALL
        .iter()
        .map(|reason| (reason.name(), stage.count(*reason)))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// Returns every case of the level.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let mut cases: Vec<(String, Case)> = [by_state(), by_lease(), by_packet()]
        .into_iter()
        .flatten()
        .map(|row| (row.name.to_owned(), Box::new(move || run(&row)) as Case))
        .collect();
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((name.to_owned(), Box::new(case)));
    };
    add("a_packet_of_no_service_is_left_alone", no_service);
    add("a_packet_to_a_frontend_without_entry_is_stamped_and_slow", first_packet);
    add("a_fin_closes_the_reverse_direction_too", fin_closes_both);
    add("a_syn_drops_the_reverse_direction_too", syn_drops_both);
    add("raising_the_epoch_makes_every_entry_stale", epoch);
    add("raising_a_generation_makes_the_backends_entries_stale", generation);
    add("observe_mode_counts_and_sends_the_slow_way", observe);
    add("a_hit_is_counted_in_the_entry", hit_counts);
    add("a_pinned_map_of_another_size_is_refused_with_its_path", other_layout);
    add("a_full_flow_map_evicts_and_never_fails", full_map);
    add("programs_stay_within_the_verifier_budget", budget);
    cases
}

fn no_service() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let packet = Plain { destination: ([10, 96, 0, 10], 81), ..tcp() };
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == NEXT && output.packet == packet.frame());
    ensure!(stage.count(Reason::NotService) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn first_packet() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let output = stage.datapath.run(Hook::Ingress, &tcp().frame())?;
    ensure!(output.action == NEXT && output.packet == tcp().frame());
    ensure!(stage.count(Reason::NoFlow) == 1, "{:?}", counters(&stage));
    ensure!(stage.flow(&key(&tcp())).is_none(), "an entry without a sight of the egress");
    Ok(())
}

/// Puts the entries of both directions; returns the key of the reverse one.
fn put_pair(stage: &mut Stage) -> anyhow::Result<proxy_common::abi::FlowKey4> {
    let request = tcp();
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
    stage.datapath.maps.put_flow(key(&request), flow)?;
    stage.datapath.maps.put_flow(reverse, other)?;
    Ok(reverse)
}

fn flow_destination(flow: &Flow4) -> ([u8; 4], u16) {
    (flow.transform.destination, flow.transform.destination_port)
}

fn fin_closes_both() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let reverse = put_pair(&mut stage)?;
    let _ = stage.datapath.run(Hook::Ingress, &Plain::request(FIN).frame())?;
    for key in [key(&tcp()), reverse] {
        let state = stage.flow(&key).map(|flow| flow.state);
        ensure!(state == Some(FlowState::CLOSING), "{key:?} is in state {state:?}");
    }
    Ok(())
}

fn syn_drops_both() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let reverse = put_pair(&mut stage)?;
    let _ = stage.datapath.run(Hook::Ingress, &Plain::request(SYN).frame())?;
    ensure!(stage.flow(&key(&tcp())).is_none() && stage.flow(&reverse).is_none());
    Ok(())
}

fn stale_after(raise: fn(&mut Stage) -> anyhow::Result<()>, reason: Reason) -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair(&mut stage)?;
    let before = stage.datapath.run(Hook::Ingress, &tcp().frame())?;
    ensure!(before.action == REDIRECT);
    raise(&mut stage)?;
    let after = stage.datapath.run(Hook::Ingress, &tcp().frame())?;
    ensure!(after.action == NEXT && stage.count(reason) == 1, "{:?}", counters(&stage));
    Ok(())
}

fn epoch() -> anyhow::Result<()> {
    stale_after(|stage| Ok(stage.datapath.maps.generations.raise_epoch()?), Reason::StaleEpoch)
}

fn generation() -> anyhow::Result<()> {
    stale_after(
        |stage| Ok(stage.datapath.maps.generations.raise_backend(stage::BACKEND)?),
        Reason::StaleGeneration,
    )
}

fn observe() -> anyhow::Result<()> {
    let mut stage = Stage::with(|options| options.observe = true)?;
    put_pair(&mut stage)?;
    let output = stage.datapath.run(Hook::Ingress, &tcp().frame())?;
    ensure!(output.action == NEXT && output.packet == tcp().frame());
    ensure!(stage.count(Reason::Observed) == 1 && stage.count(Reason::Hit) == 0);
    Ok(())
}

fn hit_counts() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put_pair(&mut stage)?;
    for _ in 0..3 {
        let _ = stage.datapath.run(Hook::Ingress, &tcp().frame())?;
    }
    let flow = stage.flow(&key(&tcp())).context("the entry is there")?;
    let l3 = tcp().frame().len() as u64 - 14;
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

fn full_map() -> anyhow::Result<()> {
    let mut stage = Stage::with(|options| options.flow_entries = 1024)?;
    for number in 0..8192u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let packet = Plain { source: ([10, 1, high, low], 40000), ..tcp() };
        stage.datapath.maps.put_flow(key(&packet), entry(&packet, &translated(&packet)))?;
    }
    let packet = Plain { source: ([10, 1, 0xff, 0xff], 40000), ..tcp() };
    stage.datapath.maps.put_flow(key(&packet), entry(&packet, &translated(&packet)))?;
    let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
    ensure!(output.action == REDIRECT, "the newest flow is the one to keep");
    let entries = stage.datapath.maps.flows()?.len();
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
