//! Destinations as nests of `IPVS_DEST_ATTR_*`.

use bytes::BytesMut;

use super::{
    attribute::{
        Attributes, DecodeError, dest, family, put_addr, put_nest, put_port, put_u8, put_u16,
        put_u32, top,
    },
    stats::{self, Stats},
};
use crate::model::{Destination, DestinationKey, Forwarding, Frontend, Thresholds, Tunnel};

/// `IP_VS_CONN_F_FWD_MASK`: the forwarding method within connection flags.
const FORWARDING_MASK: u32 = 0x7;

/// `IP_VS_CONN_F_TUNNEL_TYPE_*`.
mod tunnel {
    pub(super) const IPIP: u8 = 0;
    pub(super) const GUE: u8 = 1;
    pub(super) const GRE: u8 = 2;
}

/// A destination as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DestinationState {
    /// The destination.
    pub destination: Destination,
    /// Active connections: TCP established or nearly so.
    pub active_connections: u32,
    /// All other connections; UDP is always counted here.
    pub inactive_connections: u32,
    /// Persistence templates.
    pub persistent_connections: u32,
    /// Counters.
    pub stats: Stats,
}

/// Appends the nest that names a destination, which is all that DEL needs.
pub fn encode_key(buffer: &mut BytesMut, key: &DestinationKey) {
    put_nest(buffer, top::DEST, |nest| put_key(nest, key));
}

/// Appends the nest that NEW and SET need (`ip_vs_genl_parse_dest`).
pub fn encode(buffer: &mut BytesMut, destination: &Destination) {
    put_nest(buffer, top::DEST, |nest| {
        put_key(nest, &destination.key);
        put_u32(nest, dest::FWD_METHOD, method(destination.forwarding));
        put_u32(nest, dest::WEIGHT, destination.weight);
        put_u32(nest, dest::U_THRESH, destination.limits.upper);
        put_u32(nest, dest::L_THRESH, destination.limits.lower);
        if let Forwarding::Tunnel(tunnel) = destination.forwarding {
            put_tunnel(nest, tunnel);
        }
    });
}

/// Without these attributes the kernel takes IP in IP.
fn put_tunnel(nest: &mut BytesMut, tunnel: Tunnel) {
    let (kind, port) = match tunnel {
        Tunnel::Ipip => (tunnel::IPIP, 0),
        Tunnel::Gue { port } => (tunnel::GUE, port),
        Tunnel::Gre => (tunnel::GRE, 0),
    };
    put_u8(nest, dest::TUN_TYPE, kind);
    put_port(nest, dest::TUN_PORT, port);
    put_u16(nest, dest::TUN_FLAGS, 0);
}

fn put_key(nest: &mut BytesMut, key: &DestinationKey) {
    put_addr(nest, dest::ADDR, key.addr);
    put_port(nest, dest::PORT, key.port);
    put_u16(nest, dest::ADDR_FAMILY, family(key.addr));
}

/// Returns the forwarding method within connection flags.
pub(super) fn method(forwarding: Forwarding) -> u32 {
    match forwarding {
        Forwarding::Masq => 0,
        Forwarding::Local => 1,
        Forwarding::Tunnel(_) => 2,
        Forwarding::Route => 3,
    }
}

/// Reads a GET_DEST reply without its headers. Kernels before 3.18 do not say the address family:
/// it is that of `frontend`.
pub fn decode(message: &[u8], frontend: &Frontend) -> Result<DestinationState, DecodeError> {
    decode_of_family(message, family(frontend.addr))
}

/// The same, where the kernel does not say it, of this `AF_*` family.
pub(super) fn decode_of_family(
    message: &[u8],
    default: u16,
) -> Result<DestinationState, DecodeError> {
    let message = Attributes::parse("destination message", message)?;
    let nest = Attributes::parse("destination", message.bytes(top::DEST)?)?;
    let af = match nest.optional(dest::ADDR_FAMILY) {
        Some(_) => nest.u16(dest::ADDR_FAMILY)?,
        None => default,
    };
    let forwarding = match nest.u32(dest::FWD_METHOD)? & FORWARDING_MASK {
        0 => Forwarding::Masq,
        1 => Forwarding::Local,
        2 => Forwarding::Tunnel(decode_tunnel(&nest)?),
        3 => Forwarding::Route,
        method => return Err(DecodeError::Forwarding { method }),
    };
    Ok(DestinationState {
        destination: Destination {
            key: DestinationKey { addr: nest.addr(dest::ADDR, af)?, port: nest.port(dest::PORT)? },
            weight: nest.u32(dest::WEIGHT)?,
            forwarding,
            limits: Thresholds {
                upper: nest.u32(dest::U_THRESH)?,
                lower: nest.u32(dest::L_THRESH)?,
            },
        },
        active_connections: nest.u32(dest::ACTIVE_CONNS)?,
        inactive_connections: nest.u32(dest::INACT_CONNS)?,
        persistent_connections: nest.u32(dest::PERSIST_CONNS)?,
        stats: stats::decode(&nest, dest::STATS64, dest::STATS)?,
    })
}

