//! Loads the programs beside the pinned maps.

use std::{path::PathBuf, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, SchedClassifier, Xdp},
};
use proxy_common::abi::{self, MAPS, MapSpec, Setting, capacity};

use super::{Error, Hook, Maps, PinDirectory, jiffy};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/passlane.bpf.o"));

/// The program for uplinks.
pub(super) const TRANSIT: &str = "xdp_up";
/// The program that tells the kernel's clock.
pub(super) const CLOCK: &str = "clock";

/// How to load the datapath.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Directory for pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Capacity of the flow map of either family: two entries a connection.
    pub flow_entries: u32,
    /// The node has IPv6; the flow map of IPv6 is as small as can be without.
    pub ipv6: bool,
    /// New entries a second that the clients of one interface may cause.
    pub install_rate: u32,
    /// After this time one packet of a flow renews the lease by the slow path.
    pub soft_lease: Duration,
    /// After this time no packet of a flow takes the fast path.
    pub hard_lease: Duration,
    /// Log what is learned.
    pub log: bool,
}

/// The loaded programs and their maps.
pub struct Datapath {
    pub(super) programs: Ebpf,
    pub(super) pins: PinDirectory,
    /// The pinned maps.
    pub maps: Maps,
}

impl LoadOptions {
    /// Returns the capacity a map shall have.
    pub fn capacity(&self, spec: &MapSpec) -> u32 {
        match spec.name {
            name if name == abi::IPV4.flows.name => self.flow_entries,
            name if name == abi::IPV6.flows.name => {
                if self.ipv6 {
                    self.flow_entries
                } else {
                    capacity::LEAST_FLOWS
                }
            }
            _ => spec.max_entries,
        }
    }
}

impl Datapath {
    /// Loads the programs. Pinned maps of the right shape are kept, with everything in them; the
    /// programs that run go on until [`Datapath::attach`] replaces them.
    ///
    /// # Errors
    ///
    /// [`Error::PinMismatch`] when a pin holds another map; everything the kernel refuses.
    pub fn load(options: &LoadOptions) -> Result<Self, Error> {
        let pins = PinDirectory::prepare(&options.bpffs)?;
        if let Some(mismatch) = pins.mismatches(|spec| options.capacity(spec)).into_iter().next() {
            return Err(Error::PinMismatch(Box::new(mismatch)));
        }
        let mut programs = load_object(options, &pins)?;
        for hook in Hook::BOTH {
            classifier(&mut programs, hook.program())?.load().map_err(|source| Error::Program {
                operation: "load",
                program: hook.program(),
                interface: "-".into(),
                source: Box::new(source),
            })?;
        }
        for name in [TRANSIT, CLOCK] {
            xdp(&mut programs, name)?.load().map_err(|source| Error::Program {
                operation: "load",
                program: name,
                interface: "-".into(),
                source: Box::new(source),
            })?;
        }
        if options.log
            && let Err(error) = aya_log::EbpfLogger::init(&mut programs)
        {
            tracing::warn!(event = "datapath_log_off", %error, "the datapath's log is not available");
        }
        let maps = Maps::open(&pins)?;
        Ok(Self { programs, pins, maps })
    }

    /// Returns how many instructions the verifier went through, by program (Linux 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        verified_instructions(&self.programs)
    }

    /// Returns the ids of the two programs, to tell them from foreign ones.
    pub fn program_ids(&self) -> Vec<u32> {
        self.programs
            .programs()
            .filter_map(|(_, program)| Some(program.info().ok()?.id()))
            .collect()
    }
}

fn load_object(options: &LoadOptions, pins: &PinDirectory) -> Result<Ebpf, Error> {
    let tick = jiffy()?;
    let jiffies = |time: Duration| (time.as_nanos() / tick.as_nanos().max(1)) as u32;
    let soft = jiffies(options.soft_lease);
    let hard = jiffies(options.hard_lease);
    let election = (soft / 6).max(1);
    let second = jiffies(Duration::from_secs(1));
    let log_level: u8 = if options.log { 4 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        // Nothing in the object depends on the kernel's types, and parsing them takes seconds on a
        // slow machine.
        .btf(None)
        .override_global(Setting::SOFT_LEASE, &soft, true)
        .override_global(Setting::HARD_LEASE, &hard, true)
        .override_global(Setting::ELECTION, &election, true)
        .override_global(Setting::SECOND, &second, true)
        .override_global(Setting::INSTALL_RATE, &options.install_rate, true)
        .override_global(Setting::LOG_LEVEL, &log_level, true);
    for spec in &MAPS {
        loader.map_pin_path(spec.name, pins.map(spec.name));
        loader.map_max_entries(spec.name, options.capacity(spec));
    }
    loader.load(OBJECT).map_err(|source| Error::Load(Box::new(source)))
}

/// Returns how many instructions the verifier went through, by program (Linux 5.16).
pub(super) fn verified_instructions(programs: &Ebpf) -> Vec<(String, u32)> {
    let count = |(name, program): (&str, &Program)| {
        Some((name.to_owned(), program.info().ok()?.verified_instruction_count()?))
    };
    programs.programs().filter_map(count).collect()
}

/// Returns a program for tc.
pub(super) fn classifier<'a>(
    programs: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, Error> {
    let missing = Error::Missing { kind: "program", name };
    match programs.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(missing),
    }
}

/// Returns an XDP program.
pub(super) fn xdp<'a>(programs: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, Error> {
    let missing = Error::Missing { kind: "program", name };
    match programs.program_mut(name).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(missing),
    }
}
