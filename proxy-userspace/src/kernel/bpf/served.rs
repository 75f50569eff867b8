//! What the fast path carried, by frontend and backend: the maps `recent` and `served` together.

use std::collections::{BTreeMap, BTreeSet};

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use proxy_common::abi::{self, Pair, RECENT_SLOTS, Recent, Served};

use super::{
    Error, PinDirectory,
    maps::{Abi, absent_is_fine, failed, open, read_all},
};

/// How often the slots are read anew when one changed hands meanwhile.
const TRIES: u32 = 4;

/// The two maps. What a pair has in both adds up, modulo 2^64, to what was carried.
pub struct Carried {
    recent: PerCpuArray<MapData, Abi<Recent>>,
    pub(super) served: HashMap<MapData, Abi<Pair>, Abi<Served>>,
}

/// Sums by frontend id and backend id.
pub type ByPair = BTreeMap<(u32, u32), Served>;

impl Carried {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, Error> {
        let recent = Map::PerCpuArray(open(pins, abi::RECENT.name)?);
        let served = Map::HashMap(open(pins, abi::SERVED.name)?);
        Ok(Self {
            recent: recent.try_into().map_err(failed("open", abi::RECENT.name))?,
            served: served.try_into().map_err(failed("open", abi::SERVED.name))?,
        })
    }

    /// Returns what was carried since each pair came to be. Backend id 0 stands for all that are
    /// gone.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn read(&self) -> Result<ByPair, Error> {
        let (recent, mut sums) = self.both()?;
        for (pair, served) in recent {
            let sum = sums.entry(pair).or_default();
            *sum = sum.plus(served);
        }
        sums.retain(|_, served| *served != Served::default());
        Ok(sums)
    }

    /// Forgets pairs whose frontend is gone, and adds up those whose backend is under id 0, so that
    /// whoever gets an id next begins with nothing. What a CPU still has in a slot is offset: it
    /// comes out as nothing when it is moved to `served`.
    ///
    /// Only ids whose flows are dead may be gone here.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read or written.
    pub fn forget(
        &mut self,
        frontend_lives: impl Fn(u32) -> bool,
        backend_lives: impl Fn(u32) -> bool,
    ) -> Result<(), Error> {
        let (recent, served) = self.both()?;
        let pairs: BTreeSet<_> = recent.keys().chain(served.keys()).copied().collect();
        let (mut gone, mut left) = (Vec::new(), ByPair::new());
        for pair @ (frontend, backend) in pairs {
            let stays = frontend_lives(frontend);
            if stays && (backend == 0 || backend_lives(backend)) {
                continue;
            }
            let in_slots = recent.get(&pair).copied().unwrap_or_default();
            let settled = served.get(&pair).copied().unwrap_or_default();
            if stays {
                let sum = left.entry((frontend, 0)).or_default();
                *sum = sum.plus(settled).plus(in_slots);
            }
            if settled != in_slots.negative() {
                self.put(pair, in_slots.negative())?;
                gone.push((pair, in_slots));
            }
        }
        for (pair, more) in left {
            let before = served.get(&pair).copied().unwrap_or_default();
            self.put(pair, before.plus(more))?;
        }
        if gone.is_empty() {
            return Ok(());
        }
        // A slot may have been moved to `served` just before that was written.
        let now = sums(&self.slots()?);
        for (pair, in_slots) in gone {
            let now = now.get(&pair).copied().unwrap_or_default();
            if now != in_slots {
                self.put(pair, now.negative())?;
            }
        }
        Ok(())
    }

    fn put(&mut self, (frontend, backend): (u32, u32), served: Served) -> Result<(), Error> {
        let key = Abi(Pair { frontend, backend });
        if served == Served::default() {
            let removed = absent_is_fine(self.served.remove(&key));
            return removed.map_err(failed("remove", abi::SERVED.name));
        }
        self.served.insert(key, Abi(served), 0).map_err(failed("put", abi::SERVED.name))
    }

    /// Reads both maps. A slot that changes hands in between would be missing or twice: then
    /// everything is read again, a few times.
    fn both(&self) -> Result<(ByPair, ByPair), Error> {
        let mut before = self.slots()?;
        for _ in 1..TRIES {
            let served = self.settled()?;
            let after = self.slots()?;
            let hands = |slots: &[Recent]| slots.iter().map(|slot| slot.pair).collect::<Vec<_>>();
            if hands(&before) == hands(&after) {
                return Ok((sums(&after), served));
            }
            before = after;
        }
        Ok((sums(&before), self.settled()?))
    }

    /// Returns the slots of all CPUs, in a fixed order.
    fn slots(&self) -> Result<Vec<Recent>, Error> {
        let mut slots = Vec::new();
        for slot in 0..RECENT_SLOTS {
            let values = self.recent.get(&slot, 0).map_err(failed("read", abi::RECENT.name))?;
            slots.extend(values.iter().map(|value| value.0));
        }
        Ok(slots)
    }

    fn settled(&self) -> Result<ByPair, Error> {
        let all = read_all(&self.served, abi::SERVED.name)?;
        Ok(all.into_iter().map(|(pair, served)| (key(pair), served)).collect())
    }
}

fn key(pair: Pair) -> (u32, u32) {
    (pair.frontend, pair.backend)
}

fn sums(slots: &[Recent]) -> ByPair {
    let mut sums = ByPair::new();
    for slot in slots.iter().filter(|slot| slot.pair.frontend != 0) {
        let sum = sums.entry(key(slot.pair)).or_default();
        *sum = sum.plus(slot.served);
    }
    sums
}
