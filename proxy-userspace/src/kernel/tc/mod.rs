//! Filters and queueing disciplines on an interface, read only: the fast path stays off where
//! somebody else's program already decides. Attaching our own is `kernel::bpf`'s.

mod error;
mod message;

use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_ROUTE};

pub use error::{Error, Operation};
pub use message::{Direction, Filter, Qdisc};

use self::message::Raw;
use super::netlink;

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
        let operation = Operation::ListQdiscs(index);
        let replies = self.dump(operation, Raw::list_qdiscs(index)).await?;
        let qdiscs = replies.iter().map(Raw::qdisc).collect::<Option<Vec<_>>>();
        let qdiscs = qdiscs.ok_or(Error::Unreadable { operation })?;
        Ok(qdiscs.into_iter().filter(|qdisc| qdisc.index == index).collect())
    }

    /// Returns the filters of the interface's `clsact` or `ingress` discipline, in both
    /// directions.
    pub async fn filters(&self, index: u32) -> Result<Vec<Filter>, Error> {
        let qdiscs = self.qdiscs(index).await?;
        let directions: &[Direction] =
            match qdiscs.iter().find_map(|qdisc| match qdisc.kind.as_str() {
                "clsact" => Some([Direction::Ingress, Direction::Egress].as_slice()),
                // Whatever direction one asks it for, it lists its ingress filters.
                "ingress" => Some([Direction::Ingress].as_slice()),
                _ => None,
            }) {
                Some(directions) => directions,
                None => return Ok(Vec::new()),
            };
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

    async fn dump(&self, operation: Operation, request: Raw) -> Result<Vec<Raw>, Error> {
        netlink::ask(&self.handle, netlink::dump(request))
            .await
            .map_err(|cause| Error::Netlink { operation, cause })?
            .map_err(|errno| Error::Refused { operation, errno })
    }
}
