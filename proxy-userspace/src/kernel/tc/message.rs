//! Traffic control messages, read no further than needed. No I/O.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::kernel::raw::{Raw, find, text};

/// `RTM_GETTFILTER`.
const GET_FILTER: u16 = 46;
/// `RTM_DELQDISC`.
const REMOVE_QDISC: u16 = 37;
/// `RTM_GETQDISC`.
const GET_QDISC: u16 = 38;
/// `TC_H_CLSACT`.
const CLSACT: u32 = 0xffff_fff1;
/// Size of `struct tcmsg`.
const HEADER: usize = 20;
/// `TCA_KIND`.
const KIND: u16 = 1;
/// `TCA_OPTIONS`.
const OPTIONS: u16 = 2;
/// `TCA_BPF_NAME`, within the options of a `bpf` filter.
const BPF_NAME: u16 = 7;
/// `TCA_BPF_ID`, within the options of a `bpf` filter.
const BPF_ID: u16 = 11;

/// Which packets a filter sees.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Direction {
    /// Those that the interface received.
    Ingress,
    /// Those that it sends.
    Egress,
}

impl Direction {
    /// Returns the parent of its filters: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or
    /// `TC_H_MIN_EGRESS`.
    fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A queueing discipline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Qdisc {
    /// Interface index.
    pub index: u32,
    /// Kind, such as `noqueue`, `clsact`, `fq_codel`.
    pub kind: String,
    /// Handle, `major << 16 | minor`; 0 for the kernel's own.
    pub handle: u32,
}

impl Qdisc {
    /// Says whether packets meet filters before they are routed or queued.
    pub fn has_filters(&self) -> bool {
        self.filtered().is_some()
    }

    /// Returns the directions whose packets meet the filters of `clsact` or `ingress`.
    pub(super) fn filtered(&self) -> Option<&'static [Direction]> {
        match self.kind.as_str() {
            "clsact" => Some(&[Direction::Ingress, Direction::Egress]),
            // Whatever direction one asks it for, it lists its ingress filters.
            "ingress" => Some(&[Direction::Ingress]),
            _ => None,
        }
    }
}

/// A filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// Which packets it sees.
    pub direction: Direction,
    /// Kind, such as `bpf`, `flower`, `matchall`.
    pub kind: String,
    /// Priority, which tc calls `pref`: lower ones run first.
    pub priority: u16,
    /// Handle within the priority.
    pub handle: u32,
    /// Name given to a `bpf` filter when it was attached.
    pub bpf_name: Option<String>,
    /// Id of the program of a `bpf` filter.
    pub bpf_id: Option<u32>,
}

impl Raw {
    pub(super) fn list_qdiscs() -> Self {
        Self::request(GET_QDISC, 0, 0)
    }

    pub(super) fn list_filters(index: u32, direction: Direction) -> Self {
        Self::request(GET_FILTER, index, direction.parent())
    }

    pub(super) fn remove_clsact(index: u32) -> Self {
        Self::request(REMOVE_QDISC, index, CLSACT)
    }

    fn request(message_type: u16, index: u32, parent: u32) -> Self {
        let mut bytes = BytesMut::with_capacity(HEADER);
        bytes.put_u32_ne(0); // family and padding
        bytes.put_u32_ne(index);
        bytes.put_u32_ne(0); // handle
        bytes.put_u32_ne(parent);
        bytes.put_u32_ne(0); // info
        Self { message_type, bytes }
    }

    /// Reads a queueing discipline; `None` when the bytes are none.
    pub(super) fn qdisc(&self) -> Option<Qdisc> {
        let [index, handle, _, _] = self.header()?;
        Some(Qdisc { index, kind: self.kind()?, handle })
    }

    /// Reads a filter; `None` when the bytes are none.
    pub(super) fn filter(&self, direction: Direction) -> Option<Filter> {
        let [_, handle, _, info] = self.header()?;
        let kind = self.kind()?;
        let options = self.attribute(HEADER, OPTIONS).filter(|_| kind == "bpf").unwrap_or_default();
        Some(Filter {
            direction,
            // The upper half of `tcm_info`; the lower one is the protocol.
            priority: (info >> 16) as u16,
            handle,
            bpf_name: find(options, BPF_NAME).map(text),
            bpf_id: find(options, BPF_ID).and_then(|id| id.try_into().ok()).map(u32::from_ne_bytes),
            kind,
        })
    }

    /// Returns index, handle, parent and info.
    fn header(&self) -> Option<[u32; 4]> {
        let mut words = self.bytes.get(4..HEADER)?.chunks_exact(4).map(|word| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(word);
            u32::from_ne_bytes(bytes)
        });
        Some([words.next()?, words.next()?, words.next()?, words.next()?])
    }

    fn kind(&self) -> Option<String> {
        self.attribute(HEADER, KIND).map(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let raw = Raw { message_type: GET_FILTER, bytes: bytes.as_slice().into() };
            let _ = raw.qdisc();
            let _ = raw.filter(Direction::Egress);
        }
    }
}
