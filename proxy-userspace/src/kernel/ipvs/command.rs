//! Writes, and what the kernel's two answers to each mean.

use std::fmt;

use rustix::io::Errno;

use super::message::Request;
use crate::model::{Destination, DestinationKey, Frontend, VirtualServer};

/// A write of one object. All are idempotent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Creates the virtual server, or makes the existing one equal. Its destinations stay.
    PutVirtualServer(VirtualServer),
    /// Removes the virtual server with its destinations; connections stay until they time out.
    RemoveVirtualServer(Frontend),
    /// Adds the destination to the virtual server, or makes the existing one equal.
    PutDestination(Frontend, Destination),
    /// Removes the destination from the virtual server.
    RemoveDestination(Frontend, DestinationKey),
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutVirtualServer(vs) => write!(f, "put virtual server {}", vs.frontend),
            Self::RemoveVirtualServer(frontend) => write!(f, "remove virtual server {frontend}"),
            Self::PutDestination(frontend, destination) => {
                write!(f, "put destination {} of {frontend}", destination.key)
            }
            Self::RemoveDestination(frontend, key) => {
                write!(f, "remove destination {key} of {frontend}")
            }
        }
    }
}

impl Command {
    /// Returns what kind of write it is, as metrics name it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PutVirtualServer(_) => "put_virtual_server",
            Self::RemoveVirtualServer(_) => "remove_virtual_server",
            Self::PutDestination(..) => "put_destination",
            Self::RemoveDestination(..) => "remove_destination",
        }
    }

    /// Returns the requests that carry the command out, in order.
    ///
    /// A put is SET, then NEW. Whatever was there, the object is there and equal afterwards,
    /// without asking first and without waiting between the two, so a batch keeps its order. The
    /// one that does not apply fails after a table lookup. NEW first would be wrong: the SET after
    /// it would rebuild the hash table of `mh` and `sh` for every new destination.
    pub fn requests(&self) -> Vec<Request> {
        match *self {
            Self::PutVirtualServer(vs) => {
                vec![Request::SetVirtualServer(vs), Request::NewVirtualServer(vs)]
            }
            Self::RemoveVirtualServer(frontend) => vec![Request::RemoveVirtualServer(frontend)],
            Self::PutDestination(frontend, destination) => vec![
                Request::SetDestination(frontend, destination),
                Request::NewDestination(frontend, destination),
            ],
            Self::RemoveDestination(frontend, key) => {
                vec![Request::RemoveDestination(frontend, key)]
            }
        }
    }

    /// Judges the kernel's answers to [`Command::requests`], in the same order.
    ///
    /// `Err` is the answer that explains the failure. Error numbers are those of
    /// `ip_vs_genl_set_cmd`, `ip_vs_add_service`, `ip_vs_edit_dest` and their neighbours.
    pub fn judge(&self, answers: &[Result<(), Errno>]) -> Result<(), Errno> {
        match self {
            Self::PutVirtualServer(_) | Self::PutDestination(..) => match answers {
                [Ok(()), _] | [_, Ok(())] => Ok(()),
                // It exists, so SET's answer is the one that matters.
                [Err(set), Err(Errno::EXIST)] => Err(*set),
                [_, Err(new)] => Err(*new),
                _ => Err(Errno::PROTO),
            },
            Self::RemoveVirtualServer(_) | Self::RemoveDestination(..) => match answers {
                // SRCH: no such virtual server; NOENT: no such destination.
                [Ok(()) | Err(Errno::SRCH | Errno::NOENT)] => Ok(()),
                [Err(errno)] => Err(*errno),
                _ => Err(Errno::PROTO),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Protocol, Scheduler, SchedulerFlags};

    const FRONTEND: Frontend = Frontend {
        addr: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)),
        port: 443,
        protocol: Protocol::Tcp,
    };

    fn put() -> Command {
        Command::PutVirtualServer(VirtualServer {
            frontend: FRONTEND,
            scheduler: Scheduler::Rr,
            flags: SchedulerFlags(0),
            persistent_secs: 0,
        })
    }

    #[test]
    fn putting_the_absent_and_putting_the_existing_both_succeed() {
        assert_eq!(put().judge(&[Err(Errno::SRCH), Ok(())]), Ok(()));
        assert_eq!(put().judge(&[Ok(()), Err(Errno::EXIST)]), Ok(()));
    }

    #[test]
    fn a_refused_edit_is_explained_by_the_edit() {
        assert_eq!(put().judge(&[Err(Errno::INVAL), Err(Errno::EXIST)]), Err(Errno::INVAL));
        assert_eq!(put().judge(&[Err(Errno::SRCH), Err(Errno::NOENT)]), Err(Errno::NOENT));
    }

    #[test]
    fn removing_the_absent_succeeds() {
        let remove = Command::RemoveVirtualServer(FRONTEND);
        assert_eq!(remove.judge(&[Err(Errno::SRCH)]), Ok(()));
        assert_eq!(remove.judge(&[Err(Errno::PERM)]), Err(Errno::PERM));
    }

    #[test]
    fn a_missing_answer_is_an_error() {
        assert_eq!(put().judge(&[Err(Errno::SRCH)]), Err(Errno::PROTO));
        assert_eq!(Command::RemoveVirtualServer(FRONTEND).judge(&[]), Err(Errno::PROTO));
    }

    #[test]
    fn a_command_prints_its_object() {
        assert_eq!(put().to_string(), "put virtual server 10.96.0.1:443/TCP");
    }
}
