//! Changes of queueing disciplines, filters and next hops, as they happen. What exactly changed is
//! read anew by whoever hears of it: the messages of foreign kinds are not understood.

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_proto::sys::{AsyncSocket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::sync::mpsc;

use super::error::Error;
use crate::kernel::raw::Raw;

/// `RTNLGRP_TC`, `RTNLGRP_NEXTHOP`.
const GROUPS: [u32; 2] = [4, 32];
/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP`.
const NEXT_HOPS: [u16; 2] = [104, 105];

type Messages = UnboundedReceiver<(NetlinkMessage<Raw>, SocketAddr)>;

/// Something changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// A queueing discipline or a filter.
    Queueing,
    /// An object that routes may lead to; they change with it without a word.
    NextHop,
}

/// A subscription to the changes of one network namespace: that of the thread that made it.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<Change>,
}

impl Watch {
    /// Subscribes. Must be called within a tokio runtime; the subscription ends when this value is
    /// dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Open`].
    pub fn open() -> Result<Self, Error> {
        let (mut connection, _handle, messages) =
            netlink_proto::new_connection::<Raw>(NETLINK_ROUTE).map_err(Error::Open)?;
        // Without an address of its own the socket is told nothing.
        connection.socket_mut().socket_mut().bind(&SocketAddr::new(0, 0)).map_err(Error::Open)?;
        for group in GROUPS {
            connection.socket_mut().socket_mut().add_membership(group).map_err(Error::Open)?;
        }
        tokio::spawn(connection);
        let (sender, changes) = mpsc::channel(1);
        tokio::spawn(collect(messages, sender));
        Ok(Self { changes })
    }

    /// Waits for the next change. Many of one kind may be told as one. `None`: the connection is
    /// lost; open another watch.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        self.changes.recv().await
    }
}

/// Kinds of changes that the reader has not heard of yet.
#[derive(Debug, Default)]
struct Untold {
    queueing: bool,
    next_hop: bool,
}

impl Untold {
    fn take_in(&mut self, message: &NetlinkMessage<Raw>) {
        match &message.payload {
            NetlinkPayload::InnerMessage(raw) if NEXT_HOPS.contains(&raw.message_type) => {
                self.next_hop = true;
            }
            NetlinkPayload::InnerMessage(_) => self.queueing = true,
            // Messages were lost: it may have been anything.
            NetlinkPayload::Overrun(_) => *self = Self { queueing: true, next_hop: true },
            _ => {}
        }
    }

    fn first(&self) -> Option<Change> {
        let queueing = self.queueing.then_some(Change::Queueing);
        queueing.or(self.next_hop.then_some(Change::NextHop))
    }

    fn told(&mut self, change: Change) {
        match change {
            Change::Queueing => self.queueing = false,
            Change::NextHop => self.next_hop = false,
        }
    }
}

/// Keeps no more than one change of a kind for a reader that is busy.
async fn collect(mut messages: Messages, sender: mpsc::Sender<Change>) {
    let mut untold = Untold::default();
    loop {
        let message = match untold.first() {
            None => messages.next().await,
            Some(change) => tokio::select! {
                permit = sender.reserve() => {
                    let Ok(permit) = permit else { return };
                    permit.send(change);
                    untold.told(change);
                    continue;
                }
                message = messages.next() => message,
            },
        };
        let Some((message, _)) = message else { return };
        untold.take_in(&message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: NetlinkPayload<Raw>) -> NetlinkMessage<Raw> {
        NetlinkMessage::new(Default::default(), payload)
    }

    fn of_type(message_type: u16) -> NetlinkMessage<Raw> {
        message(NetlinkPayload::InnerMessage(Raw { message_type, bytes: Default::default() }))
    }

    fn told(messages: &[NetlinkMessage<Raw>]) -> Vec<Change> {
        let mut untold = Untold::default();
        messages.iter().for_each(|message| untold.take_in(message));
        let mut told = Vec::new();
        while let Some(change) = untold.first() {
            told.push(change);
            untold.told(change);
        }
        told
    }

    #[test]
    fn changes_of_one_kind_are_told_once() {
        const NEW_FILTER: u16 = 44;
        let many = [of_type(NEW_FILTER), of_type(104), of_type(NEW_FILTER), of_type(105)];
        assert_eq!(told(&many), [Change::Queueing, Change::NextHop]);
        assert_eq!(told(&many[3..]), [Change::NextHop]);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn lost_messages_may_have_been_anything() {
        let lost = [message(NetlinkPayload::Overrun(Vec::new()))];
        assert_eq!(told(&lost), [Change::Queueing, Change::NextHop]);
    }
}
