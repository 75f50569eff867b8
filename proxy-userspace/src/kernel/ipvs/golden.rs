//! Replies of real kernels, decoded. The bytes are little-endian.
#![cfg(target_endian = "little")]

use bytes::BytesMut;
use proptest::prelude::*;

use super::{
    info::{self, Timeouts},
    message::{decode_destinations, decode_virtual_servers},
};
use crate::model::{Forwarding, Frontend, Protocol, Scheduler, SchedulerFlags, Thresholds};

const KERNELS: [&str; 2] =
    [include_str!("golden/linux-6.1.hex"), include_str!("golden/linux-6.12.hex")];

/// Returns the messages of one section.
fn section(file: &str, name: &str) -> Vec<BytesMut> {
    let start = format!("[{name}]");
    file.lines()
        .skip_while(|line| *line != start)
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let digits = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
        })
        .collect()
}

fn frontend(addr: &str, port: u16, protocol: Protocol) -> Frontend {
    Frontend { addr: addr.parse().unwrap(), port, protocol }
}

#[test]
fn virtual_servers_of_real_kernels_are_read() {
    for file in KERNELS {
        let mut states = decode_virtual_servers(&section(file, "services")).unwrap();
        states.sort_by_key(|state| state.virtual_server.frontend);
        let [web, dns, six] = states.as_slice() else { panic!("{states:?}") };
        assert_eq!(web.virtual_server.frontend, frontend("10.96.0.1", 443, Protocol::Tcp));
        assert_eq!(web.virtual_server.scheduler, Scheduler::Mh);
        assert_eq!(web.virtual_server.flags, SchedulerFlags(0x18));
        assert_eq!(web.virtual_server.persistent_secs, 10800);
        assert_eq!(dns.virtual_server.frontend, frontend("10.96.0.10", 53, Protocol::Udp));
        assert_eq!(dns.virtual_server.persistent_secs, 0);
        assert_eq!(dns.stats.connections, 1);
        assert_eq!(dns.stats.in_packets, 3);
        // 20 bytes of IPv4 and 8 of UDP each.
        assert_eq!(dns.stats.in_bytes, 3 * 28 + 10 + 11 + 12);
        assert_eq!(six.virtual_server.frontend, frontend("fd00:96::1", 80, Protocol::Tcp));
        assert_eq!(six.virtual_server.scheduler, Scheduler::Wlc);
    }
}

#[test]
fn destinations_of_real_kernels_are_read() {
    for file in KERNELS {
        let dns = frontend("10.96.0.10", 53, Protocol::Udp);
        let states = decode_destinations(&section(file, "destinations_v4"), &dns).unwrap();
        let [drained, live] = states.as_slice() else { panic!("{states:?}") };
        assert_eq!(drained.destination.key.to_string(), "10.1.0.6:53");
        assert_eq!(drained.destination.weight, 0);
        assert_eq!(live.destination.key.to_string(), "10.1.0.5:53");
        assert_eq!(live.destination.weight, 3);
        assert_eq!(live.destination.forwarding, Forwarding::Masq);
        assert_eq!(live.destination.limits, Thresholds { upper: 100, lower: 50 });
        assert_eq!((live.active_connections, live.inactive_connections), (0, 1));
        assert_eq!(live.stats.in_packets, 3);
        let six = frontend("fd00:96::1", 80, Protocol::Tcp);
        let states = decode_destinations(&section(file, "destinations_v6"), &six).unwrap();
        assert_eq!(states[0].destination.key.to_string(), "[fd00:1::5]:8080");
        assert_eq!(states[0].destination.weight, 7);
    }
}

#[test]
fn settings_of_real_kernels_are_read() {
    for file in KERNELS {
        let timeouts = info::decode_timeouts(&section(file, "timeouts")[0]).unwrap();
        assert_eq!(timeouts, Timeouts { tcp_secs: 900, tcp_fin_secs: 120, udp_secs: 300 });
        let info = info::decode_info(&section(file, "info")[0]).unwrap();
        assert_eq!(info.version.to_string(), "1.2.1");
        assert_eq!(info.connection_table_size, 4096);
    }
}

proptest! {
    #[test]
    fn a_damaged_reply_never_panics(
        line in 0..3usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
    ) {
        let mut message = section(KERNELS[1], "services")[line].clone();
        for (place, byte) in damage {
            let place = place.index(message.len());
            message[place] = byte;
        }
        message.truncate(cut.index(message.len()) + 1);
        let _ = decode_virtual_servers(&[message]);
    }
}
