//! The client of ctnetlink.

use netlink_packet_netfilter::NetfilterMessage;
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_NETFILTER};
use rustix::io::Errno;
use tokio::sync::Mutex;

use super::{
    entry::Entry,
    error::{Error, Operation},
    message::{self, Filter, Scope},
    stale::Stale,
};
use crate::kernel::netlink::{self, REQUESTS_PER_SEND};

/// A connection to conntrack of one network namespace: that of the thread that opened it.
#[derive(Debug)]
pub struct Client {
    /// The kernel permits one dump at a time on a socket.
    handle: Mutex<ConnectionHandle<NetfilterMessage>>,
}

impl Client {
    /// Connects. Needs a tokio runtime, which runs the connection until the client is dropped.
    pub fn open() -> Result<Self, Error> {
        let handle = netlink::open(NETLINK_NETFILTER).map_err(Error::Open)?;
        Ok(Self { handle: Mutex::new(handle) })
    }

    /// Deletes the stale entries and returns how many there were.
    ///
    /// The table is read once for each address family and protocol, however many frontends are
    /// stale, and never held in memory as a whole. An entry that went meanwhile is no error; one
    /// that cannot be deleted is, after the others are gone.
    pub async fn flush(&self, stale: &Stale) -> Result<usize, Error> {
        self.flush_family(stale, |_| true).await
    }

    /// The same for one address family alone.
    pub async fn flush_of(&self, stale: &Stale, ipv6: bool) -> Result<usize, Error> {
        self.flush_family(stale, |scope| scope.ipv6 == ipv6).await
    }

    async fn flush_family(
        &self,
        stale: &Stale,
        wanted: impl Fn(&Scope) -> bool,
    ) -> Result<usize, Error> {
        let handle = self.handle.lock().await;
        let mut entries = Vec::new();
        for scope in stale.scopes().iter().filter(|scope| wanted(scope)) {
            find(&handle, scope, stale, &mut entries).await?;
        }
        delete(&handle, &entries).await
    }
}

/// Appends the stale entries of the scope.
async fn find(
    handle: &ConnectionHandle<NetfilterMessage>,
    scope: &Scope,
    stale: &Stale,
    entries: &mut Vec<Entry>,
) -> Result<(), Error> {
    let operation = Operation::List { ipv6: scope.ipv6, protocol: scope.protocol };
    let mut answer = Ok(());
    for filter in [Filter::Kernel, Filter::Family] {
        let request = netlink::dump(message::list(scope, filter));
        answer = netlink::scan(handle, request, |message| {
            entries.extend(Entry::read(&message).filter(|entry| stale.contains(entry)));
        })
        .await
        .map_err(|cause| Error::Netlink { operation, cause })?;
        // A filter that the kernel does not like is refused before the first entry.
        if !matches!(answer, Err(Errno::INVAL | Errno::OPNOTSUPP)) {
            break;
        }
    }
    answer.map_err(|errno| Error::refused(operation, errno))
}

/// Deletes the entries and returns how many were there.
async fn delete(
    handle: &ConnectionHandle<NetfilterMessage>,
    entries: &[Entry],
) -> Result<usize, Error> {
    let (mut deleted, mut failed) = (0, None);
    for chunk in entries.chunks(REQUESTS_PER_SEND) {
        let Some(first) = chunk.first() else { break };
        let requests = chunk.iter().map(|entry| netlink::write(message::delete(entry), 0));
        let replies = netlink::exchange(handle, requests.collect()).await.map_err(|cause| {
            Error::Netlink { operation: Operation::Delete(first.frontend), cause }
        })?;
        for (entry, answer) in chunk.iter().zip(replies.answers) {
            match answer {
                Ok(()) => deleted += 1,
                // It timed out, its client was faster, or it is another one by now.
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let operation = Operation::Delete(entry.frontend);
                    failed.get_or_insert_with(|| Error::refused(operation, errno));
                }
            }
        }
    }
    failed.map_or(Ok(deleted), Err)
}
