//! The hash plane: whole frames through `xdp_lb`, and whole frames out of it.

mod carried;
mod choice;
mod flows;
mod frames;
mod fuzz;
mod golden;
mod passed;
mod pins;
mod row;
mod selftest;
mod stage;

use crate::table::Case;

/// The names of cases, and the cases.
type Cases = Vec<(String, Case)>;

/// Returns the cases of the hash plane.
pub(crate) fn cases() -> Cases {
    let mut cases = Cases::new();
    of_family::<[u8; 4]>(&mut cases, passed::of_ipv4());
    of_family::<[u8; 16]>(&mut cases, passed::of_ipv6());
    pins::cases(&mut cases);
    golden::cases(&mut cases);
    selftest::cases(&mut cases);
    cases
}

/// Adds the cases that each family has, and those that only this one has.
fn of_family<A: stage::Side>(cases: &mut Cases, own: Vec<row::Row<A>>) {
    for row in [carried::rows::<A>(), passed::rows(), own].into_iter().flatten() {
        cases.push((format!("{}{}", row.name, A::SUFFIX), Box::new(move || row::run(&row))));
    }
    flows::cases::<A>(cases);
    choice::cases::<A>(cases);
    fuzz::cases::<A>(cases);
}
