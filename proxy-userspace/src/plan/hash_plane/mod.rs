//! The hash plane: which frontends XDP serves by itself, with what backends and tables.

mod plane;
mod slots;
mod way;

pub use plane::{HashPlane, Plane, WhyIpvs, plane};
pub use slots::{Placed, Slots};
pub use way::backend;
