//! The kernel's own view of IPVS and conntrack, by the tools an operator would use.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, anyhow};

use crate::netns::Namespace;

/// One line of `ipvsadm -Lnc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// e.g. `ESTABLISHED`.
    pub state: String,
    /// The client.
    pub source: SocketAddr,
    /// The frontend it dialled.
    pub frontend: SocketAddr,
    /// The destination IPVS chose.
    pub destination: SocketAddr,
}

/// Returns the connections IPVS knows.
pub fn entries(node: &Namespace) -> Result<Vec<Entry>> {
    Ok(node.run("ipvsadm", &["-Lnc"])?.lines().filter_map(parse_entry).collect())
}

/// Returns the connection of `source` to `frontend`, if IPVS knows it.
pub fn entry(node: &Namespace, source: SocketAddr, frontend: SocketAddr) -> Result<Option<Entry>> {
    let wanted = |entry: &Entry| entry.source == source && entry.frontend == frontend;
    Ok(entries(node)?.into_iter().find(wanted))
}

/// Returns the destinations of a TCP frontend in the order of the kernel's list, with weights.
/// `None` is a virtual server that does not exist.
pub fn destinations(
    node: &Namespace,
    frontend: SocketAddr,
) -> Result<Option<Vec<(SocketAddr, u32)>>> {
    let text = node.run("ipvsadm", &["-Ln"])?;
    let header = format!("TCP  {frontend} ");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&header));
    if lines.next().is_none() {
        return Ok(None);
    }
    lines
        .take_while(|line| line.starts_with("  ->"))
        .map(|line| parse_destination(line).with_context(|| text.clone()))
        .collect::<Result<_>>()
        .map(Some)
}

fn parse_entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[_protocol, _expires, state, source, frontend, destination] = words.as_slice() else {
        return None;
    };
    Some(Entry {
        state: state.to_owned(),
        source: source.parse().ok()?,
        frontend: frontend.parse().ok()?,
        destination: destination.parse().ok()?,
    })
}

fn parse_destination(line: &str) -> Result<(SocketAddr, u32)> {
    let mut words = line.split_whitespace().skip(1);
    let mut next = || words.next().ok_or_else(|| anyhow!("short line {line:?}"));
    let destination = next()?.parse()?;
    let _forwarding = next()?;
    Ok((destination, next()?.parse()?))
}

/// Returns the TCP state conntrack has for the connection of `source` to `frontend`.
pub fn conntrack_state(
    node: &Namespace,
    source: SocketAddr,
    frontend: SocketAddr,
) -> Result<Option<String>> {
    let text = node.run("conntrack", &["-L", "-p", "tcp"])?;
    let wanted = format!(
        "src={} dst={} sport={} dport={}",
        source.ip(),
        frontend.ip(),
        source.port(),
        frontend.port()
    );
    // tcp 6 431999 ESTABLISHED src=… dst=… sport=… dport=… src=… …
    let line = text.lines().find(|line| line.contains(&wanted));
    Ok(line.and_then(|line| line.split_whitespace().nth(3)).map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_entry_is_read() {
        let line = "TCP 14:59  ESTABLISHED 10.1.1.31:40000 10.96.0.10:80 10.1.1.11:8080";
        let entry = parse_entry(line).unwrap();
        assert_eq!(entry.state, "ESTABLISHED");
        assert_eq!(entry.destination, "10.1.1.11:8080".parse().unwrap());
        assert_eq!(parse_entry("pro expire state source virtual destination"), None);
    }

    #[test]
    fn a_destination_is_read_with_its_weight() {
        let line = "  -> 10.1.1.11:8080               Masq    3      0          0         ";
        let expected = ("10.1.1.11:8080".parse().unwrap(), 3);
        assert_eq!(parse_destination(line).unwrap(), expected);
    }
}
