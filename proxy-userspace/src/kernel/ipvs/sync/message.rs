//! Sync messages, protocol version 1, as bytes: `struct ip_vs_sync_mesg` and the `union
//! ip_vs_sync_conn` behind it. No I/O.
//!
//! Integers are big-endian. Each entry begins at a multiple of four.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, BytesMut};
use serde::Serialize;

/// `SYNC_PROTO_VER`.
const VERSION: u8 = 1;
/// Bytes of `struct ip_vs_sync_mesg`.
const HEADER: usize = 8;
/// Bytes of `struct ip_vs_sync_v4`.
const ENTRY_V4: usize = 36;
/// Bytes of `struct ip_vs_sync_v6`.
const ENTRY_V6: usize = 72;
/// `STYPE_F_INET6`: the only type that is not 0.
const TYPE_IPV6: u8 = 1;
/// `SVER_MASK`: the size within `ver_size`. The version above it is 0.
const SIZE_MASK: u16 = 0x0fff;
/// Bytes of a message at most: fits a datagram into the least MTU that a daemon receives with.
pub const MAX_MESSAGE: usize = 1400;

/// Numbers of `linux/ip_vs.h` that a connection is described with: `IP_VS_CONN_F_*`.
pub mod flag {
    /// `FWD_MASK`: the forwarding method.
    pub const METHOD: u32 = 0x0007;
    /// The answers do not come this way.
    pub const NO_OUTPUT: u32 = 0x0080;
    /// Not counted among the active connections of its destination.
    pub const INACTIVE: u32 = 0x0100;
    /// Persistence template.
    pub const TEMPLATE: u32 = 0x1000;
}

/// A message.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Message {
    /// `syncid` of the sender: a daemon with another one but 0 does not read on.
    pub id: u8,
    /// Connections, 255 at most.
    pub entries: Vec<Entry>,
}

/// A connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// IANA number.
    pub protocol: u8,
    /// See [`flag`]; the kernel ignores what it does not let others set.
    pub flags: u32,
    /// Number of the state in its protocol, `IP_VS_TCP_S_*`.
    pub state: u16,
    /// Client.
    pub client: SocketAddr,
    /// What the client dialled.
    pub frontend: SocketAddr,
    /// Where its packets go. All three addresses are of one family.
    pub destination: SocketAddr,
    /// Firewall mark of its virtual server; 0 without.
    pub fwmark: u32,
    /// Until it expires; 0 for what its state has.
    pub timeout_secs: u32,
}

/// Bytes that are no such message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// It ends within its header or an entry.
    #[error("sync message: cut off")]
    CutOff,
    /// The header is of another version, or says another length than there is.
    #[error("sync message: no header of version 1")]
    Header,
    /// An entry is of another version, or of a type that is not known.
    #[error("sync message: unknown entry")]
    Entry,
}

/// An entry whose addresses are not of one family: the protocol has no room for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sync message: {client}, {frontend} and {destination} are not of one address family")]
pub struct MixedFamilies {
    client: SocketAddr,
    frontend: SocketAddr,
    destination: SocketAddr,
}

/// Writes entries into as few messages as hold them, in order.
///
/// # Errors
///
/// The first entry of two address families; then there is no message.
pub fn encode(id: u8, entries: &[Entry]) -> Result<Vec<BytesMut>, MixedFamilies> {
    let mut messages = Vec::new();
    let mut body = BytesMut::new();
    let mut count = 0;
    for entry in entries {
        let written = entry.encode()?;
        if HEADER + body.len() + written.len() > MAX_MESSAGE {
            messages.push(finish(id, count, &body));
            body.clear();
            count = 0;
        }
        body.extend_from_slice(&written);
        count += 1;
    }
    if count > 0 {
        messages.push(finish(id, count, &body));
    }
    Ok(messages)
}

/// A message is shorter than 64 KiB, and holds fewer than 256 entries: see [`MAX_MESSAGE`].
fn finish(id: u8, count: u8, body: &[u8]) -> BytesMut {
    let mut message = BytesMut::with_capacity(HEADER + body.len());
    // Where version 0 has the number of entries: a daemon of that version sees none.
    message.put_u8(0);
    message.put_u8(id);
    message.put_u16((HEADER + body.len()) as u16);
    message.put_u8(count);
    message.put_u8(VERSION);
    message.put_u16(0);
    message.put_slice(body);
    message
}

