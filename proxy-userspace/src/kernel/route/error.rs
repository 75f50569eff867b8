//! What goes wrong with VIP routes.

use std::{fmt, io, net::IpAddr};

use rustix::io::Errno;

use crate::kernel::netlink::Failure;

/// A failure of [`super::Routes`].
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
            (Operation::Put(_), Errno::NODEV) => Some(Hint::NoDevice),
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
    /// The route's device is gone.
    #[error("the dummy device is gone")]
    NoDevice,
}

/// What was asked of the routes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// A dump of routes.
    List,
    /// Make an address local.
    Put(IpAddr),
    /// Undo that.
    Remove(IpAddr),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List => f.write_str("list routes of vips"),
            Self::Put(vip) => write!(f, "put route of vip {vip}"),
            Self::Remove(vip) => write!(f, "remove route of vip {vip}"),
        }
    }
}
