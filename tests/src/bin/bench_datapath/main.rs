//! `cargo xtask bench datapath`: what a packet costs, see `BENCHMARKS.md`.
//!
//! `native` runs programs by `BPF_PROG_TEST_RUN` on the kernel of this machine and measures time.
//! `guest` sends traffic through namespaces and counts instructions, in a guest.

#[path = "../../../datapath/hash_plane/frames.rs"]
#[expect(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the packet tables use more of it, and panic"
)]
mod frames;
mod guest;
mod native;
mod options;
#[path = "../../../datapath/packets.rs"]
#[expect(dead_code, clippy::expect_used, reason = "the packet tables use more of it, and panic")]
mod packets;
#[path = "../../../datapath/stage.rs"]
#[expect(dead_code, clippy::expect_used, reason = "the packet tables use more of it, and panic")]
mod stage;
#[path = "../../../../bench-ebpf/src/template.rs"]
mod template;

use std::process::ExitCode;

use self::options::Options;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let done = match options {
        Options::Native { ladder, rounds } => native::run(&ladder, rounds),
        Options::Guest => guest::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench datapath: {error:#}");
            ExitCode::FAILURE
        }
    }
}
