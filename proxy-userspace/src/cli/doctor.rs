//! `passlane doctor`: every precondition, and the cure for what is missing.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Failure, ReadFlags,
    output::{self, Style, View},
};
use crate::{
    agent,
    chain::chain,
    config::{ConfigFile, Paths, RunFlags, Settings},
    kernel::{
        capability::{self, Capability},
        cpu,
        ipvs::{Client, mh_table},
        kube_proxy::Remains,
        link::Links,
        module, nft,
        sysctl::{self, Key},
    },
    model::interface::InterfaceKind,
    status::Lock,
};

/// The flags of `passlane doctor`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Flags {
    /// The configuration of passlane run: what it asks for is checked as well
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    read: ReadFlags,
}

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

/// All checks, and which modules to load at boot.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Checks {
    items: Vec<Check>,
    modules: Vec<String>,
}

impl View for Checks {
    const KIND: &'static str = "CheckList";

    fn text(&self, style: Style) -> String {
        output::render(&table(&self.items), style.headers) + &modules_file(&self.modules)
    }
}

/// Prints the checks. Fails when one does.
pub(super) fn run(flags: &Flags) -> Result<(), Failure> {
    let ReadFlags { paths, format } = &flags.read;
    let file = flags.config.as_deref().map(ConfigFile::read).transpose()?;
    let (settings, _) = Settings::resolve(&RunFlags::default(), file.as_ref())?;
    let checks = gather(paths, &settings)?;
    format.show(&checks)?;
    let failed = checks.items.iter().any(|check| check.grade == Grade::Fail);
    if failed { Err(Failure::Degraded) } else { Ok(()) }
}

/// Looks at everything.
pub(super) fn gather(paths: &Paths, settings: &Settings) -> Result<Checks, Failure> {
    super::block_on(async {
        let modules = modules(settings).await;
        Ok(Checks { items: checks(paths, settings, &modules).await, modules })
    })
}

async fn checks(paths: &Paths, settings: &Settings, modules: &[String]) -> Vec<Check> {
    let mut checks = vec![privileges(), kernel(), ipvs().await, nft().await];
    checks.push(modules_loaded(modules));
    if modules.iter().any(|name| name == "ip_vs_mh") {
        checks.push(mh_tables(&mh_table::find()));
    }
    checks.push(flowtables().await);
    checks.push(device(&settings.dummy_device).await);
    checks.push(bpf());
    checks.push(btf());
    checks.push(bpffs(&paths.bpffs));
    checks.extend(agent::Setting::of(settings, cpu::online()).iter().map(setting));
    checks.push(agent_runs(paths));
    checks.push(kube_proxy(settings).await);
    checks
}

/// Returns the modules that are needed: those of the schedulers are the default one's and of the
/// virtual servers that are there.
async fn modules(settings: &Settings) -> Vec<String> {
    let mut schedulers = BTreeSet::from([settings.scheduler.0]);
    if let Ok(client) = Client::open().await
        && let Ok(servers) = client.virtual_servers().await
    {
        schedulers.extend(servers.iter().map(|state| state.virtual_server.scheduler));
    }
    let others = ["nf_conntrack", "nf_tables", "dummy"].map(str::to_owned);
    let schedulers = schedulers.into_iter().map(|scheduler| format!("ip_vs_{scheduler}"));
    ["ip_vs".to_owned()].into_iter().chain(schedulers).chain(others).collect()
}

fn modules_loaded(modules: &[String]) -> Check {
    const NAME: &str = "modules";
    let absent: Vec<&str> =
        modules.iter().map(String::as_str).filter(|name| !module::is_present(name)).collect();
    if absent.is_empty() {
        return Check::ok(NAME, modules.join(" "));
    }
    let absent = absent.join(" ");
    Check::bad(
        NAME,
        Grade::Warn,
        format!("not loaded: {absent}"),
        format!("modprobe -a {absent}; the kernel does it by itself where it can"),
    )
}

/// Nodes agree on where `mh` sends a client only if their kernels have tables of one size.
fn mh_tables(finding: &mh_table::Finding) -> Check {
    const NAME: &str = "tables of mh";
    const CURE: &str = "use kernels of one build on all nodes that share clients";
    let slots = finding
        .size()
        .map(|size| format!("{} slots (CONFIG_IP_VS_MH_TAB_INDEX={})", size.slots(), size.index()));
    match (finding.doubt(), slots, &finding.seen) {
        (Some(doubt), ..) => Check::bad(NAME, Grade::Warn, doubt, CURE),
        (None, Some(slots), _) => Check::ok(NAME, slots),
        (None, None, Err(error)) => Check::bad(NAME, Grade::Warn, chain(error), "run as root"),
        (None, None, Ok(_)) => Check::bad(NAME, Grade::Warn, "not known", "run as root"),
    }
}

/// Returns a file that loads the modules at boot, for nodes where a container cannot.
fn modules_file(modules: &[String]) -> String {
    format!("\n# /etc/modules-load.d/passlane.conf\n{}\n", modules.join("\n"))
}

