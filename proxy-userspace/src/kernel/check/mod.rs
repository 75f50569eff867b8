//! One try of a health check: a connection, a GET or a command. Nothing here knows what follows.

mod command;
mod http;
mod tls;

use std::{io, net::SocketAddr, process::ExitStatus, time::Duration};

use rustix::io::Errno;
use tokio::{net::TcpStream, time::timeout};

use crate::model::Probe;

/// What a node says that has no descriptors, ports, memory or processes left.
const LOCAL: [Errno; 6] =
    [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM, Errno::AGAIN];

/// Whom a try is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subject {
    /// The backend's address, and the port that is tried.
    pub addr: SocketAddr,
    /// The Service, as NAMESPACE/NAME: commands are told.
    pub service: String,
}

/// Why a try did not go well.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There was no answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// No connection.
    #[error("connect: {0}")]
    Connect(io::Error),
    /// No TLS session.
    #[error("TLS: {0}")]
    Tls(String),
    /// No answer of HTTP.
    #[error("HTTP: {0}")]
    Http(String),
    /// Another status code.
    #[error("status {found}, not {wanted}")]
    Status {
        /// The status code.
        found: u16,
        /// Those that are well.
        wanted: String,
    },
    /// A command cannot be run.
    #[error("run {program}: {source}")]
    Run {
        /// The program.
        program: String,
        /// Cause.
        source: io::Error,
    },
    /// A command ended otherwise than well.
    #[error("{status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// The begin of what it printed.
        said: String,
    },
    /// A command took too long and was ended, with all that it had started.
    #[error("ended after {} ms{}{said}", within.as_millis(), if said.is_empty() { "" } else { ": " })]
    Ended {
        /// Its time.
        within: Duration,
        /// The begin of what it printed.
        said: String,
    },
}

impl Failure {
    /// Says whether this node could not even try: then nothing is known of the backend.
    pub fn is_local(&self) -> bool {
        let (Self::Connect(error) | Self::Run { source: error, .. }) = self else { return false };
        let errno = Errno::from_io_error(error);
        errno.is_some_and(|errno| LOCAL.contains(&errno))
    }
}

/// Tries once. Returns what there is to say.
///
/// # Errors
///
/// It did not go well within the time, which is no error of ours. When the future is dropped, a
/// command ends.
pub async fn once(probe: &Probe, subject: &Subject, within: Duration) -> Result<String, Failure> {
    let late = |_| Failure::Late(within);
    match probe {
        Probe::Tcp => {
            let connected = timeout(within, TcpStream::connect(subject.addr)).await;
            connected.map_err(late)?.map_err(Failure::Connect)?;
            Ok("connected".to_owned())
        }
        Probe::Http(get) => {
            timeout(within, Box::pin(http::get(get, subject.addr))).await.map_err(late)?
        }
        Probe::Command(words) => Box::pin(command::run(words, subject, within)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_cannot_try_says_nothing_of_the_backend() {
        let connect = |errno: Errno| Failure::Connect(errno.into()).is_local();
        assert!(connect(Errno::MFILE) && connect(Errno::ADDRNOTAVAIL));
        assert!(!connect(Errno::CONNREFUSED) && !connect(Errno::NETUNREACH));
        let run = |errno: Errno| Failure::Run { program: "/x".into(), source: errno.into() };
        assert!(run(Errno::AGAIN).is_local() && !run(Errno::NOENT).is_local());
        assert!(!Failure::Late(Duration::ZERO).is_local());
    }
}
