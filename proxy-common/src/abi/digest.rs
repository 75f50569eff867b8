//! What the maps of frontends and backends hold, summed up in the kernel.

use super::{MapSpec, layout::abi_struct};

abi_struct! {
    /// The sums of `fingerprint` over all entries, of both families.
    pub struct Digest (24) {
        /// That of frontends.
        pub frontends: u64,
        /// That of backends.
        pub backends: u64,
        /// Walks over a map that the kernel refused; the sums say nothing unless it is 0.
        pub refused: u64,
    }
}

/// One element: the digest of the last run. It is not pinned and belongs to who loaded the program,
/// so no two versions share it.
pub const DIGEST: MapSpec = MapSpec {
    name: "digest",
    kind: super::ARRAY,
    key_size: 4,
    value_size: size_of::<Digest>() as u32,
    max_entries: 1,
};
