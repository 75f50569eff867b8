//! What a client got: an answer, or which kind of none.

use std::fmt;
use std::io::{self, ErrorKind};

use super::Answer;

/// What became of one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody answered.
    Answered(Answer),
    /// A TCP reset, or ICMP port unreachable.
    Refused,
    /// The connection had been made and was ended.
    Reset,
    /// ICMP host or network unreachable.
    Unreachable,
    /// Nothing came back in time.
    Silence,
}

impl Outcome {
    /// What an error of a socket says about the other side. Another error is a fault of the test.
    pub(super) fn of_error(error: &io::Error) -> Option<Self> {
        match error.kind() {
            ErrorKind::ConnectionRefused => Some(Self::Refused),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                Some(Self::Reset)
            }
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Some(Self::Unreachable),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Some(Self::Silence),
            // The send timeout of a connect that nobody answered.
            _ if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Some(Self::Silence)
            }
            _ => None,
        }
    }

    /// The answer, if there was one.
    #[must_use]
    pub fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(Answer { by, source }) => write!(f, "{by} saw {source}"),
            Self::Refused => f.write_str("refused"),
            Self::Reset => f.write_str("reset"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Silence => f.write_str("silence"),
        }
    }
}
