//! L2: whole packets through the real programs, by `BPF_PROG_TEST_RUN` on this machine's kernel.

#![expect(clippy::expect_used, reason = "a test that cannot set its stage should panic there")]

mod fuzz;
mod packets;
mod served;
mod stage;
mod table;
mod transit;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let missing = stage::missing();
    stage::sweep();
    let trials = table::cases()
        .into_iter()
        .chain(transit::cases())
        .chain(served::cases())
        .map(|(name, case)| {
            if let Some(reason) = &missing {
                println!("SKIP {name}: {reason}");
            }
            Trial::test(name, move || case().map_err(|error| Failed::from(format!("{error:#}"))))
                .with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}
