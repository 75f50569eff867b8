//! What IPVS carried in all, of everybody's virtual servers.

use std::{fs, io};

/// One line of sums, in hexadecimal.
const PATH: &str = "/proc/thread-self/net/ip_vs_stats";

/// Sums since the network namespace has IPVS, as the kernel's estimator last wrote them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients.
    pub in_bytes: u64,
    /// Bytes to clients.
    pub out_bytes: u64,
}

impl Totals {
    /// Reads them for the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel has no IPVS, or writes something else.
    pub fn read() -> io::Result<Self> {
        parse(&fs::read_to_string(PATH)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Two lines of headings, the sums, and then rates.
fn parse(text: &str) -> Option<Totals> {
    let mut words = text.lines().nth(2)?.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    Some(Totals {
        connections: number()?,
        in_packets: number()?,
        out_packets: number()?,
        in_bytes: number()?,
        out_bytes: number()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_hexadecimal_and_come_before_the_rates() {
        let text = "   Total Incoming Outgoing         Incoming         Outgoing
   Conns  Packets  Packets            Bytes            Bytes
       A      1F4      1F3             CAFE         100000000

 Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s
       1        2        3                4                5
";
        let expected = Totals {
            connections: 10,
            in_packets: 500,
            out_packets: 499,
            in_bytes: 0xcafe,
            out_bytes: 1 << 32,
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(parse("nothing"), None);
    }
}
