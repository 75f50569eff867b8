//! The hash plane: whole frames through `xdp_lb` and `tc_lb`, and whole frames out of it.

mod beside;
mod carried;
mod choice;
mod flows;
mod frames;
mod fuzz;
mod golden;
mod merged;
mod passed;
mod pins;
mod places;
mod row;
mod selftest;
mod stage;
mod wire;

use proxy_userspace::model::HashMode;

use crate::table::Case;

/// The names of cases, and the cases.
type Cases = Vec<(String, Case)>;

/// Returns the cases of the hash plane.
pub(crate) fn cases() -> Cases {
    let mut cases = Cases::new();
    for mode in [HashMode::Native, HashMode::Tc] {
        let mut here = Cases::new();
        of_family::<[u8; 4]>(&mut here, passed::of_ipv4(), mode);
        of_family::<[u8; 16]>(&mut here, passed::of_ipv6(), mode);
        golden::cases(&mut here, mode);
        selftest::cases(&mut here, mode);
        let place = if mode == HashMode::Tc { "_at_tc" } else { "" };
        cases.extend(here.into_iter().map(|(name, case)| (name + place, case)));
    }
    merged::cases::<[u8; 4]>(&mut cases);
    merged::cases::<[u8; 16]>(&mut cases);
    wire::cases::<[u8; 4]>(&mut cases);
    wire::cases::<[u8; 16]>(&mut cases);
    beside::cases(&mut cases);
    places::cases::<[u8; 4]>(&mut cases);
    places::cases::<[u8; 16]>(&mut cases);
    pins::cases(&mut cases);
    cases
}

/// Adds the cases that each family has, and those that only this one has.
fn of_family<A: stage::Side>(cases: &mut Cases, own: Vec<row::Row<A>>, mode: HashMode) {
    let rows = [carried::rows::<A>(), passed::rows(), own].into_iter().flatten();
    for row in rows.filter(|row| row.is_shown(mode)) {
        cases.push((format!("{}{}", row.name, A::SUFFIX), Box::new(move || row::run(&row, mode))));
    }
    flows::cases::<A>(cases, mode);
    choice::cases::<A>(cases, mode);
    fuzz::cases::<A>(cases, mode);
}
