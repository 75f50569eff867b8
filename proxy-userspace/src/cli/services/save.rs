//! The commands that `ipvsadm -Sn` prints (ipvsadm 1.31), byte for byte. Connection thresholds are
//! not among them, as they are not there.

use super::{
    Listed,
    ipvsadm::{address, flag_names, mask, sort},
};
use crate::{
    kernel::ipvs::{
        listing::{Key, ListedDestination, ListedServer},
        virtual_server::{FLAG_ONE_PACKET, FLAG_PERSISTENT},
    },
    model::{Forwarding, Protocol, Tunnel},
};

/// Returns a line for each virtual server and each destination.
pub(super) fn list(servers: Vec<Listed>) -> String {
    let mut text = String::new();
    for (server, destinations) in sort(servers) {
        let name = name(&server.key);
        text += &format!("-A {name} {}\n", options(&server));
        for destination in &destinations {
            text += &format!("-a {name} {}\n", target(destination));
        }
    }
    text
}

fn name(key: &Key) -> String {
    match key {
        Key::Frontend(frontend) => {
            let option = match frontend.protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", address(frontend.addr, frontend.port))
        }
        // A mark is an int to ipvsadm.
        Key::Mark { mark, ipv6: false } => format!("-f {}", mark.cast_signed()),
        Key::Mark { mark, ipv6: true } => format!("-f {} -6", mark.cast_signed()),
    }
}

fn options(server: &ListedServer) -> String {
    let mut text = format!("-s {}", server.scheduler);
    if server.flags & FLAG_PERSISTENT != 0 {
        text += &format!(" -p {}", server.timeout_secs);
        if let Some(mask) = mask(server) {
            text += &format!(" -M {mask}");
        }
        if !server.engine.is_empty() {
            text += &format!(" --pe {}", server.engine);
        }
    }
    if server.flags & FLAG_ONE_PACKET != 0 {
        text += " -o";
    }
    let flags = flag_names(&server.scheduler, server.flags);
    if !flags.is_empty() {
        text += &format!(" -b {}", flags.join(","));
    }
    text
}

fn target(listed: &ListedDestination) -> String {
    let destination = &listed.state.destination;
    let (method, tunnel) = match destination.forwarding {
        Forwarding::Masq => ("-m", String::new()),
        Forwarding::Local | Forwarding::Route => ("-g", String::new()),
        Forwarding::Tunnel(tunnel) => ("-i", options_of(tunnel, listed.tunnel_flags)),
    };
    let name = address(destination.key.addr, destination.key.port);
    format!("-r {name} {method} -w {}{tunnel}", destination.weight)
}

fn options_of(tunnel: Tunnel, flags: u16) -> String {
    let checksum = match flags {
        0 => "--tun-nocsum",
        1 => "--tun-csum",
        _ => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => " --tun-type ipip".to_owned(),
        Tunnel::Gue { port } => format!(" --tun-type gue --tun-port {port} {checksum}"),
        Tunnel::Gre => format!(" --tun-type gre {checksum}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernel::ipvs::{DestinationState, Stats},
        model::{Destination, DestinationKey, Frontend, Thresholds},
    };

    fn server(key: Key, scheduler: &str, flags: u32) -> ListedServer {
        ListedServer {
            key,
            scheduler: scheduler.into(),
            flags,
            timeout_secs: 300,
            netmask: u32::from_ne_bytes([255, 255, 255, 0]),
            engine: String::new(),
            stats: Stats::default(),
        }
    }

    fn destination(forwarding: Forwarding, tunnel_flags: u16) -> ListedDestination {
        let key = DestinationKey { addr: [10, 9, 1, 4].into(), port: 80 };
        let limits = Thresholds { upper: 10, lower: 5 };
        ListedDestination {
            state: DestinationState {
                destination: Destination { limits, key, weight: 1, forwarding },
                active_connections: 0,
                inactive_connections: 0,
                persistent_connections: 0,
                stats: Stats::default(),
            },
            tunnel_flags,
        }
    }

    // The lines expected are what ipvsadm 1.31 printed of the same state.

    #[test]
    fn virtual_servers_are_printed_with_all_their_options() {
        let frontend = |last, port, protocol| {
            Key::Frontend(Frontend { addr: [10, 9, 0, last].into(), port, protocol })
        };
        let sh = server(frontend(2, 81, Protocol::Tcp), "sh", 0x1b);
        assert_eq!(
            list(vec![(sh, Vec::new())]),
            "-A -t 10.9.0.2:81 -s sh -p 300 -M 255.255.255.0 -b sh-fallback,sh-port\n"
        );
        let sip = server(frontend(3, 5060, Protocol::Udp), "wlc", 0x07);
        let sip = ListedServer { engine: "sip".into(), ..sip };
        assert_eq!(
            list(vec![(sip, Vec::new())]),
            "-A -u 10.9.0.3:5060 -s wlc -p 300 -M 255.255.255.0 --pe sip -o\n"
        );
        let sctp = server(frontend(1, 99, Protocol::Sctp), "lc", 0x02);
        assert_eq!(list(vec![(sctp, Vec::new())]), "-A --sctp-service 10.9.0.1:99 -s lc\n");
    }

    #[test]
    fn marks_are_signed_and_the_negative_come_first() {
        let mark = |mark, ipv6| (server(Key::Mark { mark, ipv6 }, "rr", 0x02), Vec::new());
        let expected = "-A -f -294967296 -s rr\n-A -f 3 -6 -s rr\n-A -f 7 -s rr\n";
        assert_eq!(list(vec![mark(7, false), mark(4_000_000_000, false), mark(3, true)]), expected);
    }

    #[test]
    fn a_tunnel_is_printed_with_its_kind_port_and_checksum() {
        let of = |tunnel, flags| target(&destination(Forwarding::Tunnel(tunnel), flags));
        assert_eq!(of(Tunnel::Ipip, 0), "-r 10.9.1.4:80 -i -w 1 --tun-type ipip");
        assert_eq!(
            of(Tunnel::Gue { port: 6080 }, 0),
            "-r 10.9.1.4:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-nocsum"
        );
        assert_eq!(
            of(Tunnel::Gue { port: 6081 }, 2),
            "-r 10.9.1.4:80 -i -w 1 --tun-type gue --tun-port 6081 --tun-remcsum"
        );
        assert_eq!(of(Tunnel::Gre, 1), "-r 10.9.1.4:80 -i -w 1 --tun-type gre --tun-csum");
        assert_eq!(target(&destination(Forwarding::Masq, 0)), "-r 10.9.1.4:80 -m -w 1");
    }
}
