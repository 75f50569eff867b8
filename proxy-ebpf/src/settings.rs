//! Constants the agent sets when it loads the programs; the verifier prunes what they rule out.

use aya_ebpf::Global;

/// Jiffies after which one packet is elected to renew the lease.
#[unsafe(no_mangle)]
pub static SOFT_LEASE: Global<u32> = Global::new(750);

/// Jiffies after which no packet takes the fast path.
#[unsafe(no_mangle)]
pub static HARD_LEASE: Global<u32> = Global::new(1250);

/// Jiffies between elections.
#[unsafe(no_mangle)]
pub static ELECTION: Global<u32> = Global::new(125);

/// Jiffies of a second.
#[unsafe(no_mangle)]
pub static SECOND: Global<u32> = Global::new(250);

/// New entries a second that the clients of one interface may cause.
#[unsafe(no_mangle)]
pub static INSTALL_RATE: Global<u32> = Global::new(u32::MAX);
