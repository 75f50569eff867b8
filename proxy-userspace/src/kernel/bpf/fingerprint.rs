//! What the maps of frontends and backends hold, as one number each: summed up by a program in the
//! kernel, or read where it does not let that in.
//!
//! aya reads a map entry by entry, with two system calls each: for 50,000 entries every few seconds
//! that is too much. `BPF_MAP_LOOKUP_BATCH` (Linux 5.6) takes thousands with one, but spends more on
//! each empty bucket, so maps with few entries are read one by one.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::MapData;
use proxy_common::{
    abi::{self, Digest, MapSpec},
    fingerprint,
};

use super::{Datapath, Error, Maps, PinDirectory, digest::Digester, maps::failed};
use crate::{
    kernel::fingerprint::mix,
    model::{Backend, Frontend},
};

/// `BPF_MAP_LOOKUP_BATCH`.
pub(super) const LOOKUP_BATCH: libc::c_int = 24;
/// Up to so many entries are read one by one.
const FEW: usize = 4096;
/// Entries of one call, at most.
const BATCH: u32 = 4096;

/// The part of `union bpf_attr` that belongs to batches.
#[repr(C)]
#[derive(Default)]
pub(super) struct Attributes {
    pub(super) in_batch: u64,
    pub(super) out_batch: u64,
    pub(super) keys: u64,
    pub(super) values: u64,
    pub(super) count: u32,
    pub(super) map_fd: u32,
    pub(super) elem_flags: u64,
    pub(super) flags: u64,
}

/// Reads the maps, in whatever thread.
pub struct MapReader {
    maps: Maps,
    frontends: Vec<Source>,
    backends: Vec<Source>,
    filter: Source,
    digester: Result<Digester, Error>,
}

#[derive(Debug)]
struct Source {
    name: &'static str,
    map: OwnedFd,
    key: usize,
    value: usize,
    /// Entries of one call.
    at_once: u32,
}

/// The numbers of the maps.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MapNumbers {
    /// That of all frontends.
    pub frontends: u64,
    /// That of all backends.
    pub backends: u64,
    /// That of the filter; `None` where nobody knows what should be there.
    pub filter: Option<u64>,
}

/// Returns the number of a frontend with flags of `proxy_common::abi::FrontendFlags`.
pub fn of_frontend(frontend: &Frontend, id: u32, flags: u32) -> u64 {
    let last = fingerprint::last_word(frontend.port, frontend.protocol.number());
    with_key(frontend.addr, last, |key| fingerprint::of_frontend(key, id, flags))
}

/// Returns the number of a backend.
pub fn of_backend(backend: &Backend, id: u32) -> u64 {
    let last = fingerprint::last_word(backend.port, backend.protocol.number());
    with_key(backend.addr, last, |key| fingerprint::of_backend(key, id))
}

/// Hands over the words of a key, as they lie in the map.
fn with_key(addr: IpAddr, last: u32, then: impl FnOnce(&[u32]) -> u64) -> u64 {
    match addr {
        IpAddr::V4(addr) => then(&[u32::from_ne_bytes(addr.octets()), last]),
        IpAddr::V6(addr) => {
            let mut words = [0, 0, 0, 0, last];
            for (word, octets) in words.iter_mut().zip(addr.octets().as_chunks().0) {
                *word = u32::from_ne_bytes(*octets);
            }
            then(&words)
        }
    }
}

/// Returns the number of a block of the filter: its words, as they lie in memory. One without a bit
/// has none.
pub(super) fn of_block(index: u32, words: &[u8]) -> u64 {
    const EMPTY: [u8; size_of::<abi::FilterBlock>()] = [0; size_of::<abi::FilterBlock>()];
    if words == EMPTY {
        return 0;
    }
    let words = words.chunks_exact(8).filter_map(|word| word.try_into().ok());
    words.fold(mix(0, index.into()), |number, word| mix(number, u64::from_ne_bytes(word)))
}

impl Datapath {
    /// Returns what reads the maps in another thread.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a pin cannot be opened.
    pub fn reader(&self) -> Result<MapReader, Error> {
        MapReader::open(&self.pins)
    }
}

impl MapReader {
    fn open(pins: &PinDirectory) -> Result<Self, Error> {
        let of = |specs: [MapSpec; 2]| {
            specs.into_iter().map(|spec| Source::open(pins, spec)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            maps: Maps::open(pins)?,
            frontends: of([abi::IPV4.frontends, abi::IPV6.frontends])?,
            backends: of([abi::IPV4.backends, abi::IPV6.backends])?,
            filter: Source::open(pins, abi::FILTER)?,
            // Last: the pins are there.
            digester: Digester::load(pins),
        })
    }

    /// Returns why each entry has to be read; nothing where the kernel sums them up.
    pub fn refusal(&self) -> Option<&Error> {
        self.digester.as_ref().err()
    }

