//! `cargo xtask bench control`: what deciding and encoding cost at the size of large clusters.
//!
//! Each size is measured in a process of its own, so that its memory is its own. The kernel is a
//! [`fake`]: what the real one takes for the same plan is the guests' affair.

mod allocations;
mod fake;
mod fleet;
mod measure;
mod memory;
mod options;
mod percentile;
mod planner;
mod report;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use self::{
    allocations::Counting,
    fleet::Size,
    measure::Measured,
    options::{Mode, Options},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    let done = match options.mode {
        Mode::Child(size) => child(size, &options),
        Mode::All(ref sizes) => all(sizes, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn child(size: Size, options: &Options) -> Result<()> {
    let measured = measure::run(size, options.change_time)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn all(sizes: &[Size], options: &Options) -> Result<()> {
    let mut all = Vec::new();
    for &size in sizes {
        eprintln!("measuring {size}");
        all.push(in_child(size, options)?);
    }
    print!("{}", report::table(&all));
    if options.json {
        println!("{}", report::summary(&all));
    }
    Ok(())
}

fn in_child(size: Size, options: &Options) -> Result<Measured> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--child", &size.to_string()])
        .args(["--seconds", &options.change_time.as_secs().to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start the bench again")?;
    ensure!(output.status.success(), "{size}: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{size}: no result"))
}
