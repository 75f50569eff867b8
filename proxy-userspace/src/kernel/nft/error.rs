//! What goes wrong with nft.

use std::{fmt, io};

use nftables::helper::NftablesError;
use rustix::io::Errno;

use crate::kernel::netlink::Failure;

/// A failure of [`super::Table`] or [`super::Ruleset`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `nft` command.
    #[error("no nft command: install it with `apt-get install nftables`")]
    NftMissing,
    /// The kernel does not answer `nft`.
    #[error(
        "nft gets no answer from nf_tables ({}): run `modprobe nf_tables`, and as root",
        first_line(complaint)
    )]
    NoTables {
        /// What `nft` wrote to its standard error.
        complaint: String,
    },
    /// `nft` was built without JSON.
    #[error("this nft command does not speak JSON: use one built with libjansson")]
    NoJson,
    /// `nft` could not be run.
    #[error("{operation}: run nft")]
    Run {
        /// What was asked.
        operation: Operation,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// `nft` refused.
    #[error("{operation}: {}", first_line(complaint))]
    Refused {
        /// What was asked.
        operation: Operation,
        /// What `nft` wrote to its standard error; the message shows the first line.
        complaint: String,
    },
    /// No netlink socket.
    #[error("open a netfilter netlink socket")]
    Open(#[source] io::Error),
    /// The kernel answered with an error number.
    #[error("{operation}: {errno}")]
    Answer {
        /// What was asked.
        operation: Operation,
        /// The answer.
        errno: Errno,
    },
    /// No answer of the kernel.
    #[error("{operation}")]
    Netlink {
        /// What was asked.
        operation: Operation,
        /// Why there was none.
        #[source]
        cause: Failure,
    },
    /// The kernel's answer lacks what was asked for.
    #[error("{operation}: the answer does not say")]
    Odd {
        /// What was asked.
        operation: Operation,
    },
    /// The reply of `nft` cannot be read.
    #[error("{operation}: unreadable reply of nft")]
    Unreadable {
        /// What was asked.
        operation: Operation,
        /// Where it stops being what the JSON schema says.
        #[source]
        cause: serde_json::Error,
    },
}

impl Error {
    pub(super) fn of(operation: Operation, error: NftablesError) -> Self {
        match error {
            NftablesError::NftExecution { inner, .. }
                if inner.kind() == io::ErrorKind::NotFound =>
            {
                Self::NftMissing
            }
            NftablesError::NftExecution { inner, .. } => Self::Run { operation, cause: inner },
            NftablesError::NftOutputEncoding { inner, .. } => {
                Self::Run { operation, cause: io::Error::new(io::ErrorKind::InvalidData, inner) }
            }
            NftablesError::NftInvalidJson(cause) => Self::Unreadable { operation, cause },
            NftablesError::NftFailed { stderr, .. } if stderr.contains("JSON support not") => {
                Self::NoJson
            }
            NftablesError::NftFailed { stderr, .. } if operation == Operation::Probe => {
                Self::NoTables { complaint: stderr }
            }
            NftablesError::NftFailed { stderr, .. } => {
                Self::Refused { operation, complaint: stderr }
            }
        }
    }

    /// Returns whether `nft` said that an object does not exist.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { complaint, .. } if complaint.contains("No such file"))
    }
}

/// What was asked of `nft`, or of nf_tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Operation {
    /// See whether `nft` works.
    Probe,
    /// Read the table.
    Observe,
    /// Replace the table.
    Install,
    /// Add and remove elements.
    Change,
    /// Remove the table.
    Remove,
    /// List the tables of all families.
    ListTables,
    /// List flowtables.
    ListFlowtables,
    /// List the chains of others.
    ListChains,
    /// Remove chains of others.
    RemoveChains,
    /// Read every rule.
    ListRules,
    /// Read the number of the ruleset.
    ReadGeneration,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe => "try nft",
            Self::Observe => "read nft table inet passlane",
            Self::Install => "install nft table inet passlane",
            Self::Change => "change elements of nft table inet passlane",
            Self::Remove => "remove nft table inet passlane",
            Self::ListTables => "list nft tables",
            Self::ListFlowtables => "list nft flowtables",
            Self::ListChains => "list nft chains",
            Self::RemoveChains => "remove chains of iptables",
            Self::ListRules => "list nft rules",
            Self::ReadGeneration => "read the generation of the nft ruleset",
        })
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("no reason given").trim()
}
