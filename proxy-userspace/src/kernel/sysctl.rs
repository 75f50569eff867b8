//! Kernel settings under `/proc/sys`.

use std::{fmt, fs, io, path::PathBuf};

/// The name of a setting, as path segments below `/proc/sys`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    segments: Vec<String>,
}

impl Key {
    /// Names a setting by its dotted name, such as `net.ipv4.vs.conntrack`. No segment may
    /// contain a dot: use [`Key::from_segments`] when one is the name of an interface.
    pub fn dotted(name: &str) -> Self {
        Self::from_segments(&name.split('.').collect::<Vec<_>>())
    }

    /// Names a setting by its segments, such as `["net", "ipv4", "conf", "eth0.7", "rp_filter"]`.
    pub fn from_segments(segments: &[&str]) -> Self {
        Self { segments: segments.iter().copied().map(str::to_owned).collect() }
    }

    fn path(&self) -> PathBuf {
        // A slash within a segment would leave its directory; sysctl(8) writes it for a dot.
        let segments = self.segments.iter().map(|segment| segment.replace('/', "."));
        ["/proc/sys".to_owned()].into_iter().chain(segments).collect()
    }
}

/// Prints as sysctl(8) does: dots separate segments, and a dot within one is a slash.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments: Vec<_> =
            self.segments.iter().map(|segment| segment.replace('.', "/")).collect();
        f.write_str(&segments.join("."))
    }
}

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This kernel does not have it, or its module is not loaded.
    #[error("sysctl {key} is not there: the kernel lacks it, or its module is not loaded")]
    Absent {
        /// The setting.
        key: Key,
    },
    /// It is not readable.
    #[error("read sysctl {key}")]
    Read {
        /// The setting.
        key: Key,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// It is not to be written here.
    #[error(
        "set sysctl {key} to {value}: /proc/sys is read-only; run `passlane run --init-only` first \
         where it is not, or set it on the host"
    )]
    ReadOnly {
        /// The setting.
        key: Key,
        /// The value.
        value: String,
    },
    /// It does not take the value.
    #[error("set sysctl {key} to {value}")]
    Write {
        /// The setting.
        key: Key,
        /// The value.
        value: String,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

/// Returns the value without surrounding white space. Settings of the network are those of the
/// calling thread's network namespace.
pub fn read(key: &Key) -> Result<String, Error> {
    match fs::read_to_string(key.path()) {
        Ok(value) => Ok(value.trim().to_owned()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            Err(Error::Absent { key: key.clone() })
        }
        Err(cause) => Err(Error::Read { key: key.clone(), cause }),
    }
}

/// Sets the value.
pub fn write(key: &Key, value: &str) -> Result<(), Error> {
    // Without create: a missing setting must not look like a permission problem.
    let written = fs::OpenOptions::new()
        .write(true)
        .open(key.path())
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    match written {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            Err(Error::Absent { key: key.clone() })
        }
        Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Err(Error::ReadOnly { key: key.clone(), value: value.to_owned() })
        }
        Err(cause) => Err(Error::Write { key: key.clone(), value: value.to_owned(), cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dotted_name_and_its_segments_are_the_same_key() {
        let key = Key::dotted("net.ipv4.vs.conntrack");
        assert_eq!(key, Key::from_segments(&["net", "ipv4", "vs", "conntrack"]));
        assert_eq!(key.path(), PathBuf::from("/proc/sys/net/ipv4/vs/conntrack"));
        assert_eq!(key.to_string(), "net.ipv4.vs.conntrack");
    }

    #[test]
    fn an_interface_name_with_a_dot_is_one_segment() {
        let key = Key::from_segments(&["net", "ipv4", "conf", "eth0.7", "rp_filter"]);
        assert_eq!(key.path(), PathBuf::from("/proc/sys/net/ipv4/conf/eth0.7/rp_filter"));
        assert_eq!(key.to_string(), "net.ipv4.conf.eth0/7.rp_filter");
    }

    #[test]
    fn no_segment_leaves_its_directory() {
        let key = Key::from_segments(&["net", "../../etc/passwd"]);
        assert!(key.path().starts_with("/proc/sys/net"));
        assert!(!key.path().to_string_lossy().contains("/etc/"));
    }

    #[test]
    fn a_value_is_read_trimmed() {
        assert!(read(&Key::dotted("kernel.pid_max")).unwrap().parse::<u32>().is_ok());
    }

    #[test]
    fn an_absent_setting_is_named_in_the_error() {
        let error = read(&Key::dotted("net.ipv4.nonsense")).unwrap_err();
        assert!(error.to_string().starts_with("sysctl net.ipv4.nonsense is not there"));
        assert!(matches!(write(&Key::dotted("net.ipv4.nonsense"), "1"), Err(Error::Absent { .. })));
    }
}
