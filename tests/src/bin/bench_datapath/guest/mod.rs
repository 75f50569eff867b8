//! Whole paths, in a guest whose clock ticks once an instruction (`-icount shift=0,sleep=off`).
//!
//! One thread sends and receives, in the namespaces of client and server, and never sleeps: the
//! kernel forwards a packet within the call that sends it. So a difference of `CLOCK_MONOTONIC` is
//! the number of instructions, of the thread and of the kernel.

mod busy;
mod modes;
mod profile;
mod report;
mod scene;
mod traffic;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

use self::{
    busy::Busy,
    modes::Mode,
    report::Counted,
    scene::{Path, Scene},
    traffic::Kind,
};

/// Counts every kind of traffic on every path in every mode.
pub(crate) fn run() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("not root: network namespaces need it");
    }
    let mut all = Vec::new();
    for mode in Mode::ALL {
        eprintln!("counting {}", mode.name());
        let busy = Busy::start();
        let scene = Scene::set(mode).with_context(|| mode.name())?;
        drop(busy);
        for path in Path::ALL {
            for kind in Kind::ALL.into_iter().filter(|kind| mode.carries(*kind)) {
                let what = || format!("{}, {}, {}", mode.name(), path.name(), kind.name());
                let counts = traffic::count(&scene, path, kind).with_context(what)?;
                all.push(Counted { mode, path, kind, counts });
            }
        }
    }
    print!("{}", report::table(&all));
    print!("{}", profile::table()?);
    println!("{}", report::summary(&all));
    Ok(())
}

/// Nanoseconds since the guest was started: instructions, where they are counted.
fn now() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
