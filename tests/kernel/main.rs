//! L3: real IPVS, nft, links and routes, each test in a fresh network namespace.
//!
//! A test runs in a process of its own: this binary starts itself again under `unshare --net`, with
//! the test's name in [`CHILD`]. Nothing is left behind, whatever a test does.

mod actor;
mod address;
mod conntrack;
mod frames;
mod gateway;
mod ipvs;
mod ipvs_traffic;
mod kube_proxy;
mod link;
mod namespace;
mod needs;
mod next_hop;
mod nft;
mod route;
mod scheduling;
mod sync;
mod sysctl;
mod tc;
mod verifier;
mod watch;

use std::{env, future::Future, pin::Pin, process::ExitCode};

use libtest_mimic::{Arguments, Trial};

use self::needs::Need;

/// Environment variable that names the one test to run, in this process.
const CHILD: &str = "PASSLANE_KERNEL_TEST";

type Body = fn() -> Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// A test, and what the machine must have for it.
struct Case {
    name: &'static str,
    needs: &'static [Need],
    body: Body,
}

/// Lists async functions as cases, under their own names.
macro_rules! cases {
    ($needs:expr; $($name:ident),+ $(,)?) => {
        vec![$($crate::Case {
            name: stringify!($name),
            needs: $needs,
            body: || Box::pin($name()),
        }),+]
    };
}
pub(crate) use cases;

fn all() -> Vec<Case> {
    [
        ipvs::cases(),
        ipvs_traffic::cases(),
        nft::cases(),
        link::cases(),
        watch::cases(),
        conntrack::cases(),
        route::cases(),
        next_hop::cases(),
        kube_proxy::cases(),
        address::cases(),
        tc::cases(),
        sysctl::cases(),
        verifier::cases(),
        scheduling::cases(),
        sync::cases(),
        frames::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn main() -> ExitCode {
    if let Ok(words) = env::var(actor::ACTOR) {
        return exit_code(actor::play(&words));
    }
    match env::var(CHILD) {
        Ok(name) => run_child(&name),
        Err(_) => run_all(),
    }
}

fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_all() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Timing-sensitive, and together they would fight for two processors.
    arguments.test_threads.get_or_insert(1);
    let mut needs = needs::Checked::default();
    let trials = all()
        .into_iter()
        .map(|case| {
            let missing = needs.missing(case.needs);
            if let Some(reason) = &missing {
                println!("SKIP {}: {reason}", case.name);
            }
            Trial::test(case.name, move || Ok(namespace::run_in_fresh(case.name)?))
                .with_ignored_flag(missing.is_some())
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run_child(name: &str) -> ExitCode {
    let Some(case) = all().into_iter().find(|case| case.name == name) else {
        eprintln!("no test {name}");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    exit_code(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on((case.body)())))
}
