//! A scenario: its name, what it needs, and when it is skipped.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use proxy_tests::{agent, cluster, process};

/// One behaviour, named by a sentence.
pub(crate) struct Scenario {
    /// The name of the function that checks it.
    pub(crate) name: &'static str,
    /// What it cannot do without.
    pub(crate) needs: &'static [Need],
    /// The check.
    pub(crate) run: fn() -> Result<()>,
}

/// What a machine may lack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// Namespaces can be made.
    Root,
    /// The kernel has IPVS.
    Ipvs,
    /// The agent was built.
    Agent,
    /// The machine is there for the tests alone: its clock may be set.
    Guest,
    /// The kernel has SCTP.
    Sctp,
    /// The kernel has IP-in-IP tunnels.
    Ipip,
    /// A program is installed.
    Program(&'static str),
}

/// What every scenario with an agent needs.
pub(crate) const AGENT: &[Need] = &[
    Need::Root,
    Need::Ipvs,
    Need::Agent,
    Need::Program("ipvsadm"),
    Need::Program("nft"),
    Need::Program("conntrack"),
];

/// The scenarios of a file, each a function of that name.
macro_rules! scenarios {
    ($needs:expr => $($name:ident),+ $(,)?) => {
        pub(crate) const SCENARIOS: &[$crate::scenario::Scenario] = &[
            $($crate::scenario::Scenario { name: stringify!($name), needs: $needs, run: $name }),+
        ];
    };
}
pub(crate) use scenarios;

/// One scenario, the function of that name.
macro_rules! scenario {
    ($needs:expr => $name:ident) => {
        $crate::scenario::Scenario { name: stringify!($name), needs: $needs, run: $name }
    };
}
pub(crate) use scenario;

impl Scenario {
    /// The test, ignored when something it needs is missing.
    pub(crate) fn trial(&'static self) -> Trial {
        let lacking = self.needs.iter().find_map(|need| need.lack().map(|why| (need, why)));
        match lacking {
            None => Trial::test(self.name, || self.timed().map_err(|error| self.failed(&error))),
            Some((need, why)) if need.is_required() => {
                let why = format!("required but missing: {why}");
                Trial::test(self.name, move || Err(Failed::from(why)))
            }
            Some((_, why)) => {
                eprintln!("SKIP {}: {why}", self.name);
                Trial::test(self.name, || Ok(())).with_ignored_flag(true)
            }
        }
    }

    /// Runs it, and says what it took: a run of all is as long as its longest ones make it.
    fn timed(&self) -> Result<()> {
        let began = Instant::now();
        let result = (self.run)();
        eprintln!("{:.1} s: {}", began.elapsed().as_secs_f32(), self.name);
        result
    }

    /// Says it at once as well: a run of all scenarios in a guest takes minutes.
    fn failed(&self, error: &anyhow::Error) -> Failed {
        eprintln!("\n{}: {error:#}", self.name);
        Failed::from(format!("{error:#}"))
    }
}

impl Need {
    fn lack(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "not root".to_owned()),
            Self::Ipvs => ipvs_lack().clone(),
            Self::Guest => std::env::var_os("PASSLANE_IN_GUEST")
                .is_none()
                .then(|| "this machine's clock is not set for a test".to_owned()),
            Self::Sctp => (!cluster::has_sctp()).then(|| "this kernel has no SCTP".to_owned()),
            Self::Ipip => process::run("modprobe", &["ipip"])
                .err()
                .map(|error| format!("this kernel has no IP-in-IP tunnels ({error:#})")),
            Self::Agent => agent::binary().err().map(|error| error.to_string()),
            Self::Program(name) => {
                (!process::exists(name)).then(|| format!("{name} is not installed"))
            }
        }
    }

    fn is_required(self) -> bool {
        let variable = match self {
            Self::Root => "REQUIRE_ROOT",
            Self::Ipvs | Self::Guest | Self::Sctp | Self::Ipip => "REQUIRE_IPVS",
            Self::Agent | Self::Program(_) => "REQUIRE_TOOLS",
        };
        std::env::var_os(variable).is_some_and(|value| value == "1")
    }
}

/// Why there is no IPVS, if so. Loads the module once.
fn ipvs_lack() -> &'static Option<String> {
    static LACK: OnceLock<Option<String>> = OnceLock::new();
    LACK.get_or_init(|| {
        let loaded = || Path::new("/proc/net/ip_vs").exists();
        if loaded() {
            return None;
        }
        match process::run("modprobe", &["ip_vs"]) {
            _ if loaded() => None,
            Ok(_) => Some("this kernel has no IPVS".to_owned()),
            Err(error) => Some(format!("this kernel has no IPVS ({error:#})")),
        }
    })
}
