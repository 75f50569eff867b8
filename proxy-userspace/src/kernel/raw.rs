//! Netlink messages with their bytes unread. No I/O.
//!
//! The typed messages know many attributes in full, and a reply that they cannot read is dropped:
//! where foreign objects are looked for, that would hide one.

use std::convert::Infallible;

use bytes::BytesMut;
use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkSerializable, NlasIterator,
};

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) message_type: u16,
    pub(super) bytes: BytesMut,
}

impl Raw {
    /// Returns the value of an attribute behind a header of so many bytes.
    pub(super) fn attribute(&self, header: usize, wanted: u16) -> Option<&[u8]> {
        find(self.bytes.get(header..)?, wanted)
    }
}

/// Returns all attributes that can be read: kind and value.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|attribute| {
        let end = usize::from(attribute.length()).max(HEADER);
        (attribute.kind(), attribute.into_inner().get(HEADER..end).unwrap_or_default())
    })
}

/// Bytes before the value of an attribute.
const HEADER: usize = 4;

/// Returns the value of the first attribute of a kind.
pub(super) fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// Returns a text that ends where its first zero is.
pub(super) fn text(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

impl NetlinkSerializable for Raw {
    fn message_type(&self) -> u16 {
        self.message_type
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl NetlinkDeserializable for Raw {
    type Error = Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Infallible> {
        Ok(Self { message_type: header.message_type, bytes: BytesMut::from(payload) })
    }
}
