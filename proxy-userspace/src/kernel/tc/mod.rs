//! Filters and queueing disciplines on an interface: the fast path stays off where somebody
//! else's program already decides. Attaching our own is `kernel::bpf`'s.

mod error;
mod message;
mod watch;

use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_ROUTE};
use rustix::io::Errno;

pub use error::{Error, Operation};
pub use message::{Direction, Filter, Qdisc};
pub use watch::{Change, Watch};

use super::{netlink, raw::Raw};

/// A connection to traffic control of one network namespace: that of the thread that opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct TrafficControl {
    handle: ConnectionHandle<Raw>,
}

impl TrafficControl {
    /// Connects. Must be called within a tokio runtime, which runs the connection until the last
    /// clone is dropped.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { handle: netlink::open(NETLINK_ROUTE).map_err(Error::Open)? })
    }

    /// Returns the queueing disciplines of the interface. TCX and netkit programs are not here:
    /// they are BPF links.
    pub async fn qdiscs(&self, index: u32) -> Result<Vec<Qdisc>, Error> {
        let qdiscs = self.all_qdiscs().await?;
        Ok(qdiscs.into_iter().filter(|qdisc| qdisc.index == index).collect())
    }

    /// Returns the queueing disciplines of all interfaces. The kernel knows no smaller answer.
    pub async fn all_qdiscs(&self) -> Result<Vec<Qdisc>, Error> {
        let operation = Operation::ListQdiscs;
        let replies = self.dump(operation, Raw::list_qdiscs()).await?;
        let qdiscs = replies.iter().map(Raw::qdisc).collect::<Option<Vec<_>>>();
        qdiscs.ok_or(Error::Unreadable { operation })
    }

    /// Returns the filters of the interface's `clsact` or `ingress` discipline, in both
    /// directions.
    pub async fn filters(&self, index: u32) -> Result<Vec<Filter>, Error> {
        self.filters_of(index, &self.all_qdiscs().await?).await
    }

    /// As [`Self::filters`], when the queueing disciplines are known.
    pub async fn filters_of(&self, index: u32, qdiscs: &[Qdisc]) -> Result<Vec<Filter>, Error> {
        let of_interface = qdiscs.iter().filter(|qdisc| qdisc.index == index);
        let directions = of_interface.filter_map(Qdisc::filtered).next().unwrap_or_default();
        let mut filters = Vec::new();
        for direction in directions {
            let operation = Operation::ListFilters(index, *direction);
            let replies = self.dump(operation, Raw::list_filters(index, *direction)).await?;
            for reply in &replies {
                let filter = reply.filter(*direction).ok_or(Error::Unreadable { operation })?;
                // A priority is announced by an entry without a handle.
                filters.extend((filter.handle != 0).then_some(filter));
            }
        }
        Ok(filters)
    }

    /// Removes the interface's clsact discipline with everything attached to it. Succeeds when
    /// there is none, or no such interface.
    pub async fn remove_clsact(&self, index: u32) -> Result<(), Error> {
        let operation = Operation::RemoveClsact(index);
        let request = netlink::write(Raw::remove_clsact(index), 0);
        let answer = netlink::ask(&self.handle, request)
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?;
        match answer {
            Ok(_) | Err(Errno::INVAL | Errno::NOENT | Errno::NODEV) => Ok(()),
            Err(errno) => Err(Error::Refused { operation, errno }),
        }
    }

    async fn dump(&self, operation: Operation, request: Raw) -> Result<Vec<Raw>, Error> {
        netlink::ask(&self.handle, netlink::dump(request))
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?
            .map_err(|errno| Error::Refused { operation, errno })
    }
}
