//! Requests of ctnetlink. No I/O.

use netlink_packet_core::{DefaultNla, Emitable, NLA_F_NESTED};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    conntrack::{
        ConntrackAttribute, ConntrackMessage, ConntrackMessageType, IPTuple, ProtoTuple, Tuple,
    },
};

use super::entry::Entry;
use crate::model::Protocol;

/// `CTA_TUPLE_ORIG`: a nest.
const CTA_TUPLE_ORIG: u16 = 1;
/// `CTA_ID`: 4 bytes.
pub(super) const CTA_ID: u16 = 12;
/// `CTA_ZONE`: big-endian u16.
pub(super) const CTA_ZONE: u16 = 18;
/// `CTA_FILTER`: a nest, Linux 5.8 and later.
const CTA_FILTER: u16 = 25;
/// `CTA_TUPLE_ZONE`, within a tuple: big-endian u16.
pub(super) const CTA_TUPLE_ZONE: u16 = 3;
/// `CTA_FILTER_ORIG_FLAGS`, within the filter: u32 in host order.
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_F_CTA_PROTO_NUM`: the protocol must be that of the request.
const FILTER_PROTOCOL: u32 = 1 << 3;
/// `CTA_FILTER_F_CTA_PROTO_DST_PORT`: so must the destination port. Kernels ignore it for SCTP.
const FILTER_PORT: u32 = 1 << 5;

/// A part of the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Scope {
    /// IPv6, else IPv4.
    pub(super) ipv6: bool,
    /// Transport protocol.
    pub(super) protocol: Protocol,
    /// Destination port of the original direction; `None` means any.
    pub(super) port: Option<u16>,
}

/// Who leaves out what is not in the scope.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filter {
    /// The kernel leaves out other protocols and ports. One without CTA_FILTER ignores the wish.
    Kernel,
    /// The kernel leaves out only the other address family.
    Family,
}

/// Returns the request for a dump.
///
/// The filter holds no addresses: kernels compare IPv6 ones the wrong way round
/// (`ctnetlink_filter_match_tuple`). So the caller must look at what comes anyhow.
pub(super) fn list(scope: &Scope, filter: Filter) -> NetfilterMessage {
    let mut attributes = Vec::new();
    if filter == Filter::Kernel {
        let mut parts = vec![ProtoTuple::Protocol(scope.protocol.number().into())];
        parts.extend(scope.port.map(ProtoTuple::DestinationPort));
        let flags = FILTER_PROTOCOL | scope.port.map_or(0, |_| FILTER_PORT);
        let flags = DefaultNla::new(CTA_FILTER_ORIG_FLAGS, flags.to_ne_bytes().to_vec());
        attributes.push(nest(CTA_TUPLE_ORIG, &Tuple::Proto(parts)));
        attributes.push(nest(CTA_FILTER, &flags));
    }
    // `Get` would lose the flag of a nest that it does not know, and the kernel then refuses it
    // (`nla_parse_nested`).
    let message_type = ConntrackMessageType::Get.into();
    message(scope.ipv6, ConntrackMessage::Other { message_type, attributes })
}

fn nest(kind: u16, attribute: &impl Emitable) -> DefaultNla {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// Returns the request that deletes exactly this entry.
pub(super) fn delete(entry: &Entry) -> NetfilterMessage {
    let mut original = vec![
        Tuple::Ip(vec![
            IPTuple::SourceAddress(entry.client.ip()),
            IPTuple::DestinationAddress(entry.frontend.addr),
        ]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(entry.frontend.protocol.number().into()),
            ProtoTuple::SourcePort(entry.client.port()),
            ProtoTuple::DestinationPort(entry.frontend.port),
        ]),
    ];
    let zone = entry.original_zone.map(|zone| DefaultNla::new(CTA_TUPLE_ZONE, zone.to_vec()));
    original.extend(zone.map(Tuple::Other));
    let id = entry.id.map(|id| DefaultNla::new(CTA_ID, id.to_vec()));
    let zone = entry.zone.map(|zone| DefaultNla::new(CTA_ZONE, zone.to_vec()));
    let mut attributes = vec![ConntrackAttribute::CtaTupleOrig(original)];
    attributes.extend(id.into_iter().chain(zone).map(ConntrackAttribute::Other));
    message(entry.frontend.addr.is_ipv6(), ConntrackMessage::Delete(attributes))
}

fn message(ipv6: bool, inner: ConntrackMessage) -> NetfilterMessage {
    let family = if ipv6 { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}
