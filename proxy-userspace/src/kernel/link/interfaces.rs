//! Interfaces of the network namespace, with their IPv4 addresses.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        InfoData, InfoKind, InfoVlan, InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags,
        LinkInfo, LinkLayerType, LinkMessage, LinkXdp, VlanProtocol, XdpAttached,
    },
};

use super::{
    Links,
    error::{Error, Operation},
};
use crate::{
    kernel::netlink,
    model::interface::{Interface, InterfaceKind},
};

impl Links {
    /// Returns all interfaces by index.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, Error> {
        let mut addrs = self.addrs().await?;
        let links = self.links().await?;
        let mut interfaces: Vec<_> = links
            .iter()
            .map(|link| interface(link, addrs.remove(&link.header.index).unwrap_or_default()))
            .collect();
        interfaces.sort_by_key(|interface| interface.index);
        Ok(interfaces)
    }

    /// Returns all links as messages.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, Error> {
        let mut request = LinkMessage::default();
        // Counters are most of a message, and nobody reads them here.
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let operation = Operation::ListLinks;
        let request = netlink::dump(RouteNetlinkMessage::GetLink(request));
        let replies = self.ask(&operation, request).await?;
        let replies = replies.map_err(|errno| Error::refused(&operation, errno))?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    async fn addrs(&self) -> Result<BTreeMap<u32, Vec<IpAddr>>, Error> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Unspec;
        let operation = Operation::ListAddrs;
        let request = netlink::dump(RouteNetlinkMessage::GetAddress(request));
        let replies = self.ask(&operation, request).await?;
        let mut addrs = BTreeMap::<_, Vec<_>>::new();
        for reply in replies.map_err(|errno| Error::refused(&operation, errno))? {
            let RouteNetlinkMessage::NewAddress(message) = reply else { continue };
            if let Some(addr) = local_addr(&message) {
                addrs.entry(message.header.index).or_default().push(addr);
            }
        }
        Ok(addrs)
    }
}

/// Returns the interface's own address: on point-to-point links `IFA_ADDRESS` is the peer's.
pub(super) fn local_addr(message: &AddressMessage) -> Option<IpAddr> {
    let find = |local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(addr) if local => Some(*addr),
            AddressAttribute::Address(addr) if !local => Some(*addr),
            _ => None,
        })
    };
    find(true).or_else(|| find(false))
}

/// Returns the link's name; never empty in what the kernel lists.
pub(in crate::kernel) fn name(link: &LinkMessage) -> &str {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

/// Returns what the link is. A VXLAN that takes its tunnel from each packet's metadata is of a kind
/// of its own, which no redirect could supply them for.
pub(in crate::kernel) fn kind(link: &LinkMessage) -> InterfaceKind {
    let infos = link.attributes.iter().flat_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.as_slice(),
        _ => &[],
    });
    let mut kind = None;
    for info in infos {
        match info {
            LinkInfo::Kind(found) => kind = Some(found),
            LinkInfo::Data(InfoData::Vxlan(options))
                if options.contains(&InfoVxlan::CollectMetadata(true)) =>
            {
                return InterfaceKind::Other("metadata vxlan".into());
            }
            _ => {}
        }
    }
    match kind {
        Some(InfoKind::Veth) => InterfaceKind::Veth,
        Some(kind) => InterfaceKind::Other(kind.to_string()),
        None if link.header.link_layer_type == LinkLayerType::Loopback => InterfaceKind::Loopback,
        None => InterfaceKind::Physical,
    }
}

fn interface(link: &LinkMessage, addrs: Vec<IpAddr>) -> Interface {
    let mut interface = Interface {
        index: link.header.index,
        name: name(link).to_owned(),
        kind: kind(link),
        up: link.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        mac: [0; 6],
        master: None,
        lower: None,
        peer_elsewhere: false,
        qdisc: String::new(),
        xdp_program: None,
        vlan: vlan(link),
        addrs,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                interface.mac = bytes.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::Controller(index) => interface.master = Some(*index),
            LinkAttribute::Link(index) => interface.lower = Some(*index),
            LinkAttribute::LinkNetNsId(_) => interface.peer_elsewhere = true,
            LinkAttribute::Qdisc(qdisc) => interface.qdisc.clone_from(qdisc),
            LinkAttribute::Xdp(xdp) => interface.xdp_program = xdp_program(xdp),
            _ => {}
        }
    }
    if interface.peer_elsewhere {
        // Its index means another interface here.
        interface.lower = None;
    }
    interface
}

/// The id of a VLAN whose frames have an 802.1Q tag.
fn vlan(link: &LinkMessage) -> Option<u16> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let options = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(options)) => Some(options),
        _ => None,
    })?;
    let protocol = InfoVlan::Protocol(VlanProtocol::Ieee8021Q);
    let id = options.iter().find_map(|option| match option {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    });
    id.filter(|_| options.contains(&protocol))
}

/// With programs in several modes the kernel names each apart; the driver's runs first.
fn xdp_program(xdp: &[LinkXdp]) -> Option<u32> {
    let attached = xdp.iter().any(|attribute| {
        matches!(attribute, LinkXdp::Attached(attached) if *attached != XdpAttached::None)
    });
    let id = |pick: fn(&LinkXdp) -> Option<u32>| xdp.iter().find_map(pick).filter(|id| *id != 0);
    attached.then_some(())?;
    id(|attribute| match attribute {
        LinkXdp::ProgId(id) => Some(*id),
        _ => None,
    })
    .or_else(|| {
        id(|attribute| match attribute {
            LinkXdp::HwProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
            _ => None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attached(attributes: Vec<LinkXdp>) -> Vec<LinkXdp> {
        let mut xdp = vec![LinkXdp::Attached(XdpAttached::Driver)];
        xdp.extend(attributes);
        xdp
    }

    #[test]
    fn the_attached_xdp_program_is_named_by_id() {
        assert_eq!(xdp_program(&attached(vec![LinkXdp::ProgId(7)])), Some(7));
        assert_eq!(xdp_program(&attached(vec![LinkXdp::SkbProgId(8)])), Some(8));
        assert_eq!(xdp_program(&[LinkXdp::Attached(XdpAttached::None)]), None);
    }

    #[test]
    fn a_link_without_a_kind_is_physical_unless_it_is_the_loopback() {
        let mut link = LinkMessage::default();
        link.header.link_layer_type = LinkLayerType::Ether;
        assert_eq!(kind(&link), InterfaceKind::Physical);
        link.header.link_layer_type = LinkLayerType::Loopback;
        assert_eq!(kind(&link), InterfaceKind::Loopback);
    }
}
