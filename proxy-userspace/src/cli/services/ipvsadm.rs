//! The lists that `ipvsadm -Ln` prints (ipvsadm 1.31), byte for byte, also with `--stats` and
//! `--rate`; there the numbers are those of both planes.

use std::{
    cmp::Ordering,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Listed, forwarding};
use crate::{
    audit::traffic::{FastTraffic, Traffic},
    kernel::ipvs::{
        Info, Stats,
        listing::{Key, ListedServer},
        virtual_server::{FLAG_ONE_PACKET, FLAG_PERSISTENT},
    },
    model::Frontend,
};

/// What the fast path adds.
pub(super) enum Fast {
    /// To the counters.
    Sum(FastTraffic),
    /// To the rates: what came in between, over so many seconds.
    Rate { before: FastTraffic, after: FastTraffic, secs: u64 },
}

impl Fast {
    fn header(&self) -> [&'static str; 5] {
        match self {
            Self::Sum(_) => ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"],
            Self::Rate { .. } => ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"],
        }
    }

    /// Returns the numbers of an object that `traffic` picks.
    fn numbers(&self, stats: &Stats, traffic: impl Fn(&FastTraffic) -> Traffic) -> [u64; 5] {
        let fast = match self {
            Self::Sum(fast) => traffic(fast),
            Self::Rate { before, after, secs } => {
                per_second(traffic(before), traffic(after), *secs)
            }
        };
        let (connections, slow) = match self {
            Self::Sum(_) => (stats.connections, Traffic::from(stats)),
            Self::Rate { .. } => {
                let slow = Traffic {
                    in_packets: stats.in_packets_per_sec,
                    in_bytes: stats.in_bytes_per_sec,
                    out_packets: stats.out_packets_per_sec,
                    out_bytes: stats.out_bytes_per_sec,
                };
                (stats.connections_per_sec, slow)
            }
        };
        let sum = slow + fast;
        [connections, sum.in_packets, sum.out_packets, sum.in_bytes, sum.out_bytes]
    }
}

/// Counters begin anew when a frontend or backend does.
fn per_second(before: Traffic, after: Traffic, secs: u64) -> Traffic {
    let rate = |before: u64, after: u64| after.saturating_sub(before) / secs.max(1);
    Traffic {
        in_packets: rate(before.in_packets, after.in_packets),
        in_bytes: rate(before.in_bytes, after.in_bytes),
        out_packets: rate(before.out_packets, after.out_packets),
        out_bytes: rate(before.out_bytes, after.out_bytes),
    }
}

/// Returns the list of `--stats` or `--rate`.
pub(super) fn numbers(info: &Info, servers: Vec<Listed>, fast: &Fast) -> String {
    let servers = sort(servers);
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n",
        info.version, info.connection_table_size
    );
    let header: String = fast.header().iter().map(|name| format!(" {name:>8}")).collect();
    text += &format!("{:<33}{header}\n  -> RemoteAddress:Port\n", "Prot LocalAddress:Port");
    for (server, destinations) in &servers {
        // The fast path knows no marks.
        let frontend = server.key.frontend();
        let carried = |fast: &FastTraffic| {
            frontend.map(|frontend| fast.frontend(&frontend)).unwrap_or_default()
        };
        let numbers = fast.numbers(&server.stats, carried);
        text += &format!("{:<33}{}\n", name(&server.key), row(numbers));
        for listed in destinations {
            let key = listed.state.destination.key;
            let carried = |fast: &FastTraffic| {
                frontend.map(|frontend| fast.destination(&frontend, key)).unwrap_or_default()
            };
            let numbers = fast.numbers(&listed.state.stats, carried);
            text += &format!("  -> {:<28}{}\n", address(key.addr, key.port), row(numbers));
        }
    }
    text
}

fn row(numbers: [u64; 5]) -> String {
    numbers.into_iter().map(large).collect()
}

