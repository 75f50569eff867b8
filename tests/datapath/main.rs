//! L2: whole packets through the real programs, by `BPF_PROG_TEST_RUN` on this machine's kernel.

#![expect(clippy::expect_used, reason = "a test that cannot set its stage should panic there")]

mod digest;
mod fuzz;
mod hash_plane;
mod learning;
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
    let mut trials: Vec<Trial> = table::cases()
        .into_iter()
        .chain(transit::cases())
        .chain(served::cases())
        .chain(digest::cases())
        .chain(hash_plane::cases())
        .map(|(name, case)| {
            if let Some(reason) = &missing {
                println!("SKIP {name}: {reason}");
            }
            Trial::test(name, move || case().map_err(|error| Failed::from(format!("{error:#}"))))
                .with_ignored_flag(missing.is_some())
        })
        .collect();
    let missing = missing.or_else(learning::missing);
    trials.push(learning::<[u8; 4]>(missing.clone()));
    trials.push(learning::<[u8; 16]>(missing));
    libtest_mimic::run(&arguments, trials).exit();
}

/// What was learned is right, as well as what is made of it.
fn learning<A: learning::Family>(missing: Option<String>) -> Trial {
    let name = "random_packets_are_learned_and_repeated_as_the_kernel_has_them";
    let name = format!("{name}{}", A::SUFFIX);
    if let Some(reason) = &missing {
        println!("SKIP {name}: {reason}");
    }
    let run = learning::random_packets::<A>;
    Trial::test(name, move || run().map_err(|error| Failed::from(format!("{error:#}"))))
        .with_ignored_flag(missing.is_some())
}
