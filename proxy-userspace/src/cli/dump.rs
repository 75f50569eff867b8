//! `passlane dump`: everything that `passlane trace` needs, to be asked about elsewhere.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;
use proxy_common::abi;
use serde::Deserialize;

use super::{
    Failure,
    output::{self, Format, Layout, Style, View},
};
use crate::{
    audit::{self, hashed::Hashed, traffic::FastTraffic},
    config::Paths,
    explain::{Dump, Packet, dump::VERSION},
    kernel::bpf::{self, Maps, PinDirectory},
    ledger::Owned,
    status::Report,
};

/// The flags of `passlane dump`.
#[derive(Args, Clone, Debug)]
pub(super) struct Flags {
    #[command(flatten)]
    paths: Paths,
}

/// A file that is no dump.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read dump {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// It is not what `passlane dump` writes.
    #[error("read dump {path}: write one with passlane dump > FILE")]
    Format {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: serde_json::Error,
    },
    /// Another passlane wrote it.
    #[error(
        "read dump {path}: it has form {found}, this passlane reads form {VERSION}; use the \
         passlane that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Prints the dump as JSON on one line.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let dump = gather(&flags.paths, None)?;
    Ok(output::text(&text(&dump)?)?)
}

/// Returns the dump as JSON on one line.
pub(super) fn text(dump: &Dump) -> Result<String, output::Error> {
    output::show(dump, Format::Json, true, Layout::Sequence)
}

impl View for Dump {
    const KIND: &'static str = "Dump";

    /// It is for programs.
    fn text(&self, _: Style) -> String {
        String::new()
    }
}

/// Reads the node, for one packet or for any.
pub(super) fn gather(paths: &Paths, only: Option<&Packet>) -> Result<Dump, Failure> {
    let owned = Owned::read(&paths.state_dir)?;
    let report = Report::read(&paths.state_dir)?;
    let maps = maps(paths)?;
    super::block_on(async {
        Ok(audit::dump::gather(&owned, report.as_ref(), maps.as_ref(), only).await?)
    })
}

/// Opens the maps; `None` when none are pinned.
pub(super) fn maps(paths: &Paths) -> Result<Option<Maps>, bpf::Error> {
    let pins = PinDirectory::at(&paths.bpffs);
    pins.map(abi::STATS.name).exists().then(|| Maps::open(&pins)).transpose()
}

/// Reads what both planes beside IPVS carried.
pub(super) fn traffic(paths: &Paths, maps: Option<&Maps>) -> Result<FastTraffic, bpf::Error> {
    let fast = maps.map(FastTraffic::read).transpose()?.unwrap_or_default();
    Ok(match Hashed::read(&paths.state_dir, &paths.bpffs)? {
        Some(hashed) => fast.with(&hashed),
        None => fast,
    })
}

/// Reads a dump from a file.
pub(super) fn read(path: &Path) -> Result<Dump, Error> {
    /// What every form has.
    #[derive(Deserialize)]
    struct Any {
        version: u32,
    }
    let text = fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let wrong = |source| Error::Format { path: path.to_owned(), source };
    let Any { version } = serde_json::from_slice(&text).map_err(wrong)?;
    if version != VERSION {
        return Err(Error::Version { path: path.to_owned(), found: version });
    }
    serde_json::from_slice(&text).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump.json");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    #[test]
    fn a_dump_is_read_as_it_was_written() {
        let dump = Dump { version: VERSION, taken_at: 5, ..Dump::default() };
        let (_directory, path) = file(&text(&dump).unwrap());
        assert_eq!(read(&path).unwrap(), dump);
    }

    #[test]
    fn a_dump_of_another_form_is_refused_whatever_else_it_holds() {
        let (_directory, path) = file(r#"{"version": 7, "servers": "elsewhere"}"#);
        let error = read(&path).unwrap_err();
        assert!(matches!(error, Error::Version { found: 7, .. }), "{error}");
    }

    #[test]
    fn what_is_no_dump_says_how_to_make_one() {
        let (_directory, path) = file("Prot LocalAddress:Port");
        let error = read(&path).unwrap_err();
        assert!(error.to_string().contains("passlane dump > FILE"), "{error}");
        let error = read(Path::new("/nonexistent/dump.json")).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error}");
    }
}
