//! The table: what `xdp_up` does with a frame, given the flow map and the uplinks.

use std::sync::Mutex;

use anyhow::{Context, anyhow, ensure};
use proxy_common::{
    abi::{Flow, FlowFlags, FlowState, Uplink},
    packet::checksum,
    reason::Reason,
};
use proxy_tests::{netns::Namespace, process, wait};
use proxy_userspace::kernel::bpf::{Datapath, Hook};
use serde_json::Value;

use crate::{
    packets::{FIN, L4, Net, Plain, RST, SYN, difference},
    stage::{self, Stage, entry, key, translated},
    table::{Case, counters, length, past_soft_lease, tcp, udp, udp_check},
};

const PASS: i32 = 2;
const TX: i32 = 3;
const REDIRECT: i32 = 4;
/// The index of the loopback device, whose MAC address is all zero: where test runs come in.
const LOOPBACK: u32 = 1;

/// One frame against one entry, which is that of transit to another uplink.
struct Row<A> {
    name: &'static str,
    packet: fn() -> Plain<A>,
    /// Changes the entry.
    entry: fn(&mut Flow<A>),
    /// Changes the frame before it goes in.
    frame: fn(&mut Vec<u8>),
    /// Changes the uplink that it comes in by.
    uplink: fn(&mut Uplink),
    action: i32,
}

/// A TCP packet of the flow against its active entry.
fn row<A: Net>(name: &'static str, action: i32) -> Row<A> {
    Row { name, packet: tcp, entry: |_| {}, frame: |_| {}, uplink: |_| {}, action }
}

/// Frames that are sent on.
fn fast<A: Net>() -> Vec<Row<A>> {
    vec![
        row("xdp_sends_a_tcp_packet_of_transit_to_the_other_uplink", REDIRECT),
        Row { packet: udp, ..row("xdp_sends_a_datagram_of_transit_to_the_other_uplink", REDIRECT) },
        Row {
            entry: |flow| flow.transform.interface = LOOPBACK,
            ..row("xdp_sends_transit_of_one_uplink_back_out_of_it", TX)
        },
        Row {
            packet: udp,
            entry: |flow| flow.transform.interface = LOOPBACK,
            ..row("xdp_sends_datagrams_of_one_uplink_back_out_of_it", TX)
        },
        Row {
            packet: udp,
            frame: |frame| frame[udp_check::<A>()].fill(0),
            ..row("xdp_leaves_a_datagram_without_checksum_without_one", REDIRECT)
        },
        Row {
            entry: |flow| flow.transform.mtu = length::<A>(),
            ..row("xdp_sends_on_what_is_as_large_as_the_way_out", REDIRECT)
        },
        Row {
            entry: past_soft_lease,
            ..row("xdp_sends_payload_on_just_past_the_soft_lease", REDIRECT)
        },
        Row {
            packet: || Plain { payload: Vec::new(), ..tcp() },
            entry: |flow| {
                past_soft_lease(flow);
                flow.elected_at = stage::jiffies_now();
            },
            ..row("xdp_sends_on_what_follows_an_election", REDIRECT)
        },
    ]
}

/// Frames that tc must see: other flows, and entries that do not hold.
fn by_entry<A: Net>() -> Vec<Row<A>> {
    vec![
        Row {
            entry: |flow| flow.transform.flags = 0,
            ..row("xdp_passes_on_a_flow_that_is_no_transit", PASS)
        },
        Row {
            entry: |flow| flow.state = FlowState::LEARNING,
            ..row("xdp_passes_on_a_flow_with_one_direction_known", PASS)
        },
        Row {
            entry: |flow| flow.state = FlowState::CLOSING,
            ..row("xdp_passes_on_a_closing_flow", PASS)
        },
        Row { entry: |flow| flow.epoch = 9, ..row("xdp_passes_on_a_flow_of_another_epoch", PASS) },
        Row {
            entry: |flow| flow.generation = 9,
            ..row("xdp_passes_on_a_flow_of_another_generation", PASS)
        },
        Row {
            entry: |flow| flow.renewed_at = flow.renewed_at.wrapping_sub(1_000_000),
            ..row("xdp_passes_on_a_flow_past_its_hard_lease", PASS)
        },
        Row {
            packet: || Plain { payload: Vec::new(), ..tcp() },
            entry: past_soft_lease,
            ..row("xdp_passes_on_a_pure_ack_that_may_renew_the_lease", PASS)
        },
        Row {
            entry: |flow| flow.transform.mtu = length::<A>() - 1,
            ..row("xdp_passes_on_what_is_larger_than_the_way_out", PASS)
        },
    ]
}

