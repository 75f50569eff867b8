//! Which shared libraries a program needs, as its dynamic section says.

use anyhow::{Context as _, Result};
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _};

/// What an executable or a library asks the loader for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wants {
    /// The path of the loader itself; libraries name none.
    pub(super) loader: Option<String>,
    /// File names of libraries.
    pub(super) libraries: Vec<String>,
}

/// Reads what the ELF file wants.
pub(super) fn wants(bytes: &[u8]) -> Result<Wants> {
    let header = FileHeader64::<Endianness>::parse(bytes).context("no 64-bit ELF file")?;
    let endian = header.endian()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut loader = None;
    for segment in header.program_headers(endian, bytes)? {
        loader = segment.interpreter(endian, bytes)?.map(text).or(loader);
    }
    let sections = header.sections(endian, bytes)?;
    let Some((entries, index)) = sections.dynamic(endian, bytes)? else {
        return Ok(Wants { loader, libraries: Vec::new() });
    };
    let strings = sections.strings(endian, bytes, index)?;
    let mut libraries = Vec::new();
    for entry in entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
        libraries.push(text(entry.string(endian, strings)?));
    }
    Ok(Wants { loader, libraries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_needs_the_c_library_and_a_loader() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let wants = wants(&bytes).unwrap();
        assert!(wants.libraries.iter().any(|name| name == "libc.so.6"), "{wants:?}");
        assert!(wants.loader.is_some_and(|loader| loader.contains("ld-linux")));
    }

    #[test]
    fn a_text_is_no_program() {
        assert!(wants(b"#!/bin/sh\n").is_err());
    }
}
