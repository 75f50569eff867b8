//! Health checks of backends, as a Service asks for them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

/// How a Service is watched, and what follows: the annotations `passlane.io/health-check`,
/// `health-quorum`, `on-failure` and `sorry-server`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Watching {
    /// How its backends are checked; `None`: whatever its slices say of them holds.
    pub check: Option<Check>,
    /// What becomes of a backend that fails.
    pub on_failure: OnFailure,
    /// The least sum of weights of live backends with which they serve, 1 or more. A sorry server
    /// stands in below it.
    pub quorum: u32,
    /// Who stands in, at most one in each address family.
    pub sorry_servers: Vec<SorryServer>,
}

impl Default for Watching {
    fn default() -> Self {
        let (check, on_failure) = Default::default();
        Self { check, on_failure, quorum: 1, sorry_servers: Vec::new() }
    }
}

/// What becomes of a backend that fails its check.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum OnFailure {
    /// It has weight 0: no new connections, and those it has go on.
    #[default]
    Inhibit,
    /// It is removed, and its connections end with their next packet.
    Remove,
}

/// A server that serves only when too few backends live.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SorryServer {
    /// Its address.
    pub addr: IpAddr,
    /// Its port, host order; `None`: that of the Service's port.
    pub port: Option<u16>,
}

/// One way to find out whether a backend lives. Backends of several Services that are checked in the
/// same way are checked once.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Check {
    /// What is tried.
    pub probe: Probe,
    /// The port that is tried, host order; `None`: the one that the backend listens on.
    pub port: Option<u16>,
    /// Milliseconds between the beginnings of two tries.
    pub interval_ms: u32,
    /// Milliseconds that a try may take; not more than `interval_ms`.
    pub timeout_ms: u32,
    /// So many successes in a row bring a backend back, 1 or more.
    pub rise: u32,
    /// So many failures in a row take a backend out, 1 or more.
    pub fall: u32,
    /// A new backend is down until it has risen; otherwise it is up until it falls.
    pub starts_down: bool,
}

/// What is tried.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Probe {
    /// A TCP connection.
    Tcp,
    /// A GET.
    Http(Get),
    /// A program and its arguments, without a shell; `%addr` and `%port` stand for the backend. It
    /// succeeds with exit code 0.
    Command(Vec<String>),
}

/// A GET of HTTP/1.1.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Get {
    /// By TLS, whoever the certificate is for.
    pub tls: bool,
    /// The path, with a query if there is one.
    pub path: String,
    /// The header `Host`, and the server name of TLS; `None`: the backend's address.
    pub host: Option<String>,
    /// Status codes that are well, from the first to the last of each range.
    pub statuses: Vec<(u16, u16)>,
}

impl Check {
    /// Milliseconds between two tries, unless a Service says otherwise.
    pub const INTERVAL_MS: u32 = 5_000;
    /// Milliseconds that a try may take, unless a Service says otherwise or the interval is shorter.
    pub const TIMEOUT_MS: u32 = 2_000;
    /// Successes that bring a backend back, unless a Service says otherwise.
    pub const RISE: u32 = 2;
    /// Failures that take a backend out, unless a Service says otherwise.
    pub const FALL: u32 = 3;

    /// Returns a check with the usual times.
    pub fn of(probe: Probe) -> Self {
        Self {
            probe,
            port: None,
            interval_ms: Self::INTERVAL_MS,
            timeout_ms: Self::TIMEOUT_MS,
            rise: Self::RISE,
            fall: Self::FALL,
            starts_down: false,
        }
    }
}

impl Probe {
    /// Returns the word that chooses it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(Get { tls: false, .. }) => "http",
            Self::Http(Get { tls: true, .. }) => "https",
            Self::Command(_) => "command",
        }
    }
}

impl Get {
    /// Says whether a status code is well.
    pub fn accepts(&self, status: u16) -> bool {
        self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// Returns the status codes that are well, as they are written.
    pub fn accepted(&self) -> String {
        let ranges = self.statuses.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        ranges.collect::<Vec<_>>().join("+")
    }
}

impl fmt::Display for Check {
    /// Writes what the annotation `passlane.io/health-check` takes, every option named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.probe.word())?;
        match &self.probe {
            Probe::Tcp => {}
            Probe::Http(get) => {
                write!(f, ",path={},status={}", get.path, get.accepted())?;
                get.host.iter().try_for_each(|host| write!(f, ",host={host}"))?;
            }
            Probe::Command(words) => write!(f, ",run={}", words.join(" "))?,
        }
        self.port.iter().try_for_each(|port| write!(f, ",port={port}"))?;
        let Self { interval_ms, timeout_ms, rise, fall, .. } = self;
        write!(f, ",interval={interval_ms}ms,timeout={timeout_ms}ms,rise={rise},fall={fall}")?;
        write!(f, ",initial={}", if self.starts_down { "down" } else { "up" })
    }
}

impl fmt::Display for SorryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.addr, port).fmt(f),
            None => self.addr.fmt(f),
        }
    }
}
