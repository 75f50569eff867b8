//! A kube-proxy that runs.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

/// What passlane's own servers call themselves: those of kube-proxy have no name.
pub const SERVER: &str = "passlane";
/// Where kube-proxy serves `/proxyMode` unless told otherwise.
const METRICS_PORT: u16 = 10249;
/// Where it serves `/healthz`.
const HEALTHZ_PORT: u16 = 10256;
/// Both listen on this node: an answer takes no longer, unless the machine is very busy.
const PATIENCE: Duration = Duration::from_millis(700);
/// What comes after it is of no interest.
const LONGEST_REPLY: u64 = 16 * 1024;
/// The kernel keeps as much of a process's name.
const NAME: &str = "kube-proxy";

/// How a live kube-proxy was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Live {
    /// Its process, where it can be seen.
    pub pid: Option<u32>,
    /// The port that answered.
    pub port: Option<u16>,
    /// `iptables`, `ipvs` or `nftables`, when it said so.
    pub mode: Option<String>,
}

impl fmt::Display for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.mode.as_ref().map(|mode| format!("mode {mode}")));
        parts.extend(self.pid.map(|pid| format!("process {pid}")));
        parts.extend(self.port.map(|port| format!("answers at port {port}")));
        f.write_str(&parts.join(", "))
    }
}

impl Live {
    /// Looks for one: a process in this network namespace, which a container sees only if it
    /// shares the node's processes, or one of its ports, where it does not say it is passlane.
    /// `configured` are the addresses that passlane would serve the same at.
    pub fn find(configured: &[SocketAddr]) -> Option<Self> {
        let pid = process();
        let addrs = addresses(configured);
        let mode = addrs.iter().find_map(|addr| Some((addr.port(), mode(*addr)?)));
        let healthy = || addrs.iter().find(|addr| is_healthz(**addr)).map(SocketAddr::port);
        let port = mode.as_ref().map(|(port, _)| *port).or_else(healthy);
        let found = pid.is_some() || port.is_some();
        found.then_some(Self { pid, port, mode: mode.map(|(_, mode)| mode) })
    }
}

/// Says whether none runs any more, of which one was found before. Who takes a connection and does not
/// answer in time may be it, on a busy machine.
pub fn has_ended(configured: &[SocketAddr]) -> bool {
    let is_slow = |addr: &SocketAddr| {
        let reply = ask(*addr, "/healthz").map_err(|error| error.kind());
        matches!(reply, Err(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
    };
    Live::find(configured).is_none() && !addresses(configured).iter().any(is_slow)
}

/// Returns where it may answer.
fn addresses(configured: &[SocketAddr]) -> Vec<SocketAddr> {
    let ports = [METRICS_PORT, HEALTHZ_PORT];
    let usual = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let mut addrs: Vec<SocketAddr> = configured.iter().copied().map(reachable).collect();
    addrs.extend(usual);
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// A server that listens at all addresses is asked at the loopback one.
fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
        _ => addr,
    }
}

fn process() -> Option<u32> {
    let ours = fs::read_link("/proc/self/ns/net").ok()?;
    let pids = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut running = pids.filter(|pid| {
        let directory = Path::new("/proc").join(pid.to_string());
        let named =
            fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm.trim_end() == NAME);
        named
            && match fs::read_link(directory.join("ns/net")) {
                Ok(theirs) => theirs == ours,
                // Of one with more capabilities than this process has left the kernel tells no
                // namespace: rather refuse than run beside it.
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied && runs(&directory),
            }
    });
    running.next()
}

/// Says whether a process has not ended: one that has, and was not waited for, is still listed.
fn runs(directory: &Path) -> bool {
    let stat = fs::read_to_string(directory.join("stat")).unwrap_or_default();
    // The name before the state may have any character in it.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes().first());
    !matches!(state, None | Some(None | Some(b'Z' | b'X')))
}

fn mode(addr: SocketAddr) -> Option<String> {
    let (status, server, body) = split(&ask(addr, "/proxyMode").ok()?)?;
    let mode = body.trim();
    let known = ["iptables", "ipvs", "nftables"].contains(&mode);
    (status == 200 && server.as_deref() != Some(SERVER) && known).then(|| mode.to_owned())
}

/// It says when the rules were written last, healthy or not.
fn is_healthz(addr: SocketAddr) -> bool {
    let reply = ask(addr, "/healthz").ok();
    reply.and_then(|reply| split(&reply)).is_some_and(|(_, server, body)| {
        server.as_deref() != Some(SERVER) && body.contains("\"lastUpdated\"")
    })
}

fn ask(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reply = Vec::new();
    // Who answers and then is in a hurry has answered.
    let read = stream.take(LONGEST_REPLY).read_to_end(&mut reply);
    if reply.is_empty() {
        read?;
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// Returns the status of a reply, who says it is the server, and the body.
fn split(reply: &str) -> Option<(u16, Option<String>, String)> {
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let server = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("server"))
        .map(|(_, value)| value.trim().to_owned());
    Some((status, server, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Answers each request alike, for as long as the test runs.
    fn serve(head: &'static str, body: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\n{head}Content-Length: {length}\r\n\r\n{body}"
                );
            }
        });
        addr
    }

    #[test]
    fn who_does_not_answer_in_time_may_be_a_busy_kube_proxy() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!has_ended(&[listener.local_addr().unwrap()]));
    }

    #[test]
    fn kube_proxy_is_known_by_its_mode_and_passlane_is_not_taken_for_it() {
        assert_eq!(mode(serve("", "ipvs")).as_deref(), Some("ipvs"));
        assert_eq!(mode(serve("Date: x\r\n", "iptables\n")).as_deref(), Some("iptables"));
        assert_eq!(mode(serve("server: passlane\r\n", "ipvs")), None);
        assert_eq!(mode(serve("", "<html>hello</html>")), None);
    }

    #[test]
    fn kube_proxy_is_known_by_its_health_check_too() {
        let body = r#"{"lastUpdated": "2026-11-21 10:00:00","nodeEligible": true}"#;
        assert!(is_healthz(serve("", body)));
        assert!(!is_healthz(serve("Server: passlane\r\n", body)));
        assert!(!is_healthz(serve("", "ok")));
    }

    #[test]
    fn a_port_that_nobody_has_says_nothing() {
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(mode(addr).is_none() && !is_healthz(addr));
    }

    #[test]
    fn what_was_found_is_told_in_few_words() {
        let live = Live { pid: Some(7), port: Some(10249), mode: Some("ipvs".into()) };
        assert_eq!(live.to_string(), "mode ipvs, process 7, answers at port 10249");
    }
}
