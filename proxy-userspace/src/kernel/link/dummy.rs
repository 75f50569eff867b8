//! The dummy device that VIP routes point to, `kube-ipvs0` by default.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoKind, LinkAttribute, LinkFlags, LinkMessage},
};
use rtnetlink::{LinkDummy, LinkUnspec};
use rustix::io::Errno;

use super::{
    Links,
    error::{Error, Operation},
    interfaces::kind,
};
use crate::{kernel::netlink, model::interface::InterfaceKind};

/// The dummy device after a put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dummy {
    /// Interface index.
    pub index: u32,
    /// It was not there before.
    pub created: bool,
}

impl Links {
    /// Makes sure that the dummy device is there and up: a local route needs both.
    ///
    /// Dummy devices answer no ARP (`dummy_setup` sets `IFF_NOARP`). Fails with
    /// [`Error::OtherKind`] when the name belongs to another kind of device, which stays as it is.
    pub async fn put_dummy(&self, name: &str) -> Result<Dummy, Error> {
        let operation = Operation::PutDummy(name.to_owned());
        let message = LinkDummy::new(name).up().build();
        let request =
            netlink::write(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
        let created = match self.ask(&operation, request).await? {
            Ok(_) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(Error::refused(&operation, errno)),
        };
        let Some(link) = self.find_dummy(name).await? else {
            return Err(Error::Vanished { name: name.to_owned() });
        };
        if !link.header.flags.contains(LinkFlags::Up) {
            self.raise(&operation, link.header.index).await?;
        }
        Ok(Dummy { index: link.header.index, created })
    }

    /// Removes the dummy device, and with it every route to it. Succeeds when there is none.
    pub async fn remove_dummy(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.find_dummy(name).await? else { return Ok(()) };
        let operation = Operation::RemoveDummy(name.to_owned());
        let mut message = LinkMessage::default();
        message.header.index = link.header.index;
        let request = netlink::write(RouteNetlinkMessage::DelLink(message), 0);
        match self.ask(&operation, request).await? {
            Ok(_) | Err(Errno::NODEV) => Ok(()),
            Err(errno) => Err(Error::refused(&operation, errno)),
        }
    }

    /// Returns the index of the interface with this name, of whatever kind.
    pub async fn index_of(&self, name: &str) -> Result<Option<u32>, Error> {
        Ok(self.find(name).await?.map(|link| link.header.index))
    }

    /// Returns the index of the interface with this name if it is up: what is down makes no address
    /// local.
    pub async fn running_index_of(&self, name: &str) -> Result<Option<u32>, Error> {
        let link = self.find(name).await?;
        Ok(link.filter(|link| link.header.flags.contains(LinkFlags::Up)).map(|l| l.header.index))
    }

    /// Puts the loopback device up, which a new network namespace has down.
    pub async fn raise_loopback(&self) -> Result<(), Error> {
        // It is the first device of every namespace (`LOOPBACK_IFINDEX`).
        self.raise(&Operation::RaiseLoopback, 1).await
    }

    async fn raise(&self, operation: &Operation, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index);
        let request = netlink::write(RouteNetlinkMessage::SetLink(message.up().build()), 0);
        let answer = self.ask(operation, request).await?;
        answer.map(drop).map_err(|errno| Error::refused(operation, errno))
    }

    async fn find_dummy(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let Some(link) = self.find(name).await? else { return Ok(None) };
        let kind = match kind(&link) {
            InterfaceKind::Other(kind) if kind == InfoKind::Dummy.to_string() => {
                return Ok(Some(link));
            }
            InterfaceKind::Other(kind) => kind,
            InterfaceKind::Physical => "physical".to_owned(),
            InterfaceKind::Veth => "veth".to_owned(),
            InterfaceKind::Loopback => "loopback".to_owned(),
        };
        Err(Error::OtherKind { name: name.to_owned(), kind })
    }

    async fn find(&self, name: &str) -> Result<Option<LinkMessage>, Error> {
        let operation = Operation::FindLink(name.to_owned());
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        let request = netlink::read(RouteNetlinkMessage::GetLink(message));
        match self.ask(&operation, request).await? {
            Ok(replies) => Ok(replies.into_iter().find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::refused(&operation, errno)),
        }
    }
}
