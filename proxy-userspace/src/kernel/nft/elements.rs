//! Elements, to and from nft's JSON expressions.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use nftables::{
    expr::{Expression, NamedExpression, Prefix},
    schema::Element as NftElements,
    types::NfFamily,
};

use super::{
    ruleset::TABLE,
    sets::{Kind, Shape},
};
use crate::model::{Element, Frontend, Protocol};

/// Returns the elements, by set.
pub(super) fn to_nft(elements: &BTreeSet<Element>) -> Vec<NftElements<'static>> {
    let mut sets = BTreeMap::<(Kind, bool), Vec<Expression<'static>>>::new();
    for element in elements {
        let ipv6 = element.is_ipv6();
        let kind = Kind::of(element);
        if let Element::Inside(frontend, addr, port) = element {
            let ports = sets.entry((Kind::InsidePort, ipv6)).or_default();
            ports.push(mapping(frontend, Expression::Number((*port).into())));
            sets.entry((kind, ipv6)).or_default().push(mapping(frontend, host(addr)));
        } else {
            sets.entry((kind, ipv6)).or_default().push(key(element));
        }
    }
    sets.into_iter()
        .map(|((kind, ipv6), elem)| NftElements {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: kind.name(ipv6).into(),
            elem: elem.into(),
        })
        .collect()
}

fn key(element: &Element) -> Expression<'static> {
    match element {
        Element::Vip(addr) | Element::ClusterIp(addr) => host(addr),
        Element::Hairpin(addr) => concat(vec![host(addr), host(addr)]),
        Element::Masquerade(frontend)
        | Element::Reject(frontend)
        | Element::Drop(frontend)
        | Element::Ranged(frontend)
        | Element::RangedHost(frontend)
        | Element::Shadow(frontend)
        | Element::Inside(frontend, ..) => concat(parts(frontend).into()),
        Element::Source(frontend, net) | Element::InterimSource(frontend, net) => {
            let mut parts = Vec::from(parts(frontend));
            parts.push(range(net));
            concat(parts)
        }
        Element::PodCidr(net) | Element::ServiceCidr(net) => range(net),
    }
}

fn mapping(frontend: &Frontend, value: Expression<'static>) -> Expression<'static> {
    Expression::List(vec![concat(parts(frontend).into()), value])
}

fn parts(frontend: &Frontend) -> [Expression<'static>; 3] {
    [
        host(&frontend.addr),
        Expression::String(protocol_name(frontend.protocol).into()),
        Expression::Number(frontend.port.into()),
    ]
}

fn concat(parts: Vec<Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(parts))
}

fn host(addr: &IpAddr) -> Expression<'static> {
    Expression::String(addr.to_string().into())
}

fn range(net: &IpNet) -> Expression<'static> {
    if net.prefix_len() == net.max_prefix_len() {
        return host(&net.addr());
    }
    let (addr, len) = (Box::new(host(&net.addr())), net.prefix_len().into());
    Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
}

/// Returns nft's name of the protocol.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Collects elements out of a listing. The two maps of `inside` are joined at the end.
#[derive(Default)]
pub(super) struct Reading {
    elements: BTreeSet<Element>,
    inside: BTreeMap<Frontend, IpAddr>,
    inside_ports: BTreeMap<Frontend, u16>,
}

