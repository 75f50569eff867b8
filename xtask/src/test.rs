//! `cargo xtask test`: the specification, level by level, on this machine and on stock kernels.

mod guests;
mod level;
mod tally;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::artifacts;
use crate::command::Consent;
use crate::vm::{initramfs, kernels};
use crate::{build_ebpf, chart_tools, cluster_tools, packages};
use level::{Level, Outcome, Setting};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only this level (repeatable)
    #[arg(long, value_enum)]
    level: Vec<Level>,
    /// Run what is in guests on this kernel series (repeatable) [default: those of tests/kernels.toml]
    #[arg(long)]
    kernel: Vec<String>,
    /// Run only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Count a skipped test as failed unless it is optional; so does the environment CI=true
    #[arg(long)]
    no_skips: bool,
    /// End a level on a kernel after this many seconds
    #[arg(long, default_value_t = 3000)]
    timeout: u64,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

const ALL: [Level; 6] = [Level::L0, Level::L1, Level::L2, Level::L3, Level::L4, Level::L5];

/// Runs the verb.
pub(crate) fn main(args: Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    let chosen = |level: &Level| args.level.is_empty() || args.level.contains(level);
    let levels: Vec<Level> = ALL.into_iter().filter(chosen).collect();
    prepare(&levels, consent)?;
    build_ebpf::build(consent)?;
    let (binaries, agent) = binaries(&levels)?;
    let cluster = match levels.contains(&Level::L5) {
        true => cluster_programs(&agent, consent)?,
        false => BTreeMap::new(),
    };
    let setting = Setting {
        filter: args.filter,
        timeout: Duration::from_secs(args.timeout),
        agent,
        cluster,
        consent,
    };
    let mut outcomes = run(&setting, &levels, &binaries, &args.kernel)?;
    if args.no_skips || std::env::var("CI").is_ok_and(|value| value == "true") {
        outcomes.iter_mut().for_each(|outcome| outcome.tally.forbid_skips());
    }
    Ok(summarise(&outcomes))
}

/// What a test cluster is run with, by the variable that tells the tests.
fn cluster_programs(agent: &Path, consent: Consent) -> Result<BTreeMap<String, String>> {
    let mut all = chart_tools::obtain(agent, consent)?;
    let text = |path: PathBuf| path.display().to_string();
    all.extend(
        [
            (cluster_tools::VARIABLE, cluster_tools::find_or_obtain(consent)?),
            (cluster_tools::PROXY_VARIABLE, cluster_tools::find_or_obtain_proxy(consent)?),
            (cluster_tools::NODE_VARIABLE, cluster_tools::find_or_obtain_node(consent)?),
            (cluster_tools::RUNTIME_VARIABLE, cluster_tools::find_or_obtain_runtime(consent)?),
            ("PASSLANE_BUSYBOX", initramfs::busybox(consent)?),
        ]
        .map(|(name, path)| (name.to_owned(), text(path))),
    );
    Ok(all)
}

fn prepare(levels: &[Level], consent: Consent) -> Result<()> {
    let mut needs = vec![packages::BUILD];
    if levels.contains(&Level::L2) {
        ensure!(
            rustix::process::geteuid().is_root(),
            "L2 loads BPF programs; run with sudo, or choose others: --level L0 --level L1"
        );
        needs.push(packages::NETWORK);
    }
    if levels.iter().any(|level| level.has_guests()) {
        needs.extend([packages::GUEST, packages::NETWORK]);
    }
    if levels.contains(&Level::L4) {
        needs.push(packages::GATEWAY);
    }
    if levels.contains(&Level::L5) {
        needs.extend([packages::CLUSTER, packages::STRIP]);
    }
    packages::ensure(&needs, consent)
}

/// Builds the test binaries of the levels, and the agent that they start, in one go.
fn binaries(levels: &[Level]) -> Result<(Vec<(Level, PathBuf)>, PathBuf)> {
    let targets: Vec<(Level, &str)> =
        levels.iter().filter_map(|level| Some((*level, level.target()?))).collect();
    if targets.is_empty() {
        return Ok((Vec::new(), PathBuf::new()));
    }
    let mut arguments = vec!["--bin", "passlane"];
    arguments.extend(targets.iter().flat_map(|(_, target)| ["--test", target]));
    let built = artifacts::build(&arguments)?;
    let found = targets.iter().map(|(level, target)| Ok((*level, artifacts::one(&built, target)?)));
    Ok((found.collect::<Result<_>>()?, artifacts::one(&built, "passlane")?))
}

fn run(
    setting: &Setting,
    levels: &[Level],
    binaries: &[(Level, PathBuf)],
    series: &[String],
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    if levels.contains(&Level::L0) {
        outcomes.push(setting.units()?);
    }
    for (level, binary) in binaries.iter().filter(|(level, _)| level.is_native()) {
        outcomes.push(setting.natively(*level, binary)?);
    }
    if !levels.iter().any(|level| level.has_guests()) {
        return Ok(outcomes);
    }
    let wanted = if series.is_empty() {
        kernels::listed()?.into_iter().filter(|kernel| kernel.default).collect()
    } else {
        series.iter().map(|name| kernels::find(name)).collect::<Result<Vec<_>>>()?
    };
    let kernels = wanted
        .into_iter()
        .map(|listed| Ok((listed.obtain(setting.consent)?, listed.series)))
        .collect::<Result<Vec<_>>>()?;
    let has_guests = |(level, _): &&(Level, PathBuf)| level.has_guests();
    let guests: Vec<_> = binaries.iter().filter(has_guests).cloned().collect();
    outcomes.extend(guests::run(setting, &guests, &kernels)?);
    Ok(outcomes)
}

/// Prints the table, what failed and what was skipped; the totals are the last line.
fn summarise(outcomes: &[Outcome]) -> ExitCode {
    println!("\nlevel  kernel  passed  failed  skipped  seconds");
    for Outcome { level, kernel, tally, elapsed } in outcomes {
        let (failed, skipped) = (tally.failed.len(), tally.skipped.len());
        println!(
            "{:<5}  {kernel:<6}  {:>6}  {failed:>6}  {skipped:>7}  {:>7.1}",
            format!("{level:?}"),
            tally.passed,
            elapsed.as_secs_f64()
        );
    }
    let list = |word: &str, of: fn(&Outcome) -> &[(String, String)]| {
        for outcome in outcomes {
            for (name, reason) in of(outcome) {
                let colon = if reason.is_empty() { "" } else { ": " };
                println!("{word} {:?} {} {name}{colon}{reason}", outcome.level, outcome.kernel);
            }
        }
    };
    list("skipped", |outcome| &outcome.tally.skipped);
    list("FAILED", |outcome| &outcome.tally.failed);
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum::<usize>();
    let failed = sum(|outcome| outcome.tally.failed.len());
    let passed = sum(|outcome| outcome.tally.passed);
    println!("{passed} passed, {failed} failed, {} skipped", sum(|o| o.tally.skipped.len()));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
