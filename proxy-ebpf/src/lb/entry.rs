//! The only raw access to flow entries. `proxy_common::flow_place` says why nobody locks one.

use proxy_common::{
    abi::{HashFlow, HashFlowEntry},
    flow_place::{Place, WAYS},
};

use crate::{
    family::Family,
    key::FlowWords,
    maps::{Asker, RANKS},
    tags::SetTags,
    timeout,
};

/// The protocol, in a word that has the proof behind it.
const PROTOCOL: u32 = 0xff;
const PROTOCOL_BITS: u32 = PROTOCOL.count_ones();

/// An entry by words; little-endian, as BPF is here.
#[repr(C)]
struct Words<W> {
    key: FlowWords<W>,
    backend: u32,
    generation: u32,
    seen: u32,
    state: u32,
}

/// An entry of a map.
pub struct Entry<F: Family> {
    words: *mut Words<F::Words>,
}

/// A set of a map.
struct Set<F: Family> {
    first: *mut Words<F::Words>,
    tags: SetTags,
}

/// A flow is written to its first set as long as this entry there and the one behind it are unused: then
/// it is not in the other set, which needs not be looked at. They are used one after the other, and never
/// become unused.
const ALONE: usize = WAYS - 2;

impl<F: Family> Entry<F> {
    /// Returns the entry of a flow.
    #[inline(always)]
    pub fn find(flow: &FlowWords<F::Words>, place: Place) -> Option<Self> {
        let first = Set::<F>::at(place.first(F::mask()))?;
        if let Some(entry) = first.find(flow, place) {
            return Some(entry);
        }
        if first.tags.seen.is_unused(ALONE) {
            return None;
        }
        Set::<F>::at(place.second(F::mask()))?.find(flow, place)
    }

    /// Returns what it says, unless it is being written.
    #[inline(always)]
    pub fn read(&self, place: Place) -> Option<HashFlow> {
        // SAFETY: an element of an array map. Each word is loaded once: another CPU may write them
        // meanwhile, which the proof tells.
        let (proof, flow) = unsafe {
            let words = self.words;
            let proof = (&raw const (*words).key.protocol).read_volatile() >> PROTOCOL_BITS;
            let flow = HashFlow {
                backend: (&raw const (*words).backend).read_volatile(),
                generation: (&raw const (*words).generation).read_volatile(),
                seen: (&raw const (*words).seen).read_volatile(),
                state: (&raw const (*words).state).read_volatile(),
            };
            (proof, flow)
        };
        (proof == place.proof(flow.backend, flow.generation)).then_some(flow)
    }

    /// Notes that a packet was seen.
    #[inline(always)]
    pub fn see(&self, now: u32) {
        // SAFETY: as in `read`. Should the entry be another flow's by now, that one is taken for one
        // that was seen now, which it was.
        unsafe { (*self.words).seen = now }
    }

    /// Notes the state of the flow.
    #[inline(always)]
    pub fn mark(&self, state: u32) {
        // SAFETY: as in `read`.
        unsafe { (*self.words).state = state }
    }

    /// Writes an entry that is not in the map; one without a generation removes that of its flow.
    #[inline(always)]
    pub fn adopt(entry: &HashFlowEntry<F::Addr>, seed: u64, now: u32) -> Option<()> {
        let () = Set::<F>::LAID_OUT;
        // SAFETY: both have the same fields at the same offsets, and every pattern of bits is either.
        let words = unsafe { &*(&raw const *entry).cast::<Words<F::Words>>() };
        let FlowWords { source, destination, ports, protocol } = words.key;
        let flow = FlowWords { source, destination, ports, protocol: protocol & PROTOCOL };
        let (place, said) = (flow.place(seed), entry.flow());
        if said.generation != 0 {
            return Self::write(&flow, place, &said, now, Ranks::of(Asker::Agent)?);
        }
        if let Some(found) = Self::find(&flow, place) {
            // SAFETY: as in `read`.
            unsafe { ((*found.words).generation, (*found.words).seen) = (0, 0) }
        }
        Some(())
    }

    /// Writes where a flow goes: over its entry, else over one that is of no flow or of one that is
    /// over, else over that of the first set which was not seen for longest.
    #[inline(always)]
    pub fn write(
        flow: &FlowWords<F::Words>,
        place: Place,
        said: &HashFlow,
        now: u32,
        ranks: Ranks,
    ) -> Option<()> {
        let first = Set::<F>::at(place.first(F::mask()))?;
        first.rank(&ranks, flow, now);
        let (mut set, mut room) = (first, ranks.room());
        if !set.tags.seen.is_unused(ALONE) && !room.is_known() {
            let second = Set::<F>::at(place.second(F::mask()))?;
            second.rank(&ranks, flow, now);
            let other = ranks.room();
            if other.is_known() || room.free < 2 && room.free < other.free {
                (set, room) = (second, other);
            }
        }
        // SAFETY: the way is below `WAYS`, and the set has as many entries. Words that two CPUs write
        // at once have no proof.
        unsafe {
            let words = set.entry(room.way());
            let proof = place.proof(said.backend, said.generation);
            let protocol = flow.protocol | proof << PROTOCOL_BITS;
            let FlowWords { source, destination, ports, .. } = *flow;
            (*words).key = FlowWords { source, destination, ports, protocol };
            (*words).backend = said.backend;
            (*words).generation = said.generation;
            (*words).seen = said.seen;
            (*words).state = said.state;
        }
        // Behind the entry: who sees the tag finds what it is the tag of.
        set.tags.note(room.way(), place.tag());
        Some(())
    }
}

