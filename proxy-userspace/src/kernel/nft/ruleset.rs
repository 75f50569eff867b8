//! The fixed part of the table: sets, chains and rules.
//!
//! ```text
//! chain postrouting (nat, srcnat):  hairpin | NodePort | host process to VIP -> masquerade
//! chain input (filter, 110):        what ip_vs did not take, to a VIP        -> reject
//! ```

use nftables::{
    expr::{CT, CTDir, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField},
    schema::{Chain, NfListObject, Rule, Set, SetType, SetTypeValue},
    stmt::{AnonymousCounter, Counter, Match, Operator, Reject, RejectType, Statement},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use super::elements::protocol_name;
use crate::model::Protocol;

/// Name of the table, of family `inet`.
pub const TABLE: &str = "passlane";
/// Version of sets, chains and rules together; every rule's comment carries it.
pub const VERSION: u32 = 1;

/// Set of VIPs.
pub(super) const VIPS: &str = "vips4";
/// Set of node addresses that answer NodePorts.
pub(super) const NODES: &str = "nodes4";
/// Set of NodePorts.
pub(super) const NODE_PORTS: &str = "nodeports";
/// Set of pairs of a backend's address with itself.
pub(super) const HAIRPIN: &str = "hairpin4";

const POSTROUTING: &str = "postrouting";
const INPUT: &str = "input";
/// Priority `srcnat` (`NF_IP_PRI_NAT_SRC`).
const PRIORITY_SRCNAT: i32 = 100;
/// After ip_vs, which takes what it serves at 98 and 99 (`ip_vs_ops4`).
const PRIORITY_AFTER_IPVS: i32 = 110;

/// Returns the sets, empty.
pub(super) fn sets() -> Vec<Set<'static>> {
    use SetType::{InetProto, InetService, Ipv4Addr};
    [
        (VIPS, vec![Ipv4Addr]),
        (NODES, vec![Ipv4Addr]),
        (NODE_PORTS, vec![InetProto, InetService]),
        (HAIRPIN, vec![Ipv4Addr, Ipv4Addr]),
    ]
    .into_iter()
    .map(|(name, types)| Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        set_type: match types.as_slice() {
            [one] => SetTypeValue::Single(*one),
            _ => SetTypeValue::Concatenated(types.into()),
        },
        ..Set::default()
    })
    .collect()
}

/// Returns the base chains.
pub(super) fn chains() -> Vec<Chain<'static>> {
    [
        (POSTROUTING, NfChainType::NAT, NfHook::Postrouting, PRIORITY_SRCNAT),
        (INPUT, NfChainType::Filter, NfHook::Input, PRIORITY_AFTER_IPVS),
    ]
    .into_iter()
    .map(|(name, kind, hook, priority)| Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    })
    .collect()
}

/// Returns the rules, in their order within each chain.
pub(super) fn rules() -> Vec<Rule<'static>> {
    let masquerade = || Statement::Masquerade(None);
    let mut rules = vec![rule(
        POSTROUTING,
        "hairpin",
        vec![is(concat([ip("saddr"), ip("daddr")]), set(HAIRPIN)), counter(), masquerade()],
    )];
    // ip_vs leaves the original tuple of the connection alone, so that still names the NodePort
    // when the packet already has the backend's address: no packet mark is needed. nft knows the
    // width of a conntrack port only behind a match of one protocol, hence a rule for each.
    rules.extend([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| {
        rule(
            POSTROUTING,
            &format!("node port {}", protocol_name(protocol)),
            vec![
                is(ct_original("ip daddr"), set(NODES)),
                is(l4proto(), text(protocol_name(protocol))),
                is(concat([l4proto(), ct_original("proto-dst")]), set(NODE_PORTS)),
                counter(),
                masquerade(),
            ],
        )
    }));
    // The route to a VIP is local, so the kernel gives a host process the VIP itself as source.
    rules.push(rule(
        POSTROUTING,
        "host process to vip",
        vec![is(ip("saddr"), set(VIPS)), counter(), masquerade()],
    ));
    // Replies to host processes also have a VIP as destination: only the original direction is a
    // client's.
    rules.extend([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| {
        rule(
            INPUT,
            &format!("vip guard {}", protocol_name(protocol)),
            vec![
                is(direction(), text("original")),
                is(ip("daddr"), set(VIPS)),
                is(l4proto(), text(protocol_name(protocol))),
                counter(),
                Statement::Reject(match protocol {
                    Protocol::Tcp => Some(Reject::new(Some(RejectType::TCPReset), None)),
                    // ICMP port unreachable.
                    Protocol::Udp | Protocol::Sctp => None,
                }),
            ],
        )
    }));
    rules
}

/// Returns everything fixed, sets first because rules refer to them.
pub(super) fn objects() -> Vec<NfListObject<'static>> {
    let sets = sets().into_iter().map(|set| NfListObject::Set(Box::new(set)));
    let chains = chains().into_iter().map(NfListObject::Chain);
    let rules = rules().into_iter().map(NfListObject::Rule);
    sets.chain(chains).chain(rules).collect()
}

fn rule(chain: &'static str, name: &str, statements: Vec<Statement<'static>>) -> Rule<'static> {
    Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        comment: Some(format!("passlane v{VERSION}: {name}").into()),
        ..Rule::default()
    }
}

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn counter() -> Statement<'static> {
    Statement::Counter(Counter::Anonymous(Some(AnonymousCounter::default())))
}

fn set(name: &str) -> Expression<'static> {
    Expression::String(format!("@{name}").into())
}

fn text(text: &'static str) -> Expression<'static> {
    Expression::String(text.into())
}

fn concat<const N: usize>(parts: [Expression<'static>; N]) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

fn ip(field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: "ip".into(),
        field: field.into(),
    })))
}

fn l4proto() -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key: MetaKey::L4proto }))
}

fn ct_original(key: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT {
        key: key.into(),
        family: None,
        dir: Some(CTDir::Original),
    }))
}

fn direction() -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: "direction".into(), family: None, dir: None }))
}
