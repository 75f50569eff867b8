//! Netlink attributes of the IPVS family: numbers, writing and reading. No I/O.
//!
//! Integers are in host order except ports, which are big-endian; addresses are 16 bytes with
//! IPv4 in the first four (`union nf_inet_addr`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};
use netlink_packet_core::NlasIterator;

/// `IPVS_CMD_ATTR_*`: the attributes directly in a message.
pub mod top {
    /// Nest of a virtual server.
    pub const SERVICE: u16 = 1;
    /// Nest of a destination.
    pub const DEST: u16 = 2;
    /// Nest of a sync daemon.
    pub const DAEMON: u16 = 3;
    /// Timeout of idle TCP connections in seconds, u32.
    pub const TIMEOUT_TCP: u16 = 4;
    /// Timeout of TCP connections after a FIN in seconds, u32.
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    /// Timeout of idle UDP connections in seconds, u32.
    pub const TIMEOUT_UDP: u16 = 6;
}

/// `IPVS_SVC_ATTR_*`: the attributes of a virtual server.
pub mod svc {
    /// Address family, u16.
    pub const AF: u16 = 1;
    /// Transport protocol, u16.
    pub const PROTOCOL: u16 = 2;
    /// Address, 16 bytes.
    pub const ADDR: u16 = 3;
    /// Port, big-endian u16.
    pub const PORT: u16 = 4;
    /// Firewall mark, u32: stands for protocol, address and port.
    pub const FWMARK: u16 = 5;
    /// Scheduler name, NUL-terminated.
    pub const SCHED_NAME: u16 = 6;
    /// Flags and mask, two u32.
    pub const FLAGS: u16 = 7;
    /// Persistence timeout in seconds, u32.
    pub const TIMEOUT: u16 = 8;
    /// Persistence granularity: IPv4 network mask in network order, or IPv6 prefix length.
    pub const NETMASK: u16 = 9;
    /// Nest of 32-bit counters.
    pub const STATS: u16 = 10;
    /// Name of the persistence engine, NUL-terminated.
    pub const PE_NAME: u16 = 11;
    /// Nest of 64-bit counters, Linux 4.1 and later.
    pub const STATS64: u16 = 12;
}

/// `IPVS_DEST_ATTR_*`: the attributes of a destination.
pub mod dest {
    /// Address, 16 bytes.
    pub const ADDR: u16 = 1;
    /// Port, big-endian u16.
    pub const PORT: u16 = 2;
    /// Forwarding method, u32: the low three bits of `IP_VS_CONN_F_*`.
    pub const FWD_METHOD: u16 = 3;
    /// Weight, u32.
    pub const WEIGHT: u16 = 4;
    /// Upper connection threshold, u32.
    pub const U_THRESH: u16 = 5;
    /// Lower connection threshold, u32.
    pub const L_THRESH: u16 = 6;
    /// Active connections, u32.
    pub const ACTIVE_CONNS: u16 = 7;
    /// Inactive connections, u32.
    pub const INACT_CONNS: u16 = 8;
    /// Persistent connections, u32.
    pub const PERSIST_CONNS: u16 = 9;
    /// Nest of 32-bit counters.
    pub const STATS: u16 = 10;
    /// Address family of the destination, u16, Linux 3.18 and later.
    pub const ADDR_FAMILY: u16 = 11;
    /// Nest of 64-bit counters, Linux 4.1 and later.
    pub const STATS64: u16 = 12;
    /// Kind of tunnel, u8, Linux 5.3 and later.
    pub const TUN_TYPE: u16 = 13;
    /// UDP port of a GUE tunnel, big-endian u16, Linux 5.3 and later.
    pub const TUN_PORT: u16 = 14;
    /// Checksums of a tunnel, u16, Linux 5.4 and later.
    pub const TUN_FLAGS: u16 = 15;
}

/// `IPVS_DAEMON_ATTR_*`: the attributes of a sync daemon.
pub mod daemon {
    /// Master 1 or backup 2, u32.
    pub const STATE: u16 = 1;
    /// Interface name, NUL-terminated.
    pub const MCAST_IFN: u16 = 2;
    /// Id of its messages, u32; the kernel keeps the low 8 bits.
    pub const SYNC_ID: u16 = 3;
}

/// `IPVS_INFO_ATTR_*`: the attributes of a `GET_INFO` reply.
pub mod info {
    /// Version, u32: `major << 16 | minor << 8 | patch`.
    pub const VERSION: u16 = 1;
    /// Buckets of the connection table, u32.
    pub const CONN_TAB_SIZE: u16 = 2;
}

