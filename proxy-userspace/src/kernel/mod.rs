//! All I/O on the node: IPVS, nft, links, routes, sysctls, modules, BPF. Nothing here decides.
//!
//! | module | owns |
//! |---|---|
//! | [`ipvs`] | virtual servers and destinations, by generic netlink |
//! | [`nft`] | the table `inet passlane`, by the `nft` command |
//!
//! Everything may import `model`; nothing here imports `plan`, `apply`, `source` or the command
//! line. Writes are idempotent: putting what exists edits it, removing the absent succeeds.

pub mod ipvs;
mod netlink;
pub mod nft;

pub use netlink::Failure as NetlinkFailure;
