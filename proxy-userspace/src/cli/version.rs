//! `passlane version`.

use serde::Serialize;

use super::{Failure, output};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    abi: u32,
    kernel: String,
}

/// Returns the release of the running kernel, as `uname -r` prints it.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Prints the version of this build, of the map ABI, and of the kernel.
pub fn run(format: output::Format) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        abi: proxy_common::abi::ABI_VERSION,
        kernel: kernel(),
    };
    output::value(&version, format, |_| {
        let mut table = output::table(["VERSION", "ABI", "KERNEL"]);
        table.add_row([version.version, &version.abi.to_string(), &version.kernel]);
        table
    })?;
    Ok(())
}
