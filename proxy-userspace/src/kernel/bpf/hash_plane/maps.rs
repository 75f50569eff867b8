//! Typed access to the pinned maps of the hash plane.

use std::{
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use proxy_common::{
    abi::{
        Addr, Counter, HASH_BACKENDS, HASH_COUNTS, HASH_FLOWS4, HASH_FLOWS6, HASH_FRONTENDS4,
        HASH_FRONTENDS6, HASH_SEED, HASH_STATS, HASH_TABLES, HASH_UPLINKS, HASH_VLANS, HashBackend,
        HashBackendFlags, HashCount, HashFlow, HashFlowKey, HashFrontend, HashVlan, MapSpec,
        ServiceKey, Uplink,
    },
    hash_reason::HashReason,
};

use super::{
    super::{
        Entries, Error, PinDirectory,
        maps::{Abi, absent_is_fine, change, failed, read_all, service_key, sum},
    },
    batch, flows,
    mapped::Mapped,
};
use crate::model::{self, Protocol};

/// `BPF_F_INNER_MAP` of `linux/bpf.h`: tables of other sizes may take each other's place.
const INNER_MAP: u32 = 1 << 12;
/// Name of a table, for who lists maps.
const TABLE: &str = "hash_table";
/// Tables that are put with one system call, at most.
const TABLES_AT_ONCE: usize = 128;

type Frontends<A> = HashMap<MapData, Abi<ServiceKey<A>>, Abi<HashFrontend>>;

/// The pinned maps of the hash plane. Opening them needs no agent.
pub struct HashMaps {
    flows4: Mapped<[u8; 4]>,
    flows6: Mapped<[u8; 16]>,
    seed: Array<MapData, u64>,
    frontends4: Frontends<[u8; 4]>,
    frontends6: Frontends<[u8; 16]>,
    tables: ArrayOfMaps<MapData, MapData>,
    /// The same map, for who writes many tables at once.
    tables_data: MapData,
    /// The same map: a table can be taken out of it only as an entry can out of any map.
    table_ids: HashMap<MapData, u32, u32>,
    backends: Array<MapData, Abi<HashBackend>>,
    counts: PerCpuArray<MapData, Abi<HashCount>>,
    stats: PerCpuArray<MapData, Abi<Counter>>,
    uplinks: Array<MapData, Abi<Uplink>>,
    vlans: HashMap<MapData, Abi<HashVlan>, u32>,
}

impl HashMaps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] naming the first that is not there or not readable.
    pub fn open(pins: &PinDirectory) -> Result<Self, Error> {
        Ok(Self {
            flows4: Mapped::open(&data(pins, HASH_FLOWS4)?, HASH_FLOWS4.name)?,
            flows6: Mapped::open(&data(pins, HASH_FLOWS6)?, HASH_FLOWS6.name)?,
            seed: open(pins, HASH_SEED)?,
            frontends4: open(pins, HASH_FRONTENDS4)?,
            frontends6: open(pins, HASH_FRONTENDS6)?,
            tables: open(pins, HASH_TABLES)?,
            tables_data: data(pins, HASH_TABLES)?,
            table_ids: open(pins, MapSpec { kind: HASH_FRONTENDS4.kind, ..HASH_TABLES })?,
            backends: open(pins, HASH_BACKENDS)?,
            counts: open(pins, HASH_COUNTS)?,
            stats: open(pins, HASH_STATS)?,
            uplinks: open(pins, HASH_UPLINKS)?,
            vlans: open(pins, HASH_VLANS)?,
        })
    }

    /// Puts a frontend.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_frontend(
        &mut self,
        key: &model::Frontend,
        value: HashFrontend,
    ) -> Result<(), Error> {
        self.change_frontend(key, Some(value))
    }

    /// Removes a frontend; one that is absent is removed already. Its flows end with the generations
    /// of its backends.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_frontend(&mut self, key: &model::Frontend) -> Result<(), Error> {
        self.change_frontend(key, None)
    }

    fn change_frontend(
        &mut self,
        key: &model::Frontend,
        value: Option<HashFrontend>,
    ) -> Result<(), Error> {
        match key.addr {
            IpAddr::V4(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.frontends4, key, value, HASH_FRONTENDS4.name)
            }
            IpAddr::V6(addr) => {
                let key = service_key(addr.octets(), key.port, key.protocol);
                change(&mut self.frontends6, key, value, HASH_FRONTENDS6.name)
            }
        }
    }

    /// Returns the frontends.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn frontends(&self) -> Result<Entries<model::Frontend, HashFrontend>, Error> {
        let mut all = read_frontends(&self.frontends4, HASH_FRONTENDS4.name)?;
        all.extend(read_frontends(&self.frontends6, HASH_FRONTENDS6.name)?);
        Ok(all)
    }

    /// Puts a table in place of the one with this index, all of it at once. It has as many slots as
    /// the kernel's; each is a `HashSlot`. When it returns, no packet uses the old one any more: that
    /// takes some milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an index that is none.
    pub fn put_table(&mut self, index: u32, slots: &[u32]) -> Result<(), Error> {
        self.put_tables(&[(index, slots)])
    }

    /// Puts several tables. It waits once for all of them (from Linux 6.8 on).
    ///
    /// # Errors
    ///
    /// [`Error::Map`]; some may have been put.
    pub fn put_tables(&mut self, tables: &[(u32, &[u32])]) -> Result<(), Error> {
        // A descriptor each is open until they are put.
        tables.chunks(TABLES_AT_ONCE).try_for_each(|tables| self.put_some_tables(tables))
    }

    fn put_some_tables(&mut self, tables: &[(u32, &[u32])]) -> Result<(), Error> {
        let failed = failed("put", HASH_TABLES.name);
        let made: Vec<(u32, MapData)> = tables
            .iter()
            .map(|(index, slots)| Ok((*index, make_table(slots)?)))
            .collect::<Result<_, MapError>>()
            .map_err(&failed)?;
        let descriptor = |table: &MapData| table.fd().as_fd().as_raw_fd() as u32;
        let elements: Vec<_> =
            made.iter().map(|(index, table)| (*index, descriptor(table))).collect();
        batch::write(&self.tables_data, &elements).map_err(|error| failed(MapError::IoError(error)))
    }

    /// Removes a table; one that is absent is removed already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_table(&mut self, index: u32) -> Result<(), Error> {
        absent_is_fine(self.table_ids.remove(&index)).map_err(failed("remove", HASH_TABLES.name))
    }

    /// Returns the slots of a table; none when there is no such table. It takes CAP_SYS_ADMIN: the
    /// kernel tells the table by its id.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when it cannot be read.
    pub fn table(&self, index: u32) -> Result<Vec<u32>, Error> {
        let failed = failed("read", HASH_TABLES.name);
        let table = match self.tables.get(&index, 0) {
            Err(MapError::KeyNotFound) => return Ok(Vec::new()),
            table => table.map_err(&failed)?,
        };
        let slots = table.info().map_err(&failed)?.max_entries();
        batch::read(&table, slots as usize).map_err(|error| failed(MapError::IoError(error)))
    }

    /// Puts a backend. Where the way to it is another than before, packets are the kernel's for the
    /// moment in which it is written: none leaves by half of each.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an index that is none.
    pub fn put_backend(&mut self, index: u32, value: HashBackend) -> Result<(), Error> {
        let before = self.backend(index)?;
        if before.flags & HashBackendFlags::REACHABLE != 0 && !is_same_way(before, value) {
            self.write_backend(index, unreachable(before))?;
            self.write_backend(index, unreachable(value))?;
        } else if !is_same_way(before, value) {
            self.write_backend(index, unreachable(value))?;
        }
        self.write_backend(index, value)
    }

    fn write_backend(&mut self, index: u32, value: HashBackend) -> Result<(), Error> {
        self.backends.set(index, Abi(value), 0).map_err(failed("put", HASH_BACKENDS.name))
    }

    /// Returns a backend, all zero where there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an index that is none.
    pub fn backend(&self, index: u32) -> Result<HashBackend, Error> {
        let Abi(backend) =
            self.backends.get(&index, 0).map_err(failed("read", HASH_BACKENDS.name))?;
        Ok(backend)
    }

    /// Returns what was sent to a backend, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an index that is none.
    pub fn count(&self, index: u32) -> Result<HashCount, Error> {
        let values = self.counts.get(&index, 0).map_err(failed("read", HASH_COUNTS.name))?;
        Ok(values.iter().fold(HashCount::default(), |sum, Abi(value)| HashCount {
            packets: sum.packets.wrapping_add(value.packets),
            bytes: sum.bytes.wrapping_add(value.bytes),
            flows: sum.flows.wrapping_add(value.flows),
        }))
    }

    /// Sets the count of a backend to zero: its index is given to another destination.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also for an index that is none.
    pub fn zero_count(&mut self, index: u32) -> Result<(), Error> {
        let failed = failed("put", HASH_COUNTS.name);
        let cpus = nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
        let zero = vec![Abi(HashCount::default()); cpus];
        let zero = PerCpuValues::try_from(zero).map_err(|error| failed(error.into()))?;
        self.counts.set(index, zero, 0).map_err(&failed)
    }

    /// Returns the flow entries of IPv4. Those that come or go meanwhile may be missing or twice.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn flows4(&self) -> Result<Entries<HashFlowKey<[u8; 4]>, HashFlow>, Error> {
        Ok(flows::read(&self.flows4, self.seed()?))
    }

    /// The same of IPv6.
    ///
    /// # Errors
    ///
    /// As of [`Self::flows4`].
    pub fn flows6(&self) -> Result<Entries<HashFlowKey<[u8; 16]>, HashFlow>, Error> {
        Ok(flows::read(&self.flows6, self.seed()?))
    }

    fn seed(&self) -> Result<u64, Error> {
        self.seed.get(&0, 0).map_err(failed("read", HASH_SEED.name))
    }

    /// Puts a seed where there is none: it stays as long as the flows do.
    pub(super) fn sow(&mut self, seed: impl FnOnce() -> u64) -> Result<(), Error> {
        match self.seed()? {
            0 => self.seed.set(0, seed().max(1), 0).map_err(failed("put", HASH_SEED.name)),
            _ => Ok(()),
        }
    }

    /// Returns the counter of a reason, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn reason(&self, reason: HashReason) -> Result<Counter, Error> {
        let values =
            self.stats.get(&(reason as u32), 0).map_err(failed("read", HASH_STATS.name))?;
        Ok(sum(&values))
    }

    /// Returns the interfaces that the program takes frames of.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn uplinks(&self) -> Result<Vec<Uplink>, Error> {
        let all: Result<Vec<_>, _> = self.uplinks.iter().collect();
        let all = all.map_err(failed("read", HASH_UPLINKS.name))?;
        let uplinks = all.into_iter().map(|Abi(uplink)| uplink);
        Ok(uplinks.filter(|uplink| uplink.interface != 0).collect())
    }

    /// Lets the program take the frames of an interface, in place of another one of its slot.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn put_uplink(&mut self, uplink: Uplink) -> Result<(), Error> {
        let slot = Uplink::slot(uplink.interface);
        self.uplinks.set(slot, Abi(uplink), 0).map_err(failed("put", HASH_UPLINKS.name))
    }

    /// Lets the program take no more frames of an interface.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_uplink(&mut self, interface: u32) -> Result<(), Error> {
        let slot = Uplink::slot(interface);
        let Abi(found) = self.uplinks.get(&slot, 0).map_err(failed("read", HASH_UPLINKS.name))?;
        if found.interface != interface {
            return Ok(());
        }
        let none = Abi(Uplink::default());
        self.uplinks.set(slot, none, 0).map_err(failed("remove", HASH_UPLINKS.name))
    }

    /// Lets the program take no more frames of any interface.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_uplinks(&mut self) -> Result<(), Error> {
        self.uplinks()?.iter().try_for_each(|uplink| self.remove_uplink(uplink.interface))
    }

    /// Lets the program take frames with the tag of a VLAN.
    ///
    /// # Errors
    ///
    /// [`Error::Map`], also when the map is full.
    pub fn put_vlan(&mut self, vlan: HashVlan) -> Result<(), Error> {
        self.vlans.insert(Abi(vlan), 1, 0).map_err(failed("put", HASH_VLANS.name))
    }

    /// Lets the program take no more frames with the tag of a VLAN; one that is absent is removed
    /// already.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn remove_vlan(&mut self, vlan: HashVlan) -> Result<(), Error> {
        absent_is_fine(self.vlans.remove(&Abi(vlan))).map_err(failed("remove", HASH_VLANS.name))
    }

    /// Returns the VLANs whose frames the program takes.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when the map cannot be read.
    pub fn vlans(&self) -> Result<Vec<HashVlan>, Error> {
        let vlans = self.vlans.keys().map(|vlan| vlan.map(|Abi(vlan)| vlan));
        vlans.collect::<Result<_, _>>().map_err(failed("read", HASH_VLANS.name))
    }
}

