//! The hash plane: which frontends XDP serves by itself, from which tables, and which flows the
//! kernel's IPVS has to be told of. Pure, like every plan.
//!
//! ```text
//! destinations in the kernel's order ──Layout──▶ members: index, generation, weight of before
//!        members ──Slots──▶ table, and which slots changed
//!        flows ──choice──▶ exceptions: where IPVS would choose another backend
//! ```

mod layout;
mod slots;

pub use layout::{Carried, Layout, Member, Settled};
pub use slots::Slots;
