//! IPVS by generic netlink, family `IPVS` version 1 (`net/netfilter/ipvs/ip_vs_ctl.c`).
//!
//! ```text
//! Client ── Request ──▶ message ──▶ attribute ──▶ bytes ──▶ netlink-proto
//!        ◀── states ──  decode  ◀── attribute ◀── bytes ◀──
//! ```
//!
//! [`message`] and everything below it are pure functions over bytes: they are tested with the
//! bytes of real kernels and with arbitrary ones. Only [`Client`] does I/O, besides
//! [`connections`], [`table`] and [`Totals`], which read files of `/proc/net`, [`mh_table`], and the
//! sender of [`sync`].

pub mod attribute;
mod buckets;
mod client;
pub mod command;
pub mod connections;
pub mod destination;
mod error;
mod family;
#[cfg(test)]
mod golden;
pub mod info;
pub mod listing;
pub mod message;
pub mod mh_table;
pub mod stats;
pub mod sync;
pub mod table;
mod totals;
pub mod virtual_server;

pub use attribute::DecodeError;
pub use client::Client;
pub use command::Command;
pub use destination::DestinationState;
pub use error::{Error, Hint, Operation};
pub use info::{Info, Timeouts};
pub use stats::Stats;
pub use totals::Totals;
pub use virtual_server::VirtualServerState;
