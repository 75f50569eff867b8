//! All I/O on the node: IPVS, nft, links, routes, conntrack, sysctls, modules, BPF. Nothing here decides.
//!
//! | module | owns |
//! |---|---|
//! | [`bpf`] | programs, pinned maps and links, by aya |
//! | [`capability`] | what the process may do |
//! | [`check`] | whether a backend answers, for health checks |
//! | [`cgroup`] | the root of the cgroup hierarchy |
//! | [`namespace`] | what the network namespace is known by, and new ones |
//! | [`ipvs`] | virtual servers and destinations, by generic netlink |
//! | [`nft`] | the table `inet passlane`, by the `nft` command |
//! | [`link`] | interfaces, the dummy device, a watch for changes |
//! | [`next_hop`] | where frames to a destination go, by routes and neighbours |
//! | [`route`] | VIPs as local routes |
//! | [`tc`] | filters on interfaces, read only |
//! | [`sysctl`] | settings under `/proc/sys` |
//! | [`conntrack`] | stale conntrack entries, by netlink |
//! | [`listen`] | sockets of the agent's own servers |
//! | [`module`] | kernel modules |
//! | [`kube_proxy`] | whether one runs, and what one has left |
//! | [`inspect`] | files and commands for who helps from afar |
//! | [`oom`] | what is ended first when memory runs out |
//! | [`fingerprint`] | numbers that stand for tables; no I/O |
//! | [`process`] | what the agent itself uses |
//! | [`cpu`] | how many CPUs the node has |
//! | [`memory`] | how much memory it has |
//!
//! Everything may import `model`; nothing here imports `plan`, `apply`, `source` or the command
//! line. Writes are idempotent: putting what exists edits it, removing the absent succeeds.

pub mod bpf;
mod btf;
pub mod capability;
pub mod cgroup;
pub mod check;
pub mod conntrack;
pub mod cpu;
pub mod fingerprint;
pub mod inspect;
pub mod ipvs;
pub mod kube_proxy;
pub mod link;
pub mod listen;
pub mod memory;
pub mod module;
pub mod namespace;
mod netlink;
pub mod next_hop;
pub mod nft;
pub mod node;
pub mod oom;
pub mod process;
mod raw;
pub mod route;
pub mod sysctl;
pub mod tc;

pub use netlink::Failure as NetlinkFailure;
