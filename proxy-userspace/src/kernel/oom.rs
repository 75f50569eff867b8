//! How readily the kernel ends this process when memory runs out.

use std::{fs, io, path::Path};

const PATH: &str = "/proc/self/oom_score_adj";

/// The value could not be set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Less than before needs a capability.
    #[error(
        "set oom_score_adj to {value}: a lower value than before needs CAP_SYS_RESOURCE; grant it, \
         or set oomScoreAdj (--oom-score-adj) to {before} or more"
    )]
    Privilege {
        /// The value that was to be set.
        value: i32,
        /// The value that stays.
        before: i32,
    },
    /// `/proc` is not there, or read-only.
    #[error("set oom_score_adj to {value} in {PATH}")]
    Write {
        /// The value that was to be set.
        value: i32,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

/// Sets the value for this process and those it starts: -1000 means never, 1000 means first.
///
/// # Errors
///
/// [`Error`]; the value stays as it was.
pub fn set_score(value: i32) -> Result<(), Error> {
    set(Path::new(PATH), value)
}

fn set(path: &Path, value: i32) -> Result<(), Error> {
    let before = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    if before == Some(value) {
        return Ok(());
    }
    match fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, value.to_string().as_bytes()))
    {
        Ok(()) => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => match before {
            Some(before) => Err(Error::Privilege { value, before }),
            None => Err(Error::Write { value, cause }),
        },
        Err(cause) => Err(Error::Write { value, cause }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_score_is_taken_by_the_kernel() {
        // Raising needs no privilege, and outlives neither the test nor hurts it.
        let before: i32 = fs::read_to_string(PATH).unwrap().trim().parse().unwrap();
        let higher = (before + 1).min(1000);
        set_score(higher).unwrap();
        assert_eq!(fs::read_to_string(PATH).unwrap().trim(), higher.to_string());
        // The kernel refuses what is out of range.
        let error = set_score(1001).unwrap_err();
        assert_eq!(error.to_string(), "set oom_score_adj to 1001 in /proc/self/oom_score_adj");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = set(Path::new("/proc/self/no_such_file"), 1).unwrap_err();
        assert!(matches!(error, Error::Write { value: 1, .. }), "{error}");
    }
}