impl<F: Family> Set<F> {
    const LAID_OUT: () = {
        assert!(size_of::<Words<F::Words>>() == size_of::<HashFlowEntry<F::Addr>>());
        assert!(align_of::<Words<F::Words>>() == 4 && WAYS.is_power_of_two());
    };

    /// Returns a set by its index.
    #[inline(always)]
    fn at(index: u32) -> Option<Self> {
        let () = Self::LAID_OUT;
        let tags = SetTags::at::<F>(index)?;
        F::flows().get_ptr_mut(index).map(|set| Self { first: set.cast(), tags })
    }

    /// Looks for the entry of a flow.
    #[inline(always)]
    fn find(&self, flow: &FlowWords<F::Words>, place: Place) -> Option<Entry<F>> {
        let mut ways = self.tags.seen.of(place.tag());
        // More than one time only if flows of the set have the same tag.
        for _ in 0..WAYS {
            let words = self.entry(ways.take()?);
            // SAFETY: as in `read`.
            if unsafe { (*words).key.differs(flow) } == 0 {
                return Some(Entry { words });
            }
        }
        None
    }

    #[inline(always)]
    fn entry(&self, way: usize) -> *mut Words<F::Words> {
        // SAFETY: an element of an array map, which has `WAYS` entries.
        unsafe { self.first.add(way % WAYS) }
    }

    /// Writes down the rank of each entry, for a flow that wants one.
    #[inline(always)]
    fn rank(&self, ranks: &Ranks, flow: &FlowWords<F::Words>, now: u32) {
        for way in 0..WAYS {
            // SAFETY: as in `read`. What is read decides only which entry is lost.
            let words = unsafe { &*self.entry(way) };
            let protocol = words.key.protocol & PROTOCOL;
            let idle = timeout::idle(words.seen, now);
            let last = (WAYS - 1 - way) as u32;
            let mut rank = idle >> 4 << WAY_BITS | last;
            if protocol == 0 {
                rank = OVER | last;
            } else if idle > timeout::of(protocol, words.state) {
                rank |= OVER;
            }
            if words.key.differs(flow) == 0 {
                rank |= KNOWN;
            }
            ranks.put(way, rank);
        }
    }
}

/// It is the flow's.
const KNOWN: u32 = 1 << 31;
/// Its flow is over.
const OVER: u32 = 1 << 30;
/// Bits of the way, below those of the idle time.
const WAY_BITS: u32 = WAYS.trailing_zeros();

/// The ranks of a set's entries: a flow is written over one of the highest. They lie in a map, since the
/// verifier, which would go through each of their combinations, does not know what is in one.
pub struct Ranks {
    first: *mut u32,
}

impl Ranks {
    /// Returns those of this CPU, for one who asks: a packet may come while the agent's program runs.
    #[inline(always)]
    pub fn of(asker: Asker) -> Option<Self> {
        RANKS.get_ptr_mut(asker as u32).map(|ranks| Self { first: ranks.cast() })
    }

    #[inline(always)]
    fn put(&self, way: usize, rank: u32) {
        // SAFETY: an element of `RANKS` has one for each. Volatile, so that none is kept in a register.
        unsafe { self.first.add(way).write_volatile(rank) }
    }

    #[inline(always)]
    fn get(&self, way: usize) -> u32 {
        // SAFETY: as in `put`.
        unsafe { self.first.add(way).read_volatile() }
    }

    /// Returns the best place of the set, and how many entries have no flow that lives.
    #[inline(always)]
    fn room(&self) -> Room {
        let [mut best, mut free] = [0; 2];
        for way in 0..WAYS {
            let rank = self.get(way);
            free += rank / OVER & 1;
            best = best.max(rank);
        }
        Room { best, free }
    }
}

/// The best place that a set has for a flow.
#[derive(Clone, Copy)]
struct Room {
    best: u32,
    /// Entries without a flow that lives.
    free: u32,
}

impl Room {
    #[inline(always)]
    fn is_known(&self) -> bool {
        self.best & KNOWN != 0
    }

    #[inline(always)]
    fn way(&self) -> usize {
        WAYS - 1 - self.best as usize % WAYS
    }
}
