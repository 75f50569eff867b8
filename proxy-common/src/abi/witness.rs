//! Who changed something on the node, as kernel probes saw it.

use super::{MapSpec, layout::abi_struct};

abi_struct! {
    /// A process, and which part of the node it set out to change.
    pub struct Deed (8) {
        /// One of [`Part`].
        pub part: u32,
        /// Process id, in the first PID namespace.
        pub process: u32,
    }

    /// When it last did, and who it was.
    pub struct Doer (32) {
        /// `CLOCK_MONOTONIC`, nanoseconds.
        pub at: u64,
        /// User id, in the first user namespace.
        pub user: u32,
        /// Zero.
        pub _pad: [u8; 4],
        /// Name of the program, padded with zeros (`task_struct.comm`).
        pub command: [u8; 16],
    }
}

/// Parts of a node that have probes.
#[derive(Clone, Copy, Debug)]
pub struct Part;

impl Part {
    /// Virtual servers and destinations.
    pub const IPVS: u32 = 0;
    /// The nft ruleset.
    pub const NFT: u32 = 1;
    /// Routes, addresses and links.
    pub const ADDRESS: u32 = 2;
    /// Sysctls.
    pub const SYSCTL: u32 = 3;
    /// So many there are.
    pub const COUNT: u32 = 4;
}

/// Who did what lately. It is not pinned and ends with the agent, so no two versions share it.
pub const DEEDS: MapSpec = MapSpec {
    name: "deeds",
    kind: super::LRU_HASH,
    key_size: size_of::<Deed>() as u32,
    value_size: size_of::<Doer>() as u32,
    max_entries: 256,
};

/// When each part was last set out to be changed, `CLOCK_MONOTONIC`, nanoseconds, 0 for never: by
/// [`Part`] for others than the agent, in whatever network namespace their process is, as its sockets
/// may be in another one; by [`Part`] + [`Part::COUNT`] for the agent. Not pinned.
pub const LAST: MapSpec = MapSpec {
    name: "last",
    kind: super::ARRAY,
    key_size: 4,
    value_size: 8,
    max_entries: 2 * Part::COUNT,
};

/// One element: the process id of the agent, in the first PID namespace; 0 until it was seen.
pub const AGENT: MapSpec =
    MapSpec { name: "agent", kind: super::ARRAY, key_size: 4, value_size: 4, max_entries: 1 };

/// Read-only globals of the probes, all `u64`; offsets are in bytes, from the kernel's own types.
#[derive(Clone, Copy, Debug)]
pub struct WitnessSetting;

impl WitnessSetting {
    /// Process id of the agent in its own PID namespace.
    pub const PROCESS: &'static str = "PROCESS";
    /// Inode of that PID namespace.
    pub const PROCESSES: &'static str = "PROCESSES";
    /// Device of that inode, as the kernel has it: 12 bits major, 20 bits minor.
    pub const DEVICE: &'static str = "DEVICE";
    /// Inode of the agent's network namespace: what is done in another one is not ours.
    pub const NETWORK: &'static str = "NETWORK";
    /// Offset of `task_struct.real_parent`.
    pub const TASK_PARENT: &'static str = "TASK_PARENT";
    /// Offset of `task_struct.tgid`.
    pub const TASK_PROCESS: &'static str = "TASK_PROCESS";
    /// Offset of `task_struct.nsproxy`.
    pub const TASK_NAMESPACES: &'static str = "TASK_NAMESPACES";
    /// Offset of `nsproxy.net_ns`.
    pub const NAMESPACES_NET: &'static str = "NAMESPACES_NET";
    /// Offset of `net.ns.inum`.
    pub const NET_INODE: &'static str = "NET_INODE";
}
