//! The client of the IPVS family.

use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;
use netlink_proto::{
    ConnectionHandle,
    sys::{AsyncSocket, SocketAddr, protocols::NETLINK_GENERIC},
};
use rustix::io::Errno;

use super::{
    command::Command,
    destination::DestinationState,
    error::{Error, Operation},
    family::{self, Raw},
    info::{self, Info, Timeouts},
    message::{self, Reply, Request},
    virtual_server::VirtualServerState,
};
use crate::model::{Destination, DestinationKey, Frontend, VirtualServer};

/// Requests in one send(). Their answers wait together in the socket's receive buffer of 208 KiB:
/// an error answer with the request it quotes takes at most about 1.2 KiB there.
const REQUESTS_PER_SEND: usize = 96;
/// The kernel answers at once, but may first wait for another network namespace's change: IPVS has
/// one lock for all of them before Linux 7.1.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to IPVS of one network namespace: that of the thread that opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    family: u16,
    handle: ConnectionHandle<GenlMessage<Raw>>,
}

/// Why a request was not answered.
#[derive(Clone, Copy)]
enum Failure {
    ConnectionLost,
    NoReply,
}

impl Failure {
    fn of(self, operation: Operation) -> Error {
        match self {
            Self::ConnectionLost => Error::Connection { operation },
            Self::NoReply => Error::NoReply { operation, after: REPLY_TIMEOUT },
        }
    }
}

