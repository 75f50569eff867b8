//! The kernel's `hsiphash` of one word.

/// Returns `hsiphash_1u32` of 64-bit kernels (`lib/siphash.c`): SipHash-1-3 of 4 bytes, of which the
/// lower half is kept. 32-bit kernels have another function.
#[inline(always)]
pub(super) fn hsiphash(word: u32, key: [u64; 2]) -> u32 {
    const BYTES: u64 = 4;
    let block = BYTES << 56 | word as u64;
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573 ^ block,
    ];
    round(&mut state);
    state[0] ^= block;
    state[2] ^= 0xff;
    round(&mut state);
    round(&mut state);
    round(&mut state);
    let [a, b, c, d] = state;
    (a ^ b ^ c ^ d) as u32
}

#[inline(always)]
fn round(state: &mut [u64; 4]) {
    let [mut a, mut b, mut c, mut d] = *state;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    *state = [a, b, c, d];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mh::{FIRST_KEY, SECOND_KEY};

    /// Computed by a kernel.
    #[test]
    fn words_hash_as_in_the_kernel() {
        for (word, first, second) in [
            (0, 0x1d5a_77c2, 0xf882_433f),
            (1, 0x16ec_66b2, 0x8210_aad1),
            (0xffff_ffff, 0x22c5_d719, 0xf75a_0f5d),
            (0x0a01_0a0a, 0x8a98_629b, 0xd0aa_0ab5),
        ] {
            let found = (hsiphash(word, FIRST_KEY), hsiphash(word, SECOND_KEY));
            assert_eq!(found, (first, second), "{word:#x}");
        }
    }
}
