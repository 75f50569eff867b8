//! Memory of this process.

use anyhow::{Context, Result};

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Resident {
    /// At this moment.
    pub(crate) now_kib: u64,
    /// The most there ever was.
    pub(crate) peak_kib: u64,
}

impl Resident {
    /// Reads it.
    pub(crate) fn read() -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        Self::parse(&status).context("/proc/self/status: no VmRSS or VmHWM")
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(':')?.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some(Self { now_kib: field("VmRSS")?, peak_kib: field("VmHWM")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_status_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2468 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!(Resident::parse(status), Some(Resident { now_kib: 1234, peak_kib: 2468 }));
        assert_eq!(Resident::parse("VmRSS:\t12 kB\n"), None);
        let here = Resident::read().unwrap();
        assert!(here.now_kib > 0 && here.peak_kib >= here.now_kib);
    }
}
