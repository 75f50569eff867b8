//! What goes wrong with conntrack entries.

use std::{fmt, io};

use rustix::io::Errno;

use crate::{
    kernel::netlink::Failure,
    model::{Frontend, Protocol},
};

/// A failure of [`super::Client`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("open a netfilter netlink socket (the kernel needs nfnetlink)")]
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
        /// What was asked; of a batch, its first entry.
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
            // `nfnetlink_rcv_msg` says so of a subsystem that it cannot load.
            (Operation::List { .. }, Errno::INVAL) => Some(Hint::Missing),
            _ => None,
        };
        Self::Refused { operation, errno, hint }
    }
}

/// The likely cause of an error number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hint {
    /// The whole subsystem demands CAP_NET_ADMIN.
    #[error("needs CAP_NET_ADMIN")]
    Privilege,
    /// The kernel does not know ctnetlink.
    #[error("no conntrack netlink in this kernel: run `modprobe nf_conntrack_netlink`")]
    Missing,
}

/// What was asked of conntrack.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// A dump of the entries of one address family and protocol.
    List {
        /// IPv6, else IPv4.
        ipv6: bool,
        /// The protocol.
        protocol: Protocol,
    },
    /// The deletion of an entry, with its original destination.
    Delete(Frontend),
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List { ipv6, protocol } => {
                let family = if *ipv6 { "IPv6" } else { "IPv4" };
                write!(f, "list {family} conntrack entries of {protocol}")
            }
            Self::Delete(frontend) => write!(f, "delete conntrack entry of {frontend}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_subsystem_names_its_module() {
        let list = Operation::List { ipv6: false, protocol: Protocol::Udp };
        assert_eq!(
            Error::refused(list, Errno::INVAL).to_string(),
            "list IPv4 conntrack entries of UDP: Invalid argument (os error 22) \
             (no conntrack netlink in this kernel: run `modprobe nf_conntrack_netlink`)"
        );
    }

    #[test]
    fn a_refused_deletion_names_the_frontend() {
        let frontend = Frontend { addr: [10, 96, 0, 10].into(), port: 53, protocol: Protocol::Udp };
        assert_eq!(
            Error::refused(Operation::Delete(frontend), Errno::PERM).to_string(),
            "delete conntrack entry of 10.96.0.10:53/UDP: Operation not permitted (os error 1) \
             (needs CAP_NET_ADMIN)"
        );
    }
}
