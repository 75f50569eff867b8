//! Typed access to the pinned maps.

use std::{collections::BTreeSet, time::Duration};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray},
};
use proxy_common::{
    abi::{
        self, Backend, Counter, EDITS_INDEX, EPOCH_INDEX, Flow4, FlowKey4, Frontend, Interface,
        MAPS, ServiceKey4,
    },
    reason::Reason,
};
use rustix::time::{ClockId, clock_getres};
use zerocopy::{FromBytes, IntoBytes};

use super::{Error, PinDirectory};

/// A value of the map ABI, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Abi<T>(T);

// SAFETY: zerocopy's derives prove that T has no padding and that every bit pattern is a T; the
// wrapper is transparent.
unsafe impl<T: IntoBytes + FromBytes + Copy + 'static> Pod for Abi<T> {}

/// The pinned maps. Opening them needs no agent.
pub struct Maps {
    flows: HashMap<MapData, Abi<FlowKey4>, Abi<Flow4>>,
    frontends: HashMap<MapData, Abi<ServiceKey4>, Abi<Frontend>>,
    backends: HashMap<MapData, Abi<ServiceKey4>, Abi<Backend>>,
    interfaces: HashMap<MapData, u32, Abi<Interface>>,
    stats: PerCpuArray<MapData, Abi<Counter>>,
    ids: BTreeSet<u32>,
    /// Epoch, edit counter and generations.
    pub generations: Generations,
}

/// The map `generations`: what the agent raises to make flow entries stale.
pub struct Generations {
    map: Array<MapData, u32>,
}

/// Turns a map error into ours.
fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { operation, map, source: Box::new(source) }
}

fn open(pins: &PinDirectory, name: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(pins.map(name)).map_err(failed("open", name))
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] naming the first that is not there or not readable.
    pub fn open(pins: &PinDirectory) -> Result<Self, Error> {
        let hash = |spec: abi::MapSpec| {
            Ok::<_, Error>(match spec.kind {
                kind if kind == abi::FLOWS4.kind => Map::LruHashMap(open(pins, spec.name)?),
                _ => Map::HashMap(open(pins, spec.name)?),
            })
        };
        let stats = Map::PerCpuArray(open(pins, abi::STATS.name)?);
        let generations = Map::Array(open(pins, abi::GENERATION_MAP.name)?);
        let ids = MAPS
            .iter()
            .filter_map(|spec| Some(MapInfo::from_pin(pins.map(spec.name)).ok()?.id()))
            .collect();
        Ok(Self {
            flows: hash(abi::FLOWS4)?.try_into().map_err(failed("open", "flows4"))?,
            frontends: hash(abi::FRONTENDS4)?.try_into().map_err(failed("open", "frontends4"))?,
            backends: hash(abi::BACKENDS4)?.try_into().map_err(failed("open", "backends4"))?,
            interfaces: hash(abi::INTERFACES)?.try_into().map_err(failed("open", "interfaces"))?,
            stats: stats.try_into().map_err(failed("open", "stats"))?,
            ids,
            generations: Generations {
                map: generations.try_into().map_err(failed("open", "generations"))?,
            },
        })
    }

    /// Returns the kernel's ids of the maps: a program that uses one is ours.
    pub fn ids(&self) -> &BTreeSet<u32> {
        &self.ids
    }

    /// Returns the flow entries. Entries that come or go meanwhile may be missing or twice.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn flows(&self) -> Result<Vec<(FlowKey4, Flow4)>, Error> {
        read_all(&self.flows, "flows4")
    }

    /// Puts a flow entry. The agent never does: it is how packet tables set the stage.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn put_flow(&mut self, key: FlowKey4, value: Flow4) -> Result<(), Error> {
        self.flows.insert(Abi(key), Abi(value), 0).map_err(failed("put", "flows4"))
    }

    /// Returns what clients can dial.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn frontends(&self) -> Result<Vec<(ServiceKey4, Frontend)>, Error> {
        read_all(&self.frontends, "frontends4")
    }

    /// Returns the backends.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn backends(&self) -> Result<Vec<(ServiceKey4, Backend)>, Error> {
        read_all(&self.backends, "backends4")
    }

    /// Returns the indexes of the interfaces that may be learned.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn interfaces(&self) -> Result<Vec<(u32, Interface)>, Error> {
        self.interfaces
            .iter()
            .map(|entry| entry.map(|(index, value)| (index, value.0)))
            .collect::<Result<_, _>>()
            .map_err(failed("read", "interfaces"))
    }

    /// Puts a frontend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_frontend(&mut self, key: ServiceKey4, value: Frontend) -> Result<(), Error> {
        self.frontends.insert(Abi(key), Abi(value), 0).map_err(failed("put", "frontends4"))
    }

    /// Removes a frontend; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_frontend(&mut self, key: ServiceKey4) -> Result<(), Error> {
        absent_is_fine(self.frontends.remove(&Abi(key))).map_err(failed("remove", "frontends4"))
    }

    /// Puts a backend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_backend(&mut self, key: ServiceKey4, value: Backend) -> Result<(), Error> {
        self.backends.insert(Abi(key), Abi(value), 0).map_err(failed("put", "backends4"))
    }

    /// Removes a backend; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_backend(&mut self, key: ServiceKey4) -> Result<(), Error> {
        absent_is_fine(self.backends.remove(&Abi(key))).map_err(failed("remove", "backends4"))
    }

    /// Lets the egress of an interface be learned.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn put_interface(&mut self, index: u32, value: Interface) -> Result<(), Error> {
        self.interfaces.insert(index, Abi(value), 0).map_err(failed("put", "interfaces"))
    }

    /// Learns no more from an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_interface(&mut self, index: u32) -> Result<(), Error> {
        absent_is_fine(self.interfaces.remove(&index)).map_err(failed("remove", "interfaces"))
    }

    /// Returns the counter of a reason, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counter(&self, reason: Reason) -> Result<Counter, Error> {
        let values = self.stats.get(&(reason as u32), 0).map_err(failed("read", "stats"))?;
        Ok(values.iter().fold(Counter::default(), |sum, value| Counter {
            packets: sum.packets.wrapping_add(value.0.packets),
            bytes: sum.bytes.wrapping_add(value.0.bytes),
        }))
    }
}

