//! Where the hash plane remembers a flow: in one of two sets of [`WAYS`] entries, which its hash names.
//!
//! Nobody locks an entry. What it says is believed when its proof fits: whoever reads one that is being
//! written, by one or by two CPUs at once, finds a flow without an entry and never another's backend.
//! The program and the agent compute both here.
//!
//! Apart from the sets lie tags (`flow_tags`), a byte for each entry, which stay in the cache of a CPU where
//! the sets do not: most flows without an entry are told without a look at any. An entry with another tag is
//! another flow's.

/// Entries of a set.
pub const WAYS: usize = 4;

/// Odd, and without a pattern: those of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom
/// number generators", 2014) and the golden ratio.
const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
const SECOND: u64 = 0x94d0_49bb_1331_11eb;
const THIRD: u64 = 0x9e37_79b9_7f4a_7c15;
const BACKEND: u32 = 0x9e37_79b9;
const GENERATION: u32 = 0x85eb_ca6b;

/// Bits of a proof.
const PROOF: u32 = 0x00ff_ffff;

/// The bit of a tag that an entry without a flow does not have.
const USED: u8 = 0x80;

/// What a flow's hash says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    hash: u64,
}

impl Place {
    /// Returns the place of a flow: its addresses by words as they lie in a packet, its ports as the
    /// key has them, and its protocol. The seed is one that clients do not know: else they could
    /// fill the sets of others.
    #[inline(always)]
    pub fn of(source: &[u32], destination: &[u32], ports: u32, protocol: u32, seed: u64) -> Self {
        let mut hash = seed;
        for (source, destination) in source.iter().zip(destination) {
            hash = mix(hash ^ pair(*source, *destination), FIRST);
        }
        // Ports that follow each other differ in the low bits of a product only by steps: once more.
        Self { hash: mix(hash ^ pair(ports, protocol), SECOND).wrapping_mul(THIRD) }
    }

    /// Returns the set in which it is looked for first. There are a power of two of them, at most
    /// 2^24: `mask` is one less.
    #[inline(always)]
    pub fn first(self, mask: u32) -> u32 {
        (self.hash >> 40) as u32 & mask
    }

    /// Returns the set in which it is when that is full.
    #[inline(always)]
    pub fn second(self, mask: u32) -> u32 {
        (self.hash >> 16) as u32 & mask
    }

    /// Returns the tag of its entry.
    #[inline(always)]
    pub fn tag(self) -> u8 {
        (self.hash >> 8) as u8 | USED
    }

    /// Returns the proof of an entry which says that the flow goes to this backend.
    #[inline(always)]
    pub fn proof(self, backend: u32, generation: u32) -> u32 {
        let said = backend.wrapping_mul(BACKEND) ^ generation.wrapping_mul(GENERATION);
        let flow = (self.hash ^ self.hash >> 32) as u32;
        (flow ^ said ^ said >> 15) & PROOF
    }
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[inline(always)]
fn mix(word: u64, factor: u64) -> u64 {
    let product = word.wrapping_mul(factor);
    product ^ product >> 32
}

#[cfg(all(test, feature = "user"))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const SEED: u64 = 0x0123_4567_89ab_cdef;
    const SEEDS: [u64; 4] = [1, SEED, 1 << 63, u64::MAX];
    const VIP: u32 = 0x0100_00c0;

    /// Clients that differ in little: in the port, in the address, or in both.
    const CLIENTS: [fn(u32) -> (u32, u32); 3] = [
        |number| (0x0a, number & 0xffff),
        |number| (0x0a + (number << 8), 40_000),
        |number| (0x0a + (number >> 4 << 12), 1024 + (number & 15) * 7),
    ];

    fn places(clients: fn(u32) -> (u32, u32), seed: u64) -> impl Fn(u32) -> Place {
        move |number| {
            let (addr, port) = clients(number);
            Place::of(&[addr], &[VIP], 80 << 16 | port, 6, seed)
        }
    }

