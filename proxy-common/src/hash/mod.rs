//! What the kernel's hashing schedulers choose, bit for bit: `mh`, `sh` and `dh` of
//! `net/netfilter/ipvs` (`ip_vs_mh.c`, `ip_vs_sh.c` and `ip_vs_dh.c`; the same from Linux 5.15 to 7.3).
//!
//! ```text
//! destinations in the kernel's order ──build──▶ table: slot -> position of a destination
//! client address, and port with mh-port or sh-port ──place──▶ slot ──▶ destination, or nobody
//! ```
//!
//! Positions count from 0 in the order in which IPVS lists the destinations of a virtual server, the
//! newest first. All three tables depend on it. Nothing here asks the kernel: whoever builds a table
//! reads the destinations first, and anew after each edit.

#[cfg(feature = "user")]
mod fixed;
pub mod mh;
mod place;
mod siphash;

#[cfg(feature = "user")]
pub use fixed::{DhTable, ShTable};
pub use place::{Family, ipv4, ipv6, word};

/// IPVS schedules no flow from this client port, whatever its destination: the data connections of FTP
/// are made otherwise (`ip_vs_schedule`). Such a packet passes IPVS untouched.
pub const UNSCHEDULED_PORT: u16 = 20;

/// Slots of the tables of `sh` and `dh`.
pub const FIXED_SLOTS: u32 = 256;

/// `GOLDEN_RATIO_32` of `linux/hash.h`.
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// Returns the slot of a place in the tables of `sh` and `dh`. `offset` is 0, but in a search for
/// another destination.
#[inline(always)]
pub fn fixed_slot(place: u32, offset: u32) -> u32 {
    // The upper 8 bits of the product: `hash_32` of `linux/hash.h`.
    let hash = place.wrapping_mul(GOLDEN_RATIO) >> 24;
    offset.wrapping_add(hash) % FIXED_SLOTS
}

/// Looks for an available destination as the kernel does with `mh-fallback` and `sh-fallback`: slots by
/// further offsets, after the first one was found taken by a destination that takes nothing.
#[cfg(feature = "user")]
fn fall_back(
    first: u32,
    slots: u32,
    slot_at: impl Fn(u32) -> u32,
    owner: impl Fn(u32) -> Option<u32>,
    available: impl Fn(u32) -> bool,
) -> Option<u32> {
    for turn in 0..slots {
        // A slot of nobody ends the search.
        let found = owner(slot_at((first + turn) % slots))?;
        if available(found) {
            return Some(found);
        }
    }
    None
}
