//! The flows that the program remembers: read as the agent finds them, written by the kernel.

use std::{io, path::Path};

use aya::{
    TestRunOptions,
    maps::{Array, Map, MapData, MapError},
};
use proxy_common::{
    abi::{Addr, HASH_FLOWS4, HASH_FLOWS6, HASH_SEED, HashFlow, HashFlowEntry, HashFlowKey},
    flow_place::Place,
};

use super::{
    super::{Entries, Error, maps::failed, run::run_xdp},
    HashPlane,
    load::{ADOPT4, ADOPT6},
    mapped::Mapped,
};

/// `XDP_PASS`: written.
const PASS: u32 = 2;

/// Returns the flows of a pinned map.
pub(in crate::kernel::bpf) fn read_pinned<A: Addr>(
    pin: &Path,
    name: &'static str,
) -> Result<Entries<HashFlowKey<A>, HashFlow>, Error> {
    let open = |pin: &Path| MapData::from_pin(pin).map_err(failed("open", name));
    // The seed is pinned beside them.
    let seed = Map::Array(open(&pin.with_file_name(HASH_SEED.name))?);
    let seed: Array<MapData, u64> = seed.try_into().map_err(failed("open", HASH_SEED.name))?;
    let seed = seed.get(&0, 0).map_err(failed("read", HASH_SEED.name))?;
    Ok(read(&Mapped::open(&open(pin)?, name)?, seed))
}

/// Returns the flows of a map.
pub(super) fn read<A: Addr>(map: &Mapped<A>, seed: u64) -> Entries<HashFlowKey<A>, HashFlow> {
    let mut flows = Vec::new();
    map.each(|entry| {
        if holds(&entry, seed) {
            flows.push((entry.key(), entry.flow()));
        }
    });
    flows
}

/// Says whether an entry is of a flow, and whole.
fn holds<A: Addr>(entry: &HashFlowEntry<A>, seed: u64) -> bool {
    let [low, middle, high] = entry.proof;
    entry.generation != 0
        && place(entry, seed).proof(entry.backend, entry.generation)
            == u32::from_le_bytes([low, middle, high, 0])
}

fn place<A: Addr>(entry: &HashFlowEntry<A>, seed: u64) -> Place {
    let ports = u32::from(entry.source_port) | u32::from(entry.destination_port) << 16;
    let (source, destination) = (entry.source.words(), entry.destination.words());
    Place::of(source.as_ref(), destination.as_ref(), ports, entry.protocol.into(), seed)
}

impl HashPlane {
    /// Puts the entry of a flow that IPVS knows.
    ///
    /// # Errors
    ///
    /// [`Error::Program`] when the kernel cannot run the program that writes it, or that refuses.
    pub fn put_flow4(&mut self, key: HashFlowKey<[u8; 4]>, flow: HashFlow) -> Result<(), Error> {
        self.adopt(ADOPT4, HASH_FLOWS4.name, &bytes(key, flow))
    }

    /// The same of IPv6.
    ///
    /// # Errors
    ///
    /// As of [`Self::put_flow4`].
    pub fn put_flow6(&mut self, key: HashFlowKey<[u8; 16]>, flow: HashFlow) -> Result<(), Error> {
        self.adopt(ADOPT6, HASH_FLOWS6.name, &bytes(key, flow))
    }

    /// Removes the entry of a flow; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// As of [`Self::put_flow4`].
    pub fn remove_flow4(&mut self, key: HashFlowKey<[u8; 4]>) -> Result<(), Error> {
        self.put_flow4(key, HashFlow::default())
    }

    /// The same of IPv6.
    ///
    /// # Errors
    ///
    /// As of [`Self::put_flow4`].
    pub fn remove_flow6(&mut self, key: HashFlowKey<[u8; 16]>) -> Result<(), Error> {
        self.put_flow6(key, HashFlow::default())
    }

    fn adopt(
        &mut self,
        program: &'static str,
        map: &'static str,
        entry: &[u8],
    ) -> Result<(), Error> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(entry);
        match run_xdp(&mut self.programs, program, options)?.return_value {
            PASS => Ok(()),
            _ => Err(failed("put", map)(MapError::IoError(io::ErrorKind::InvalidInput.into()))),
        }
    }
}

/// Returns an entry as it lies in memory; the program adds the proof.
fn bytes<A: Addr>(key: HashFlowKey<A>, flow: HashFlow) -> Vec<u8> {
    let ports = u32::from(key.source_port) | u32::from(key.destination_port) << 16;
    let HashFlow { backend, generation, seen, state } = flow;
    let rest = [ports, key.protocol.into(), backend, generation, seen, state];
    let (source, destination) = (key.source.words(), key.destination.words());
    let words = source.as_ref().iter().chain(destination.as_ref()).chain(&rest);
    words.flat_map(|word| word.to_ne_bytes()).collect()
}
