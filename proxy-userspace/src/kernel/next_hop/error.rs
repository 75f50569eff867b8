//! What goes wrong with next hops.

use std::{fmt, io, net::IpAddr};

use rustix::io::Errno;

use crate::kernel::netlink::Failure;

/// A failure of [`super::NextHops`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("open a route netlink socket")]
    Open(#[source] io::Error),
    /// The kernel answered with an error number.
    #[error("{operation}: {errno}{}", hint.map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The answer.
        errno: Errno,
        /// What it most likely means here.
        hint: Option<Hint>,
    },
    /// No answer.
    #[error("{operation}")]
    Netlink {
        /// What was asked; of a batch, its first object.
        operation: Operation,
        /// Why there was none.
        #[source]
        cause: Failure,
    },
}

impl Error {
    pub(super) fn refused(operation: Operation, errno: Errno) -> Self {
        let hint = match (operation, errno) {
            (_, Errno::PERM) => Some(Hint::Privilege),
            (Operation::Confirm(_), Errno::NOBUFS) => Some(Hint::TooManyNeighbours),
            _ => None,
        };
        Self::Refused { operation, errno, hint }
    }
}

/// The likely cause of an error number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hint {
    /// Changes demand CAP_NET_ADMIN.
    #[error("needs CAP_NET_ADMIN")]
    Privilege,
    /// The kernel's table of neighbours is full.
    #[error("too many neighbours: raise net.ipv4.neigh.default.gc_thresh3, or that of ipv6")]
    TooManyNeighbours,
}

/// What was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// The route to a destination.
    Route(IpAddr),
    /// The device of this index.
    Device(u32),
    /// A dump of neighbours.
    ListNeighbours,
    /// Have the kernel ask a neighbour for its address.
    Confirm(IpAddr),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(addr) => write!(f, "look up the route to {addr}"),
            Self::Device(index) => write!(f, "look up the device of index {index}"),
            Self::ListNeighbours => f.write_str("list neighbours"),
            Self::Confirm(addr) => write!(f, "have neighbour {addr} asked for its address"),
        }
    }
}