fn privileges() -> Check {
    const NAME: &str = "privileges";
    let wanted = [Capability::NetAdmin, Capability::Bpf, Capability::Perfmon];
    match capability::missing(&wanted) {
        Ok(missing) if missing.is_empty() => {
            Check::ok(NAME, wanted.map(|each| each.to_string()).join(" "))
        }
        Ok(missing) => {
            let grade =
                if missing.contains(&Capability::NetAdmin) { Grade::Fail } else { Grade::Warn };
            let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
            let cure = "run as root (sudo), or give the container or the unit these capabilities";
            Check::bad(NAME, grade, format!("missing: {}", missing.join(" ")), cure)
        }
        Err(error) => Check::bad(NAME, Grade::Warn, chain(&error), "mount /proc"),
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
    let found = match nft::Ruleset::open() {
        Ok(ruleset) => ruleset.flowtables().await,
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

async fn device(device: &str) -> Check {
    const NAME: &str = "dummy device";
    let interfaces = match Links::open() {
        Ok(links) => links.interfaces().await.map_err(|error| chain(&error)),
        Err(error) => Err(chain(&error)),
    };
    match interfaces {
        Err(error) => Check::bad(NAME, Grade::Warn, error, "run as root"),
        Ok(interfaces) => match interfaces.into_iter().find(|each| each.name == device) {
            None => Check::ok(NAME, format!("{device} is absent; run makes it")),
            Some(each) if each.kind == InterfaceKind::Other("dummy".into()) => {
                Check::ok(NAME, device)
            }
            Some(each) => Check::bad(
                NAME,
                Grade::Fail,
                format!("{device} is of another kind: {:?}", each.kind),
                format!("ip link delete {device}, or run with --dummy-device NAME"),
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
    let cure = format!("run sets it to {}: {}", setting.value, setting.why);
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

async fn kube_proxy(settings: &Settings) -> Check {
    const NAME: &str = "kube-proxy";
    if let Some(live) = agent::live_kube_proxy(settings) {
        let cure = "stop it: two proxies undo each other's work; or passlane run --adopt";
        return Check::bad(NAME, Grade::Fail, format!("runs ({live})"), cure);
    }
    let found = match nft::Ruleset::open() {
        Ok(ruleset) => Remains::find(&ruleset).await,
        Err(error) => Err(error.into()),
    };
    match found {
        Err(error) => Check::bad(NAME, Grade::Warn, chain(&error), "run as root"),
        Ok(Remains { other_mode: Some(mode), .. }) => Check::bad(
            NAME,
            Grade::Warn,
            format!("rules of its {mode} mode are left, which translate before IPVS sees anything"),
            "kube-proxy --cleanup, while passlane does not run: it empties IPVS as well",
        ),
        Ok(remains) if remains.is_empty() => Check::ok(NAME, "does not run, and has left nothing"),
        Ok(remains) => {
            let cure = "passlane run --adopt takes its connections over and removes them";
            Check::bad(NAME, Grade::Warn, format!("has left {}", remains.summary()), cure)
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_printed_as_they_always_were() {
        let items = vec![
            Check::ok("kernel 5.15", "6.12.0"),
            Check::bad("ip_vs", Grade::Fail, "not there", "modprobe ip_vs"),
            Check::bad("agent", Grade::Warn, "does not run", "passlane run"),
        ];
        crate::cli::snapshot::check("doctor", &Checks { items, modules: vec!["ip_vs".into()] });
    }

    #[test]
    fn the_file_for_modules_has_one_a_line() {
        let modules = ["ip_vs", "ip_vs_mh"].map(str::to_owned);
        let expected = "\n# /etc/modules-load.d/passlane.conf\nip_vs\nip_vs_mh\n";
        assert_eq!(modules_file(&modules), expected);
    }

    #[tokio::test]
    async fn the_default_schedulers_module_is_needed() {
        let scheduler = (crate::model::Scheduler::Mh, crate::model::SchedulerFlags(0));
        let modules = modules(&Settings { scheduler, ..Settings::default() }).await;
        assert_eq!(modules[0], "ip_vs", "loaded first");
        assert!(modules.contains(&"ip_vs_mh".to_owned()), "{modules:?}");
    }

    #[test]
    fn the_size_of_maglev_tables_is_told_with_what_speaks_against_it() {
        use proxy_common::hash::mh::Size;
        let seen = |index| mh_table::Finding {
            seen: Ok(Size::DEFAULT),
            configured: Size::of_index(index).map(|size| (size, "/boot/config-6.12".to_owned())),
        };
        let check = mh_tables(&seen(12));
        assert_eq!(
            (check.grade, &*check.found),
            (Grade::Ok, "4093 slots (CONFIG_IP_VS_MH_TAB_INDEX=12)")
        );
        let check = mh_tables(&seen(10));
        assert_eq!(check.grade, Grade::Warn);
        assert!(check.found.contains("/boot/config-6.12 says 1021"), "{}", check.found);
        let seen = Err(mh_table::Error::Untaken(3));
        let check = mh_tables(&mh_table::Finding { seen, configured: None });
        assert_eq!((check.grade, &*check.cure), (Grade::Warn, "run as root"));
    }

    #[test]
    fn an_absent_module_is_named_with_the_command() {
        let check = modules_loaded(&["passlane_none".to_owned()]);
        assert_eq!(check.grade, Grade::Warn);
        assert!(check.cure.starts_with("modprobe -a passlane_none;"), "{}", check.cure);
    }
}
