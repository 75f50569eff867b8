//! What goes wrong with traffic control.

use std::{fmt, io};

use rustix::io::Errno;

use super::Direction;
use crate::kernel::netlink::Failure;

/// A failure of [`super::TrafficControl`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("open a route netlink socket")]
    Open(#[source] io::Error),
    /// The kernel answered with an error number.
    #[error("{operation}: {errno}")]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The answer.
        errno: Errno,
    },
    /// The kernel's answer is not a traffic control message.
    #[error("{operation}: unreadable reply")]
    Unreadable {
        /// What was asked.
        operation: Operation,
    },
    /// No answer.
    #[error("{operation}")]
    Netlink {
        /// What was asked.
        operation: Operation,
        /// Why there was none.
        #[source]
        cause: Failure,
    },
}

/// What was asked of traffic control.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// A dump of the queueing disciplines.
    ListQdiscs,
    /// A dump of the filters of the interface with this index.
    ListFilters(u32, Direction),
    /// Removal of the clsact discipline of the interface with this index.
    RemoveClsact(u32),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListQdiscs => f.write_str("list queueing disciplines"),
            Self::ListFilters(index, direction) => {
                write!(f, "list {direction} filters of interface {index}")
            }
            Self::RemoveClsact(index) => write!(f, "remove clsact of interface {index}"),
        }
    }
}
