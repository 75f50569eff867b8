//! `passlane doctor`: every precondition, and the cure for what is missing.

use std::path::Path;

use serde::Serialize;

use super::{Failure, output};
use crate::{
    agent,
    chain::chain,
    config::Paths,
    kernel::{
        ipvs::Client,
        link::Links,
        module, nft,
        sysctl::{self, Key},
    },
    model::interface::InterfaceKind,
    status::Lock,
};

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

#[derive(Clone, Debug, Serialize)]
struct Check {
    check: &'static str,
    grade: Grade,
    found: String,
    /// What to do; empty when nothing need be done.
    cure: String,
}

impl Check {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, found: found.into(), cure: String::new() }
    }

    fn bad(
        check: &'static str,
        grade: Grade,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { check, grade, found: found.into(), cure: cure.into() }
    }
}

/// Prints the checks. Fails when one does.
pub(super) fn run(paths: &Paths, format: output::Format) -> Result<(), Failure> {
    let checks = super::block_on(async { Ok(checks(paths).await) })?;
    output::value(&checks, format, |_| table(&checks))?;
    let failed = checks.iter().any(|check| check.grade == Grade::Fail);
    if failed { Err(Failure::Degraded) } else { Ok(()) }
}

async fn checks(paths: &Paths) -> Vec<Check> {
    let mut checks = vec![root(), kernel(), ipvs().await, nft().await];
    checks.push(flowtables().await);
    checks.push(device().await);
    checks.push(bpf());
    checks.push(btf());
    checks.push(bpffs(&paths.bpffs));
    checks.extend(agent::settings().iter().map(setting));
    checks.push(agent_runs(paths));
    checks
}

fn root() -> Check {
    if rustix::process::geteuid().is_root() {
        Check::ok("root", "yes")
    } else {
        Check::bad("root", Grade::Fail, "no", "run passlane as root: sudo passlane doctor")
    }
}

fn kernel() -> Check {
    let release = super::version::kernel();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (5, 15) {
        Check::ok("kernel 5.15", release)
    } else {
        Check::bad("kernel 5.15", Grade::Fail, release, "use a kernel of 5.15 or newer")
    }
}

async fn ipvs() -> Check {
    if let Err(error) = module::load("ip_vs") {
        return Check::bad("ip_vs", Grade::Fail, chain(&error), "modprobe ip_vs");
    }
    match Client::open().await {
        Ok(client) => match client.info().await {
            Ok(info) => Check::ok("ip_vs", format!("version {}", info.version)),
            Err(error) => Check::bad("ip_vs", Grade::Fail, chain(&error), "run as root"),
        },
        Err(error) => Check::bad("ip_vs", Grade::Fail, chain(&error), "modprobe ip_vs"),
    }
}

async fn nft() -> Check {
    match nft::Table::open().await {
        Ok(_) => Check::ok("nft", "speaks JSON"),
        Err(error) => Check::bad(
            "nft",
            Grade::Fail,
            chain(&error),
            "apt-get install nftables, and run as root",
        ),
    }
}

async fn flowtables() -> Check {
    const NAME: &str = "no nft flowtable";
    let found = match nft::Table::open().await {
        Ok(table) => table.flowtables().await,
        Err(error) => Err(error),
    };
    match found {
        Ok(found) => match found.first() {
            None => Check::ok(NAME, "none"),
            Some(name) => Check::bad(
                NAME,
                Grade::Fail,
                found.join(", "),
                format!("nft delete flowtable {name}: it breaks IPVS's connections"),
            ),
        },
        Err(error) => Check::bad(NAME, Grade::Warn, chain(&error), "see nft"),
    }
}

async fn device() -> Check {
    const NAME: &str = "kube-ipvs0";
    let interfaces = match Links::open() {
        Ok(links) => links.interfaces().await.map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    match interfaces {
        Err(error) => Check::bad(NAME, Grade::Warn, error, "run as root"),
        Ok(interfaces) => match interfaces.into_iter().find(|each| each.name == NAME) {
            None => Check::ok(NAME, "absent; run makes it"),
            Some(each) if each.kind == InterfaceKind::Other("dummy".into()) => {
                Check::ok(NAME, "dummy device")
            }
            Some(each) => Check::bad(
                NAME,
                Grade::Fail,
                format!("a device of another kind: {:?}", each.kind),
                "ip link delete kube-ipvs0, or run with --dummy-device NAME",
            ),
        },
    }
}

fn bpf() -> Check {
    const NAME: &str = "BPF for tc";
    let kinds = aya_probe();
    match kinds {
        Ok(true) => Check::ok(NAME, "yes"),
        Ok(false) => Check::bad(
            NAME,
            Grade::Warn,
            "no",
            "use a kernel with CONFIG_NET_CLS_BPF; without it everything takes the slow path",
        ),
        Err(error) => Check::bad(NAME, Grade::Warn, error, "run as root, or with CAP_BPF"),
    }
}

fn aya_probe() -> Result<bool, String> {
    crate::kernel::bpf::supports_tc().map_err(|error| chain(&error))
}

fn btf() -> Check {
    const NAME: &str = "BTF";
    if Path::new("/sys/kernel/btf/vmlinux").exists() {
        Check::ok(NAME, "/sys/kernel/btf/vmlinux")
    } else {
        Check::bad(
            NAME,
            Grade::Warn,
            "absent",
            "use a kernel with CONFIG_DEBUG_INFO_BTF; without it bpftool prints maps as bytes",
        )
    }
}

fn bpffs(path: &Path) -> Check {
    const NAME: &str = "bpffs";
    if crate::kernel::bpf::on_bpffs(path) {
        Check::ok(NAME, path.display().to_string())
    } else {
        Check::bad(
            NAME,
            Grade::Warn,
            format!("{} is on none", path.display()),
            "mount -t bpf bpf /sys/fs/bpf; run does it by itself there",
        )
    }
}

fn setting(setting: &agent::Setting) -> Check {
    let cure = format!("run sets it to {}: {}", setting.at_least, setting.why);
    match sysctl::read(&Key::dotted(setting.key)) {
        Ok(value) if setting.holds(&value) => Check::ok(setting.key, value),
        Ok(value) => Check::bad(setting.key, Grade::Warn, value, cure),
        Err(error) => Check::bad(setting.key, Grade::Warn, chain(&error), cure),
    }
}

fn agent_runs(paths: &Paths) -> Check {
    if Lock::is_taken(&paths.state_dir) {
        Check::ok("agent", "runs")
    } else {
        Check::bad("agent", Grade::Warn, "does not run", "passlane run --source file:PATH")
    }
}

fn table(checks: &[Check]) -> comfy_table::Table {
    let mut table = output::table(["CHECK", "RESULT", "FOUND", "CURE"]);
    for check in checks {
        let grade = match check.grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        table.add_row([check.check, grade, &check.found, &check.cure]);
    }
    table
}
