//! The demo: a node with pods, real traffic through the agent, and what became of it.
//!
//! Data is on stdout, progress on stderr. With `--json` the last line of stdout is a [`Summary`].

mod act;
mod options;
mod report;
mod summary;
mod views;

pub use options::Options;
pub use summary::Summary;

use anyhow::Result;

use crate::stage::Stage;
use report::Report;

/// Plays the demo from beginning to end.
pub fn run(options: &Options) -> Result<Summary> {
    let report = Report::new();
    let mut stage = act::raise(options, &report)?;
    let summary = act::play(&mut stage, &report)?;
    report.conclusion(&summary);
    if options.keep {
        keep(&stage, &report)?;
    }
    report.step("removing the namespaces, the virtual servers and the pins");
    drop(stage);
    if options.json {
        println!("{}", summary.json());
    }
    Ok(summary)
}

/// Leaves a shell in the node until it is ended.
fn keep(stage: &Stage, report: &Report) -> Result<()> {
    report.shell(stage)?;
    let mut shell =
        std::process::Command::new(std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    shell.env("PASSLANE", crate::agent::binary()?);
    let status = stage.topology.node.enter(|| Ok(shell.status()?))?;
    report.step(&format!("the shell ended ({status})"));
    Ok(())
}
