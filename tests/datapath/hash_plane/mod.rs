//! The hash plane: whole frames through `xdp_lb`, and whole frames out of it.

mod carried;
mod frames;
mod row;
mod stage;

use crate::{packets::Net as _, table::Case};

/// The names of cases, and the cases.
type Cases = Vec<(String, Case)>;

/// Returns the cases of the hash plane.
pub(crate) fn cases() -> Cases {
    let mut cases = Cases::new();
    of_family::<[u8; 4]>(&mut cases);
    of_family::<[u8; 16]>(&mut cases);
    cases
}

/// Adds the cases that each family has.
fn of_family<A: stage::Side>(cases: &mut Cases) {
    for row in [carried::rows::<A>()].into_iter().flatten() {
        cases.push((format!("{}{}", row.name, A::SUFFIX), Box::new(move || row::run(&row))));
    }
}
