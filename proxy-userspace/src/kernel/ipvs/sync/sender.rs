//! Sends sync messages into the multicast group of an interface.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
};

use bytes::BytesMut;
use rustix::{
    io::Errno,
    net::{netdevice::name_to_index, sockopt},
};

use super::{
    SyncedConnection,
    connection::WrongState,
    message::{self, MixedFamilies},
};

/// `IP_VS_SYNC_GROUP` and `IP_VS_SYNC_PORT`.
const GROUP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 81), 8848);

/// A failure of [`SyncSender`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such interface.
    #[error("send sync messages by {interface}: no such interface")]
    NoInterface {
        /// Its name.
        interface: String,
        /// What the kernel says.
        #[source]
        cause: Errno,
    },
    /// No socket, or not one that sends by this interface.
    #[error("open a socket for sync messages by {interface}")]
    Open {
        /// Its name.
        interface: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A connection is in a state that its protocol does not have.
    #[error(transparent)]
    State(#[from] WrongState),
    /// A connection leads to another address family.
    #[error(transparent)]
    Families(#[from] MixedFamilies),
    /// A message was not sent. Those before it were.
    #[error("send a sync message by {interface}")]
    Send {
        /// Name of the interface.
        interface: String,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A sender of sync messages, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct SyncSender {
    socket: UdpSocket,
    interface: String,
    id: u8,
}

impl SyncSender {
    /// Opens a sender to the daemons of one interface with this `id`, or with id 0. The daemon of the
    /// node itself is one of them. With a `ttl` of 1 no router passes the messages on.
    ///
    /// # Errors
    ///
    /// There is no such interface, or no socket.
    pub fn open(interface: &str, id: u8, ttl: u8) -> Result<Self, Error> {
        let failed = |cause| Error::Open { interface: interface.to_owned(), cause };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(failed)?;
        let index = name_to_index(&socket, interface)
            .map_err(|cause| Error::NoInterface { interface: interface.to_owned(), cause })?;
        let any = Ipv4Addr::UNSPECIFIED;
        sockopt::set_ip_multicast_if_with_ifindex(&socket, &any, &any, index)
            .map_err(|errno| failed(errno.into()))?;
        socket.set_multicast_loop_v4(true).map_err(failed)?;
        socket.set_multicast_ttl_v4(ttl.into()).map_err(failed)?;
        Ok(Self { socket, interface: interface.to_owned(), id })
    }

    /// Returns the messages that say this, each for one datagram.
    ///
    /// # Errors
    ///
    /// A connection that the protocol cannot describe.
    pub fn describe(id: u8, connections: &[SyncedConnection]) -> Result<Vec<BytesMut>, Error> {
        let mut entries = Vec::with_capacity(connections.len());
        for connection in connections {
            entries.extend(connection.entries()?);
        }
        Ok(message::encode(id, &entries)?)
    }

    /// Sends connections, many to a datagram. Nobody answers: what a daemon takes is known only from
    /// its table. One that is there already is renewed, and moved when it led elsewhere.
    ///
    /// # Errors
    ///
    /// A connection that the protocol cannot describe, and then nothing is sent; or a message that
    /// the kernel does not send.
    pub fn send(&self, connections: &[SyncedConnection]) -> Result<(), Error> {
        for message in Self::describe(self.id, connections)? {
            self.socket
                .send_to(&message, GROUP)
                .map_err(|cause| Error::Send { interface: self.interface.clone(), cause })?;
        }
        Ok(())
    }
}
