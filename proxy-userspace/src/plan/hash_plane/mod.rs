//! The hash plane: which frontends XDP serves by itself, from which tables, and which flows the
//! kernel's IPVS has to be told of. Pure, like every plan.
//!
//! ```text
//! DesiredServer ──plane──▶ hash, or why IPVS alone
//! destinations in the kernel's order ──Layout──▶ members: index, generation, weight of before
//!        members ──Slots──▶ table, and which slots changed
//!        members, next hops ──backend──▶ entries of backends
//!        flows ──choice──▶ exceptions: where IPVS would choose another backend
//! actions ──foresee──▶ the kernel's order afterwards: exceptions before there are any
//! ```

mod foresight;
mod layout;
mod plane;
mod slots;
mod way;

pub use foresight::foresee;
pub use layout::{Carried, Layout, Member, Settled};
pub use plane::{HashPlane, Plane, WhyIpvs, plane};
pub use slots::Slots;
pub use way::backend;
