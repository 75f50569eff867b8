//! What the hash plane sent: by frontend and destination, and by reason.

use std::path::Path;

use proxy_common::{
    abi::{Counter, HashCount},
    hash_reason::{HashClass, HashReason},
};

use crate::{
    kernel::bpf::{Error, HashMaps, PinDirectory},
    model::{DestinationKey, Frontend},
    plan::hash_plane::Layout,
};

/// The file in the state directory that says which index is whose.
pub const LAYOUT: &str = "hash-plane.json";

/// What the hash plane sent.
#[derive(Clone, Debug, Default)]
pub struct Hashed {
    /// To each destination of each frontend.
    pub destinations: Vec<(Frontend, DestinationKey, HashCount)>,
    /// What became of packets, every reason.
    pub reasons: Vec<(HashReason, Counter)>,
}

impl Hashed {
    /// Reads it; `None` where there is no hash plane.
    ///
    /// # Errors
    ///
    /// [`Error::Map`] when a map cannot be read.
    pub fn read(state_dir: &Path, bpffs: &Path) -> Result<Option<Self>, Error> {
        let pins = PinDirectory::at(bpffs);
        if !pins.hash().exists() {
            return Ok(None);
        }
        let maps = HashMaps::open(&pins)?;
        let mut hashed = Self::default();
        for reason in HashReason::ALL {
            hashed.reasons.push((*reason, maps.reason(*reason)?));
        }
        // Without it nobody knows whose counters these are; the agent writes it anew.
        let layout: Layout = std::fs::read(state_dir.join(LAYOUT))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        for (frontend, carried) in layout.carried() {
            for member in &carried.members {
                let count = maps.count(member.index)?;
                hashed.destinations.push((*frontend, member.destination.key, count));
            }
        }
        Ok(Some(hashed))
    }

    /// Returns the word for a class.
    pub fn class(class: HashClass) -> &'static str {
        match class {
            HashClass::Carried => "carried",
            HashClass::Kernel => "kernel",
            HashClass::Other => "other",
        }
    }
}