impl Client {
    /// Connects. Loads module `ip_vs` when the kernel can.
    ///
    /// Must be called within a tokio runtime, which runs the connection until the last clone is
    /// dropped. Fails with [`Error::IpvsMissing`] when the kernel has no IPVS, and when it permits
    /// no netlink socket.
    pub async fn open() -> Result<Self, Error> {
        let family = family::resolve().await?;
        let (mut connection, handle, _) =
            netlink_proto::new_connection::<GenlMessage<Raw>>(NETLINK_GENERIC)
                .map_err(Error::Open)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        // Error answers need not quote the request.
        connection.socket_mut().socket_mut().set_cap_ack(true).map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self { family, handle })
    }

    /// Returns all virtual servers but those by firewall mark, in the order of the kernel's hash.
    ///
    /// The dump is not atomic: what others change meanwhile may be missed or come twice.
    pub async fn virtual_servers(&self) -> Result<Vec<VirtualServerState>, Error> {
        let operation = Operation::ListVirtualServers;
        let messages = self.read(operation, Request::ListVirtualServers).await?;
        message::decode_virtual_servers(&messages)
            .map_err(|cause| Error::Unreadable { operation, cause })
    }

    /// Returns one virtual server, or `None` when there is none.
    pub async fn virtual_server(
        &self,
        frontend: &Frontend,
    ) -> Result<Option<VirtualServerState>, Error> {
        let operation = Operation::GetVirtualServer(*frontend);
        let messages = match self.read(operation, Request::GetVirtualServer(*frontend)).await {
            Err(Error::Refused { errno: Errno::SRCH, .. }) => return Ok(None),
            other => other?,
        };
        let states = message::decode_virtual_servers(&messages)
            .map_err(|cause| Error::Unreadable { operation, cause })?;
        Ok(states.into_iter().next())
    }

    /// Returns the destinations of one virtual server in the kernel's order, the newest first:
    /// the order that `mh` and `sh` hash over. Empty when there is no such virtual server.
    pub async fn destinations(&self, frontend: &Frontend) -> Result<Vec<DestinationState>, Error> {
        let operation = Operation::ListDestinations(*frontend);
        let messages = self.read(operation, Request::ListDestinations(*frontend)).await?;
        message::decode_destinations(&messages, frontend)
            .map_err(|cause| Error::Unreadable { operation, cause })
    }

    /// Carries [`Command::PutVirtualServer`] out.
    pub async fn put_virtual_server(&self, virtual_server: &VirtualServer) -> Result<(), Error> {
        self.write(Command::PutVirtualServer(*virtual_server)).await
    }

    /// Carries [`Command::RemoveVirtualServer`] out.
    pub async fn remove_virtual_server(&self, frontend: &Frontend) -> Result<(), Error> {
        self.write(Command::RemoveVirtualServer(*frontend)).await
    }

    /// Carries [`Command::PutDestination`] out.
    pub async fn put_destination(
        &self,
        frontend: &Frontend,
        destination: &Destination,
    ) -> Result<(), Error> {
        self.write(Command::PutDestination(*frontend, *destination)).await
    }

    /// Carries [`Command::RemoveDestination`] out.
    pub async fn remove_destination(
        &self,
        frontend: &Frontend,
        key: &DestinationKey,
    ) -> Result<(), Error> {
        self.write(Command::RemoveDestination(*frontend, *key)).await
    }

    /// Carries the commands out in order, many to a send(), and returns one result for each, in
    /// the same order. A failed one does not stop the ones after it.
    pub async fn batch(&self, commands: Vec<Command>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(commands.len());
        for chunk in commands.chunks(REQUESTS_PER_SEND / 2) {
            results.extend(self.send_chunk(chunk).await);
        }
        results
    }

    /// Returns the timeouts.
    pub async fn timeouts(&self) -> Result<Timeouts, Error> {
        let operation = Operation::GetTimeouts;
        let reply = self.read_one(operation, Request::GetTimeouts).await?;
        info::decode_timeouts(&reply).map_err(|cause| Error::Unreadable { operation, cause })
    }

    /// Sets the timeouts; a 0 leaves one as it is. They hold for states entered afterwards.
    pub async fn set_timeouts(&self, timeouts: &Timeouts) -> Result<(), Error> {
        self.read(Operation::SetTimeouts, Request::SetTimeouts(*timeouts)).await.map(drop)
    }

    /// Returns version and table size.
    pub async fn info(&self) -> Result<Info, Error> {
        let operation = Operation::GetInfo;
        let reply = self.read_one(operation, Request::GetInfo).await?;
        info::decode_info(&reply).map_err(|cause| Error::Unreadable { operation, cause })
    }

    async fn write(&self, command: Command) -> Result<(), Error> {
        self.send_chunk(&[command]).await.into_iter().collect()
    }

    async fn send_chunk(&self, commands: &[Command]) -> Vec<Result<(), Error>> {
        let requests: Vec<Vec<Request>> = commands.iter().map(Command::requests).collect();
        let flat: Vec<Request> = requests.iter().flatten().copied().collect();
        let answers = match self.exchange(&flat).await {
            Ok((answers, _)) => answers,
            Err(failure) => {
                let failed = |command: &Command| Err(failure.of(Operation::Command(*command)));
                return commands.iter().map(failed).collect();
            }
        };
        let mut answers = answers.as_slice();
        let mut results = Vec::with_capacity(commands.len());
        for (command, requests) in commands.iter().zip(&requests) {
            let (own, rest) = answers.split_at_checked(requests.len()).unwrap_or_default();
            answers = rest;
            let operation = Operation::Command(*command);
            results.push(command.judge(own).map_err(|errno| Error::refused(operation, errno)));
        }
        results
    }

    async fn read_one(&self, operation: Operation, request: Request) -> Result<BytesMut, Error> {
        let messages = self.read(operation, request).await?;
        messages.into_iter().next().ok_or(Error::Empty { operation })
    }

    async fn read(&self, operation: Operation, request: Request) -> Result<Vec<BytesMut>, Error> {
        let (answers, messages) =
            self.exchange(&[request]).await.map_err(|failure| failure.of(operation))?;
        for answer in answers {
            answer.map_err(|errno| Error::refused(operation, errno))?;
        }
        Ok(messages)
    }

    /// Sends the requests at once and waits for all answers. Returns the answers in the order of
    /// the requests, and the messages that came with them.
    async fn exchange(
        &self,
        requests: &[Request],
    ) -> Result<(Vec<Result<(), Errno>>, Vec<BytesMut>), Failure> {
        let messages: Vec<_> = requests.iter().map(|request| self.message(request)).collect();
        let replies = self
            .handle
            .request_batch(messages, SocketAddr::new(0, 0))
            .map_err(|_| Failure::ConnectionLost)?;
        let replies: Vec<_> = tokio::time::timeout(REPLY_TIMEOUT, replies.collect())
            .await
            .map_err(|_| Failure::NoReply)?;
        let (mut answers, mut payloads) = (Vec::with_capacity(requests.len()), Vec::new());
        for reply in replies {
            let answer = match reply.payload {
                NetlinkPayload::InnerMessage(message) => {
                    payloads.push(message.payload.attributes);
                    // The only message of a request that is not acknowledged is its answer.
                    match reply.header.flags & NLM_F_MULTIPART {
                        0 => Ok(()),
                        _ => continue,
                    }
                }
                NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                    Err(family::errno(error.raw_code()))
                }
                // A dump that fails midway says so in its last message.
                NetlinkPayload::Done(done) if done.code < 0 => Err(family::errno(done.code)),
                _ => Ok(()),
            };
            answers.push((reply.header.sequence_number, answer));
        }
        if answers.len() != requests.len() {
            return Err(Failure::ConnectionLost);
        }
        answers.sort_by_key(|(sequence, _)| *sequence);
        Ok((answers.into_iter().map(|(_, answer)| answer).collect(), payloads))
    }

    fn message(&self, request: &Request) -> NetlinkMessage<GenlMessage<Raw>> {
        let raw = Raw { command: request.command(), attributes: request.encode() };
        let mut message = GenlMessage::from_payload(raw);
        message.set_resolved_family_id(self.family);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST
            | match request.reply() {
                Reply::Acknowledgement => NLM_F_ACK,
                Reply::One => 0,
                Reply::Dump => NLM_F_DUMP,
            };
        message
    }
}
