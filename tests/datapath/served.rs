//! What the fast path carried, by frontend and backend: nothing is lost and nothing is twice.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use proxy_common::abi::{Flow, FlowFlags, Pair, Served};
use proxy_userspace::kernel::bpf::Hook;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    packets::{ACK, Net, Plain, SYN},
    stage::{self, BACKEND, Stage, entry, key, translated},
    table::Case,
};

const REDIRECT: i32 = 7;
const FRONTEND: u32 = 1;

type Check = fn() -> anyhow::Result<()>;

/// Returns every case of the file.
pub(crate) fn cases() -> Vec<(String, Case)> {
    let mut cases = of_family::<[u8; 4]>();
    cases.extend(of_family::<[u8; 16]>());
    cases
}

fn of_family<A: Net>() -> Vec<(String, Case)> {
    let all: [(&str, Check); 7] = [
        ("both_directions_are_counted_for_frontend_and_backend", both_directions::<A>),
        ("padding_is_not_counted", padding::<A>),
        ("what_was_carried_outlives_its_entry", outlives::<A>),
        ("pairs_that_share_a_slot_lose_nothing", shared_slot::<A>),
        ("what_all_cpus_carried_adds_up", all_cpus::<A>),
        ("a_backend_that_goes_leaves_its_counts_to_the_frontend", backend_goes::<A>),
        ("the_next_owner_of_an_id_begins_with_nothing", next_owner::<A>),
    ];
    let named = |(name, case)| (format!("{name}{}", A::SUFFIX), Box::new(case) as Case);
    all.into_iter().map(named).collect()
}

fn request<A: Net>() -> Plain<A> {
    Plain::request(ACK)
}

/// Another client's request, so that its flow can have other ids.
fn request_of<A: Net>(client: u16) -> Plain<A> {
    Plain { source: (A::client(client), 40000), ..request() }
}

fn reply<A: Net>() -> Plain<A> {
    Plain { source: (A::POD, 8080), destination: (A::client(5), 40000), ..request() }
}

/// Bytes from the IP header on.
fn length<A: Net>() -> u64 {
    request::<A>().frame().len() as u64 - 14
}

fn put<A: Net>(
    stage: &mut Stage,
    packet: &Plain<A>,
    change: impl FnOnce(&mut Flow<A>),
) -> anyhow::Result<()> {
    let mut flow = entry(packet, &translated(packet));
    change(&mut flow);
    stage.put(key(packet), flow)
}

fn hit<A: Net>(stage: &mut Stage, packet: &Plain<A>, times: u64) -> anyhow::Result<()> {
    for _ in 0..times {
        let output = stage.datapath.run(Hook::Ingress, &packet.frame())?;
        ensure!(output.action == REDIRECT, "action {}", output.action);
    }
    Ok(())
}

fn inwards<A: Net>(packets: u64) -> Served {
    Served { in_packets: packets, in_bytes: packets * length::<A>(), ..Served::default() }
}

fn expect<const N: usize>(stage: &Stage, wanted: [((u32, u32), Served); N]) -> anyhow::Result<()> {
    let carried = stage.datapath.maps.carried.read()?;
    ensure!(carried == BTreeMap::from(wanted), "{carried:?}");
    Ok(())
}

fn both_directions<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    put::<A>(&mut stage, &reply(), |flow| flow.transform.flags = FlowFlags::REPLY)?;
    hit::<A>(&mut stage, &request(), 3)?;
    hit::<A>(&mut stage, &reply(), 2)?;
    let out = Served { out_packets: 2, out_bytes: 2 * length::<A>(), ..Served::default() };
    expect(&stage, [((FRONTEND, BACKEND), inwards::<A>(3).plus(out))])
}

fn padding<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    let mut frame = request::<A>().frame();
    frame.extend([0; 6]);
    let output = stage.datapath.run(Hook::Ingress, &frame)?;
    ensure!(output.action == REDIRECT, "action {}", output.action);
    expect(&stage, [((FRONTEND, BACKEND), inwards::<A>(1))])?;
    let flow = stage.flow(&key(&request::<A>())).context("the entry is there")?;
    ensure!((flow.packets, flow.bytes) == (1, length::<A>()), "{flow:?}");
    Ok(())
}

