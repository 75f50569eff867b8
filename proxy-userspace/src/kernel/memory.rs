//! The memory of the node.

/// Returns its bytes.
pub fn total() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