impl Reading {
    /// Reads the elements of one set. `None`: some are not of the form written here.
    pub(super) fn take(&mut self, set: &str, listed: &[Expression<'_>]) -> Option<()> {
        let (kind, ipv6) = Kind::named(set)?;
        listed.iter().try_for_each(|expression| self.take_one(kind, ipv6, expression))
    }

    fn take_one(&mut self, kind: Kind, ipv6: bool, expression: &Expression<'_>) -> Option<()> {
        match kind {
            Kind::Inside => {
                let (frontend, value) = parse_mapping(expression)?;
                self.inside.insert(frontend, parse_host(value)?);
                return Some(());
            }
            Kind::InsidePort => {
                let (frontend, value) = parse_mapping(expression)?;
                self.inside_ports.insert(frontend, parse_port(value)?);
                return Some(());
            }
            _ => {}
        }
        let element = parse(kind, expression)?;
        (element.is_ipv6() == ipv6).then_some(())?;
        self.elements.insert(element);
        Some(())
    }

    /// Returns the elements. `None`: the maps of `inside` do not fit together.
    pub(super) fn finish(mut self) -> Option<BTreeSet<Element>> {
        if !self.inside.keys().eq(self.inside_ports.keys()) {
            return None;
        }
        let ports = self.inside_ports.into_values();
        for ((frontend, addr), port) in self.inside.into_iter().zip(ports) {
            self.elements.insert(Element::Inside(frontend, addr, port));
        }
        Some(self.elements)
    }
}

fn parse(kind: Kind, expression: &Expression<'_>) -> Option<Element> {
    match kind.shape() {
        Shape::Addr => {
            let addr = parse_host(expression)?;
            Some(if kind == Kind::Vips { Element::Vip(addr) } else { Element::ClusterIp(addr) })
        }
        Shape::Cidr => {
            let net = parse_range(expression)?;
            let pods = kind == Kind::Pods;
            Some(if pods { Element::PodCidr(net) } else { Element::ServiceCidr(net) })
        }
        Shape::Pair => {
            let [source, destination] = parse_concat(expression)?.try_into().ok()?;
            let addr = parse_host(source)?;
            (parse_host(destination)? == addr).then_some(Element::Hairpin(addr))
        }
        Shape::Sources => match parse_concat(expression)?.as_slice() {
            [frontend @ .., source] => {
                let (frontend, source) = (parse_frontend(frontend)?, parse_range(source)?);
                let interim = kind == Kind::InterimSources;
                let element = if interim { Element::InterimSource } else { Element::Source };
                Some(element(frontend, source))
            }
            [] => None,
        },
        Shape::Frontend => {
            let frontend = parse_frontend(&parse_concat(expression)?)?;
            match kind {
                Kind::Masquerade => Some(Element::Masquerade(frontend)),
                Kind::Reject => Some(Element::Reject(frontend)),
                Kind::Drop => Some(Element::Drop(frontend)),
                Kind::Ranged => Some(Element::Ranged(frontend)),
                Kind::RangedHost => Some(Element::RangedHost(frontend)),
                Kind::Shadows => Some(Element::Shadow(frontend)),
                _ => None,
            }
        }
    }
}

fn parse_concat<'a, 'b>(expression: &'b Expression<'a>) -> Option<Vec<&'b Expression<'a>>> {
    match expression {
        Expression::Named(NamedExpression::Concat(parts)) => Some(parts.iter().collect()),
        _ => None,
    }
}

fn parse_mapping<'a, 'b>(expression: &'b Expression<'a>) -> Option<(Frontend, &'b Expression<'a>)> {
    let Expression::List(pair) = expression else { return None };
    let [key, value] = pair.as_slice() else { return None };
    Some((parse_frontend(&parse_concat(key)?)?, value))
}

fn parse_frontend(parts: &[&Expression<'_>]) -> Option<Frontend> {
    let [addr, protocol, port] = parts else { return None };
    let protocol = match protocol {
        Expression::String(name) => name.to_uppercase().parse().ok()?,
        Expression::Number(number) => Protocol::from_number(u8::try_from(*number).ok()?)?,
        _ => return None,
    };
    Some(Frontend { addr: parse_host(addr)?, port: parse_port(port)?, protocol })
}

fn parse_port(expression: &Expression<'_>) -> Option<u16> {
    match expression {
        Expression::Number(port) => u16::try_from(*port).ok(),
        _ => None,
    }
}

fn parse_host(expression: &Expression<'_>) -> Option<IpAddr> {
    match expression {
        Expression::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn parse_range(expression: &Expression<'_>) -> Option<IpNet> {
    match expression {
        Expression::Named(NamedExpression::Prefix(Prefix { addr, len })) => {
            IpNet::new(parse_host(addr)?, u8::try_from(*len).ok()?).ok()
        }
        host => parse_host(host).map(IpNet::from),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frontend() -> impl Strategy<Value = Frontend> {
        let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (any::<IpAddr>(), any::<u16>(), protocols).prop_map(|(addr, port, protocol)| Frontend {
            addr,
            port,
            protocol,
        })
    }

    fn net(ipv6: bool) -> impl Strategy<Value = IpNet> {
        (any::<[u8; 16]>(), 0..=128_u8).prop_map(move |(bytes, len)| {
            let [a, b, c, d, ..] = bytes;
            let addr = if ipv6 { IpAddr::from(bytes) } else { [a, b, c, d].into() };
            let len = if ipv6 { len } else { len.min(32) };
            IpNet::new(addr, len).unwrap().trunc()
        })
    }

    fn element() -> impl Strategy<Value = Element> {
        prop_oneof![
            any::<IpAddr>().prop_map(Element::Vip),
            any::<IpAddr>().prop_map(Element::ClusterIp),
            any::<IpAddr>().prop_map(Element::Hairpin),
            frontend().prop_map(Element::Masquerade),
            frontend().prop_map(Element::Reject),
            frontend().prop_map(Element::Drop),
            frontend().prop_map(Element::Ranged),
            frontend().prop_map(Element::RangedHost),
            frontend().prop_map(Element::Shadow),
            frontend().prop_flat_map(|frontend| {
                net(frontend.addr.is_ipv6()).prop_map(move |net| Element::Source(frontend, net))
            }),
            frontend().prop_flat_map(|frontend| {
                net(frontend.addr.is_ipv6())
                    .prop_map(move |net| Element::InterimSource(frontend, net))
            }),
            (frontend(), any::<IpAddr>(), any::<u16>())
                .prop_map(|(frontend, addr, port)| Element::Inside(frontend, addr, port)),
            any::<bool>().prop_flat_map(net).prop_map(Element::PodCidr),
            any::<bool>().prop_flat_map(net).prop_map(Element::ServiceCidr),
        ]
    }

    proptest! {
        #[test]
        fn elements_survive_nft_json(elements in prop::collection::btree_set(element(), 0..40)) {
            // A map has one value a key.
            let mut seen = BTreeSet::new();
            let elements: BTreeSet<Element> = elements
                .into_iter()
                .filter(|element| match element {
                    Element::Inside(frontend, ..) => seen.insert(*frontend),
                    _ => true,
                })
                .collect();
            let mut reading = Reading::default();
            for set in to_nft(&elements) {
                let json = serde_json::to_string(&set.elem).unwrap();
                let listed: Vec<Expression<'_>> = serde_json::from_str(&json).unwrap();
                prop_assert!(reading.take(&set.name, &listed).is_some(), "{json}");
            }
            prop_assert_eq!(reading.finish(), Some(elements));
        }
    }

    #[test]
    fn a_hairpin_element_that_names_two_addresses_is_not_ours() {
        let addrs = [[10, 0, 0, 1], [10, 0, 0, 2]].map(|addr| host(&IpAddr::from(addr)));
        assert_eq!(Reading::default().take("hairpin4", &[concat(addrs.into())]), None);
    }

    #[test]
    fn an_address_of_the_other_family_is_not_ours() {
        let addr = host(&"fd00::1".parse().unwrap());
        assert_eq!(Reading::default().take("vips4", &[addr]), None);
    }
}
