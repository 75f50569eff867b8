//! All virtual servers and destinations at a glance, from `/proc/net/ip_vs`.
//!
//! One sequential read instead of a netlink dump for each virtual server: cheap enough to be taken
//! every few seconds. It does not tell flags of schedulers, nor kinds of tunnels.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use crate::{
    kernel::fingerprint::{mix, mix_addr, of_socket},
    model::{Destination, DestinationKey, Forwarding, Frontend, Protocol, VirtualServer},
};

/// The file of the calling thread's network namespace.
const PATH: &str = "/proc/thread-self/net/ip_vs";
/// As the kernel gives out text by the page, more would not be filled.
const BUFFER: usize = 4096;

/// A virtual server, and a number that stands for its settings and destinations, but not for
/// anything that is counted.
pub type Entry = (Frontend, u64);

/// Reads the virtual servers that have no firewall mark; `tick` is the length of a jiffy.
///
/// # Errors
///
/// The file cannot be read. That ip_vs is not loaded is `NotFound`.
pub fn read(tick: Duration) -> io::Result<Vec<Entry>> {
    let file = File::open(Path::new(PATH))?;
    parse(BufReader::with_capacity(BUFFER, file), tick)
}

/// Reads a text of the form of `/proc/net/ip_vs`. What is not understood is left out, so that its
/// virtual server does not look as it should.
fn parse(mut text: impl BufRead, tick: Duration) -> io::Result<Vec<Entry>> {
    let mut servers = Vec::new();
    let mut current: Option<Numbered> = None;
    let mut line = Vec::with_capacity(128);
    loop {
        line.clear();
        if text.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|w| !w.is_empty());
        match words.next() {
            Some(b"->") => {
                if let (Some(server), Some((key, class, weight))) =
                    (&mut current, destination(&mut words))
                {
                    server.add(key, class, weight);
                }
            }
            Some(protocol) => {
                servers.extend(current.take().map(Numbered::entry));
                current = server(protocol, &mut words, tick);
            }
            None => {}
        }
    }
    servers.extend(current.map(Numbered::entry));
    Ok(servers)
}

/// Returns the number of a virtual server whose destinations the kernel would list in this order.
pub fn entry<'a, I: IntoIterator<Item = &'a Destination>>(
    server: &VirtualServer,
    newest_first: I,
) -> Entry {
    let scheduler = server.scheduler.name().as_bytes();
    let mut numbered = Numbered::new(server.frontend, scheduler, server.persistent_secs);
    for destination in newest_first {
        let class = class(destination.forwarding);
        numbered.add(destination.key, class, destination.weight);
    }
    numbered.entry()
}

struct Numbered {
    frontend: Frontend,
    settings: u64,
    destinations: u64,
    /// The scheduler goes by the order of the destinations.
    ordered: bool,
}

impl Numbered {
    fn new(frontend: Frontend, scheduler: &[u8], persistent_secs: u32) -> Self {
        let name = scheduler.iter().fold(0, |name, byte| name << 8 | u64::from(*byte));
        let Frontend { addr, port, protocol } = frontend;
        let socket = of_socket(addr, port, protocol.number());
        let settings = mix(mix(socket, name), persistent_secs.into());
        let known = std::str::from_utf8(scheduler).ok().and_then(|name| name.parse().ok());
        let ordered = known.is_some_and(crate::model::Scheduler::depends_on_order);
        Self { frontend, settings, destinations: 0, ordered }
    }

    fn add(&mut self, key: DestinationKey, class: u8, weight: u32) {
        let socket = mix(mix_addr(2, key.addr), key.port.into());
        let number = mix(socket, u64::from(weight) << 8 | u64::from(class));
        self.destinations = match self.ordered {
            true => mix(self.destinations, number),
            false => self.destinations.wrapping_add(number),
        };
    }

    fn entry(self) -> Entry {
        (self.frontend, mix(self.settings, self.destinations))
    }
}

/// The kernel lists a destination on this host as local, however packets are to reach it; nearly
/// all are to be masqueraded.
fn class(forwarding: Forwarding) -> u8 {
    match forwarding {
        Forwarding::Masq | Forwarding::Local => 0,
        Forwarding::Tunnel(_) => 1,
        Forwarding::Route => 2,
    }
}

fn server<'a, I: Iterator<Item = &'a [u8]>>(
    protocol: &[u8],
    words: &mut I,
    tick: Duration,
) -> Option<Numbered> {
    let protocol: Protocol = std::str::from_utf8(protocol).ok()?.parse().ok()?;
    let (addr, port) = socket(words.next()?)?;
    let scheduler = words.next()?;
    let mut persistent_secs = 0;
    while let Some(word) = words.next() {
        if word == b"persistent" {
            let ticks: u64 = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
            // A jiffy of 3,333,333 ns is one of 300 a second.
            let a_second = (1_000_000_000 + tick.as_nanos() as u64 / 2) / tick.as_nanos() as u64;
            persistent_secs = u32::try_from(ticks / a_second.max(1)).ok()?;
        }
    }
    Some(Numbered::new(Frontend { addr, port, protocol }, scheduler, persistent_secs))
}

