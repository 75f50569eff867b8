//! Everything that IPVS lists, also what we never make: virtual servers by firewall mark, masks of
//! persistence, persistence engines, schedulers we do not know.

use std::fmt;

use bytes::BytesMut;

use super::{
    attribute::{Attributes, DecodeError, dest, put_nest, put_u16, put_u32, svc, top},
    destination::{self, DestinationState},
    stats::{self, Stats},
    virtual_server,
};
use crate::model::{Frontend, Protocol};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// What names a virtual server.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Key {
    /// What clients dial.
    Frontend(Frontend),
    /// A firewall mark on packets of one family.
    Mark {
        /// The mark.
        mark: u32,
        /// IPv6 instead of IPv4.
        ipv6: bool,
    },
}

impl Key {
    /// Says whether its packets are IPv6.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Frontend(frontend) => frontend.addr.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }

    /// Returns what clients dial; `None` for a mark.
    pub fn frontend(&self) -> Option<Frontend> {
        match self {
            Self::Frontend(frontend) => Some(*frontend),
            Self::Mark { .. } => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frontend(frontend) => frontend.fmt(f),
            Self::Mark { mark, ipv6: false } => write!(f, "firewall mark {mark}"),
            Self::Mark { mark, ipv6: true } => write!(f, "firewall mark {mark} of IPv6"),
        }
    }
}

/// A virtual server as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedServer {
    /// What names it.
    pub key: Key,
    /// Name of its scheduler, whatever it is.
    pub scheduler: String,
    /// `IP_VS_SVC_F_*`.
    pub flags: u32,
    /// Persistence in seconds; without the flag it means nothing.
    pub timeout_secs: u32,
    /// IPv4: network mask as it lies in memory, in network order; IPv6: length of the prefix.
    pub netmask: u32,
    /// Name of its persistence engine; empty for none.
    pub engine: String,
    /// Counters.
    pub stats: Stats,
}

/// A destination as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListedDestination {
    /// All that we know of ours as well.
    pub state: DestinationState,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub tunnel_flags: u16,
}

/// Appends the nest that names a virtual server.
pub fn encode_key(buffer: &mut BytesMut, key: &Key) {
    match key {
        Key::Frontend(frontend) => virtual_server::encode_key(buffer, frontend),
        Key::Mark { mark, ipv6 } => put_nest(buffer, top::SERVICE, |nest| {
            put_u16(nest, svc::AF, if *ipv6 { AF_INET6 } else { AF_INET });
            put_u32(nest, svc::FWMARK, *mark);
        }),
    }
}

/// Reads a GET_SERVICE reply without its headers.
pub fn decode_server(message: &[u8]) -> Result<ListedServer, DecodeError> {
    let message = Attributes::parse("virtual server message", message)?;
    let nest = Attributes::parse("virtual server", message.bytes(top::SERVICE)?)?;
    let (flags, _mask) = nest.u32_pair(svc::FLAGS)?;
    let engine = nest.optional(svc::PE_NAME).map(|_| nest.string(svc::PE_NAME)).transpose()?;
    Ok(ListedServer {
        key: key(&nest)?,
        scheduler: nest.string(svc::SCHED_NAME)?,
        flags,
        timeout_secs: nest.u32(svc::TIMEOUT)?,
        netmask: nest.u32(svc::NETMASK)?,
        engine: engine.unwrap_or_default(),
        stats: stats::decode(&nest, svc::STATS64, svc::STATS)?,
    })
}

fn key(nest: &Attributes<'_>) -> Result<Key, DecodeError> {
    let family = nest.u16(svc::AF)?;
    if nest.optional(svc::FWMARK).is_some() {
        return Ok(Key::Mark { mark: nest.u32(svc::FWMARK)?, ipv6: family == AF_INET6 });
    }
    let number = nest.u16(svc::PROTOCOL)?;
    let protocol = u8::try_from(number)
        .ok()
        .and_then(Protocol::from_number)
        .ok_or(DecodeError::Protocol { number })?;
    let addr = nest.addr(svc::ADDR, family)?;
    Ok(Key::Frontend(Frontend { addr, port: nest.port(svc::PORT)?, protocol }))
}

/// Reads a GET_DEST reply without its headers.
pub fn decode_destination(message: &[u8], key: &Key) -> Result<ListedDestination, DecodeError> {
    let family = if key.is_ipv6() { AF_INET6 } else { AF_INET };
    let state = destination::decode_of_family(message, family)?;
    let message = Attributes::parse("destination message", message)?;
    let nest = Attributes::parse("destination", message.bytes(top::DEST)?)?;
    let flags = nest.optional(dest::TUN_FLAGS).map(|_| nest.u16(dest::TUN_FLAGS)).transpose()?;
    Ok(ListedDestination { state, tunnel_flags: flags.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::{super::attribute::put, *};

    fn server(fill: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut message = BytesMut::new();
        put_nest(&mut message, top::SERVICE, |nest| {
            put(nest, svc::SCHED_NAME, b"xyz\0");
            put(nest, svc::FLAGS, &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
            put_u32(nest, svc::TIMEOUT, 50);
            put_u32(nest, svc::NETMASK, 64);
            fill(nest);
        });
        message
    }

    #[test]
    fn a_virtual_server_by_mark_is_listed_with_all_it_has() {
        let message = server(|nest| {
            put_u16(nest, svc::AF, AF_INET6);
            put_u32(nest, svc::FWMARK, 7);
            put(nest, svc::PE_NAME, b"sip\0");
        });
        let listed = decode_server(&message).unwrap();
        assert_eq!(listed.key, Key::Mark { mark: 7, ipv6: true });
        assert_eq!((listed.scheduler.as_str(), listed.engine.as_str()), ("xyz", "sip"));
        assert_eq!((listed.flags, listed.timeout_secs, listed.netmask), (1, 50, 64));
    }

    #[test]
    fn the_key_of_a_mark_survives_encode_and_decode() {
        let key = Key::Mark { mark: 4_000_000_000, ipv6: false };
        let mut request = BytesMut::new();
        encode_key(&mut request, &key);
        let message = Attributes::parse("request", &request).unwrap();
        let nest = Attributes::parse("nest", message.bytes(top::SERVICE).unwrap()).unwrap();
        assert_eq!(super::key(&nest), Ok(key));
    }

    #[test]
    fn a_frontend_is_read_as_the_other_reader_reads_it() {
        let frontend = Frontend { addr: [10, 0, 0, 1].into(), port: 80, protocol: Protocol::Udp };
        let mut key_nest = BytesMut::new();
        encode_key(&mut key_nest, &Key::Frontend(frontend));
        let message = server(|nest| nest.extend_from_slice(&key_nest[4..]));
        assert_eq!(decode_server(&message).unwrap().key, Key::Frontend(frontend));
        let ours = virtual_server::decode(&message).unwrap().unwrap();
        assert_eq!(ours.virtual_server.frontend, frontend);
    }
}
