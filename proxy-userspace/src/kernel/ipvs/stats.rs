//! Counters of a virtual server or destination.

use super::attribute::{Attributes, DecodeError};

/// `IPVS_STATS_ATTR_*`, in the order of the kernel's enum from 1.
mod number {
    pub(super) const CONNS: u16 = 1;
    pub(super) const IN_PKTS: u16 = 2;
    pub(super) const OUT_PKTS: u16 = 3;
    pub(super) const IN_BYTES: u16 = 4;
    pub(super) const OUT_BYTES: u16 = 5;
    pub(super) const CPS: u16 = 6;
    pub(super) const IN_PPS: u16 = 7;
    pub(super) const OUT_PPS: u16 = 8;
    pub(super) const IN_BPS: u16 = 9;
    pub(super) const OUT_BPS: u16 = 10;
}

/// Counters since creation and rates, as the kernel's estimator last wrote them: up to 2 s old,
/// and without the packets of the fast path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients, IP header included.
    pub in_bytes: u64,
    /// Bytes to clients, IP header included.
    pub out_bytes: u64,
    /// Connections scheduled per second.
    pub connections_per_sec: u64,
    /// Packets from clients per second.
    pub in_packets_per_sec: u64,
    /// Packets to clients per second.
    pub out_packets_per_sec: u64,
    /// Bytes from clients per second.
    pub in_bytes_per_sec: u64,
    /// Bytes to clients per second.
    pub out_bytes_per_sec: u64,
}

/// Reads the 64-bit nest, or the 32-bit nest of kernels before 4.1, or zeroes when neither is
/// there (`ip_vs_genl_fill_stats64`, `ip_vs_genl_fill_stats`).
pub fn decode(object: &Attributes<'_>, stats64: u16, stats: u16) -> Result<Stats, DecodeError> {
    if let Some(bytes) = object.optional(stats64) {
        let nest = Attributes::parse("64-bit statistics", bytes)?;
        return read(|attribute| nest.u64(attribute));
    }
    let Some(bytes) = object.optional(stats) else { return Ok(Stats::default()) };
    let nest = Attributes::parse("32-bit statistics", bytes)?;
    read(|attribute| match attribute {
        // Byte counters are 64 bits wide in the old nest too.
        number::IN_BYTES | number::OUT_BYTES => nest.u64(attribute),
        _ => nest.u32(attribute).map(u64::from),
    })
}

fn read(value: impl Fn(u16) -> Result<u64, DecodeError>) -> Result<Stats, DecodeError> {
    Ok(Stats {
        connections: value(number::CONNS)?,
        in_packets: value(number::IN_PKTS)?,
        out_packets: value(number::OUT_PKTS)?,
        in_bytes: value(number::IN_BYTES)?,
        out_bytes: value(number::OUT_BYTES)?,
        connections_per_sec: value(number::CPS)?,
        in_packets_per_sec: value(number::IN_PPS)?,
        out_packets_per_sec: value(number::OUT_PPS)?,
        in_bytes_per_sec: value(number::IN_BPS)?,
        out_bytes_per_sec: value(number::OUT_BPS)?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{
        super::attribute::{put, put_nest, put_u32, svc},
        *,
    };

    fn old_kernel_nest() -> BytesMut {
        let mut object = BytesMut::new();
        put_nest(&mut object, svc::STATS, |nest| {
            for attribute in 1..=10 {
                match attribute {
                    4 | 5 => put(nest, attribute, &(u64::from(attribute) << 33).to_ne_bytes()),
                    _ => put_u32(nest, attribute, attribute.into()),
                }
            }
        });
        object
    }

    #[test]
    fn the_32_bit_nest_is_read_when_there_is_no_64_bit_nest() {
        let object = old_kernel_nest();
        let attributes = Attributes::parse("virtual server", &object).unwrap();
        let stats = decode(&attributes, svc::STATS64, svc::STATS).unwrap();
        assert_eq!(stats.connections, 1);
        assert_eq!(stats.in_bytes, 4 << 33);
        assert_eq!(stats.out_bytes_per_sec, 10);
    }

    #[test]
    fn the_64_bit_nest_wins() {
        let mut object = old_kernel_nest();
        put_nest(&mut object, svc::STATS64, |nest| {
            for attribute in 1..=10u16 {
                put(nest, attribute, &(u64::from(attribute) << 40).to_ne_bytes());
            }
        });
        let attributes = Attributes::parse("virtual server", &object).unwrap();
        let stats = decode(&attributes, svc::STATS64, svc::STATS).unwrap();
        assert_eq!(stats.connections, 1 << 40);
    }

    #[test]
    fn no_nest_means_zero() {
        let attributes = Attributes::parse("virtual server", &[]).unwrap();
        assert_eq!(decode(&attributes, svc::STATS64, svc::STATS), Ok(Stats::default()));
    }
}
