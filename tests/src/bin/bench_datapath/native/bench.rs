//! The loaded programs, and one measurement of a row.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun, TestRunOptions,
    maps::{Array, MapData, ProgramArray},
    programs::{ProgramFd, ProgramInfo, SchedClassifier, loaded_programs},
};
use proxy_common::abi::Interface;
use proxy_userspace::kernel::bpf::{Hook, PinDirectory};

use super::{
    clock,
    rows::{Family, LRU, Row, Tested, Traffic},
    shape::{self, TOKEN, Words},
};
use crate::{
    packets::{Net, Plain, difference},
    stage::{Stage, entry, key, translated},
};

const REPEAT: u32 = 200_000;
const REDIRECT: i32 = 7;
/// No entry may grow old during the bench.
const LEASE: Duration = Duration::from_hours(24);
/// Of the flow maps, the rungs' and the datapath's: that of a node as it is installed.
const FLOW_ENTRIES: u32 = proxy_common::abi::capacity::FLOWS;

/// Everything that rows need.
pub(crate) struct Bench {
    stage: Stage,
    ladder: Ebpf,
    template: Array<MapData, Words>,
    tested: ProgramArray<MapData>,
    /// Programs by name.
    programs: BTreeMap<String, ProgramFd>,
    /// Instructions and bytes of machine code, by name.
    sizes: BTreeMap<String, (u32, u32)>,
}

impl Bench {
    /// Loads rungs and datapath and makes the entries that the rows need.
    pub(crate) fn new(object: &Path, rows: &[Row]) -> Result<Self> {
        let mut pins = None;
        let stage = Stage::with(|options| {
            options.flow_entries = FLOW_ENTRIES;
            options.soft_lease = LEASE;
            options.hard_lease = 2 * LEASE;
            pins = Some(PinDirectory::at(&options.bpffs));
        })?;
        let mut ladder = load_ladder(object, &pins.context("the stage took options")?)?;
        let (programs, sizes) = programs(&stage, &mut ladder)?;
        let map = |name| ladder.take_map(name).with_context(|| format!("no map {name}"));
        let mut map = map;
        let template = map("template")?.try_into()?;
        let tested = map("tested")?.try_into()?;
        let mut bench = Self { stage, ladder, template, tested, programs, sizes };
        bench.set_slots()?;
        let interface = Interface { mtu: 1500, ..Interface::default() };
        bench.stage.datapath.maps.put_interface(1, interface)?;
        bench.put_flows::<[u8; 4]>()?;
        bench.put_flows::<[u8; 16]>()?;
        for row in rows.iter().filter(|row| row.name == LRU) {
            bench.fill(row).with_context(|| format!("fill for {row}"))?;
        }
        for row in rows {
            bench.check(row).with_context(|| format!("check {row}"))?;
        }
        Ok(bench)
    }

    /// Instructions and bytes of machine code of the program that a row is about.
    pub(crate) fn size(&self, row: &Row) -> Option<(u32, u32)> {
        self.sizes.get(&tested_name(row)).copied()
    }

    /// Runs a row's program many times; returns nanoseconds of CPU time a run.
    pub(crate) fn measure(&mut self, row: &Row) -> Result<f64> {
        let before = self.counted(row);
        self.set(row, 0)?;
        let start = clock::cpu();
        let action = self.run(row, REPEAT, None)?;
        let time = clock::cpu() - start;
        ensure!(action == row.action, "it returned {action} instead of {}", row.action);
        let counted = self.counted(row).wrapping_sub(before);
        let wanted = if matches!(row.tested, Tested::Datapath(..)) { REPEAT.into() } else { 0 };
        ensure!(counted == wanted, "{counted} of {wanted} packets counted as they should");
        Ok(time / f64::from(REPEAT))
    }

    /// Packets that the datapath counted under the row's reason.
    fn counted(&self, row: &Row) -> u64 {
        match row.tested {
            Tested::Datapath(_, reason) => self.stage.count(reason),
            _ => 0,
        }
    }

    /// Puts the row's template and program in place.
    fn set(&mut self, row: &Row, cursor: u32) -> Result<()> {
        let template = match row.family {
            Family::V4 => shape::template::<[u8; 4]>(row, cursor),
            Family::V6 => shape::template::<[u8; 16]>(row, cursor),
        };
        self.template.set(0, shape::words(&template), 0)?;
        self.test(&tested_name(row))
    }

    fn test(&mut self, name: &str) -> Result<()> {
        let program = self.programs.get(name).with_context(|| format!("no program {name}"))?;
        Ok(self.tested.set(0, program, 0)?)
    }