/// Kernels before 5.3 know IP in IP only, and do not say so.
fn decode_tunnel(nest: &Attributes<'_>) -> Result<Tunnel, DecodeError> {
    if nest.optional(dest::TUN_TYPE).is_none() {
        return Ok(Tunnel::Ipip);
    }
    match nest.u8(dest::TUN_TYPE)? {
        tunnel::IPIP => Ok(Tunnel::Ipip),
        tunnel::GUE => Ok(Tunnel::Gue { port: nest.port(dest::TUN_PORT)? }),
        tunnel::GRE => Ok(Tunnel::Gre),
        kind => Err(DecodeError::Tunnel { kind }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::{
        super::{attribute::put, virtual_server::tests::frontends},
        *,
    };

    /// Any destination.
    pub(in super::super) fn destinations() -> impl Strategy<Value = Destination> {
        let forwarding = prop_oneof![
            Just(Forwarding::Masq),
            Just(Forwarding::Local),
            Just(Forwarding::Route),
            Just(Forwarding::Tunnel(Tunnel::Ipip)),
            Just(Forwarding::Tunnel(Tunnel::Gre)),
            any::<u16>().prop_map(|port| Forwarding::Tunnel(Tunnel::Gue { port })),
        ];
        (any::<IpAddr>(), any::<u16>(), any::<u32>(), forwarding).prop_map(
            |(addr, port, weight, forwarding)| Destination {
                limits: Default::default(),
                key: DestinationKey { addr, port },
                weight,
                forwarding,
            },
        )
    }

    /// Turns a NEW_DEST message into the reply that a kernel would give for it.
    fn with_connection_counts(message: &[u8]) -> BytesMut {
        let top_level = Attributes::parse("destination message", message).unwrap();
        let mut reply = BytesMut::new();
        put_nest(&mut reply, top::DEST, |nest| {
            nest.extend_from_slice(top_level.bytes(top::DEST).unwrap());
            put_u32(nest, dest::ACTIVE_CONNS, 1);
            put_u32(nest, dest::INACT_CONNS, 2);
            put_u32(nest, dest::PERSIST_CONNS, 3);
        });
        reply
    }

    #[test]
    fn a_tunnel_is_written_as_linux_ip_vs_h_says() {
        let mut message = BytesMut::new();
        let destination = Destination {
            limits: Default::default(),
            key: DestinationKey { addr: [10, 1, 0, 5].into(), port: 80 },
            weight: 1,
            forwarding: Forwarding::Tunnel(Tunnel::Gue { port: 6080 }),
        };
        encode(&mut message, &destination);
        let top_level = Attributes::parse("destination message", &message).unwrap();
        let nest = Attributes::parse("destination", top_level.bytes(top::DEST).unwrap()).unwrap();
        assert_eq!(nest.u32(3), Ok(2), "IPVS_DEST_ATTR_FWD_METHOD: IP_VS_CONN_F_TUNNEL");
        assert_eq!(nest.bytes(13), Ok(&[1_u8][..]), "IPVS_DEST_ATTR_TUN_TYPE: GUE");
        assert_eq!(nest.bytes(14), Ok(&6080_u16.to_be_bytes()[..]), "IPVS_DEST_ATTR_TUN_PORT");
        assert_eq!(nest.bytes(15), Ok(&[0_u8, 0][..]), "IPVS_DEST_ATTR_TUN_FLAGS");
    }

    #[test]
    fn an_unknown_kind_of_tunnel_is_an_error_and_none_is_ip_in_ip() {
        let tunnel = |fill: fn(&mut BytesMut)| {
            let mut bytes = BytesMut::new();
            fill(&mut bytes);
            decode_tunnel(&Attributes::parse("destination", &bytes).unwrap())
        };
        assert_eq!(tunnel(|_| {}), Ok(Tunnel::Ipip));
        assert_eq!(
            tunnel(|bytes| put_u8(bytes, dest::TUN_TYPE, 3)),
            Err(DecodeError::Tunnel { kind: 3 })
        );
    }

    proptest! {
        #[test]
        fn a_destination_survives_encode_and_decode(
            destination in destinations(),
            frontend in frontends(),
        ) {
            let mut message = BytesMut::new();
            encode(&mut message, &destination);
            let state = decode(&with_connection_counts(&message), &frontend).unwrap();
            prop_assert_eq!(state.destination, destination);
            prop_assert_eq!(state.active_connections, 1);
            prop_assert_eq!(state.inactive_connections, 2);
            prop_assert_eq!(state.persistent_connections, 3);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            frontend in frontends(),
        ) {
            let _ = decode(&bytes, &frontend);
            let mut message = BytesMut::new();
            put(&mut message, top::DEST, &bytes);
            let _ = decode(&message, &frontend);
        }
    }
}
