//! All I/O on the node: IPVS, nft, links, routes, sysctls, modules, BPF. Nothing here decides.

pub mod bpf;
pub mod ipvs;
