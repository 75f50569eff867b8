//! The datapath seen from user space: loads programs, pins maps and links, attaches to
//! interfaces, reads and writes maps. aya's types end here.

mod attach;
mod clock;
mod digest;
mod entries;
mod error;
mod filter;
pub mod fingerprint;
mod guard;
mod hash_plane;
mod load;
mod localhost;
mod maps;
mod mode;
mod occupancy;
mod pins;
mod probe;
mod query;
mod run;
mod selftest;
mod served;
mod tc_link;
mod transit;
mod witness;
mod xdp_link;

pub use attach::{Hook, detach_filters};
pub use clock::Clock;
pub use entries::{Entry, PinnedMap, pinned_maps};
pub use error::Error;
pub use filter::{Filter, Socket};
pub use fingerprint::{MapNumbers, MapReader};
pub use guard::{ForeignProgram, is_attached, is_our_filter};
pub use hash_plane::{HashMaps, HashPlane, HashPlaneOptions, Merged};
pub use load::{Datapath, LoadOptions};
pub use localhost::{Localhost, PROGRAMS as LOCALHOST_PROGRAMS};
pub use maps::{Entries, Generations, Maps, ServiceMaps, jiffy};
pub use mode::{flags, mode};
pub use occupancy::Occupancy;
pub use pins::{MapShape, PinDirectory, PinMismatch, mount_where_absent, on_bpffs};
pub use probe::supports_tc;
pub use run::RunOutput;
pub use selftest::Fault;
pub use served::{ByPair, Carried};
pub use witness::{Blindness, By, Doer, Moment, Part, Witness};