/// Frames that tc must see: what only the kernel can treat, and what is not for this node.
fn by_frame<A: Net>() -> Vec<Row<A>> {
    vec![
        Row { packet: || Plain::request(SYN), ..row("xdp_passes_on_a_syn", PASS) },
        Row { packet: || Plain::request(FIN), ..row("xdp_passes_on_a_fin", PASS) },
        Row { packet: || Plain::request(RST), ..row("xdp_passes_on_a_rst", PASS) },
        Row {
            packet: || Plain { ttl: 1, ..tcp() },
            ..row("xdp_passes_on_a_packet_whose_ttl_ends_here", PASS)
        },
        Row {
            frame: |frame| {
                let tag = [0x81, 0, 0, 5];
                frame.splice(12..12, tag);
            },
            ..row("xdp_passes_on_a_vlan_tag", PASS)
        },
        Row {
            frame: |frame| frame[5] = 2,
            ..row("xdp_passes_on_a_frame_for_another_mac_address", PASS)
        },
        Row { frame: |frame| frame[A::PROTOCOL] = 132, ..row("xdp_passes_on_sctp", PASS) },
        Row { frame: |frame| frame[14] ^= 0x20, ..row("xdp_passes_on_another_ip_version", PASS) },
        Row {
            frame: |frame| frame[A::LENGTH] += 1,
            ..row("xdp_passes_on_a_frame_shorter_than_its_header_says", PASS)
        },
        Row {
            frame: |frame| frame.truncate(A::L4 + 6),
            ..row("xdp_passes_on_a_truncated_frame", PASS)
        },
        Row {
            frame: |frame| frame.truncate(A::L4 + 12),
            ..row("xdp_passes_on_a_truncated_tcp_header", PASS)
        },
        Row {
            uplink: |uplink| *uplink = Uplink::default(),
            ..row("xdp_passes_on_everything_where_transit_does_not_run", PASS)
        },
        Row {
            uplink: |uplink| uplink.mac[5] = 1,
            ..row("xdp_passes_on_frames_for_the_mac_address_that_the_uplink_had", PASS)
        },
    ]
}

/// Headers that only IPv4 has.
fn by_ipv4_header() -> Vec<Row<[u8; 4]>> {
    vec![
        Row { frame: |frame| frame[20] = 0x20, ..row("xdp_passes_on_a_fragment", PASS) },
        Row { frame: |frame| frame[14] = 0x46, ..row("xdp_passes_on_ip_options", PASS) },
    ]
}

fn run<A: Net>(row: &Row<A>) -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let mut uplink = Uplink { interface: LOOPBACK, ..Uplink::default() };
    (row.uplink)(&mut uplink);
    stage.datapath.maps.put_uplink(Uplink { interface: LOOPBACK, ..uplink })?;
    if uplink.interface == 0 {
        stage.datapath.maps.remove_uplink(LOOPBACK)?;
    }
    let packet = (row.packet)();
    let living = Plain { ttl: packet.ttl.max(2), ..packet.clone() };
    let wanted = translated(&living);
    let mut flow = entry(&living, &wanted);
    flow.transform.flags = FlowFlags::TRANSIT;
    (row.entry)(&mut flow);
    stage.put(key(&packet), flow)?;
    let mut frame = packet.frame();
    (row.frame)(&mut frame);
    let output = stage.datapath.run_transit(LOOPBACK, &frame)?;
    ensure!(output.action == row.action, "action {}; {:?}", output.action, counters(&stage));
    let fast = row.action != PASS;
    let mut expected = if fast { wanted.frame() } else { frame.clone() };
    if fast && frame[A::PROTOCOL] == 17 && frame[udp_check::<A>()] == [0, 0] {
        expected[udp_check::<A>()].fill(0);
    }
    ensure!(output.packet == expected, "{}", difference(&output.packet, &expected));
    let l3 = if fast { frame.len() as u64 - 14 } else { 0 };
    let after = stage.flow(&key(&packet)).context("the entry is there")?;
    ensure!((after.packets, after.bytes) == (u64::from(fast), l3), "{after:?}");
    ensure!(after.state == flow.state && after.elected_at == flow.elected_at, "{after:?}");
    // What is passed on is counted by tc, and nowhere else.
    let counted = counters(&stage);
    let expected = if fast { vec![(Reason::XdpHit.name(), 1)] } else { Vec::new() };
    ensure!(counted == expected, "{counted:?}");
    Ok(())
}

/// Returns the cases of transit.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for row in by_ipv4_header() {
        cases.push((row.name.to_owned(), Box::new(move || run(&row)) as Case));
    }
    of_family::<[u8; 4]>(&mut cases);
    of_family::<[u8; 16]>(&mut cases);
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((name.to_owned(), Box::new(case)));
    };
    add("the_self_test_of_transit_succeeds_and_leaves_no_entry", self_test);
    add("the_self_test_of_transit_fails_where_frames_are_not_taken", failing_self_test);
    add("transit_is_attached_replaced_and_detached_by_its_pin", attachment);
    add("transit_is_refused_where_there_is_no_native_xdp", no_native_xdp);
    cases
}

