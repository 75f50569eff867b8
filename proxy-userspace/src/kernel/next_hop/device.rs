//! The devices of routes: what a frame looks like that leaves by them. No I/O.

use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, LinkAttribute, LinkExtentMask, LinkInfo,
    LinkLayerType, LinkMessage, VlanProtocol, VlanQosMapping,
};

use crate::{
    kernel::link::interfaces::{kind, name},
    model::{Unusable, interface::InterfaceKind},
};

/// The kind of VLAN devices.
const VLAN: &str = "vlan";

/// A device of a route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Device {
    pub(super) index: u32,
    name: String,
    kind: InterfaceKind,
    ethernet: bool,
    pub(super) mac: [u8; 6],
    mtu: u32,
    /// What routers of IPv6 announced, or the same.
    mtu6: Option<u32>,
    /// Tag of a VLAN device, with the priority of packets that have none.
    tag: Option<u16>,
    /// The device below it, in this network namespace.
    lower: Option<u32>,
}

/// What the frame of a route is sent by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Exit {
    pub(super) interface: u32,
    pub(super) vlan: u16,
}

/// Asks for a device.
pub(super) fn request(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

impl Device {
    pub(super) fn read(link: &LinkMessage) -> Self {
        let mut device = Self {
            index: link.header.index,
            name: name(link).to_owned(),
            kind: kind(link),
            ethernet: link.header.link_layer_type == LinkLayerType::Ether,
            mac: [0; 6],
            mtu: 0,
            mtu6: None,
            tag: None,
            lower: None,
        };
        let mut elsewhere = false;
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Address(bytes) => {
                    device.mac = bytes.as_slice().try_into().unwrap_or_default();
                }
                LinkAttribute::Link(index) => device.lower = Some(*index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(infos) => device.tag = tag(infos),
                LinkAttribute::AfSpecUnspec(families) => device.mtu6 = mtu6(families),
                _ => {}
            }
        }
        if elsewhere {
            // Its index means another device here.
            device.lower = None;
        }
        device
    }

    /// Returns the largest packet of the family.
    pub(super) fn mtu(&self, ipv6: bool) -> u32 {
        self.mtu6.filter(|_| ipv6).unwrap_or(self.mtu).min(self.mtu)
    }

    /// Returns the device below this one that a frame leaves by, if this one is a VLAN.
    pub(super) fn below(&self) -> Option<u32> {
        self.lower.filter(|_| self.is_vlan())
    }

    fn is_vlan(&self) -> bool {
        self.kind == InterfaceKind::Other(VLAN.into())
    }

    /// Returns by what a frame is sent, given the device below.
    pub(super) fn exit(&self, below: Option<&Self>) -> Result<Exit, Unusable> {
        if !self.is_vlan() {
            self.carries_frames()?;
            return Ok(Exit { interface: self.index, vlan: 0 });
        }
        let below = below.ok_or(Unusable::NoDevice(self.lower.unwrap_or(self.index)))?;
        if below.is_vlan() {
            return Err(Unusable::NestedVlan(self.name.clone()));
        }
        below.carries_frames()?;
        let vlan = self.tag.ok_or_else(|| Unusable::NestedVlan(self.name.clone()))?;
        Ok(Exit { interface: below.index, vlan })
    }

    /// XDP sends by network cards and by veths. Bridges and bonds choose a device of their own, and
    /// what is below tunnels has no frames.
    fn carries_frames(&self) -> Result<(), Unusable> {
        let kind = match &self.kind {
            InterfaceKind::Physical | InterfaceKind::Veth if self.ethernet => return Ok(()),
            InterfaceKind::Physical | InterfaceKind::Veth => "point-to-point",
            InterfaceKind::Loopback => "loopback",
            InterfaceKind::Other(kind) => kind,
        };
        Err(Unusable::Device(self.name.clone(), kind.to_owned()))
    }
}

/// `None` for what is not 802.1Q.
fn tag(infos: &[LinkInfo]) -> Option<u16> {
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut id, mut priority) = (None, 0);
    for info in data {
        match info {
            InfoVlan::Id(found) => id = Some(*found),
            InfoVlan::Protocol(protocol) if *protocol != VlanProtocol::Ieee8021Q => return None,
            InfoVlan::EgressQos(mappings) => {
                priority = mappings.iter().find_map(of_no_priority).unwrap_or_default();
            }
            _ => {}
        }
    }
    id.map(|id| id | priority << 13)
}

/// IPVS gives packets no priority.
fn of_no_priority(mapping: &VlanQosMapping) -> Option<u16> {
    match mapping {
        VlanQosMapping::Mapping(0, to) => Some((to & 7) as u16),
        _ => None,
    }
}

fn mtu6(families: &[AfSpecUnspec]) -> Option<u32> {
    let of_ipv6 = families.iter().find_map(|family| match family {
        AfSpecUnspec::Inet6(attributes) => Some(attributes),
        _ => None,
    })?;
    of_ipv6.iter().find_map(|attribute| match attribute {
        AfSpecInet6::DevConf(settings) => u32::try_from(settings.mtu6).ok().filter(|mtu| *mtu > 0),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.attributes = vec![LinkAttribute::IfName(format!("net{index}"))];
        message.attributes.extend(attributes);
        message
    }

    fn vlan() -> Vec<LinkAttribute> {
        let data = InfoData::Vlan(vec![InfoVlan::Id(100)]);
        let infos = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)];
        vec![LinkAttribute::Link(3), LinkAttribute::LinkInfo(infos)]
    }

    #[test]
    fn a_vlan_is_sent_by_the_card_below_it() {
        let (card, vlan) = (Device::read(&link(3, Vec::new())), Device::read(&link(4, vlan())));
        assert_eq!(card.exit(None), Ok(Exit { interface: 3, vlan: 0 }));
        assert_eq!((card.below(), vlan.below()), (None, Some(3)));
        assert_eq!(vlan.exit(Some(&card)), Ok(Exit { interface: 3, vlan: 100 }));
        assert_eq!(vlan.exit(None), Err(Unusable::NoDevice(3)));
    }

    #[test]
    fn what_is_below_a_vlan_in_another_namespace_is_not_here() {
        let mut attributes = vlan();
        attributes.push(LinkAttribute::LinkNetNsId(0));
        let vlan = Device::read(&link(4, attributes));
        assert_eq!(vlan.below(), None);
        assert!(matches!(vlan.exit(None), Err(Unusable::NoDevice(_))));
    }

    #[test]
    fn a_card_without_ethernet_has_no_frames() {
        let mut message = link(3, Vec::new());
        message.header.link_layer_type = LinkLayerType::Ppp;
        let reason = Device::read(&message).exit(None).unwrap_err();
        assert_eq!(reason.to_string(), "route by net3, a point-to-point device");
    }
}
