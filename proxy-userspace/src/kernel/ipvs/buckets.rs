//! The size of the connection table, from `/proc/net/ip_vs_status`.
//!
//! From Linux 7.1 on the table grows and shrinks with its connections, and `/proc/net/ip_vs_conn` lists
//! one table only (`ip_vs_conn_array`, `net/netfilter/ipvs/ip_vs_conn.c`): while connections are moved to
//! another one, those that were moved are not listed. Before that the table has one size for ever.

use std::{fs, io};

/// The file of the calling thread's network namespace.
const PATH: &str = "/proc/thread-self/net/ip_vs_status";

/// Buckets of the connection table, none where the table has one size.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Buckets {
    /// Of the table that is listed.
    size: u64,
    /// By how full they are, of all tables; none are counted without a connection.
    counted: u64,
}

impl Buckets {
    /// Reads what the kernel says now.
    pub(super) fn read() -> io::Result<Self> {
        match fs::read_to_string(PATH) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Says whether there was one table and the same at both times, and so in between.
    pub(super) fn stayed(&self, later: &Self) -> bool {
        self.size == later.size && [self, later].iter().all(|each| each.is_one_table())
    }

    fn is_one_table(&self) -> bool {
        self.counted == 0 || self.counted == self.size
    }

    fn parse(text: &str) -> Self {
        let mut buckets = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let number = || value.split_whitespace().next()?.parse::<u64>().ok();
            match key.strip_prefix("Conn buckets") {
                Some("") => buckets.size = number().unwrap_or_default(),
                Some(_) => buckets.counted += number().unwrap_or_default(),
                None => {}
            }
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 7.2 prints it.
    const SETTLED: &str = "\
Conns:\t117
Conn buckets:\t512 (9 bits, lfactor -2)
Conn buckets empty:\t332 (64%)
Conn buckets len-1:\t139 (77%)
Conn buckets len-2:\t36 (20%)
Conn buckets len-3:\t5 (2%)
Services:\t1
Service buckets:\t16 (4 bits, lfactor -2)
Service buckets empty:\t15 (93%)
Service buckets len-1:\t1 (100%)
Stats thread slots:\t1 (max 8)
";

    #[test]
    fn a_table_that_nothing_is_moved_from_stays() {
        let buckets = Buckets::parse(SETTLED);
        assert_eq!(buckets, Buckets { size: 512, counted: 512 });
        assert!(buckets.stayed(&buckets));
    }

    #[test]
    fn a_table_beside_the_next_one_does_not_stay() {
        let settled = Buckets::parse(SETTLED);
        let moving = Buckets { counted: 512 + 1024, ..settled };
        assert!(!settled.stayed(&moving) && !moving.stayed(&settled) && !moving.stayed(&moving));
    }

    #[test]
    fn a_table_that_has_grown_in_between_has_not_stayed() {
        let grown = Buckets { size: 1024, counted: 1024 };
        assert!(!Buckets::parse(SETTLED).stayed(&grown));
    }

    #[test]
    fn a_table_without_connections_or_of_one_size_stays() {
        let empty = Buckets::parse("Conns:\t0\nConn buckets:\t256 (8 bits, lfactor -2)\n");
        assert!(empty.stayed(&Buckets { size: 256, counted: 256 }));
        assert!(Buckets::default().stayed(&Buckets::default()));
    }
}
