//! Connections handed to IPVS by its own sync protocol (`net/netfilter/ipvs/ip_vs_sync.c`).
//!
//! ```text
//! SyncedConnection ──▶ connection ──▶ message ──▶ bytes ──▶ SyncSender ──▶ multicast ──▶ backup daemon
//! ```
//!
//! Netlink makes no connections. A sync daemon of the kernel in state backup does: it takes messages
//! from the multicast group of one interface, and a sender on the same node is heard as one on another
//! is. [`daemon`] starts and stops it; [`message`] and [`connection`] are pure.
//!
//! Whoever can send to the group on that interface can make connections as well: nothing is signed.
//! Interface `lo` is heard by the own node alone.

pub mod connection;
pub mod daemon;
pub mod message;
mod sender;

pub use connection::{SyncState, SyncedConnection};
pub use daemon::{Backup, Daemon, DaemonState, Removal};
pub use sender::{Error, SyncSender};
