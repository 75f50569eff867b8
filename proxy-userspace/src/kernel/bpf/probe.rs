//! What the kernel can do.

use aya::{programs::ProgramType, sys::is_program_supported};

use super::Error;

/// Says whether the kernel loads tc programs.
///
/// # Errors
///
/// [`Error::Program`] when it does not say, for want of privilege.
pub fn supports_tc() -> Result<bool, Error> {
    is_program_supported(ProgramType::SchedClassifier).map_err(|source| Error::Program {
        operation: "probe",
        program: "tc",
        interface: "-".into(),
        source: Box::new(source),
    })
}
