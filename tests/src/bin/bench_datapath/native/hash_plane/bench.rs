//! The loaded programs, and one measurement of a row.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, Xdp},
};

use super::{
    super::{
        clock,
        rows::Family,
        shape::{self, STEP, Words},
    },
    rows::{EACH, Kind, Row, Way},
    scene::Scene,
};
use crate::{
    frames::Packet,
    packets::{Net, difference},
    template::{PAYLOAD, Template},
};

const REPEAT: u32 = 200_000;
const PASS: i32 = 2;
const TX: i32 = 3;
const REDIRECT: i32 = 4;
/// Growth of a frame that a test run may return.
const GROWTH: usize = 64;
/// The port of every client whose flow has a number of 16 bits; its first two bits are 10.
const PORT: u16 = 40_000;

/// Everything that rows need.
pub(super) struct Bench {
    ladder: Ebpf,
    template: Array<MapData, Words>,
    /// That of tc, from which entries of the rung are made.
    filling: Array<MapData, Words>,
    tested: ProgramArray<MapData>,
    /// Makes no entries.
    stateless: Scene,
    /// Has an entry of each flow.
    cached: Scene,
    /// Makes entries all the time.
    new: Scene,
    /// Packets of flows that were new.
    cursor: u32,
}

impl Bench {
    /// Loads everything and makes the entries that the rows need.
    pub(super) fn new(object: &Path, rows: &[Row]) -> Result<Self> {
        let mut ladder = EbpfLoader::new()
            .btf(None)
            .load_file(object)
            .with_context(|| format!("load {}", object.display()))?;
        for (name, program) in ladder.programs_mut() {
            // The others are for tc.
            let Ok(program) = <&mut Xdp>::try_from(program) else { continue };
            program.load().with_context(|| format!("load the rung {name}"))?;
        }
        let mut map = |name| ladder.take_map(name).with_context(|| format!("no map {name}"));
        let template = map("xdp_template")?.try_into()?;
        let filling = map("template")?.try_into()?;
        let tested = map("xdp_tested")?.try_into()?;
        let mut bench = Self {
            ladder,
            template,
            filling,
            tested,
            stateless: Scene::new(0)?,
            cached: Scene::new(u32::MAX)?,
            new: Scene::new(u32::MAX)?,
            cursor: 0,
        };
        let most = rows.iter().filter(|row| row.flows == 1 << 16);
        for row in most.chain(rows.iter().filter(|row| row.way == Way::Redirect)) {
            bench.fill(row).with_context(|| format!("fill for {row}"))?;
        }
        for row in rows {
            bench.check(row).with_context(|| format!("check {row}"))?;
        }
        Ok(bench)
    }

    /// Instructions and bytes of machine code of the program that a row is about.
    pub(super) fn size(&self, row: &Row) -> Result<(u32, u32)> {
        match self.scene(row) {
            Some(scene) => Ok(scene.program()?.1),
            None => {
                let info = self.rung(&tested_name(row))?.info()?;
                Ok((info.size_translated().unwrap_or(0) / 8, info.size_jitted()))
            }
        }
    }

    /// Runs a row's program many times; returns nanoseconds of CPU time a run.
    pub(super) fn measure(&mut self, row: &Row) -> Result<f64> {
        let before = self.counted(row)?;
        self.set(row, STEP)?;
        let start = clock::cpu();
        let (action, _) = self.run(row, REPEAT)?;
        let time = clock::cpu() - start;
        ensure!(action == wanted_action(row), "it returned {action}");
        let counted = self.counted(row)?.wrapping_sub(before);
        let wanted = if row.reason().is_some() { REPEAT.into() } else { 0 };
        ensure!(counted == wanted, "{counted} of {wanted} packets counted as they should");
        Ok(time / f64::from(REPEAT))
    }

    fn counted(&self, row: &Row) -> Result<u64> {
        match self.scene(row).zip(row.reason()) {
            Some((scene, reason)) => scene.counted(reason),
            None => Ok(0),
        }
    }

    /// The hash plane that a row is about.
    fn scene(&self, row: &Row) -> Option<&Scene> {
        match row.kind {
            Kind::Cached => Some(&self.cached),
            Kind::New | Kind::Renewed => Some(&self.new),
            Kind::Stateless => Some(&self.stateless),
            Kind::Loop | Kind::Nothing | Kind::Grow | Kind::Lru => None,
        }
    }

