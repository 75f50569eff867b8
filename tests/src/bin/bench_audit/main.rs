//! `cargo xtask bench audit`: what watching over a large node costs while nobody changes it, and how
//! long it takes until a change is put back. The node is a network namespace of this machine.

mod changes;
mod cluster;
mod idle;
mod maps;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_tests::agent::Agent;
use proxy_tests::stage::Stage;
use proxy_tests::wait;
use serde_json::json;

use proxy_tests::size::Size;

/// Looks that are let go by: the first ones come while the agent settles.
const SETTLED: Duration = Duration::from_secs(90);
const IDLE: Duration = Duration::from_secs(120);
/// After each change what was read for it is paid off, where instructions are emulated in as long.
const APART: Duration = Duration::from_secs(40);
/// An emulated machine loads thousands of Services for minutes.
const LOADED: Duration = Duration::from_mins(15);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let usage = || "usage: bench-audit node|maps SERVICESxENDPOINTS".to_owned();
    let (work, size) = match words.as_slice() {
        ["node", size] => (node as fn(Size) -> Result<()>, size.parse::<Size>()),
        ["maps", size] => (maps as fn(Size) -> Result<()>, size.parse::<Size>()),
        _ => (maps as fn(Size) -> Result<()>, Err(usage())),
    };
    let size = match size {
        Ok(size) => size,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    match work(size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench audit: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn maps(size: Size) -> Result<()> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    for (how, cost) in ["summed up", "read"].into_iter().zip(maps::measure(size)?) {
        let maps::Cost { least, median } = cost;
        println!(
            "maps of {size}, {how}: {:.2} ms at least, {:.2} as a rule",
            ms(least),
            ms(median)
        );
    }
    Ok(())
}

fn node(size: Size) -> Result<()> {
    let mut stage = Stage::with_agent(|topology, manifests| Agent::new(topology, manifests, &[]))?;
    stage.manifests.write("many.json", &cluster::manifest(size))?;
    eprintln!("serving {size}");
    stage.agent.spawn()?;
    wait::until_true("every Service is served", LOADED, || {
        let text = stage.topology.node.run("ipvsadm", &["-Ln"])?;
        let served = text.lines().filter(|line| line.starts_with("TCP")).count();
        Ok(served >= size.services as usize)
    })
    .with_context(|| stage.agent.log())?;
    eprintln!("served; the agent is left alone for {} s", SETTLED.as_secs());
    wait::pause(SETTLED);
    let idle = idle::measure(&stage, IDLE)?;
    println!("{idle}");
    let mut healed = Vec::new();
    println!("{:28} {:>10}", "change", "healed ms");
    for (number, change) in changes::CHANGES.iter().enumerate() {
        // Each by itself, and not in step with the looks.
        wait::pause(APART + Duration::from_millis(700 * number as u64));
        let after = changes::injure(&stage, change).with_context(|| change.what)?;
        println!("{:28} {:>10}", change.what, after.as_millis());
        healed.push(json!({ "change": change.what, "ms": after.as_millis() as u64 }));
    }
    eprintln!("audit: {}", idle::audit(&stage)?);
    println!("{}", json!({ "size": size.to_string(), "idle": idle.json(), "healed": healed }));
    Ok(())
}
