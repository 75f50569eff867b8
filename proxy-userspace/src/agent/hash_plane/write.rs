//! Writes what was taken up: backends before the tables, a table before the frontend that leads to it,
//! and what is gone goes last.

use std::{collections::BTreeMap, time::Instant};

use proxy_common::abi::{HashBackend, HashFrontend};
use tracing::error;

use super::HashPlane;
use crate::{
    chain::chain,
    kernel::bpf,
    model::Frontend,
    plan::hash_plane::{Carried, Member, Slots},
};

/// Why the maps could not follow.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Bpf(#[from] bpf::Error),
    #[error("{0}")]
    TooMany(proxy_common::hash::mh::TooMany),
    #[error("keep {path}")]
    Keep { path: String, source: std::io::Error },
}

/// A frontend that the layout has as it is now, and the maps do not yet.
pub(super) struct Taken {
    pub(super) carried: Carried,
    /// Clients were sent by a table of ours before.
    pub(super) was_carried: bool,
    /// How many connections IPVS has of it.
    pub(super) connections: u32,
    /// Members that have lost their place.
    pub(super) gone: Vec<Member>,
}

impl HashPlane {
    /// Writes what was taken up, and returns what failed, and why. Weights go first, of all, so that
    /// what drains gets nothing new at once; tables go together, since replacing one waits until no
    /// packet uses the old one.
    pub(super) fn write(&mut self, taken: &[Taken]) -> BTreeMap<Frontend, String> {
        if taken.is_empty() {
            return BTreeMap::new();
        }
        let failed = match self.write_backends(taken) {
            Ok(()) => self.write_tables(taken),
            Err(error) => {
                let why = chain(&error);
                taken.iter().map(|each| (each.carried.frontend, why.clone())).collect()
            }
        };
        // Also where that failed: nobody else knows of them any more.
        for member in taken.iter().flat_map(|each| &each.gone) {
            if let Err(error) = self.plane.maps.put_backend(member.index, HashBackend::default()) {
                let (backend, error) = (member.destination.key, chain(&error));
                error!(event = "hash_frontend_stays", %backend, error, "XDP still sends to it");
            }
        }
        failed
    }

    fn write_backends(&mut self, taken: &[Taken]) -> Result<(), Error> {
        // First on the disk: an index is never given out twice.
        self.keep()?;
        let until = self.holds_until()?;
        for member in taken.iter().flat_map(|each| &each.carried.members) {
            if self.plane.maps.backend(member.index)?.generation != member.generation {
                self.plane.maps.zero_count(member.index)?;
            }
            self.put_backend(member, until)?;
        }
        Ok(())
    }

    fn write_tables(&mut self, taken: &[Taken]) -> BTreeMap<Frontend, String> {
        let mut failed = BTreeMap::new();
        let mut built = Vec::new();
        for Taken { carried, was_carried, connections, .. } in taken {
            match self.build(carried, *was_carried, *connections) {
                Ok(slots) => built.push((carried, slots)),
                Err(error) => {
                    failed.insert(carried.frontend, chain(&error));
                }
            }
        }
        let tables: Vec<_> =
            built.iter().map(|(carried, slots)| (carried.table, slots.values())).collect();
        let written = self.plane.maps.put_tables(&tables);
        let written = written.map_err(|error| chain(&error));
        for (carried, slots) in built {
            let frontend = carried.frontend;
            let value = HashFrontend { table: carried.table, flags: carried.flags.0 };
            let led = written.clone().and_then(|()| {
                let put = self.plane.maps.put_frontend(&frontend, value);
                put.map_err(|error| chain(&error))
            });
            if let Err(why) = led {
                failed.insert(frontend, why);
                continue;
            }
            if slots.is_marked(carried) {
                self.marked_at.insert(frontend, Instant::now());
            }
            self.slots.insert(frontend, slots);
        }
        failed
    }

    /// Returns the table that the map shall have. `was_carried` says that clients were sent by one
    /// before.
    fn build(&mut self, carried: &Carried, was_carried: bool, known: u32) -> Result<Slots, Error> {
        let held = self.slots.get(&carried.frontend).map(|slots| slots.values().to_vec());
        let before = match held {
            Some(before) => Some(before),
            // What an earlier agent left in the map; it takes CAP_SYS_ADMIN to read it.
            None if was_carried => self.plane.maps.table(carried.table).ok(),
            None => None,
        };
        let values = before.as_deref().unwrap_or_default();
        let mut slots = Slots::build(self.size, carried, values).map_err(Error::TooMany)?;
        // Where IPVS served until now, it alone knows where flows live.
        let is_known = match (&before, was_carried) {
            (Some(_), _) => true,
            (None, true) => false,
            (None, false) => self.adopt(carried, &slots, known),
        };
        if !is_known {
            slots.mark_all();
        }
        Ok(slots)
    }

    pub(super) fn keep(&self) -> Result<(), Error> {
        let failed = |source| Error::Keep { path: self.path.display().to_string(), source };
        let text =
            serde_json::to_vec(&self.layout).map_err(std::io::Error::from).map_err(failed)?;
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, &self.path))
            .map_err(failed)
    }
}
