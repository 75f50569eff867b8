//! Network interfaces: listing, the dummy device, and changes as they happen.

mod addresses;
mod driver;
mod dummy;
mod error;
pub(super) mod interfaces;
pub(super) mod neighbours;
mod watch;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_ROUTE};
use rustix::io::Errno;

pub use driver::driver;
pub use dummy::Dummy;
pub use error::{Error, Hint, Operation};
pub use watch::{Event, Watch};

use super::netlink;

/// Returns the name of the interface with this index, as the calling thread's network namespace
/// knows it.
pub fn name(index: u32) -> Option<String> {
    let socket =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
            .ok()?;
    rustix::net::netdevice::index_to_name(socket, index).ok()
}

/// A connection to the link layer of one network namespace: that of the thread that opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct Links {
    handle: ConnectionHandle<RouteNetlinkMessage>,
}

impl Links {
    /// Connects. Must be called within a tokio runtime, which runs the connection until the last
    /// clone is dropped.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { handle: netlink::open(NETLINK_ROUTE).map_err(Error::Open)? })
    }

    /// Sends one request. The inner error is the kernel's answer.
    async fn ask(
        &self,
        operation: &Operation,
        request: NetlinkMessage<RouteNetlinkMessage>,
    ) -> Result<Result<Vec<RouteNetlinkMessage>, Errno>, Error> {
        netlink::ask(&self.handle, request)
            .await
            .map_err(|cause| Error::Netlink { operation: operation.clone(), cause })
    }
}