/// A SYN drops the entry, an eviction replaces it, and so does another transform.
fn outlives<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::with(|options| options.flow_entries = 1024)?;
    put::<A>(&mut stage, &request(), |_| {})?;
    hit::<A>(&mut stage, &request(), 3)?;
    let _ = stage.datapath.run(Hook::Ingress, &Plain::<A>::request(SYN).frame())?;
    ensure!(stage.flow(&key(&request::<A>())).is_none(), "the entry is still there");
    put::<A>(&mut stage, &request(), |flow| flow.transform.mtu = 1400)?;
    hit::<A>(&mut stage, &request(), 1)?;
    // Used entries: the map prefers those that nobody used.
    let clients = 100..4100;
    let others = clients.len() as u64;
    for client in clients {
        put::<A>(&mut stage, &request_of(client), |_| {})?;
        hit::<A>(&mut stage, &request_of(client), 1)?;
    }
    ensure!(stage.flow(&key(&request::<A>())).is_none(), "nothing was evicted");
    expect(&stage, [((FRONTEND, BACKEND), inwards::<A>(4 + others))])
}

/// Returns a pair that needs the slot of the stage's.
fn rival() -> anyhow::Result<Pair> {
    let slot = Pair { frontend: FRONTEND, backend: BACKEND }.slot();
    let backends = (BACKEND + 1..60_000).map(|backend| Pair { frontend: 2, backend });
    backends.into_iter().find(|pair| pair.slot() == slot).context("some pair needs the slot")
}

fn put_rival<A: Net>(stage: &mut Stage, pair: Pair) -> anyhow::Result<Plain<A>> {
    let packet = request_of::<A>(6);
    put(stage, &packet, |flow| {
        flow.frontend = pair.frontend;
        flow.backend = pair.backend;
    })?;
    Ok(packet)
}

fn shared_slot<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let pair = rival()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    let other = put_rival::<A>(&mut stage, pair)?;
    for round in 1..=5 {
        hit::<A>(&mut stage, &request(), 2)?;
        hit::<A>(&mut stage, &other, 3)?;
        expect(
            &stage,
            [
                ((FRONTEND, BACKEND), inwards::<A>(2 * round)),
                ((pair.frontend, pair.backend), inwards::<A>(3 * round)),
            ],
        )?;
    }
    Ok(())
}

fn all_cpus<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let pair = rival()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    let other = put_rival::<A>(&mut stage, pair)?;
    let all = sched_getaffinity(None)?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    for cpu in &cpus {
        let mut one = CpuSet::new();
        one.set(*cpu);
        sched_setaffinity(None, &one)?;
        hit::<A>(&mut stage, &request(), 2)?;
        hit::<A>(&mut stage, &other, 1)?;
    }
    sched_setaffinity(None, &all)?;
    let cpus = cpus.len() as u64;
    expect(
        &stage,
        [
            ((FRONTEND, BACKEND), inwards::<A>(2 * cpus)),
            ((pair.frontend, pair.backend), inwards::<A>(cpus)),
        ],
    )
}

fn backend_goes<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let pair = rival()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    hit::<A>(&mut stage, &request(), 3)?;
    for _ in 0..2 {
        stage.datapath.maps.carried.forget(|_| true, |id| id != BACKEND)?;
        expect(&stage, [((FRONTEND, 0), inwards::<A>(3))])?;
    }
    // What the CPU still has in its slot comes out as nothing when another needs that.
    let other = put_rival::<A>(&mut stage, pair)?;
    hit::<A>(&mut stage, &other, 1)?;
    let rival = ((pair.frontend, pair.backend), inwards::<A>(1));
    expect(&stage, [((FRONTEND, 0), inwards::<A>(3)), rival])?;
    stage.datapath.maps.carried.forget(|_| true, |id| id != BACKEND)?;
    expect(&stage, [((FRONTEND, 0), inwards::<A>(3)), rival])
}

fn next_owner<A: Net>() -> anyhow::Result<()> {
    let mut stage = Stage::new()?;
    let pair = rival()?;
    put::<A>(&mut stage, &request(), |_| {})?;
    hit::<A>(&mut stage, &request(), 3)?;
    // Some of it in `served`, some in a slot.
    let other = put_rival::<A>(&mut stage, pair)?;
    hit::<A>(&mut stage, &other, 1)?;
    hit::<A>(&mut stage, &request(), 3)?;
    stage.datapath.maps.carried.forget(|id| id != FRONTEND, |_| true)?;
    let rival = ((pair.frontend, pair.backend), inwards::<A>(1));
    expect(&stage, [rival])?;
    hit::<A>(&mut stage, &request(), 2)?;
    expect(&stage, [((FRONTEND, stage::BACKEND), inwards::<A>(2)), rival])
}
