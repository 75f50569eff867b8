//! L5: the Kubernetes source against a real etcd and kube-apiserver, on this machine's loopback.
//!
//! One cluster serves all tests, one after another; `KUBEBUILDER_ASSETS` names the directory of its
//! programs. Objects are made with the real kubectl. The source is used as the agent uses it, as a
//! library: it touches nothing of the node. In a guest, where `PASSLANE_IN_GUEST` is set, the tests
//! of [`on_a_node`], [`adoption`] and [`node`] run instead.

mod cluster;
mod credentials;
mod documents;
mod follower;
mod held;
mod kube_proxy;
mod manifests;
mod relay;

mod adoption;
mod chart;
mod cold_start;
mod events;
mod image;
mod node;
mod on_a_node;
mod outages;
mod permissions;
mod scale;
mod watching;

use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use self::cluster::Cluster;

/// How long anything may take to arrive: generous, for a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A test: its name, and what it does with the cluster.
type Test = (&'static str, fn(&Cluster) -> anyhow::Result<()>);

/// Lists functions as tests, under their own names.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub(crate) const TESTS: &[$crate::Test] = &[$((stringify!($name), $name)),+];
    };
}
pub(crate) use tests;

fn main() {
    let mut arguments = Arguments::from_args();
    // They share the cluster, and restart it.
    arguments.test_threads = Some(1);
    if on_a_node::is_wanted() {
        let said = |error| Failed::from(format!("{error:#}"));
        // The last has the guest to itself.
        let groups = [on_a_node::TESTS, adoption::TESTS, image::TESTS, node::TESTS];
        let trials = groups.into_iter().flatten();
        let trials =
            trials.map(|&(name, test)| Trial::test(name, move || test().map_err(said))).collect();
        libtest_mimic::run(&arguments, trials).exit();
    }
    let groups = [
        watching::TESTS,
        events::TESTS,
        permissions::TESTS,
        outages::TESTS,
        cold_start::TESTS,
        scale::TESTS,
        chart::rendered::TESTS,
        chart::installed::TESTS,
        chart::monitoring::TESTS,
        documents::TESTS,
        image::NATIVE,
    ];
    // Started by the first test that runs, so that `--list` starts nothing.
    let cluster: &'static Shared = Box::leak(Box::default());
    let trials = groups
        .into_iter()
        .flatten()
        .map(|&(name, test)| Trial::test(name, move || Ok(test(&*cluster.get()?)?)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The leaked cluster is not dropped by itself.
    cluster.end();
    conclusion.exit();
}

/// The cluster, or why there is none.
#[derive(Default)]
struct Shared(Mutex<Option<Result<Arc<Cluster>, String>>>);

impl Shared {
    fn get(&self) -> Result<Arc<Cluster>, String> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Cluster::start().map(Arc::new).map_err(|error| format!("{error:?}"));
        shared.get_or_insert_with(start).clone()
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
