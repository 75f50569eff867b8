//! What goes wrong with IPVS.

use std::{fmt, io};

use rustix::io::Errno;

use super::{attribute::DecodeError, command::Command, listing::Key};
use crate::{
    kernel::netlink::Failure,
    model::{Frontend, Scheduler},
};

/// A failure of [`super::Client`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not know the generic netlink family `IPVS`.
    #[error(
        "no ip_vs in this kernel: load the module (`modprobe ip_vs`), or run a kernel that has it \
         (CONFIG_IP_VS)"
    )]
    IpvsMissing,
    /// No netlink socket.
    #[error("open a generic netlink socket")]
    Open(#[source] io::Error),
    /// The kernel answered with an error number.
    #[error("{operation}: {errno}{}", Parenthesised(hint.as_ref()))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// The answer.
        errno: Errno,
        /// What it most likely means here.
        hint: Option<Hint>,
    },
    /// The kernel's answer is not what the IPVS family specifies.
    #[error("{operation}: unreadable reply")]
    Unreadable {
        /// What was asked.
        operation: Operation,
        /// What was wrong.
        #[source]
        cause: DecodeError,
    },
    /// The kernel acknowledged without the message that was asked for.
    #[error("{operation}: empty reply")]
    Empty {
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

impl Error {
    /// Makes the error of an answer, with the hint that fits it.
    pub(super) fn refused(operation: Operation, errno: Errno) -> Self {
        let hint = Hint::of(&operation, errno);
        Self::Refused { operation, errno, hint }
    }
}

/// What was asked of IPVS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// Look the family's number up.
    ResolveFamily,
    /// A write.
    Command(Command),
    /// A dump of all virtual servers.
    ListVirtualServers,
    /// A read of one virtual server.
    GetVirtualServer(Frontend),
    /// A dump of the destinations of one virtual server.
    ListDestinations(Frontend),
    /// The same of any virtual server.
    ListDestinationsOf(Key),
    /// A read of the timeouts.
    GetTimeouts,
    /// A write of the timeouts.
    SetTimeouts,
    /// A read of version and table size.
    GetInfo,
    /// A dump of the sync daemons.
    ListDaemons,
    /// A start of a backup daemon.
    StartBackup,
    /// A stop of the backup daemon.
    StopBackup,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResolveFamily => f.write_str("look up generic netlink family IPVS"),
            Self::Command(command) => command.fmt(f),
            Self::ListVirtualServers => f.write_str("list virtual servers"),
            Self::GetVirtualServer(frontend) => write!(f, "read virtual server {frontend}"),
            Self::ListDestinations(frontend) => write!(f, "list destinations of {frontend}"),
            Self::ListDestinationsOf(key) => write!(f, "list destinations of {key}"),
            Self::GetTimeouts => f.write_str("read ipvs timeouts"),
            Self::SetTimeouts => f.write_str("set ipvs timeouts"),
            Self::GetInfo => f.write_str("read ipvs version"),
            Self::ListDaemons => f.write_str("list ipvs sync daemons"),
            Self::StartBackup => f.write_str("start ipvs sync daemon in state backup"),
            Self::StopBackup => f.write_str("stop ipvs sync daemon in state backup"),
        }
    }
}

/// The likely cause of an error number.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hint {
    /// CAP_NET_ADMIN is demanded in the initial user namespace.
    #[error("needs CAP_NET_ADMIN in the initial user namespace")]
    Privilege,
    /// `ip_vs_new_dest` accepts only addresses that route as local or unicast.
    #[error("the node has no unicast route to the destination")]
    NoRoute,
    /// The destination's virtual server is gone.
    #[error("its virtual server does not exist")]
    NoVirtualServer,
    /// The scheduler's module could not be loaded.
    #[error("no scheduler {0}: run `modprobe ip_vs_{0}`")]
    NoScheduler(Scheduler),
    /// `start_sync_thread` looks its interface up by name.
    #[error("there is no such interface")]
    NoInterface,
    /// The kernel was built without CONFIG_IP_VS_IPV6, or IPv6 is off.
    #[error("this kernel's ip_vs does not do IPv6")]
    NoIpv6,
}

impl Hint {
    fn of(operation: &Operation, errno: Errno) -> Option<Self> {
        match (operation, errno) {
            (_, Errno::PERM) => Some(Self::Privilege),
            (_, Errno::AFNOSUPPORT) => Some(Self::NoIpv6),
            (Operation::Command(Command::PutDestination(..)), Errno::INVAL) => Some(Self::NoRoute),
            (Operation::Command(Command::PutDestination(..)), Errno::SRCH) => {
                Some(Self::NoVirtualServer)
            }
            (Operation::Command(Command::PutVirtualServer(vs)), Errno::NOENT) => {
                Some(Self::NoScheduler(vs.scheduler))
            }
            (Operation::StartBackup, Errno::NODEV) => Some(Self::NoInterface),
            _ => None,
        }
    }
}

struct Parenthesised<'a>(Option<&'a Hint>);

impl fmt::Display for Parenthesised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, DestinationKey, Forwarding, Protocol};

    #[test]
    fn an_unroutable_destination_is_explained() {
        let frontend = Frontend { addr: [10, 96, 0, 1].into(), port: 80, protocol: Protocol::Udp };
        let destination = Destination {
            limits: Default::default(),
            key: DestinationKey { addr: [10, 1, 0, 5].into(), port: 8080 },
            weight: 1,
            forwarding: Forwarding::Masq,
        };
        let command = Command::PutDestination(frontend, destination);
        let error = Error::refused(Operation::Command(command), Errno::INVAL);
        assert_eq!(
            error.to_string(),
            "put destination 10.1.0.5:8080 of 10.96.0.1:80/UDP: Invalid argument (os error 22) \
             (the node has no unicast route to the destination)"
        );
    }
}
