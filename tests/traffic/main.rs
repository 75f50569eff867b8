//! L4: real traffic against the real agent, in network namespaces.
//!
//! Runs as root, one scenario after another: they share the machine's ip_vs module. What a scenario
//! needs and this machine does not have makes it an ignored test and prints `SKIP <name>: <why>`;
//! with `REQUIRE_IPVS=1` or `REQUIRE_ROOT=1` the lack is a failure instead. `PASSLANE_TEST_PART=1/2`
//! runs every other scenario only, `2/2` the others.

mod scenario;

mod addresses;
mod cleanup;
mod clocks;
mod configured;
mod counting;
mod datagrams;
mod devices;
mod documents;
mod drift;
mod endurance;
mod errors;
mod explaining;
mod fast_path;
mod forwarding;
mod gateways;
mod gateways_at_tc;
mod hazards;
mod health_checks;
mod inside;
mod interfaces;
mod ipvs_alone;
mod keepalived;
mod leases;
mod leaving;
mod lifecycle;
mod localhost;
mod manifests;
mod maps;
mod metrics;
mod modes;
mod moving;
mod nested;
mod policies;
mod preconditions;
mod pressure;
mod printing;
mod privileges;
mod promise;
mod ranges;
mod restarts;
mod restraint;
mod serving;
mod states;
mod supporting;
mod topology;
mod transit;
mod uplinks;

use libtest_mimic::Arguments;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let groups = [
        preconditions::RELOADING,
        topology::SCENARIOS,
        ipvs_alone::SCENARIOS,
        serving::SCENARIOS,
        policies::SCENARIOS,
        inside::SCENARIOS,
        ranges::SCENARIOS,
        leaving::SCENARIOS,
        datagrams::SCENARIOS,
        moving::SCENARIOS,
        forwarding::SCENARIOS,
        gateways::SCENARIOS,
        gateways_at_tc::SCENARIOS,
        keepalived::SCENARIOS,
        health_checks::SCENARIOS,
        fast_path::SCENARIOS,
        leases::SCENARIOS,
        states::SCENARIOS,
        counting::SCENARIOS,
        metrics::SCENARIOS,
        explaining::SCENARIOS,
        printing::SCENARIOS,
        supporting::SCENARIOS,
        documents::SCENARIOS,
        lifecycle::SCENARIOS,
        restarts::SCENARIOS,
        clocks::SCENARIOS,
        localhost::SCENARIOS,
        cleanup::SCENARIOS,
        addresses::SCENARIOS,
        configured::SCENARIOS,
        restraint::SCENARIOS,
        drift::SCENARIOS,
        manifests::SCENARIOS,
        maps::SCENARIOS,
        interfaces::SCENARIOS,
        devices::SCENARIOS,
        uplinks::SCENARIOS,
        nested::SCENARIOS,
        transit::SCENARIOS,
        modes::SCENARIOS,
        hazards::SCENARIOS,
        errors::SCENARIOS,
        pressure::SCENARIOS,
        endurance::SCENARIOS,
        preconditions::SCENARIOS,
        privileges::SCENARIOS,
        preconditions::UNLOADING,
    ];
    let part = std::env::var("PASSLANE_TEST_PART").unwrap_or_else(|_| "1/1".to_owned());
    let Some((number, of)) = part_of(&part) else {
        eprintln!("PASSLANE_TEST_PART={part}: write NUMBER/OF, such as 1/2");
        std::process::exit(2);
    };
    let scenarios = groups.into_iter().flatten().skip(number - 1).step_by(of);
    let trials = scenarios.map(scenario::Scenario::trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn part_of(part: &str) -> Option<(usize, usize)> {
    let (number, of) = part.split_once('/')?;
    let (number, of) = (number.parse().ok()?, of.parse().ok()?);
    (1..=of).contains(&number).then_some((number, of))
}
