//! The command line's side.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{Answer, Question, SOCKET, VERSION, Verb};

/// An agent reads 50,000 virtual servers before it answers.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer.
const MOST: u64 = 1 << 28;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no agent runs with this --state-dir")]
    NoAgent,
    /// The socket cannot be used.
    #[error("ask the agent at {path}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The agent does not want to.
    #[error("the agent refuses: {0}")]
    Refused(String),
    /// The answer is not understood.
    #[error("the agent's answer is not understood: use the passlane of the agent")]
    Format(#[source] serde_json::Error),
}

/// Asks the agent of a state directory. Blocks until it answers.
///
/// # Errors
///
/// [`Error`].
pub fn ask<T: DeserializeOwned>(state_dir: &Path, verb: Verb, all: bool) -> Result<T, Error> {
    let path = state_dir.join(SOCKET);
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NoAgent,
        _ => Error::Socket { path: path.clone(), source },
    };
    let mut stream = UnixStream::connect(&path).map_err(failed)?;
    let question = Question { version: VERSION, verb, all };
    let mut text = serde_json::to_vec(&question).map_err(Error::Format)?;
    text.push(b'\n');
    let mut line = Vec::new();
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .and_then(|()| stream.write_all(&text))
        .and_then(|()| BufReader::new(&mut stream).take(MOST).read_until(b'\n', &mut line))
        .map_err(failed)?;
    if line.is_empty() {
        // It ended before it could answer.
        return Err(Error::NoAgent);
    }
    let answer: Answer = serde_json::from_slice(&line).map_err(Error::Format)?;
    match answer {
        Answer { error: Some(error), .. } => Err(Error::Refused(error)),
        Answer { ok, .. } => serde_json::from_value(ok.unwrap_or_default()).map_err(Error::Format),
    }
}
