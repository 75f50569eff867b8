//! The map `filter`: bits that tell the datapath what is certainly no Service.

use std::net::IpAddr;

use aya::maps::{Array, Map, MapData, MapError};
use proxy_common::abi::{FILTER, FilterBit, FilterBlock};

use super::{
    Error, PinDirectory,
    fingerprint::of_block,
    maps::{Abi, failed, open},
};
use crate::model::Protocol;

/// What a bit stands for: a frontend or a backend.
pub type Socket = (IpAddr, u16, Protocol);

/// The map. One process changes it at a time: the agent.
pub struct Filter {
    map: Array<MapData, Abi<FilterBlock>>,
    /// What this process left there; nothing before it changed anything.
    left: Option<Vec<FilterBlock>>,
    /// Bits may be set that nobody needs.
    stale: bool,
}

impl Filter {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, Error> {
        let map = Map::Array(open(pins, FILTER.name)?);
        let map = map.try_into().map_err(failed("open", FILTER.name))?;
        Ok(Self { map, left: None, stale: true })
    }

    /// Says that something is there. Before it is: so it is never taken for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn add(&mut self, socket: Socket) -> Result<(), Error> {
        let bit = bit(socket);
        let left = match &mut self.left {
            Some(left) => left,
            none => none.insert(read(&self.map)?),
        };
        let Some(block) = left.get_mut(bit.block as usize) else { return Ok(()) };
        let before = *block;
        set(block, bit);
        if *block != before {
            self.map.set(bit.block, Abi(*block), 0).map_err(failed("put", FILTER.name))?;
        }
        Ok(())
    }

    /// Says that something is gone. Its bit may be that of others, and stays until
    /// [`Self::rebuild`]: it costs a look-up, and nothing else.
    pub(super) fn remove(&mut self) {
        self.stale = true;
    }

    /// Says whether there may be bits that nobody needs.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Makes the filter that of exactly these. Returns how many blocks it changed.
    ///
    /// # Errors
    ///
    /// [`Error::Map`].
    pub fn rebuild(&mut self, all: impl IntoIterator<Item = Socket>) -> Result<usize, Error> {
        let found = read(&self.map)?;
        let mut wanted = vec![FilterBlock::default(); found.len()];
        for socket in all {
            let bit = bit(socket);
            if let Some(block) = wanted.get_mut(bit.block as usize) {
                set(block, bit);
            }
        }
        let mut changed = 0;
        for (index, (found, wanted)) in (0_u32..).zip(found.iter().zip(&wanted)) {
            if found != wanted {
                self.map.set(index, Abi(*wanted), 0).map_err(failed("put", FILTER.name))?;
                changed += 1;
            }
        }
        self.left = Some(wanted);
        self.stale = false;
        Ok(changed)
    }

    /// Returns one number for what this process left there; `None` before it changed anything.
    pub fn left(&self) -> Option<u64> {
        self.left.as_deref().map(number)
    }
}

fn read(map: &Array<MapData, Abi<FilterBlock>>) -> Result<Vec<FilterBlock>, Error> {
    let blocks = map.iter().map(|block| block.map(|Abi(block)| block));
    blocks.collect::<Result<_, MapError>>().map_err(failed("read", FILTER.name))
}

fn bit((addr, port, protocol): Socket) -> FilterBit {
    let protocol = protocol.number();
    match addr {
        IpAddr::V4(addr) => FilterBit::of(&[u32::from_ne_bytes(addr.octets())], port, protocol),
        IpAddr::V6(addr) => {
            let octets = addr.octets();
            let word = |at: usize| [octets[at], octets[at + 1], octets[at + 2], octets[at + 3]];
            let words = [0, 4, 8, 12].map(|at| u32::from_ne_bytes(word(at)));
            FilterBit::of(&words, port, protocol)
        }
    }
}

fn set(block: &mut FilterBlock, bit: FilterBit) {
    if let Some(word) = block.words.get_mut(bit.word as usize) {
        *word |= 1 << bit.bit;
    }
}

fn number(blocks: &[FilterBlock]) -> u64 {
    (0..).zip(blocks).fold(0, |sum: u64, (index, block)| {
        let words = block.words.map(u64::to_ne_bytes);
        sum.wrapping_add(of_block(index, words.as_flattened()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bit_of_an_address_is_that_of_its_words_in_a_packet() {
        let ipv4 = bit(([10, 96, 0, 10].into(), 80, Protocol::Tcp));
        assert_eq!(ipv4, FilterBit::of(&[u32::from_ne_bytes([10, 96, 0, 10])], 80, 6));
        let mut octets = [0_u8; 16];
        (0..16).zip(&mut octets).for_each(|(index, octet)| *octet = index);
        let words = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
        let expected = FilterBit::of(&words.map(u32::from_ne_bytes), 53, 17);
        assert_eq!(bit((octets.into(), 53, Protocol::Udp)), expected);
    }

    #[test]
    fn a_bit_that_is_lost_shows_in_the_number() {
        let mut blocks = vec![FilterBlock::default(); 2];
        let empty = number(&blocks);
        set(&mut blocks[1], FilterBit { block: 1, word: 31, bit: 63 });
        let one = number(&blocks);
        blocks.reverse();
        assert!(empty != one && one != number(&blocks));
    }
}
