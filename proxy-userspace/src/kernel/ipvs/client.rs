//! The client of the IPVS family.

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use bytes::BytesMut;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_generic::GenlMessage;
use netlink_proto::{ConnectionHandle, sys::protocols::NETLINK_GENERIC};
use rustix::io::Errno;

use super::{
    command::Command,
    destination::DestinationState,
    error::{Error, Operation},
    family::{self, Raw},
    info::{self, Info, Timeouts},
    listing::{self, Key, ListedDestination, ListedServer},
    message::{self, Reply, Request},
    virtual_server::VirtualServerState,
};
use crate::{
    kernel::netlink::{self, Failure, REQUESTS_PER_SEND},
    model::{Destination, DestinationKey, Frontend, VirtualServer},
};

/// A connection to IPVS of one network namespace: that of the thread that opened it.
///
/// Clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// The number of the family: another one each time that the module is loaded.
    family: Arc<AtomicU16>,
    handle: ConnectionHandle<GenlMessage<Raw>>,
}

impl Client {
    /// Connects. Loads module `ip_vs` when the kernel can.
    ///
    /// Must be called within a tokio runtime, which runs the connection until the last clone is
    /// dropped. Fails with [`Error::IpvsMissing`] when the kernel has no IPVS, and when it permits
    /// no netlink socket.
    pub async fn open() -> Result<Self, Error> {
        let family = family::resolve().await?;
        let handle = netlink::open(NETLINK_GENERIC).map_err(Error::Open)?;
        Ok(Self { family: Arc::new(family.into()), handle })
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

    /// Returns all virtual servers, also those by firewall mark, with all they have.
    pub async fn list(&self) -> Result<Vec<ListedServer>, Error> {
        let operation = Operation::ListVirtualServers;
        let messages = self.read(operation, Request::ListVirtualServers).await?;
        let decoded = messages.iter().map(|message| listing::decode_server(message));
        decoded.collect::<Result<_, _>>().map_err(|cause| Error::Unreadable { operation, cause })
    }

    /// Returns the destinations of any virtual server in the kernel's order. Empty when there is no
    /// such virtual server.
    pub async fn list_destinations(&self, key: &Key) -> Result<Vec<ListedDestination>, Error> {
        let operation = Operation::ListDestinationsOf(*key);
        let messages = self.read(operation, Request::ListDestinationsOf(*key)).await?;
        let decoded = messages.iter().map(|message| listing::decode_destination(message, key));
        decoded.collect::<Result<_, _>>().map_err(|cause| Error::Unreadable { operation, cause })
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
        let requests_of_all: Vec<&Request> = requests.iter().flatten().collect();
        let answers = match self.exchange(&requests_of_all).await {
            Ok(answers) => answers,
            Err(cause) => {
                let operations = commands.iter().copied().map(Operation::Command);
                return operations
                    .map(|operation| Err(Error::Netlink { operation, cause }))
                    .collect();
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

    /// Sends requests, and again when the kernel does not know the family any more.
    async fn exchange(&self, requests: &[&Request]) -> Result<Vec<Result<(), Errno>>, Failure> {
        let family = self.family.load(Ordering::Relaxed);
        let send = |family| {
            let messages = requests.iter().map(|request| message(family, request)).collect();
            netlink::exchange(&self.handle, messages)
        };
        let answers = send(family).await?.answers;
        if !answers.iter().all(|answer| *answer == Err(Errno::NOENT)) {
            return Ok(answers);
        }
        match self.renewed(family).await {
            Some(family) => Ok(send(family).await?.answers),
            None => Ok(answers),
        }
    }

    /// Returns the family's number when it is another one than it was: the module was unloaded and
    /// loaded again. The kernel answers to an unknown number as to what it does not find
    /// (`genl_rcv_msg` of `net/netlink/genetlink.c`).
    async fn renewed(&self, before: u16) -> Option<u16> {
        let family = family::resolve().await.ok()?;
        self.family.store(family, Ordering::Relaxed);
        (family != before).then_some(family)
    }

    async fn read_one(&self, operation: Operation, request: Request) -> Result<BytesMut, Error> {
        let messages = self.read(operation, request).await?;
        messages.into_iter().next().ok_or(Error::Empty { operation })
    }

    pub(super) async fn read(
        &self,
        operation: Operation,
        request: Request,
    ) -> Result<Vec<BytesMut>, Error> {
        let family = self.family.load(Ordering::Relaxed);
        let ask = |family| netlink::ask(&self.handle, message(family, &request));
        let lost = |cause| Error::Netlink { operation, cause };
        let mut answer = ask(family).await.map_err(lost)?;
        if matches!(answer, Err(Errno::NOENT))
            && let Some(family) = self.renewed(family).await
        {
            answer = ask(family).await.map_err(lost)?;
        }
        let messages = answer.map_err(|errno| Error::refused(operation, errno))?;
        Ok(messages.into_iter().map(|message| message.payload.attributes).collect())
    }

    /// Asks for what the kernel may do without an answer.
    pub(super) async fn ask_for_silence(
        &self,
        operation: Operation,
        request: &Request,
    ) -> Result<(), Error> {
        let family = self.family.load(Ordering::Relaxed);
        let [request, next] = [request, &Request::GetInfo].map(|each| message(family, each));
        let answer = netlink::ask_before(&self.handle, request, next).await;
        let answer = answer.map_err(|cause| Error::Netlink { operation, cause })?;
        answer.map_err(|errno| Error::refused(operation, errno))
    }
}

fn message(family: u16, request: &Request) -> NetlinkMessage<GenlMessage<Raw>> {
    let raw = Raw { command: request.command(), attributes: request.encode() };
    let mut message = GenlMessage::from_payload(raw);
    message.set_resolved_family_id(family);
    match request.reply() {
        Reply::Acknowledgement => netlink::write(message, 0),
        Reply::One => netlink::read(message),
        Reply::Dump => netlink::dump(message),
    }
}
