//! Bytes whose every position is known, and their SHA-256: a transfer that loses, repeats,
//! reorders or changes anything has another digest.

use std::fmt::Write as _;
use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// The size of the demo's long transfer.
pub const SIXTY_FOUR_MIB: u64 = 64 << 20;

/// Bytes of the pattern that a blob repeats.
const BLOCK: usize = 256 * 1024;

/// A deterministic blob: blocks of a pseudo-random pattern, each beginning with its number.
#[derive(Clone, Debug)]
pub struct Blob {
    size: u64,
    block: Vec<u8>,
}

impl Blob {
    /// The blob of `size` bytes. A shorter blob is the beginning of a longer one.
    #[must_use]
    pub fn of(size: u64) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut block = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK {
            // xorshift64: no two of the 32,768 words are alike.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block.extend_from_slice(&state.to_be_bytes());
        }
        Self { size, block }
    }

    /// Writes all of it.
    pub fn write_to(mut self, sink: &mut impl Write) -> io::Result<()> {
        let mut left = self.size;
        for number in 0_u64.. {
            if left == 0 {
                break;
            }
            self.block[..8].copy_from_slice(&number.to_be_bytes());
            let count = BLOCK.min(usize::try_from(left).unwrap_or(BLOCK));
            sink.write_all(&self.block[..count])?;
            left -= count as u64;
        }
        Ok(())
    }

    /// SHA-256 of all of it, in hexadecimal.
    #[must_use]
    pub fn digest(self) -> String {
        let mut digest = Digest::default();
        // Writing to a digest cannot fail.
        let _infallible = self.write_to(&mut digest);
        digest.hex()
    }
}

/// A running SHA-256.
#[derive(Clone, Debug, Default)]
pub struct Digest(Sha256);

impl Digest {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest in hexadecimal.
    #[must_use]
    pub fn hex(self) -> String {
        self.0.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
    }
}

impl Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swapped_block_changes_the_digest() {
        let mut bytes = Vec::new();
        Blob::of(2 * BLOCK as u64 + 5).write_to(&mut bytes).unwrap();
        let mut swapped = bytes[BLOCK..2 * BLOCK].to_vec();
        swapped.extend_from_slice(&bytes[..BLOCK]);
        swapped.extend_from_slice(&bytes[2 * BLOCK..]);
        let hex = |bytes: &[u8]| {
            let mut digest = Digest::default();
            digest.update(bytes);
            digest.hex()
        };
        assert_eq!(hex(&bytes), Blob::of(2 * BLOCK as u64 + 5).digest());
        assert_ne!(hex(&bytes), hex(&swapped));
    }

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Blob::of(0).digest(), empty);
    }
}
