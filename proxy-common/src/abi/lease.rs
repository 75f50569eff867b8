//! Packets on their way through the slow path.

use super::{flow::FlowKey, layout::abi_struct};

abi_struct! {
    /// A packet that was stamped at ingress: enough to know it again at egress.
    pub struct Pending<A> (56, 80) {
        /// The flow as it came in.
        pub key: FlowKey<A>,
        /// Jiffies when it was stamped.
        pub stamped_at: u32,
        /// Epoch when it was stamped: the entry holds in that epoch only.
        pub epoch: u32,
        /// Edit counter when it was stamped.
        pub edits: u32,
        /// CPU that stamped it; egress on another CPU learns nothing.
        pub cpu: u32,
        /// TCP: sequence number as it is in the packet. UDP: first payload word, or zero.
        pub fingerprint: u32,
        /// TCP: acknowledgement number. UDP: second payload word, or zero.
        pub fingerprint2: u32,
        /// First word of the IP header as it is in the packet: version, TOS and total length, or
        /// traffic class and flow label.
        pub ip_first: u32,
        /// Length of the packet as its IP header says it, host order.
        pub ip_len: u32,
        /// TTL at ingress.
        pub ttl: u32,
    }
}

/// Slots of `pending4` and `pending6` that belong to one CPU. A token is `cpu * SLOTS_PER_CPU + n` modulo 2^16.
pub const SLOTS_PER_CPU: u32 = 1024;

/// Slots of `warmup`, a power of two.
pub const WARMUP_SLOTS: u32 = 1 << 14;

abi_struct! {
    /// Entries that the clients of an interface caused of late.
    pub struct Installs (8) {
        /// Jiffies when counting began.
        pub since: u32,
        /// How many since, at most a second ago.
        pub count: u32,
    }
}

/// Slots of `installs`, a power of two.
pub const INSTALL_SLOTS: u32 = 1 << 12;
