//! Typed access to the pinned maps.

use std::{io, net::IpAddr, time::Duration};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues},
};
use proxy_common::{
    abi::{
        self, Addr, Backend, Counter, EDITS_INDEX, EPOCH_INDEX, FamilyMaps, Flow, FlowKey,
        Frontend, Interface, MapSpec, ObservedKey, Plain, ServiceKey, Uplink,
    },
    reason::Reason,
};
use rustix::time::{ClockId, clock_getres};

use super::{Carried, Error, PinDirectory, filter::Filter};
use crate::model::{self, Protocol};

/// A value of the map ABI, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Abi<T>(pub(super) T);

// SAFETY: T is made of integers and byte arrays without padding, which its declaration checks, so
// every bit pattern is a T; the wrapper is transparent.
unsafe impl<T: Plain> Pod for Abi<T> {}

/// The pinned maps. Opening them needs no agent.
pub struct Maps {
    /// The maps of IPv4.
    pub ipv4: ServiceMaps<[u8; 4]>,
    /// The maps of IPv6.
    pub ipv6: ServiceMaps<[u8; 16]>,
    pub(super) interfaces: HashMap<MapData, u32, Abi<Interface>>,
    uplinks: Array<MapData, Abi<Uplink>>,
    observed: PerCpuHashMap<MapData, Abi<ObservedKey>, Abi<Counter>>,
    stats: PerCpuArray<MapData, Abi<Counter>>,
    /// Epoch, edit counter and generations.
    pub generations: Generations,
    /// What is certainly no Service.
    pub filter: Filter,
    /// What the fast path carried.
    pub carried: Carried,
}

/// Keys and values of a map, in no order.
pub type Entries<K, V> = Vec<(K, V)>;

/// The maps of an address family.
pub struct ServiceMaps<A: Addr> {
    names: FamilyMaps,
    pub(super) flows: HashMap<MapData, Abi<FlowKey<A>>, Abi<Flow<A>>>,
    pub(super) frontends: HashMap<MapData, Abi<ServiceKey<A>>, Abi<Frontend>>,
    pub(super) backends: HashMap<MapData, Abi<ServiceKey<A>>, Abi<Backend>>,
}

/// The map `generations`: what the agent raises to make flow entries stale.
pub struct Generations {
    map: Array<MapData, u32>,
}

/// Turns a map error into ours.
pub(super) fn failed(operation: &'static str, map: &'static str) -> impl Fn(MapError) -> Error {
    move |source| Error::Map { operation, map, source: Box::new(source) }
}

pub(super) fn open(pins: &PinDirectory, name: &'static str) -> Result<MapData, Error> {
    MapData::from_pin(pins.map(name)).map_err(failed("open", name))
}

