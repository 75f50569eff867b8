//! Settings of IPVS in one network namespace: timeouts, version, table size.

use std::fmt;

use bytes::BytesMut;

use super::attribute::{Attributes, DecodeError, info, put_u32, top};

/// The timeouts that IPVS lets one set (`ip_vs_set_timeout`). In a set, 0 leaves one as it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// Established TCP, in seconds.
    pub tcp_secs: u32,
    /// TCP after a FIN, in seconds.
    pub tcp_fin_secs: u32,
    /// UDP, in seconds.
    pub udp_secs: u32,
}

/// What IPVS says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    /// Version.
    pub version: Version,
    /// Buckets of the connection table: module parameter `conn_tab_bits`.
    pub connection_table_size: u32,
}

/// The version of IPVS, such as 1.2.1: the same in every current kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub patch: u8,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Appends the attributes of SET_CONFIG.
pub fn encode_timeouts(buffer: &mut BytesMut, timeouts: &Timeouts) {
    put_u32(buffer, top::TIMEOUT_TCP, timeouts.tcp_secs);
    put_u32(buffer, top::TIMEOUT_TCP_FIN, timeouts.tcp_fin_secs);
    put_u32(buffer, top::TIMEOUT_UDP, timeouts.udp_secs);
}

/// Reads a GET_CONFIG reply without its headers.
pub fn decode_timeouts(message: &[u8]) -> Result<Timeouts, DecodeError> {
    let message = Attributes::parse("timeouts", message)?;
    Ok(Timeouts {
        tcp_secs: message.u32(top::TIMEOUT_TCP)?,
        tcp_fin_secs: message.u32(top::TIMEOUT_TCP_FIN)?,
        udp_secs: message.u32(top::TIMEOUT_UDP)?,
    })
}

/// Reads a GET_INFO reply without its headers.
pub fn decode_info(message: &[u8]) -> Result<Info, DecodeError> {
    let message = Attributes::parse("info", message)?;
    let [_, major, minor, patch] = message.u32(info::VERSION)?.to_be_bytes();
    Ok(Info {
        version: Version { major, minor, patch },
        connection_table_size: message.u32(info::CONN_TAB_SIZE)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn timeouts_survive_encode_and_decode(tcp_secs: u32, tcp_fin_secs: u32, udp_secs: u32) {
            let timeouts = Timeouts { tcp_secs, tcp_fin_secs, udp_secs };
            let mut message = BytesMut::new();
            encode_timeouts(&mut message, &timeouts);
            prop_assert_eq!(decode_timeouts(&message), Ok(timeouts));
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_set_is_what_the_kernels_policy_wants() {
        // IPVS_CMD_ATTR_TIMEOUT_TCP, _TCP_FIN and _UDP are 4, 5 and 6 of linux/ip_vs.h, each an
        // NLA_U32: length 8, type, value.
        let mut message = BytesMut::new();
        let timeouts = Timeouts { tcp_secs: 7200, tcp_fin_secs: 0, udp_secs: 300 };
        encode_timeouts(&mut message, &timeouts);
        let expected = [
            [8, 0, 4, 0, 0x20, 0x1c, 0, 0],
            [8, 0, 5, 0, 0, 0, 0, 0],
            [8, 0, 6, 0, 0x2c, 0x01, 0, 0],
        ];
        assert_eq!(message, expected.concat().as_slice());
    }

    #[test]
    fn a_version_prints_as_ipvsadm_prints_it() {
        let mut message = BytesMut::new();
        put_u32(&mut message, info::VERSION, 0x01_02_01);
        put_u32(&mut message, info::CONN_TAB_SIZE, 4096);
        assert_eq!(decode_info(&message).unwrap().version.to_string(), "1.2.1");
    }
}
