//! VIPs as addresses of the dummy device, kube-proxy's way. Each costs the kernel a walk over all
//! addresses of the device: 30,000 take minutes.

use std::{collections::BTreeSet, net::IpAddr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NetlinkMessage};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};
use rustix::io::Errno;

use super::{
    Links,
    error::{Error, Operation},
    interfaces::local_addr,
};
use crate::kernel::netlink::{self, REQUESTS_PER_SEND};

impl Links {
    /// Returns the addresses of the interface with this index that a VIP would collide with: of
    /// IPv4 those without a net around them, of IPv6 all.
    pub async fn addresses(&self, index: u32) -> Result<BTreeSet<IpAddr>, Error> {
        let operation = Operation::ListAddrs;
        let request = netlink::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        let mut addrs = BTreeSet::new();
        let visit = |reply| {
            let RouteNetlinkMessage::NewAddress(message) = reply else { return };
            let whole = message.header.family != AddressFamily::Inet
                || message.header.prefix_len == host_prefix(IpAddr::V4([0; 4].into()));
            if message.header.index == index && whole {
                addrs.extend(local_addr(&message));
            }
        };
        netlink::scan(&self.handle, request, visit)
            .await
            .map_err(|cause| Error::Netlink { operation: operation.clone(), cause })?
            .map_err(|errno| Error::refused(&operation, errno))?;
        Ok(addrs)
    }

    /// Puts addresses on the interface, without duplicate address detection. Returns those that
    /// were there: somebody else may have put them. Stops at the first failure; what was put
    /// before it stays.
    pub async fn put_addresses(&self, index: u32, addrs: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
        let message = |addr: &IpAddr| {
            let message = RouteNetlinkMessage::NewAddress(message(index, *addr));
            netlink::write(message, NLM_F_CREATE | NLM_F_EXCL)
        };
        self.send(addrs, message, Operation::PutAddr, &[Errno::EXIST]).await
    }

    /// Removes addresses from the interface. Removing the absent succeeds, also when the interface
    /// is gone. Stops at the first failure.
    pub async fn remove_addresses(&self, index: u32, addrs: &[IpAddr]) -> Result<(), Error> {
        let message = |addr: &IpAddr| {
            netlink::write(RouteNetlinkMessage::DelAddress(message(index, *addr)), 0)
        };
        let absent = [Errno::ADDRNOTAVAIL, Errno::NODEV];
        self.send(addrs, message, Operation::RemoveAddr, &absent).await.map(drop)
    }

    /// Returns those whose answer was one of the harmless ones.
    async fn send(
        &self,
        addrs: &[IpAddr],
        message: impl Fn(&IpAddr) -> NetlinkMessage<RouteNetlinkMessage>,
        operation: fn(IpAddr) -> Operation,
        harmless: &[Errno],
    ) -> Result<Vec<IpAddr>, Error> {
        let mut excused = Vec::new();
        for chunk in addrs.chunks(REQUESTS_PER_SEND) {
            let Some(first) = chunk.first() else { continue };
            let replies = netlink::exchange(&self.handle, chunk.iter().map(&message).collect())
                .await
                .map_err(|cause| Error::Netlink { operation: operation(*first), cause })?;
            for (addr, answer) in chunk.iter().zip(replies.answers) {
                match answer {
                    Ok(()) => {}
                    Err(errno) if harmless.contains(&errno) => excused.push(*addr),
                    Err(errno) => return Err(Error::refused(&operation(*addr), errno)),
                }
            }
        }
        Ok(excused)
    }
}

fn message(index: u32, addr: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = host_prefix(addr);
    message.attributes = vec![AddressAttribute::Local(addr), AddressAttribute::Address(addr)];
    match addr {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn host_prefix(addr: IpAddr) -> u8 {
    if addr.is_ipv4() { 32 } else { 128 }
}