fn destination<'a, I: Iterator<Item = &'a [u8]>>(
    words: &mut I,
) -> Option<(DestinationKey, u8, u32)> {
    let (addr, port) = socket(words.next()?)?;
    let class = match words.next()? {
        b"Masq" | b"Local" => 0,
        b"Tunnel" => 1,
        b"Route" => 2,
        _ => u8::MAX,
    };
    let weight = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    Some((DestinationKey { addr, port }, class, weight))
}

/// IPv4 is eight hexadecimal digits, IPv6 is in brackets; a port is four hexadecimal digits.
fn socket(word: &[u8]) -> Option<(IpAddr, u16)> {
    let (addr, port) = word.split_at_checked(word.len().checked_sub(5)?)?;
    let port = hexadecimal(port.strip_prefix(b":")?)?;
    let addr = match addr.strip_prefix(b"[").and_then(|addr| addr.strip_suffix(b"]")) {
        Some(addr) => IpAddr::V6(std::str::from_utf8(addr).ok()?.parse::<Ipv6Addr>().ok()?),
        None => IpAddr::V4(Ipv4Addr::from_bits(hexadecimal(addr)?)),
    };
    Some((addr, port as u16))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Scheduler, SchedulerFlags};

    const TICK: Duration = Duration::from_millis(4);
    const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\n\
        Prot LocalAddress:Port Scheduler Flags\n  \
        -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    fn text(servers: &str) -> Vec<Entry> {
        parse(format!("{HEAD}{servers}").as_bytes(), TICK).unwrap()
    }

    fn web(scheduler: Scheduler, persistent_secs: u32) -> VirtualServer {
        VirtualServer {
            frontend: Frontend { addr: [10, 96, 0, 10].into(), port: 80, protocol: Protocol::Tcp },
            scheduler,
            flags: SchedulerFlags::default(),
            persistent_secs,
        }
    }

    fn to(host: u8, weight: u32, forwarding: Forwarding) -> Destination {
        let key = DestinationKey { addr: [10, 1, 1, host].into(), port: 8080 };
        Destination { limits: Default::default(), key, weight, forwarding }
    }

    #[test]
    fn a_server_as_the_kernel_prints_it_has_the_number_of_the_model() {
        let found = text(
            "TCP  0A60000A:0050 rr \n  \
             -> 0A01010C:1F90      Masq    3      0          0         \n  \
             -> 0A01010B:1F90      Local   1      7          9         \n",
        );
        let destinations = [to(11, 1, Forwarding::Masq), to(12, 3, Forwarding::Masq)];
        assert_eq!(found, [entry(&web(Scheduler::Rr, 0), &destinations)]);
    }

    #[test]
    fn persistence_is_read_in_jiffies_and_firewall_marks_are_passed_over() {
        let found = text(
            "FWM  00000007 rr \n  -> 0A01010B:0000      Masq    1      0          0\n\
             TCP  0A60000A:0050 rr persistent 2700000 FFFFFFFF\n",
        );
        assert_eq!(found, [entry(&web(Scheduler::Rr, 10_800), [])]);
    }

    #[test]
    fn ipv6_is_in_brackets() {
        let found = text("UDP  [fd00:0096:0000:0000:0000:0000:0000:0053]:0035 wlc ops \n");
        let frontend =
            Frontend { addr: "fd00:96::53".parse().unwrap(), port: 53, protocol: Protocol::Udp };
        let server = VirtualServer { frontend, ..web(Scheduler::Wlc, 0) };
        assert_eq!(found, [entry(&server, [])]);
    }

    #[test]
    fn order_counts_only_where_the_scheduler_goes_by_it() {
        let (one, other) = (to(11, 1, Forwarding::Masq), to(12, 1, Forwarding::Masq));
        let number = |scheduler, list: [Destination; 2]| entry(&web(scheduler, 0), &list);
        assert_eq!(number(Scheduler::Rr, [one, other]), number(Scheduler::Rr, [other, one]));
        assert_ne!(number(Scheduler::Mh, [one, other]), number(Scheduler::Mh, [other, one]));
    }

    #[test]
    fn every_change_has_another_number() {
        let held = [to(11, 1, Forwarding::Masq), to(12, 1, Forwarding::Masq)];
        let number = entry(&web(Scheduler::Rr, 0), &held);
        for changed in [
            entry(&web(Scheduler::Wrr, 0), &held),
            entry(&web(Scheduler::Rr, 60), &held),
            entry(&web(Scheduler::Rr, 0), &held[..1]),
            entry(&web(Scheduler::Rr, 0), &[held[0], to(12, 0, Forwarding::Masq)]),
            entry(&web(Scheduler::Rr, 0), &[held[0], to(13, 1, Forwarding::Masq)]),
            entry(&web(Scheduler::Rr, 0), &[held[0], to(12, 1, Forwarding::Route)]),
        ] {
            assert_ne!(changed, number);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(bytes.as_slice(), TICK);
        }

        #[test]
        fn arbitrary_lines_never_panic(words in "(TCP |-> |\\[::1\\]:0050 |0A01:0050 |rr |persistent |9 |\\n){0,30}") {
            let _ = parse(words.as_bytes(), TICK);
        }
    }
}
