//! The hash plane: flows that XDP sends on to the backend that the kernel's `mh` names, by direct
//! routing or in a tunnel. Nothing is translated, and IPVS underneath agrees.
//!
//! ```text
//! packet ──hash_tagsN──▶ set of hash_flowsN ──▶ backend while the flow lives
//!    └──hash_frontendsN──▶ table ──slot of the client──▶ backend ──hash_backends──▶ next hop
//! ```
//!
//! A backend here is one destination of one virtual server, so its counters are those of both.

use super::{Addr, HashFlowSet, HashTags, MapSpec, ServiceKey, Uplink, layout::abi_struct};

abi_struct! {
    /// A frontend of the hash plane.
    pub struct HashFrontend (8) {
        /// Index in `hash_tables`.
        pub table: u32,
        /// Bits of `HashFrontendFlags`.
        pub flags: u32,
    }

    /// A destination of a virtual server, and the way to it.
    pub struct HashBackend (72) {
        /// Changes when the index is given to another destination; 0 where there is none.
        pub generation: u32,
        /// Bits of `HashBackendFlags`.
        pub flags: u32,
        /// Jiffies until which the next hop holds: from then on, all packets are the kernel's.
        pub until: u32,
        /// The way out, an interface index.
        pub interface: u32,
        /// Bytes of the largest packet of a client that fits, from its IP header on: the route's
        /// MTU without what the tunnel adds.
        pub mtu: u32,
        /// Destination and source MAC address, and the EtherType of what is sent.
        pub ethernet: [u8; 14],
        /// VLAN tag of what is sent (id and priority), host order; 0 for none.
        pub vlan: u16,
        /// A `HashMethod`.
        pub method: u8,
        /// 4 or 6: the outer header of a tunnel, else the family of the frontend.
        pub family: u8,
        /// UDP port of the other end of a GUE tunnel, host order.
        pub port: u16,
        /// Source and destination address of the outer header, network order, one after the other:
        /// 8 bytes of IPv4, or all of IPv6.
        pub addrs: [u8; 32],
    }

    /// A VLAN whose frames are this host's, on an interface of the hash plane.
    pub struct HashVlan (8) {
        /// Interface index.
        pub interface: u32,
        /// VLAN id.
        pub vlan: u32,
    }

    /// What the hash plane sent to a backend, one a CPU. It wraps; it is zeroed when the backend's
    /// index is given to another destination.
    pub struct HashCount (24) {
        /// Packets.
        pub packets: u64,
        /// Their bytes from the client's IP header on.
        pub bytes: u64,
        /// Flows that were chosen for.
        pub flows: u64,
    }
}

/// Bits of `HashFrontend::flags`.
pub struct HashFrontendFlags;

impl HashFrontendFlags {
    /// `mh-fallback`: where the slot's backend takes nothing, another one is looked for.
    pub const FALLBACK: u32 = 0x08;
    /// `mh-port`: the client's port is part of its hash.
    pub const PORT: u32 = 0x10;
}

/// Bits of `HashBackend::flags`.
pub struct HashBackendFlags;

impl HashBackendFlags {
    /// It gets new flows: its weight is above 0.
    pub const TAKES_NEW: u32 = 1;
    /// The next hop is known; without it, all packets are the kernel's.
    pub const REACHABLE: u32 = 2;
}

/// Values of `HashBackend::method`.
pub struct HashMethod;

impl HashMethod {
    /// Direct routing: another MAC address.
    pub const ROUTE: u8 = 1;
    /// IP in IP.
    pub const IPIP: u8 = 2;
    /// Generic UDP encapsulation, with a checksum of zero as IPVS has it without `csum`.
    pub const GUE: u8 = 3;
    /// Generic routing encapsulation without options.
    pub const GRE: u8 = 4;
}

/// An entry of a table, one a slot.
pub struct HashSlot;

impl HashSlot {
    /// The index of the backend, in these bits; 0 for nobody.
    pub const BACKEND: u32 = 0x00ff_ffff;
    /// The slot had another backend not long ago. A packet that opens nothing and has no entry may be
    /// of a flow that lives there: the kernel, which was told of those, decides.
    pub const ASK: u32 = 1 << 31;
}

/// Read-only globals of the program, `u32` each.
pub struct HashSetting;

impl HashSetting {
    /// Slots of the kernel's table, a prime.
    pub const SLOTS: &'static str = "SLOTS";
    /// Jiffies without a packet after which a TCP flow is over, as in IPVS.
    pub const TCP_TIMEOUT: &'static str = "TCP_TIMEOUT";
    /// The same after a FIN or RST.
    pub const CLOSING_TIMEOUT: &'static str = "CLOSING_TIMEOUT";
    /// The same of UDP.
    pub const UDP_TIMEOUT: &'static str = "UDP_TIMEOUT";
    /// Jiffies of a second.
    pub const SECOND: &'static str = "SECOND";
    /// Sets of `hash_flows4`, less one. `hash_tags4` has the tags of two of them in an element.
    pub const MASK4: &'static str = "MASK4";
    /// Sets of `hash_flows6`, less one.
    pub const MASK6: &'static str = "MASK6";
    /// Entries that a CPU makes in a second: beyond, flows are chosen for packet by packet, and a
    /// flood does not crowd out the others.
    pub const NEW_FLOWS: &'static str = "NEW_FLOWS";
}

