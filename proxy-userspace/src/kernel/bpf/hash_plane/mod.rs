//! The hash plane seen from user space: its program, its maps, and where it is attached. All of it is
//! pinned in a directory of its own, so it goes on without the agent.

mod attach;
mod batch;
pub(super) mod flows;
mod load;
mod mapped;
mod maps;
mod run;
mod selftest;

pub(super) use attach::{FILTER_PRIORITY, LINK, detach_filter};
pub(super) use load::TC;
pub use load::{HashPlane, HashPlaneOptions};
pub use maps::HashMaps;
pub use run::Merged;