    /// Returns how many instructions the verifier went through, by program (Linux 5.16).
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        self.digester.as_ref().map_or_else(|_| Vec::new(), Digester::verified_instructions)
    }

    /// Returns the numbers of all entries, about `count`.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn numbers(&self, count: usize) -> io::Result<MapNumbers> {
        let sums = self.digester.as_ref().ok().and_then(|digester| digester.sums().ok());
        let Some(Digest { frontends, backends, .. }) = sums else { return self.read(count) };
        Ok(MapNumbers { frontends, backends, filter: Some(self.of_filter()?) })
    }

    /// The same by reading the entries, with no program of ours in the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn read(&self, count: usize) -> io::Result<MapNumbers> {
        let numbers = if count > FEW { self.in_batches() } else { self.one_by_one() };
        Ok(MapNumbers { filter: Some(self.of_filter()?), ..numbers? })
    }

    fn one_by_one(&self) -> io::Result<MapNumbers> {
        let mut numbers = MapNumbers::default();
        for (frontend, value) in self.maps.frontends().map_err(io::Error::other)? {
            let entry = of_frontend(&frontend, value.id, value.flags);
            numbers.frontends = numbers.frontends.wrapping_add(entry);
        }
        for (backend, value) in self.maps.backends().map_err(io::Error::other)? {
            let entry = of_backend(&backend, value.id);
            numbers.backends = numbers.backends.wrapping_add(entry);
        }
        Ok(numbers)
    }

    fn of_filter(&self) -> io::Result<u64> {
        let mut number = 0_u64;
        self.filter.scan(|key, value| {
            number = number.wrapping_add(of_block(word(key, 0), value));
        })?;
        Ok(number)
    }

    fn in_batches(&self) -> io::Result<MapNumbers> {
        let mut numbers = MapNumbers::default();
        let mut key = Vec::new();
        for source in &self.frontends {
            source.scan(|bytes, value| {
                split(bytes, &mut key);
                let entry = fingerprint::of_frontend(&key, word(value, 0), word(value, 4));
                numbers.frontends = numbers.frontends.wrapping_add(entry);
            })?;
        }
        for source in &self.backends {
            source.scan(|bytes, value| {
                split(bytes, &mut key);
                let entry = fingerprint::of_backend(&key, word(value, 0));
                numbers.backends = numbers.backends.wrapping_add(entry);
            })?;
        }
        Ok(numbers)
    }
}

/// Makes words of a key.
fn split(bytes: &[u8], words: &mut Vec<u32>) {
    words.clear();
    words.extend(bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word)));
}

/// Returns the word at an offset; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, u32::from_ne_bytes)
}

impl Source {
    fn open(pins: &PinDirectory, spec: MapSpec) -> Result<Self, Error> {
        let map = MapData::from_pin(pins.map(spec.name)).map_err(failed("open", spec.name))?;
        let map = map
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::PinDirectory { path: pins.map(spec.name), source })?;
        let (key, value) = (spec.key_size as usize, spec.value_size as usize);
        let at_once = spec.max_entries.min(BATCH);
        Ok(Self { name: spec.name, map, key, value, at_once })
    }

    fn scan(&self, mut visit: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut keys = vec![0_u8; self.key * self.at_once as usize];
        let mut values = vec![0_u8; self.value * self.at_once as usize];
        let mut from = None;
        loop {
            let (count, next) = self.batch(from, &mut keys, &mut values)?;
            let keys = keys.chunks_exact(self.key);
            let entries = keys.zip(values.chunks_exact(self.value)).take(count as usize);
            entries.for_each(|(key, value)| visit(key, value));
            match next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Reads the entries from a place on; returns how many there are, and the place of the next.
    fn batch(
        &self,
        from: Option<u32>,
        keys: &mut [u8],
        values: &mut [u8],
    ) -> io::Result<(u32, Option<u32>)> {
        let (from_place, mut next) = (from.unwrap_or_default(), 0_u32);
        let mut attributes = Attributes {
            in_batch: from.map_or(0, |_| (&raw const from_place) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.at_once,
            map_fd: self.map.as_raw_fd() as u32,
            ..Attributes::default()
        };
        // SAFETY: the kernel reads and writes the attributes, whose size it is told. It reads the
        // place, writes the next place, and at most `count` keys and values: that many of the sizes
        // that the map was loaded with fit into both buffers. All of them live until it returns.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>() as libc::c_uint,
            )
        };
        if result == 0 {
            return Ok((attributes.count, Some(next)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // The last batch.
            Some(libc::ENOENT) => Ok((attributes.count, None)),
            _ => Err(io::Error::new(error.kind(), format!("read map {}: {error}", self.name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn words(key: &[u8]) -> Vec<u32> {
        let mut words = Vec::new();
        split(key, &mut words);
        words
    }

    #[test]
    fn a_key_of_the_map_has_the_number_of_the_model() {
        let port = 8080_u16.to_ne_bytes();
        let key = [&[10, 1, 1, 11][..], &port, &[6, 0]].concat();
        let backend = Backend { addr: [10, 1, 1, 11].into(), port: 8080, protocol: Protocol::Tcp };
        assert_eq!(fingerprint::of_backend(&words(&key), 7), of_backend(&backend, 7));
        let octets: [u8; 16] = std::array::from_fn(|index| 0xf0 + index as u8);
        let key = [&octets[..], &port, &[17, 0]].concat();
        let frontend = Frontend { addr: octets.into(), port: 8080, protocol: Protocol::Udp };
        assert_eq!(fingerprint::of_frontend(&words(&key), 7, 1), of_frontend(&frontend, 7, 1));
    }
}