impl Message {
    /// Reads a message as the kernel does (`ip_vs_process_message`). Optional parameters of an entry
    /// (sequence numbers, persistence engine) are skipped.
    ///
    /// # Errors
    ///
    /// What the kernel would not take either.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut header, mut rest) = bytes.split_at_checked(HEADER).ok_or(DecodeError::CutOff)?;
        let (reserved, id, size) = (header.get_u8(), header.get_u8(), header.get_u16());
        let (count, version, spare) = (header.get_u8(), header.get_u8(), header.get_u16());
        if (reserved, version, spare) != (0, VERSION, 0) || usize::from(size) != bytes.len() {
            return Err(DecodeError::Header);
        }
        let mut entries = Vec::with_capacity(count.into());
        for _ in 0..count {
            let ver_size = rest.get(2..4).ok_or(DecodeError::CutOff)?.get_u16();
            if ver_size & !SIZE_MASK != 0 {
                return Err(DecodeError::Entry);
            }
            let size = usize::from(ver_size);
            entries.push(Entry::decode(rest.get(..size).ok_or(DecodeError::CutOff)?)?);
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(Self { id, entries })
    }
}

impl Entry {
    fn encode(&self) -> Result<BytesMut, MixedFamilies> {
        let Self { client, frontend, destination, .. } = *self;
        let ends = [client, frontend, destination];
        let ipv6 = client.is_ipv6();
        if ends.iter().any(|end| end.is_ipv6() != ipv6) {
            return Err(MixedFamilies { client, frontend, destination });
        }
        let (kind, size) = if ipv6 { (TYPE_IPV6, ENTRY_V6) } else { (0, ENTRY_V4) };
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_u8(kind);
        bytes.put_u8(self.protocol);
        bytes.put_u16(size as u16);
        bytes.put_u32(self.flags);
        bytes.put_u16(self.state);
        ends.iter().for_each(|end| bytes.put_u16(end.port()));
        bytes.put_u32(self.fwmark);
        bytes.put_u32(self.timeout_secs);
        for end in ends {
            match end.ip() {
                IpAddr::V4(addr) => bytes.put_slice(&addr.octets()),
                IpAddr::V6(addr) => bytes.put_slice(&addr.octets()),
            }
        }
        Ok(bytes)
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let (ipv6, size) = match bytes.first() {
            Some(0) => (false, ENTRY_V4),
            Some(kind) if kind & TYPE_IPV6 != 0 => (true, ENTRY_V6),
            _ => return Err(DecodeError::Entry),
        };
        if bytes.len() < size {
            return Err(DecodeError::CutOff);
        }
        bytes.advance(1);
        let protocol = bytes.get_u8();
        bytes.advance(2);
        let (flags, state) = (bytes.get_u32(), bytes.get_u16());
        let ports = [bytes.get_u16(), bytes.get_u16(), bytes.get_u16()];
        let (fwmark, timeout_secs) = (bytes.get_u32(), bytes.get_u32());
        let [client, frontend, destination] = ports.map(|port| {
            let addr = match ipv6 {
                false => IpAddr::V4(Ipv4Addr::from_bits(bytes.get_u32())),
                true => IpAddr::V6(Ipv6Addr::from_bits(bytes.get_u128())),
            };
            SocketAddr::new(addr, port)
        });
        Ok(Self { protocol, flags, state, client, frontend, destination, fwmark, timeout_secs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let ends = prop_oneof![
            any::<[Ipv4Addr; 3]>().prop_map(|ends| ends.map(IpAddr::V4)),
            any::<[Ipv6Addr; 3]>().prop_map(|ends| ends.map(IpAddr::V6)),
        ];
        let numbers = any::<(u8, u32, u16, u32, u32)>();
        (ends, any::<[u16; 3]>(), numbers).prop_map(|(addrs, ports, numbers)| {
            let (protocol, flags, state, fwmark, timeout_secs) = numbers;
            let end = |index: usize| SocketAddr::new(addrs[index], ports[index]);
            let (client, frontend, destination) = (end(0), end(1), end(2));
            Entry { protocol, flags, state, client, frontend, destination, fwmark, timeout_secs }
        })
    }

    const SSH: Entry = Entry {
        protocol: 6,
        flags: 0x83,
        state: 1,
        client: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9)), 40_000),
        frontend: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)), 22),
        destination: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, 0, 5)), 22),
        fwmark: 0,
        timeout_secs: 900,
    };

    #[test]
    fn an_entry_is_laid_out_as_the_kernels_structure() {
        let expected = [
            "0007002c01010000", // header: reserved, id, size, count, version, spare
            "0006002400000083", // type, protocol, version and size, flags
            "00019c4000160016", // state, three ports
            "0000000000000384", // mark, timeout
            "c6336409cb0071010a010005",
        ];
        let messages = encode(7, &[SSH]).unwrap();
        let [message] = messages.as_slice() else { panic!("{messages:?}") };
        let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.concat());
    }

    /// As masters of Linux 6.1 and 6.12 sent them, with each connection twice: of TCP by DR, and of UDP
    /// over IPv6 by IP in IP. `ipvsadm --start-daemon master --syncid 77`, `sync_threshold` "0 1".
    const OF_A_MASTER: [&str; 2] = [
        "004d0050020100000006002400000083\
         00019c40003500350000000000000384c6336409cb0071010a010005\
         000600240000008300019c40003500350000000000000384c6336409cb0071010a010005",
        "004d009802010000011100480000018200009c4700350035000000000000012c\
         20010db8000c0000000000000000000920010db8000f00000000000000000001\
         fd000001000000000000000000000005\
         011100480000018200009c4700350035000000000000012c\
         20010db8000c0000000000000000000920010db8000f00000000000000000001\
         fd000001000000000000000000000005",
    ];

    #[test]
    fn messages_of_a_real_master_are_read_and_written_alike() {
        for hex in OF_A_MASTER {
            let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            let bytes: BytesMut =
                digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
            let message = Message::decode(&bytes).unwrap();
            assert_eq!((message.id, message.entries.len()), (77, 2));
            assert!(message.entries.iter().all(|entry| entry.frontend.port() == 53));
            assert_eq!(encode(77, &message.entries).unwrap(), [bytes]);
        }
    }

    #[test]
    fn many_entries_are_spread_over_datagrams_that_fit() {
        let messages = encode(1, &[SSH; 100]).unwrap();
        let counts: Vec<_> =
            messages.iter().map(|each| Message::decode(each).unwrap().entries.len()).collect();
        assert_eq!(counts, [38, 38, 24]);
        assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE));
        assert!(encode(1, &[]).unwrap().is_empty());
    }

    #[test]
    fn a_destination_of_another_family_is_refused() {
        let destination = "[fd00::5]:22".parse().unwrap();
        let error = encode(1, &[SSH, Entry { destination, ..SSH }]).unwrap_err();
        assert_eq!(error.destination, destination);
    }

    #[test]
    fn what_the_kernel_would_not_take_is_no_message() {
        let message = encode(1, &[SSH]).unwrap().remove(0);
        let with = |place: usize, byte| {
            let mut changed = message.clone();
            changed[place] = byte;
            Message::decode(&changed)
        };
        assert_eq!(with(0, 1), Err(DecodeError::Header), "version 0");
        assert_eq!(with(5, 2), Err(DecodeError::Header), "version");
        assert_eq!(with(4, 2), Err(DecodeError::CutOff), "count");
        assert_eq!(with(8, 2), Err(DecodeError::Entry), "type");
        assert_eq!(with(10, 0x10), Err(DecodeError::Entry), "version of the entry");
        assert_eq!(Message::decode(&message[..40]), Err(DecodeError::Header));
    }

    proptest! {
        #[test]
        fn entries_survive_encode_and_decode(
            id: u8,
            sent in prop::collection::vec(entries(), 0..90),
        ) {
            let messages = encode(id, &sent).unwrap();
            let mut received = Vec::new();
            for message in messages {
                prop_assert!(message.len() <= MAX_MESSAGE);
                let Message { id: found, entries } = Message::decode(&message).unwrap();
                prop_assert_eq!(found, id);
                received.extend(entries);
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200),
            header: bool,
        ) {
            if header && bytes.len() >= HEADER {
                let size = (bytes.len() as u16).to_be_bytes();
                bytes[..HEADER].copy_from_slice(&[0, 1, size[0], size[1], 3, 1, 0, 0]);
            }
            let _ = Message::decode(&bytes);
        }
    }
}
