//! The datapath seen from user space: loads programs, pins maps and links, attaches to
//! interfaces, reads and writes maps. aya's types end here.

mod attach;
mod clock;
mod entries;
mod error;
mod guard;
mod load;
mod localhost;
mod maps;
mod occupancy;
mod pins;
mod probe;
mod run;
mod selftest;
mod served;
mod transit;

pub use attach::{Hook, detach_filters};
pub use clock::Clock;
pub use entries::{Entry, PinnedMap, pinned_maps};
pub use error::Error;
pub use guard::{ForeignProgram, foreign_programs, others_programs};
pub use load::{Datapath, LoadOptions};
pub use localhost::Localhost;
pub use maps::{Entries, Generations, Maps, ServiceMaps, jiffy};
pub use occupancy::Occupancy;
pub use pins::{MapShape, PinDirectory, PinMismatch, on_bpffs};
pub use probe::supports_tc;
pub use run::RunOutput;
pub use selftest::Fault;
pub use served::{ByPair, Carried};
