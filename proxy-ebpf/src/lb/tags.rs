//! The only raw access to the tags of flow entries. `proxy_common::flow_place` says why they lie apart.

use proxy_common::{
    abi::{HashTags, hash_capacity::TAGGED},
    flow_place::WAYS,
    flow_tags::Tags,
};

use crate::family::Family;

/// The tags of a set of a map.
pub struct SetTags {
    first: *mut u8,
    /// As they were when they were asked for.
    pub seen: Tags,
}

impl SetTags {
    const LAID_OUT: () = {
        assert!(TAGGED.is_power_of_two() && WAYS.is_power_of_two() && WAYS == size_of::<Tags>());
        assert!(size_of::<HashTags>() == TAGGED as usize * WAYS);
    };

    /// Returns those of a set, by its index.
    #[inline(always)]
    pub fn at<F: Family>(set: u32) -> Option<Self> {
        let () = Self::LAID_OUT;
        let words = F::tags().get_ptr_mut(set / TAGGED)?;
        // SAFETY: an element of an array map, which begins at a multiple of eight bytes and has a word
        // for each of `TAGGED` sets; little-endian, as BPF is here. It is loaded once: another CPU may
        // write to it meanwhile.
        unsafe {
            let word = words.cast::<u32>().add((set % TAGGED) as usize);
            Some(Self { first: word.cast(), seen: Tags(word.read_volatile()) })
        }
    }

    /// Notes the tag of an entry that has been written.
    #[inline(always)]
    pub fn note(&self, way: usize, tag: u8) {
        // SAFETY: as in `at`; the word has `WAYS` bytes. Two CPUs that write the same entry at once can
        // leave one's with the other's tag: then it is no entry of either, as without a proof.
        unsafe { self.first.add(way % WAYS).write_volatile(tag) }
    }
}
