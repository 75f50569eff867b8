//! What is wrong with a configuration, where, and what to do about it.

use std::{fmt, io};

use super::duration::ParseDurationError;
use crate::model::ParseSchedulerError;

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    /// Where: `FILE:LINE`, or a flag.
    pub place: String,
    /// The field as a path, such as `ipvs.scheduler`; empty when it is no single field.
    pub field: String,
    /// What and why.
    pub fault: Fault,
}

/// All that is wrong; nothing of it is in force.
#[derive(Debug)]
pub struct Error {
    /// At least one.
    pub problems: Vec<Problem>,
}

/// What is wrong, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("read: {0}; make it a readable file")]
    Read(#[source] io::Error),
    /// The text is neither YAML nor JSON.
    #[error("{}", syntax(.0))]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// Not one of the two kinds.
    #[error(
        "unknown kind {found}; write KubeProxyConfiguration, or a ConfigMap with the key \
         config.conf"
    )]
    UnknownKind {
        /// The kind in the file.
        found: String,
    },
    /// Not the version that kube-proxy has had since 1.9.
    #[error("unknown version {found}; write kubeproxy.config.k8s.io/v1alpha1")]
    UnknownVersion {
        /// The version in the file.
        found: String,
    },
    /// A ConfigMap without our key.
    #[error("no key config.conf in data; put the KubeProxyConfiguration there")]
    NoConfig,
    /// No such field.
    #[error("unknown field{}", did_you_mean(suggestion.as_deref()))]
    UnknownField {
        /// A field that may be meant.
        suggestion: Option<String>,
    },
    /// A value of the wrong type.
    #[error("{found} is {kind}; write {expected}")]
    WrongType {
        /// The value.
        found: String,
        /// Its type, with its article.
        kind: &'static str,
        /// The type that belongs there, with its article or an example.
        expected: &'static str,
    },
    /// Not a time.
    #[error(transparent)]
    Duration(#[from] ParseDurationError),
    /// A number that is too small or too large.
    #[error("{found} is out of range; write {lowest} to {highest}")]
    OutOfRange {
        /// The value.
        found: String,
        /// Lowest.
        lowest: String,
        /// Highest.
        highest: String,
    },
    /// A text outside a fixed set, or of another form.
    #[error("unknown value {found:?}; write {expected}")]
    UnknownValue {
        /// The value.
        found: String,
        /// The set, or the form.
        expected: &'static str,
    },
    /// Not a scheduler of IPVS.
    #[error(transparent)]
    Scheduler(#[from] ParseSchedulerError),
    /// A flag that the scheduler does not have.
    #[error("scheduler {scheduler} has no flag {found:?}; {cure}")]
    SchedulerFlag {
        /// The scheduler.
        scheduler: crate::model::Scheduler,
        /// The flag.
        found: String,
        /// The flags it has.
        cure: &'static str,
    },
    /// A mode of kube-proxy that needs another system.
    #[error("mode {found:?} is for Windows; write ipvs")]
    OtherSystem {
        /// The mode.
        found: String,
    },
    /// Something that a verb does, or that nothing does.
    #[error("{cure}")]
    Refused {
        /// What to do instead.
        cure: &'static str,
    },
    /// A field that another one needs.
    #[error("{because}; set {missing}")]
    Missing {
        /// Who needs it.
        because: &'static str,
        /// The field.
        missing: &'static str,
    },
    /// Two fields that do not go together.
    #[error("{found} does not go with {other}; {cure}")]
    Conflict {
        /// The value.
        found: String,
        /// The other field with its value.
        other: String,
        /// What to do.
        cure: &'static str,
    },
}

impl Problem {
    /// Makes a problem with one field.
    pub(super) fn of(place: impl Into<String>, field: impl Into<String>, fault: Fault) -> Self {
        Self { place: place.into(), field: field.into(), fault }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.place, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(suggestion) => format!("; did you mean {suggestion}?"),
        None => "; remove it".to_owned(),
    }
}

/// Returns the parser's message without its position, which [`Problem::place`] has.
fn syntax(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{DefaultMessageFormatter, MessageFormatter};

    let message = DefaultMessageFormatter.format_message(error.without_snippet());
    let message = message.replace(char::is_control, " ");
    format!("not YAML or JSON: {message}; correct the text there")
}