impl Generations {
    /// Makes every flow entry stale.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn raise_epoch(&mut self) -> Result<(), Error> {
        self.raise(EPOCH_INDEX)
    }

    /// Stops packets that are on their way through the slow path from being learned.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn raise_edits(&mut self) -> Result<(), Error> {
        self.raise(EDITS_INDEX)
    }

    /// Makes the flow entries of a backend stale.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn raise_backend(&mut self, id: u32) -> Result<(), Error> {
        self.raise(id)
    }

    /// The agent is the only writer, so reading and writing in two steps loses nothing.
    fn raise(&mut self, index: u32) -> Result<(), Error> {
        let now = self.map.get(&index, 0).map_err(failed("read", "generations"))?;
        self.map.set(index, now.wrapping_add(1), 0).map_err(failed("put", "generations"))
    }
}

fn read_all<K: IntoBytes + FromBytes + Copy + 'static, V: IntoBytes + FromBytes + Copy + 'static>(
    map: &HashMap<MapData, Abi<K>, Abi<V>>,
    name: &'static str,
) -> Result<Vec<(K, V)>, Error> {
    map.iter()
        .map(|entry| entry.map(|(key, value)| (key.0, value.0)))
        .collect::<Result<_, _>>()
        .map_err(failed("read", name))
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        result => result,
    }
}

/// Returns the length of a jiffy: the resolution of the coarse clock is one tick
/// (`posix_get_coarse_res` of `kernel/time/posix-timers.c`).
///
/// # Errors
///
/// [`Error::Tick`] when it is no plausible tick.
pub fn jiffy() -> Result<Duration, Error> {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    match u32::try_from(resolution.tv_nsec) {
        Ok(nanoseconds) if resolution.tv_sec == 0 && nanoseconds >= 100_000 => {
            Ok(Duration::from_nanos(nanoseconds.into()))
        }
        _ => Err(Error::Tick { nanoseconds: resolution.tv_nsec }),
    }
}
