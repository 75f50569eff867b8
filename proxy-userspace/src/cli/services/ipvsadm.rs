//! The lists that `ipvsadm -Ln` prints (ipvsadm 1.31), byte for byte, also with `--stats` and
//! `--rate`; there the numbers are those of both planes.

use std::net::IpAddr;

use super::forwarding;
use crate::{
    audit::traffic::{FastTraffic, Traffic},
    kernel::ipvs::{DestinationState, Info, Stats, VirtualServerState},
    model::{Scheduler, SchedulerFlags},
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
pub(super) fn numbers(
    info: &Info,
    servers: &mut [(VirtualServerState, Vec<DestinationState>)],
    fast: &Fast,
) -> String {
    sort(servers);
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n",
        info.version, info.connection_table_size
    );
    let header: String = fast.header().iter().map(|name| format!(" {name:>8}")).collect();
    text += &format!("{:<33}{header}\n  -> RemoteAddress:Port\n", "Prot LocalAddress:Port");
    for (server, destinations) in servers {
        let frontend = server.virtual_server.frontend;
        let numbers = fast.numbers(&server.stats, |fast| fast.frontend(&frontend));
        let name = format!("{}  {}", frontend.protocol, address(frontend.addr, frontend.port));
        text += &format!("{name:<33}{}\n", row(numbers));
        destinations.sort_by_key(|state| (state.destination.key.addr, state.destination.key.port));
        for state in destinations {
            let key = state.destination.key;
            let numbers = fast.numbers(&state.stats, |fast| fast.destination(&frontend, key));
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

fn sort(servers: &mut [(VirtualServerState, Vec<DestinationState>)]) {
    servers.sort_by_key(|(server, _)| {
        let frontend = server.virtual_server.frontend;
        (frontend.addr.is_ipv6(), frontend.protocol.number(), frontend.addr, frontend.port)
    });
}

/// `IP_VS_SVC_F_ONEPACKET` of `linux/ip_vs.h`.
const ONE_PACKET: u32 = 0x04;

/// Returns the list, sorted as ipvsadm sorts.
pub(super) fn list(
    info: &Info,
    servers: &mut [(VirtualServerState, Vec<DestinationState>)],
) -> String {
    sort(servers);
    let mut text = format!(
        "IP Virtual Server version {} (size={})\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n",
        info.version, info.connection_table_size
    );
    for (server, destinations) in servers {
        text += &header(server);
        destinations.sort_by_key(|state| (state.destination.key.addr, state.destination.key.port));
        for state in destinations {
            let destination = &state.destination;
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

fn header(state: &VirtualServerState) -> String {
    let server = &state.virtual_server;
    let mut line = format!(
        "{}  {} {}",
        server.frontend.protocol,
        address(server.frontend.addr, server.frontend.port),
        server.scheduler
    );
    if state.flags & ONE_PACKET != 0 {
        line += " ops";
    }
    let names = flag_names(server.scheduler, server.flags);
    if !names.is_empty() {
        line += &format!(" ({})", names.join(","));
    }
    if server.persistent_secs != 0 {
        line += &format!(" persistent {}", server.persistent_secs);
    }
    line + "\n"
}

fn flag_names(scheduler: Scheduler, flags: SchedulerFlags) -> Vec<&'static str> {
    let names = match scheduler {
        Scheduler::Sh => ["sh-fallback", "sh-port", "flag-3"],
        Scheduler::Mh => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    };
    [0x08, 0x10, 0x20]
        .into_iter()
        .zip(names)
        .filter_map(|(bit, name)| (flags.0 & bit != 0).then_some(name))
        .collect()
}

fn address(addr: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(addr, port).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_counter_that_began_anew_has_no_rate() {
        let traffic = |packets| Traffic { in_packets: packets, ..Traffic::default() };
        assert_eq!(per_second(traffic(10), traffic(30), 2).in_packets, 10);
        assert_eq!(per_second(traffic(10), traffic(3), 2).in_packets, 0);
    }
}