    fn rung(&self, name: &str) -> Result<&Xdp> {
        let program = self.ladder.program(name).with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    /// Puts the row's template and program in place.
    fn set(&mut self, row: &Row, step: u32) -> Result<()> {
        let frame = frame_of(row, 0);
        let of_frame = match row.family {
            Family::V4 => shape::of_frame::<[u8; 4]>(&frame),
            Family::V6 => shape::of_frame::<[u8; 16]>(&frame),
        };
        let template = Template { mask: row.flows - 1, step, cursor: self.cursor, ..of_frame };
        self.template.set(0, shape::words(&template), 0)?;
        self.filling.set(0, shape::words(&template), 0)?;
        let program = match self.scene(row) {
            Some(scene) => scene.program()?.0,
            None => self.rung(&tested_name(row))?.fd()?.try_clone()?,
        };
        self.test(&program)
    }

    fn test(&mut self, program: &ProgramFd) -> Result<()> {
        Ok(self.tested.set(0, program, 0)?)
    }

    /// Runs what is in place; returns the action of the last run, and what it made of the frame.
    fn run(&mut self, row: &Row, repeat: u32) -> Result<(i32, Vec<u8>)> {
        let frame = frame_of(row, 0);
        let name = match row.kind {
            Kind::Loop => "xdp_empty".to_owned(),
            _ => format!("xdp_restore{}", row.family.digit()),
        };
        let program = self.ladder.program_mut(&name).with_context(|| format!("no {name}"))?;
        let program: &mut Xdp = program.try_into()?;
        let mut output = vec![0; frame.len() + GROWTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.data_out = Some(&mut output);
        options.repeat = repeat;
        let result = program.test_run(options)?;
        output.truncate(result.data_size_out as usize);
        // The next packet is of a flow of its own.
        self.cursor = self.cursor.wrapping_add(repeat);
        Ok((result.return_value as i32, output))
    }

    /// Runs one packet, and compares what came out.
    fn check(&mut self, row: &Row) -> Result<()> {
        let flow = self.cursor.wrapping_mul(STEP) & (row.flows - 1);
        self.set(row, STEP)?;
        let (action, output) = self.run(row, 1)?;
        ensure!(action == wanted_action(row), "it returned {action}");
        let wanted = match row.family {
            Family::V4 => self.expected::<[u8; 4]>(row, flow)?,
            Family::V6 => self.expected::<[u8; 16]>(row, flow)?,
        };
        // What making room leaves there is nobody's business.
        let is_same = row.kind == Kind::Grow || output == wanted;
        ensure!(is_same, "{}", difference(&output, &wanted));
        Ok(())
    }

    fn expected<A: Net>(&self, row: &Row, flow: u32) -> Result<Vec<u8>> {
        let packet = packet::<A>(row, if row.kind == Kind::Loop { 0 } else { flow });
        match self.scene(row) {
            Some(scene) => scene.sent(row.way, &packet),
            None => Ok(packet.frame()),
        }
    }

    /// Makes the entries of a row, in another order than they are read in.
    fn fill(&mut self, row: &Row) -> Result<()> {
        self.set(row, 1)?;
        match row.kind {
            Kind::Lru => {
                let name = format!("xdp_fill{}", row.family.digit());
                let program = self.rung(&name)?.fd()?.try_clone()?;
                self.test(&program)?;
            }
            Kind::Cached => {}
            _ => return Ok(()),
        }
        let (action, _) = self.run(row, row.flows)?;
        ensure!(action == wanted_action(row), "the entries were refused: {action}");
        Ok(())
    }
}

fn wanted_action(row: &Row) -> i32 {
    match (row.reason(), row.way) {
        (None, _) => PASS,
        (_, Way::Redirect) => REDIRECT,
        _ => TX,
    }
}

/// The packet of a flow.
fn packet<A: Net>(row: &Row, flow: u32) -> Packet<A> {
    debug_assert!(flow < EACH, "more flows than fit address and port");
    Packet {
        source: (A::client(flow as u16), PORT ^ (flow >> 16) as u16),
        destination: (A::VIP, row.way.port()),
        payload: vec![b'0'; PAYLOAD],
        ..Packet::new(row.l4())
    }
}

fn frame_of(row: &Row, flow: u32) -> Vec<u8> {
    match row.family {
        Family::V4 => packet::<[u8; 4]>(row, flow).frame(),
        Family::V6 => packet::<[u8; 16]>(row, flow).frame(),
    }
}

/// The name of the rung that a row is about.
fn tested_name(row: &Row) -> String {
    match row.kind {
        Kind::Lru => format!("xdp_lru{}", row.family.digit()),
        Kind::Grow => format!("xdp_grow{}", row.family.digit()),
        _ => "xdp_empty".to_owned(),
    }
}
