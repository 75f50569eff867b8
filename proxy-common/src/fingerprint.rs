//! Numbers that stand for entries of maps: a program sums them in the kernel, and the agent compares
//! the sum with that of what it left. A sum does not depend on the order of the entries. They find
//! accidents, not forgeries.

use crate::abi::FrontendFlags;

/// Takes a word up into a number (the finalizer of splitmix64).
#[inline(always)]
pub const fn mix(number: u64, word: u64) -> u64 {
    let mut z = (number ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns the number of a frontend: the key by words as they lie in the map, and the value. Flags
/// that mean the same have the same number.
#[inline(always)]
pub fn of_frontend(key: &[u32], id: u32, flags: u32) -> u64 {
    of_entry(key, id, FrontendFlags::in_force(flags))
}

/// Returns the number of a backend: the key by words as they lie in the map, and the value.
#[inline(always)]
pub fn of_backend(key: &[u32], id: u32) -> u64 {
    of_entry(key, id, 0)
}

/// Returns the last word of a key, after the address: the port in host order, the protocol's number.
#[inline(always)]
pub fn last_word(port: u16, protocol: u8) -> u32 {
    let [low, high] = port.to_ne_bytes();
    u32::from_ne_bytes([low, high, protocol, 0])
}

#[inline(always)]
fn of_entry(key: &[u32], id: u32, flags: u32) -> u64 {
    let (pairs, rest) = key.as_chunks::<2>();
    let mut number = 0;
    for [one, other] in pairs {
        number = mix(number, pair(*one, *other));
    }
    for word in rest {
        number = mix(number, (*word).into());
    }
    mix(number, pair(id, flags))
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: [u32; 2] = [0x0a00_600a, 0x0006_0050];
    const V6: [u32; 5] = [0xfd, 0, 0, 0x0100_0000, 0x0006_0050];

    fn every_bit_counts<const N: usize>(key: [u32; N], of: impl Fn(&[u32], u32) -> u64) {
        let number = of(&key, 7);
        for bit in 0..32 {
            assert_ne!(of(&key, 7 ^ 1 << bit), number, "bit {bit} of the id");
            for word in 0..N {
                let mut other = key;
                other[word] ^= 1 << bit;
                assert_ne!(of(&other, 7), number, "bit {bit} of word {word}");
            }
        }
    }

    #[test]
    fn every_bit_of_key_and_id_makes_another_number() {
        let frontend = |key: &[u32], id| of_frontend(key, id, FrontendFlags::LEARN);
        every_bit_counts(V4, frontend);
        every_bit_counts(V6, frontend);
        every_bit_counts(V4, of_backend);
        every_bit_counts(V6, of_backend);
    }

    #[test]
    fn flags_count_as_what_they_mean() {
        let of = |flags| of_frontend(&V4, 1, flags);
        let (learn, observe, force) =
            (FrontendFlags::LEARN, FrontendFlags::OBSERVE, FrontendFlags::FORCE);
        let modes = [of(0), of(learn), of(learn | observe), of(learn | force)];
        for (at, one) in modes.iter().enumerate() {
            assert!(!modes[at + 1..].contains(one), "{modes:?}");
        }
        assert_eq!(of(learn | observe | force), of(learn | observe));
        assert_eq!(of(observe | force), of(0));
        assert_eq!(of(learn | 1 << 9), of(learn));
    }

    #[test]
    fn ids_that_two_entries_swap_make_another_sum() {
        for port in 1..=1000 {
            let keys = [[V4[0], last_word(port, 6)], [V4[0], last_word(port + 1, 6)]];
            for (one, other) in [(2, 3), (4, 1024), (5, 70_000)] {
                let sum = |ids: [u32; 2]| {
                    of_backend(&keys[0], ids[0]).wrapping_add(of_backend(&keys[1], ids[1]))
                };
                assert_ne!(sum([one, other]), sum([other, one]), "port {port}: {one}, {other}");
            }
        }
    }

    #[test]
    fn the_last_word_lies_in_memory_as_a_key_ends() {
        let [low, high] = 8080_u16.to_ne_bytes();
        assert_eq!(last_word(8080, 17).to_ne_bytes(), [low, high, 17, 0]);
    }

    #[test]
    fn order_counts_where_words_are_taken_up_one_after_the_other() {
        assert_ne!(mix(mix(0, 1), 2), mix(mix(0, 2), 1));
    }
}
