//! The few expressions and statements that the rules are made of.

use nftables::{
    expr::{
        BinaryOperation, CT, CTDir, Expression, Map, Meta, MetaKey, NamedExpression, Payload,
        PayloadField,
    },
    stmt::{
        AnonymousCounter, Counter, JumpTarget, Mangle, Match, NAT, NATFamily, Operator, Reject,
        RejectType, Statement,
    },
};

use super::sets::Kind;
use crate::model::Protocol;

/// An address family.
#[derive(Clone, Copy, Debug)]
pub(super) enum Family {
    V4,
    V6,
}

/// The mark of what has to be masqueraded and cannot be told later: kube-proxy's bit 14.
const MARK: u32 = 0x4000;

impl Family {
    fn is_ipv6(self) -> bool {
        matches!(self, Self::V6)
    }

    fn protocol(self) -> &'static str {
        if self.is_ipv6() { "ip6" } else { "ip" }
    }

    /// Returns the conntrack key of the destination address.
    pub(super) fn daddr(self) -> &'static str {
        if self.is_ipv6() { "ip6 daddr" } else { "ip daddr" }
    }
}

fn matching(
    left: Expression<'static>,
    right: Expression<'static>,
    op: Operator,
) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

pub(super) fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matching(left, right, Operator::EQ)
}

pub(super) fn is_not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matching(left, right, Operator::NEQ)
}

/// A bit of a conntrack field is set.
pub(super) fn is_in(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    matching(left, right, Operator::IN)
}

pub(super) fn counter() -> Statement<'static> {
    Statement::Counter(Counter::Anonymous(Some(AnonymousCounter::default())))
}

pub(super) fn drop() -> Statement<'static> {
    Statement::Drop(None)
}

/// Goes through another chain, and comes back.
pub(super) fn jump(chain: &'static str) -> Statement<'static> {
    Statement::Jump(JumpTarget { target: chain.into() })
}

/// Ends the chain, and leaves the packet to the next one.
pub(super) fn go_on() -> Statement<'static> {
    Statement::Return(None)
}

pub(super) fn masquerade() -> Statement<'static> {
    Statement::Masquerade(None)
}

/// TCP reset, or ICMP port unreachable.
pub(super) fn reject(protocol: Protocol) -> Statement<'static> {
    Statement::Reject(match protocol {
        Protocol::Tcp => Some(Reject::new(Some(RejectType::TCPReset), None)),
        Protocol::Udp | Protocol::Sctp => None,
    })
}

/// Translates a frontend to where map `inside` sends it.
pub(super) fn dnat(family: Family) -> Statement<'static> {
    let by = |kind| {
        let (key, data) = (concat(frontend(family)), set(family, kind));
        Some(Expression::Named(NamedExpression::Map(Box::new(Map { key, data }))))
    };
    Statement::DNAT(Some(NAT {
        addr: by(Kind::Inside),
        family: Some(if family.is_ipv6() { NATFamily::IP6 } else { NATFamily::IP }),
        port: by(Kind::InsidePort),
        flags: None,
    }))
}

pub(super) fn set(family: Family, kind: Kind) -> Expression<'static> {
    text(format!("@{}", kind.name(family.is_ipv6())))
}

pub(super) fn text(text: impl Into<std::borrow::Cow<'static, str>>) -> Expression<'static> {
    Expression::String(text.into())
}

pub(super) fn concat(parts: impl Into<Vec<Expression<'static>>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Concat(parts.into()))
}

/// Destination address, protocol and destination port of the packet.
pub(super) fn frontend(family: Family) -> [Expression<'static>; 3] {
    [ip(family, "daddr"), l4proto(), payload("th", "dport")]
}

pub(super) fn ip(family: Family, field: &'static str) -> Expression<'static> {
    payload(family.protocol(), field)
}

/// The protocol that the IP header itself names.
pub(super) fn header_protocol(family: Family) -> Expression<'static> {
    ip(family, if family.is_ipv6() { "nexthdr" } else { "protocol" })
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

pub(super) fn l4proto() -> Expression<'static> {
    meta(MetaKey::L4proto)
}

pub(super) fn input_name() -> Expression<'static> {
    meta(MetaKey::Iifname)
}

fn ct(key: &'static str, dir: Option<CTDir>) -> Expression<'static> {
    Expression::Named(NamedExpression::CT(CT { key: key.into(), family: None, dir }))
}

pub(super) fn ct_original(key: &'static str) -> Expression<'static> {
    ct(key, Some(CTDir::Original))
}

pub(super) fn direction(direction: &'static str) -> Statement<'static> {
    is(ct("direction", None), text(direction))
}

pub(super) fn state_new() -> Statement<'static> {
    is_in(ct("state", None), text("new"))
}

pub(super) fn state_not_new() -> Statement<'static> {
    is_not(ct("state", None), text("new"))
}

/// The connection's destination was translated by nat.
pub(super) fn status_dnat() -> Statement<'static> {
    is_in(ct("status", None), text("dnat"))
}

fn mark_and(bits: u32) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(
        meta(MetaKey::Mark),
        Expression::Number(bits),
    )))
}

pub(super) fn set_mark() -> Statement<'static> {
    let value = BinaryOperation::OR(vec![meta(MetaKey::Mark), Expression::Number(MARK)]);
    let value = Expression::BinaryOperation(Box::new(value));
    Statement::Mangle(Mangle { key: meta(MetaKey::Mark), value })
}

pub(super) fn marked() -> Statement<'static> {
    is(mark_and(MARK), Expression::Number(MARK))
}