fn open_hash<K: Pod, V: Pod>(
    pins: &PinDirectory,
    spec: MapSpec,
) -> Result<HashMap<MapData, K, V>, Error> {
    let data = open(pins, spec.name)?;
    let map = match spec.kind {
        kind if kind == abi::IPV4.flows.kind => Map::LruHashMap(data),
        _ => Map::HashMap(data),
    };
    map.try_into().map_err(failed("open", spec.name))
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] naming the first that is not there or not readable.
    pub fn open(pins: &PinDirectory) -> Result<Self, Error> {
        let stats = Map::PerCpuArray(open(pins, abi::STATS.name)?);
        let observed = Map::PerCpuLruHashMap(open(pins, abi::OBSERVED.name)?);
        let generations = Map::Array(open(pins, abi::GENERATION_MAP.name)?);
        let uplinks = Map::Array(open(pins, abi::UPLINKS.name)?);
        Ok(Self {
            ipv4: ServiceMaps::open(pins, abi::IPV4)?,
            ipv6: ServiceMaps::open(pins, abi::IPV6)?,
            interfaces: open_hash(pins, abi::INTERFACES)?,
            uplinks: uplinks.try_into().map_err(failed("open", "uplinks"))?,
            observed: observed.try_into().map_err(failed("open", "observed"))?,
            stats: stats.try_into().map_err(failed("open", "stats"))?,
            generations: Generations {
                map: generations.try_into().map_err(failed("open", "generations"))?,
            },
            filter: Filter::open(pins)?,
            carried: Carried::open(pins)?,
        })
    }

    /// Returns what clients can dial.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn frontends(&self) -> Result<Vec<(model::Frontend, Frontend)>, Error> {
        let mut all = self.ipv4.frontends()?;
        all.extend(self.ipv6.frontends()?);
        Ok(all)
    }

    /// Returns the backends.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn backends(&self) -> Result<Vec<(model::Backend, Backend)>, Error> {
        let mut all = self.ipv4.backends()?;
        all.extend(self.ipv6.backends()?);
        Ok(all)
    }

    /// Puts a frontend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_frontend(&mut self, key: &model::Frontend, value: Frontend) -> Result<(), Error> {
        self.change_frontend(key, Some(value))
    }

    /// Removes a frontend; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_frontend(&mut self, key: &model::Frontend) -> Result<(), Error> {
        self.change_frontend(key, None)
    }

    /// Puts a backend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_backend(&mut self, key: &model::Backend, value: Backend) -> Result<(), Error> {
        self.change_backend(key, Some(value))
    }

    /// Removes a backend; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_backend(&mut self, key: &model::Backend) -> Result<(), Error> {
        self.change_backend(key, None)
    }

    fn change_frontend(
        &mut self,
        key: &model::Frontend,
        value: Option<Frontend>,
    ) -> Result<(), Error> {
        match value {
            Some(_) => self.filter.add((key.addr, key.port, key.protocol))?,
            None => self.filter.remove(),
        }
        match key.addr {
            IpAddr::V4(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.ipv4.frontends, key, value, self.ipv4.names.frontends.name)
            }
            IpAddr::V6(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.ipv6.frontends, key, value, self.ipv6.names.frontends.name)
            }
        }
    }

    fn change_backend(
        &mut self,
        key: &model::Backend,
        value: Option<Backend>,
    ) -> Result<(), Error> {
        match value {
            Some(_) => self.filter.add((key.addr, key.port, key.protocol))?,
            None => self.filter.remove(),
        }
        match key.addr {
            IpAddr::V4(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.ipv4.backends, key, value, self.ipv4.names.backends.name)
            }
            IpAddr::V6(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.ipv6.backends, key, value, self.ipv6.names.backends.name)
            }
        }
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

    /// Returns the uplinks on which transit runs at the driver.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn uplinks(&self) -> Result<Vec<Uplink>, Error> {
        let all: Result<Vec<_>, _> = self.uplinks.iter().collect();
        let all = all.map_err(failed("read", "uplinks"))?;
        Ok(all
            .into_iter()
            .map(|Abi(uplink)| uplink)
            .filter(|uplink| uplink.interface != 0)
            .collect())
    }

    /// Lets transit run at the driver of an interface, in place of another one of its slot.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn put_uplink(&mut self, uplink: Uplink) -> Result<(), Error> {
        let slot = Uplink::slot(uplink.interface);
        self.uplinks.set(slot, Abi(uplink), 0).map_err(failed("put", "uplinks"))
    }

    /// Lets transit run at the driver of an interface no more.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_uplink(&mut self, interface: u32) -> Result<(), Error> {
        let slot = Uplink::slot(interface);
        let Abi(found) = self.uplinks.get(&slot, 0).map_err(failed("read", "uplinks"))?;
        if found.interface != interface {
            return Ok(());
        }
        self.uplinks.set(slot, Abi(Uplink::default()), 0).map_err(failed("remove", "uplinks"))
    }

    /// Lets transit run at no driver any more.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_uplinks(&mut self) -> Result<(), Error> {
        self.uplinks()?.iter().try_for_each(|uplink| self.remove_uplink(uplink.interface))
    }

    /// Returns the counter of a reason, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn counter(&self, reason: Reason) -> Result<Counter, Error> {
        let values = self.stats.get(&(reason as u32), 0).map_err(failed("read", "stats"))?;
        Ok(sum(&values))
    }

    /// Returns what would have been fast, by frontend id and interface index, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn observed(&self) -> Result<Entries<ObservedKey, Counter>, Error> {
        let entries = self.observed.iter();
        let entries = entries.map(|entry| entry.map(|(key, values)| (key.0, sum(&values))));
        entries.collect::<Result<_, _>>().map_err(failed("read", "observed"))
    }
}