/// Nine characters, as ipvsadm shortens large numbers.
fn large(number: u64) -> String {
    match number {
        0..100_000_000 => format!(" {number:>8}"),
        100_000_000..1_000_000_000 => format!("{:>8}K", number / 1000),
        1_000_000_000..100_000_000_000 => format!("{:>8}M", number / 1_000_000),
        100_000_000_000..100_000_000_000_000 => format!("{:>8}G", number / 1_000_000_000),
        _ => format!("{:>8}T", number / 1_000_000_000_000),
    }
}

/// Sorts as ipvsadm sorts: virtual servers by mark are last, those of negative marks first.
pub(super) fn sort(servers: Vec<Listed>) -> Vec<Listed> {
    let mark = |key: &Key| match key {
        Key::Frontend(_) => 0,
        Key::Mark { mark, .. } => *mark,
    };
    let kind = |key: &Key| (key.is_ipv6(), key.frontend().map(|each| each.protocol.number()));
    let mut servers = merge_sort(servers, &|one, two| {
        let (one, two) = (&one.0.key, &two.0.key);
        sign(mark(one).wrapping_sub(mark(two))).then_with(|| kind(one).cmp(&kind(two))).then_with(
            || match (one.frontend(), two.frontend()) {
                (Some(one), Some(two)) => difference((one.addr, one.port), (two.addr, two.port)),
                _ => Ordering::Equal,
            },
        )
    });
    for (_, destinations) in &mut servers {
        *destinations = merge_sort(std::mem::take(destinations), &|one, two| {
            let (first, second) = (one.state.destination.key, two.state.destination.key);
            difference((first.addr, first.port), (second.addr, second.port))
        });
    }
    servers
}

/// The C library takes a difference of words for an int.
fn sign(difference: u32) -> Ordering {
    (difference as i32).cmp(&0)
}

/// ipvsadm takes addresses as words and looks at the sign of their 32-bit difference, so of two that
/// are more than 2^31 apart the larger is first.
fn difference(one: (IpAddr, u16), two: (IpAddr, u16)) -> Ordering {
    let words = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => vec![addr.to_bits()],
        IpAddr::V6(addr) => {
            (0..4).rev().map(|word| (addr.to_bits() >> (32 * word)) as u32).collect()
        }
    };
    let signs = words(one.0).into_iter().zip(words(two.0));
    let first = signs.map(|(one, two)| one.wrapping_sub(two) as i32).find(|sign| *sign != 0);
    first.map_or_else(|| one.1.cmp(&two.1), |sign| sign.cmp(&0))
}

/// Sorts as the C library does: that comparison is no order, so the way to sort shows.
fn merge_sort<T>(mut items: Vec<T>, compare: &impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let right = items.split_off(items.len() / 2);
    let mut sorted = Vec::with_capacity(items.len() + right.len());
    let mut left = merge_sort(items, compare).into_iter().peekable();
    let mut right = merge_sort(right, compare).into_iter().peekable();
    while let (Some(one), Some(two)) = (left.peek(), right.peek()) {
        let next = if compare(one, two).is_gt() { right.next() } else { left.next() };
        sorted.extend(next);
    }
    sorted.extend(left.chain(right));
    sorted
}

/// Returns the list, sorted as ipvsadm sorts.
pub(super) fn list(info: &Info, servers: Vec<Listed>) -> String {
    let servers = sort(servers);
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        info.version, info.connection_table_size
    );
    for (server, destinations) in &servers {
        text += &header(server);
        for listed in destinations {
            let (state, destination) = (&listed.state, &listed.state.destination);
            text += &format!(
                "  -> {:<28} {:<7} {:<6} {:<10} {:<10}\n",
                address(destination.key.addr, destination.key.port),
                forwarding(destination.forwarding),
                destination.weight,
                state.active_connections,
                state.inactive_connections
            );
        }
    }
    text
}

fn name(key: &Key) -> String {
    match key {
        Key::Frontend(frontend) => {
            let Frontend { addr, port, protocol } = frontend;
            format!("{:<4} {}", protocol.name(), address(*addr, *port))
        }
        // A mark is an int to ipvsadm.
        Key::Mark { mark, ipv6: false } => format!("FWM  {}", mark.cast_signed()),
        Key::Mark { mark, ipv6: true } => format!("FWM  {} IPv6", mark.cast_signed()),
    }
}