/// One more than the highest attribute number read here; higher ones are ignored.
const MAX_ATTRIBUTES: usize = 16;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Bytes from the kernel that are not what the IPVS family specifies.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// An attribute header claims more bytes than there are, or fewer than a header.
    #[error("{object}: cut-off netlink attributes")]
    CutOff {
        /// What was being read.
        object: &'static str,
    },
    /// A required attribute is absent.
    #[error("{object}: no attribute {attribute}")]
    Missing {
        /// What was being read.
        object: &'static str,
        /// Attribute number within the object.
        attribute: u16,
    },
    /// An attribute has the wrong size.
    #[error("{object}: attribute {attribute} has {len} bytes instead of {expected}")]
    Length {
        /// What was being read.
        object: &'static str,
        /// Attribute number within the object.
        attribute: u16,
        /// Size found in bytes.
        len: usize,
        /// Size expected in bytes.
        expected: usize,
    },
    /// The address family is neither IPv4 nor IPv6.
    #[error("{object}: unknown address family {family}")]
    AddressFamily {
        /// What was being read.
        object: &'static str,
        /// The number found.
        family: u16,
    },
    /// The transport protocol is not TCP, UDP or SCTP.
    #[error("virtual server: unknown protocol number {number}")]
    Protocol {
        /// The number found.
        number: u16,
    },
    /// The tunnel is of no kind that is known.
    #[error("destination: unknown tunnel type {kind}")]
    Tunnel {
        /// The number found.
        kind: u8,
    },
    /// The sync daemon is neither master nor backup.
    #[error("daemon: unknown state {state}")]
    DaemonState {
        /// The number found.
        state: u32,
    },
    /// The forwarding method is none a destination can have.
    #[error("destination: unknown forwarding method {method}")]
    Forwarding {
        /// The low three bits found.
        method: u32,
    },
}

