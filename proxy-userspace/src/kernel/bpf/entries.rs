//! Every pinned map, decoded by its own declaration: for people who look, not for the agent.

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapInfo, PerCpuArray, PerCpuHashMap, PerCpuValues},
};
use proxy_common::{
    abi::{
        self, Addr, Backend, Counter, FilterBlock, Flow, FlowKey, Frontend, HashBackend, HashCount,
        HashFlow, HashFlowKey, HashFrontend, HashTags, HashVlan, Interface, LocalAddress,
        LocalPeer, LocalPort, MapSpec, ObservedKey, Pair, Pending, Plain, Recent, Served,
        ServiceKey, Show, Shown, Uplink,
    },
    flow_place::WAYS,
};

use super::{
    Error, PinDirectory, hash_plane,
    maps::{Abi, failed},
};

/// A map as it is pinned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinnedMap {
    /// What we know of it.
    pub spec: MapSpec,
    /// The pin.
    pub path: std::path::PathBuf,
    /// The kernel's id.
    pub id: u32,
    /// Capacity.
    pub max_entries: u32,
}

/// An element, of one CPU where each has its own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key: an index of an array.
    pub key: Shown,
    /// The CPU.
    pub cpu: Option<usize>,
    /// The value.
    pub value: Shown,
}

/// Tells what is there from what never was.
trait Zero {
    fn is_zero(&self) -> bool;
}

impl<T: Default + PartialEq> Zero for T {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns the maps that are pinned; none without a fast path.
pub fn pinned_maps(pins: &PinDirectory) -> Vec<PinnedMap> {
    let maps = abi::MAPS.into_iter().map(|spec| (spec, pins.map(spec.name)));
    let local =
        abi::LOCALHOST_MAPS.into_iter().map(|spec| (spec, pins.localhost().join(spec.name)));
    let hash = abi::HASH_MAPS.into_iter().map(|spec| (spec, pins.hash_map(spec.name)));
    maps.chain(local)
        .chain(hash)
        .filter_map(|(spec, path)| {
            let info = MapInfo::from_pin(&path).ok()?;
            let max_entries = info.max_entries() * entries_of(&spec);
            Some(PinnedMap { spec, path, id: info.id(), max_entries })
        })
        .collect()
}

/// Returns how many entries an element of a map is: a set of flows is several.
fn entries_of(spec: &MapSpec) -> u32 {
    match spec.name {
        "hash_flows4" | "hash_flows6" => WAYS as u32,
        _ => 1,
    }
}

impl PinnedMap {
    /// Says whether every index has an element: then most of them are zero.
    pub fn is_array(&self) -> bool {
        [abi::GENERATION_MAP.kind, abi::STATS.kind].contains(&self.spec.kind)
    }

    /// Returns the elements, in the kernel's order. Those that come or go meanwhile may be missing or
    /// twice. Of arrays, those that are zero are left out unless all are asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when it cannot be read.
    pub fn entries(&self, all: bool) -> Result<Vec<Entry>, Error> {
        match self.spec.name {
            "flows4" => self.hash::<FlowKey<[u8; 4]>, Flow<[u8; 4]>>(),
            "flows6" => self.hash::<FlowKey<[u8; 16]>, Flow<[u8; 16]>>(),
            "pending4" => self.array::<Pending<[u8; 4]>>(all),
            "pending6" => self.array::<Pending<[u8; 16]>>(all),
            "frontends4" => self.hash::<ServiceKey<[u8; 4]>, Frontend>(),
            "frontends6" => self.hash::<ServiceKey<[u8; 16]>, Frontend>(),
            "backends4" => self.hash::<ServiceKey<[u8; 4]>, Backend>(),
            "backends6" => self.hash::<ServiceKey<[u8; 16]>, Backend>(),
            "filter" => self.array::<FilterBlock>(all),
            "interfaces" => self.hash::<u32, Interface>(),
            "observed" => self.per_cpu_hash::<ObservedKey, Counter>(),
            "uplinks" => self.array::<Uplink>(all),
            "stats" => self.per_cpu_array::<Counter>(all),
            "recent" => self.per_cpu_array::<Recent>(all),
            "served" => self.hash::<Pair, Served>(),
            "sequence" => self.per_cpu_array::<u32>(all),
            "warmup" | "generations" => self.array::<u32>(all),
            "local_ports" => self.hash::<LocalPort, LocalAddress>(),
            "local_peers" => self.hash::<LocalPeer, LocalAddress>(),
            _ => self.hash_plane_entries(all),
        }
    }

