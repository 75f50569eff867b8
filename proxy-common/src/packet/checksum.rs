//! Incremental Internet checksums (RFC 1624). All sums are one's complement sums of 16-bit words
//! in the machine's byte order, as the words lie in the packet: the sum is the same in any order
//! as long as it is one order (RFC 1071, section 2 (B)).

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// Adds with end-around carry.
#[inline(always)]
pub const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u32
}

/// Returns the difference that replacing the 32-bit word `from` by `to` makes to a sum.
#[inline(always)]
pub const fn replace(from: u32, to: u32) -> u32 {
    add(!from, to)
}

/// Returns the difference that lowering the TTL by `delta` makes to the IP header's sum. The TTL
/// is the first byte of its 16-bit word.
#[inline(always)]
pub const fn lower_ttl(delta: u8) -> u32 {
    (!u16::from_ne_bytes([delta, 0])) as u32
}

/// Returns the header checksum `check` after a change of the header's sum by `delta`.
#[inline(always)]
pub const fn apply(check: u16, delta: u32) -> u16 {
    !fold((!check) as u32 + fold(delta) as u32)
}

/// Returns what the kernel makes of a full checksum, bit by bit (`csum_replace_by_diff`); [`apply`]
/// differs from it where zero has two forms.
#[inline(always)]
pub const fn kernel_apply(check: u16, delta: u32) -> u16 {
    !fold(add(delta, !(check as u32)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for word in bytes.chunks(2) {
            sum = add(sum, u32::from(u16::from_ne_bytes([word[0], word[1]])));
        }
        !fold(sum)
    }

    proptest! {
        #[test]
        fn a_header_rewritten_by_differences_has_the_checksum_of_a_full_sum(
            mut header in proptest::array::uniform20(any::<u8>()),
            source in any::<[u8; 4]>(),
            destination in any::<[u8; 4]>(),
            ttl_delta in 0u8..2,
        ) {
            header[8] = header[8].max(2);
            header[10..12].fill(0);
            let check = full(&header);
            let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
            let delta = add(
                add(
                    replace(word(12), u32::from_ne_bytes(source)),
                    replace(word(16), u32::from_ne_bytes(destination)),
                ),
                lower_ttl(ttl_delta),
            );
            header[12..16].copy_from_slice(&source);
            header[16..20].copy_from_slice(&destination);
            header[8] -= ttl_delta;
            // 0x0000 and 0xffff are the same number in one's complement.
            let equal = |a: u16, b: u16| a == b || (a ^ b) == 0xffff && (a == 0 || b == 0);
            prop_assert!(equal(apply(check, delta), full(&header)));
            prop_assert!(equal(kernel_apply(check, delta), full(&header)));
        }

        /// What the datapath relies on to see in which way the kernel keeps a checksum.
        #[test]
        fn a_full_checksum_that_changes_changes_otherwise_than_a_partial_one(
            check in any::<u16>(),
            delta in any::<u32>(),
            udp in any::<bool>(),
        ) {
            // `inet_proto_csum_replace_by_diff`, and `bpf_l4_csum_replace` for UDP.
            let sent = |check: u16| if udp && check == 0 { 0xffff } else { check };
            let partial = sent(fold(add(delta, check.into())));
            let full = sent(kernel_apply(check, delta));
            prop_assert!(full != partial || full == check || check == 0xffff);
        }
    }
}
