//! L4: real traffic against the real agent, in network namespaces.
//!
//! Runs as root, one scenario after another: they share the machine's ip_vs module. What a scenario
//! needs and this machine does not have makes it an ignored test and prints `SKIP <name>: <why>`;
//! with `REQUIRE_IPVS=1` or `REQUIRE_ROOT=1` the lack is a failure instead.

mod scenario;

mod addresses;
mod cleanup;
mod configured;
mod datagrams;
mod fast_path;
mod forwarding;
mod interfaces;
mod ipvs_alone;
mod leases;
mod leaving;
mod lifecycle;
mod manifests;
mod maps;
mod moving;
mod policies;
mod preconditions;
mod promise;
mod ranges;
mod restraint;
mod serving;
mod states;
mod topology;

use libtest_mimic::Arguments;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let groups = [
        topology::SCENARIOS,
        ipvs_alone::SCENARIOS,
        serving::SCENARIOS,
        policies::SCENARIOS,
        ranges::SCENARIOS,
        leaving::SCENARIOS,
        datagrams::SCENARIOS,
        moving::SCENARIOS,
        forwarding::SCENARIOS,
        fast_path::SCENARIOS,
        leases::SCENARIOS,
        states::SCENARIOS,
        lifecycle::SCENARIOS,
        cleanup::SCENARIOS,
        addresses::SCENARIOS,
        configured::SCENARIOS,
        restraint::SCENARIOS,
        manifests::SCENARIOS,
        maps::SCENARIOS,
        interfaces::SCENARIOS,
        preconditions::SCENARIOS,
        preconditions::UNLOADING,
    ];
    let trials = groups.into_iter().flatten().map(scenario::Scenario::trial).collect();
    libtest_mimic::run(&arguments, trials).exit();
}
