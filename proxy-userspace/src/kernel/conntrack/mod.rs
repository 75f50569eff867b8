//! Conntrack entries by netlink (`net/netfilter/nf_conntrack_netlink.c`): finding the stale ones and
//! deleting them, and nothing else.
//!
//! ```text
//! Client ── message ──▶ netlink-packet-netfilter ──▶ netlink-proto
//!        ◀── Entry  ──                           ◀──
//! ```
//!
//! UDP and SCTP senders may keep one socket for hours, and as long as packets come their entry
//! never times out. An entry made while a frontend had no endpoint, or for an endpoint that went,
//! leads the packets nowhere until it is deleted.

mod client;
mod entry;
mod error;
#[cfg(test)]
mod golden;
mod message;
mod stale;

pub use client::Client;
pub use error::{Error, Hint, Operation};
pub use stale::Stale;
