//! Read-only globals of the programs, set when they are loaded. The verifier sees constants.

/// Slow-path packets of a flow, in one direction, before it is worth an entry: keeps short
/// flows, as of scans and floods, out of the flow map.
pub const LEARN_AFTER: u32 = 3;

/// Names of the globals. All are `u32` unless said.
pub struct Setting;

impl Setting {
    /// Jiffies after which one packet is elected to renew the lease.
    pub const SOFT_LEASE: &'static str = "SOFT_LEASE";
    /// Jiffies after which no packet takes the fast path.
    pub const HARD_LEASE: &'static str = "HARD_LEASE";
    /// Jiffies between elections, when an elected packet did not come through.
    pub const ELECTION: &'static str = "ELECTION";
    /// Jiffies of a second.
    pub const SECOND: &'static str = "SECOND";
    /// New entries a second that the clients of one interface may cause.
    pub const INSTALL_RATE: &'static str = "INSTALL_RATE";
    /// A `u8`, aya-log's level: 0, the default, logs nothing; 4 logs what is learned. The hit path
    /// never logs.
    pub const LOG_LEVEL: &'static str = "AYA_LOG_LEVEL";
}
