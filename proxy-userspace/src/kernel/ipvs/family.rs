//! The generic netlink side of IPVS: the family's number, and messages as raw attributes.

use bytes::BytesMut;
use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_proto::sys::protocols::NETLINK_GENERIC;
use rustix::io::Errno;

use super::error::{Error, Operation};
use crate::kernel::netlink;

/// `IPVS_GENL_NAME`.
const NAME: &str = "IPVS";
/// `IPVS_GENL_VERSION`.
const VERSION: u8 = 1;

/// A message of the family with its attributes unread.
///
/// Reading them is the caller's, so that an unreadable reply is an error there: netlink-proto drops
/// messages that do not parse.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    /// `IPVS_CMD_*`.
    pub(super) command: u8,
    /// What follows the generic netlink header.
    pub(super) attributes: BytesMut,
}

impl GenlFamily for Raw {
    fn family_name() -> &'static str {
        NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        VERSION
    }
}

impl Emitable for Raw {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Raw {
    fn parse_with_param(bytes: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, attributes: BytesMut::from(bytes) })
    }
}

/// Returns the number of the family. The kernel loads module `ip_vs` for the question when it can
/// (`ctrl_getfamily`).
pub(super) async fn resolve() -> Result<u16, Error> {
    let operation = Operation::ResolveFamily;
    let handle = netlink::open(NETLINK_GENERIC).map_err(Error::Open)?;
    let request = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(NAME.to_owned())],
    });
    let families = netlink::ask(&handle, netlink::read(request))
        .await
        .map_err(|cause| Error::Netlink { operation, cause })?
        .map_err(|errno| match errno {
            Errno::NOENT => Error::IpvsMissing,
            errno => Error::refused(operation, errno),
        })?;
    let attributes = families.iter().flat_map(|family| &family.payload.nlas);
    attributes
        .filter_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(number) => Some(*number),
            _ => None,
        })
        .next()
        .ok_or(Error::Empty { operation })
}