    fn hash_plane_entries(&self, all: bool) -> Result<Vec<Entry>, Error> {
        match self.spec.name {
            "hash_flows4" => self.hash_flows::<[u8; 4]>(),
            "hash_flows6" => self.hash_flows::<[u8; 16]>(),
            "hash_tags4" | "hash_tags6" => self.array::<HashTags>(all),
            "hash_seed" => self.array::<u64>(all),
            "hash_frontends4" => self.hash::<ServiceKey<[u8; 4]>, HashFrontend>(),
            "hash_frontends6" => self.hash::<ServiceKey<[u8; 16]>, HashFrontend>(),
            // Of a map in it, the kernel tells the id; an index without one is absent.
            "hash_tables" => self.hash::<u32, u32>(),
            "hash_backends" => self.array::<HashBackend>(all),
            "hash_counts" => self.per_cpu_array::<HashCount>(all),
            "hash_stats" => self.per_cpu_array::<Counter>(all),
            "hash_uplinks" => self.array::<Uplink>(all),
            "hash_vlans" => self.hash::<HashVlan, u32>(),
            name => Err(Error::Missing { kind: "map", name }),
        }
    }

    fn open(&self) -> Result<Map, Error> {
        let data = MapData::from_pin(&self.path).map_err(failed("open", self.spec.name))?;
        let kind = self.spec.kind;
        Ok(match kind {
            kind if kind == abi::GENERATION_MAP.kind => Map::Array(data),
            kind if kind == abi::STATS.kind => Map::PerCpuArray(data),
            kind if kind == abi::IPV4.flows.kind => Map::LruHashMap(data),
            kind if kind == abi::OBSERVED.kind => Map::PerCpuLruHashMap(data),
            _ => Map::HashMap(data),
        })
    }

    fn hash<K: Plain + Show, V: Plain + Show>(&self) -> Result<Vec<Entry>, Error> {
        let map: HashMap<MapData, Abi<K>, Abi<V>> =
            self.open()?.try_into().map_err(failed("open", self.spec.name))?;
        let entries = map.iter().map(|entry| {
            let (Abi(key), Abi(value)) = entry?;
            Ok(Entry { key: key.show(), cpu: None, value: value.show() })
        });
        entries.collect::<Result<_, _>>().map_err(failed("read", self.spec.name))
    }

    fn hash_flows<A: Addr + Show>(&self) -> Result<Vec<Entry>, Error> {
        let flows = hash_plane::flows::read_pinned::<A>(&self.path, self.spec.name)?;
        let entry = |(key, flow): (HashFlowKey<A>, HashFlow)| Entry {
            key: key.show(),
            cpu: None,
            value: flow.show(),
        };
        Ok(flows.into_iter().map(entry).collect())
    }

    fn per_cpu_hash<K: Plain + Show, V: Plain + Show>(&self) -> Result<Vec<Entry>, Error> {
        let map: PerCpuHashMap<MapData, Abi<K>, Abi<V>> =
            self.open()?.try_into().map_err(failed("open", self.spec.name))?;
        let mut entries = Vec::new();
        for entry in map.iter() {
            let (Abi(key), values) = entry.map_err(failed("read", self.spec.name))?;
            entries.extend(per_cpu(&key.show(), &values));
        }
        Ok(entries)
    }

    fn array<V: Plain + Show + Zero>(&self, all: bool) -> Result<Vec<Entry>, Error> {
        let map: Array<MapData, Abi<V>> =
            self.open()?.try_into().map_err(failed("open", self.spec.name))?;
        let mut entries = Vec::new();
        for index in 0..map.len() {
            let Abi(value) = map.get(&index, 0).map_err(failed("read", self.spec.name))?;
            if all || !value.is_zero() {
                entries.push(Entry { key: index.show(), cpu: None, value: value.show() });
            }
        }
        Ok(entries)
    }

    fn per_cpu_array<V: Plain + Show + Zero>(&self, all: bool) -> Result<Vec<Entry>, Error> {
        let map: PerCpuArray<MapData, Abi<V>> =
            self.open()?.try_into().map_err(failed("open", self.spec.name))?;
        let mut entries = Vec::new();
        for index in 0..map.len() {
            let values = map.get(&index, 0).map_err(failed("read", self.spec.name))?;
            if all || values.iter().any(|value| !value.0.is_zero()) {
                entries.extend(per_cpu(&index.show(), &values));
            }
        }
        Ok(entries)
    }
}

fn per_cpu<V: Plain + Show>(
    key: &Shown,
    values: &PerCpuValues<Abi<V>>,
) -> impl Iterator<Item = Entry>
where
    Abi<V>: Pod,
{
    let entry = |(cpu, value): (usize, &Abi<V>)| Entry {
        key: key.clone(),
        cpu: Some(cpu),
        value: value.0.show(),
    };
    values.iter().enumerate().map(entry)
}
