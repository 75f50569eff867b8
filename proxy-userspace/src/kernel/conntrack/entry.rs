//! An entry of the table, reduced to what decides whether it is stale and what names it.

use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple},
};

use super::message::{CTA_ID, CTA_TUPLE_ZONE, CTA_ZONE};
use crate::model::{DestinationKey, Frontend, Protocol};

/// An entry of a protocol that a Service can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Source of the original direction.
    pub(super) client: SocketAddr,
    /// Destination of the original direction.
    pub(super) frontend: Frontend,
    /// Source of the reply direction: the endpoint; the frontend itself when nothing translated.
    pub(super) destination: DestinationKey,
    /// `CTA_ID`: keeps a deletion from a later entry with the same addresses and ports.
    pub(super) id: Option<[u8; 4]>,
    /// `CTA_ZONE`, big-endian; none in the default zone.
    pub(super) zone: Option<[u8; 2]>,
    /// `CTA_TUPLE_ZONE` of the original direction, for zones of one direction.
    pub(super) original_zone: Option<[u8; 2]>,
}

/// Source, destination, protocol and zone of one direction.
struct Direction {
    src: SocketAddr,
    dst: SocketAddr,
    protocol: Protocol,
    zone: Option<[u8; 2]>,
}

impl Entry {
    /// Reads an entry. `None` for a message that is none, and for protocols without ports.
    pub(super) fn read(message: &NetfilterMessage) -> Option<Self> {
        let NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) = &message.inner
        else {
            return None;
        };
        let (mut original, mut reply, mut id, mut zone) = (None, None, None, None);
        for attribute in attributes {
            match attribute {
                ConntrackAttribute::CtaTupleOrig(tuple) => original = direction(tuple),
                ConntrackAttribute::CtaTupleReply(tuple) => reply = direction(tuple),
                ConntrackAttribute::Other(other) if other.kind() == CTA_ID => id = bytes(other),
                ConntrackAttribute::Other(other) if other.kind() == CTA_ZONE => zone = bytes(other),
                _ => {}
            }
        }
        let (original, reply) = (original?, reply?);
        Some(Self {
            client: original.src,
            frontend: Frontend {
                addr: original.dst.ip(),
                port: original.dst.port(),
                protocol: original.protocol,
            },
            destination: DestinationKey { addr: reply.src.ip(), port: reply.src.port() },
            id,
            zone,
            original_zone: original.zone,
        })
    }
}

fn direction(tuples: &[Tuple]) -> Option<Direction> {
    let (mut addrs, mut ports) = ((None::<IpAddr>, None::<IpAddr>), (None, None));
    let (mut protocol, mut zone) = (None, None);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => parts.iter().for_each(|part| match part {
                IPTuple::SourceAddress(addr) => addrs.0 = Some(*addr),
                IPTuple::DestinationAddress(addr) => addrs.1 = Some(*addr),
                _ => {}
            }),
            Tuple::Proto(parts) => parts.iter().for_each(|part| match part {
                ProtoTuple::Protocol(number) => protocol = Protocol::from_number((*number).into()),
                ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                _ => {}
            }),
            Tuple::Other(other) if other.kind() == CTA_TUPLE_ZONE => zone = bytes(other),
            _ => {}
        }
    }
    Some(Direction {
        src: SocketAddr::new(addrs.0?, ports.0?),
        dst: SocketAddr::new(addrs.1?, ports.1?),
        protocol: protocol?,
        zone,
    })
}

/// Returns the value when it has the size it should have.
fn bytes<const N: usize>(attribute: &DefaultNla) -> Option<[u8; N]> {
    let mut value = [0; N];
    (attribute.value_len() == N).then(|| attribute.emit_value(&mut value))?;
    Some(value)
}
