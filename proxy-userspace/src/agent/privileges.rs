//! What takes all privileges is done first, and then they are given up.
//!
//! | kept | for | where |
//! |---|---|---|
//! | CAP_NET_ADMIN | IPVS, nft, links, routes, conntrack, tc, settings below `/proc/sys/net` | always |
//! | CAP_BPF | maps and programs | with a fast path, or node ports on loopback |
//! | CAP_PERFMON | the verifier's trust in programs that handle pointers | the same |
//! | CAP_NET_BIND_SERVICE | `/healthz` or `/metrics` below port 1024 | where it is so configured |
//! | CAP_NET_RAW | programs of iptables-legacy, which remove kube-proxy's chains | with `--adopt` |
//! | CAP_DAC_READ_SEARCH | manifests or a kubeconfig that belong to another user | where they do |

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use proxy_common::hash::mh::Size;
use tracing::{info, warn};

use super::{Fatal, datapath, facts, sysctls};
use crate::{
    chain::chain,
    config::{Settings, Source},
    kernel::{
        bpf,
        capability::{self, Capability},
        ipvs::mh_table,
        module, oom,
    },
    ledger::Ledger,
    model::Scheduler,
    status::Lock,
};

/// Nothing works without them.
const MODULES: [&str; 2] = ["ip_vs", "nf_conntrack"];
/// The kernel loads these by itself, where it can find them.
const OTHER_MODULES: [&str; 8] = [
    "nf_tables",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_reject_inet",
    "dummy",
    "cls_bpf",
    "sch_ingress",
];
/// Ports below it are for the privileged.
const FIRST_FREE_PORT: u16 = 1024;

/// Checks for what nothing works without. What the fast path needs costs only the fast path.
///
/// # Errors
///
/// [`Fatal::Lacks`].
pub fn check() -> Result<(), Fatal> {
    match capability::missing(&[Capability::NetAdmin])?.first() {
        Some(capability) => Err(Fatal::Lacks { capability: *capability }),
        None => Ok(()),
    }
}

/// Loads the modules that the agent works with: what is to be watched has to be there before.
///
/// # Errors
///
/// Root's privileges are missing, or a module.
pub fn load_modules() -> Result<(), Fatal> {
    check()?;
    for name in MODULES {
        module::load(name)?;
    }
    // The kernel loads it by itself; that there is none is told by who needs it.
    let _ = module::load("nf_tables");
    Ok(())
}

/// Does what takes more than a running agent has, and gives up the rest. To be called before there
/// are other threads: they would keep what they have. Returns the size of the tables of scheduler
/// `mh`, where it is of use and known.
///
/// # Errors
///
/// The first thing without which nothing works.
pub fn settle(settings: &Settings) -> Result<Option<Size>, Fatal> {
    if let Err(error) = oom::set_score(settings.oom_score_adj) {
        warn!(event = "oom_score_failed", error = chain(&error), "oom_score_adj stays as it was");
    }
    let of_use = settings.scheduler.0 == Scheduler::Mh
        || settings.hash_plane.is_wanted()
        || module::is_loaded("ip_vs_mh");
    let size = of_use.then(find_mh_tables).flatten();
    if wants_bpf(settings) {
        // That there is none is told with the fast path, which does without.
        let _ = bpf::mount_where_absent(&settings.paths.bpffs);
    }
    let kept = kept(settings)?;
    capability::keep_only(&kept)?;
    let missing = capability::missing(&kept)?;
    let held: Vec<_> = kept.iter().filter(|each| !missing.contains(each)).collect();
    let words: Vec<_> = held.iter().map(ToString::to_string).collect();
    info!(event = "privileges", kept = words.join(" "), "all other capabilities are given up");
    Ok(size)
}

/// Nodes agree on where a client goes only if their tables are of one size.
fn find_mh_tables() -> Option<Size> {
    let finding = mh_table::find();
    if let Some(doubt) = finding.doubt() {
        warn!(event = "mh_table_doubted", doubt, "choices of scheduler mh");
    }
    if let Some(size) = finding.size() {
        let (index, slots) = (size.index(), size.slots());
        info!(event = "mh_table", index, slots, "the tables of scheduler mh");
    }
    finding.size()
}

