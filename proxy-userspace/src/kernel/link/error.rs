//! What goes wrong with links.

use std::{fmt, io, net::IpAddr};

use rustix::io::Errno;

use crate::kernel::netlink::Failure;

/// A failure of [`super::Links`] or [`super::Watch`].
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
        /// What was asked.
        operation: Operation,
        /// Why there was none.
        #[source]
        cause: Failure,
    },
    /// The name belongs to a device that is not a dummy.
    #[error(
        "device {name} is there, but of kind {kind} instead of dummy: remove it (`ip link delete \
         {name}`), or choose another name with --dummy-device"
    )]
    OtherKind {
        /// The name asked for.
        name: String,
        /// What the device is.
        kind: String,
    },
    /// The device vanished between being made and being looked up.
    #[error("device {name} vanished right after it was created")]
    Vanished {
        /// The name asked for.
        name: String,
    },
}

impl Error {
    pub(super) fn refused(operation: &Operation, errno: Errno) -> Self {
        let hint = match (operation, errno) {
            (_, Errno::PERM) => Some(Hint::Privilege),
            (Operation::PutDummy(_), Errno::OPNOTSUPP) => Some(Hint::NoDummy),
            _ => None,
        };
        Self::Refused { operation: operation.clone(), errno, hint }
    }
}

/// The likely cause of an error number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hint {
    /// Changes demand CAP_NET_ADMIN.
    #[error("needs CAP_NET_ADMIN")]
    Privilege,
    /// The kernel has no such device kind.
    #[error("no dummy devices in this kernel: run `modprobe dummy`")]
    NoDummy,
}

/// What was asked of the link layer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Operation {
    /// A dump of all links.
    ListLinks,
    /// A read of one link by name.
    FindLink(String),
    /// A dump of IPv4 addresses.
    ListAddrs,
    /// A dump of neighbours.
    ListNeighbours,
    /// Make the dummy device or bring it up.
    PutDummy(String),
    /// Bring the loopback device up.
    RaiseLoopback,
    /// Remove the dummy device.
    RemoveDummy(String),
    /// Put an address on the dummy device.
    PutAddr(IpAddr),
    /// Remove an address from the dummy device.
    RemoveAddr(IpAddr),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ListLinks => f.write_str("list links"),
            Self::FindLink(name) => write!(f, "find link {name}"),
            Self::ListAddrs => f.write_str("list addresses"),
            Self::ListNeighbours => f.write_str("list neighbours"),
            Self::PutDummy(name) => write!(f, "put dummy device {name}"),
            Self::RaiseLoopback => f.write_str("put the loopback device up"),
            Self::PutAddr(addr) => write!(f, "put address of vip {addr}"),
            Self::RemoveAddr(addr) => write!(f, "remove address of vip {addr}"),
            Self::RemoveDummy(name) => write!(f, "remove dummy device {name}"),
        }
    }
}