/// Adds the cases that each family has.
fn of_family<A: Net>(cases: &mut Vec<(String, Case)>) {
    for row in [fast::<A>(), by_entry(), by_frame()].into_iter().flatten() {
        cases.push((format!("{}{}", row.name, A::SUFFIX), Box::new(move || run(&row))));
    }
    let mut add = |name: &str, case: fn() -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(case)));
    };
    add("xdp_passes_on_a_packet_without_entry", no_entry::<A>);
    add("an_election_that_xdp_passes_on_is_won_at_tc", election::<A>);
    add("xdp_and_tc_make_the_same_of_any_packet", agreement::<A>);
}

fn stage_with_uplink() -> anyhow::Result<Stage> {
    let mut stage = Stage::new()?;
    stage.datapath.maps.put_uplink(Uplink { interface: LOOPBACK, ..Uplink::default() })?;
    Ok(stage)
}

fn no_entry<A: Net>() -> anyhow::Result<()> {
    let mut stage = stage_with_uplink()?;
    let frame = tcp::<A>().frame();
    let output = stage.datapath.run_transit(LOOPBACK, &frame)?;
    ensure!(output.action == PASS && output.packet == frame);
    ensure!(counters(&stage).is_empty(), "{:?}", counters(&stage));
    Ok(())
}

fn election<A: Net>() -> anyhow::Result<()> {
    let mut stage = stage_with_uplink()?;
    let packet = Plain { payload: Vec::new(), ..tcp::<A>() };
    let mut flow = entry(&packet, &translated(&packet));
    flow.transform.flags = FlowFlags::TRANSIT;
    past_soft_lease(&mut flow);
    stage.put(key(&packet), flow)?;
    let frame = packet.frame();
    ensure!(stage.datapath.run_transit(LOOPBACK, &frame)?.action == PASS);
    let _ = stage.datapath.run(Hook::Ingress, &frame)?;
    ensure!(stage.count(Reason::Elected) == 1, "{:?}", counters(&stage));
    // One is enough: those after it are fast again.
    ensure!(stage.datapath.run_transit(LOOPBACK, &frame)?.action == REDIRECT);
    Ok(())
}

/// Random packets and translations, with checksums of every kind: also wrong ones, which must stay
/// as wrong as they are.
fn agreement<A: Net>() -> anyhow::Result<()> {
    let mut stage = stage_with_uplink()?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..400 {
        let l4 = if random.next().is_multiple_of(2) { L4::Udp } else { tcp::<A>().l4 };
        let packet = Plain {
            source: (random.addr::<A>(), random.next() as u16),
            ttl: 2 + (random.next() % 250) as u8,
            payload: (0..random.next() % 200).map(|_| random.next() as u8).collect(),
            ..Plain::request(l4)
        };
        let to = Plain {
            source: (random.addr::<A>(), random.next() as u16),
            destination: (random.addr::<A>(), random.next() as u16),
            ..translated(&packet)
        };
        let mut flow = entry(&packet, &to);
        flow.transform.flags = FlowFlags::TRANSIT;
        if round % 7 == 0 {
            // Addresses or ports of the same sum, in either form of zero.
            flow.transform.port_delta = [0, 0xffff, u32::MAX][random.next() as usize % 3];
        }
        stage.put(key(&packet), flow)?;
        let mut frame = packet.frame();
        let check = A::L4 + if l4 == L4::Udp { 6 } else { 16 };
        match random.next() % 4 {
            0 => frame[check..check + 2].copy_from_slice(&(random.next() as u16).to_be_bytes()),
            1 => frame[check..check + 2].copy_from_slice(&awkward(&flow, random.next())),
            _ => {}
        }
        let by_xdp = stage.datapath.run_transit(LOOPBACK, &frame)?;
        let by_tc = stage.datapath.run(Hook::Ingress, &frame)?;
        ensure!(by_xdp.action == REDIRECT && by_tc.action == crate::table::REDIRECT);
        let difference = difference(&by_xdp.packet, &by_tc.packet);
        ensure!(by_xdp.packet == by_tc.packet, "round {round}: {flow:?}\n{difference}");
    }
    Ok(())
}

