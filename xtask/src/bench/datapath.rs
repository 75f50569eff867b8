//! `cargo xtask bench datapath`: what a packet costs. Programs one by one on this kernel, in
//! nanoseconds, and whole paths in a guest that counts instructions. Needs root.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use crate::command::{Consent, progress};
use crate::vm::{self, Accelerator, Guest, Streams, kernels};
use crate::{artifacts, build_ebpf, packages, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
    /// Measure each program so often
    #[arg(long, default_value_t = 30)]
    rounds: usize,
    /// Kernel series of the guest, as tests/kernels.toml lists them
    #[arg(long, default_value = vm::DEFAULT_KERNEL)]
    kernel: String,
    /// Do not count instructions in a guest
    #[arg(long)]
    no_guest: bool,
    /// Do not measure programs natively
    #[arg(long, conflicts_with = "no_guest")]
    no_native: bool,
    /// Install what is missing without asking
    #[arg(long)]
    yes: bool,
}

/// What is measured natively; the hash plane's are of IPv4 and, unless the name says otherwise, of
/// direct routing and one flow.
const NATIVE: [&str; 14] = [
    "tc_hit_net_ns",
    "tc_hit_vs_lru",
    "xdp_hit_net_ns",
    "flows_64k_vs_lru",
    "hash_cached_net_ns",
    "hash_cached_ipip_net_ns",
    "hash_cached_vs_lru",
    "hash_renewed_net_ns",
    "hash_new_net_ns",
    "hash_stateless_net_ns",
    "hash_stateless_64k_net_ns",
    "hash_table_100_ms",
    "hash_table_4000_ms",
    "hash_put_table_ms",
];

/// Runs the verb.
pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let consent = Consent::new(args.yes);
    packages::ensure(&[packages::BUILD], consent)?;
    build_ebpf::build(consent)?;
    let ladder = build_ebpf::build_ladder(consent)?;
    let built = artifacts::build(&["--release", "--bin", "bench-datapath", "--bin", "passlane"])?;
    let bench = artifacts::one(&built, "bench-datapath")?;
    let mut numbers = Map::new();
    for name in NATIVE {
        numbers.insert(name.to_owned(), Value::Null);
    }
    numbers.insert("instructions".to_owned(), Value::Null);
    if !args.no_native {
        let found = natively(&bench, &ladder, args.rounds)?;
        for (name, number) in &mut numbers {
            *number = found.get(name).cloned().unwrap_or(Value::Null);
        }
    }
    if !args.no_guest {
        let agent = artifacts::one(&built, "passlane")?;
        let found = in_guest(args, &bench, &agent, consent)?;
        let of = |name: &str| found.get(name).cloned().unwrap_or(Value::Null);
        let instructions = json!({
            "routing": of("routing"),
            "ipvs": of("ipvs"),
            "slow": of("slow"),
            "fast": of("fast"),
        });
        numbers.insert("instructions".to_owned(), instructions);
    }
    if args.json {
        println!("{}", Value::Object(numbers));
    }
    Ok(ExitCode::SUCCESS)
}

fn natively(bench: &Path, ladder: &Path, rounds: usize) -> Result<Value> {
    progress("measuring natively; other load on this machine shows in the medians");
    let output = Command::new(bench)
        .args(["native", "--rounds", &rounds.to_string(), "--ladder"])
        .arg(ladder)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the bench")?;
    ensure!(output.status.success(), "the native bench failed: {}", output.status);
    show(&String::from_utf8_lossy(&output.stdout))
}

/// Counts on an emulated machine whose clock ticks once an instruction.
fn in_guest(args: &Args, bench: &Path, agent: &Path, consent: Consent) -> Result<Value> {
    packages::ensure(&[packages::GUEST, packages::NETWORK], consent)?;
    let kernel = kernels::find(&args.kernel)?.obtain(consent)?;
    progress(&format!("counting instructions in a guest with Linux {}", args.kernel));
    let environment = [("PASSLANE_BIN".to_owned(), artifacts::text(agent)?)];
    let guest = Guest {
        kernel,
        command: vec![artifacts::text(bench)?, "guest".to_owned()],
        environment: BTreeMap::from(environment),
        directory: workspace::root(),
        memory: "2G".to_owned(),
        cpus: 1,
        accelerator: Accelerator::Count,
        timeout: Some(Duration::from_mins(30)),
        keep_log: false,
        consent,
    };
    let mut output = Vec::new();
    let mut keep = |is_stderr: bool, bytes: &[u8]| {
        if is_stderr {
            eprint!("{}", String::from_utf8_lossy(bytes));
        } else {
            output.extend_from_slice(bytes);
        }
    };
    let status = guest.run(Streams::Capture(&mut keep))?;
    ensure!(status == 0, "the bench in the guest failed");
    show(&String::from_utf8_lossy(&output))
}

/// Prints what the bench wrote, and returns its last line, which is JSON.
fn show(output: &str) -> Result<Value> {
    let (tables, last) = output.trim_end().rsplit_once('\n').unwrap_or(("", output));
    println!("{tables}");
    serde_json::from_str(last).with_context(|| format!("the bench ended with `{last}`"))
}