/// Makes a table that is nowhere yet.
fn make_table(slots: &[u32]) -> Result<MapData, MapError> {
    let array = HASH_BACKENDS.kind;
    let object = aya_obj::Map::new_from_params(array, 4, 4, slots.len() as u32, INNER_MAP);
    let table = MapData::create(object, TABLE, None)?;
    let elements: Vec<_> = (0..).zip(slots.iter().copied()).collect();
    batch::write(&table, &elements)?;
    Ok(table)
}

/// Opens a pinned map as it is.
fn data(pins: &PinDirectory, spec: MapSpec) -> Result<MapData, Error> {
    MapData::from_pin(pins.hash_map(spec.name)).map_err(failed("open", spec.name))
}

/// Opens a pinned map as what its declaration says.
fn open<M: TryFrom<Map, Error = MapError>>(pins: &PinDirectory, spec: MapSpec) -> Result<M, Error> {
    let failed = failed("open", spec.name);
    let data = data(pins, spec)?;
    let map = match spec.kind {
        kind if kind == HASH_BACKENDS.kind => Map::Array(data),
        kind if kind == HASH_COUNTS.kind => Map::PerCpuArray(data),
        kind if kind == HASH_TABLES.kind => Map::ArrayOfMaps(data),
        _ => Map::HashMap(data),
    };
    map.try_into().map_err(failed)
}

fn read_frontends<A: Addr + Into<IpAddr>>(
    map: &Frontends<A>,
    name: &'static str,
) -> Result<Entries<model::Frontend, HashFrontend>, Error> {
    let known = read_all(map, name)?.into_iter().filter_map(|(key, value)| {
        let protocol = Protocol::from_number(key.protocol)?;
        Some((model::Frontend { addr: key.addr.into(), port: key.port, protocol }, value))
    });
    Ok(known.collect())
}

/// Says whether packets take the same way to both. Words of their own are no part of it: each of them
/// is written at once.
fn is_same_way(one: HashBackend, other: HashBackend) -> bool {
    let way = |backend| HashBackend { flags: 0, until: 0, mtu: 0, ..backend };
    way(one) == way(other)
}

/// Returns the backend without a way to it.
fn unreachable(backend: HashBackend) -> HashBackend {
    HashBackend { flags: backend.flags & !HashBackendFlags::REACHABLE, ..backend }
}
