//! Connection entries, from `/proc/net/ip_vs_conn`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    thread,
    time::Duration,
};

use super::buckets::Buckets;
use crate::model::{DestinationKey, Frontend, Protocol};

/// The file of the calling thread's network namespace.
const PATH: &str = "/proc/thread-self/net/ip_vs_conn";
/// Only there while ip_vs is loaded.
const HEADER: &str = "Pro FromIP";
/// How often a table is read that moves, and the time between: hundreds of connections were seen to
/// move within 20 ms.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// An entry of the connection table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connection {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Client address.
    pub client_addr: IpAddr,
    /// Client port, host order; 0 in a persistence template.
    pub client_port: u16,
    /// The frontend the client dialled. A template of a virtual server on all ports has port 0.
    pub frontend: Frontend,
    /// Where its packets go.
    pub destination: DestinationKey,
    /// State name, such as `ESTABLISHED`, `NONE` or `UDP`.
    pub state: String,
    /// Seconds until the entry expires.
    pub expires_secs: u64,
}

/// The connection table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or not readable.
    #[error("read {PATH} (needs ip_vs loaded, and root)")]
    Read(#[source] io::Error),
    /// No reading was complete.
    #[error("{PATH}: the kernel keeps on moving connections to a table of another size; try again")]
    Moving,
    /// A line is not what `ip_vs_conn_seq_show` prints.
    #[error("{PATH} line {line}: unknown {field}")]
    Parse {
        /// Line number from 1.
        line: usize,
        /// The column.
        field: &'static str,
    },
}

/// A line of the file, also of virtual servers by firewall mark.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// `TCP`, `UDP`, `SCTP`, or `IP` of a persistence template by mark.
    pub protocol: String,
    /// Client; port 0 in a persistence template.
    pub client: SocketAddr,
    /// What the client dialled; of a template by mark, the mark as an address.
    pub frontend: SocketAddr,
    /// Where its packets go.
    pub destination: SocketAddr,
    /// State name.
    pub state: String,
    /// Seconds until the entry expires.
    pub expires_secs: u64,
}

/// Reads the connection table of the calling thread's network namespace.
///
/// Before Linux 7.1 the kernel walks its table from the start for every 4 KiB: with a million
/// entries this takes minutes. For people, never for a loop.
pub fn read() -> Result<Vec<Connection>, Error> {
    parse(&text()?)
}

/// The same, line by line.
pub fn lines() -> Result<Vec<Line>, Error> {
    parse_lines(&text()?)
}

/// Returns the whole table: what the kernel has moved to the next one is not in its file.
fn text() -> Result<String, Error> {
    let mut before = Buckets::read().map_err(Error::Read)?;
    for _ in 0..TRIES {
        let text = fs::read_to_string(PATH).map_err(Error::Read)?;
        let after = Buckets::read().map_err(Error::Read)?;
        if before.stayed(&after) {
            return Ok(text);
        }
        thread::sleep(PAUSE);
        before = Buckets::read().map_err(Error::Read)?;
    }
    Err(Error::Moving)
}

/// Parses the text of `/proc/net/ip_vs_conn`. Entries of other protocols than TCP, UDP and SCTP
/// (`IP`, of firewall-mark virtual servers) are skipped.
pub fn parse(text: &str) -> Result<Vec<Connection>, Error> {
    let connection = |line: Line| {
        let protocol = line.protocol.parse::<Protocol>().ok()?;
        Some(Connection {
            protocol,
            client_addr: line.client.ip(),
            client_port: line.client.port(),
            frontend: Frontend { addr: line.frontend.ip(), port: line.frontend.port(), protocol },
            destination: DestinationKey {
                addr: line.destination.ip(),
                port: line.destination.port(),
            },
            state: line.state,
            expires_secs: line.expires_secs,
        })
    };
    Ok(parse_lines(text)?.into_iter().filter_map(connection).collect())
}

/// Parses the text of `/proc/net/ip_vs_conn`.
pub fn parse_lines(text: &str) -> Result<Vec<Line>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with(HEADER));
    lines
        .map(|(index, line)| {
            parse_line(line).map_err(|field| Error::Parse { line: index + 1, field })
        })
        .collect()
}

fn parse_line(line: &str) -> Result<Line, &'static str> {
    let mut fields = line.split_whitespace();
    let mut next = |name| fields.next().ok_or(name);
    let protocol = next("protocol")?.to_owned();
    let client_addr = address(next("client address")?).ok_or("client address")?;
    let client_port = port(next("client port")?).ok_or("client port")?;
    let addr = address(next("virtual address")?).ok_or("virtual address")?;
    let frontend_port = port(next("virtual port")?).ok_or("virtual port")?;
    let destination_addr = address(next("destination address")?).ok_or("destination address")?;
    let destination_port = port(next("destination port")?).ok_or("destination port")?;
    let state = next("state")?.to_owned();
    let expires_secs = next("expiry")?.parse().map_err(|_| "expiry")?;
    Ok(Line {
        protocol,
        client: SocketAddr::new(client_addr, client_port),
        frontend: SocketAddr::new(addr, frontend_port),
        destination: SocketAddr::new(destination_addr, destination_port),
        state,
        expires_secs,
    })
}

/// IPv4 is eight hexadecimal digits in network order; IPv6 is written out (`%pI6`).
fn address(field: &str) -> Option<IpAddr> {
    if field.contains(':') {
        return field.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let bits = u32::from_str_radix(field, 16).ok()?;
    Some(Ipv4Addr::from_bits(bits).into())
}

fn port(field: &str) -> Option<u16> {
    u16::from_str_radix(field, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A010A0A 9C40 0A600001 01BB 0A01000C 18EB ESTABLISHED     899
UDP 0A010A0A 0035 0A60000A 0035 0A01000C 0035 UDP             299
IP  0A010A0A 0000 00000007 0000 0A01000C 0000 NONE            300
TCP fd00:0000:0000:0000:0000:0000:0000:0001 9C40 fd00:0000:0000:0000:0000:0000:0000:0010 0050 \
fd00:0000:0000:0000:0000:0000:0000:0020 1F90 SYN_RECV         59
";

    #[test]
    fn connections_of_both_families_are_read() {
        let connections = parse(TEXT).unwrap();
        assert_eq!(connections.len(), 3);
        assert_eq!(connections[0].client_addr, IpAddr::from([10, 1, 10, 10]));
        assert_eq!(connections[0].client_port, 40000);
        assert_eq!(connections[0].frontend.to_string(), "10.96.0.1:443/TCP");
        assert_eq!(connections[0].destination.to_string(), "10.1.0.12:6379");
        assert_eq!(connections[0].expires_secs, 899);
        assert_eq!(connections[1].state, "UDP");
        assert_eq!(connections[2].frontend.to_string(), "[fd00::10]:80/TCP");
    }

    #[test]
    fn a_strange_line_names_its_number_and_column() {
        let error = parse("Pro FromIP\nTCP 0A010A0A 9C40 zz 01BB").unwrap_err();
        assert!(matches!(error, Error::Parse { line: 2, field: "virtual address" }));
    }

    #[test]
    fn an_empty_table_has_only_its_header() {
        assert_eq!(parse("Pro FromIP   FPrt ToIP\n").unwrap(), []);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
