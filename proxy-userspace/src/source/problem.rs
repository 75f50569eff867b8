//! What is wrong with a manifest, where, and what to do about it.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use ipnet::IpNet;

use crate::model::ParseProtocolError;

/// A position in a manifest. Lines and columns count from 1; 0 means that the problem is with the
/// file as a whole. An object from the API server is in no file: its path is empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line.
    pub line: u64,
    /// Column in characters.
    pub column: u64,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The object by kind, namespace and name, such as `service default/web`; empty when the file
    /// is not even a manifest.
    pub object: String,
    /// The field as a path, such as `spec.ports[0].port`; empty when it is no single field.
    pub field: String,
    /// What and why.
    pub fault: Fault,
}

/// All that is wrong; nothing was loaded.
#[derive(Debug)]
pub struct LoadError {
    /// At least one, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// What is wrong, with the cure.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The path or a file cannot be read.
    #[error("read: {0}; make it a readable manifest or a directory of manifests")]
    Read(#[source] io::Error),
    /// The text is not UTF-8.
    #[error("not UTF-8 text; save the file as UTF-8")]
    NotText,
    /// The text is neither YAML nor JSON.
    #[error("{}", syntax(.0))]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// A key of an object is there twice.
    #[error("the key {key:?} is there twice; remove one of them")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// The file holds no object. It may be half-written, so it does not count as "no Services".
    #[error("no object in the file; write one, or remove the file")]
    Empty,
    /// A field that must be there is not.
    #[error("missing; {cure}")]
    Missing {
        /// What to write.
        cure: &'static str,
    },
    /// A value of the wrong type.
    #[error("{found} where {expected} belongs{}", found.cure(expected))]
    WrongType {
        /// The type that belongs there, with its article.
        expected: &'static str,
        /// What is there.
        found: Found,
    },
    /// A kind that is no source of forwarding state.
    #[error("unknown kind {found:?}; supported: Service, EndpointSlice, Node, ServiceCIDR, List")]
    UnknownKind {
        /// The kind in the manifest.
        found: String,
    },
    /// An `apiVersion` that does not have this kind.
    #[error("unknown version {found:?}; write {expected}")]
    UnknownVersion {
        /// The version in the manifest.
        found: String,
        /// The version that is supported.
        expected: &'static str,
    },
    /// A value outside a fixed set.
    #[error("unknown value {found:?}; write {choices}")]
    UnknownValue {
        /// The value in the manifest.
        found: String,
        /// The set.
        choices: &'static str,
    },
    /// An unknown transport protocol.
    #[error("{0}")]
    UnknownProtocol(#[from] ParseProtocolError),
    /// A number outside 1 to 65535.
    #[error("{found} is not a port; write a number from 1 to 65535")]
    NotAPort {
        /// The number in the manifest.
        found: i128,
    },
    /// A number outside its range.
    #[error("{found} is out of range; write a number from {least} to {most}")]
    OutOfRange {
        /// The number in the manifest.
        found: i128,
        /// The least that is allowed.
        least: u32,
        /// The most that is allowed.
        most: u32,
    },
    /// An IPv4 address with leading zeros, which some programs read as octal.
    #[error("{found:?} has leading zeros; write {plain}")]
    LeadingZeros {
        /// The text in the manifest.
        found: String,
        /// The address, its parts read as decimal.
        plain: IpAddr,
    },
    /// A text that is no IP address.
    #[error("{found:?} is not an IP address; write one such as 10.96.0.10 or fd00::10")]
    NotAnAddress {
        /// The text in the manifest.
        found: String,
    },
    /// An IPv4 address in IPv6 clothes.
    #[error("{found:?} is an IPv4 address written as IPv6; write {plain}")]
    MappedAddress {
        /// The text in the manifest.
        found: String,
        /// The address.
        plain: Ipv4Addr,
    },
    /// An address that no Service or endpoint can have.
    #[error("{addr} is {kind}; write an address of a single host")]
    UnusableAddress {
        /// The address.
        addr: IpAddr,
        /// What kind of address it is, with its article.
        kind: &'static str,
    },
    /// A text that is no range of addresses.
    #[error("{found:?} is not an address range; write one such as 10.0.0.0/8 or fd00::/8")]
    NotARange {
        /// The text in the manifest.
        found: String,
    },
    /// A range that two programs may read differently: leading zeros, an address inside the range
    /// instead of its first one, or IPv4 in IPv6 clothes.
    #[error("{found:?} can be read in several ways; write {plain}")]
    AmbiguousRange {
        /// The text in the manifest.
        found: String,
        /// The range that the API server reads.
        plain: IpNet,
    },
    /// A field that this object does not have, or not with these other fields.
    #[error("{why}; {cure}")]
    Misplaced {
        /// Why it cannot be there.
        why: &'static str,
        /// What to write or remove.
        cure: &'static str,
    },
    /// An endpoint address of the other family.
    #[error("{addr} is not of addressType {expected}; put it into a slice of its own type")]
    OtherFamily {
        /// The address.
        addr: IpAddr,
        /// The slice's `addressType`.
        expected: &'static str,
    },
    /// `podCIDR` and `podCIDRs` disagree.
    #[error("{found} is not the podCIDR {expected}; write {expected} first")]
    OtherPodCidr {
        /// `spec.podCIDRs[0]`.
        found: IpNet,
        /// `spec.podCIDR`.
        expected: IpNet,
    },
    /// `clusterIP` and `clusterIPs` disagree.
    #[error("{found} is not the clusterIP {expected}; write {expected} first")]
    OtherClusterIp {
        /// `spec.clusterIPs[0]`.
        found: IpAddr,
        /// `spec.clusterIP`.
        expected: IpAddr,
    },
    /// A second object of the same kind, namespace and name.
    #[error("the object is also in {first}; remove one of them")]
    DuplicateObject {
        /// Where the first one is.
        first: Place,
    },
    /// A second port of a Service with the same number and protocol, or the same name.
    #[error("the same {what} as spec.ports[{first}]; write another one")]
    DuplicatePort {
        /// What both have.
        what: &'static str,
        /// Index of the first one.
        first: usize,
    },
    /// `nodePort` in a Service that has none.
    #[error("a service of type ClusterIP has no node port; write type: NodePort or remove it")]
    StrayNodePort,
    /// Not an RFC 3339 timestamp.
    #[error("{found:?} is not a timestamp; write one such as 2026-01-31T12:00:00Z")]
    NotATimestamp {
        /// The text in the manifest.
        found: String,
    },
}

/// A value as it stands in a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// A string.
    Text(String),
    /// A whole number.
    Number(i128),
    /// A number with a fraction.
    Fraction(f64),
    /// `true` or `false`, or what YAML 1.1 takes for them.
    Flag(bool),
    /// A mapping.
    Object,
    /// A sequence.
    Array,
    /// Nothing.
    Null,
}

impl Found {
    /// Returns `; write …` when the value shows what was meant.
    fn cure(&self, expected: &str) -> String {
        match (expected, self) {
            ("a string", Self::Number(number)) => format!("; write \"{number}\""),
            ("a string", Self::Fraction(number)) => format!("; write \"{number}\""),
            ("a string", Self::Flag(flag)) => format!("; write \"{flag}\""),
            ("a number", Self::Text(text)) if text.parse::<i128>().is_ok() => {
                format!("; write {text}")
            }
            ("true or false", Self::Text(text)) if text.parse::<bool>().is_ok() => {
                format!("; write {text}")
            }
            _ => format!("; write {expected}"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "the string {text:?}"),
            Self::Number(number) => write!(f, "the number {number}"),
            Self::Fraction(number) => write!(f, "the number {number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Object => f.write_str("an object"),
            Self::Array => f.write_str("a list"),
            Self::Null => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.file.display().fmt(f),
            line => write!(f, "{}:{line}:{}", self.file.display(), self.column),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.file.as_os_str().is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        for part in [&self.object, &self.field].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{part}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

/// Returns the parser's message without its position, which [`Place`] has.
fn syntax(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{DefaultMessageFormatter, MessageFormatter};

    let message = DefaultMessageFormatter.format_message(error.without_snippet());
    let message = message.replace(char::is_control, " ");
    format!("not YAML or JSON: {message}; correct the text there")
}
