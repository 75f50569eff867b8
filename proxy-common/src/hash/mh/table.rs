//! The table of a virtual server.

use core::{fmt, net::IpAddr};

use super::{FIRST_KEY, SECOND_KEY, Size};
use crate::hash::{Family, fall_back, siphash::hsiphash, word};

/// A destination as the table sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Destination {
    /// The word of its address, with its port added.
    pub place: u32,
    /// Its last weight that was not 0: the kernel remembers it while the weight is 0, so a drain moves
    /// nobody. 0 only when it was added with weight 0 and has had no other.
    pub last_weight: u32,
}

impl Destination {
    /// Returns the destination at an address and port of a virtual server of that family.
    pub fn new(addr: IpAddr, port: u16, family: Family, last_weight: u32) -> Self {
        Self { place: word(addr, family).wrapping_add(port.into()), last_weight }
    }
}

/// More destinations than slots, which the kernel refuses; its table stays as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMany {
    /// Destinations.
    pub destinations: usize,
    /// Slots.
    pub slots: u32,
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destinations, slots } = self;
        write!(f, "{destinations} destinations, and mh has {slots} slots in this kernel")
    }
}

impl core::error::Error for TooMany {}

/// The table of a virtual server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Table {
    size: Size,
    /// Position of the destination that has each slot; none at all when nobody has a weight.
    owners: Vec<u32>,
}

impl Table {
    /// Fills the table from the destinations in the kernel's order.
    ///
    /// # Errors
    ///
    /// [`TooMany`].
    pub fn build(size: Size, destinations: &[Destination]) -> Result<Self, TooMany> {
        let slots = size.slots();
        if destinations.len() > slots as usize {
            return Err(TooMany { destinations: destinations.len(), slots });
        }
        Ok(Self { size, owners: populate(size, &mut turns(size, destinations)) })
    }

    /// Returns its size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns the position of the destination that has each slot; empty when nobody has a weight.
    pub fn owners(&self) -> &[u32] {
        &self.owners
    }

    /// Returns the position of the destination that a client is sent to: the word of its address and,
    /// with `mh-port`, its port added. `available` says of a position whether its weight is above 0.
    pub fn choose(
        &self,
        client: u32,
        fallback: bool,
        available: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let owner = |slot: u32| self.owners.get(slot as usize).copied();
        let first = self.size.slot(client, 0);
        let named = owner(first)?;
        if available(named) {
            return Some(named);
        }
        let slot_at = |offset| self.size.slot(client, offset);
        fallback.then(|| fall_back(first, self.size.slots(), slot_at, owner, available)).flatten()
    }
}

/// A destination that takes slots.
struct Turns {
    position: u32,
    /// The slot to try next.
    slot: u32,
    step: u32,
    /// Slots in a row.
    slots: u32,
}

fn turns(size: Size, destinations: &[Destination]) -> Vec<Turns> {
    let weights = destinations.iter().map(|destination| destination.last_weight);
    let divisor = weights.clone().fold(0, greatest_common_divisor);
    let Some(most) = weights.max().unwrap_or(0).checked_div(divisor) else { return Vec::new() };
    let shift = (u32::BITS - most.leading_zeros()).saturating_sub(weight_bits(size));
    (0..)
        .zip(destinations)
        .filter(|(_, destination)| destination.last_weight > 0)
        .map(|(position, &Destination { place, last_weight })| Turns {
            position,
            slot: hsiphash(place, FIRST_KEY) % size.slots(),
            step: hsiphash(place, SECOND_KEY) % (size.slots() - 1) + 1,
            slots: ((last_weight / divisor) >> shift).max(1),
        })
        .collect()
}

/// How many bits of a weight count (`IP_VS_MH_TAB_BITS`).
fn weight_bits(size: Size) -> u32 {
    u32::from(size.index() / 2)
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn populate(size: Size, all: &mut [Turns]) -> Vec<u32> {
    const NOBODY: u32 = u32::MAX;
    if all.is_empty() {
        return Vec::new();
    }
    let mut owners = vec![NOBODY; size.slots() as usize];
    let mut left = size.slots();
    while left > 0 {
        for turns in &mut *all {
            for _ in 0..turns.slots.min(left) {
                // There is a free slot, and the step leads through all of a prime number of them.
                while let Some(owner) = owners.get_mut(turns.slot as usize) {
                    if *owner == NOBODY {
                        *owner = turns.position;
                        break;
                    }
                    turns.slot += turns.step;
                    if turns.slot >= size.slots() {
                        turns.slot -= size.slots();
                    }
                }
                left -= 1;
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests;
