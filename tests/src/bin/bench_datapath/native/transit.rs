//! Transit by XDP: an XDP program cannot be restored before by a tc program, so here two flows undo
//! each other, and each run meets what the last one made. What is subtracted is a program that reads
//! the clock, which costs next to nothing.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, Result, ensure};
use proxy_common::{
    abi::{FlowFlags, Uplink},
    reason::Reason,
};

use super::{clock, times::Cost};
use crate::{
    packets::{ACK, L4, Net, Plain},
    stage::{Stage, entry, key},
};

/// Even, so that the frame comes out as it went in.
const REPEAT: u32 = 200_000;
/// No entry may grow old during the bench.
const LEASE: Duration = Duration::from_hours(24);
/// The index of the loopback device, whose MAC address is all zero.
const LOOPBACK: u32 = 1;
const REDIRECT: i32 = 4;
const ROWS: [(&str, char, L4); 4] = [
    ("XDP transit, TCP", '4', ACK),
    ("XDP transit, UDP", '4', L4::Udp),
    ("XDP transit, TCP", '6', ACK),
    ("XDP transit, UDP", '6', L4::Udp),
];

/// The loaded program with its flows, and what was measured so far.
pub(crate) struct Transit {
    stage: Stage,
    nothing: Vec<f64>,
    times: [Vec<f64>; ROWS.len()],
}

impl Transit {
    pub(crate) fn new() -> Result<Self> {
        let mut stage = Stage::with(|options| {
            options.soft_lease = LEASE;
            options.hard_lease = 2 * LEASE;
        })?;
        stage.datapath.maps.put_uplink(Uplink { interface: LOOPBACK, ..Uplink::default() })?;
        for l4 in [ACK, L4::Udp] {
            put_pair::<[u8; 4]>(&mut stage, l4)?;
            put_pair::<[u8; 16]>(&mut stage, l4)?;
        }
        Ok(Self { stage, nothing: Vec::new(), times: Default::default() })
    }

    /// Measures every row once more.
    pub(crate) fn measure(&mut self) -> Result<()> {
        let datapath = &mut self.stage.datapath;
        self.nothing
            .push(timed(|| Ok(datapath.repeat_clock(&pair::<[u8; 4]>(ACK)[0].frame(), REPEAT)?))?);
        for ((name, digit, l4), times) in ROWS.iter().zip(&mut self.times) {
            let frame = match digit {
                '4' => pair::<[u8; 4]>(*l4)[0].frame(),
                _ => pair::<[u8; 16]>(*l4)[0].frame(),
            };
            let before = self.stage.count(Reason::XdpHit);
            let mut output = None;
            let datapath = &mut self.stage.datapath;
            times.push(timed(|| {
                output = Some(datapath.repeat_transit(LOOPBACK, &frame, REPEAT)?);
                Ok(())
            })?);
            let output = output.context("nothing came out")?;
            ensure!(output.action == REDIRECT, "{name}, IPv{digit}: it returned {}", output.action);
            ensure!(
                output.packet == frame,
                "{name}, IPv{digit}: two flows did not undo each other"
            );
            let counted = self.stage.count(Reason::XdpHit).wrapping_sub(before);
            ensure!(
                counted == u64::from(REPEAT),
                "{name}, IPv{digit}: {counted} of {REPEAT} were hits"
            );
        }
        Ok(())
    }

    /// Returns a line for each row, and the least of TCP over IPv4.
    pub(crate) fn lines(self) -> (String, f64) {
        let nothing = Cost::of(self.nothing);
        let costs = self.times.map(|times| Cost::of(times).without(nothing));
        let mut text = String::new();
        for ((name, digit, _), cost) in ROWS.iter().zip(&costs) {
            let Cost { min, median } = cost;
            let _ = writeln!(text, "{name:26} {digit:>4} {:>6} {min:>8.1} {median:>8.1}", 1);
        }
        let [first, ..] = costs;
        (text, first.min)
    }
}

/// A packet and what the flow of it makes of it: for the same MAC address again.
fn pair<A: Net>(l4: L4) -> [Plain<A>; 2] {
    let packet = Plain { payload: b"0123456789".to_vec(), ..Plain::request(l4) };
    let other = Plain { destination: (A::POD, 8080), ..packet.clone() };
    [packet, other]
}

fn put_pair<A: Net>(stage: &mut Stage, l4: L4) -> Result<()> {
    let [packet, other] = pair::<A>(l4);
    for (from, to) in [(&packet, &other), (&other, &packet)] {
        let mut flow = entry(from, to);
        flow.transform.flags = FlowFlags::TRANSIT;
        stage.put(key(from), flow)?;
    }
    Ok(())
}

/// Returns nanoseconds of CPU time a run.
fn timed(run: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = clock::cpu();
    run()?;
    Ok((clock::cpu() - start) / f64::from(REPEAT))
}
