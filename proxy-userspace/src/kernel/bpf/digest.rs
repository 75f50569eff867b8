//! A program that walks the maps of frontends and backends in the kernel and sums up what they hold
//! (`bpf_for_each_map_elem`, Linux 5.13). It is run when it is asked, and attached to nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::{
    Ebpf, EbpfLoader, TestRun as _,
    maps::{Array, MapData},
    programs::{RawTracePoint, RawTracePointRunOptions},
};
use proxy_common::abi::{self, DIGEST, Digest};

use super::{
    Error, PinDirectory,
    load::verified_instructions,
    maps::{Abi, failed},
};

/// The object that `cargo xtask build-ebpf` made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/digest.bpf.o"));

const PROGRAM: &str = "sums_maps";

/// The program, and where it leaves the sums of its last run.
pub(super) struct Digester(Mutex<Loaded>);

struct Loaded {
    programs: Ebpf,
    sums: Array<MapData, Abi<Digest>>,
}

impl Digester {
    /// Loads the program for maps that are pinned already.
    pub(super) fn load(pins: &PinDirectory) -> Result<Self, Error> {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for family in [abi::IPV4, abi::IPV6] {
            for name in [family.frontends.name, family.backends.name] {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut programs = loader.load(OBJECT).map_err(|source| Error::Load(Box::new(source)))?;
        program(&mut programs)?.load().map_err(|source| Error::Program {
            operation: "load",
            program: PROGRAM,
            interface: "-".into(),
            source: Box::new(source),
        })?;
        let missing = Error::Missing { kind: "map", name: DIGEST.name };
        let sums = programs.take_map(DIGEST.name).ok_or(missing)?;
        let sums = sums.try_into().map_err(failed("open", DIGEST.name))?;
        Ok(Self(Mutex::new(Loaded { programs, sums })))
    }

    /// Walks the maps and returns the sums. One walk at a time.
    pub(super) fn sums(&self) -> Result<Digest, Error> {
        let mut loaded = self.lock();
        let Loaded { programs, sums } = &mut *loaded;
        let options = RawTracePointRunOptions::default();
        program(programs)?.test_run(options).map_err(|source| Error::Program {
            operation: "run",
            program: PROGRAM,
            interface: "-".into(),
            source: Box::new(source),
        })?;
        let Abi(digest) = sums.get(&0, 0).map_err(failed("read", DIGEST.name))?;
        match digest.refused {
            0 => Ok(digest),
            maps => Err(Error::Unwalked { maps }),
        }
    }

    pub(super) fn verified_instructions(&self) -> Vec<(String, u32)> {
        verified_instructions(&self.lock().programs)
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        // Who panicked left nothing half done here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn program(programs: &mut Ebpf) -> Result<&mut RawTracePoint, Error> {
    match programs.program_mut(PROGRAM).map(TryInto::try_into) {
        Some(Ok(program)) => Ok(program),
        _ => Err(Error::Missing { kind: "program", name: PROGRAM }),
    }
}
