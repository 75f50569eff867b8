//! Loads the program beside its pinned maps.

use std::{fs, path::PathBuf, time::Duration};

use aya::{Ebpf, EbpfLoader, programs::ProgramError};
use proxy_common::{
    abi::{self, HASH_MAPS, HashSetting, MapSpec, hash_capacity},
    hash::mh::Size,
};

use rustix::rand::GetRandomFlags;

use super::{
    super::{
        Error, PinDirectory, jiffy,
        load::{CLOCK, classifier, verified_instructions, xdp},
    },
    HashMaps,
};
use crate::model::HashMode;

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb.bpf.o"));

/// The program at XDP, and at tc.
pub(super) const XDP: &str = "xdp_lb";
pub(in crate::kernel::bpf) const TC: &str = "tc_lb";
/// Those that take over flows of IPv4 and of IPv6.
pub(super) const ADOPT4: &str = "adopt4";
pub(super) const ADOPT6: &str = "adopt6";

/// How to load the hash plane.
#[derive(Clone, Debug)]
pub struct HashPlaneOptions {
    /// Directory for pins, on a bpffs.
    pub bpffs: PathBuf,
    /// Where the program runs.
    pub mode: HashMode,
    /// Flows of either family that have room.
    pub flow_entries: u32,
    /// The node has IPv6; the flow map of IPv6 is as small as can be without.
    pub ipv6: bool,
    /// Size of the kernel's tables of scheduler `mh`.
    pub size: Size,
    /// After this time without a packet a TCP flow is over.
    pub tcp_timeout: Duration,
    /// The same after a FIN or RST of the client.
    pub closing_timeout: Duration,
    /// The same of UDP.
    pub udp_timeout: Duration,
    /// Flow entries that a CPU makes in a second.
    pub new_flows: u32,
}

/// The loaded program and its maps.
pub struct HashPlane {
    pub(super) programs: Ebpf,
    pub(super) pins: PinDirectory,
    pub(super) mode: HashMode,
    /// The pinned maps.
    pub maps: HashMaps,
}

impl HashPlaneOptions {
    /// Returns the capacity a map shall have.
    pub fn capacity(&self, spec: &MapSpec) -> u32 {
        let six = if self.ipv6 { self.flow_entries } else { hash_capacity::LEAST_FLOWS };
        let name = spec.name;
        let is = |maps: [MapSpec; 2]| maps.iter().any(|map| map.name == name);
        let sets = hash_capacity::sets(if name.ends_with('6') { six } else { self.flow_entries });
        match name {
            _ if is([abi::HASH_FLOWS4, abi::HASH_FLOWS6]) => sets,
            _ if is([abi::HASH_TAGS4, abi::HASH_TAGS6]) => sets / hash_capacity::TAGGED,
            _ => spec.max_entries,
        }
    }

    fn settings(&self) -> Result<[(&'static str, u32); 8], Error> {
        let tick = jiffy()?;
        let jiffies = |time: Duration| {
            let jiffies = time.as_nanos() / tick.as_nanos().max(1);
            u32::try_from(jiffies).unwrap_or(u32::MAX >> 1)
        };
        Ok([
            (HashSetting::SLOTS, self.size.slots()),
            (HashSetting::TCP_TIMEOUT, jiffies(self.tcp_timeout)),
            (HashSetting::CLOSING_TIMEOUT, jiffies(self.closing_timeout)),
            (HashSetting::UDP_TIMEOUT, jiffies(self.udp_timeout)),
            (HashSetting::SECOND, jiffies(Duration::from_secs(1))),
            (HashSetting::NEW_FLOWS, self.new_flows),
            (HashSetting::MASK4, self.capacity(&abi::HASH_FLOWS4) - 1),
            (HashSetting::MASK6, self.capacity(&abi::HASH_FLOWS6) - 1),
        ])
    }
}

/// Returns what no client can know.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // The kernel has randomness long before it has XDP; without, places can be known, no more.
    let _ = rustix::rand::getrandom(&mut bytes, GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes)
}

impl HashPlane {
    /// Loads the program. Pinned maps of the right shape are kept, with everything in them; a program
    /// that runs goes on until [`HashPlane::attach`] replaces it.
    ///
    /// # Errors
    ///
    /// [`Error::PinMismatch`] when a pin holds another map; everything the kernel refuses.
    pub fn load(options: &HashPlaneOptions) -> Result<Self, Error> {
        let pins = PinDirectory::prepare(&options.bpffs)?;
        let directory = pins.hash();
        fs::create_dir_all(&directory)
            .map_err(|source| Error::PinDirectory { path: directory.clone(), source })?;
        let mismatches = pins.hash_mismatches(|spec| options.capacity(spec));
        if let Some(mismatch) = mismatches.into_iter().next() {
            return Err(Error::PinMismatch(Box::new(mismatch)));
        }
        let mut programs = load_object(options, &pins)?;
        let failed = |program| {
            move |source: ProgramError| Error::Program {
                operation: "load",
                program,
                interface: "-".into(),
                source: Box::new(source),
            }
        };
        match options.mode {
            HashMode::Tc => classifier(&mut programs, TC)?.load().map_err(failed(TC))?,
            _ => xdp(&mut programs, XDP)?.load().map_err(failed(XDP))?,
        }
        for name in [CLOCK, ADOPT4, ADOPT6] {
            xdp(&mut programs, name)?.load().map_err(failed(name))?;
        }
        let mut maps = HashMaps::open(&pins)?;
        maps.sow(random)?;
        Ok(Self { programs, pins, mode: options.mode, maps })
    }

    /// Returns how many instructions the verifier went through, by program (Linux 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        verified_instructions(&self.programs)
    }

    /// Returns the id of the program, to tell it from foreign ones.
    pub fn program_id(&self) -> Option<u32> {
        let name = if self.mode == HashMode::Tc { TC } else { XDP };
        Some(self.programs.program(name)?.info().ok()?.id())
    }
}

fn load_object(options: &HashPlaneOptions, pins: &PinDirectory) -> Result<Ebpf, Error> {
    let settings = options.settings()?;
    let mut loader = EbpfLoader::new();
    // Nothing in the object depends on the kernel's types.
    loader.btf(None);
    for (name, value) in &settings {
        loader.override_global(name, value, true);
    }
    for spec in &HASH_MAPS {
        loader.map_pin_path(spec.name, pins.hash_map(spec.name));
        loader.map_max_entries(spec.name, options.capacity(spec));
    }
    loader.load(OBJECT).map_err(|source| Error::Load(Box::new(source)))
}
