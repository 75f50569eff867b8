//! How full the maps are.

use aya::{
    Pod,
    maps::{HashMap, MapData, MapInfo},
};
use proxy_common::abi;

use super::{Error, Maps, PinDirectory, maps::failed};

/// A map, how many entries it has and how many it has room for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Occupancy {
    /// Its name.
    pub map: &'static str,
    /// Its entries. Those of a map that changes meanwhile are counted about right.
    pub entries: u64,
    /// Its room.
    pub max_entries: u64,
}

impl Maps {
    /// Counts the entries of the maps that may become full. Takes a system call an entry.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn occupancy(&self, pins: &PinDirectory) -> Result<Vec<Occupancy>, Error> {
        let (ipv4, ipv6) = (abi::IPV4, abi::IPV6);
        Ok(vec![
            count(pins, ipv4.flows.name, &self.ipv4.flows)?,
            count(pins, ipv6.flows.name, &self.ipv6.flows)?,
            count(pins, ipv4.frontends.name, &self.ipv4.frontends)?,
            count(pins, ipv6.frontends.name, &self.ipv6.frontends)?,
            count(pins, ipv4.backends.name, &self.ipv4.backends)?,
            count(pins, ipv6.backends.name, &self.ipv6.backends)?,
            count(pins, abi::INTERFACES.name, &self.interfaces)?,
            count(pins, abi::SERVED.name, &self.carried.served)?,
        ])
    }
}

fn count<K: Pod, V: Pod>(
    pins: &PinDirectory,
    map: &'static str,
    entries: &HashMap<MapData, K, V>,
) -> Result<Occupancy, Error> {
    let info = MapInfo::from_pin(pins.map(map)).map_err(failed("open", map))?;
    let room = info.max_entries() as usize;
    // The kernel begins anew when the key goes that was read last, so that a busy map would never
    // come to an end.
    let keys = entries.keys().take(room);
    let counted = keys.map(|key| key.map(|_| 1)).sum::<Result<u64, _>>();
    let entries = counted.map_err(failed("read", map))?;
    Ok(Occupancy { map, entries, max_entries: room as u64 })
}