/// A checksum that the entry turns into one of the two forms of zero, or that is one itself.
fn awkward<A>(flow: &Flow<A>, choice: u32) -> [u8; 2] {
    let delta = checksum::add(flow.transform.address_delta, flow.transform.port_delta);
    let check = match choice % 4 {
        0 => 0,
        1 => 0xffff,
        2 => checksum::kernel_apply(0, !delta),
        _ => checksum::kernel_apply(0xffff, !delta),
    };
    check.to_ne_bytes()
}

/// Numbers that are the same in each run (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    fn addr<A: Net>(&mut self) -> A {
        A::client(self.next() as u16)
    }
}

fn self_test() -> anyhow::Result<()> {
    let mut stage = stage_with_uplink()?;
    stage.datapath.test_transit(LOOPBACK, [0; 6])?;
    ensure!(counters(&stage) == [(Reason::XdpHit.name(), 4)], "{:?}", counters(&stage));
    let maps = &stage.datapath.maps;
    ensure!(maps.ipv4.flows()?.is_empty() && maps.ipv6.flows()?.is_empty());
    Ok(())
}

fn failing_self_test() -> anyhow::Result<()> {
    let mut stage = stage_with_uplink()?;
    let fault = stage.datapath.test_transit(LOOPBACK, [2, 0, 0, 0, 0, 7]).err();
    let fault = fault.context("frames for another MAC address were taken")?.to_string();
    ensure!(fault == "self-test: the TCP over IPv4 probe was not sent back: action 2", "{fault}");
    ensure!(stage.datapath.maps.ipv4.flows()?.is_empty());
    Ok(())
}

fn attachment() -> anyhow::Result<()> {
    let stage = Mutex::new(Stage::new()?);
    let pair = Pair::new("transit")?;
    pair.namespace.enter(|| {
        let mut stage = stage.lock().map_err(|_| anyhow!("the stage broke"))?;
        let index = pair.index()?;
        stage.datapath.attach_transit(Pair::UPLINK, index)?;
        let first = pair.program()?.context("no program after attaching")?;
        ensure!(pair.mode()? == Some(1), "it is not native");
        ensure!(stage.datapath.transit_pins()? == [index]);
        // Another agent: its program takes the place of the first, in the same link.
        let mut next = Datapath::load(&stage.options)?;
        next.attach_transit(Pair::UPLINK, index)?;
        let second = pair.program()?.context("no program after replacing")?;
        ensure!(first != second, "program {first} was not replaced");
        drop(next);
        ensure!(pair.program()? == Some(second), "the program went with the agent");
        stage.datapath.detach_transit(index)?;
        wait::until_true("the program is gone", wait::PATIENCE, || Ok(pair.program()?.is_none()))?;
        ensure!(stage.datapath.transit_pins()?.is_empty());
        Ok(stage.datapath.detach_transit(index)?)
    })
}

fn no_native_xdp() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let error = stage.datapath.attach_transit("lo", LOOPBACK).err();
    let error = error.context("the loopback device took an XDP program")?;
    ensure!(error.to_string() == "attach program xdp_up on lo", "{error}");
    ensure!(stage.datapath.transit_pins()?.is_empty());
    Ok(())
}

/// A veth pair in a namespace of its own, one end called `uplink`. The namespace goes with it.
pub(crate) struct Pair {
    pub(crate) namespace: Namespace,
}

impl Pair {
    pub(crate) const UPLINK: &str = "uplink";

    /// Makes the pair of a case.
    pub(crate) fn new(case: &str) -> anyhow::Result<Self> {
        let name = format!("passlane-datapath-{}-{case}", std::process::id());
        process::run("ip", &["netns", "add", &name])?;
        let pair = Self { namespace: Namespace::named(name) };
        let script =
            "link add uplink type veth peer name beyond\nlink set uplink up\nlink set beyond up\n";
        pair.namespace.feed("ip", &["-batch", "-"], script)?;
        Ok(pair)
    }

    pub(crate) fn index(&self) -> anyhow::Result<u32> {
        let index = self.link()?["ifindex"].as_u64().context("no ifindex")?;
        Ok(index as u32)
    }

    /// Returns the id of the XDP program.
    pub(crate) fn program(&self) -> anyhow::Result<Option<u64>> {
        Ok(self.link()?["xdp"]["prog"]["id"].as_u64())
    }

    /// Returns the mode of the XDP program: 1 native, 2 generic.
    pub(crate) fn mode(&self) -> anyhow::Result<Option<u64>> {
        Ok(self.link()?["xdp"]["mode"].as_u64())
    }

    fn link(&self) -> anyhow::Result<Value> {
        let text = self.namespace.run("ip", &["-j", "link", "show", Self::UPLINK])?;
        let links: Value = serde_json::from_str(&text)?;
        Ok(links[0].clone())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // A leftover is named after this process.
        let _ = process::run("ip", &["netns", "del", self.namespace.name()]);
    }
}
