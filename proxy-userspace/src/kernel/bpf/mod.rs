//! The datapath seen from user space: loads programs, pins maps and links, attaches to
//! interfaces, reads and writes maps. aya's types end here.

mod attach;
mod error;
mod guard;
mod load;
mod maps;
mod pins;
mod run;

pub use attach::Hook;
pub use error::Error;
pub use guard::{ForeignProgram, foreign_programs};
pub use load::{Datapath, LoadOptions};
pub use maps::{Generations, Maps, jiffy};
pub use pins::{MapShape, PinDirectory, PinMismatch};
pub use run::RunOutput;
