//! Set elements, to and from nft's JSON expressions.

use std::{borrow::Cow, collections::BTreeSet, net::Ipv4Addr};

use nftables::{
    expr::{Expression, NamedExpression},
    schema::Element,
    types::NfFamily,
};

use super::ruleset::{HAIRPIN, NODE_PORTS, NODES, TABLE, VIPS};
use crate::model::{Protocol, nat::NatElements};

/// Returns the non-empty sets' elements.
pub(super) fn to_nft(elements: &NatElements) -> Vec<Element<'static>> {
    let sets = [
        (VIPS, elements.vips.iter().map(addr).collect::<Vec<_>>()),
        (NODES, elements.node_addrs.iter().map(addr).collect()),
        (NODE_PORTS, elements.node_ports.iter().map(node_port).collect()),
        (HAIRPIN, elements.backends.iter().map(hairpin).collect()),
    ];
    sets.into_iter()
        .filter(|(_, elem)| !elem.is_empty())
        .map(|(name, elem)| Element {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.into(),
            elem: elem.into(),
        })
        .collect()
}

fn addr(addr: &Ipv4Addr) -> Expression<'static> {
    Expression::String(Cow::Owned(addr.to_string()))
}

fn node_port((protocol, port): &(Protocol, u16)) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(vec![
        Expression::String(protocol_name(*protocol).into()),
        Expression::Number((*port).into()),
    ]))
}

/// A hairpin is a backend that connects to itself: source and destination are the same address.
fn hairpin(backend: &Ipv4Addr) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(vec![addr(backend), addr(backend)]))
}

/// Returns nft's name of the protocol.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Reads the elements of one set. `None`: some are not of the form written here.
pub(super) fn from_nft(set: &str, listed: &[Expression<'_>], into: &mut NatElements) -> Option<()> {
    match set {
        VIPS => into.vips = addrs(listed)?,
        NODES => into.node_addrs = addrs(listed)?,
        NODE_PORTS => {
            into.node_ports = listed.iter().map(parse_node_port).collect::<Option<_>>()?
        }
        HAIRPIN => into.backends = listed.iter().map(parse_hairpin).collect::<Option<_>>()?,
        _ => return None,
    }
    Some(())
}

fn addrs(listed: &[Expression<'_>]) -> Option<BTreeSet<Ipv4Addr>> {
    listed.iter().map(parse_addr).collect()
}

fn parse_addr(expression: &Expression<'_>) -> Option<Ipv4Addr> {
    match expression {
        Expression::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn parse_pair<'a, 'b>(expression: &'b Expression<'a>) -> Option<&'b [Expression<'a>; 2]> {
    match expression {
        Expression::Named(NamedExpression::Concat(parts)) => parts.as_slice().try_into().ok(),
        _ => None,
    }
}

fn parse_node_port(expression: &Expression<'_>) -> Option<(Protocol, u16)> {
    let [protocol, port] = parse_pair(expression)?;
    let protocol = match protocol {
        Expression::String(name) => name.to_uppercase().parse().ok()?,
        Expression::Number(number) => Protocol::from_number(u8::try_from(*number).ok()?)?,
        _ => return None,
    };
    match port {
        Expression::Number(port) => Some((protocol, u16::try_from(*port).ok()?)),
        _ => None,
    }
}

fn parse_hairpin(expression: &Expression<'_>) -> Option<Ipv4Addr> {
    let [source, destination] = parse_pair(expression)?;
    let source = parse_addr(source)?;
    (parse_addr(destination)? == source).then_some(source)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nat_elements() -> impl Strategy<Value = NatElements> {
        let protocols = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        (
            prop::collection::btree_set(any::<Ipv4Addr>(), 0..20),
            prop::collection::btree_set(any::<Ipv4Addr>(), 0..4),
            prop::collection::btree_set((protocols, any::<u16>()), 0..20),
            prop::collection::btree_set(any::<Ipv4Addr>(), 0..20),
        )
            .prop_map(|(vips, node_addrs, node_ports, backends)| NatElements {
                vips,
                node_addrs,
                node_ports,
                backends,
            })
    }

    proptest! {
        #[test]
        fn elements_survive_nft_json(elements in nat_elements()) {
            let mut read = NatElements::default();
            for element in to_nft(&elements) {
                let json = serde_json::to_string(&element.elem).unwrap();
                let listed: Vec<Expression<'_>> = serde_json::from_str(&json).unwrap();
                prop_assert!(from_nft(&element.name, &listed, &mut read).is_some());
            }
            prop_assert_eq!(read, elements);
        }
    }

    #[test]
    fn a_hairpin_element_that_names_two_addresses_is_not_ours() {
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let element = Expression::Named(NamedExpression::Concat(vec![addr(&one), addr(&other)]));
        assert_eq!(parse_hairpin(&element), None);
    }
}