/// Adds up what the CPUs counted.
pub(super) fn sum(values: &PerCpuValues<Abi<Counter>>) -> Counter {
    values.iter().fold(Counter::default(), |sum, value| Counter {
        packets: sum.packets.wrapping_add(value.0.packets),
        bytes: sum.bytes.wrapping_add(value.0.bytes),
    })
}

impl<A: Addr + Into<IpAddr>> ServiceMaps<A> {
    fn open(pins: &PinDirectory, names: FamilyMaps) -> Result<Self, Error> {
        Ok(Self {
            names,
            flows: open_hash(pins, names.flows)?,
            frontends: open_hash(pins, names.frontends)?,
            backends: open_hash(pins, names.backends)?,
        })
    }

    /// Returns the flow entries. Entries that come or go meanwhile may be missing or twice.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn flows(&self) -> Result<Entries<FlowKey<A>, Flow<A>>, Error> {
        read_all(&self.flows, self.names.flows.name)
    }

    /// Puts a flow entry. Those of traffic are learned only: this is for probes, and for packet tables.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn put_flow(&mut self, key: FlowKey<A>, value: Flow<A>) -> Result<(), Error> {
        self.flows.insert(Abi(key), Abi(value), 0).map_err(failed("put", self.names.flows.name))
    }

    /// Removes a flow entry; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_flow(&mut self, key: FlowKey<A>) -> Result<(), Error> {
        let removed = absent_is_fine(self.flows.remove(&Abi(key)));
        removed.map_err(failed("remove", self.names.flows.name))
    }

    fn frontends(&self) -> Result<Vec<(model::Frontend, Frontend)>, Error> {
        let all = read_all(&self.frontends, self.names.frontends.name)?;
        let known = all.into_iter().filter_map(|(key, value)| {
            let protocol = Protocol::from_number(key.protocol)?;
            Some((model::Frontend { addr: key.addr.into(), port: key.port, protocol }, value))
        });
        Ok(known.collect())
    }

    fn backends(&self) -> Result<Vec<(model::Backend, Backend)>, Error> {
        let all = read_all(&self.backends, self.names.backends.name)?;
        let known = all.into_iter().filter_map(|(key, value)| {
            let protocol = Protocol::from_number(key.protocol)?;
            Some((model::Backend { addr: key.addr.into(), port: key.port, protocol }, value))
        });
        Ok(known.collect())
    }
}

pub(super) fn service_key<A>(addr: A, port: u16, protocol: Protocol) -> ServiceKey<A> {
    ServiceKey { addr, port, protocol: protocol.number(), _pad: 0 }
}

/// Puts an element, or removes it: one that is absent is removed already.
pub(super) fn change<K: Plain, V: Plain>(
    map: &mut HashMap<MapData, Abi<K>, Abi<V>>,
    key: K,
    value: Option<V>,
    name: &'static str,
) -> Result<(), Error> {
    match value {
        Some(value) => map.insert(Abi(key), Abi(value), 0).map_err(failed("put", name)),
        None => absent_is_fine(map.remove(&Abi(key))).map_err(failed("remove", name)),
    }
}

impl Generations {
    /// Returns the epoch.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn epoch(&self) -> Result<u32, Error> {
        self.read(EPOCH_INDEX)
    }

    /// Returns the generation of a backend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an id that is none.
    pub fn of_backend(&self, id: u32) -> Result<u32, Error> {
        self.read(id)
    }

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

    fn read(&self, index: u32) -> Result<u32, Error> {
        self.map.get(&index, 0).map_err(failed("read", "generations"))
    }

    /// The agent is the only writer, so reading and writing in two steps loses nothing.
    fn raise(&mut self, index: u32) -> Result<(), Error> {
        let now = self.read(index)?;
        self.map.set(index, now.wrapping_add(1), 0).map_err(failed("put", "generations"))
    }
}

pub(super) fn read_all<K: Plain, V: Plain>(
    map: &HashMap<MapData, Abi<K>, Abi<V>>,
    name: &'static str,
) -> Result<Entries<K, V>, Error> {
    map.iter()
        .map(|entry| entry.map(|(key, value)| (key.0, value.0)))
        .collect::<Result<_, _>>()
        .map_err(failed("read", name))
}

pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
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
