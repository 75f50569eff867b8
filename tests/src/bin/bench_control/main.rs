//! `cargo xtask bench control`: what deciding and encoding cost at the size of large clusters.
//!
//! Each size is measured in a process of its own, so that its memory is its own. The kernel is a
//! [`fake`], or the [`real`] one, in a network namespace for each size.

mod allocations;
mod fake;
mod fleet;
mod kernel;
mod measure;
mod memory;
mod options;
mod percentile;
mod planner;
mod real;
mod report;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use self::{
    allocations::Counting,
    fleet::Size,
    measure::Measured,
    options::{Mode, Options, Target},
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
    let measured = match options.target {
        Target::Fake => measure::run(size, options.change_time, &mut fake::Fake::new())?,
        Target::Real => measure::run(size, options.change_time, &mut real::Real::open()?)?,
    };
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

fn all(sizes: &[Size], options: &Options) -> Result<()> {
    if options.target == Target::Real {
        real::prepare()?;
    }
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
    let bench = std::env::current_exe()?;
    let mut command = match options.target {
        Target::Fake => Command::new(bench),
        Target::Real => {
            let mut command = Command::new("unshare");
            command.arg("--net").arg(bench);
            command
        }
    };
    let output = command
        .args(["--child", &size.to_string()])
        .args(["--seconds", &options.change_time.as_secs().to_string()])
        .args(["--kernel", options.target.name()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("start the bench again")?;
    ensure!(output.status.success(), "{size}: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("{size}: no result"))
}