/// Capacities of the hash plane.
pub mod hash_capacity {
    /// Flows of a family that have room, by default.
    pub const FLOWS: u32 = 1 << 18;
    /// The fewest that can be asked for.
    pub const LEAST_FLOWS: u32 = 1 << 10;
    /// The most: the map is an array below 4 GiB.
    pub const MOST_FLOWS: u32 = 1 << 24;
    /// Entries for each of them. With fewer, more flows would find both their sets full.
    const ENTRIES: u32 = 2;

    /// Returns how many sets have room for so many flows, a power of two.
    pub const fn sets(flows: u32) -> u32 {
        (flows * ENTRIES).div_ceil(crate::flow_place::WAYS as u32).next_power_of_two()
    }
    /// Sets whose tags are in one element: the kernel gives an element no less than eight bytes.
    pub const TAGGED: u32 = 2;
    /// Frontends, and tables; a table has as many slots as the kernel's.
    pub const FRONTENDS: u32 = 1 << 12;
    /// Backends: destinations of all virtual servers; the first index is 1.
    pub const BACKENDS: u32 = 1 << 16;
    /// VLANs of all interfaces.
    pub const VLANS: u32 = 1 << 12;
    /// Reasons.
    pub const REASONS: u32 = 64;
}

const fn flows<A: Addr>(name: &'static str) -> MapSpec {
    MapSpec {
        name,
        kind: super::ARRAY,
        key_size: 4,
        value_size: size_of::<HashFlowSet<A>>() as u32,
        max_entries: hash_capacity::sets(hash_capacity::FLOWS),
    }
}

const fn tags(name: &'static str) -> MapSpec {
    MapSpec {
        name,
        kind: super::ARRAY,
        key_size: 4,
        value_size: size_of::<HashTags>() as u32,
        max_entries: hash_capacity::sets(hash_capacity::FLOWS) / hash_capacity::TAGGED,
    }
}

const fn frontends<A: Addr>(name: &'static str) -> MapSpec {
    MapSpec {
        name,
        kind: super::HASH,
        key_size: size_of::<ServiceKey<A>>() as u32,
        value_size: size_of::<HashFrontend>() as u32,
        max_entries: hash_capacity::FRONTENDS,
    }
}

/// Flows over IPv4.
pub const HASH_FLOWS4: MapSpec = flows::<[u8; 4]>("hash_flows4");
/// Flows over IPv6.
pub const HASH_FLOWS6: MapSpec = flows::<[u8; 16]>("hash_flows6");
/// Tags of the entries of `hash_flows4`.
pub const HASH_TAGS4: MapSpec = tags("hash_tags4");
/// Tags of the entries of `hash_flows6`.
pub const HASH_TAGS6: MapSpec = tags("hash_tags6");
/// Frontends of IPv4.
pub const HASH_FRONTENDS4: MapSpec = frontends::<[u8; 4]>("hash_frontends4");
/// Frontends of IPv6.
pub const HASH_FRONTENDS6: MapSpec = frontends::<[u8; 16]>("hash_frontends6");
/// Tables, each an array of `u32`, a `HashSlot` each: replaced as a whole.
pub const HASH_TABLES: MapSpec = MapSpec {
    name: "hash_tables",
    kind: 12,
    key_size: 4,
    value_size: 4,
    max_entries: hash_capacity::FRONTENDS,
};
/// Backends and next hops.
pub const HASH_BACKENDS: MapSpec = MapSpec {
    name: "hash_backends",
    kind: super::ARRAY,
    key_size: 4,
    value_size: size_of::<HashBackend>() as u32,
    max_entries: hash_capacity::BACKENDS,
};
/// The seed of the places of flows.
pub const HASH_SEED: MapSpec =
    MapSpec { name: "hash_seed", kind: super::ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
/// What was sent to each backend.
pub const HASH_COUNTS: MapSpec = MapSpec {
    name: "hash_counts",
    kind: super::PERCPU_ARRAY,
    key_size: 4,
    value_size: size_of::<HashCount>() as u32,
    max_entries: hash_capacity::BACKENDS,
};
/// Packets by `HashReason`, a `Counter` each.
pub const HASH_STATS: MapSpec = MapSpec {
    name: "hash_stats",
    kind: super::PERCPU_ARRAY,
    key_size: 4,
    value_size: size_of::<super::Counter>() as u32,
    max_entries: hash_capacity::REASONS,
};
/// Interfaces that the program runs on, and their MAC addresses, by `Uplink::slot`.
pub const HASH_UPLINKS: MapSpec = MapSpec {
    name: "hash_uplinks",
    kind: super::ARRAY,
    key_size: 4,
    value_size: size_of::<Uplink>() as u32,
    max_entries: super::UPLINK_SLOTS,
};
/// VLANs of theirs, the value being 1.
pub const HASH_VLANS: MapSpec = MapSpec {
    name: "hash_vlans",
    kind: super::HASH,
    key_size: size_of::<HashVlan>() as u32,
    value_size: 4,
    max_entries: hash_capacity::VLANS,
};

/// The maps of the hash plane: pinned in a directory of their own, and made only where it is asked
/// for.
pub const HASH_MAPS: [MapSpec; 13] = [
    HASH_FLOWS4,
    HASH_FLOWS6,
    HASH_TAGS4,
    HASH_TAGS6,
    HASH_SEED,
    HASH_FRONTENDS4,
    HASH_FRONTENDS6,
    HASH_TABLES,
    HASH_BACKENDS,
    HASH_COUNTS,
    HASH_STATS,
    HASH_UPLINKS,
    HASH_VLANS,
];

const _: () = {
    let mut index = 0;
    while index < HASH_MAPS.len() {
        assert!(HASH_MAPS[index].name.len() <= 15, "the kernel keeps 15 bytes of a map name");
        index += 1;
    }
};