/// Does what takes privileges, for agents that will have none of them.
///
/// # Errors
///
/// The first thing without which nothing works.
pub fn initialize(settings: &Settings) -> Result<(), Fatal> {
    check()?;
    let _lock = Lock::take(&settings.paths.state_dir)?;
    for name in MODULES {
        module::load(name)?;
    }
    let scheduler = format!("ip_vs_{}", settings.scheduler.0);
    for name in OTHER_MODULES.into_iter().chain([scheduler.as_str()]) {
        if !module::is_present(name)
            && let Err(error) = module::load(name)
        {
            warn!(event = "module_failed", error = chain(&error), "the kernel may do without");
        }
    }
    if wants_bpf(settings)
        && let Err(error) = bpf::mount_where_absent(&settings.paths.bpffs)
    {
        warn!(event = "bpffs_failed", error = chain(&error), "there will be no fast path");
    }
    let mut ledger = Ledger::open(&settings.paths.state_dir)?;
    sysctls::apply(&mut ledger, sysctls::Need::Always)?;
    if !datapath::is_off(settings)
        && let Err(error) = sysctls::apply_for_fast_path(&mut ledger, settings)
    {
        warn!(event = "fast_path_observe", %error, "the fast path will only observe");
    }
    if settings.hash_plane.is_wanted()
        && let Err(error) = sysctls::apply(&mut ledger, sysctls::Need::HashPlane)
    {
        warn!(event = "hash_plane_failed", %error, "IPVS will do all by itself");
    }
    sysctls::apply_configured(&mut ledger, settings)?;
    info!(event = "initialized", "passlane run needs no other privileges now");
    Ok(())
}

fn wants_bpf(settings: &Settings) -> bool {
    !datapath::is_off(settings)
        || facts::wants_localhost(settings)
        || settings.hash_plane.is_wanted()
}

/// Returns what a running agent has a use for.
fn kept(settings: &Settings) -> Result<Vec<Capability>, capability::Error> {
    let mut kept = vec![Capability::NetAdmin];
    if wants_bpf(settings) {
        kept.extend([Capability::Bpf, Capability::Perfmon]);
    }
    let ports = [settings.healthz_bind_address, settings.metrics_bind_address];
    if ports.into_iter().flatten().any(|addr| addr.port() < FIRST_FREE_PORT) {
        kept.push(Capability::NetBindService);
    }
    if settings.adopt {
        kept.push(Capability::NetRaw);
    }
    let files = files(settings);
    if capability::without_file_privileges(|| files.iter().any(|path| is_refused(path)))? {
        kept.push(Capability::DacReadSearch);
    }
    Ok(kept)
}

/// Returns the files that the configuration names.
fn files(settings: &Settings) -> Vec<PathBuf> {
    let source = match &settings.source {
        Source::File(path) => Some(path.clone()),
        Source::Kubernetes => None,
    };
    let mut files: Vec<_> = source.into_iter().chain(settings.kubeconfig.clone()).collect();
    // The manifests of a directory have permissions of their own.
    let within = files.iter().filter_map(|path| std::fs::read_dir(path).ok()).flatten().flatten();
    let within: Vec<_> = within.map(|entry| entry.path()).collect();
    files.extend(within);
    files
}

/// Says whether permissions keep this process from reading a file or directory.
fn is_refused(path: &Path) -> bool {
    File::open(path).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::model::FastPath;

    #[test]
    fn what_is_kept_follows_from_what_is_configured() {
        let source = tempfile::tempdir().unwrap();
        let mut settings =
            Settings { source: Source::File(source.path().to_owned()), ..Settings::default() };
        let all = [Capability::NetAdmin, Capability::Bpf, Capability::Perfmon];
        assert_eq!(kept(&settings).unwrap(), all);
        settings.fast_path = FastPath::Off;
        assert_eq!(kept(&settings).unwrap(), [Capability::NetAdmin]);
        settings.metrics_bind_address = Some("127.0.0.1:80".parse().unwrap());
        assert_eq!(kept(&settings).unwrap(), [Capability::NetAdmin, Capability::NetBindService]);
    }

    #[test]
    fn manifests_of_another_user_are_still_read() {
        let source = tempfile::tempdir().unwrap();
        let file = source.path().join("a.yaml");
        std::fs::write(&file, "").unwrap();
        // Not even its owner may read it without the capability.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
        let settings = Settings {
            source: Source::File(source.path().to_owned()),
            fast_path: FastPath::Off,
            ..Settings::default()
        };
        assert_eq!(kept(&settings).unwrap(), [Capability::NetAdmin, Capability::DacReadSearch]);
    }
}
