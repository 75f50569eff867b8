//! What the checks found, in a file of the state directory: for the command line, and for the next
//! agent.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::State;
use crate::{
    model::{Backend, ServiceName},
    status::Error,
};

/// The file's name.
pub const NAME: &str = "checks.json";

/// A backend of a Service, and how it stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct BackendCheck {
    /// The Service.
    pub service: ServiceName,
    /// The backend.
    pub backend: Backend,
    /// How it is checked, every option named.
    pub check: String,
    /// How it stands.
    #[serde(flatten)]
    pub state: State,
}

/// Writes the file; a reader sees the old one or the new one. Without checks there is none.
///
/// # Errors
///
/// [`Error::File`].
pub fn write(state_dir: &Path, checks: &[BackendCheck]) -> Result<(), Error> {
    let path = state_dir.join(NAME);
    let failed = |source| Error::File { operation: "write", path: path.clone(), source };
    if checks.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        };
    }
    let beside = path.with_extension("new");
    let text = serde_json::to_vec(checks)
        .map_err(|source| Error::Format { path: path.clone(), source })?;
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path)).map_err(failed)
}

/// Reads the file; nothing when there is none, or one of another version.
///
/// # Errors
///
/// [`Error::File`].
pub fn read(state_dir: &Path) -> Result<Vec<BackendCheck>, Error> {
    let path: PathBuf = state_dir.join(NAME);
    match fs::read(&path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error::File { operation: "read", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Check, Probe, Protocol};

    #[test]
    fn checks_are_read_as_they_were_written_and_none_leave_no_file() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), []);
        let check = Check { fall: 1, ..Check::of(Probe::Tcp) };
        let mut state = State::new(&check, 3);
        state.take(&check, false, "connect: refused", 5);
        let checks = vec![BackendCheck {
            service: ServiceName { namespace: "shop".into(), name: "web".into() },
            backend: Backend { addr: [10, 1, 0, 1].into(), port: 80, protocol: Protocol::Tcp },
            check: check.to_string(),
            state,
        }];
        write(directory.path(), &checks).unwrap();
        assert_eq!(read(directory.path()).unwrap(), checks);
        fs::write(directory.path().join(NAME), "[{}]").unwrap();
        assert_eq!(read(directory.path()).unwrap(), [], "of another version");
        write(directory.path(), &[]).unwrap();
        write(directory.path(), &[]).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