    /// Runs what is in place; returns the action of the last run.
    fn run(&mut self, row: &Row, repeat: u32, output: Option<&mut Vec<u8>>) -> Result<i32> {
        let frame = match row.family {
            Family::V4 => shape::seen::<[u8; 4]>(row.traffic, 0).frame(),
            Family::V6 => shape::seen::<[u8; 16]>(row.traffic, 0).frame(),
        };
        let name = match row.tested {
            Tested::Loop => "empty".to_owned(),
            _ => format!("{}{}", row.traffic.restoring(), row.family.digit()),
        };
        let program = self.ladder.program_mut(&name).with_context(|| format!("no {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&frame);
        options.repeat = repeat;
        let mut packet = vec![0; frame.len() + 64];
        if output.is_some() {
            options.data_out = Some(&mut packet);
        }
        let result = program.test_run(options)?;
        if let Some(output) = output {
            packet.truncate(result.data_size_out as usize);
            *output = packet;
        }
        Ok(result.return_value as i32)
    }

    /// Runs one packet of another flow than the first, and compares what came out.
    fn check(&mut self, row: &Row) -> Result<()> {
        const CURSOR: u32 = 12_345;
        self.set(row, CURSOR)?;
        let mut output = Vec::new();
        let action = self.run(row, 1, Some(&mut output))?;
        ensure!(action == row.action, "it returned {action} instead of {}", row.action);
        let flow = if row.tested == Tested::Loop { 0 } else { shape::flow_at(row, CURSOR) };
        let wanted = match row.family {
            Family::V4 => expected::<[u8; 4]>(row, flow),
            Family::V6 => expected::<[u8; 16]>(row, flow),
        };
        ensure!(output == wanted, "{}", difference(&output, &wanted));
        Ok(())
    }

    /// Makes the entries of a rung, in another order than they are read in.
    fn fill(&mut self, row: &Row) -> Result<()> {
        self.set(row, 0)?;
        let mut words: Words = self.template.get(&0, 0)?;
        if let Some(step) = words.get_mut(std::mem::offset_of!(crate::template::Template, step) / 4)
        {
            *step = 1;
        }
        self.template.set(0, words, 0)?;
        self.test(&format!("fill{}", row.family.digit()))?;
        let action = self.run(row, row.flows, None)?;
        ensure!(action == 0, "the entries were refused");
        Ok(())
    }

    /// Makes the datapath's entries.
    fn put_flows<A: Net>(&mut self) -> Result<()> {
        for flow in 0..=u16::MAX {
            let packet: Plain<A> = shape::packet(Traffic::Tcp, flow);
            self.stage.put(key(&packet), entry(&packet, &translated(&packet)))?;
        }
        let packet: Plain<A> = shape::packet(Traffic::Udp, 0);
        self.stage.put(key(&packet), entry(&packet, &translated(&packet)))?;
        self.stage.put(key(&shape::packet::<A>(Traffic::Stamped, 0)), shape::learned())
    }

    /// Fills the slots of the stamped packets.
    fn set_slots(&mut self) -> Result<()> {
        let mut take = |name| self.ladder.take_map(name).with_context(|| format!("no map {name}"));
        let mut slots: Array<_, [u32; 14]> = take("pending4")?.try_into()?;
        slots.set(TOKEN, array(&shape::pending::<[u8; 4]>())?, 0)?;
        let mut slots: Array<_, [u32; 20]> = take("pending6")?.try_into()?;
        slots.set(TOKEN, array(&shape::pending::<[u8; 16]>())?, 0)?;
        Ok(())
    }
}

fn array<const N: usize>(words: &[u32]) -> Result<[u32; N]> {
    words.try_into().with_context(|| format!("{} words for {N}", words.len()))
}

/// The frame that a row's program shall make of a flow's packet.
fn expected<A: Net>(row: &Row, flow: u16) -> Vec<u8> {
    let packet: Plain<A> = shape::seen(row.traffic, flow);
    match row.tested {
        Tested::Datapath(..) if row.action == REDIRECT => translated(&packet).frame(),
        // The rung changes neither TTL nor MAC addresses.
        Tested::Rung(_) if row.action == REDIRECT => {
            Plain { destination: (A::POD, 8080), ..packet }.frame()
        }
        _ => packet.frame(),
    }
}

/// The name of the program that a row is about.
fn tested_name(row: &Row) -> String {
    match row.tested {
        Tested::Loop | Tested::Nothing => "empty".to_owned(),
        Tested::Rung(name) => format!("{name}{}", row.family.digit()),
        Tested::Datapath(hook, _) => hook.program().to_owned(),
    }
}

fn load_ladder(object: &Path, pins: &PinDirectory) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    loader.btf(None);
    for name in ["pending4", "pending6"] {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ladder =
        loader.load_file(object).with_context(|| format!("load {}", object.display()))?;
    for (name, program) in ladder.programs_mut() {
        // The others are for XDP.
        let Ok(program) = <&mut SchedClassifier>::try_from(program) else { continue };
        program.load().with_context(|| format!("load the rung {name}"))?;
    }
    Ok(ladder)
}

type Programs = (BTreeMap<String, ProgramFd>, BTreeMap<String, (u32, u32)>);

/// Returns all programs and their sizes, by name.
fn programs(stage: &Stage, ladder: &mut Ebpf) -> Result<Programs> {
    let (mut programs, mut sizes) = (BTreeMap::new(), BTreeMap::new());
    let mut size = |name: &str, info: &ProgramInfo| {
        let instructions = info.size_translated().unwrap_or(0) / 8;
        sizes.insert(name.to_owned(), (instructions, info.size_jitted()));
    };
    for (name, program) in ladder.programs() {
        let Ok(program) = <&SchedClassifier>::try_from(program) else { continue };
        size(name, &program.info()?);
        programs.insert(name.to_owned(), program.fd()?.try_clone()?);
    }
    let ids = stage.datapath.program_ids();
    for info in loaded_programs() {
        let info = info?;
        let Some(hook) = Hook::BOTH
            .into_iter()
            .find(|hook| ids.contains(&info.id()) && info.name_as_str() == Some(hook.program()))
        else {
            continue;
        };
        size(hook.program(), &info);
        programs.insert(hook.program().to_owned(), info.fd()?);
    }
    Ok((programs, sizes))
}