fn header(server: &ListedServer) -> String {
    let mut line = format!("{} {}", name(&server.key), server.scheduler);
    let names = flag_names(&server.scheduler, server.flags);
    if !names.is_empty() {
        line += &format!(" ({})", names.join(","));
    }
    if server.flags & FLAG_PERSISTENT != 0 {
        line += &format!(" persistent {}", server.timeout_secs);
        if let Some(mask) = mask(server) {
            line += &format!(" mask {mask}");
        }
        if !server.engine.is_empty() {
            line += &format!(" pe {}", server.engine);
        }
    }
    if server.flags & FLAG_ONE_PACKET != 0 {
        line += " ops";
    }
    line + "\n"
}

/// Returns the mask of persistence; `None` where each client persists alone.
pub(super) fn mask(server: &ListedServer) -> Option<String> {
    match (server.key.is_ipv6(), server.netmask) {
        (false, u32::MAX) | (true, 128) => None,
        (true, prefix) => Some(prefix.to_string()),
        (false, mask) => Some(Ipv4Addr::from(mask.to_ne_bytes()).to_string()),
    }
}

pub(super) fn flag_names(scheduler: &str, flags: u32) -> Vec<&'static str> {
    let names = match scheduler {
        "sh" => ["sh-fallback", "sh-port", "flag-3"],
        "mh" => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    let named = [0x08, 0x10, 0x20].into_iter().zip(names);
    named.filter_map(|(bit, name)| (flags & bit != 0).then_some(name)).collect()
}

pub(super) fn address(addr: IpAddr, port: u16) -> String {
    SocketAddr::new(addr, port).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Protocol;

    #[test]
    fn large_numbers_are_shortened_as_ipvsadm_does() {
        for (number, expected) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (1_000_000_000, "    1000M"),
            (100_000_000_000, "     100G"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(large(number), expected);
        }
    }

    #[test]
    fn names_are_aligned_and_marks_are_signed() {
        let named = |protocol| {
            name(&Key::Frontend(Frontend { addr: [10, 9, 0, 1].into(), port: 99, protocol }))
        };
        assert_eq!(named(Protocol::Tcp), "TCP  10.9.0.1:99");
        assert_eq!(named(Protocol::Sctp), "SCTP 10.9.0.1:99");
        assert_eq!(name(&Key::Mark { mark: 3, ipv6: true }), "FWM  3 IPv6");
        assert_eq!(name(&Key::Mark { mark: 4_000_000_000, ipv6: false }), "FWM  -294967296");
    }

    #[test]
    fn addresses_are_in_the_order_of_ipvsadm() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let addrs = ["10.96.0.53", "172.20.0.1", "10.96.0.10", "192.0.2.1"].map(addr);
        let addrs = merge_sort(addrs.into(), &|one, two| difference((*one, 80), (*two, 80)));
        assert_eq!(addrs, ["172.20.0.1", "192.0.2.1", "10.96.0.10", "10.96.0.53"].map(addr));
        let ports = vec![(addr("fd00::1"), 81), (addr("fd00::1"), 80), (addr("fd00::"), 90)];
        let ports = merge_sort(ports, &|one, two| difference(*one, *two));
        let ports: Vec<u16> = ports.into_iter().map(|(_, port)| port).collect();
        assert_eq!(ports, [90, 80, 81]);
    }

    proptest! {
        #[test]
        fn what_has_an_order_is_sorted_by_it_and_nothing_changes_places_without_need(
            items in prop::collection::vec((0..9_u8, 0..1000_u16), 0..60),
        ) {
            let mut theirs = items.clone();
            let ours = merge_sort(items, &|one, two| one.0.cmp(&two.0));
            theirs.sort_by_key(|item| item.0);
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_counter_that_began_anew_has_no_rate() {
        let traffic = |packets| Traffic { in_packets: packets, ..Traffic::default() };
        assert_eq!(per_second(traffic(10), traffic(30), 2).in_packets, 10);
        assert_eq!(per_second(traffic(10), traffic(3), 2).in_packets, 0);
    }
}
