//! Changes of links, addresses, routes and neighbours, as they happen.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::NeighbourMessage,
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol},
};
use netlink_proto::sys::SocketAddr;
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;

use super::{
    Links,
    error::{Error, Operation},
    interfaces::{local_addr, name},
    neighbours::Neighbours,
};
use crate::kernel::{netlink, route::ROUTE_PROTOCOL};

/// Events that may wait for the reader; after that they are replaced by one overrun.
const CAPACITY: usize = 1024;
/// Groups whose changes can make a cached forwarding decision wrong.
const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Something changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The interface with this index is new or changed.
    LinkChanged(u32),
    /// The interface with this index is gone, or moved to another network namespace.
    LinkGone(u32),
    /// An address was added or removed.
    AddressChanged,
    /// A route was added or removed, other than those of the agent and its dummy device, or a
    /// rule that chooses between tables of them.
    RouteChanged,
    /// A known neighbour has another link-layer address, or none any more.
    NeighbourChanged {
        /// Interface index.
        index: u32,
        /// The neighbour.
        addr: IpAddr,
        /// Its link-layer address; `None` when the entry failed or vanished.
        mac: Option<[u8; 6]>,
    },
    /// Events were lost: anything may have changed.
    Overrun,
}

/// A subscription to the changes of one network namespace: that of the thread that made it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Event>,
    vips: Arc<AtomicBool>,
}

impl Watch {
    /// Subscribes. Addresses and routes on the device named `dummy` are not
    /// reported.
    ///
    /// Must be called within a tokio runtime; the subscription ends when this value is dropped.
    pub async fn open(dummy: &str) -> Result<Self, Error> {
        let (connection, _handle, messages) =
            rtnetlink::new_multicast_connection(&GROUPS).map_err(Error::Open)?;
        tokio::spawn(connection);
        let (sender, events) = mpsc::channel(CAPACITY);
        let vips = Arc::new(AtomicBool::new(false));
        let mut watcher = Watcher {
            vips: Arc::clone(&vips),
            links: Links::open()?,
            dummy: dummy.to_owned(),
            dummy_index: None,
            addrs: HashSet::new(),
            neighbours: Neighbours::default(),
        };
        // Subscribed first, so that nothing falls between the listing and the events.
        watcher.learn().await?;
        tokio::spawn(watcher.run(messages, sender));
        Ok(Self { events, vips })
    }

    /// Says whether the device of the VIPs, or what makes them local, may have changed since the last
    /// call, by whoever's hand. There are tens of thousands, so they are no events.
    pub fn vips_changed(&self) -> bool {
        self.vips.swap(false, Ordering::Relaxed)
    }

    /// Waits for the next event. `None`: the connection is lost; open another watch.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

struct Watcher {
    /// VIPs may have changed.
    vips: Arc<AtomicBool>,
    links: Links,
    dummy: String,
    dummy_index: Option<u32>,
    /// Known addresses: the kernel repeats them whenever a lifetime is renewed.
    addrs: HashSet<(u32, IpAddr)>,
    neighbours: Neighbours,
}

impl Watcher {
    async fn run(mut self, mut messages: Messages, events: mpsc::Sender<Event>) {
        while let Some((message, _)) = messages.next().await {
            let Some(event) = self.judge(message).await else { continue };
            match events.try_send(event) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => {
                    let Some(permit) = self.skip(&mut messages, &events).await else { return };
                    permit.send(Event::Overrun);
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        }
    }

    /// Keeps the tables right while the reader is stalled, without keeping events for it. Returns
    /// when there is room for one; `None` when the reader or the connection is gone.
    async fn skip<'a>(
        &mut self,
        messages: &mut Messages,
        events: &'a mpsc::Sender<Event>,
    ) -> Option<mpsc::Permit<'a, Event>> {
        let mut room = std::pin::pin!(events.reserve());
        loop {
            tokio::select! {
                permit = &mut room => return permit.ok(),
                message = messages.next() => {
                    self.judge(message?.0).await;
                }
            }
        }
    }

    /// Fills the tables from the kernel.
    async fn learn(&mut self) -> Result<(), Error> {
        self.addrs.clear();
        self.neighbours.clear();
        self.dummy_index = self.links.index_of(&self.dummy).await?;
        let operation = Operation::ListNeighbours;
        let request = netlink::dump(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()));
        let replies = self.links.ask(&operation, request).await?;
        for reply in replies.map_err(|errno| Error::refused(&operation, errno))? {
            if let RouteNetlinkMessage::NewNeighbour(message) = reply {
                self.neighbours.put(&message);
            }
        }
        Ok(())
    }

    async fn judge(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Option<Event> {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => self.judge_change(&message),
            NetlinkPayload::Overrun(_) => {
                // Without a listing the tables stay empty, which reports less than it could; the
                // overrun itself tells the reader not to rely on them.
                self.vips.store(true, Ordering::Relaxed);
                let _ = self.learn().await;
                Some(Event::Overrun)
            }
            _ => None,
        }
    }

    fn judge_change(&mut self, message: &RouteNetlinkMessage) -> Option<Event> {
        match message {
            RouteNetlinkMessage::NewLink(link) => Some(self.link_changed(link)),
            RouteNetlinkMessage::DelLink(link) => Some(self.link_gone(link)),
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)
                if self.dummy_index == Some(message.header.index) =>
            {
                self.vips.store(true, Ordering::Relaxed);
                None
            }
            RouteNetlinkMessage::NewAddress(message) => {
                let addr = local_addr(message)?;
                let new = self.addrs.insert((message.header.index, addr));
                new.then_some(Event::AddressChanged)
            }
            RouteNetlinkMessage::DelAddress(message) => {
                self.addrs.remove(&(message.header.index, local_addr(message)?));
                Some(Event::AddressChanged)
            }
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                let own = self.is_own(route);
                if own {
                    self.vips.store(true, Ordering::Relaxed);
                }
                (!own).then_some(Event::RouteChanged)
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                Some(Event::RouteChanged)
            }
            RouteNetlinkMessage::NewNeighbour(message) => self.neighbours.put(message),
            RouteNetlinkMessage::DelNeighbour(message) => self.neighbours.remove(message),
            _ => None,
        }
    }

    fn link_changed(&mut self, link: &LinkMessage) -> Event {
        if name(link) == self.dummy {
            self.dummy_index = Some(link.header.index);
            self.vips.store(true, Ordering::Relaxed);
        }
        Event::LinkChanged(link.header.index)
    }

    fn link_gone(&mut self, link: &LinkMessage) -> Event {
        let index = link.header.index;
        // A port that leaves its bridge is announced as a deletion in the bridge's family.
        if link.header.interface_family == AddressFamily::Bridge {
            return Event::LinkChanged(index);
        }
        self.addrs.retain(|(owner, _)| *owner != index);
        if self.dummy_index == Some(index) {
            self.vips.store(true, Ordering::Relaxed);
            self.dummy_index = None;
        }
        Event::LinkGone(index)
    }

    fn is_own(&self, route: &RouteMessage) -> bool {
        let output = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        route.header.protocol == RouteProtocol::Other(ROUTE_PROTOCOL)
            || (output.is_some() && output == self.dummy_index)
            || route.header.flags.contains(RouteFlags::Cloned)
    }
}