/// Returns the `AF_*` number of the address.
pub fn family(addr: IpAddr) -> u16 {
    match addr {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

/// Appends one attribute with its padding.
///
/// The value must be shorter than 64 KiB; all values of the family are shorter than 100 bytes.
pub fn put(buffer: &mut BytesMut, attribute: u16, value: &[u8]) {
    buffer.put_u16_ne((value.len() + 4) as u16);
    buffer.put_u16_ne(attribute);
    buffer.put_slice(value);
    buffer.put_bytes(0, value.len().next_multiple_of(4) - value.len());
}

/// Appends a u8.
pub fn put_u8(buffer: &mut BytesMut, attribute: u16, value: u8) {
    put(buffer, attribute, &[value]);
}

/// Appends a u16 in host order.
pub fn put_u16(buffer: &mut BytesMut, attribute: u16, value: u16) {
    put(buffer, attribute, &value.to_ne_bytes());
}

/// Appends a u32 in host order.
pub fn put_u32(buffer: &mut BytesMut, attribute: u16, value: u32) {
    put(buffer, attribute, &value.to_ne_bytes());
}

/// Appends a port, which travels big-endian.
pub fn put_port(buffer: &mut BytesMut, attribute: u16, port: u16) {
    put(buffer, attribute, &port.to_be_bytes());
}

/// Appends an address as 16 bytes.
pub fn put_addr(buffer: &mut BytesMut, attribute: u16, addr: IpAddr) {
    let mut bytes = [0; 16];
    match addr {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    put(buffer, attribute, &bytes);
}

/// Appends an attribute whose value is what `fill` appends to an empty buffer.
pub fn put_nest(buffer: &mut BytesMut, attribute: u16, fill: impl FnOnce(&mut BytesMut)) {
    let mut nest = BytesMut::new();
    fill(&mut nest);
    put(buffer, attribute, &nest);
}

/// The attributes of one object, by number. Of a repeated attribute the last counts, as in the
/// kernel's `nla_parse`.
#[derive(Debug)]
pub struct Attributes<'a> {
    object: &'static str,
    values: [Option<&'a [u8]>; MAX_ATTRIBUTES],
}

impl<'a> Attributes<'a> {
    /// Splits `bytes`, which must start at an attribute header. `object` names them in errors.
    pub fn parse(object: &'static str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut values = [None; MAX_ATTRIBUTES];
        let mut rest = bytes;
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute.map_err(|_| DecodeError::CutOff { object })?;
            let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
            let value = rest.get(4..len).ok_or(DecodeError::CutOff { object })?;
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            if let Some(slot) = values.get_mut(usize::from(kind)) {
                *slot = Some(value);
            }
        }
        Ok(Self { object, values })
    }

    /// Returns the attribute's bytes, if it is there.
    pub fn optional(&self, attribute: u16) -> Option<&'a [u8]> {
        self.values.get(usize::from(attribute)).copied().flatten()
    }

    /// Returns the attribute's bytes.
    pub fn bytes(&self, attribute: u16) -> Result<&'a [u8], DecodeError> {
        self.optional(attribute).ok_or(DecodeError::Missing { object: self.object, attribute })
    }

    fn array<const N: usize>(&self, attribute: u16) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(attribute)?;
        bytes.try_into().map_err(|_| DecodeError::Length {
            object: self.object,
            attribute,
            len: bytes.len(),
            expected: N,
        })
    }

    /// Returns a u8.
    pub fn u8(&self, attribute: u16) -> Result<u8, DecodeError> {
        self.array(attribute).map(u8::from_ne_bytes)
    }

    /// Returns a u16 in host order.
    pub fn u16(&self, attribute: u16) -> Result<u16, DecodeError> {
        self.array(attribute).map(u16::from_ne_bytes)
    }

    /// Returns a u32 in host order.
    pub fn u32(&self, attribute: u16) -> Result<u32, DecodeError> {
        self.array(attribute).map(u32::from_ne_bytes)
    }

    /// Returns a u64 in host order.
    pub fn u64(&self, attribute: u16) -> Result<u64, DecodeError> {
        self.array(attribute).map(u64::from_ne_bytes)
    }

    /// Returns two u32 in host order.
    pub fn u32_pair(&self, attribute: u16) -> Result<(u32, u32), DecodeError> {
        let [a, b, c, d, e, f, g, h] = self.array(attribute)?;
        Ok((u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])))
    }

    /// Returns a port in host order.
    pub fn port(&self, attribute: u16) -> Result<u16, DecodeError> {
        self.array(attribute).map(u16::from_be_bytes)
    }

    /// Returns the address of the given `AF_*` family.
    pub fn addr(&self, attribute: u16, family: u16) -> Result<IpAddr, DecodeError> {
        let octets: [u8; 16] = self.array(attribute)?;
        let [a, b, c, d, ..] = octets;
        match family {
            AF_INET => Ok(Ipv4Addr::new(a, b, c, d).into()),
            AF_INET6 => Ok(Ipv6Addr::from(octets).into()),
            _ => Err(DecodeError::AddressFamily { object: self.object, family }),
        }
    }

    /// Returns a string up to its NUL; bytes that are not UTF-8 are replaced.
    pub fn string(&self, attribute: u16) -> Result<String, DecodeError> {
        let bytes = self.bytes(attribute)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(String::from_utf8_lossy(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_padded_to_four_bytes() {
        let mut buffer = BytesMut::new();
        put(&mut buffer, svc::SCHED_NAME, b"rr\0");
        assert_eq!(buffer.len(), 8);
        assert_eq!(buffer[7], 0);
        assert_eq!(u16::from_ne_bytes([buffer[0], buffer[1]]), 7, "length excludes the padding");
    }

    #[test]
    fn a_cut_off_attribute_is_an_error() {
        let mut buffer = BytesMut::new();
        put_u32(&mut buffer, svc::TIMEOUT, 7);
        let error = Attributes::parse("virtual server", &buffer[..6]).unwrap_err();
        assert_eq!(error, DecodeError::CutOff { object: "virtual server" });
    }

    #[test]
    fn an_attribute_of_the_wrong_size_is_an_error() {
        let mut buffer = BytesMut::new();
        put_u16(&mut buffer, dest::WEIGHT, 7);
        let attributes = Attributes::parse("destination", &buffer).unwrap();
        assert!(matches!(
            attributes.u32(dest::WEIGHT),
            Err(DecodeError::Length { len: 2, expected: 4, .. })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(attributes) = Attributes::parse("anything", &bytes) {
                for attribute in 0..40 {
                    let _ = attributes.u64(attribute);
                    let _ = attributes.string(attribute);
                    let _ = attributes.addr(attribute, attribute);
                }
            }
        }

        #[test]
        fn an_address_survives_encode_and_decode(addr: IpAddr) {
            let mut buffer = BytesMut::new();
            put_addr(&mut buffer, dest::ADDR, addr);
            let attributes = Attributes::parse("destination", &buffer).unwrap();
            prop_assert_eq!(attributes.addr(dest::ADDR, family(addr)), Ok(addr));
        }
    }
}
