//! Flow entries: what renews, ends and replaces them.

use std::time::Duration;

use anyhow::{Context, ensure};
use proxy_common::{
    abi::{HashBackend, HashFlow, HashFlowState},
    hash_reason::HashReason,
};
use proxy_userspace::{kernel::bpf::jiffy, model::HashMode};

use super::{
    Cases,
    frames::{ACK, FIN, L4, Packet, RST, SYN, SYN_ACK},
    stage::{BACKEND, GENERATION, LOOPBACK, PASS, REDIRECT, Side, Stage, backend, entry, key},
};
use crate::stage::jiffies_now;

/// The backend of a flow that the tables would give to [`BACKEND`]: who goes there is transmitted, and
/// not redirected.
const OTHER: u32 = 9;

/// One packet against an entry that names [`OTHER`].
struct Trial {
    name: &'static str,
    l4: L4,
    flow: fn(&mut HashFlow),
    reason: HashReason,
    /// The entry's state after that.
    state: u32,
}

const OPEN: u32 = HashFlowState::OPEN;
const CLOSING: u32 = HashFlowState::CLOSING;

fn trials() -> Vec<Trial> {
    let known = |name, l4, state| Trial { name, l4, flow: |_| {}, reason: Cached, state };
    let closing = |name, l4, reason, state| Trial {
        flow: |flow| flow.state = CLOSING,
        reason,
        ..known(name, l4, state)
    };
    use HashReason::{Cached, New};
    let mut trials = vec![
        known("a_segment_keeps_its_flow_open", ACK, OPEN),
        known("a_fin_closes_its_flow", FIN, CLOSING),
        known("a_rst_closes_its_flow", RST, CLOSING),
        known("a_syn_again_stays_with_the_backend_of_its_flow", SYN, OPEN),
        closing("a_segment_of_a_closing_flow_goes_to_its_backend", ACK, Cached, CLOSING),
        closing("a_fin_of_a_closing_flow_goes_to_its_backend", FIN, Cached, CLOSING),
        closing("a_syn_that_answers_one_does_not_open_a_closing_flow", SYN_ACK, Cached, CLOSING),
        closing("a_syn_on_a_closing_flow_opens_another_one", SYN, New, OPEN),
    ];
    let moved = |name, l4, state| Trial {
        flow: |flow| flow.generation += 1,
        reason: New,
        ..known(name, l4, state)
    };
    trials.extend([
        moved("a_flow_of_another_generation_is_chosen_for_anew", ACK, OPEN),
        moved("a_datagram_of_another_generation_is_chosen_for_anew", L4::Udp, OPEN),
        moved("a_fin_without_a_flow_makes_a_closing_one", FIN, CLOSING),
    ]);
    let index = Trial {
        flow: |flow| flow.backend = u32::MAX,
        ..moved("an_entry_of_no_backend_is_chosen_for_anew", ACK, OPEN)
    };
    trials.push(index);
    trials.extend(aged());
    trials
}

/// Entries of another time.
fn aged() -> Vec<Trial> {
    use HashReason::{Cached, New};
    let aged = |name, l4, flow, reason, state| Trial { name, l4, flow, reason, state };
    vec![
        aged("a_tcp_flow_lives_for_its_time", ACK, |flow| age(flow, 890), Cached, OPEN),
        aged("a_tcp_flow_ends_with_its_time", ACK, |flow| age(flow, 910), New, OPEN),
        aged("a_datagram_finds_its_flow_in_time", L4::Udp, |flow| age(flow, 290), Cached, OPEN),
        aged("a_datagram_too_late_is_chosen_for_anew", L4::Udp, |flow| age(flow, 310), New, OPEN),
        aged("a_closing_flow_lives_for_its_time", ACK, closing::<110>, Cached, CLOSING),
        aged("a_closing_flow_ends_with_its_time", ACK, closing::<130>, New, OPEN),
        aged("an_entry_that_another_cpu_just_renewed_holds", ACK, later, Cached, OPEN),
    ]
}

/// Lets an entry be so old.
pub(super) fn age(flow: &mut HashFlow, seconds: u64) {
    let tick = jiffy().expect("the tick is known");
    let age = Duration::from_secs(seconds).as_nanos() / tick.as_nanos();
    flow.seen = flow.seen.wrapping_sub(age as u32);
}

fn closing<const SECONDS: u64>(flow: &mut HashFlow) {
    age(flow, SECONDS);
    flow.state = CLOSING;
}

/// Lets an entry be of another CPU, which saw a later packet.
pub(super) fn later(flow: &mut HashFlow) {
    flow.seen = flow.seen.wrapping_add(50);
}

