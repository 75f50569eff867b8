//! The one nft table, `inet passlane`: source NAT for what ip_vs scheduled, and a guard that no
//! port of a VIP reaches a process of the host by accident.
//!
//! Rules are fixed and versioned; only set elements change. Every write is one transaction of the
//! `nft` command, which is nftables' documented interface. Other tables are never touched.

mod drops;
mod elements;
mod error;
mod expression;
mod foreign_chains;
mod observe;
mod refused;
mod ruleset;
mod sets;
mod survey;
mod table;

pub use error::Error;
pub use foreign_chains::{FoundChain, FoundJump, remove_chains};
pub use observe::{Observed, Reading};
pub use refused::Refused;
pub use ruleset::{TABLE, VERSION};
pub use survey::Ruleset;
pub use table::Table;
