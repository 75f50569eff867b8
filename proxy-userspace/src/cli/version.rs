//! `passlane version`.

use serde::Serialize;

use super::{
    Failure, FormatFlag,
    output::{self, Style, View},
};

/// What `version` says.
#[derive(Serialize)]
pub(super) struct Version {
    version: &'static str,
    abi: u32,
    kernel: String,
}

/// Returns the release of the running kernel, as `uname -r` prints it.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

impl View for Version {
    const KIND: &'static str = "Version";

    fn text(&self, style: Style) -> String {
        let mut table = output::table(["VERSION", "ABI", "KERNEL"]);
        table.add_row([self.version, &self.abi.to_string(), &self.kernel]);
        output::render(&table, style.headers)
    }
}

/// Prints the version of this build, of the map ABI, and of the kernel.
pub(super) fn run(format: &FormatFlag) -> Result<(), Failure> {
    Ok(format.show(&gather())?)
}

/// Returns the versions.
pub(super) fn gather() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION"),
        abi: proxy_common::abi::ABI_VERSION,
        kernel: kernel(),
    }
}