    #[test]
    fn half_as_many_flows_as_entries_nearly_all_have_room() {
        const SETS: u32 = 1 << 13;
        for (clients, seed) in CLIENTS.into_iter().flat_map(|each| SEEDS.map(|seed| (each, seed))) {
            let mut used = vec![0; SETS as usize];
            let mut without = 0;
            for place in (0..SETS * WAYS as u32 / 2).map(places(clients, seed)) {
                let sets = [place.first(SETS - 1), place.second(SETS - 1)].map(|set| set as usize);
                let free = sets.map(|set| WAYS - used[set]);
                let set = sets[usize::from(free[0] < 2 && free[0] < free[1])];
                if used[set] == WAYS {
                    without += 1;
                } else {
                    used[set] += 1;
                }
            }
            // Sets chosen at random leave about 4 of these 16,384 without.
            assert!(without < 20, "{without} flows have no room");
        }
    }

    #[test]
    fn few_flows_of_a_set_have_the_same_tag() {
        const SETS: u32 = 1 << 13;
        for (clients, seed) in CLIENTS.into_iter().flat_map(|each| SEEDS.map(|seed| (each, seed))) {
            let mut sets = vec![Vec::new(); SETS as usize];
            let places = (0..SETS * WAYS as u32).map(places(clients, seed));
            places.for_each(|place| sets[place.first(SETS - 1) as usize].push(place.tag()));
            let pairs = |set: &Vec<u8>| set.len() * set.len().saturating_sub(1) / 2;
            let same = |set: &Vec<u8>| {
                let others =
                    |at: usize| set[at + 1..].iter().filter(|tag| **tag == set[at]).count();
                (0..set.len()).map(others).sum::<usize>()
            };
            let [pairs, same]: [usize; 2] =
                [sets.iter().map(pairs).sum(), sets.iter().map(same).sum()];
            // One of 128, were tags drawn at random.
            assert!(same < pairs / 96, "{same} of {pairs} pairs");
            assert!(sets.iter().flatten().all(|tag| tag & USED != 0));
        }
    }

    #[test]
    fn every_part_of_a_flow_is_in_its_place() {
        let base = ([1, 2, 3, 4], [5, 6, 7, 8], 9, 6);
        let mut places: Vec<_> = Vec::new();
        let mut add = |(source, destination, ports, protocol): ([u32; 4], [u32; 4], u32, u32)| {
            places.push(Place::of(&source, &destination, ports, protocol, SEED).hash);
        };
        add(base);
        for word in 0..4 {
            let (mut source, mut destination) = (base, base);
            source.0[word] ^= 1 << 31;
            destination.1[word] ^= 1 << 31;
            add(source);
            add(destination);
        }
        add((base.0, base.1, base.2 ^ 1 << 31, base.3));
        add((base.0, base.1, base.2, 17));
        assert_eq!(places.iter().collect::<BTreeSet<_>>().len(), 11);
    }

    #[test]
    fn another_seed_gives_other_places() {
        let of = |seed| Place::of(&[1], &[2], 3, 6, seed).first(u32::MAX);
        assert_ne!(of(1), of(2));
    }

    proptest! {
        #[test]
        fn a_proof_is_of_one_flow_and_one_backend(
            flows in any::<[u32; 2]>(), backends in any::<[u16; 2]>(), generations in any::<[u32; 2]>(),
        ) {
            let place = |flow| Place::of(&[flow], &[VIP], 5, 6, SEED);
            let proof = |flow: usize, backend: usize, generation: usize| {
                place(flows[flow]).proof(backends[backend].into(), generations[generation])
            };
            prop_assert_eq!(flows[0] == flows[1], proof(0, 0, 0) == proof(1, 0, 0));
            prop_assert_eq!(backends[0] == backends[1], proof(0, 0, 0) == proof(0, 1, 0));
            prop_assert_eq!(generations[0] == generations[1], proof(0, 0, 0) == proof(0, 0, 1));
            prop_assert!(proof(0, 0, 0) < 1 << 24);
        }
    }
}