fn run<A: Side>(trial: &Trial, mode: HashMode) -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(mode)?;
    stage.plane.maps.put_backend(OTHER, HashBackend { interface: LOOPBACK, ..backend::<A>() })?;
    let packet = Packet::<A>::new(trial.l4);
    let mut before = HashFlow { backend: OTHER, ..entry() };
    (trial.flow)(&mut before);
    A::put_flow(&mut stage.plane, key(&packet), before)?;
    let from = jiffies_now();
    let output = stage.run(&packet.frame())?;
    ensure!(stage.reasons() == [(trial.reason.name(), 1)], "{:?}", stage.reasons());
    let is_new = trial.reason == HashReason::New;
    let (action, backend) =
        if is_new { (REDIRECT, BACKEND) } else { (stage.action(LOOPBACK), OTHER) };
    ensure!(output.action == action, "action {}", output.action);
    let after = stage.flow(&packet)?.context("the entry is there")?;
    let HashFlow { generation, seen, state, .. } = after;
    ensure!((after.backend, generation, state) == (backend, GENERATION, trial.state), "{after:?}");
    let since = seen.wrapping_sub(from);
    ensure!(since <= jiffies_now().wrapping_sub(from), "{after:?}, it was {from}");
    let flows = [stage.count(BACKEND)?.flows, stage.count(OTHER)?.flows];
    ensure!(flows == [u64::from(backend == BACKEND), 0], "{flows:?}");
    Ok(())
}

/// Returns the cases of flow entries.
pub(super) fn cases<A: Side>(cases: &mut Cases, mode: HashMode) {
    for trial in trials() {
        let name = format!("{}{}", trial.name, A::SUFFIX);
        cases.push((name, Box::new(move || run::<A>(&trial, mode))));
    }
    let mut add = |name: &str, case: fn(HashMode) -> anyhow::Result<()>| {
        cases.push((format!("{name}{}", A::SUFFIX), Box::new(move || case(mode))));
    };
    add("beyond_its_new_flows_a_cpu_makes_no_entries", limit::<A>);
    add("without_new_flows_everything_is_carried_without_entries", nothing_new::<A>);
    add("a_generation_ends_all_flows_of_a_backend", generation::<A>);
    // At tc the kernel makes room.
    if mode != HashMode::Tc {
        add("what_has_no_room_in_front_of_it_is_the_kernels", no_room::<A>);
    }
}

/// The limit is one of each CPU, so this stays on one. Its second begins with the first packet.
fn limit<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    let mut first = rustix::thread::CpuSet::new();
    first.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &first)?;
    let mut stage = Stage::with::<A>(mode, |options| options.new_flows = 3)?;
    for client in 0..5 {
        let packet = Packet { source: (A::client(client), 40_000), ..Packet::new(SYN) };
        ensure!(stage.run(&packet.frame())?.action == REDIRECT, "client {client}");
    }
    ensure!(stage.reasons() == [("new", 3), ("stateless", 2)], "{:?}", stage.reasons());
    ensure!(stage.flows::<A>()? == 3);
    let count = stage.count(BACKEND)?;
    ensure!((count.packets, count.flows) == (5, 3), "{count:?}");
    // Who has an entry is not concerned.
    let known = Packet { source: (A::client(0), 40_000), ..Packet::new(ACK) };
    ensure!(stage.run(&known.frame())?.action == REDIRECT);
    ensure!(stage.reasons()[0] == ("cached", 1), "{:?}", stage.reasons());
    Ok(())
}

fn nothing_new<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    let mut stage = Stage::with::<A>(mode, |options| options.new_flows = 0)?;
    let packet = Packet::<A>::new(SYN);
    let output = stage.run(&packet.frame())?;
    super::row::check(&packet, &backend::<A>(), &output.packet)?;
    ensure!(stage.reasons() == [("stateless", 1)], "{:?}", stage.reasons());
    ensure!(stage.flows::<A>()? == 0);
    Ok(())
}

fn generation<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(mode)?;
    let packet = Packet::<A>::new(ACK);
    for _ in 0..2 {
        ensure!(stage.run(&packet.frame())?.action == REDIRECT);
    }
    stage.plane.maps.put_backend(BACKEND, HashBackend { generation: 8, ..backend::<A>() })?;
    ensure!(stage.run(&packet.frame())?.action == REDIRECT);
    ensure!(stage.reasons() == [("cached", 1), ("new", 2)], "{:?}", stage.reasons());
    let flow = stage.flow(&packet)?.context("the entry is there")?;
    ensure!(flow.generation == 8, "{flow:?}");
    Ok(())
}

/// Headroom that a driver gives to XDP, without what the kernel keeps in it (`struct xdp_frame`): when
/// it is written in, there is no room for anything else.
const HEADROOM: usize = 256 - 40;

fn no_room<A: Side>(mode: HashMode) -> anyhow::Result<()> {
    let mut stage = Stage::new::<A>(mode)?;
    let mut to = backend::<A>();
    to.vlan = 5;
    stage.plane.maps.put_backend(BACKEND, to)?;
    let packet = Packet::<A>::new(SYN);
    let mut data = vec![0; HEADROOM];
    data.extend(packet.frame());
    let output = stage.plane.run_behind(HEADROOM as u32, LOOPBACK, &data, 1)?;
    ensure!(output.action == PASS && output.packet == data, "action {}", output.action);
    ensure!(stage.reasons() == [("no_room", 1)], "{:?}", stage.reasons());
    ensure!(stage.flows::<A>()? == 0 && stage.count(BACKEND)?.packets == 0);
    Ok(())
}
