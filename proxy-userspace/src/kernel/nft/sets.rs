//! The sets and maps of the table, by kind of element and address family.

use std::collections::HashSet;

use nftables::{
    schema::{Map, NfListObject, Set, SetFlag, SetType, SetTypeValue},
    types::NfFamily,
};

use super::ruleset::TABLE;
use crate::model::Element;

/// A kind of set; its name ends in `4` or `6`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    Vips,
    Clusters,
    Hairpin,
    Masquerade,
    Reject,
    Drop,
    Ranged,
    RangedHost,
    Sources,
    InterimSources,
    Shadows,
    Pods,
    ServiceCidrs,
    /// A map: to the address.
    Inside,
    /// A map: to the port.
    InsidePort,
}

/// What the keys of a set look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// An address.
    Addr,
    /// A range of addresses.
    Cidr,
    /// An address with itself.
    Pair,
    /// Address, protocol and port.
    Frontend,
    /// A frontend and a range of sources.
    Sources,
}

impl Kind {
    pub(super) const ALL: [Self; 15] = [
        Self::Vips,
        Self::Clusters,
        Self::Hairpin,
        Self::Masquerade,
        Self::Reject,
        Self::Drop,
        Self::Ranged,
        Self::RangedHost,
        Self::Sources,
        Self::InterimSources,
        Self::Shadows,
        Self::Pods,
        Self::ServiceCidrs,
        Self::Inside,
        Self::InsidePort,
    ];

    /// Returns the set that an element goes into; of the two maps of `inside`, the first.
    pub(super) fn of(element: &Element) -> Self {
        match element {
            Element::Vip(_) => Self::Vips,
            Element::ClusterIp(_) => Self::Clusters,
            Element::Hairpin(_) => Self::Hairpin,
            Element::Masquerade(_) => Self::Masquerade,
            Element::Reject(_) => Self::Reject,
            Element::Drop(_) => Self::Drop,
            Element::Ranged(_) => Self::Ranged,
            Element::RangedHost(_) => Self::RangedHost,
            Element::Source(..) => Self::Sources,
            Element::InterimSource(..) => Self::InterimSources,
            Element::Inside(..) => Self::Inside,
            Element::Shadow(_) => Self::Shadows,
            Element::PodCidr(_) => Self::Pods,
            Element::ServiceCidr(_) => Self::ServiceCidrs,
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Vips | Self::Clusters => Shape::Addr,
            Self::Pods | Self::ServiceCidrs => Shape::Cidr,
            Self::Hairpin => Shape::Pair,
            Self::Sources | Self::InterimSources => Shape::Sources,
            Self::Masquerade
            | Self::Reject
            | Self::Drop
            | Self::Ranged
            | Self::RangedHost
            | Self::Shadows
            | Self::Inside
            | Self::InsidePort => Shape::Frontend,
        }
    }

    /// Returns the name of the set of a family.
    pub(super) fn name(self, ipv6: bool) -> String {
        let stem = match self {
            Self::Vips => "vips",
            Self::Clusters => "clusters",
            Self::Hairpin => "hairpin",
            Self::Masquerade => "masquerade",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Ranged => "ranged",
            Self::RangedHost => "ranged_host",
            Self::Sources => "sources",
            Self::InterimSources => "interim_sources",
            Self::Shadows => "shadows",
            Self::Pods => "pods",
            Self::ServiceCidrs => "service_cidrs",
            Self::Inside => "inside",
            Self::InsidePort => "inside_port",
        };
        format!("{stem}{}", if ipv6 { 6 } else { 4 })
    }

    /// Returns the kind and the family of a set.
    pub(super) fn named(name: &str) -> Option<(Self, bool)> {
        let families = [false, true].into_iter();
        let mut all = families.flat_map(|ipv6| Self::ALL.map(|kind| (kind, ipv6)));
        all.find(|(kind, ipv6)| kind.name(*ipv6) == name)
    }

    /// Returns the type of the values, for a map.
    fn values(self, ipv6: bool) -> Option<SetType> {
        match self {
            Self::Inside => Some(addr_type(ipv6)),
            Self::InsidePort => Some(SetType::InetService),
            _ => None,
        }
    }

    pub(super) fn keys(self, ipv6: bool) -> SetTypeValue<'static> {
        use SetType::{InetProto, InetService};
        let addr = addr_type(ipv6);
        match self.shape() {
            Shape::Addr | Shape::Cidr => SetTypeValue::Single(addr),
            Shape::Pair => SetTypeValue::Concatenated(vec![addr, addr].into()),
            Shape::Frontend => {
                SetTypeValue::Concatenated(vec![addr, InetProto, InetService].into())
            }
            Shape::Sources => {
                SetTypeValue::Concatenated(vec![addr, InetProto, InetService, addr].into())
            }
        }
    }
}

fn addr_type(ipv6: bool) -> SetType {
    if ipv6 { SetType::Ipv6Addr } else { SetType::Ipv4Addr }
}

/// Returns every set and map, empty.
pub(super) fn all() -> Vec<NfListObject<'static>> {
    let families = [false, true].into_iter();
    families.flat_map(|ipv6| Kind::ALL.map(|kind| object(kind, ipv6))).collect()
}

fn object(kind: Kind, ipv6: bool) -> NfListObject<'static> {
    let ranges = matches!(kind.shape(), Shape::Cidr | Shape::Sources);
    let (family, table, name) = (NfFamily::INet, TABLE.into(), kind.name(ipv6).into());
    let set_type = kind.keys(ipv6);
    match kind.values(ipv6) {
        Some(values) => NfListObject::Map(Box::new(Map {
            family,
            table,
            name,
            set_type,
            map: SetTypeValue::Single(values),
            ..Map::default()
        })),
        None => NfListObject::Set(Box::new(Set {
            family,
            table,
            name,
            set_type,
            flags: ranges.then(|| HashSet::from([SetFlag::Interval])),
            ..Set::default()
        })),
    }
}
